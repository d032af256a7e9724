"""The score of a spike: no bias, less variance, and only where a spike is all that is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from tiny_networks import CLASSES, NOISY, SHAPE, batch, estimates, shaken
from torch import Tensor

from robench.data.base import Part, Splits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.losses import cross_entropy_rows, zero_one_rows
from robench.networks.mlp import MLP
from robench.networks.noise import noisy_layers
from robench.networks.snn import SNN
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import LikelihoodRatio, Loss
from robench.trainers.spike_score import spike_score
from robench.workspace import plugins

NETWORKS: dict[str, Callable[[], Network]] = {
    "threshold": lambda: MLP(SHAPE, CLASSES, hidden=(4,), activation="threshold", **NOISY),
    "sign": lambda: MLP(SHAPE, CLASSES, hidden=(4, 3), activation="sign", **NOISY),
    "cnn": lambda: CNN(
        SHAPE, CLASSES, channels=(2, 2), halvings=(1,), shortcuts=(2,), hidden=(3,),
        activation="threshold", **NOISY,
    ),
    "snn": lambda: SNN(SHAPE, CLASSES, hidden=(6,), steps=3, readout="membrane", **NOISY),
    "convolutional snn": lambda: SNN(
        SHAPE, CLASSES, convolutions=(2,), hidden=(4,), steps=2, readout="membrane", **NOISY
    ),
}  # fmt: skip


def made(name: str) -> Network:
    return shaken(NETWORKS[name], 0.5)


def runs(network: Network, count: int, loss: Loss = cross_entropy_rows, **settings: Any) -> Tensor:
    return estimates(network, count, loss, **{"score": "spike", **settings})


def enumerated(network: Network, loss: Loss) -> Tensor:
    """The gradient for the hidden layer of "threshold": its spike patterns one by one with their
    probabilities, and many draws of the output's noise."""
    hidden, last = noisy_layers(network)
    x, y = batch()
    fires = torch.special.ndtr(hidden.op(x.flatten(1)) / hidden.sigma)
    rng = torch.Generator().manual_seed(5)
    total = torch.zeros(())
    for pattern in product((0.0, 1.0), repeat=4):
        spikes = torch.tensor(pattern)
        probability = torch.where(spikes > 0, fires, 1 - fires).prod(1)
        with torch.no_grad():
            eps = torch.randn(100_000, CLASSES, generator=rng)
            logits = last.op(spikes[None]) + last.sigma * eps
            losses = torch.stack([loss(logits, y.new_full((100_000,), c)).mean() for c in y])
        total = total + (probability * losses).mean()
    found = torch.autograd.grad(total, [hidden.op.weight, hidden.op.bias, hidden.sigma])
    return torch.cat([found[2].flatten(), found[0].flatten(), found[1].flatten()])


SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"pairing": "none"},
    "antithetic": {"pairing": "antithetic"},
    "factorial": {"pairing": "factorial"},
    "hadamard": {"pairing": "hadamard", "copies": 16},
    "no baseline": {"pairing": "none", "baseline": "none"},
    "noise-free baseline": {"pairing": "none", "baseline": "noise-free"},
    "conditional": {"pairing": "none", "layer_wise": "conditional"},
    "several chunks": {"pairing": "none", "block_rows": 1, "chunk_rows": 1, "copies": 20},
}


@pytest.mark.rows(3)
@pytest.mark.parametrize("loss", [cross_entropy_rows, zero_one_rows])
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_the_gradient_of_the_expected_loss(setting: str, loss: Loss) -> None:
    network = made("threshold")
    expected = enumerated(network, loss)
    found = runs(network, 400, loss, **SETTINGS[setting])[:, : len(expected)]
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected) / error).abs().max() < 4.5
    along = found @ expected / expected.norm()
    assert abs(float((along.mean() - expected.norm()) / along.std())) * len(along) ** 0.5 < 3.5


@pytest.mark.rows(3)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("last_steps", [None, 1])
def test_it_says_the_same_as_the_noise_with_less_variance(
    name: str, last_steps: int | None
) -> None:
    network = made(name)
    settings = {"pairing": "none", "last_steps": last_steps}
    spike = runs(network, 300, **settings)
    plain = runs(network, 300, score="noise", **settings)
    error = (spike.var(0) + plain.var(0)).div(300).sqrt().clamp(min=1e-12)
    assert ((spike.mean(0) - plain.mean(0)) / error).abs().max() < 4.5
    hidden = torch.cat(
        [
            torch.full((sum(p.numel() for p in layer.parameters()),), index > 0)
            for index, layer in enumerate(reversed(noisy_layers(network)))
        ][::-1]
    )
    assert spike.var(0)[hidden].sum() < 0.8 * plain.var(0)[hidden].sum()
    assert torch.equal(spike[:, ~hidden], plain[:, ~hidden])  # the outputs are seen themselves


def test_it_is_the_mean_of_the_noise_given_the_spike() -> None:
    rng = torch.Generator().manual_seed(0)
    eps = torch.randn(400_000, generator=rng)
    for drive, sigma in ((0.1, 0.5), (1.4, 0.5), (-0.6, 1.0)):
        potential, level = drive + sigma * eps, torch.tensor(sigma)
        score = spike_score(potential, 0.5, eps, level)
        for spike in (potential > 0.5, potential <= 0.5):
            error = 4.5 / math.sqrt(int(spike.sum()))
            assert score.of_drive[spike].std() < 1e-3
            assert float(eps[spike].mean()) == pytest.approx(
                float(score.of_drive[spike][0]), abs=error
            )
            assert float((eps[spike] ** 2 - 1).mean()) == pytest.approx(
                float(score.of_sigma[spike][0]), abs=3 * error
            )


def test_a_neuron_that_no_noise_would_have_moved_adds_nothing() -> None:
    far = spike_score(
        torch.tensor([40.0, -40.0]), 0.0, torch.tensor([1.0, -1.0]), torch.tensor(1.0)
    )
    assert torch.equal(far.of_drive.abs(), torch.zeros(2))
    assert torch.equal(far.of_sigma.abs(), torch.zeros(2))


def test_feedback_may_go_on_beside_it() -> None:
    network, feedback = made("snn"), Feedback()
    rng = torch.Generator().manual_seed(0)
    ours = LikelihoodRatio(copies=32, pairing="none", last_steps=1, score="spike")
    for _ in range(40):
        ours.backward(network, *batch(), cross_entropy_rows, rng, feedback)
    assert set(feedback._fits) == {(1, 0)}  # the output layer
    network.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    "settings", [{"sign": True}, {"distribution": "laplace"}], ids=["sign", "laplace"]
)
def test_it_is_of_gaussian_noise_only(settings: dict[str, Any]) -> None:
    with pytest.raises(RobenchError, match='trainer.score = "spike": .*Gaussian'):
        runs(made("threshold"), 1, **settings)


@pytest.mark.parametrize("trainer", ["lr", "glr", "nit"])
def test_trainers_take_it_and_say_where_no_layer_is_seen_by_its_spikes(trainer: str) -> None:
    kind = plugins.load("trainers", trainer)
    assert "score" not in kind.resolved({})  # so that older identities stay
    x = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(2)).numpy()
    part = Part(x, (torch.arange(20) % CLASSES).numpy())
    data = Splits(part, part, part, ("a", "b", "c"))
    weights = []
    for score in ("spike", "spike", "noise"):
        network = made("threshold")
        given = kind(epochs=1, batch_size=5, copies=8, score=score)
        given.fit(network, data, torch.Generator().manual_seed(0), lambda done, text: None)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    smooth = MLP(SHAPE, CLASSES, hidden=(4,), activation="sigmoid")
    with pytest.raises(RobenchError, match='trainer.score = "spike": network MLP has no layers'):
        kind(copies=8, score="spike").fit(
            smooth, data, torch.Generator().manual_seed(0), lambda done, text: None
        )


def test_pairing_is_not_measured_for_it() -> None:
    kind = plugins.load("trainers", "lr")
    with pytest.raises(RobenchError, match='trainer.pairing = "auto": .* use "none"'):
        kind(score="spike", pairing="auto").start_epoch(made("threshold"), 0)
