"""Noise in use: which it is, and that accuracy during training is measured with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robench.data.base import Part
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.mlp import MLP
from robench.networks.noise import noise, noise_in_use
from robench.trainers.bp import BP
from robench.workspace.folders import open_workspace

Write = Callable[[str, str], Path]


def test_laplace_noise_in_use_has_the_moments_of_laplace() -> None:
    network = MLP((1, 1, 2), 500, hidden=(), sigma=2.0).eval()
    x = torch.zeros(200, 1, 1, 2)
    with torch.no_grad():
        still = network(x)
        moments = {}
        for said in (True, "laplace"):
            with noise(network, noise_in_use(said, torch.Generator().manual_seed(0))):
                eps = (network(x) - still) / 2
            moments[said] = float(eps.square().mean()), float(eps.pow(4).mean())
    assert moments[True] == pytest.approx((1, 3), rel=0.05)
    assert moments["laplace"] == pytest.approx((2, 24), rel=0.1)


def test_accuracy_during_training_is_measured_with_the_noise_in_use() -> None:
    data = Digits().load()
    asked = Part(data.train.images[:300], data.train.labels[:300])
    network, trainer = MLP((1, 8, 8), 10, hidden=(30,), sigma=30.0), BP(epochs=8, lr=1e-2)
    rng = torch.Generator().manual_seed(0)
    trainer.fit(network, data, rng, lambda done, text: None)
    silent = trainer.validate_accuracy(network, asked, rng)
    trainer.noise_in_use = True
    assert silent > 0.9
    assert trainer.validate_accuracy(network, asked, rng) < 0.6


def test_a_network_trained_with_laplace_noise_is_used_with_it(write: Write, tmp_path: Path) -> None:
    card = """
dataset = "digits"
network = { name = "mlp", hidden = [4] }
trainer = { name = "glr", distribution = "laplace" }
inference_noise = SAID
"""
    write("models/a.toml", card.replace("SAID", "true"))
    write("models/b.toml", card.replace("SAID", '"laplace"'))
    here = open_workspace(tmp_path)
    with pytest.raises(RobenchError, match='say inference_noise = "laplace"'):
        resolve_model(here.card("models", "a"))
    assert resolve_model(here.card("models", "b")).stochastic
