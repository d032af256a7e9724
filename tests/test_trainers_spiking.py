"""Trainers for which a robust spiking network was claimed: each learns digits, and what it adds is
what its paper says, by another computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.spikes import Spikes
from robench.attacks.target import WhiteBoxTarget
from robench.data.base import Splits
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.snn import SNN
from robench.proofs.reading import Unreadable, read
from robench.trainers.base import Trainer
from robench.trainers.hire_snn import HireSNN
from robench.trainers.s_ibp import potential_bounds
from robench.trainers.snn_rat import SNNRAT, retracted
from robench.trainers.stbp import STBP
from robench.trainers.trades import Trades, divergence
from robench.workspace import plugins


@pytest.fixture(scope="module")
def digits() -> Splits:
    return Digits().load()


def fresh(**settings: Any) -> SNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SNN(
            (1, 8, 8), 10, **{"learned_sigma": False, "surrogate": "rectangle:1", **settings}
        )


def fit(trainer: Trainer, network: Network, data: Splits) -> list[dict[str, float]]:
    return trainer.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)


def accuracy(network: Network, data: Splits) -> float:
    with torch.no_grad():
        predicted = network.eval()(torch.from_numpy(data.test.images)).argmax(1)
    return float((predicted == torch.from_numpy(data.test.labels)).float().mean())


LEARNS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("adversarial", {"eps": 0.1, "steps": 3}, {}),
    ("trades", {"eps": 0.1, "steps": 3}, {}),
    ("snn-rat", {"eps": 0.05}, {}),
    ("hire-snn", {"eps": 0.05}, {}),
    ("s-ibp", {"eps": 0.05}, {"surrogate": "rectangle:1"}),
    ("stbp", {}, {"gates": 0.8, "readout": "rate"}),
]


@pytest.mark.rows(3)
@pytest.mark.parametrize(("name", "settings", "shape"), LEARNS, ids=[row[0] for row in LEARNS])
def test_it_learns_digits_and_repeats_itself_bit_for_bit(
    digits: Splits, name: str, settings: dict[str, Any], shape: dict[str, Any]
) -> None:
    networks = [fresh(hidden=(30,), **shape) for _ in range(2)]
    for network in networks:
        trainer: Any = plugins.load("trainers", name)(epochs=8, lr=4e-3, batch_size=50, **settings)
        history = fit(trainer, network, digits)
    assert accuracy(networks[0], digits) > 0.75
    assert history[-1]["loss"] < history[0]["loss"]
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def pictures(digits: Splits, n: int = 40) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(digits.test.images[:n]), torch.from_numpy(digits.test.labels[:n])


def test_the_divergence_of_trades_is_kullback_and_leibler_s() -> None:
    rng = np.random.default_rng(0)
    clean, moved = rng.normal(size=(2, 5, 10)) * 3
    p, q = (np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in (clean, moved))
    expected = (p * np.log(p / q)).sum(1)
    found = divergence(torch.from_numpy(clean), torch.from_numpy(moved))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_the_loss_of_trades_is_both_its_terms_on_potentials(digits: Splits) -> None:
    network, (x, y) = fresh(), pictures(digits)
    trainer = Trades(eps=0.1, beta=2.0)
    found = trainer.loss(network, x, y, torch.Generator().manual_seed(3))
    worst = trainer._worst(network, x, torch.Generator().manual_seed(3))
    # A membrane readout answers with the same potentials.
    other = fresh(readout="membrane")
    clean, moved = (other(z).detach().double().numpy() for z in (x, worst))
    p, q = (np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in (clean, moved))
    cost = -np.log(p[np.arange(len(y)), y.numpy()]).mean()
    assert float(found) == pytest.approx(cost + 2.0 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)


def test_the_neighbours_of_trades_lie_in_the_ball_and_change_the_answer(digits: Splits) -> None:
    network, (x, _) = fresh(readout="membrane"), pictures(digits)
    fit(STBP(epochs=4, lr=4e-3, batch_size=50), network, digits)
    worst = Trades(eps=0.1)._worst(network, x, torch.Generator().manual_seed(0))
    assert float((worst - x).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(worst.min()) <= float(worst.max()) <= 1
    signs = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(1)).sign()
    with torch.no_grad():
        clean = network(x)
        apart, floor = (
            divergence(clean, network(z)).mean() for z in (worst, (x + 0.1 * signs).clamp(0, 1))
        )
    assert apart > 2 * floor


def test_weights_go_down_the_gradient_of_their_distance_from_orthogonal_ones() -> None:
    rows = torch.randn(4, 7, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    leaf = rows.clone().requires_grad_()
    apart = ((leaf @ leaf.T - torch.eye(4, dtype=torch.double)) ** 2).sum() / 4
    (grad,) = torch.autograd.grad(apart, leaf)
    torch.testing.assert_close(retracted(rows, 0.01), rows - 0.01 * grad)


def test_regularised_training_leaves_rows_nearer_to_orthogonal_ones(digits: Splits) -> None:
    distances = []
    for beta in (0.0, 0.02):
        network = fresh(hidden=(30,))
        fit(SNNRAT(epochs=3, lr=4e-3, batch_size=50, beta=beta), network, digits)
        rows = network.layers[0].op.weight.detach()
        distances.append(float((rows @ rows.T - torch.eye(30)).square().sum()))
    assert distances[1] < 0.5 * distances[0]


def test_both_attacks_of_regularised_training_stay_in_the_ball(digits: Splits) -> None:
    network, (x, y) = fresh(), pictures(digits)
    rng = torch.Generator().manual_seed(0)
    made = [SNNRAT(eps=0.1)._attacked(network, x, y, rng) for _ in range(8)]
    assert all(float((one - x).abs().max()) <= 0.1 + 1e-6 for one in made)
    assert all(0 <= float(one.min()) <= float(one.max()) <= 1 for one in made)
    assert 1 < len({one.numpy().tobytes() for one in made}) < 8  # FGSM draws nothing


def test_one_period_without_noise_is_plain_training(digits: Splits) -> None:
    networks = [fresh(), fresh()]
    settings: dict[str, Any] = {"epochs": 2, "lr": 4e-3, "batch_size": 50}
    fit(HireSNN(periods=1, **settings), networks[0], digits)
    fit(STBP(**settings), networks[1], digits)
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_each_period_updates_the_weights_and_crafts_the_noise_of_the_next(digits: Splits) -> None:
    seen: list[Tensor] = []
    weights: list[Tensor] = []

    class Watched(SNN):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x.detach().clone())
                weights.append(self.layers[0].op.weight.detach().clone())
            return super().forward(x)

    network = Watched((1, 8, 8), 10, surrogate="rectangle:1")
    trainer = HireSNN(periods=3, eps=0.1, epochs=1, batch_size=2000)
    fit(trainer, network, digits)
    assert len(seen) == 3
    assert not torch.equal(weights[0], weights[1])
    first, second = ((later - seen[0]).abs() for later in seen[1:])
    assert float(first.max()) == pytest.approx(0.05, abs=1e-6)
    assert float(second.max()) == pytest.approx(0.1, abs=1e-6)


def test_gates_pass_their_share_of_the_hidden_spikes() -> None:
    network = SNN(
        (1, 1, 1), 1, hidden=(2000,), steps=1, threshold=0.5, gates=0.7, readout="membrane"
    )
    with torch.no_grad():
        network.layers[0].op.weight.fill_(1.0)
        network.layers[1].op.weight.fill_(1 / 2000)
    network.generator = torch.Generator().manual_seed(0)
    x = torch.ones(50, 1, 1, 1)
    passed = network(x)
    assert float(passed.mean()) == pytest.approx(0.7, abs=0.01)
    assert network.random_input
    assert not torch.equal(network(x), passed)
    with pytest.raises(Unreadable, match="draws numbers"):
        read(network)


def test_open_gates_change_nothing_and_keep_the_name_of_the_network() -> None:
    assert "gates" not in SNN.resolved({})
    assert SNN.resolved({"gates": 0.9})["gates"] == 0.9
    assert not SNN((1, 8, 8), 10).random_input


# -- S-IBP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"hidden": (20, 15), "decay": 0.6}, {"convolutions": (3,)}])
def test_no_image_in_the_ball_has_potentials_outside_the_bounds(
    digits: Splits, shape: dict[str, Any]
) -> None:
    network = fresh(**{"hidden": (20,), **shape}).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)  # so that neurons spike
        x, _ = pictures(digits, 20)
        bounded = potential_bounds(network, (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1))
        low, high = (bound.double() for bound in bounded)
        draw, reached = torch.Generator().manual_seed(0), torch.zeros(())
        for _ in range(200):
            moved = x + 0.1 * torch.empty_like(x).uniform_(-1, 1, generator=draw).sign()
            potential = network.readings(moved.clamp(0, 1))[1].double()
            assert bool(((potential >= low - 1e-5) & (potential <= high + 1e-5)).all())
            reached = torch.maximum(reached, ((potential - low) / (high - low)).max())
        assert float(reached) > 0.6  # bounds that are far too wide would hold, too
        same = potential_bounds(network, x, x)
    for bound in same:
        torch.testing.assert_close(bound, network.readings(x)[1])


@pytest.mark.rows(0)
def test_it_proves_what_training_without_it_does_not_and_no_attack_breaks_that(
    digits: Splits,
) -> None:
    proved = []
    x, y = pictures(digits, 100)
    for name, settings in (("stbp", {}), ("s-ibp", {"eps": 0.05})):
        network = fresh(hidden=(30,), surrogate="rectangle:1")
        trainer: Any = plugins.load("trainers", name)(epochs=12, lr=5e-3, batch_size=50, **settings)
        fit(trainer, network, digits)
        network.eval().requires_grad_(False)
        low, high = potential_bounds(network, (x - 0.05).clamp(0, 1), (x + 0.05).clamp(0, 1))
        others = high.scatter(1, y[:, None], -torch.inf).amax(1)
        sure = low.gather(1, y[:, None])[:, 0] > others
        target = WhiteBoxTarget(network, Ball("linf", 0.05), len(x))
        x_adv = Spikes().perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
        assert not bool((sure & (network(x_adv).argmax(1) != y)).any())
        proved.append(float(sure.double().mean()))
    assert proved[1] > proved[0] + 0.3


@pytest.mark.parametrize(
    "shape", [{"readout": "rate"}, {"gates": 0.8}, {"encoding": "bernoulli"}], ids=str
)
def test_bounds_are_refused_where_they_would_not_hold(
    digits: Splits, shape: dict[str, Any]
) -> None:
    x, _ = pictures(digits, 2)
    with pytest.raises(RobenchError, match="trainer s-ibp: bounds are of networks snn with"):
        potential_bounds(fresh(**shape), x, x)
