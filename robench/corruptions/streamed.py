"""Corrupted test images that are made while they are used, and not kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from robench.data.base import Part

Make = Callable[[Part, int], np.ndarray]
"""Consecutive test images, and the index of the first -> what becomes of them."""
AT_ONCE = 2**24
"""Bytes of images that are made at once: so much is used again, where each batch of large pictures
would be given to the process, and emptied, anew."""


class Streamed:
    """Corrupted images (n, c, h, w), float32 in [0, 1], that are made whenever they are sliced: the
    same bits each time, since what an image becomes hangs on nothing else."""

    ndim = 4
    dtype = np.dtype(np.float32)

    def __init__(self, part: Part, first: int, make: Make) -> None:
        """
        Args:
            part: the clean images. first: index of the first of them among the test images.
        """
        self._part, self._first, self._make = part, first, make

    def __len__(self) -> int:
        return len(self._part)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._part.shape

    def __getitem__(self, items: slice) -> np.ndarray:
        start, stop, step = items.indices(len(self))
        if step != 1:
            raise IndexError("consecutive images only")
        at_once = max(1, AT_ONCE // (4 * math.prod(self.shape[1:])))
        if stop - start <= at_once:
            return self._some(start, stop)
        made = np.empty((stop - start, *self.shape[1:]), np.float32)
        for first in range(start, stop, at_once):
            last = min(first + at_once, stop)
            made[first - start : last - start] = self._some(first, last)
        return made

    def _some(self, start: int, stop: int) -> np.ndarray:
        part, numbers = self._part, self._part.numbers
        asked = Part(
            part.at(slice(start, stop)),
            part.labels[start:stop].copy(),
            None if numbers is None else numbers[start:stop],
        )
        return self._make(asked, self._first + start)

    def whole(self, at_once: int) -> np.ndarray:
        """All of them, made so many at once."""
        made = np.empty(self.shape, np.float32)
        for start in range(0, len(self), at_once):
            made[start : start + at_once] = self[start : start + at_once]
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = self[:]
        return made if dtype is None else made.astype(dtype)
