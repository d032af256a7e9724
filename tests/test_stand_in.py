"""BPDA: gradients go through what a module names as its stand-in, answers never do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from handed import Plain, measured, numbers, trained
from torch import Tensor, nn


class Quantised(nn.Module):
    """Four levels, by a detour through numpy: no gradient at all."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.round(x.numpy() * 3).astype(np.float32) / 3)


class Named(Quantised):
    stand_in = staticmethod(lambda x: x)


class Misshapen(Quantised):
    stand_in = staticmethod(lambda x: x.flatten(1))


class Defended(Plain):
    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.before = first

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.before(x))


def test_a_detour_through_numpy_is_attacked_through_its_stand_in(tmp_path: Path) -> None:
    found = measured(trained(Defended(Named())), tmp_path)
    with_it = numbers(found)
    assert with_it["pgd"] < with_it["clean"] - 0.2
    assert with_it["worst_case"] <= with_it["pgd"]
    module = trained(Defended(Named()))
    assert not module.before._forward_hooks


def test_answers_do_not_depend_on_a_stand_in(tmp_path: Path) -> None:
    without = measured(trained(Defended(Quantised())), tmp_path / "a").to_pandas().iloc[0]
    with_it = measured(trained(Defended(Named())), tmp_path / "b").to_pandas().iloc[0]
    for column in ("clean", "square"):
        assert without[column] == with_it[column]
    # numpy takes no tensor with a graph: what needs a gradient does without, and finds no more
    assert with_it["pgd"] <= without["pgd"] < without["clean"]


def test_a_stand_in_of_another_shape_is_refused(tmp_path: Path) -> None:
    found = measured(trained(Defended(Misshapen())), tmp_path)
    errors = [failure["error"] for failure in found.results.failures()]
    assert any("Misshapen: its stand_in answers" in error for error in errors)
