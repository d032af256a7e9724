"""What the adapters of attack libraries share: validated parameters, seeds, silence, and that what
is wrong already stays as it is."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.target import BudgetExceeded, DecisionTarget
from robench.errors import RobenchError
from robench.networks.torch_state import numpy_and_python_seeded, torch_seeded

WRONG = 32
"""Draws of a noisy network that must all be wrong about an image for it to be wrong already."""


class LibraryAttack(Attack):
    """An attack of a library. Subclasses override `attacked`, and say in `targeted` whether it can
    go towards a class.

    Libraries flee the class that a network answers, or towards whichever they are given: an image
    that is wrong already would be healed by that. So they get to see the others only.
    """

    library: ClassVar[str]
    """What errors call it."""
    hidden: ClassVar[set[str]] = set()
    """Parameters that a card cannot set: no plain values, or the adapter's to set."""

    @classmethod
    def offered(cls) -> Mapping[str, type]:
        """The library's attacks by name, where it has several."""
        return {}

    @classmethod
    def fields_for(cls, settings: Mapping[str, Any]) -> type[BaseModel]:
        name = settings.get("attack")
        if name not in cls.offered():
            return cls.fields()
        return _fields(cls, name)  # type: ignore[arg-type]

    def parameters(self) -> dict[str, Any]:
        """What the library's own attack is built with."""
        keys = set(self.fields_for(vars(self)).model_fields) - {"attack"}
        return {key: getattr(self, key) for key in keys}

    def perturb(self, target: DecisionTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if target.eps == 0:
            return x
        y = target.sought(y)
        right = standing(target, x, y)
        rows = torch.nonzero(right)[:, 0]
        if not len(rows):
            return x
        target.record.skip(torch.nonzero(~right)[:, 0])
        clean, labels = x[rows], y[rows]
        with library_call(rng):
            try:
                x_adv = self.attacked(target, clean, labels, rows)
            except (BudgetExceeded, RobenchError):
                raise
            except Exception as error:
                raise RobenchError(
                    f"attack {self.library}: {getattr(self, 'attack', '')} gave up: "
                    f"{str(error) or type(error).__name__}{self._hint(target)}"
                ) from error
        return x.index_copy(0, rows, within(target, x_adv.to(x), clean))

    def attacked(self, target: DecisionTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """What the library makes of images that are not wrong yet. The library's global random
        states are seeded, and it is kept silent.

        Args:
            y: their labels, or of a targeted threat the classes aimed at.
            rows: which images of the batch they are; `target.module(rows)` counts by it.
        """
        raise NotImplementedError

    def _hint(self, target: DecisionTarget) -> str:
        """What may be behind an error, to be added to it."""
        return ""


def attacks_in(module: str, base: str, left_out: Callable[[str], bool]) -> dict[str, type]:
    """The attacks in a module of a library, by name.

    Args:
        base: what all of them are, "package.module:class". left_out: whether a name is.
    """
    home, _, kind = base.partition(":")
    with library_call(torch.Generator()):
        held, known = vars(import_module(module)), getattr(import_module(home), kind)
    return {
        name: item
        for name, item in held.items()
        if inspect.isclass(item) and issubclass(item, known) and not left_out(name)
    }


def standing(target: DecisionTarget, x: Tensor, y: Tensor) -> Tensor:
    """Whether each image is not wrong already, (n,) bool; of a noisy network: not by every draw. Of
    a targeted threat, whose aims y are: not taken for its aim."""
    left = torch.arange(len(x), device=x.device)
    for _ in range(WRONG if target.stochastic else 1):
        if not len(left):
            break
        equal = target.labels(x[left], left) == y[left]
        left = left[equal if target.aim is not None else ~equal]
    right = torch.ones(len(x), dtype=torch.bool, device=x.device)
    right[left] = False
    return right


def parameters_of(attack: type) -> Mapping[str, inspect.Parameter]:
    """What a library's attack is built with, `self` among it."""
    built: Any = attack.__init__  # type: ignore[misc]  # the class is known by its library only
    return inspect.signature(built).parameters


@lru_cache(maxsize=256)
def _fields(adapter: type[LibraryAttack], name: str) -> type[BaseModel]:
    """The adapter's own fields and the parameters of the library's attack, with their types and
    defaults."""
    known: dict[str, Any] = {
        key: (field.annotation, field) for key, field in adapter.fields().model_fields.items()
    }
    for parameter in parameters_of(adapter.offered()[name]).values():
        many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if many or parameter.name in adapter.hidden:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        known[parameter.name] = (_plain(parameter.annotation, default), default)
    model: type[BaseModel] = create_model(
        name,
        __config__=ConfigDict(extra="forbid", frozen=True, protected_namespaces=()),
        **known,
    )
    return model


def _plain(annotation: Any, default: Any) -> Any:
    """The plain types that an annotation, a type or its text, speaks of.

    Texts are not evaluated: they name types that the libraries import for type checkers only.
    """
    if typing.get_origin(annotation) is typing.Literal or not isinstance(annotation, str):
        return annotation
    words = set(re.findall(r"[a-z]+", annotation))
    types: list[Any] = [kind for kind in (bool, int, float, str) if kind.__name__ in words]
    if not types or words & {"tuple", "list", "dict"}:
        return Any
    if default is None or "None" in annotation:
        types.append(None)
    return typing.Union[tuple(types)]  # noqa: UP007 (made at run time)


@contextlib.contextmanager
def library_call(rng: torch.Generator) -> Iterator[None]:
    """A call into a library that draws from global random states and talks.

    The states are seeded from `rng` and restored; warnings, log lines and prints are kept back.
    """
    seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
    level = logging.root.manager.disable
    with (
        torch_seeded(seed, rng.device),
        numpy_and_python_seeded(seed),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def within(target: DecisionTarget, x_adv: Tensor, x: Tensor) -> Tensor:
    """What a library found, inside the budget: too far ones are projected, in l0 given up."""
    x_adv = torch.where(torch.isfinite(x_adv), x_adv, x).to(x.dtype).clamp(0, 1)
    if target.norm == "l0":
        near = target.ball.distance(x_adv, x) <= target.eps
        return torch.where(near.view(-1, *[1] * (x.dim() - 1)), x_adv, x)
    return x_adv if target.norm == "none" else target.project(x_adv, x)


def starting_points(
    target: DecisionTarget, x: Tensor, y: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Where decision-based attacks start: of each image, the nearest one of the batch that the
    model calls something else than the image's label, or the class that is aimed at.

    Args:
        y: labels, or of a targeted threat the classes aimed at.
        rows: which images of the batch they are.

    Returns (rows of x that do not reach the goal yet and have such a start, their starts).
    """
    labels = target.labels(x, rows)
    flat = x.flatten(1)
    gaps = torch.cdist(flat, flat)
    there = labels[None, :] != y[:, None]
    if target.aim is not None:
        there = ~there
    gaps.masked_fill_(~there, torch.inf)
    gap, nearest = gaps.min(1)
    rows = torch.nonzero(~there.diagonal() & gap.isfinite())[:, 0]
    return rows, x[nearest[rows]]
