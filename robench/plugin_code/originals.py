"""The functions and settings that robench computes with, its own and its libraries', and what
functions hold inside: who replaces one changes what all others compute."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from robench.plugin_code.places import (
    CHANGING,
    LIBRARIES,
    PUBLIC,
    WITH_CLASSES,
    Found,
    Looked,
    Place,
    in_library,
    in_module,
    in_public,
)
from robench.plugin_code.reach import PLATFORM, installed


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

    places: list[Place]
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

    def _all(self) -> Iterator[tuple[Place, dict[str, Any]]]:
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


def _values(places: list[Place]) -> list[Any]:
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


class Originals:
    """Takes snapshots; where to look is found once, and again when modules were imported."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._tables: list[tuple[str, Any]] = []
        self._functions = _Functions()
        self._found: dict[Any, Found] = {}
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
        inside = [self._look_at(where, in_library) for where in LIBRARIES]
        beside = []
        for name, module in list(sys.modules.items()):
            if not isinstance(module, ModuleType):
                continue
            top = name.partition(".")[0]
            if top == "robench":
                inside.append(self._look_at(module, in_module))
            elif name.startswith(WITH_CLASSES):
                beside.append(self._look_at(module, in_module))
            elif top in PUBLIC and "._" not in name and name.count(".") < 3:
                beside.append(self._look_at(module, in_public))
        self._places = [place for found in inside + beside for place in found.places]
        self._tables = [table for found in inside + beside for table in found.tables]
        self._functions = _Functions(named for found in inside for named in found.functions)

    def _look_at(self, where: Any, look: Callable[[Any], Looked]) -> Found:
        found = self._found.get(where)
        if found is None or found.size != len(vars(where)):
            found = self._found[where] = Found(where, look, tables=look is in_module)
        return found
