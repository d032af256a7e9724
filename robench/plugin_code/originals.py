"""The functions and settings that robench computes with, its own and its libraries', and what
functions hold inside: who replaces one changes what all others compute."""

from __future__ import annotations

import builtins
import copy
import functools
import gc
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from robench.plugin_code.reach import PLATFORM, installed

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
class _Place:
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


@dataclass(frozen=True)
class _Held:
    """What functions hold inside: all that they refer to, one after the other, code and defaults
    among it."""

    referred: list[Any]
    code: list[Any]
    defaults: list[Any]


class _Functions:
    """Functions by the names of their places, and what they hold inside: code and defaults can be
    replaced while the function stays the same object.

    What they hold is compared by identity. Reading it from each takes longer than all else where
    audit hooks are told of it: it is read again only where a function refers to other objects than
    when it was read last, which the garbage collector says of all of them at once. Defaults of
    keywords are compared with what they were when the functions were found.
    """

    def __init__(self, named: Iterable[tuple[str, FunctionType]] = ()) -> None:
        by_id = {id(function): (name, function) for name, function in named}
        self._names = [name for name, _ in by_id.values()]
        self._all = [function for _, function in by_id.values()]
        self._keywords = [
            (name, function, own, {**own})
            for name, function in by_id.values()
            if (own := function.__kwdefaults__)
        ]
        self._last = _Held([], [], [])

    def held(self) -> _Held:
        """Code and defaults of all."""
        referred = gc.get_referents(*self._all)
        if not _same(referred, self._last.referred):
            code = [function.__code__ for function in self._all]
            defaults = [function.__defaults__ for function in self._all]
            self._last = _Held(referred, code, defaults)
        return self._last

    def put_back(self, before: _Held) -> list[str]:
        """Names of functions that hold something else; they hold what they did again."""
        replaced = []
        same = _same(gc.get_referents(*self._all), before.referred)
        if not same:
            inside = zip(self._names, self._all, before.code, before.defaults, strict=True)
            for name, function, code, defaults in inside:
                if function.__code__ is not code or function.__defaults__ is not defaults:
                    replaced.append(name)
                    function.__code__, function.__defaults__ = code, defaults
        for name, function, own, kept in self._keywords:
            if (own if same else function.__kwdefaults__) != kept:
                replaced.append(name)
                own.clear()
                own.update(kept)
                function.__kwdefaults__ = own
        return list(dict.fromkeys(replaced))


@dataclass(frozen=True)
class Snapshot:
    """What all names stood for at a moment, place after place in one list: many small ones would
    keep the garbage collector busy."""

    places: list[_Place]
    sizes: list[int]
    keys: list[str]
    values: list[Any]
    tables: list[tuple[str, Any, Any]]
    """Name, table, and a copy of what it held."""
    functions: _Functions
    inside: _Held
    modules: dict[str, ModuleType]
    finders: list[Any]

    def put_back(self, imported: bool = False) -> list[str]:
        """Names of what has been replaced since; they stand for what they did again.

        Args:
            imported: whether libraries were imported meanwhile: what an installed one replaces with
                its own is put back and not named.
        """
        replaced = []
        for place, found in [] if _same(self.values, _values(self.places)) else self._all():
            now = place.where.__dict__
            for name, value in found.items():
                if name in place.names and now.get(name, self) is not value:
                    if not (imported and _of_library(now.get(name))):
                        replaced.append(place.called(name))
                    setattr(place.where, name, value)
            if inspect.isclass(place.where):  # a new name may hide one of its bases'
                new = [n for n in now if n not in found and n not in CHANGING]
                for name in [n for n in new if place.strict or callable(now[n])]:
                    replaced.append(place.called(name))
                    delattr(place.where, name)
        for name, table, kept in self.tables:
            if table != kept:
                replaced.append(name)
                table.clear()
                (table.update if isinstance(table, dict) else table.extend)(kept)
        return replaced + self.functions.put_back(self.inside) + self._modules_put_back()

    def _modules_put_back(self) -> list[str]:
        """Modules in whose place there is another, or none, and ways to import that are gone."""
        replaced = []
        if list(map(sys.modules.get, self.modules)) != list(self.modules.values()):
            for name, module in self.modules.items():
                if sys.modules.get(name) is not module:
                    sys.modules[name] = module
                    if name.partition(".")[0] in PLATFORM | sys.stdlib_module_names:
                        replaced.append(f"sys.modules[{name!r}]")
        if any(finder not in sys.meta_path for finder in self.finders):
            sys.meta_path[:] = self.finders
            replaced.append("sys.meta_path")
        return replaced

    def _all(self) -> Iterator[tuple[_Place, dict[str, Any]]]:
        start = 0
        for place, size in zip(self.places, self.sizes, strict=True):
            part = slice(start, start + size)
            yield place, dict(zip(self.keys[part], self.values[part], strict=True))
            start += size


def _same(now: list[Any], before: list[Any]) -> bool:
    """Whether two lists hold the same objects: at once where they are the very same."""
    try:
        return now == before
    except Exception:  # some cannot be compared
        return False


def _values(places: list[_Place]) -> list[Any]:
    values: list[Any] = []
    for place in places:
        values.extend(place.where.__dict__.values())
    return values


def _of_library(value: Any) -> bool:
    """Whether an installed library has made it, and none that robench is built on."""
    module = getattr(value, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    top = module.partition(".")[0]
    return file is not None and top not in PLATFORM and installed(Path(file))


def _callables(where: Any) -> list[str]:
    return [name for name, value in vars(where).items() if callable(value)]


class Originals:
    """Takes snapshots; where to look is found once, and again when modules were imported."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self._tables: list[tuple[str, Any]] = []
        self._functions = _Functions()
        self._modules = -1

    def snapshot(self) -> Snapshot:
        if len(sys.modules) != self._modules:
            self._look_around()
        keys: list[str] = []
        for place in self._places:
            keys.extend(place.where.__dict__)
        sizes = [len(place.where.__dict__) for place in self._places]
        tables = [(name, table, table.copy()) for name, table in self._tables]
        values, inside = _values(self._places), self._functions.held()
        return Snapshot(
            *(self._places, sizes, keys, values, tables, self._functions, inside),
            modules=dict(sys.modules),
            finders=[*sys.meta_path],
        )

    def _look_around(self) -> None:
        self._modules = len(sys.modules)
        self._tables = []
        places = [
            (where, [n for n in _callables(where) if n not in CHANGING]) for where in LIBRARIES
        ]
        layers = filter(inspect.isclass, vars(nn).values())
        places += [(layer, ["forward"]) for layer in layers if "forward" in vars(layer)]
        beside: list[tuple[Any, list[str]]] = []
        for name, module in list(sys.modules.items()):
            if not isinstance(module, ModuleType):
                continue
            top = name.partition(".")[0]
            if top == "robench":
                places += self._places_in(module)
            elif name.startswith(WITH_CLASSES):
                beside += self._places_in(module)
            elif top in PUBLIC and "._" not in name and name.count(".") < 3:
                beside.append((module, _callables(module)))
        inside, others = (
            [_Place(where, frozenset(names)) for where, names in some if names]
            for some in (places, beside)
        )
        self._places = inside + others
        self._functions = _Functions(
            (place.called(name), function)
            for place in inside
            for name in place.names
            for function in _functions_in(vars(place.where).get(name))
        )

    def _places_in(self, module: ModuleType) -> Iterator[tuple[Any, list[str]]]:
        """A module of robench and the classes in it; its tables are noted."""
        inside = vars(module)
        yield module, [n for n, value in inside.items() if callable(value) or n.isupper()]
        for name, item in inside.items():
            if name.isupper() and type(item) in (dict, list):
                self._tables.append((f"{module.__name__}.{name}", item))
            if inspect.isclass(item) and item.__module__ == module.__name__:
                own = {key: value for key, value in vars(item).items() if key not in CHANGING}
                special = {key for key in own if key.startswith("__")}
                yield item, [k for k in own if k not in special or inspect.isfunction(own[k])]
