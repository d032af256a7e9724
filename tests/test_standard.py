"""The attack `standard`: its members work on what is left, and find what each of them finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD
from robench.attacks.square import Square
from robench.attacks.standard import Standard
from robench.attacks.target import WhiteBoxTarget
from robench.data.digits import Digits
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.trainers.bp import BP

EPS = 0.08


@pytest.fixture(scope="module")
def bench() -> tuple[Network, Tensor, Tensor]:
    """A perceptron trained on digits for a moment, and sixty of them."""
    data = Digits().load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP(data.input_shape, 10, hidden=(20,))
    trainer = BP(epochs=5, lr=1e-2)
    trainer.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)
    network.eval().requires_grad_(False)
    return network, torch.from_numpy(data.test.images[:60]), torch.from_numpy(data.test.labels[:60])


def right(attack: Attack, bench: tuple[Network, Tensor, Tensor]) -> tuple[Tensor, WhiteBoxTarget]:
    """Which images an attack leaves right, and the target it asked."""
    network, x, y = bench
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    found = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    assert float((found - x).abs().max()) <= EPS + 1e-6
    return network(target.project(found, x)).argmax(1) == y, target


def test_it_leaves_no_image_that_a_member_breaks(bench: tuple[Network, Tensor, Tensor]) -> None:
    left, _ = right(Standard(), bench)
    assert 0 < int(left.sum()) < 60
    for member in (APGD(steps=100), Square(queries=200)):
        assert int(left.sum()) <= int(right(member, bench)[0].sum())


def test_images_that_are_broken_cost_nothing_more(bench: tuple[Network, Tensor, Tensor]) -> None:
    left, target = right(Standard(), bench)
    gradients = target.counts()["gradients"]
    assert gradients is not None
    assert gradients[~left.numpy()].max() < gradients[left.numpy()].min()


def test_square_begins_where_others_have_left(bench: tuple[Network, Tensor, Tensor]) -> None:
    from robench.attacks.contest import Best

    network, x, y = bench
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    best = Best(x)
    best.broken[:50] = True
    Square(queries=20).improve(best, target, x, y, torch.Generator().manual_seed(1))
    assert torch.equal(best.images[:50], x[:50])
    queries = target.counts()["queries"]
    assert queries is not None
    assert queries[:50].max() == 0
    assert queries[50:].min() >= 1
