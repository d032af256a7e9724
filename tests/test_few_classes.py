"""Attacks on networks with two to nine classes: as many targets as there are, and never a crash."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, PGD
from robench.attacks.lbfgs import LBFGS
from robench.attacks.libraries.art import ART
from robench.attacks.libraries.autoattack import AutoAttack
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.losses import dlr
from robench.attacks.square import Square
from robench.attacks.target import WhiteBoxTarget
from robench.errors import RobenchError
from robench.networks.base import Network

COUNTS = (2, 3, 4, 9)
ATTACKS: dict[str, tuple[Attack, str, float]] = {
    "targets": (APGD(steps=5, loss="margin", targets=9), "linf", 0.3),
    "pgd": (PGD(steps=5), "linf", 0.3),
    "lbfgs": (LBFGS(goal="random", iterations=5, search_steps=3), "l2", 2.0),
    "square": (Square(queries=20), "linf", 0.3),
    "foolbox-deepfool": (Foolbox(attack="L2DeepFoolAttack"), "l2", 2.0),
    "foolbox-genattack": (Foolbox(attack="GenAttack", steps=5), "linf", 0.3),
    "art-deepfool": (ART(attack="DeepFool", max_iter=5), "l2", 2.0),
    "art-jsma": (ART(attack="SaliencyMapMethod"), "l0", 6.0),
    "art-newtonfool": (ART(attack="NewtonFool", max_iter=5), "l2", 2.0),
}


class Few(Network):
    """Class k is what is bright in its band of columns."""

    def build(self) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(self.classes, 64))
        with torch.no_grad():
            for pixel in range(64):
                self.weight[pixel % self.classes, pixel] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def attacked(attack: Attack, norm: str, eps: float, classes: int) -> tuple[float, float]:
    """Accuracy on clean images and under the attack."""
    network = Few((1, 8, 8), classes).eval()
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(x).argmax(1)
    y[0] = (y[0] + 1) % classes
    target = WhiteBoxTarget(network, Ball(norm, eps), len(x))
    found = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers: Any = [network(images).argmax(1) == y for images in (x, found)]
    clean, left = (float(right.float().mean()) for right in answers)
    return clean, left


@pytest.mark.parametrize("classes", COUNTS)
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_takes_as_many_targets_as_there_are(name: str, classes: int) -> None:
    clean, left = attacked(*ATTACKS[name], classes)
    assert left <= clean
    if name in ("targets", "pgd", "foolbox-deepfool"):
        assert left < 0.5


@pytest.mark.skipif(
    importlib.util.find_spec("pyautoattack") is None,
    reason="needs the extra 'autoattack' (pyautoattack)",
)
@pytest.mark.parametrize("classes", COUNTS)
def test_autoattack_takes_few_classes(classes: int) -> None:
    clean, left = attacked(AutoAttack(), "linf", 0.3, classes)
    assert left < 0.5 < clean


def test_a_loss_that_few_classes_cannot_have_says_which_can() -> None:
    with pytest.raises(RobenchError, match=r'"dlr" needs at least 3 classes.*use loss = "margin"'):
        dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))


def test_an_attack_by_such_a_loss_takes_the_margin_where_there_are_too_few() -> None:
    left = {loss: attacked(APGD(steps=3, loss=loss), "linf", 0.3, 2) for loss in ("dlr", "margin")}
    assert left["dlr"] == left["margin"]
