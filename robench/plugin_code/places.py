"""Where a plugin could replace what robench computes with: its modules, those of its libraries, and
classes in them; which of their names are looked at, and the functions behind those.
"""

from __future__ import annotations

import builtins
import copy
import functools
import hashlib
import inspect
import io
import itertools
import json
import math
import operator
import os
import pathlib
import pickle
import random
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

LIBRARIES: tuple[Any, ...] = (
    *(builtins, copy, functools, hashlib, io, itertools, json, math, operator, os, pathlib.Path),
    *(pickle, random, shutil, struct, sys, tempfile, time, zlib),
    *(np, np.linalg, np.random),
    *(torch, torch.Tensor, torch.autograd, torch.linalg, torch.optim.Optimizer),
    *(nn, nn.functional, nn.Module, nn.init, torch._C._nn),
)
WITH_CLASSES = ("art.attacks.evasion", "art.estimators", "eagerpy", "foolbox")
"""Modules of libraries whose classes attacks are made of."""
PUBLIC = ("PIL", "cv2", "imagecorruptions", "pyarrow", "safetensors", "scipy", "skimage")
"""Libraries of functions: corruptions are made with them, and files."""
CHANGING = {
    "_fields", "Storage", "manual_seed", "step", "excepthook", "displayhook", "__slotnames__",
}  # fmt: skip
"""What classes of robench set on themselves when they are first used, and Python's copy and pickle
on any class; what torch replaces itself (with the default dtype, when it imports its compiler, when
an optimiser is made), and what shows errors."""


@dataclass(frozen=True)
class Place:
    """A module or class, and the names in it that are looked at."""

    where: Any
    names: frozenset[str]

    @property
    def strict(self) -> bool:
        """Whether nothing may be added either: classes of libraries keep things of their own."""
        return not self.where.__module__.startswith(WITH_CLASSES)

    def called(self, name: str) -> str:
        if isinstance(self.where, ModuleType):
            return f"{self.where.__name__}.{name}"
        return f"{self.where.__module__}.{self.where.__qualname__}.{name}"


def _callables(where: Any) -> list[str]:
    return [name for name, value in vars(where).items() if callable(value)]


Looked = Iterator[tuple[Any, list[str]]]
"""Modules and classes, and the names in each that are looked at."""


def in_library(where: Any) -> Looked:
    """A module or class of LIBRARIES, and torch's layers."""
    yield where, [name for name in _callables(where) if name not in CHANGING]
    if where is nn:
        for layer in filter(inspect.isclass, vars(nn).values()):
            yield layer, [name for name in ("forward",) if name in vars(layer)]


def in_public(module: ModuleType) -> Looked:
    yield module, _callables(module)


def in_module(module: ModuleType) -> Looked:
    """A module of robench, or of a library whose classes attacks are made of, and its classes."""
    inside = vars(module)
    yield module, [n for n, value in inside.items() if callable(value) or n.isupper()]
    for item in inside.values():
        if inspect.isclass(item) and item.__module__ == module.__name__:
            own = {key: value for key, value in vars(item).items() if key not in CHANGING}
            special = {key for key in own if key.startswith("__")}
            yield item, [k for k in own if k not in special or inspect.isfunction(own[k])]


DECORATORS = 5
"""Wrappers that are looked through."""


def _functions_in(value: Any) -> Iterator[FunctionType]:
    """The functions in Python behind a value of a module or a class."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    for _ in range(DECORATORS):
        if isinstance(value, FunctionType):
            yield value
        value = getattr(value, "__dict__", {}).get("__wrapped__")


class Found:
    """What there is to look at in a module or a class. While it holds as many names as it did then,
    it is not gone through again: that takes longer than a snapshot of all."""

    def __init__(self, where: Any, look: Callable[[Any], Looked], tables: bool) -> None:
        self.size = len(vars(where))
        self.places = [Place(place, frozenset(names)) for place, names in look(where) if names]
        self.tables = [
            (f"{where.__name__}.{name}", item)
            for name, item in (vars(where).items() if tables else ())
            if name.isupper() and type(item) in (dict, list)
        ]

    @cached_property
    def functions(self) -> list[tuple[str, FunctionType]]:
        """The functions behind the names, by what they are called."""
        return [
            (place.called(name), function)
            for place in self.places
            for name in place.names
            for function in _functions_in(vars(place.where).get(name))
        ]
