"""Any attack of foolbox by name (Rauber et al., foolbox 3, JOSS 2020)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator
from torch import Tensor

from robench.attacks.libraries.adapter import (
    LibraryAttack,
    attacks_in,
    parameters_of,
    starting_points,
)
from robench.attacks.target import DecisionTarget
from robench.errors import RobenchError, nearest

GRADIENT_FREE = {
    "additive_noise": "decision",
    "blended_noise": "decision",
    "blur": "decision",
    "boundary_attack": "decision",
    "contrast": "decision",
    "contrast_min": "decision",
    "gen_attack": "score",
    "hop_skip_jump": "decision",
    "inversion": "decision",
    "pointwise": "decision",
    "saltandpepper": "decision",
    "spatial_attack": "decision",
}
"""foolbox's modules whose attacks ask for no gradient, and what they ask for."""
NOT_OFFERED = {"Attack", "BinarizationRefinementAttack", "DatasetAttack"}
"""The base class, and attacks that need more than a model and images."""
AIMLESS = {
    "binarization", "deepfool", "fast_gradient_method", "newtonfool",
    "virtual_adversarial_attack",
}  # fmt: skip
"""Modules whose attacks go towards no class; DeepFool takes one, and goes to the nearest."""
HIDDEN = {"self", "init_attack", "distance", "tensorboard"}
NORMS: tuple[str, ...] = ("linf", "l2", "l1", "l0")


@lru_cache(maxsize=1)
def _attacks() -> dict[str, type]:
    return attacks_in("foolbox.attacks", "foolbox.attacks:Attack", NOT_OFFERED.__contains__)


def _offered(name: str) -> str:
    if name not in _attacks():
        raise ValueError(f"foolbox has no such attack; {nearest(name, _attacks())}")
    if "BrendelBethge" in name and find_spec("numba") is None:
        raise ValueError("it needs the package numba, which foolbox does not declare")
    return name


class Foolbox(LibraryAttack):
    """An attack of foolbox: `attack` names it, the other keys are its own parameters."""

    attack: Annotated[str, AfterValidator(_offered)]
    """Name in foolbox.attacks, for example L2CarliniWagnerAttack."""
    needs: ClassVar[str] = "decision"
    norms: ClassVar[tuple[str, ...]] = (*NORMS, "none")
    paper: ClassVar[str] = "Rauber et al. 2020, foolbox"
    library: ClassVar[str] = "foolbox"
    hidden: ClassVar[set[str]] = HIDDEN
    version: ClassVar[int] = 2

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        offered = _attacks()[self.attack]
        module = offered.__module__.rsplit(".", 1)[-1]
        vars(self)["needs"] = GRADIENT_FREE.get(module, "white-box")
        vars(self)["norms"] = self._norms()
        vars(self)["targeted"] = module not in AIMLESS

    @classmethod
    def offered(cls) -> Mapping[str, type]:
        return _attacks()

    def attacked(self, target: DecisionTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """By foolbox's `run`: what its `__call__` adds (clipping, counting) is ours to do."""
        foolbox, eagerpy = import_module("foolbox"), import_module("eagerpy")
        attack = self._build(target.norm)
        here, limits = torch.arange(len(x), device=x.device), dict[str, Any]()
        budget = None if target.eps == float("inf") or target.norm == "none" else target.eps
        parameters = inspect.signature(attack.run).parameters
        if "starting_points" in parameters:
            here, limits["starting_points"] = starting_points(target, x, y, rows)
            if not len(here):
                return x
        elif "epsilon" in parameters:
            if budget is None:
                raise RobenchError(f"attack foolbox: {self.attack} needs a finite eps")
            limits["epsilon"] = budget
        elif "early_stop" in parameters:
            limits["early_stop"] = budget
        model = foolbox.PyTorchModel(target.module(rows[here]), bounds=(0, 1), device=x.device)
        criterion = self._criterion(target, model, x[here], y[here])
        made = attack.run(model, eagerpy.astensor(x[here]), criterion, **limits)
        return x.index_copy(0, here, made.raw.to(x))

    def _criterion(self, target: DecisionTarget, model: Any, x: Tensor, y: Tensor) -> Any:
        """When foolbox is content: not with the label, or with the class that is aimed at."""
        criteria, eagerpy = import_module("foolbox.criteria"), import_module("eagerpy")
        kind = criteria.Misclassification
        if target.aim is not None:
            kind = criteria.TargetedMisclassification
        elif self.attack == "GenAttack":  # works towards a class: the likeliest wrong one
            kind = criteria.TargetedMisclassification
            y = model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        return kind(eagerpy.astensor(y))

    def _hint(self, target: DecisionTarget) -> str:
        return "; it expects a model without noise" if target.stochastic else ""

    def _build(self, norm: str) -> Any:
        """foolbox's object with the card's settings."""
        distances: Any = import_module("foolbox.distances")
        cls = _attacks()[self.attack]
        settings = self.parameters()
        if "distance" in parameters_of(cls):
            settings["distance"] = getattr(distances, "l2" if norm == "none" else norm)
        return cls(**settings)

    def _norms(self) -> tuple[str, ...]:
        """The norms that the attack minimises or keeps, as foolbox declares them."""
        if self.attack == "SpatialAttack":
            return ("none",)
        if "distance" in parameters_of(_attacks()[self.attack]):
            return NORMS
        try:
            power = self._build("l2").distance.p
        except AttributeError:  # one that never names a distance: it flips pixels back one by one
            return NORMS
        return ({0: "l0", 1: "l1", 2: "l2"}.get(power, "linf"),)
