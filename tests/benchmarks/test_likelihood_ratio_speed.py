"""Time and memory of the likelihood-ratio estimator, beside what it cannot do without.

    pytest tests/benchmarks/test_likelihood_ratio_speed.py -o addopts= -s

Times are CPU milliseconds of one thread, the best of several rounds in which the rivals take
turns. An update's floor is the sum of its normals and its matrix products (forward, and the
gradient of the weights), each alone; for the spiking network, of its membrane updates, too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from glr_update import COPIES, IMAGES, batch, glr_network
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from robench.networks.base import Network
from robench.networks.lif import integrate
from robench.networks.linear import Linear
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.networks.noise import noisy_layers
from robench.networks.snn import SNN
from robench.networks.standard_noise import NoiseStream
from robench.trainers.likelihood_ratio import LikelihoodRatio, Pairing
from robench.trainers.nit import NIT

BLOCK = 12_800
"""Rows at a time in the floors: a size at which the caches still hold what is multiplied."""

Tabled = Callable[..., None]

torch.set_num_threads(1)


def best(rivals: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Milliseconds of each, the best of `rounds`."""
    found = dict.fromkeys(rivals, float("inf"))
    for _ in range(rounds):
        for name, work in rivals.items():
            start = time.thread_time()
            work()
            found[name] = min(found[name], 1e3 * (time.thread_time() - start))
    return found


def loop_over_copies(network: MLP, x: Tensor, y: Tensor, copies: int, rng: torch.Generator) -> None:
    """Eq. 5 as it is printed: one noisy forward pass after the other."""
    with torch.no_grad():
        for layer in network.layers:
            for parameter in layer.op.parameters():
                parameter.grad = torch.zeros_like(parameter)
        for _ in range(copies):
            v, seen = x.flatten(1), []
            for layer in network.layers:
                inputs = v if not seen else network.phi(v)
                eps = torch.empty(len(x), len(layer.sigma)).normal_(generator=rng)
                v = layer.op(inputs) + layer.sigma * eps
                seen.append((layer, inputs, eps))
            losses = cross_entropy(v, y, reduction="none")[:, None] / (copies * len(x))
            for layer, inputs, eps in seen:
                score = losses * eps / layer.sigma
                layer.op.weight.grad += score.t() @ inputs
                layer.op.bias.grad += score.sum(0)


def gradient(network: Network) -> Tensor:
    grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    return torch.cat(grads)


def normals(count: int, rng: torch.Generator) -> Callable[[], None]:
    buffer, stream = torch.empty(min(count, BLOCK * 30)), NoiseStream.from_generator(rng)

    def work() -> None:
        for start in range(0, count, len(buffer)):
            stream.fill(buffer[: count - start], "gaussian", False)

    return work


def products(op: nn.Linear, rows: int, weight_rows: int | None = None) -> Callable[[], None]:
    """`rows` through op, and the gradient of its weights from `weight_rows` of them."""
    size = min(rows, BLOCK)
    x, grad = torch.rand(size, op.in_features), torch.rand(size, op.out_features)
    if isinstance(op, Linear):  # which leaves its rows next to each other
        x, grad = torch.rand(op.in_features, size).t(), torch.rand(op.out_features, size).t()

    def work() -> None:
        with torch.no_grad():
            for _ in range(round(rows / size)):
                op(x)
            for _ in range(round((rows if weight_rows is None else weight_rows) / size)):
                grad.t() @ x

    return work


@pytest.mark.parametrize("pairing", ["none", "antithetic", "factorial"])
def test_one_update_with_ten_thousand_copies(pairing: Pairing, tabled: Tabled) -> None:
    network, (x, y), rng = glr_network(), batch(), torch.Generator().manual_seed(0)
    estimator = LikelihoodRatio(copies=COPIES, pairing=pairing)
    draws = COPIES // {"none": 1, "antithetic": 2, "factorial": 4}[pairing]
    hidden_rows = draws * IMAGES * (1 if pairing == "none" else 2)
    drawn = normals(draws * IMAGES * 30, rng)
    first, second = (layer.op for layer in network.layers)
    usual = nn.Linear(20, 10)
    times = best(
        {
            "update": lambda: estimator.backward(network, x, y, cross_entropy_rows, rng),
            "normals": drawn,
            "first": products(first, IMAGES),
            "products": products(second, hidden_rows),
            "usual": products(usual, hidden_rows),
            "loop": lambda: loop_over_copies(network, x, y, COPIES // 50, rng),
        }
    )
    seconds = {
        "its normals and matrix products": times["normals"] + times["first"] + times["products"],
        "the same with torch's Linear": times["normals"] + times["first"] + times["usual"],
        "robench": times["update"],
        "loop over copies (1/50 of it, times 50)": 50 * times["loop"],
    }
    about = (
        f"K = {COPIES}, {IMAGES} images, 196-20-10, one gradient. Floor: {draws} draws' normals."
    )
    tabled(f"GLR update, {pairing}", about, {side: ms / 1e3 for side, ms in seconds.items()},
           "its normals and matrix products")  # fmt: skip
    network.zero_grad(set_to_none=True)
    estimator.backward(network, x, y, cross_entropy_rows, rng)
    fast = gradient(network)
    loop_over_copies(network, x, y, COPIES, rng)
    assert cosine_similarity(fast, gradient(network), dim=0) > 0.7  # the noise of both


MEMORY = """
import re, sys, torch
from pathlib import Path
from robench.trainers.likelihood_ratio import LikelihoodRatio
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
torch.set_num_threads(1)
network = MLP((1, 14, 14), 10, hidden=(20,), activation="sigmoid", sigma=2.0)
x, y = torch.rand(25, 1, 14, 14), torch.arange(25) % 10
peaks = []
for copies in (40, int(sys.argv[1])):
    estimator = LikelihoodRatio(copies=copies, pairing=sys.argv[2])
    estimator.backward(network, x, y, cross_entropy_rows, torch.Generator())
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024)
print(peaks[1] - peaks[0])
"""


@pytest.mark.parametrize("pairing", ["none", "factorial"])
@pytest.mark.parametrize("copies", [1000, 10_000, 200_000])
def test_peak_memory_whatever_the_number_of_copies(copies: int, pairing: Pairing) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(copies), pairing],
        capture_output=True,
        text=True,
        check=True,
    )
    extra = float(done.stdout)
    print(f"\n{pairing}: K = {copies}: {extra:.0f} MiB above K = 40")
    assert extra < 200


@pytest.mark.parametrize(
    ("pairing", "last_steps"), [("none", None), ("antithetic", None), ("factorial", 2)]
)
def test_a_nit_update(pairing: Pairing, last_steps: int | None, tabled: Tabled) -> None:
    """C = 40, T = 5, 784-50-10, batches of 100 of the 49,000 training images of a 7:2:1 split."""
    torch.manual_seed(0)
    network = SNN((1, 28, 28), 10, hidden=(50,), steps=5)
    trainer = NIT(copies=40, last_steps=last_steps or "all", pairing=pairing)
    optimizer, rng = trainer.make_optimizer(network), torch.Generator().manual_seed(0)
    trainer.start_epoch(network, 0)
    x, y = torch.rand(100, 1, 28, 28, generator=rng), torch.arange(100) % 10

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.gradient(network, x, y, rng)
        optimizer.step()
        trainer.after_step(network)

    patterns = {"none": 1, "antithetic": 2, "factorial": 4}[pairing]
    rows, draws, steps = 40 * 100, 40 * 100 // patterns, 5
    used = steps if last_steps is None else last_steps
    ops = [layer.op for layer in noisy_layers(network)]
    potentials = [torch.rand(rows, layer.op.out_features) for layer in noisy_layers(network)]

    def membranes() -> None:
        with torch.no_grad():
            for potential in potentials:
                integrate([potential] * steps, steps, network.decay, network.spike)

    times = best(
        {
            "update": update,
            "normals": normals(draws * steps * 60, rng),
            "membranes": membranes,
            "first": products(ops[0], 100),
            "second": products(ops[1], rows * steps, rows * used),
        },
        rounds=40,
    )
    floor = sum(times.values()) - times["update"]
    parts = {
        "normals": times["normals"],
        "membranes": times["membranes"],
        "matrix products": times["first"] + times["second"],
        "the three, each alone": floor,
        "robench": times["update"],
    }
    about = "C = 40, T = 5, 784-50-10, 100 images; an epoch of MNIST (7:2:1) has 490 of them."
    steps_used = "all steps" if last_steps is None else f"the last {last_steps} steps"
    tabled(f"NIT update, {pairing}, {steps_used}", about,
           {side: ms / 1e3 for side, ms in parts.items()}, "the three, each alone")  # fmt: skip
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
