"""What `robench run` costs beside the arithmetic that it cannot do without.

    pytest tests/benchmarks/test_quickstart_speed.py -o addopts= -s

The quickstart runs from nothing in one process of its own, on one thread. Its floor is measured
here, on one thread, too: the updates of every training in a bare loop; the forward and backward
passes that the stored outcomes say the attacks asked for, at what one costs per image in a full
batch; the passes that score; the corruptions. CPU seconds.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from processes import ROBENCH, cpu_seconds
from torch.nn import functional as F

from robench import plugins
from robench.corruptions.make import corrupt_images
from robench.identity import load_splits
from robench.plan import Cell, Training, make_plan
from robench.results import load_results
from robench.scoring import in_use
from robench.store import Store
from robench.tasks import _fresh
from robench.workspace import open_workspace, reference_root

Tabled = Callable[..., None]
CPU = torch.device("cpu")
WARM, UPDATES = 5, 60


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

    count = trainer.epochs * math.ceil(len(splits.train) / trainer.batch_size)
    return count * median_seconds(update, UPDATES)


@lru_cache
def passes(name: str, noisy: bool, batch: int) -> tuple[float, float]:
    """Seconds per image of a forward pass, and of one with the gradient of the image."""
    plan = make_plan(open_workspace(reference_root()), "quickstart")
    training = next(t for t in plan.trainings if t.card.name == name)
    network, test = _fresh(training.card, training.seed), load_splits(training.card).test
    x, y = torch.from_numpy(test.images[:batch]), torch.from_numpy(test.labels[:batch])

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def gradient() -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)

    with in_use(network, noisy, 0, CPU):
        return median_seconds(forward, 100) / len(x), median_seconds(gradient, 100) / len(x)


def test_the_quickstart_costs_little_more_than_its_arithmetic(
    tmp_path: Path, tabled: Tabled
) -> None:
    torch.set_num_threads(1)
    command = [
        ROBENCH, "run", "--jobs", "1",
        "--store", str(tmp_path / "store"), "--out", str(tmp_path / "page"),
    ]  # fmt: skip

    whole, again = (cpu_seconds(*command, OMP_NUM_THREADS="1") for _ in range(2))
    plan = make_plan(open_workspace(reference_root()), "quickstart")
    cells: dict[tuple[str, int, str], Cell] = {
        (cell.training.card.name, cell.training.seed, cell.threat.name): cell for cell in plan.cells
    }
    parts: Counter[str] = Counter()
    parts["updates of the trainings"] = sum(map(updates, plan.trainings))
    results = load_results(Store(tmp_path / "store"), "quickstart")
    for (name, seed, threat), cell in cells.items():
        rows = results.table(name, seed, threat)
        assert rows is not None
        noisy = cell.training.card.inference_noise
        forward, gradient = passes(name, noisy, plan.report.batch_size)
        draws = len(rows["predictions"][0])
        parts["passes that score"] += len(rows) * draws * forward
        if cell.threat.kind == "attack":
            queries, gradients = (float(rows[c].to_numpy().sum()) for c in ("queries", "gradients"))
            parts["passes of the attacks"] += max(queries - gradients, 0) * forward
            parts["passes of the attacks"] += gradients * gradient
    done = set()
    for cell in plan.cells:
        if cell.threat.kind != "corruption" or cell.threat.name in done:
            continue
        done.add(cell.threat.name)
        card, test = cell.threat.corruption_card, load_splits(cell.training.card).test
        corruption = plugins.build("corruptions", card.corruption, card)
        images = test.images[cell.start : cell.stop]
        start = time.thread_time()
        corrupt_images(
            corruption, images, cell.start, cell.threat.corruption, cell.threat.severity,
            plan.report.seed, test.labels[cell.start : cell.stop],
        )  # fmt: skip
        parts["corruptions"] += time.thread_time() - start
    floor = sum(parts.values())
    tabled(
        "Quickstart from nothing",
        "CPU seconds of one process on one thread; 15 trainings, 660 cells.",
        {
            **parts,
            "the sum of these": floor,
            "robench run": whole,
            "robench run again: start-up, reading, page": again,
        },
        "the sum of these",
    )
    assert whole <= 1.3 * floor
