"""The certificate of injected noise: below what attacks leave, and exactly so where it is sharp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from robench.attacks.gradient import PGD
from robench.data.base import Part
from robench.data.digits import Digits
from robench.make.scoring import attack_slice, score_slice
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.networks.snn import SNN
from robench.proofs.certificate import NoiseCertificate, largest_shift
from robench.trainers.bp_n import BPN
from robench.workspace.cards import AttackCard

CPU = torch.device("cpu")


def run(network: Network, part: Part, eps: float, attack: Any, noisy: bool = True) -> Any:
    proof = isinstance(attack, NoiseCertificate)
    card = AttackCard(
        attack={"name": "mine"},
        access="weights" if proof else "white-box",
        role="proof" if proof else "attack",
        eps=eps,
        name="mine",
        root=Path(),
    )
    return attack_slice(
        network, attack, card, eps, part, noisy=noisy, seed=0, batch_size=100, device=CPU
    )


@pytest.fixture(scope="module")
def trained() -> tuple[Network, Part]:
    torch.manual_seed(0)
    network, data = MLP((1, 8, 8), 10, hidden=(32,), sigma=1.0), Digits().load()
    rng = torch.Generator().manual_seed(0)
    BPN(epochs=15, lr=1e-2).fit(network, data, rng, lambda done, text: None)
    return network.eval(), Part(data.test.images[:60], data.test.labels[:60])


@pytest.mark.parametrize("eps", [0.0, 0.005, 0.02])
def test_the_bound_lies_below_what_attacks_leave(trained: tuple[Network, Part], eps: float) -> None:
    network, part = trained
    proved = run(network, part, eps, NoiseCertificate(draws=400)).proved
    attacked = run(network, part, eps, PGD(steps=20, eot=8)).images
    rows, _ = score_slice(
        network, attacked, part, noisy=True, draws=400, seed=1, batch_size=100, device=CPU
    )
    correct = rows.column("correct").to_numpy()
    chance = 4 * np.sqrt(np.maximum(correct * (1 - correct), 1 / 400) / 400)
    assert (proved <= correct + chance).all()
    assert (proved > 0).any()


def test_it_falls_with_eps_and_a_vote_is_proved_where_more_than_half_is(
    trained: tuple[Network, Part],
) -> None:
    network, part = trained
    small, large = (run(network, part, eps, NoiseCertificate(draws=200)) for eps in (0.005, 0.02))
    assert (large.proved <= small.proved).all()
    votes = run(network, part, 0.005, NoiseCertificate(draws=200, bounds="vote")).proved
    assert (votes == (small.proved > 0.5)).all()
    assert 0 < votes.mean() < 1 or votes.all()


def test_it_is_sharp_where_one_noisy_unit_decides() -> None:
    """Two classes, noise in one threshold unit: Phi is exact, and so is the shift."""
    network = MLP((1, 1, 1), 2, hidden=(1,), activation="threshold", sigma=0.5)
    first, last = network.layers
    with torch.no_grad():
        first.op.weight[:], first.op.bias[:] = 1.0, -0.3
        last.op.weight[:], last.op.bias[:] = torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0])
        last.sigma.zero_()
    part = Part(np.full((1, 1, 1, 1), 0.5, np.float32), np.array([1]))
    proved = run(network.eval(), part, 0.1, NoiseCertificate(draws=20000, confidence=0.6)).proved
    assert proved[0] == pytest.approx(norm.cdf((0.4 - 0.3) / 0.5), abs=0.015)


def test_a_standardised_pixel_counts_by_its_deviation(trained: tuple[Network, Part]) -> None:
    """The same network, once with the deviation in its first weights and once in its input."""
    network, part = trained
    other = MLP((1, 8, 8), 10, hidden=(32,), sigma=1.0, standardise="channel").eval()
    state = network.state_dict()
    state["layers.0.op.weight"] = state["layers.0.op.weight"] / 4
    other.load_state_dict(
        {**state, "input_mean": torch.zeros(1, 1, 1), "input_std": torch.full((1, 1, 1), 0.25)}
    )
    said = [run(one, part, 0.005, NoiseCertificate(draws=200)).proved for one in (network, other)]
    np.testing.assert_allclose(*said, atol=1e-6)
    assert said[0].any()


def test_no_shift_in_the_ball_is_larger() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 12))
    draws = rng.uniform(-1, 1, (5000, 12))
    balls = {
        "linf": np.sign(draws),
        "l2": draws / np.linalg.norm(draws, axis=1, keepdims=True),
        "l1": draws / np.abs(draws).sum(1, keepdims=True),
    }
    for name, ball in balls.items():
        most = np.linalg.norm(0.3 * ball @ matrix.T, axis=1).max()
        bound = largest_shift(matrix, np.full(12, 0.3), name, 0.3)
        assert most <= bound <= 3 * most


def test_it_needs_noise_of_a_kind_that_it_knows(trained: tuple[Network, Part]) -> None:
    network, part = trained
    quiet = run(network, part, 0.01, NoiseCertificate(draws=10), noisy=False)
    assert not quiet.proved.any()
    assert "no Gaussian noise in use" in quiet.notes[0]
    spiking = SNN((1, 8, 8), 10, encoding="bernoulli").eval()
    made = run(spiking, part, 0.01, NoiseCertificate(draws=10))
    assert not made.proved.any()
    assert "no certificate" in made.notes[0]
