"""Time of the spiking network beside snntorch's and spikingjelly's, for the same network.

    pytest tests/benchmarks/test_snn_speed.py -o addopts= -s

784-50-10, five steps, batches of 100 images, one thread: forward, and forward with backward. Rivals
take turns; CPU milliseconds, the best of many rounds. All answer with the same spikes, and
with the same gradient (snntorch does not let it flow through the reset: there it is not compared).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robench.networks.snn import SNN
from robench.networks.surrogate import parse_surrogate

STEPS, DECAY, THRESHOLD = 5, 0.2, 0.5
SHAPE, HIDDEN, CLASSES, BATCH = (1, 28, 28), 50, 10, 100
Tabled = Callable[..., None]

torch.set_num_threads(1)


def ours() -> SNN:
    torch.manual_seed(0)
    return SNN(SHAPE, CLASSES, hidden=[HIDDEN], steps=STEPS, decay=DECAY, threshold=THRESHOLD)


class Rectangle(torch.autograd.Function):
    """The same spike for the others, as lean as ours."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * parse_surrogate("rectangle:0.5").derivative(*ctx.saved_tensors)


def snntorch_network(weights: list[Tensor]) -> Callable[[Tensor], Tensor]:
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    linears = linear_layers(weights)
    neurons = [
        snntorch.Leaky(
            beta=DECAY,
            threshold=THRESHOLD,
            reset_mechanism="zero",
            spike_grad=Rectangle.apply,
        )
        for _ in linears
    ]

    def forward(x: Tensor) -> Tensor:
        state = [neuron.init_leaky() for neuron in neurons]
        drive = linears[0](x.flatten(1))
        spikes = drive
        for _ in range(STEPS):
            spikes = drive
            for index, neuron in enumerate(neurons):
                current = spikes if index == 0 else linears[index](spikes)
                spikes, state[index] = neuron(current, state[index])
        return spikes

    return forward


def spikingjelly_network(weights: list[Tensor]) -> Callable[[Tensor], Tensor]:
    jelly = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="spikingjelly is not installed"
    )
    linears = linear_layers(weights)
    # u + W x, then u (1 - 1/tau) at the next step: v_reset 0, input not decayed.
    neurons = [
        jelly.LIFNode(
            tau=1 / (1 - DECAY),
            decay_input=False,
            v_threshold=THRESHOLD,
            v_reset=0.0,
            surrogate_function=Rectangle.apply,
        )
        for _ in linears
    ]

    def forward(x: Tensor) -> Tensor:
        for neuron in neurons:
            neuron.reset()
        drive = linears[0](x.flatten(1))
        spikes = drive
        for _ in range(STEPS):
            spikes = drive
            for index, neuron in enumerate(neurons):
                spikes = neuron(spikes if index == 0 else linears[index](spikes))
        return spikes

    return forward


def spikingjelly_layer_by_layer(weights: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """Its multi-step mode: all steps of a layer, then the next layer."""
    jelly = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="spikingjelly is not installed"
    )
    linears = linear_layers(weights)
    neurons = [
        jelly.LIFNode(
            tau=1 / (1 - DECAY),
            decay_input=False,
            v_threshold=THRESHOLD,
            v_reset=0.0,
            surrogate_function=Rectangle.apply,
            step_mode="m",
        )
        for _ in linears
    ]

    def forward(x: Tensor) -> Tensor:
        for neuron in neurons:
            neuron.reset()
        spikes = neurons[0](linears[0](x.flatten(1)).expand(STEPS, -1, -1))
        for linear, neuron in zip(linears[1:], neurons[1:], strict=True):
            spikes = neuron(linear(spikes))
        return spikes[-1]

    return forward


RIVALS = {
    "snntorch": snntorch_network,
    "spikingjelly": spikingjelly_network,
    "spikingjelly, multi-step": spikingjelly_layer_by_layer,
}


def linear_layers(weights: list[Tensor]) -> list[nn.Linear]:
    layers = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight.clone())
        layers.append(layer)
    return layers


def best(rivals: dict[str, Callable[[], object]], rounds: int = 300) -> dict[str, float]:
    """Seconds of each, the best of `rounds`."""
    found = dict.fromkeys(rivals, float("inf"))
    for _ in range(rounds):
        for name, work in rivals.items():
            start = time.thread_time()
            work()
            found[name] = min(found[name], time.thread_time() - start)
    return found


@pytest.mark.parametrize("rival", RIVALS)
def test_our_network_is_at_least_as_fast(rival: str, tabled: Tabled) -> None:
    network = ours()
    with torch.no_grad():
        for layer in network.layers:
            layer.op.weight.mul_(3)
    other = RIVALS[rival]([layer.op.weight.detach() for layer in network.layers])
    x = torch.rand(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))

    def still(forward: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def work() -> Tensor:
            with torch.no_grad():
                return forward(x)

        return work

    def learning(forward: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def work() -> Tensor:
            images = x.clone().requires_grad_()
            forward(images).sum().backward()
            assert images.grad is not None
            return images.grad

        return work

    mine, theirs = still(network)(), still(other)()
    assert theirs.sum() > 50
    torch.testing.assert_close(mine.round(), theirs)
    if rival != "snntorch":
        torch.testing.assert_close(learning(network)(), learning(other)())
    for what, job in (("forward", still), ("forward and backward", learning)):
        seconds = best({rival: job(other), "robench": job(network)})
        about = f"784-50-10, {STEPS} steps, {BATCH} images: CPU time, the best of many rounds."
        tabled(f"Spiking network, {what}: {rival}", about, seconds, rival)
        assert seconds["robench"] <= seconds[rival]
