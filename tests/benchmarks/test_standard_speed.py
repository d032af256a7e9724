"""The attack `standard` beside AutoAttack: images left, and CPU seconds, one thread each.

pytest tests/benchmarks/test_standard_speed.py -o addopts= -s
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.libraries.autoattack import AutoAttack
from robench.attacks.standard import Standard
from robench.attacks.target import WhiteBoxTarget
from robench.data.digits import Digits
from robench.networks.mlp import MLP
from robench.trainers.adversarial import Adversarial
from robench.trainers.base import Trainer
from robench.trainers.bp import BP

torch.set_num_threads(1)
IMAGES = 500
NETWORKS: dict[str, tuple[Trainer, float]] = {
    "64-50-10, PGD training": (Adversarial(epochs=20), 0.1),
    "64-50-10, backpropagation": (BP(epochs=20, lr=1e-2), 0.05),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_standard_beside_autoattack(name: str, tabled: Callable[..., None]) -> None:
    pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")
    trainer, eps = NETWORKS[name]
    data = Digits().load()
    torch.manual_seed(0)
    network = MLP(data.input_shape, len(data.classes), hidden=(50,))
    trainer.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)
    network.eval().requires_grad_(False)
    x = torch.from_numpy(data.test.images[:IMAGES])
    y = torch.from_numpy(data.test.labels[:IMAGES])

    def left(attack: Attack) -> tuple[int, float]:
        target = WhiteBoxTarget(network, Ball("linf", eps), len(x))
        started = time.process_time()
        rng = torch.Generator().manual_seed(1)
        found = target.project(attack.perturb(target, x.clone(), y.clone(), rng), x)
        took = time.process_time() - started
        return int((network(found).argmax(1) == y).sum()), took

    ours, seconds = left(Standard())
    theirs, their_seconds = left(AutoAttack())
    about = f"500 digits, linf {eps:g}: {ours} images left by standard, {theirs} by AutoAttack."
    sides = {"AutoAttack": [their_seconds], "standard": [seconds]}
    tabled(f"standard beside AutoAttack, {name}", about, sides, "AutoAttack")
    assert ours <= theirs + IMAGES / 1000
    assert seconds <= 0.5 * their_seconds
