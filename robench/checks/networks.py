"""What every network must fulfil: checks that `robench check` runs in seconds, on no data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robench.checks.finding import Result, findings, global_state, raised
from robench.data.base import Part, Splits
from robench.data.graph import Graph
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.modules.module import Module
from robench.networks.torch_state import torch_seeded
from robench.plugin_code.guard import guarded

Shape = tuple[int, int, int]
SHAPES: tuple[Shape, ...] = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))
"""(c, h, w) of the images that are tried; the first that the network takes counts."""
CLASSES = 10
Make = Callable[[Shape, int, Graph | None], Network]
"""Builds the network for images of a shape, so many classes and, where items are nodes, a graph."""


@dataclass(frozen=True)
class Bench:
    """A way to build the network, on images that it takes."""

    make: Make
    shape: Shape
    classes: int
    data: Splits | None = None
    """What the network is tried on; None: noise."""

    def built(self, seed: int = 0) -> Network:
        """A fresh network in evaluation mode; torch's global state is left as it was."""
        with torch_seeded(seed):
            return self.made().eval()

    def made(self) -> Network:
        """The network, built wherever torch builds now."""
        return self.make(self.shape, self.classes, self.data.graph if self.data else None)

    @property
    def images(self) -> Tensor:
        """12 images, (12, c, h, w) in [0, 1]."""
        if self.data is not None:
            return torch.from_numpy(self.data.train.images[:12])
        return torch.rand(12, *self.shape, generator=torch.Generator().manual_seed(5))

    def answer(self, network: Network, x: Tensor) -> Tensor:
        """Raises RobenchError where the network changes what is not its own."""
        network.generator = torch.Generator().manual_seed(7)
        who, given = f"network {type(network).__name__}", x.clone()
        with torch.no_grad(), guarded(who, None, network):
            logits = network(given)
        if not torch.equal(given, x):
            raise RobenchError(f"{who} changes its input in place: x = x.clone() first")
        return logits


def small_graph() -> Splits:
    """60 nodes in a ring whose features tell their classes; each has an edge to its likes, too."""
    nodes, rng = np.arange(60), np.random.default_rng(0)
    features = (rng.random((60, 3 * CLASSES)) < 0.1).astype(np.float32)
    features[nodes, nodes % CLASSES] = 1
    pairs = [(nodes, (nodes + step) % 60) for step in (1, CLASSES)]
    one, other = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    graph = Graph(features, np.stack([np.append(one, other), np.append(other, one)]))
    train, validation, test = (
        Part(graph.items(part), part % CLASSES) for part in np.split(nodes, [40, 50])
    )
    names = tuple(str(label) for label in range(CLASSES))
    return Splits(train, validation, test, names, graph)


def find_bench(
    make: Make, data: Splits | None = None, also: Callable[[Bench], object] | None = None
) -> Bench:
    """Where a network can be tried: on `data`, else on the first of SHAPES that it takes, else on a
    small graph. Raises what the network raises at the last shape.

    Args:
        also: what must work too, without raising.
    """
    graph = small_graph()
    benches = [Bench(make, shape, CLASSES) for shape in SHAPES]
    benches.append(Bench(make, graph.input_shape, CLASSES, graph))
    if data is not None:
        benches = [Bench(make, data.input_shape, len(data.classes), data)]
    raised: Exception | None = None
    for bench in benches:
        try:
            network = bench.built()
            answer = bench.answer(network, bench.images)
            if isinstance(network, Module) and answer.dim() == 2:  # its classes are its own
                bench = replace(bench, classes=answer.shape[1])
            if also is not None:
                also(bench)
        except Exception as error:
            raised = raised if bench.data and raised else error
            continue
        return bench
    raise raised or AssertionError("SHAPES is empty")


def check_network(make: Make, data: Splits | None = None) -> list[Result]:
    """All checks of a network, one finding each, on `data` or on what it takes."""
    try:
        bench = find_bench(make, data)
    except Exception as error:
        return [Result("answers", False, raised(error))]
    return findings([answers, builds, repeats, batches, state, gradient], bench)


def answers(bench: Bench) -> str:
    """Finite logits, one for each class."""
    answer = bench.answer(bench.built(), bench.images)
    wanted = (len(bench.images), bench.classes)
    if not isinstance(answer, Tensor) or tuple(answer.shape) != wanted:
        shape = tuple(getattr(answer, "shape", ())) or type(answer).__name__
        return f"it answers {shape} where logits {wanted} are expected"
    finite = bool(torch.isfinite(answer).all())
    return "" if finite else "it answers NaN or infinite logits"


def builds(bench: Bench) -> str:
    """The same seed makes the same weights, and planning can build it without memory."""
    with torch.device("meta"):
        bench.made()
    one, two = bench.built(3).state_dict(), bench.built(3).state_dict()
    same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    return "" if same else "two builds after one torch.manual_seed differ"


def repeats(bench: Bench) -> str:
    """The same answer twice; what is random comes from `self.generator` and is declared."""
    network, x = bench.built(), bench.images
    before = global_state()
    one = bench.answer(network, x)
    if global_state() != before:
        return "it draws from torch's global state: use self.generator"
    if not torch.equal(one, bench.answer(network, x)):
        return "two answers to one question differ: it keeps a state"
    with torch.no_grad():
        still = torch.equal(network(x), network(x))
    hidden = not (network.random_input or still)
    return "its answers are random: let random_input say so" if hidden else ""


def batches(bench: Bench) -> str:
    """What an image is answered does not depend on its neighbours."""
    network, x = bench.built(), bench.images
    if network.random_input:  # nothing to compare
        return ""
    whole = bench.answer(network, x)
    alone = torch.cat([bench.answer(network, image[None]) for image in x])
    far = float((whole - alone).abs().max() / whole.abs().max().clamp_min(1e-6))
    return "" if far < 1e-3 else f"alone and in a batch, answers differ by {far:.1e}"


def state(bench: Bench) -> str:
    """The weights are all there is: another copy with them answers the same."""
    one, two = bench.built(0), bench.built(1)
    two.load_state_dict(one.state_dict())
    same = torch.equal(bench.answer(one, bench.images), bench.answer(two, bench.images))
    return "" if same else "state_dict() does not hold all of it: register buffers"


def gradient(bench: Bench) -> str:
    """White-box attacks get a finite gradient with respect to the images."""
    network, leaf = bench.built(), bench.images.requires_grad_()
    network.generator = torch.Generator().manual_seed(7)
    answer = network(leaf)
    if not answer.requires_grad:
        return "the answer has no gradient with respect to the images"
    (found,) = torch.autograd.grad(answer.sum(), leaf, allow_unused=True)
    sound = found is not None and bool(torch.isfinite(found).all())
    return "" if sound else "the gradient is absent or not finite"
