"""The library timm where torchvision is not installed: its networks need only names of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, ClassVar

import pytest

PARTS = ("", ".datasets", ".ops", ".ops.misc", ".transforms", ".transforms.functional")


class _Named(type):
    """A class that has whatever is looked up in it, each thing once."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Named(name, (), {})
        setattr(cls, name, made)
        return made


def timm_or_skip() -> Any:
    """The library, with classes that do nothing in place of torchvision's where that is not here:
    timm uses them to prepare images, which robench does itself. Skips where there is no timm."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("timm")
    made = {f"torchvision{part}": _Stand(f"torchvision{part}") for part in PARTS}
    sys.modules.update(made)
    try:
        return importlib.import_module("timm")
    finally:
        for name in made:
            del sys.modules[name]


class _Stand(ModuleType):
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        place = f"{self.__name__}.{name}"
        made = sys.modules.get(place) or _Named(name, (), {})
        setattr(self, name, made)
        return made
