"""What tasks read of the store, sent once to every node of a cluster: weights, and inputs that many
cells share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from robench.errors import RobenchError
from robench.store import files
from robench.store.store import Store

SHARE = 0.25
"""Of the memory that the smallest node has for such things, at most; the latest stay."""


class Sent:
    """What the driver has handed to Ray, which brings it to a node when the first task there needs
    it, and keeps it there for the next.

    Args:
        room: bytes that may be handed over at a time; 0: nothing is, and tasks read the store.
    """

    def __init__(self, ray: Any, store: str, room: float) -> None:
        self._ray, self._room = ray, room
        self._files = Store(store).files
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def references(self, names: Iterable[str]) -> dict[str, Any]:
        """Name of a file of the store -> Ray's reference to its bytes. Names that are not there, or
        too large, are left out: the task reads them itself, and says what is wrong with them."""
        held: dict[str, Any] = {}
        with self._lock:
            for name in names if self._room else ():
                if name not in self._held:
                    try:
                        data = np.frombuffer(self._files.read(name), np.uint8)
                    except (OSError, ValueError, RobenchError):
                        continue
                    if data.nbytes > self._room:
                        continue
                    self._held[name] = self._ray.put(data), data.nbytes
                self._held.move_to_end(name)
                held[name] = self._held[name][0]
            while sum(size for _, size in self._held.values()) > self._room:
                self._held.popitem(last=False)  # tasks under way keep what they have been given
        return held

    def forget(self, names: Iterable[str]) -> None:
        """They are not whole, and will be made anew."""
        with self._lock:
            for name in names:
                self._held.pop(name, None)


@contextmanager
def at_hand(store: str, sent: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Inside the block these files of a store are read from what was sent."""
    keys = {(Store(store).files.url, name): data for name, data in sent.items()}
    files.at_hand.update(keys)
    try:
        yield
    finally:
        for key in keys:
            files.at_hand.pop(key, None)
