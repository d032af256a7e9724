"""Modules of other people with noise after their layers: unbiased gradients, and nothing else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small_runs import carry_out, small_workspace
from torch import Tensor, nn

import robench
from robench.errors import RobenchError
from robench.networks.losses import cross_entropy_rows
from robench.networks.modules.module import Module
from robench.networks.noise import GaussianNoise, noise, noisy_layers
from robench.trainers.likelihood_ratio import LikelihoodRatio
from robench.workspace.plugins import Located

SHAPE, CLASSES, IMAGES = (1, 4, 4), 3, 3


class Residual(nn.Module):
    """Adds its input to something noisy, and acts in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2)
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh_(self.norm(self.first(x))) + x
        return self.last(h.flatten(1))


class Cells(nn.Module):
    """A cell with two outputs, one row of the image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTMCell(4, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for row in x[:, 0].unbind(1):
            state = self.cell(row, state)
        return self.last(state[0] + state[1])


class Whole(nn.Module):
    """torch's own loop over time, which has images along the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(4, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        series, final = self.gru(x[:, 0].transpose(0, 1))
        return self.last(series[0] + final[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.last = nn.LayerNorm(4), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, 0]
        mixed = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return self.last(self.norm(mixed).flatten(1))


class Scale(nn.Module):
    """A layer that nobody has heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def scaled() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES), nn.Tanh(), Scale())


MODULES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "residual": (Residual, 3),
    "cells": (Cells, 2),
    "whole": (Whole, 2),
    "attention": (Attention, 3),
    "unheard of": (scaled, 2),
}


def made(name: str, **settings: Any) -> Module:
    torch.manual_seed(0)
    module = MODULES[name][0]()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(2)
    module = robench.noisy(module, **{"sigma": 0.5, **settings})
    return Module(SHAPE, CLASSES, factory=Located("made", lambda: module))


def batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(IMAGES) % CLASSES


def flat(network: nn.Module) -> Tensor:
    found = [weight.grad for weight in network.parameters()]
    assert all(grad is not None for grad in found)
    network.zero_grad(set_to_none=True)
    return torch.cat([grad.flatten() for grad in found if grad is not None])


@pytest.mark.parametrize("name", MODULES)
def test_without_noise_it_is_the_module_that_it_was(name: str) -> None:
    torch.manual_seed(0)
    plain = MODULES[name][0]()
    module = robench.noisy(copy.deepcopy(plain))
    x, _ = batch()
    assert torch.equal(module(x), plain(x))
    assert len(noisy_layers(module)) == MODULES[name][1]
    assert robench.noisy(module) is module
    assert len(noisy_layers(module)) == MODULES[name][1]
    weights = {k: v for k, v in module.state_dict().items() if "robench_noise" not in k}
    assert weights.keys() == plain.state_dict().keys()


@pytest.mark.rows(4)
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("layer_wise", [False, "conditional"])
def test_its_gradient_is_that_of_autograd_through_the_same_noise(
    name: str, layer_wise: Any
) -> None:
    network, (x, y) = made(name, learned=True), batch()
    draws = 40_000
    with noise(network, GaussianNoise(torch.Generator().manual_seed(7))):
        rows = network(x.repeat(draws, 1, 1, 1))
        torch.nn.functional.cross_entropy(rows, y.repeat(draws)).backward()
    expected = flat(network)
    estimates = []
    for seed in range(300):
        rng = torch.Generator().manual_seed(seed)
        LikelihoodRatio(copies=16, layer_wise=layer_wise).backward(
            network, x, y, cross_entropy_rows, rng
        )
        estimates.append(flat(network))
    found = torch.stack(estimates)
    error = found.std(0) / len(found) ** 0.5
    # A weight that nothing depends on (a key's bias) has gradients of zero up to rounding.
    z = ((found.mean(0) - expected) / error)[expected.abs() > 1e-5]
    assert z.abs().max() < 5
    along = found @ expected / expected.norm()
    off = float(along.mean() - expected.norm()) / float(along.std()) * len(along) ** 0.5
    assert abs(off) < 4


@pytest.mark.parametrize("name", MODULES)
def test_copies_and_pickles_are_noisy_by_themselves(name: str) -> None:
    module = made(name).module
    x, _ = batch()
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        with noise(other, GaussianNoise(torch.Generator().manual_seed(0))):
            assert not torch.equal(other(x), module(x))
        with torch.no_grad():
            for weight in other.parameters():
                weight.zero_()
        assert not torch.equal(other(x), module(x))


def test_weights_that_belong_to_no_layer_are_said() -> None:
    class Token(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))

    with pytest.raises(RobenchError, match="Token holds 'token' beside modules with weights"):
        robench.noisy(Token())
    frozen = Token()
    frozen.token.requires_grad_(False)
    assert len(noisy_layers(robench.noisy(frozen))) == 3
    with pytest.raises(RobenchError, match="Flatten has no layer whose weights learn"):
        robench.noisy(nn.Flatten())


def test_rows_that_are_no_images_are_said() -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(16, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            time_first = self.first(x[:, 0].transpose(0, 1))
            return self.last(time_first.transpose(0, 1).flatten(1))

    module = robench.noisy(Across())
    network = Module(SHAPE, CLASSES, factory=Located("made", lambda: module))
    with pytest.raises(RobenchError, match="a noisy layer answers 4 rows to 3 images"):
        LikelihoodRatio(copies=8).backward(
            network, *batch(), cross_entropy_rows, torch.Generator().manual_seed(0)
        )


FACTORY = """
import robench
from torch import nn

def make():
    return robench.noisy(nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)), sigma=0.2)
"""
CARD = """
dataset = "digits"
network = { name = "module", factory = "./net.py:make" }
trainer = { name = "lr", copies = 16, epochs = 3, lr = 0.02, layer_wise = "conditional", pairing = "auto" }
inference_noise = true
"""  # noqa: E501


def test_a_card_trains_and_attacks_it(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    (tmp_path / "models/net.py").write_text(FACTORY)
    (tmp_path / "models/small.toml").write_text(CARD)
    run, ears = carry_out(workspace)
    assert not ears.failed
    (training,) = run.weights
    state = safetensors.torch.load(run.store.read_model(run.model_digest(training))[0])
    assert float(state["module.0.robench_noise.sigma"]) == pytest.approx(0.2)
    clean = next(name for cell, name in run.digests.items() if cell.threat.name == "clean")
    assert run.store.read_cell(clean).rows.column("correct").to_numpy().mean() > 0.5
