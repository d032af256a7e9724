"""The LR trainer: it learns on every network, alternates as told, and knows its direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robench.data.base import Splits
from robench.data.digits import Digits
from robench.data.planetoid import Cora
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import noisy_layers
from robench.trainers.base import History
from robench.trainers.lr import LR
from robench.workspace import plugins


@pytest.fixture(scope="module")
def digits() -> Splits:
    return Digits().load()


def fresh(name: str, **settings: Any) -> Network:
    torch.manual_seed(0)
    network = plugins.load("networks", name)((1, 8, 8), 10, **settings)
    assert isinstance(network, Network)
    return network


def fit(network: Network, data: Splits, **settings: Any) -> History:
    rng = torch.Generator().manual_seed(0)
    return LR(**settings).fit(network, data, rng, lambda done, text: None)


@pytest.mark.parametrize(
    ("name", "shape", "settings"),
    [
        ("cnn", {"channels": (4,), "hidden": (), "sigma": 0.2}, {"pairing": "factorial"}),
        ("rnn", {"cell": "gru", "rows": 2, "hidden": 16, "sigma": 0.2}, {"last_steps": 2}),
        ("mlp", {"hidden": (16,), "sigma": 0.3}, {"layer_wise": True, "copies": (8, 16)}),
        ("mlp", {"hidden": (16,), "sigma": 0.3}, {"quasi": True, "baseline": "noise-free"}),
    ],
)
def test_it_learns_digits_and_repeats_itself_bit_for_bit(
    digits: Splits, name: str, shape: dict[str, Any], settings: dict[str, Any]
) -> None:
    networks = [fresh(name, **shape) for _ in range(2)]
    for network in networks:
        history = fit(network, digits, **{"copies": 16, "epochs": 5, "lr": 0.02, **settings})
    assert history[-1]["validation_accuracy"] > 0.6
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.data
def test_it_learns_cora() -> None:
    data = Cora().load()
    torch.manual_seed(0)
    network = plugins.load("networks", "gcn")(data.input_shape, 7, data.graph, sigma=0.2)
    history = fit(network, data, copies=16, pairing="factorial", epochs=80, batch_size=140, lr=0.03)
    assert history[-1]["validation_accuracy"] > 0.7


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"bp_share": 0.5}, 0.5), ({"bp_share": 0.25}, 0.25), ({"bp_epochs": 1}, 0.5), ({}, 0.0)],
)
def test_the_card_says_which_share_of_the_steps_is_backpropagation(
    digits: Splits, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], expected: float
) -> None:
    steps: list[bool] = []
    for name, bp in (("_backpropagate", True), ("LikelihoodRatio.backward", False)):
        owner: Any = __import__("robench.trainers.lr", fromlist=["lr"])
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        real = getattr(owner, last)

        def noted(*args: Any, real: Any = real, bp: bool = bp) -> float:
            steps.append(bp)
            return float(real(*args))

        monkeypatch.setattr(owner, last, noted)
    fit(fresh("mlp", hidden=(4,)), digits, copies=4, epochs=2, **settings)
    assert len(steps) > 20
    assert sum(steps) == pytest.approx(expected * len(steps), abs=0.99), "to less than a step"


def test_the_share_holds_where_an_epoch_is_a_single_step(
    digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr("robench.trainers.lr._backpropagate", lambda *args: taken.append(1) or 0.0)
    fit(fresh("mlp", hidden=(4,)), digits, copies=4, epochs=6, batch_size=10_000, bp_share=0.5)
    assert len(taken) == 3


def test_learned_sigmas_move_at_their_own_rate_and_stay_in_their_range(digits: Splits) -> None:
    moved = {}
    for rate in (0.0, 0.05):
        network = fresh("mlp", hidden=(8,), sigma=0.5, learned_sigma=True)
        fit(network, digits, copies=8, epochs=2, sigma_lr=rate, sigma_range=(0.4, 0.6))
        sigmas = torch.cat([layer.sigma.detach() for layer in noisy_layers(network)])
        assert sigmas.min() >= 0.4
        assert sigmas.max() <= 0.6
        moved[rate] = float((sigmas - 0.5).abs().max())
    assert moved[0.0] == 0
    assert moved[0.05] > 0


def test_the_cosine_with_bp_is_measured_layer_by_layer_and_grows_with_the_copies(
    digits: Splits,
) -> None:
    network = fresh("mlp", hidden=(8,), sigma=0.1)
    row = fit(network, digits, copies=8, epochs=1, cosines=(4, 4096))[0]
    for layer in (1, 2):
        few, many = row[f"cosine/{layer}@4"], row[f"cosine/{layer}@4096"]
        assert few < many <= 1
        assert many > 0.8
    assert row["cosine seconds/4096"] > row["cosine seconds/4"] > 0


def test_measuring_does_not_change_what_is_learned(digits: Splits) -> None:
    networks = [fresh("mlp", hidden=(8,), sigma=0.1) for _ in range(2)]
    for network, cosines in zip(networks, ((), (4,)), strict=True):
        fit(network, digits, copies=8, epochs=2, cosines=cosines)
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_network_without_noise_is_refused() -> None:
    class Bare(Network):
        def build(self) -> None:
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(1))

    with pytest.raises(RobenchError, match="trainer lr: network Bare has no noisy layers"):
        fit(Bare((1, 8, 8), 10), Digits().load())


# -- the recurrent network -----------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "layer"), [("rnn", "RNN"), ("lstm", "LSTM")])
def test_the_cells_are_torchs_given_its_weights(cell: str, layer: str) -> None:
    network = fresh("rnn", cell=cell, rows=2, hidden=5)
    theirs = getattr(torch.nn, layer)(16, 5, batch_first=True)
    gates = network.gates.op
    i, f, o, g = gates.weight.split(5) if cell == "lstm" else (gates.weight, *[None] * 3)
    bi, bf, bo, bg = gates.bias.split(5) if cell == "lstm" else (gates.bias, *[None] * 3)
    with torch.no_grad():
        weight = i if cell == "rnn" else torch.cat([i, f, g, o])  # torch's order
        bias = bi if cell == "rnn" else torch.cat([bi, bf, bg, bo])
        theirs.weight_ih_l0.copy_(weight[:, :16])
        theirs.weight_hh_l0.copy_(weight[:, 16:])
        theirs.bias_ih_l0.copy_(bias)
        theirs.bias_hh_l0.zero_()
    x = torch.rand(3, 1, 8, 8)
    states, _ = theirs(x.reshape(3, 4, 16))
    torch.testing.assert_close(network(x), network.last(states[:, -1]))


def test_a_gru_keeps_its_state_where_its_gate_says_so() -> None:
    network = fresh("rnn", cell="gru", rows=8, hidden=5)
    with torch.no_grad():
        network.gates.op.bias[5:].fill_(-100.0)  # keep nothing: the state is the candidate
    x = torch.rand(3, 1, 8, 8)
    new = torch.tanh(network.candidate(torch.cat([x.flatten(1), torch.zeros(3, 5)], dim=1)))
    torch.testing.assert_close(network(x), network.last(new))


def test_rows_that_do_not_divide_the_image_are_said() -> None:
    with pytest.raises(RobenchError, match="rows = 3: an image of 8 rows"):
        fresh("rnn", rows=3)


# -- the convolutional network's fields ----------------------------------------------------------


def test_resnet_5_is_a_card_away() -> None:
    network = plugins.load("networks", "cnn")(
        (3, 32, 32), 10, channels=(8, 16, 32, 32), halvings=(1, 2, 3), shortcuts=(4,), hidden=()
    )
    shapes = [tuple(layer.op.weight.shape) for layer in noisy_layers(network)]
    assert shapes == [(8, 3, 3, 3), (16, 8, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (10, 512)]


def test_a_shortcut_adds_what_went_in() -> None:
    network = fresh("cnn", channels=(4, 4), halvings=(1,), shortcuts=(2,), hidden=())
    with torch.no_grad():
        network.convolutions[1].op.weight.zero_()
        network.convolutions[1].op.bias.zero_()
    x = torch.rand(2, 1, 8, 8)
    h = network.halve(network.convolutions[0](x).relu())
    torch.testing.assert_close(network(x), network.layers[0](h.flatten(1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"halvings": (4,)}, r"halvings = \[4\]: convolutions are counted from 1 to 3"),
        ({"shortcuts": (2,)}, "convolution 2 makes 32 channels of 16"),
    ],
)
def test_convolutions_that_do_not_fit_are_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobenchError, match=message):
        fresh("cnn", **settings)
