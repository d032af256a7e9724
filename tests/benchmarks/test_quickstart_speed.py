"""What `robench run` costs beside the arithmetic that it cannot do without.

    pytest tests/benchmarks/test_quickstart_speed.py -o addopts= -s

The quickstart runs from nothing in one process of its own, on one thread. Its floor is measured
here, on one thread, too: the updates of every training in a bare loop; the passes through trained
networks that attacks and scoring ask for, each at the number of images and of noisy copies that it
was asked for, without anything around it; the corruptions. CPU seconds.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from processes import ROBENCH, cpu_seconds
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from robench import plugins, tasks
from robench.corruptions.make import corrupt_images
from robench.identity import load_splits
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, noise_source
from robench.plan import Plan, Training, make_plan
from robench.run import make_results
from robench.scoring import in_use
from robench.store import Store
from robench.tasks import _fresh
from robench.workspace import open_workspace, reference_root

Tabled = Callable[..., None]
CPU = torch.device("cpu")
WARM, UPDATES, PASSES = 5, 60, 30


class Pass(NamedTuple):
    """A kind of pass through a trained network."""

    training: Training
    attack: bool
    """Asked for by an attack, not to score."""
    gradient: bool
    copies: int


Asked = dict[Pass, Counter[int]]
"""How many passes there were over so many images."""


def median_seconds(work: Callable[[], object], times: int) -> float:
    for _ in range(WARM):
        work()
    taken = []
    for _ in range(times):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return float(np.median(taken))


def updates(training: Training) -> float:
    """Seconds of all the updates of a training, without the loop around them."""
    card = training.card
    splits, network = load_splits(card), _fresh(card, training.seed)
    trainer = plugins.build("trainers", card.trainer, card)
    rng = torch.Generator().manual_seed(0)
    network.generator = rng
    optimizer = trainer.make_optimizer(network)
    trainer.start_epoch(network, 0)
    rows = slice(0, trainer.batch_size)
    x, y = (torch.from_numpy(a[rows]) for a in (splits.train.images, splits.train.labels))

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        trainer.gradient(network, x, y, rng)
        optimizer.step()
        trainer.after_step(network)

    count: int = trainer.epochs * math.ceil(len(splits.train) / trainer.batch_size)
    return count * median_seconds(update, UPDATES)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Inside the block, the passes through networks that tasks have loaded are counted."""
    asked: Asked = defaultdict(Counter)
    of: dict[int, Training] = {}
    attacking = False
    load, attack, call = tasks._trained, tasks._attack, Network.__call__

    def loaded(training: Training, *rest: str) -> Network:
        network = load(training, *rest)
        of[id(network)] = training
        return network

    def attacked(*given: Any) -> Any:
        nonlocal attacking
        attacking = True
        try:
            return attack(*given)
        finally:
            attacking = False

    def called(network: Network, x: Tensor) -> Tensor:
        if id(network) in of:
            source = noise_source(network)
            copies = source._copies if isinstance(source, GaussianNoise) else 1
            gradient = torch.is_grad_enabled() and x.requires_grad
            asked[Pass(of[id(network)], attacking, gradient, copies)][len(x)] += 1
        return call(network, x)

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "_trained", loaded)
        patch.setattr(tasks, "_attack", attacked)
        patch.setattr(Network, "__call__", called)
        yield asked


def bare(kind: Pass, images: int) -> float:
    """Seconds of one pass."""
    card = kind.training.card
    network, test = _fresh(card, kind.training.seed), load_splits(card).test
    x = torch.from_numpy(test.images[:images])
    y = torch.from_numpy(test.labels[:images]).repeat(kind.copies)

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def gradient() -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)

    with in_use(network, card.inference_noise, 0, CPU):
        source = noise_source(network)
        several = isinstance(source, GaussianNoise) and kind.copies > 1
        with source.copied(images, kind.copies) if several else nullcontext():  # type: ignore[union-attr]
            return median_seconds(gradient if kind.gradient else forward, PASSES)


def passes(asked: Asked) -> dict[str, float]:
    """Seconds of all that was asked, by who asked. Every pass is timed at powers of two images, and
    what lies between is read off a line; seeds of one card cost the same."""
    known: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    seconds: dict[str, float] = defaultdict(float)
    for kind, counts in asked.items():
        most = max(counts)
        timed = known[kind.training.card.name, kind.gradient, kind.copies]
        for images in {1, *(2**k for k in range(1, most.bit_length()) if 2**k < most), most}:
            if images not in timed:
                timed[images] = bare(kind, images)
        sizes = sorted(timed)
        each = np.interp(list(counts), sizes, [timed[size] for size in sizes])
        who = "passes of the attacks" if kind.attack else "passes that score"
        seconds[who] += float(each @ np.array(list(counts.values())))
    return seconds


def corruptions(plan: Plan) -> float:
    """Seconds of making every corrupted set once."""
    done: dict[str, float] = {}
    for cell in plan.cells:
        if cell.threat.kind != "corruption" or cell.threat.name in done:
            continue
        card, test = cell.threat.corruption_card, load_splits(cell.training.card).test
        corruption = plugins.build("corruptions", card.corruption, card)
        images = test.images[cell.start : cell.stop]
        start = time.thread_time()
        corrupt_images(
            corruption, images, cell.start, cell.threat.corruption, cell.threat.severity,
            plan.report.seed, test.labels[cell.start : cell.stop],
        )  # fmt: skip
        done[cell.threat.name] = time.thread_time() - start
    return sum(done.values())


def test_the_quickstart_costs_little_more_than_its_arithmetic(
    tmp_path: Path, tabled: Tabled, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    command = [
        ROBENCH, "run", "--jobs", "1",
        "--store", str(tmp_path / "store"), "--out", str(tmp_path / "page"),
    ]  # fmt: skip
    whole, again = (cpu_seconds(*command, OMP_NUM_THREADS="1") for _ in range(2))
    workspace = open_workspace(reference_root())
    plan = make_plan(workspace, "quickstart")
    with counted(monkeypatch) as asked:
        make_results(
            workspace, "quickstart", store=Store(tmp_path / "counted"), jobs=1, device="cpu",
            console=Console(quiet=True), command="",
        )  # fmt: skip
    parts = {
        "updates of the trainings": sum(map(updates, plan.trainings)),
        **passes(asked),
        "corruptions": corruptions(plan),
    }
    floor = sum(parts.values())
    tabled(
        "Quickstart from nothing",
        "CPU seconds of one process on one thread; "
        f"{len(plan.trainings)} trainings, {len(plan.cells)} cells.",
        {
            **parts,
            "the sum of these": floor,
            "robench run": whole,
            "robench run again: start-up, reading, page": again,
        },
        "the sum of these",
    )
    assert whole <= 1.9 * floor, "worse than it was: 1.6"
