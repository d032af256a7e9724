"""Attributes that are others for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def swapped(places: Iterable[Any], **values: Any) -> Iterator[None]:
    """Inside the block attributes of these objects have these values; then they are as they
    were."""
    before = [(place, name, getattr(place, name)) for place in places for name in values]
    try:
        for place, name, _ in before:
            setattr(place, name, values[name])
        yield
    finally:
        for place, name, old in before:
            setattr(place, name, old)
