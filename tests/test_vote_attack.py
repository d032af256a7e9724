"""Attacks on the vote of a noisy network: the loss of the mean output, not the mean loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.gradient import BIM, PGD
from robench.attacks.losses import margin
from robench.attacks.target import WhiteBoxTarget
from robench.checks.trial import reference
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, NoisyLayer, noise

DRAWS = 5


class Replay(GaussianNoise):
    """Noise drawn before: of each layer so many draws, (draws, images, features)."""

    def __init__(self, eps: dict[int, Tensor], draw: int) -> None:
        self.eps, self.draw = eps, draw

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        return drive + layer.sigma * self.eps[drive.shape[1]][self.draw]


@pytest.mark.parametrize("rows", [35, 4096])
def test_the_gradient_is_that_of_the_mean_probability(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all images are computed at once or a few at a time."""
    monkeypatch.setattr("robench.attacks.target.COPIED_ROWS", rows)
    network, x, y = reference()
    drawn: dict[int, list[Tensor]] = {}
    inject = GaussianNoise.inject

    def remembered(source: GaussianNoise, layer: NoisyLayer, drive: Tensor) -> Tensor:
        noisy = inject(source, layer, drive)
        whole = drive.detach().repeat(len(noisy) // len(drive), 1)
        eps = (noisy.detach() - whole) / layer.sigma
        drawn.setdefault(drive.shape[1], []).append(eps.view(DRAWS, -1, drive.shape[1]))
        return noisy

    monkeypatch.setattr(GaussianNoise, "inject", remembered)
    with noise(network, GaussianNoise(torch.Generator().manual_seed(3))):
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        answer = target.gradient(x, y, draws=DRAWS, vote=True)
    assert (target.queries, target.gradients) == (DRAWS * len(x), DRAWS * len(x))
    monkeypatch.undo()
    eps = {width: torch.cat(parts, dim=1) for width, parts in drawn.items()}
    leaf, single = x.clone().requires_grad_(), []
    for draw in range(DRAWS):
        with noise(network, Replay(eps, draw)):
            single.append(network(leaf))
    mean = torch.stack(single).softmax(2).mean(0)
    loss = -mean.gather(1, y[:, None])[:, 0].log()
    (expected,) = torch.autograd.grad(loss.sum(), leaf)
    torch.testing.assert_close(answer.gradient, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(answer.loss, loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer.margin, margin(mean.detach().log(), y), rtol=1e-4, atol=1e-4)
    wrong = torch.stack([part.argmax(1) != y for part in single]).float().mean(0)
    torch.testing.assert_close(answer.fooled, wrong)


class Split(Network):
    """Two draws in five are lost already, and one pixel makes them only more so; the other pixel
    turns the draws that are left."""

    random_input = True  # type: ignore[assignment]

    def build(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        lost = torch.rand(len(x), generator=self.generator) < 0.4
        first, second = (x.flatten(1) - 0.5).T
        right = torch.where(lost, -5 - 100 * first, 1 - 10 * second)
        return torch.stack([right, torch.zeros_like(right)], dim=1)


def test_a_vote_falls_to_its_own_objective_where_the_mean_loss_leads_elsewhere() -> None:
    right = {}
    for objective in ("expected", "vote"):
        network = Split((1, 1, 2), 2)
        network.generator = torch.Generator().manual_seed(0)
        x, y = torch.full((50, 1, 1, 2), 0.5), torch.zeros(50, dtype=torch.long)
        target = WhiteBoxTarget(network, Ball("l2", 0.15), len(x))
        attack = BIM(steps=10, eot=16, objective=objective)
        x_adv = attack.perturb(target, x, y, torch.Generator())
        wins = torch.stack([network(x_adv).argmax(1) == y for _ in range(101)]).float().mean(0)
        right[objective] = float((wins > 0.5).float().mean())
    assert right["expected"] > 0.9
    assert right["vote"] < 0.1


def test_a_network_without_noise_has_one_objective() -> None:
    network, x, y = reference()
    found = []
    for objective in ("expected", "vote"):
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        attack = PGD(steps=5, eot=4, objective=objective)
        found.append(attack.perturb(target, x, y, torch.Generator().manual_seed(0)))
    assert torch.equal(*found)


def test_an_attack_without_the_setting_is_the_one_it_was() -> None:
    assert "objective" not in PGD.resolved({})
    assert PGD.resolved({"objective": "vote"})["objective"] == "vote"
