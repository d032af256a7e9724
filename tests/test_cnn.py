"""The convolutional network: its shapes, its noise, and that it learns by either method."""

from __future__ import annotations

import pytest
import torch

from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.cnn import CNN
from robench.networks.losses import cross_entropy_rows
from robench.networks.noise import GaussianNoise, NoisyLayer, noise, noisy_layers
from robench.trainers.bp import BP
from robench.trainers.likelihood_ratio import LikelihoodRatio


def built(**settings: object) -> CNN:
    torch.manual_seed(0)
    return CNN((3, 32, 32), 10, **settings)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 48, 64)])
def test_images_of_any_size_become_logits(shape: tuple[int, int, int]) -> None:
    network = CNN(shape, 7, channels=(4, 8), hidden=(16,))
    assert network(torch.rand(5, *shape)).shape == (5, 7)


def test_every_convolution_and_full_layer_is_noisy() -> None:
    network = built(channels=(4, 8), hidden=(16,))
    kinds = [type(layer.op).__name__ for layer in noisy_layers(network)]
    assert kinds == ["Conv2d", "Conv2d", "Linear", "Linear"]
    inside = {
        id(p)
        for layer in network.modules()
        if isinstance(layer, NoisyLayer)
        for p in layer.parameters()
    }
    assert {id(p) for p in network.parameters()} == inside


def test_noise_is_off_unless_asked_for() -> None:
    network = built(channels=(4,), hidden=())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(network(x), network(x))
    with noise(network, GaussianNoise(torch.Generator().manual_seed(0))):
        assert not torch.equal(network(x), network(x))


def test_sigma_is_one_per_channel_and_learned_when_asked() -> None:
    first = noisy_layers(built(channels=(4,), sigma=0.5, learned_sigma=True))[0]
    assert first.sigma.shape == (4, 1, 1)
    assert first.sigma.requires_grad
    assert not noisy_layers(built(channels=(4,)))[0].sigma.requires_grad


def test_more_halvings_than_pixels_is_said() -> None:
    with pytest.raises(RobenchError, match=r"4 halvings leave nothing of a 8x8 image; list fewer"):
        CNN((1, 8, 8), 10, channels=(2, 2, 2, 2))


def test_bp_teaches_it_the_digits() -> None:
    data = Digits().load()
    torch.manual_seed(0)
    network = CNN((1, 8, 8), 10, channels=(16,), hidden=(32,))
    rng = torch.Generator().manual_seed(0)
    history = BP(epochs=8, lr=1e-2).fit(network, data, rng, lambda _done, _text: None)
    assert history[-1]["validation_accuracy"] > 0.93


def test_the_likelihood_ratio_points_the_way_of_the_gradient() -> None:
    """Of a convolution's weights, against backpropagation through the noisy network."""
    torch.manual_seed(0)
    network = CNN(
        (1, 8, 8), 3, channels=(2,), hidden=(), activation="sigmoid", pool="average", sigma=0.3
    )
    with torch.no_grad():
        network.layers[0].op.weight.mul_(8)  # so that what the convolution does matters to the loss
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    estimator = LikelihoodRatio(copies=40_000, pairing="antithetic", chunk_rows=20_000)
    estimator.backward(network, x, y, cross_entropy_rows, torch.Generator().manual_seed(1))
    estimated = network.convolutions[0].op.weight.grad.clone()
    network.zero_grad()
    copies = 2000
    with noise(network, GaussianNoise(torch.Generator().manual_seed(2))):
        logits = network(x.repeat(copies, 1, 1, 1))
    cross_entropy_rows(logits, y.repeat(copies)).mean().backward()
    exact = network.convolutions[0].op.weight.grad
    cosine = torch.nn.functional.cosine_similarity(estimated.flatten(), exact.flatten(), dim=0)
    assert cosine > 0.95


def test_noise_after_the_halving_enters_a_quarter_of_the_elements_of_the_same_network() -> None:
    before = built(channels=(4, 8), halvings=(1,), norm="layer")
    after = built(channels=(4, 8), halvings=(1,), norm="layer", noise="halving")
    for theirs, ours in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(theirs, ours)
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(before(x), after(x))
    sizes = []
    for network in (before, after):
        layer = noisy_layers(network)[0]
        sizes.append(layer.op(x).numel())
    assert sizes[0] == 4 * sizes[1]


def test_one_sigma_for_each_neuron_fits_where_the_noise_enters() -> None:
    network = built(channels=(4,), halvings=(1,), noise="halving", sigma_per="neuron")
    assert noisy_layers(network)[0].sigma.shape == (4, 16, 16)


def test_a_halved_convolution_with_a_shortcut_cannot_have_its_noise_after_the_halving() -> None:
    with pytest.raises(RobenchError, match="convolution 2 halves the image"):
        built(channels=(4, 4), halvings=(2,), shortcuts=(2,), noise="halving")


def test_noise_before_the_halving_keeps_the_digests_of_old_cards() -> None:
    assert "noise" not in CNN.resolved({})
    assert CNN.resolved({"noise": "halving"})["noise"] == "halving"
