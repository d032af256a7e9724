"""What functions in Python hold inside: code and defaults, which can be replaced while the function
stays the same object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

DECORATORS = 5
"""Wrappers that are looked through."""


def functions_in(value: Any) -> Iterator[FunctionType]:
    """The functions in Python behind a value of a module or a class."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    for _ in range(DECORATORS):
        if isinstance(value, FunctionType):
            yield value
        value = getattr(value, "__dict__", {}).get("__wrapped__")


class Functions:
    """Functions that are looked at, by the names of their places.

    What they hold is compared by identity. Defaults of keywords are compared with what they were
    when the functions were found: copying them for each look takes longer than all else.
    """

    def __init__(self, named: Iterable[tuple[str, FunctionType]]) -> None:
        found = {id(function): (name, function) for name, function in named}
        self.names = [name for name, _ in found.values()]
        self.all = [function for _, function in found.values()]
        self.keywords = [
            (name, function, {**function.__kwdefaults__})
            for name, function in found.values()
            if function.__kwdefaults__
        ]

    def snapshot(self) -> Held:
        return Held(self, [f.__code__ for f in self.all], [f.__defaults__ for f in self.all])


@dataclass(frozen=True)
class Held:
    """What functions held at a moment."""

    functions: Functions
    code: list[Any]
    defaults: list[Any]

    def put_back(self) -> list[str]:
        """Names of functions that hold something else; they hold what they did again."""
        these, replaced = self.functions, []
        now = these.snapshot()
        if now.code != self.code or now.defaults != self.defaults:
            for name, function, code, defaults in zip(
                these.names, these.all, self.code, self.defaults, strict=True
            ):
                if function.__code__ is not code or function.__defaults__ is not defaults:
                    replaced.append(name)
                    function.__code__, function.__defaults__ = code, defaults
        for name, function, kept in these.keywords:
            if function.__kwdefaults__ != kept:
                replaced.append(name)
                function.__kwdefaults__ = {**kept}
        return list(dict.fromkeys(replaced))
