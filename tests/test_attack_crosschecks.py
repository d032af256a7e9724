"""Our attacks against independent implementations: same networks, same MNIST images.

foolbox and ART come with robench. torchattacks is a peer for this check only:
`pip install --no-deps torchattacks`. foolbox's momentum method is no reference for MIM (it takes
the sign before it accumulates), torchattacks' TIM knows 3 channels only.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import pytest
import torch
from mnist_networks import trained
from torch import Tensor, nn

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, BIM, DIM, FGSM, MIM, PGD, TIM
from robench.attacks.libraries.art import ART
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.target import WhiteBoxTarget
from robench.networks.base import Network

pytestmark = [pytest.mark.data, pytest.mark.slow]
needs_torchattacks = pytest.mark.skipif(
    importlib.util.find_spec("torchattacks") is None,
    reason="needs a peer library: pip install --no-deps torchattacks",
)
EPS = 0.1
IMAGES = {"mlp": 500, "cnn": 200}
PAPER: dict[str, Any] = {"steps": 15, "step_size": 0.01, "keep": "last"}


class ThreeChannels(Network):
    """A grey network that looks at the mean of three channels."""

    def build(self) -> None:
        self.inner: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x.mean(1, keepdim=True))
        return logits


@cache
def case(name: str, channels: int = 1) -> tuple[Network, Tensor, Tensor]:
    """A network and the images that it gets right: libraries leave the others as they are."""
    networks, x, y = trained()
    x, y = x[: IMAGES[name]], y[: IMAGES[name]]
    with torch.no_grad():
        right = networks[name](x).argmax(1) == y
    x, y = x[right], y[right]
    if channels == 1:
        return networks[name], x, y
    network = ThreeChannels((3, 28, 28), 10)
    network.inner = networks[name]
    return network, x.expand(-1, 3, -1, -1).contiguous(), y


def crafted(attack: Attack, name: str, channels: int = 1) -> Tensor:
    network, x, y = case(name, channels)
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    return attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0))


def peers(attack: str, name: str, channels: int = 1, **settings: Any) -> Tensor:
    """What torchattacks makes of the same images; torch's global state is restored."""
    network, x, y = case(name, channels)
    torchattacks: Any = importlib.import_module("torchattacks")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network.register_parameter("device_of", nn.Parameter(torch.zeros(1), requires_grad=False))
        made: Any = getattr(torchattacks, attack)(network, eps=EPS, **settings)
        found: Tensor = made(x.clone(), y)
        del network.device_of
    return found


def accuracy(x_adv: Tensor, name: str, channels: int = 1) -> float:
    network, _, y = case(name, channels)
    with torch.no_grad():
        return float((network(x_adv).argmax(1) == y).float().mean())


def differing(a: Tensor, b: Tensor) -> float:
    """Share of pixels that differ by more than rounding."""
    return float((a - b).abs().gt(1e-4).float().mean())


@pytest.mark.rows(1)
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_fgsm_and_bim_are_those_of_foolbox_and_art(name: str) -> None:
    pairs: list[tuple[Attack, list[Attack]]] = [
        (FGSM(), [Foolbox(attack="LinfFastGradientAttack"), ART(attack="FastGradientMethod")]),
        (
            BIM(**PAPER),
            [
                Foolbox(attack="LinfBasicIterativeAttack", steps=15, abs_stepsize=0.01),
                ART(attack="BasicIterativeMethod", max_iter=15, eps_step=0.01),
            ],
        ),
    ]
    for ours, theirs in pairs:
        expected = crafted(ours, name)
        for library in theirs:
            found = crafted(library, name)
            assert differing(expected, found) < 0.001
            assert abs(accuracy(expected, name) - accuracy(found, name)) <= 0.001


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_pgd_is_as_strong_as_that_of_foolbox_and_art(name: str) -> None:
    ours = accuracy(crafted(PGD(**PAPER), name), name)
    for library in (
        Foolbox(attack="LinfPGD", steps=15, abs_stepsize=0.01),
        ART(attack="ProjectedGradientDescent", max_iter=15, eps_step=0.01, num_random_init=1),
    ):
        assert ours == pytest.approx(accuracy(crafted(library, name), name), abs=0.02)
    assert accuracy(crafted(PGD(steps=15, step_size=0.01), name), name) <= ours


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_mim_is_that_of_art(name: str) -> None:
    ours = crafted(MIM(**PAPER), name)
    theirs = crafted(ART(attack="MomentumIterativeMethod", max_iter=15, eps_step=0.01), name)
    assert differing(ours, theirs) < 0.005
    assert accuracy(ours, name) == pytest.approx(accuracy(theirs, name), abs=0.003)


@needs_torchattacks
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_mim_is_that_of_torchattacks(name: str) -> None:
    ours = crafted(MIM(**PAPER), name)
    theirs = peers("MIFGSM", name, alpha=0.01, steps=15, decay=1.0)
    assert differing(ours, theirs) < 0.005
    assert accuracy(ours, name) == pytest.approx(accuracy(theirs, name), abs=0.003)


@needs_torchattacks
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_dim_is_as_strong_as_that_of_torchattacks(name: str) -> None:
    """Its default momentum is 0; the draws differ (it chooses once for the whole batch)."""
    ours = accuracy(crafted(DIM(**PAPER, smallest=0.9), name), name)
    theirs = peers(
        "DIFGSM", name, alpha=0.01, steps=15, decay=1.0, resize_rate=0.9, diversity_prob=0.5
    )
    assert ours == pytest.approx(accuracy(theirs, name), abs=0.04)


@pytest.mark.rows(1)
@needs_torchattacks
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_tim_is_that_of_torchattacks_on_three_channels(name: str) -> None:
    ours = crafted(TIM(**PAPER), name, 3)
    theirs = peers("TIFGSM", name, 3, alpha=0.01, steps=15, decay=1.0, diversity_prob=0.0)
    assert differing(ours, theirs) < 0.005
    assert accuracy(ours, name, 3) == pytest.approx(accuracy(theirs, name, 3), abs=0.003)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_apgd_is_as_strong_as_that_of_art(name: str) -> None:
    ours = accuracy(crafted(APGD(steps=50), name), name)
    theirs = ART(attack="AutoProjectedGradientDescent", max_iter=50, nb_random_init=1)
    assert ours <= accuracy(crafted(theirs, name), name) + 0.01
