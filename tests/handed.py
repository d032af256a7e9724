"""A small trained network for the digits, and what `robench.evaluate` makes of variants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_runs import small_workspace
from torch import Tensor, nn

import robench
from robench.checks.trial import reference

IMAGES = 30


class Plain(nn.Module):
    """The reference network of attacks/trial.py as any torch module: 64-32-10 on the digits."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.second = nn.Linear(32, classes)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.first(x.flatten(1)))

    def forward(self, x: Tensor) -> Any:
        return self.second(self.hidden(x))


def trained(made: nn.Module | None = None) -> Any:
    """A module with the reference network's weights where it has the same ones."""
    network, _, _ = reference()
    values = list(network.parameters())
    made = Plain() if made is None else made
    kernels = [value for value in values if value.dim() == 2]
    biases = [value for value in values if value.dim() == 1]
    with torch.no_grad():
        for layer, kernel, bias in zip(("first", "second"), kernels, biases, strict=False):
            getattr(made, layer).weight.copy_(kernel)
            getattr(made, layer).bias.copy_(bias)
    return made


def measured(module: nn.Module, store: Path, **settings: Any) -> robench.Evaluation:
    """The module on the first digits of the test set, clean, under PGD and by scores; without the
    attacks that diagnoses are made from, which cost several times as much."""
    asked: dict[str, Any] = {
        "attacks": [
            {"name": "pgd", "steps": 5, "eps": 0.1},
            {"name": "square", "queries": 20, "eps": 0.1},
        ],
        "workspace": small_workspace(store / "workspace").root,
        "report": "small",
        "images": IMAGES,
        "progress": False,
        "store": store,
        "name": "mine",
    }
    return robench.evaluate(module, "digits", **{**asked, **settings})


def numbers(found: robench.Evaluation) -> dict[str, float]:
    row = found.to_pandas().iloc[0]
    return {name: float(row[name]) for name in ("clean", "pgd", "square", "worst_case")}
