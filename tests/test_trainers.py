"""Trainers on real digits: each learns, is a function of its seed, and says what is wrong."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from robench.data.base import Splits
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.networks.snn import SNN
from robench.trainers.adversarial import Adversarial
from robench.trainers.base import Trainer, added_memory, memory_now
from robench.trainers.bp import BP
from robench.trainers.nit import NIT, NITSPlus
from robench.workspace import plugins


@pytest.fixture(scope="module")
def digits() -> Splits:
    return Digits().load()


def fit(trainer: Trainer, network: Network, data: Splits, seed: int = 0) -> list[dict[str, float]]:
    rng = torch.Generator().manual_seed(seed)
    return trainer.fit(network, data, rng, lambda done, text: None)


def fresh(name: str, **settings: Any) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (MLP if name == "mlp" else SNN)((1, 8, 8), 10, **settings)


def accuracy(network: Network, data: Splits) -> float:
    with torch.no_grad():
        predicted = network.eval()(torch.from_numpy(data.test.images)).argmax(1)
    return float((predicted == torch.from_numpy(data.test.labels)).float().mean())


LAST = {"batch_size": 50, "last_steps": 1}
LEARNS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("bp", {"epochs": 15, "lr": 5e-3}, "mlp", {}),
    ("adversarial", {"epochs": 15, "lr": 5e-3, "eps": 0.1}, "mlp", {}),
    ("glr", {"epochs": 10, "copies": 60}, "mlp", {"activation": "threshold", "hidden": [30]}),
    ("stbp", {"epochs": 15, "lr": 5e-3, "surrogate": "fast-sigmoid"}, "snn", {"readout": "rate"}),
    ("stbp-n", {"epochs": 15, "lr": 5e-3}, "snn", {"readout": "membrane", "sigma": 0.3}),
    ("nit", {**LAST, "epochs": 6}, "snn", {"readout": "membrane"}),
    ("nit-s", {**LAST, "epochs": 15, "sign_of_zero": 0}, "snn", {"readout": "membrane"}),
    ("nit-s+", {**LAST, "epochs": 15, "sign_of_zero": 0}, "snn", {"readout": "membrane"}),
]


@pytest.mark.rows(4)
@pytest.mark.parametrize(
    ("name", "settings", "kind", "shape"), LEARNS, ids=[row[0] for row in LEARNS]
)
def test_every_trainer_learns_digits_and_repeats_itself_bit_for_bit(
    digits: Splits, name: str, settings: dict[str, Any], kind: str, shape: dict[str, Any]
) -> None:
    networks = [fresh(kind, **shape) for _ in range(2)]
    for network in networks:
        trainer = plugins.load("trainers", name)(**settings)
        assert isinstance(trainer, Trainer)
        history = fit(trainer, network, digits)
        assert len(history) == settings["epochs"]
    assert accuracy(networks[0], digits) > 0.8
    assert history[-1]["loss"] < history[0]["loss"]
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_seed_gives_other_weights(digits: Splits) -> None:
    networks = [fresh("mlp"), fresh("mlp")]
    for seed, network in enumerate(networks):
        fit(BP(epochs=1), network, digits, seed)
    first, second = (network.state_dict() for network in networks)
    assert not torch.equal(first["layers.0.op.weight"], second["layers.0.op.weight"])


def test_the_curves_have_a_row_per_epoch_with_units(digits: Splits) -> None:
    history = fit(NIT(epochs=2, copies=8), fresh("snn"), digits)
    assert [row["epoch"] for row in history] == [1, 2]
    assert {"loss", "validation_accuracy", "seconds", "sigma_1"} <= set(history[0])
    assert all(0 <= row["validation_accuracy"] <= 1 for row in history)


needs_a_peak_to_forget = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="this system cannot forget a peak"
)


@needs_a_peak_to_forget
def test_memory_is_what_training_adds_and_not_what_ran_before(digits: Splits) -> None:
    torch.ones(64, 2**20).sum()  # 256 MiB, gone at once
    held = torch.ones(64, 2**20)  # and 256 MiB that stay
    (row,) = fit(BP(epochs=1), fresh("mlp"), digits)
    assert 0 <= row["added_memory_mb"] < 200
    assert held.sum() == held.numel()


@needs_a_peak_to_forget
def test_memory_that_is_gone_at_the_end_counts_and_what_cannot_be_measured_is_left_out() -> None:
    cpu = torch.device("cpu")
    start = memory_now(cpu)
    torch.ones(64, 2**20).sum()
    assert 200 < added_memory(cpu, start)["added_memory_mb"] < 400
    assert added_memory(cpu, None) == {}


def test_networks_with_two_weights_leave_their_path_in_the_curves(digits: Splits) -> None:
    class Two(Network):
        def build(self) -> None:
            self.layer = torch.nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            v = self.layer(x[:, 0, 3, 3:5])
            return torch.cat([v * label for label in range(10)], dim=1)

    network = Two((1, 8, 8), 10)
    history = fit(BP(epochs=3, lr=0.1), network, digits)
    assert len({row["weight/1"] for row in history}) == 3
    assert [history[-1][f"weight/{i}"] for i in (1, 2)] == network.layer.weight[0].tolist()
    assert "weight/1" not in fit(BP(epochs=1), fresh("mlp"), digits)[0]


def test_a_diverging_run_says_where_and_what_to_lower(digits: Splits) -> None:
    trainer = BP(epochs=20, lr=1e30, optimizer="sgd")
    with pytest.raises(
        RobenchError, match=r"training diverged: loss is (nan|inf).*lower trainer.lr"
    ):
        fit(trainer, fresh("mlp", activation="abs"), digits)


def test_patience_stops_when_validation_does_not_improve(digits: Splits) -> None:
    assert len(fit(BP(epochs=50, lr=1e-9, patience=2), fresh("mlp"), digits)) == 3


def test_the_cosine_schedule_ends_near_zero(digits: Splits) -> None:
    network = fresh("mlp")
    rates = []

    class Watched(BP):
        def after_step(self, network: Network) -> None:
            rates.append(self._optimizer.param_groups[0]["lr"])

        def make_optimizer(self, network: Network) -> torch.optim.Optimizer:
            self._optimizer = super().make_optimizer(network)
            return self._optimizer

    fit(Watched(epochs=3, lr=0.1, schedule="cosine"), network, digits)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 0.001
    assert rates == sorted(rates, reverse=True)


def test_nit_s_plus_switches_when_it_says_with_a_fresh_optimiser() -> None:
    trainer = NITSPlus(epochs=10, switch=0.7)
    assert [trainer.signs_only(epoch) for epoch in range(10)] == [True] * 7 + [False] * 3
    network = fresh("snn")
    fresh_state = [trainer.start_epoch(network, epoch) for epoch in range(10)]
    assert fresh_state == [False] * 7 + [True] + [False] * 2


def test_nit_keeps_sigma_in_its_range(digits: Splits) -> None:
    network = fresh("snn")
    fit(NIT(epochs=2, copies=8, sigma_lr=5.0, sigma_range=(0.9, 1.1)), network, digits)
    sigmas = torch.cat([layer.sigma.detach() for layer in network.layers])
    assert float(sigmas.min()) >= 0.9 - 1e-6
    assert float(sigmas.max()) <= 1.1 + 1e-6
    assert sigmas.unique().numel() > 1


@pytest.mark.parametrize(("name", "said"), [("stbp", "no spikes"), ("glr", "no noisy layers")])
def test_a_trainer_refuses_a_network_it_cannot_train(digits: Splits, name: str, said: str) -> None:
    class Plain(MLP):
        def build(self) -> None:
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(1))

    trainer = plugins.load("trainers", name)(epochs=1)
    assert isinstance(trainer, Trainer)
    with pytest.raises(RobenchError, match=said):
        fit(trainer, Plain((1, 8, 8), 10), digits)


def test_adversarial_training_makes_images_in_its_ball_that_cost_more(digits: Splits) -> None:
    network = fresh("mlp")
    fit(BP(epochs=5, lr=5e-3), network, digits)
    x, y = torch.from_numpy(digits.test.images), torch.from_numpy(digits.test.labels)
    worst = Adversarial(eps=0.1)._worst(network, x, y, torch.Generator().manual_seed(0))
    assert float((worst - x).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(worst.min()) <= float(worst.max()) <= 1
    with torch.no_grad():
        before, after = (torch.nn.functional.cross_entropy(network(z), y) for z in (x, worst))
    assert after > 1.5 * before


def test_a_gradient_is_of_its_own_batch_whatever_the_optimiser_trains(digits: Splits) -> None:
    left: list[float] = []

    class Scaled(BP):
        def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
            self.scale = torch.nn.Parameter(torch.ones(()))
            return [*super().parameter_groups(network), {"params": [self.scale]}]

        def loss(
            self, network: Network, x: torch.Tensor, y: torch.Tensor, rng: torch.Generator
        ) -> torch.Tensor:
            return super().loss(network, x, y, rng) + self.scale

        def after_step(self, network: Network) -> None:
            assert self.scale.grad is not None
            left.append(float(self.scale.grad))

    fit(Scaled(epochs=2), fresh("mlp"), digits)
    assert set(left) == {1.0}
