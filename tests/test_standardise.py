"""Standardised inputs: measured on training images, part of the network, and invisible to eps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from small_runs import carry_out, small_workspace
from torch import nn

from robench.checks.networks import check_network, small_graph
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.fc import FC
from robench.networks.gcn import GCN
from robench.networks.mlp import MLP
from robench.networks.modules.module import Module
from robench.networks.noise import GaussianNoise, noise
from robench.networks.rnn import RNN
from robench.networks.snn import SNN
from robench.trainers.s_ibp import potential_bounds
from robench.workspace.plugins import Located

SHAPE = (2, 8, 8)


def images(count: int = 40, seed: int = 0) -> np.ndarray[Any, Any]:
    """Pixels whose means and deviations differ, from channel to channel and place to place."""
    rng = np.random.default_rng(seed)
    bright = rng.uniform(0.2, 0.8, SHAPE)
    spread = np.array([0.2, 0.05])[:, None, None]
    x = bright + spread * rng.standard_normal((count, *SHAPE))
    return x.clip(0, 1).astype(np.float32)


def module(**settings: Any) -> Network:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(128, 10))

    return Module(SHAPE, 10, factory=Located("make", make), **settings)


NETWORKS: dict[str, Callable[..., Network]] = {
    "mlp": lambda **settings: MLP(SHAPE, 10, hidden=(6,), **settings),
    "fc": lambda **settings: FC(SHAPE, 10, hidden=(6,), **settings),
    "cnn": lambda **settings: CNN(SHAPE, 10, channels=(3,), hidden=(), **settings),
    "rnn": lambda **settings: RNN(SHAPE, 10, hidden=5, **settings),
    "snn": lambda **settings: SNN(SHAPE, 10, hidden=(6,), readout="membrane", **settings),
    "module": module,
}


def pair(kind: str, standardise: str) -> tuple[Network, Network]:
    """A network that standardises, and one with its weights that does not."""
    torch.manual_seed(0)
    ours = NETWORKS[kind](standardise=standardise).eval()
    ours.learn_input(images())
    plain = NETWORKS[kind]().eval()
    weights = {k: v for k, v in ours.state_dict().items() if not k.startswith("input_")}
    plain.load_state_dict(weights)
    return ours, plain


def by_hand(standardise: str) -> np.ndarray[Any, Any]:
    x = images().astype(np.float64)
    over = (0,) if standardise == "pixel" else (0, 2, 3)
    centred = x - x.mean(over, keepdims=True)
    result: np.ndarray[Any, Any] = centred / centred.std((0, 2, 3), keepdims=True)
    return result


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("standardise", ["channel", "pixel"])
def test_the_layers_see_pixels_less_their_mean_over_their_deviation(
    kind: str, standardise: str
) -> None:
    ours, plain = pair(kind, standardise)
    x = torch.from_numpy(images())
    seen = torch.from_numpy(by_hand(standardise)).float()
    torch.testing.assert_close(ours.standardised(x), seen, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        given = ours.standardised(x)
        assert torch.equal(ours(x), plain(given))
        assert all(map(torch.equal, ours.readings(x), plain.readings(given)))
        assert ours.activity(x) == plain.activity(given)


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_of_pixels(kind: str) -> None:
    ours, plain = pair(kind, "pixel")
    x = torch.from_numpy(images(3)).requires_grad_()
    given = ours.standardised(x).detach().requires_grad_()
    for network, leaf in ((ours, x), (plain, given)):
        network.readings(leaf)[1].square().sum().backward()
    std = ours.get_buffer("input_std")
    torch.testing.assert_close(x.grad, given.grad / std, rtol=1e-4, atol=1e-6)


def test_copies_of_an_image_share_it() -> None:
    ours, plain = pair("mlp", "pixel")
    x = torch.from_numpy(images(3))
    answers = []
    for network, given in ((ours, x), (plain, ours.standardised(x))):
        source = GaussianNoise(torch.Generator().manual_seed(0))
        with torch.no_grad(), noise(network, source), source.copied(3, 4):
            answers.append(network(given))
    assert len(answers[0]) == 12
    assert torch.equal(*answers)


def test_what_was_measured_is_stored_with_the_weights() -> None:
    ours, _ = pair("mlp", "pixel")
    other = NETWORKS["mlp"](standardise="pixel").eval()
    other.load_state_dict(ours.state_dict())
    x = torch.from_numpy(images(5, seed=3))
    assert torch.equal(other(x), ours(x))
    assert ours.state_dict()["input_mean"].shape == SHAPE
    assert not any(name.startswith("input_") for name, _ in ours.named_parameters())


def test_a_run_measures_the_training_images_before_it_trains(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    card = workspace.root / "models/small.toml"
    card.write_text(card.read_text().replace("[16]", '[16], standardise = "pixel"'))
    run, ears = carry_out(workspace)
    assert not ears.failed
    (training,) = run.weights
    state = safetensors.torch.load(run.store.read_model(run.model_digest(training))[0])
    seen = Digits().load().train.images
    np.testing.assert_allclose(state["input_mean"], seen.mean(0), atol=1e-6)
    assert float(state["input_std"]) == pytest.approx(float((seen - seen.mean(0)).std()), rel=1e-5)


def test_a_network_that_sees_pixels_as_they_are_is_the_one_it_was() -> None:
    assert "standardise" not in MLP.resolved({})
    assert MLP.resolved({"standardise": "pixel"})["standardise"] == "pixel"
    assert MLP(SHAPE, 10).state_dict().keys() == {
        f"layers.{layer}.{name}" for layer in (0, 1) for name in ("op.weight", "op.bias", "sigma")
    }


def test_a_channel_that_never_changes_stays_finite() -> None:
    x = images()
    x[:, 1] = 0.5
    network = NETWORKS["mlp"](standardise="channel")
    network.learn_input(x)
    seen = network.standardised(torch.from_numpy(x))
    assert seen[:, 1].abs().max() < 1e-6
    assert float(seen[:, 0].std()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "snn", "rnn"])
def test_it_fulfils_the_contract_of_networks(kind: str) -> None:
    made = type(NETWORKS[kind]())
    found = check_network(lambda *given: made(*given, standardise="channel"))
    assert [finding.check for finding in found if not finding.passed] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: GCN(small_graph().input_shape, 10, small_graph().graph, standardise="channel"),
        lambda: SNN(SHAPE, 10, encoding="bernoulli", standardise="channel"),
    ],
    ids=["nodes", "spikes"],
)
def test_pixels_that_are_no_intensities_are_refused(make: Callable[[], Network]) -> None:
    with pytest.raises(RobenchError, match=r"network.standardise = 'channel': its pixels are"):
        make()


def test_bounds_of_spiking_networks_see_through_it() -> None:
    ours, _ = pair("snn", "pixel")
    x = torch.from_numpy(images(4))
    low, high = potential_bounds(ours, x - 0.01, x + 0.01)
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        step = 0.02 * torch.rand(x.shape, generator=draw) - 0.01
        answer = ours(x + step)
        assert (low - 1e-4 <= answer).all()
        assert (answer <= high + 1e-4).all()
