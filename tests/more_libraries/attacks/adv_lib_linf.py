"""Attacks of adv-lib (jeromerony) from a file of a user's own."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import adv_lib
from pydantic import Field
from torch import Tensor

from robench.attacks.libraries.adapter import LibraryAttack
from robench.attacks.target import WhiteBoxTarget

FILES = {"apgd": "auto_pgd", "apgd_targeted": "auto_pgd", "fmn": "fast_minimum_norm"}
"""Attack -> the file of adv_lib.attacks that it is in."""


def attack_of(name: str) -> Callable[..., Tensor]:
    """An attack from its own file: the package imports torchvision, which these do not need."""
    path = Path(adv_lib.__file__).parent / "attacks" / f"{FILES[name]}.py"
    spec = importlib.util.spec_from_file_location(f"adv_lib_{FILES[name]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., Tensor] = getattr(module, name)
    return made


ATTACKS = {name: attack_of(name) for name in FILES}


class AdvLib(LibraryAttack):
    """One of the linf attacks of adv-lib, by the name of its function there. `fmn` looks for the
    nearest wrong image; it is one of this ball where it lies in it."""

    library: ClassVar[str] = "adv-lib"
    needs: ClassVar[str] = "white-box"

    attack: str = "apgd_targeted"
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of that function other than model, images, labels, norm and eps."""

    def attacked(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        options = dict(self.options)
        if self.attack != "fmn":
            options["eps"] = target.eps
        module = target.module(rows).eval()
        made = ATTACKS[self.attack](model=module, inputs=x, labels=y, norm=math.inf, **options)
        return made.detach()
