"""Networks: the LIF neuron step by step, noise on and off, surrogate derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from robench.errors import RobenchError
from robench.networks.mlp import MLP
from robench.networks.modules.over_time import bernoulli
from robench.networks.noise import GaussianNoise, NoiseSource, NoisyLayer, noise
from robench.networks.snn import SNN
from robench.networks.surrogate import NAMED, Step, parse_surrogate, surrogate

SHAPE = (1, 2, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 5) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=generator())


class Given(NoiseSource):
    """A noise source with the eps that a test wrote down, layer by layer and then step by step."""

    def __init__(self, *eps: float) -> None:
        self.eps = iter(eps)

    def inject(self, layer: NoisyLayer, drive: torch.Tensor) -> torch.Tensor:
        return drive + layer.sigma * next(self.eps)


def trace(network: SNN, x: torch.Tensor, eps: Sequence[float]) -> list[list[tuple[float, float]]]:
    """(potential, spike) of every neuron of a network with one neuron per layer, step by step."""
    seen: list[list[tuple[float, float]]] = [[] for _ in network.layers]
    count = iter(range(1000))

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor], spikes: torch.Tensor) -> None:
        u = float(inputs[0].flatten()[0])
        seen[next(count) // network.steps].append((round(u, 4), float(spikes.flatten()[0])))

    hook = network.spike.register_forward_hook(note)
    with torch.no_grad(), noise(network, Given(*eps)):
        network(x)
    hook.remove()
    return seen


def test_lif_steps_equal_equation_7_on_a_hand_computed_trace() -> None:
    # k = 0.5, Vth = 1, sigma = 0.5; the weights are 2 and 0.75, the pixel is 0.4: W x = 0.8.
    network = SNN((1, 1, 1), 1, hidden=[1], steps=4, decay=0.5, threshold=1.0, sigma=0.5)
    with torch.no_grad():
        network.layers[0].op.weight.fill_(2.0)
        network.layers[1].op.weight.fill_(0.75)
    # t   u1 = k u1 (1 - s1) + 0.8 + 0.5 eps   s1    u2 = k u2 (1 - s2) + 0.75 s1 + 0.5 eps   s2
    # 1              0.8  + 0.1    = 0.9        0                  0    + 0.6       = 0.6      0
    # 2    0.45    + 0.8  + 0      = 1.25       1      0.3       + 0.75 + 0         = 1.05     1
    # 3    0       + 0.8  - 0.2    = 0.6        0      0         + 0    + 0.4       = 0.4      0
    # 4    0.3     + 0.8  + 0      = 1.1        1      0.2       + 0.75 + 0         = 0.95     0
    eps = [0.2, 0.0, -0.4, 0.0, 1.2, 0.0, 0.8, 0.0]  # by layer, and then by step
    assert trace(network, torch.full((1, 1, 1, 1), 0.4), eps) == [
        [(0.9, 0), (1.25, 1), (0.6, 0), (1.1, 1)],
        [(0.6, 0), (1.05, 1), (0.4, 0), (0.95, 0)],
    ]


def test_a_potential_at_the_threshold_does_not_spike() -> None:
    network = SNN((1, 1, 1), 1, hidden=[], steps=1, threshold=0.5)
    with torch.no_grad():
        network.layers[0].op.weight.fill_(0.5)
    assert trace(network, torch.ones(1, 1, 1, 1), [0.0]) == [[(0.5, 0)]]


def test_convolutions_are_lif_neurons_too_and_pass_on_the_mean_spikes_of_2x2_pixels() -> None:
    network = SNN((1, 2, 2), 2, convolutions=[1], hidden=[], steps=2, decay=0.5, threshold=0.5)
    with torch.no_grad():
        kernel = torch.zeros(3, 3)
        kernel[1, 1] = 1.0  # every pixel drives its own neuron
        network.layers[0].op.weight.copy_(kernel[None, None])
        network.layers[1].op.weight.copy_(torch.tensor([[1.0], [2.0]]))
    network.readout = "membrane"
    # Pixels 0.6 and 0.9 spike at both steps; 0.4 at the second (0.2 + 0.4), 0 never.
    # Mean spikes: 0.5, then 0.75. Outputs: 0.5 and 1.0 (which spikes), then 0.25 + 0.75 and 1.5.
    x = torch.tensor([[[[0.6, 0.9], [0.4, 0.0]]]])
    with torch.no_grad():
        assert torch.allclose(network(x), torch.tensor([[1.0, 1.5]]))


@pytest.mark.parametrize("convolutions", [[], [2]])
def test_the_current_of_the_first_layer_is_computed_once_per_image(convolutions: list[int]) -> None:
    network = SNN((1, 4, 4), 3, steps=5, convolutions=convolutions)
    rows: list[int] = []
    network.layers[0].op.register_forward_hook(lambda *seen: rows.append(len(seen[2])))
    network(torch.rand(7, 1, 4, 4))
    assert rows == [7]


def test_stbps_convolutional_network_has_its_shape() -> None:
    network = SNN((1, 28, 28), 10, convolutions=[32, 32], hidden=[128])
    shapes = [tuple(layer.op.weight.shape) for layer in network.layers]
    assert shapes == [(32, 1, 3, 3), (32, 32, 3, 3), (128, 32 * 7 * 7), (10, 128)]
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert set(network.activity(torch.rand(2, 1, 28, 28))) == {
        *(f"spike_rate_{layer}" for layer in (1, 2, 3, 4)),
        "synaptic_operations",
        "multiply_accumulates",
    }


def test_spikes_reach_the_outputs_of_a_fresh_convolutional_network() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SNN((1, 28, 28), 10, convolutions=[8, 16], hidden=[64])
    x = torch.rand(50, 1, 28, 28, generator=generator()) ** 3  # mostly dark, as digits are
    assert all(rate > 0.03 for rate in network.activity(x).values())


def test_too_many_convolutions_are_refused() -> None:
    with pytest.raises(RobenchError, match=r"convolutions = \[4, 4, 4, 4\].*8x8.*list fewer"):
        SNN((1, 8, 8), 10, convolutions=[4, 4, 4, 4])


def test_a_network_without_convolutions_keeps_the_digest_it_had_before_there_were_any() -> None:
    assert "convolutions" not in SNN.resolved({})
    assert SNN.resolved({"convolutions": [8]})["convolutions"] == [8]


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
    spikes = bernoulli(x, None)
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
    # Hidden spikes always; output 0 at every second step, output 1 never. The pixel is 1, reaches
    # one neuron once, and each of four spikes reaches two.
    assert network.activity(torch.ones(3, 1, 1, 1)) == {
        "spike_rate_1": 1.0,
        "spike_rate_2": 0.25,
        "synaptic_operations": 9.0,
        "multiply_accumulates": 0.0,
    }


@pytest.mark.parametrize("readout", ["last", "rate", "membrane"])
@pytest.mark.parametrize("convolutions", [[], [3]])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_derivative_in_one_pass_is_that_of_autograd_step_by_step(
    readout: str, convolutions: list[int], noisy: bool
) -> None:
    network = SNN((1, 4, 4), 3, convolutions=convolutions, steps=4, decay=0.6, readout=readout)
    x = torch.rand(6, 1, 4, 4, generator=generator())

    def gradients() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        with noise(network, GaussianNoise(generator(1)) if noisy else None):
            answer = network(leaf)
        wanted = [leaf, *(p for p in network.parameters())]
        found = torch.autograd.grad(answer.square().sum(), wanted, allow_unused=True)
        return [g for g in found if g is not None]

    with surrogate(network, "arctan:2"):
        at_once = gradients()
        network.spike.register_forward_hook(lambda *seen: None)  # takes the other way
        step_by_step = gradients()
    assert len(at_once) == len(step_by_step) >= 1 + len(network.layers)
    assert all(g.abs().sum() > 0 for g in at_once)
    for ours, theirs in zip(at_once, step_by_step, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
