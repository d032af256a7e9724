"""Gradients in bfloat16: what guides an attack is rounded, what counts is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_graph import built, items
from torch import Tensor, nn

from robench.attacks.ball import Ball
from robench.attacks.contest import Best
from robench.attacks.gradient import APGD, BIM, DIM, PGD
from robench.attacks.loop import GradientAttack
from robench.attacks.standard import Standard
from robench.attacks.target import WhiteBoxTarget
from robench.checks.trial import reference
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.gat import GAT
from robench.networks.gcn import GCN
from robench.networks.snn import SNN

EPS = 0.1


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Doubtful(Network):
    """Two pixels, two classes: at (1, 0.999) rounded passes answer 1, and others 0.

    The weight 1.0038 rounds to 1, the weight 1.0041 to 1.0078.
    """

    def build(self) -> None:
        self.layer = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0038, 0.0], [0.0, 1.0041]]))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x.flatten(1))
        return answer


@pytest.mark.parametrize("cls", [PGD, APGD, Standard])
def test_the_field_is_part_of_the_identity_and_its_default_is_not(
    cls: type[GradientAttack],
) -> None:
    assert "precision" not in cls.resolved({})
    assert cls.resolved({"precision": "float32"}) == cls.resolved({})
    assert cls.resolved({"precision": "bfloat16"}) == {
        **cls.resolved({}),
        "precision": "bfloat16",
    }


def test_answers_are_float32_and_those_of_rounded_passes() -> None:
    network, x, y = reference()
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    rounded, exact = (target.gradient(x, y, precision=p) for p in ("bfloat16", "float32"))  # type: ignore[arg-type]
    for name, value, other in zip(rounded._fields, rounded, exact, strict=True):
        assert value.dtype == torch.float32
        assert value.shape == other.shape
        assert name == "fooled" or not torch.equal(value, other)
        assert torch.allclose(value, other, rtol=0.1, atol=0.1 * float(other.abs().max()))
    assert torch.equal(target.logits(x), network(x))


def test_an_image_that_only_rounding_breaks_stays_under_attack() -> None:
    network = Doubtful(input_shape=(1, 1, 2), classes=2).eval()
    x, y = torch.tensor([[[[1.0, 0.999]]]]), torch.tensor([0])
    target = WhiteBoxTarget(network, Ball("linf", 1e-5), 1)
    assert float(target.gradient(x, y, precision="bfloat16").fooled) == 1
    attack = BIM(steps=7, schedule="sa-pgd", precision="bfloat16")  # which does not come to rest
    x_adv = attack.perturb(target, x, y, rng())
    assert target.gradients == 1 + 7
    assert int(network(x_adv).argmax()) == 0


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(PGD, {}), (APGD, {}), (DIM, {}), (PGD, {"loss": "margin", "targets": 3})],
)
def test_what_counts_as_broken_is_broken_in_float32(
    cls: type[GradientAttack], settings: dict[str, Any]
) -> None:
    network, x, y = reference()
    broken = {}
    for precision in ("float32", "bfloat16"):
        target, best = WhiteBoxTarget(network, Ball("linf", EPS), len(x)), Best(x)
        attack = cls(steps=20, precision=precision, **settings)
        attack.improve(best, target, x, y, rng(), alone=False)
        assert torch.equal(network(best.images).argmax(1) != y, best.broken)
        assert float(Ball("linf", EPS).distance(best.images, x).max()) <= EPS + 1e-6
        broken[precision] = int(best.broken.sum())
    assert broken["float32"] > 0
    assert abs(broken["float32"] - broken["bfloat16"]) <= 0.05 * len(x)


def test_what_a_rounded_network_was_fooled_by_on_the_way_is_not_noted() -> None:
    network, x, y = reference()
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    PGD(steps=3, precision="bfloat16").perturb(target, x, y, rng())
    assert target.counts()["fooled_on_the_way"] is None
    assert target.counts()["zero_gradient"] is not None


def test_a_network_that_jumps_is_attacked_in_float32_only() -> None:
    network = SNN(input_shape=(1, 8, 8), classes=10, hidden=(8,), steps=3).eval()
    target = WhiteBoxTarget(network, Ball("linf", EPS), 2)
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    for attack in (PGD(precision="bfloat16"), Standard(precision="bfloat16")):
        with pytest.raises(RobenchError, match='precision = "bfloat16": the network has steps'):
            attack.perturb(target, x, y, rng())


def test_weights_that_are_not_float32_are_refused() -> None:
    network = Doubtful(input_shape=(1, 1, 2), classes=2).double().eval()
    target = WhiteBoxTarget(network, Ball("linf", EPS), 1)
    with pytest.raises(RobenchError, match="weights are float64"):
        PGD(precision="bfloat16").perturb(target, torch.rand(1, 1, 1, 2), torch.tensor([0]), rng())


@pytest.mark.parametrize("kind", [GCN, GAT])
def test_nothing_rounded_is_remembered(kind: type[Network]) -> None:
    network, x = built(kind).eval().requires_grad_(False), items(0, 1, 2)
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    target.gradient(x, torch.zeros(3, dtype=torch.long), precision="bfloat16")
    answers = network(x)
    assert torch.equal(answers, built(kind).eval()(x))
    assert torch.equal(answers, target.logits(x))
