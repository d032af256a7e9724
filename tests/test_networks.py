"""Networks: the LIF neuron step by step, noise on and off, surrogate derivatives."""

from __future__ import annotations

import pytest
import torch

from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN
from robench.networks.surrogate import NAMED, Step, parse_surrogate, surrogate

SHAPE = (1, 2, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=generator())


def test_lif_steps_equal_equation_7_on_a_hand_computed_trace() -> None:
    # k = 0.5, Vth = 1, constant current 0.8:
    # u = 0.8 (no spike), 0.4 + 0.8 = 1.2 (spike), reset: 0.8, 1.2 (spike).
    network = SNN((1, 1, 1), 2, hidden=[1], steps=4, decay=0.5, threshold=1.0, readout="rate")
    state, spikes, potentials = None, [], []
    for _ in range(4):
        state = network._membrane(state, torch.tensor([[0.8]]))
        potentials.append(round(float(state[0]), 6))
        spikes.append(float(state[1]))
    assert potentials == [0.8, 1.2, 0.8, 1.2]
    assert spikes == [0.0, 1.0, 0.0, 1.0]


def test_the_rate_read_out_is_the_mean_of_the_spikes() -> None:
    network = SNN((1, 1, 1), 2, hidden=[1], steps=4, decay=0.5, threshold=0.5, readout="rate")
    with torch.no_grad():
        network.layers[0].op.weight.fill_(1.0)
        network.layers[1].op.weight.copy_(torch.tensor([[0.4], [0.0]]))
    # Hidden spikes at every step (current 1). Output 0: 0.4, 0.6 (spike), 0.4, 0.6 (spike).
    rates = network(torch.ones(1, 1, 1, 1)).detach()
    assert rates[0, 0] == pytest.approx(0.5, abs=2e-3)
    assert rates[0, 1] == pytest.approx(0.0, abs=2e-3)


def test_a_network_keeps_no_state_between_calls() -> None:
    network = SNN(SHAPE, 3)
    assert torch.equal(network(images()), network(images()))


def test_bernoulli_input_spikes_at_the_pixels_rate_and_lets_gradients_through() -> None:
    network = SNN((1, 1, 1), 2, encoding="bernoulli")
    network.generator = generator()
    x = torch.full((20_000, 1), 0.3, requires_grad=True)
    spikes = network._bernoulli(x)
    assert float(spikes.detach().mean()) == pytest.approx(0.3, abs=0.02)
    assert set(spikes.detach().round(decimals=4).unique().tolist()) <= {0.0, 1.0}
    spikes.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("kind", ["mlp", "snn"])
def test_noise_is_off_unless_a_source_is_given(kind: str) -> None:
    network = MLP(SHAPE, 3) if kind == "mlp" else SNN(SHAPE, 3, readout="membrane")
    still = network(images())
    with noise(network, GaussianNoise(generator())):
        first, second = network(images()), network(images())
    assert torch.equal(network(images()), still)
    assert not torch.equal(first, second)
    assert not torch.equal(first, still)


def test_noise_is_a_function_of_the_generators_seed() -> None:
    network = MLP(SHAPE, 3)

    def draw(seed: int) -> torch.Tensor:
        with noise(network, GaussianNoise(generator(seed))):
            return network(images())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_noise_has_the_layers_standard_deviation() -> None:
    network = MLP(SHAPE, 2, hidden=[], sigma=0.7)
    x = images(1).repeat(20_000, 1, 1, 1)
    with noise(network, GaussianNoise(generator())), torch.no_grad():
        spread = (network(x) - network.layers[0].op(x.flatten(1))).std(0)
    assert torch.allclose(spread, torch.full((2,), 0.7), rtol=0.03)


@pytest.mark.parametrize("name", NAMED)
def test_surrogate_derivatives_are_even_bumps_around_the_threshold(name: str) -> None:
    u = torch.linspace(-3, 3, 601, dtype=torch.float64)
    derivative = parse_surrogate(name).derivative(u)
    assert torch.allclose(derivative, derivative.flip(0))
    assert (derivative >= 0).all()
    assert derivative.argmax() in range(250, 351)
    if name not in ("polynomial", "fast-sigmoid"):  # those two are not densities
        area = float(
            parse_surrogate(name).derivative(torch.linspace(-200, 200, 400_001)).sum() / 1000
        )
        assert area == pytest.approx(1.0, abs=0.02)


def test_the_rectangle_is_the_papers() -> None:
    # STBP Eq. 24 with a = 1: derivative 1/a inside |u| < a/2.
    derivative = parse_surrogate("rectangle:0.5").derivative(
        torch.tensor([-0.6, -0.4, 0.0, 0.49, 0.51])
    )
    assert derivative.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_an_attacker_may_choose_the_derivative_without_changing_the_spikes() -> None:
    network = SNN(SHAPE, 3, readout="rate")
    grads, outs = [], []
    for name in ("rectangle:0.5", "fast-sigmoid:0.25"):
        x = images().requires_grad_()
        with surrogate(network, name):
            out = network(x)
        out.sum().backward()
        grads.append(x.grad)
        outs.append(out)
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(grads[0], grads[1])
    assert network.spike.surrogate == parse_surrogate("rectangle:0.5")


@pytest.mark.parametrize("text", ["rectangel", "rectangle:wide", "rectangle:0", "arctan:-1"])
def test_a_bad_surrogate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        parse_surrogate(text)


def test_a_step_is_the_same_with_and_without_a_graph() -> None:
    u = torch.tensor([-1.0, 0.0, 1e-8, 2.0])
    step = Step()
    assert step(u).tolist() == step(u.clone().requires_grad_()).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_tied_spikes_are_broken_by_membrane_potential() -> None:
    network = SNN((1, 1, 1), 2, hidden=[1], steps=1, threshold=0.5)
    with torch.no_grad():
        network.layers[0].op.weight.fill_(1.0)
        network.layers[1].op.weight.copy_(torch.tensor([[0.6], [0.9]]))
    logits = network(torch.ones(1, 1, 1, 1))
    assert logits.argmax() == 1
    assert bool(network.ties(logits)[0])


def test_spike_rates_are_spikes_per_neuron_and_step() -> None:
    network = SNN((1, 1, 1), 2, hidden=[1], steps=4, decay=0.5, threshold=0.5)
    with torch.no_grad():
        network.layers[0].op.weight.fill_(1.0)
        network.layers[1].op.weight.copy_(torch.tensor([[0.4], [0.0]]))
    # Hidden spikes always; output 0 at every second step, output 1 never.
    rates = network.activity(torch.ones(3, 1, 1, 1))
    assert rates == {"spike_rate_1": 1.0, "spike_rate_2": 0.25}
