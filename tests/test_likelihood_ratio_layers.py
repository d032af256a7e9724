"""The likelihood-ratio gradient of the networks' own layers: no bias, and an error of 1/sqrt(K).

The reference is the pathwise gradient: autograd through the same noise.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_graph import CLASSES, items, small_graph
from torch import Tensor

from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.gat import GAT
from robench.networks.gcn import GCN
from robench.networks.losses import cross_entropy_rows
from robench.networks.noise import GaussianNoise, noise
from robench.networks.rnn import RNN
from robench.trainers.likelihood_ratio import LikelihoodRatio

SHAPE = (1, 4, 4)


def convolutional(norm: str, noise: str = "convolution") -> Network:
    """Two convolutions with a shortcut over the second, and one sigma for each neuron."""
    return CNN(
        SHAPE, CLASSES, channels=(2, 2), halvings=(1,), shortcuts=(2,), hidden=(), pool="average",
        activation="tanh", norm=norm, noise=noise, sigma=0.6, learned_sigma=True,
        sigma_per="neuron",
    )  # fmt: skip


def recurrent(cell: str) -> Network:
    return RNN(SHAPE, CLASSES, cell=cell, hidden=3, rows=2, sigma=0.6, learned_sigma=True)


def graph(kind: type[Network], **settings: int) -> Network:
    of = small_graph()
    return kind(of.input_shape, CLASSES, of, sigma=0.6, learned_sigma=True, **settings)


NETWORKS: dict[str, Callable[[], Network]] = {
    "conv2d": lambda: convolutional("none"),
    "affine norm": lambda: convolutional("layer"),
    "conv2d, norm and halving": lambda: convolutional("layer", noise="halving"),
    "rnn": lambda: recurrent("rnn"),
    "gru": lambda: recurrent("gru"),
    "lstm": lambda: recurrent("lstm"),
    "gcn": lambda: graph(GCN, hidden=3),
    "gat": lambda: graph(GAT, hidden=2, heads=2),
    "gcn, padding masked": lambda: graph(GCN, hidden=3, mask_padding=True),
    "gat, padding masked": lambda: graph(GAT, hidden=2, heads=2, mask_padding=True),
}


def seeded(name: str) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]()
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if "sigma" not in key:  # large enough that the noise matters
                    parameter.add_(torch.randn_like(parameter))
    return network


def batch(name: str) -> tuple[Tensor, Tensor]:
    if name.startswith(("gcn", "gat")):
        return items(2, 4, 9), torch.tensor([0, 1, 2])
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(3)


def gradients(network: Network) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def estimate(name: str, network: Network, seed: int = 0, **settings: object) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    LikelihoodRatio(**settings).backward(network, *batch(name), cross_entropy_rows, rng)
    return gradients(network)


def pathwise(name: str, network: Network, draws: int = 60_000) -> dict[str, Tensor]:
    x, y = batch(name)
    with noise(network, GaussianNoise(torch.Generator().manual_seed(7))):
        cross_entropy_rows(network(x.repeat(draws, 1, 1, 1)), y.repeat(draws)).mean().backward()
    return gradients(network)


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient[key].flatten() for key in sorted(gradient)])


def runs(name: str, network: Network, count: int, copies: int) -> Tensor:
    """Independent estimates, (count, parameters)."""
    return torch.stack(
        [flat(estimate(name, network, seed, copies=copies)) for seed in range(count)]
    )


@pytest.mark.rows(4)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_no_bias_for_weights_and_sigmas(name: str) -> None:
    network = seeded(name)
    expected = pathwise(name, network)
    assert expected.keys() == dict(network.named_parameters()).keys()
    found = runs(name, network, 160, copies=128)
    exact = flat(expected)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact) / error).abs().max() < 4.5
    assert float(torch.nn.functional.cosine_similarity(found.mean(0), exact, dim=0)) > 0.95
    along = found @ exact / exact.norm()
    assert abs(float((along.mean() - exact.norm()) / along.std())) * len(along) ** 0.5 < 3.5


@pytest.mark.rows(4)
@pytest.mark.parametrize("name", NETWORKS)
def test_its_error_falls_as_one_over_the_root_of_the_number_of_copies(name: str) -> None:
    network = seeded(name)
    expected = flat(pathwise(name, network))
    errors = [
        float((runs(name, network, 16, copies) - expected).square().mean().sqrt())
        for copies in (32, 32 * 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.25)


@pytest.mark.parametrize("kind", ["gcn", "gat"])
def test_masked_padding_changes_no_logit_and_takes_variance_away(kind: str) -> None:
    plain, masked = seeded(kind), seeded(f"{kind}, padding masked")
    x, _ = batch(kind)
    assert torch.equal(plain(x), masked(x))
    assert "mask_padding" not in type(plain).resolved({})
    first, last = {}, {}
    for name, network in ((kind, plain), (f"{kind}, padding masked", masked)):
        found = [estimate(name, network, seed, copies=32) for seed in range(40)]
        first[network] = torch.stack([grad["first.op.weight"] for grad in found]).var(0).sum()
        last[network] = found[0]["last.op.weight"]
    torch.testing.assert_close(last[plain], last[masked])  # the noise and the losses are the same
    assert first[masked] < 0.95 * first[plain]
