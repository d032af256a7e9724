"""What is foreseen of the noise: it biases nothing, whatever it says, and takes variance away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_networks import CLASSES, NOISY, SHAPE, batch, estimates, gradient, shaken
from torch import Tensor

from robench.data.base import Part, Splits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, LaplaceNoise, noise
from robench.networks.rnn import RNN
from robench.networks.snn import SNN
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import LikelihoodRatio
from robench.trainers.noise_tape import Injection
from robench.workspace import plugins

NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: MLP(SHAPE, CLASSES, hidden=(5,), activation="sigmoid", **NOISY),
    "cnn": lambda: CNN(
        SHAPE, CLASSES, channels=(2,), hidden=(), norm="layer", noise="halving", activation="tanh",
        pool="average", **NOISY,
    ),
    "lstm": lambda: RNN(SHAPE, CLASSES, cell="lstm", hidden=3, rows=2, **NOISY),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"pairing": "none"},
    "antithetic": {"pairing": "antithetic"},
    "hadamard": {"pairing": "hadamard", "copies": 32},
    "no baseline": {"pairing": "none", "baseline": "none"},
    "conditional": {"pairing": "none", "layer_wise": "conditional"},
    "several chunks": {"pairing": "none", "block_rows": 1, "chunk_rows": 1, "copies": 20},
}


def made(name: str) -> Network:
    return shaken(NETWORKS[name], 1.0)


def taught(network: Network, **settings: Any) -> Feedback:
    feedback, rng = Feedback(), torch.Generator().manual_seed(0)
    for _ in range(60):
        ours = LikelihoodRatio(**{"copies": 32, **settings})
        ours.backward(network, *batch(), cross_entropy_rows, rng, feedback)
    network.zero_grad(set_to_none=True)
    return feedback


def pathwise(network: Network, source: type[GaussianNoise] = GaussianNoise) -> Tensor:
    x, y = batch()
    with noise(network, source(torch.Generator().manual_seed(7))):
        rows = cross_entropy_rows(network(x.repeat(20_000, 1, 1, 1)), y.repeat(20_000))
    rows.mean().backward()
    return gradient(network)


def assert_unbiased(found: Tensor, expected: Tensor) -> None:
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected) / error).abs().max() < 4.5
    along = found @ expected / expected.norm()
    assert abs(float((along.mean() - expected.norm()) / along.std())) * len(along) ** 0.5 < 3.5


class Anything(Feedback):
    """Foresees what it likes, about as large as a gradient may be."""

    def _of(self, item: Injection, place: int) -> Tensor:
        rng = torch.Generator().manual_seed(100 * self._numbers[item.layer] + place)
        return 0.3 * torch.randn(len(self._errors), *item.eps.shape[2:], generator=rng)

    def learn(self) -> None:
        pass


@pytest.mark.rows(3)
@pytest.mark.parametrize(
    ("name", "setting"),
    [*(("mlp", setting) for setting in SETTINGS), ("cnn", "none"), ("lstm", "conditional")],
)
def test_whatever_is_foreseen_biases_nothing(name: str, setting: str) -> None:
    network = made(name)
    found = estimates(network, 250, feedback=Anything(), **SETTINGS[setting])
    assert_unbiased(found, pathwise(network))


@pytest.mark.parametrize(
    ("name", "distribution"),
    [("mlp", "gaussian"), ("mlp", "laplace"), ("cnn", "gaussian"), ("lstm", "gaussian")],
)
def test_what_was_learned_takes_variance_away_and_biases_nothing(
    name: str, distribution: str
) -> None:
    network = made(name)
    settings = {"pairing": "none", "distribution": distribution}
    found = estimates(network, 200, feedback=taught(network, **settings), **settings)
    assert_unbiased(
        found, pathwise(network, LaplaceNoise if distribution == "laplace" else GaussianNoise)
    )
    weights = [
        torch.full((p.numel(),), "sigma" not in key) for key, p in network.named_parameters()
    ]
    plain = estimates(network, 200, **settings).var(0)[torch.cat(weights)].sum()
    assert found.var(0)[torch.cat(weights)].sum() < 0.6 * plain


def test_a_first_batch_is_estimated_as_without_it() -> None:
    network = made("mlp")
    plain, first = estimates(network, 1), estimates(network, 1, feedback=Feedback())
    assert torch.equal(plain, first)


def test_noise_that_enters_at_the_last_steps_only_is_foreseen_step_by_step() -> None:
    network = SNN(SHAPE, CLASSES, hidden=(6,), steps=3, sigma=0.5)
    feedback = taught(network, pairing="none", last_steps=2)
    assert set(feedback._fits) == {(layer, step) for layer in (0, 1) for step in (0, 1)}
    found = estimates(network, 200, feedback=feedback, pairing="none", last_steps=2)
    plain = estimates(network, 200, pairing="none", last_steps=2)
    error = (found.var(0) + plain.var(0)).div(200).sqrt().clamp(min=1e-12)
    assert ((found.mean(0) - plain.mean(0)) / error).abs().max() < 4.5


def test_signs_alone_follow_no_gradient_that_could_be_foreseen() -> None:
    with pytest.raises(RobenchError, match="trainer.feedback = true: .*Eq. 3"):
        estimates(made("mlp"), 1, feedback=Feedback(), sign=True)


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [("lr", {"copies": 4}), ("glr", {"copies": 8}), ("nit", {"copies": 8})],
)
def test_trainers_learn_with_it_to_the_same_bits_twice(
    trainer: str, settings: dict[str, Any]
) -> None:
    kind = plugins.load("trainers", trainer)
    assert "feedback" not in kind.resolved({})  # so that older identities stay
    rng = torch.Generator().manual_seed(2)
    x = torch.rand(20, *SHAPE, generator=rng).numpy()
    part = Part(x, (torch.arange(20) % CLASSES).numpy())
    data = Splits(part, part, part, ("a", "b", "c"))
    weights = []
    for feedback in (True, True, False):
        network = made("mlp")
        given = kind(epochs=2, batch_size=5, feedback=feedback, **settings)
        given.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
