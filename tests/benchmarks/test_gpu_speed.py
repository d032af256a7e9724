"""Attacks, spiking networks and likelihood-ratio updates on a GPU, with and without replay.py.

    pytest tests/benchmarks/test_gpu_speed.py -o addopts= -s

All sides run in one process and take turns. The clock counts, from when the device is idle to when
it is idle again: with small networks it waits for Python, and that is what recording saves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from glr_update import COPIES, batch, glr_network
from mnist_networks import trained
from plain_loop import EPS, STEP, STEPS, floor

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, BIM
from robench.attacks.libraries.art import ART
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.nattack import NAttack
from robench.attacks.square import Square
from robench.attacks.target import WhiteBoxTarget
from robench.networks import replay
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN
from robench.trainers.base import Trainer, _Recorded
from robench.trainers.glr import GLR
from robench.trainers.likelihood_ratio import LikelihoodRatio, Pairing
from robench.trainers.nit import NIT
from robench.trainers.stbp import STBP, STBPN

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
Tabled = Callable[..., None]
CUDA = torch.device("cuda")
torch.backends.cudnn.deterministic = True  # as in a run: else a pass does not repeat itself


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each side, of so many rounds after two that warm up."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, side in sides.items():
            torch.cuda.synchronize()
            started = time.perf_counter()
            side()
            torch.cuda.synchronize()
            if number > 1:
                spent[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in spent.items()}


@contextmanager
def without_replay() -> Iterator[None]:
    replay.enabled = False
    try:
        yield
    finally:
        replay.enabled = True


def step_by_step(side: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        with without_replay():
            side()

    return work


def as_one(work: Callable[[], object]) -> Callable[[], None]:
    """All of it as one CUDA graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def bandwidth() -> float:
    """Bytes per second, read and written, of a large copy."""
    a = torch.empty(2**30, dtype=torch.uint8, device=CUDA)
    b = torch.empty_like(a)
    return 2 * 2**30 / take_turns({"copy": lambda: b.copy_(a)}, 20)["copy"]


def attacked(attack: Attack, network: Network, x: Tensor, y: Tensor) -> Tensor:
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    return attack.perturb(target, x, y, torch.Generator(CUDA).manual_seed(0))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_pgd(name: str, tabled: Tabled) -> None:
    networks, x, y = trained()
    network, x, y = networks[name].to(CUDA), x.to(CUDA), y.to(CUDA)
    attacks: dict[str, Attack] = {
        "robench, no one leaves": BIM(steps=STEPS, step_size=STEP, keep="last"),
        "robench": BIM(steps=STEPS, step_size=STEP),
        "foolbox": Foolbox(attack="LinfBasicIterativeAttack", steps=STEPS, abs_stepsize=STEP),
        "art": ART(attack="BasicIterativeMethod", max_iter=STEPS, eps_step=STEP),
    }

    def bare() -> Tensor:
        return floor(network, x, y)

    def own(attack: Attack) -> Callable[[], Tensor]:
        return lambda: attacked(attack, network, x, y)

    sides: dict[str, Callable[[], object]] = {"floor": bare, "floor as one graph": as_one(bare)}
    sides |= {title: own(attack) for title, attack in attacks.items()}
    for title in list(attacks)[:2]:
        sides[f"{title}, step by step"] = step_by_step(sides[title])
    seconds = take_turns(sides, 15)
    accuracy = {}
    for title, side in sides.items():
        found = side()
        if isinstance(found, Tensor):
            accuracy[title] = float((network(found).argmax(1) == y).float().mean())
    notes = {title: f"accuracy {value:.3f}" for title, value in accuracy.items()}
    about = (
        f"1000 MNIST images, eps {EPS}, steps of {STEP}. Floor: as many times forward, gradient of "
        "the input, signed step, clamp, asked for one by one."
    )
    tabled(f"GPU: PGD, {STEPS} steps, {name}", about, seconds, "floor", notes)
    assert seconds["robench"] < seconds["robench, step by step"]
    assert accuracy["robench"] <= accuracy["floor"]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_longer_attacks(name: str, tabled: Tabled) -> None:
    networks, x, y = trained()
    network, x, y = networks[name].to(CUDA), x.to(CUDA), y.to(CUDA)
    sides: dict[str, Callable[[], object]] = {}
    for title, attack in {
        "APGD, 100 steps": APGD(steps=100),
        "Square, 200 queries": Square(queries=200),
        "NAttack, 10 x 100": NAttack(iterations=10, population=100),
    }.items():
        few = slice(0, 100 if isinstance(attack, NAttack) else 1000)

        def work(attack: Attack = attack, few: slice = few) -> object:
            return attacked(attack, network, x[few], y[few])

        sides[f"{title}, step by step"] = step_by_step(work)
        sides[title] = work
    seconds = take_turns(sides, 3)
    about = "1000 MNIST images (NAttack: 100). Ratios are to APGD step by step."
    tabled(f"GPU: longer attacks, {name}", about, seconds, next(iter(seconds)))


def test_gradients_of_a_spiking_network(tabled: Tabled) -> None:
    _, x, y = trained()
    x, y = x[:500].to(CUDA), y[:500].to(CUDA)
    torch.manual_seed(0)
    network = SNN((1, 28, 28), 10, hidden=(50,), steps=5).to(CUDA).eval().requires_grad_(False)

    def bare() -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)

    for draws in (1, 10):
        with noise(network, GaussianNoise(torch.Generator(CUDA).manual_seed(0))):
            target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))

            def ask(target: WhiteBoxTarget = target, draws: int = draws) -> object:
                return target.gradient(x, y, draws=draws)

            sides = {
                "one pass, no noise": bare,
                "robench, step by step": step_by_step(ask),
                "robench": ask,
            }
            for _ in range(replay.PATIENCE + 1):
                ask()
            seconds = take_turns(sides, 30)
        about = "784-50-10, 5 steps, 500 images: gradient of the images, with noise."
        tabled(f"GPU: spiking network, {draws} draws", about, seconds, "one pass, no noise")
    assert seconds["robench"] < seconds["robench, step by step"]


@pytest.mark.parametrize("pairing", ["none", "antithetic", "factorial"])
def test_glr_updates(pairing: Pairing, tabled: Tabled) -> None:
    network, (x, y) = glr_network().to(CUDA), (part.to(CUDA) for part in batch())
    draws = COPIES // {"none": 1, "antithetic": 2, "factorial": 4}[pairing]
    normals = torch.empty(draws * len(x) * 30, device=CUDA)
    rng = torch.Generator(CUDA).manual_seed(0)
    estimator = LikelihoodRatio(copies=COPIES, pairing=pairing)

    def update() -> None:
        for weight in network.parameters():
            weight.grad = None
        estimator.backward(network, x, y, cross_entropy_rows, rng)

    trainer = GLR(copies=COPIES, pairing=pairing)
    trainer.start_epoch(network, 0)
    recorded = _Recorded(trainer, network, rng)
    for _ in range(replay.PATIENCE + 1):
        recorded(x, y)
    rate = bandwidth()
    seconds = take_turns(
        {
            "its normals": lambda: normals.normal_(generator=rng),
            "robench, step by step": update,
            "robench": lambda: recorded(x, y),
        },
        15,
    )
    # Every normal is written once, and read once for the value and once for the estimate.
    moved = {"its normals, moved three times": 3 * 4 * len(normals) / rate}
    about = (
        f"K = {COPIES}, {len(x)} images, 196-20-10, one gradient. Floor: moving {draws} draws' "
        f"normals at the {rate / 1e12:.2f} TB/s of a large copy."
    )
    tabled(f"GPU: GLR update, {pairing}", about, {**moved, **seconds}, next(iter(moved)))


def test_updates(tabled: Tabled) -> None:
    x, y = torch.rand(100, 1, 28, 28, device=CUDA), torch.arange(100, device=CUDA) % 10
    trainers: dict[str, Trainer] = {
        "STBP": STBP(),
        "STBP-N": STBPN(),
        "NIT, C = 40": NIT(copies=40),
        "NIT, C = 40, factorial, last 2 steps": NIT(copies=40, pairing="factorial", last_steps=2),
        "NIT, C = 4000": NIT(copies=4000),
    }
    sides: dict[str, Callable[[], object]] = {}
    for title, trainer in trainers.items():
        torch.manual_seed(0)
        network = SNN((1, 28, 28), 10, hidden=(50,), steps=5).to(CUDA)
        optimizer, rng = trainer.make_optimizer(network), torch.Generator(CUDA).manual_seed(0)
        trainer.start_epoch(network, 0)
        recorded = _Recorded(trainer, network, rng)

        def update(
            trainer: Trainer = trainer,
            network: SNN = network,
            optimizer: Any = optimizer,
            recorded: _Recorded = recorded,
        ) -> None:
            recorded(x, y)
            optimizer.step()
            trainer.after_step(network)

        for _ in range(replay.PATIENCE + 1):
            update()
        sides[f"{title}, step by step"] = step_by_step(update)
        sides[title] = update
    seconds = take_turns(sides, 50)
    about = "784-50-10, T = 5, 100 images; an epoch of MNIST (7:2:1) has 490 of them."
    tabled("GPU: one update of a spiking network", about, seconds, "STBP, step by step")
    for title in trainers:
        assert seconds[title] < seconds[f"{title}, step by step"]
