"""The ensemble for networks that jump."""

from __future__ import annotations

import pytest
import torch

from robench.attacks.ball import Ball
from robench.attacks.spikes import Spikes, members
from robench.attacks.target import WhiteBoxTarget
from robench.checks.attacks import check_attack
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN


@pytest.fixture(scope="module")
def spiking() -> SNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SNN((1, 4, 4), 4, hidden=(20,), sigma=0.1).eval().requires_grad_(False)


def images(n: int = 60) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.rows(0)
def test_it_keeps_the_contract_of_every_attack() -> None:
    assert [str(finding) for finding in check_attack(Spikes) if not finding.passed] == []


def test_it_takes_no_settings_but_the_budget() -> None:
    assert Spikes.resolved({}) == {}


def test_it_breaks_as_many_as_the_best_of_its_members(spiking: SNN) -> None:
    x, eps = images(), 0.05
    y = spiking(x).argmax(1)
    alone = []
    for attack in [Spikes(), *members(noisy=False)]:
        target = WhiteBoxTarget(spiking, Ball("linf", eps), len(x))
        x_adv = attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
        broken = spiking(x_adv).argmax(1) != y
        if isinstance(attack, Spikes):
            together = broken
        else:
            alone.append(int(broken.sum()))
    assert 5 < int(together.sum()) < 55
    assert int(together.sum()) >= max(alone) - 1  # starts are drawn anew


def test_a_member_meets_only_what_those_before_it_left(spiking: SNN) -> None:
    x = images()
    wrong = (spiking(x).argmax(1) + 1) % 4  # misclassified before any attack
    target = WhiteBoxTarget(spiking, Ball("linf", 0.05), len(x))
    Spikes().perturb(target, x, wrong, torch.Generator().manual_seed(0))
    first = WhiteBoxTarget(spiking, Ball("linf", 0.05), len(x))
    members(noisy=False)[0].perturb(first, x, wrong, torch.Generator().manual_seed(0))
    assert target.gradients <= first.gradients


def test_on_a_noisy_network_it_raises_the_share_of_wrong_draws(spiking: SNN) -> None:
    x = images(20)
    with torch.no_grad():
        y = spiking(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    with noise(spiking, GaussianNoise(generator)), torch.no_grad():
        target = WhiteBoxTarget(spiking, Ball("linf", 0.05), len(x))
        x_adv = Spikes().perturb(target, x, y, torch.Generator().manual_seed(0))
        clean, attacked = (
            torch.stack([spiking(z).argmax(1) != y for _ in range(64)]).double().mean()
            for z in (x, x_adv)
        )
    assert float(attacked) > float(clean) + 0.1


@pytest.mark.parametrize("jumps", [True, False])
def test_the_last_member_on_a_noisy_network_starts_near_what_the_others_found(jumps: bool) -> None:
    *others, last = members(noisy=True, jumps=jumps)
    assert {member.restart_from for member in others} == {"clean"}
    assert last.restart_from == "near-best"
    assert {member.judged for member in (*others, last)} == {64}
    assert {member.restart_from for member in members(noisy=False, jumps=jumps)} == {"clean"}


def test_threshold_networks_are_attacked_through_their_output() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MLP((1, 4, 4), 4, activation="threshold", weights="normal").eval()
    x = images()
    y = network(x).argmax(1)
    target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
    x_adv = Spikes().perturb(target, x, y, torch.Generator().manual_seed(0))
    assert int((network(x_adv).argmax(1) != y).sum()) > 10
