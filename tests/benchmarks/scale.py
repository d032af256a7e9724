"""Seconds and memory of planning and resuming, from a thousand to two hundred thousand cells.

    python tests/benchmarks/scale.py [--cells 1000 10000 100000 200000] [--steps plan resume]

A workspace of many small models under 100 or 200 threats (half of them corruptions) is made, with a
store that holds every model and every cell but one: whole files, as a run would have written them,
of rows made up here. Where no step reads them, all are links to one. Then, each step in a process
of its own:

    plan      the plan from the cards
    resume    all that comes before the first task starts, plan included
    whole     the whole run: the one missing cell, and every cell read once for the page
    page      the page of a run with nothing to do
    nothing   `robench run` with nothing to do: first as above, then as it is ever after

Seconds are the wall's, without the start of Python and imports, but for the last step, which is of
whole processes; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from rich.console import Console

from robench.data.digits import Digits
from robench.digest import canonical
from robench.make.provenance import provenance
from robench.make.run_state import Run, open_run
from robench.make.scheduler import execute
from robench.make.scoring import with_costs
from robench.make.trained import fresh_network
from robench.make.workers import Inline
from robench.run import RunOptions, run_report
from robench.store.seal import sealed, tensors_digest
from robench.store.store import Outcome, Store, file_of
from robench.workspace.folders import FOLDERS, open_workspace
from robench.workspace.plan import Training, make_plan

IMAGES = 100
KINDS = 19  # of corruption, at five severities each
CPU = torch.device("cpu")


class Quiet:
    """A listener that says nothing."""

    def begin(self, *said: Any) -> None: ...
    def queued(self, *said: Any) -> None: ...
    def told(self, *said: Any) -> None: ...
    def finished(self, *said: Any) -> None: ...
    def found(self, *said: Any) -> None: ...
    def elsewhere(self, *said: Any) -> None: ...
    def note(self, text: str) -> None:
        print(text)


def shape_of(cells: int) -> tuple[int, int]:
    """How many models and threats make so many cells."""
    threats = 200 if cells >= 100_000 else 100
    return cells // threats, threats


def make_workspace(root: Path, models: int, threats: int) -> None:
    """Cards alone. Threats: clean images, corruptions, and FGSM at as many radii as it takes."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for number in range(models):
        (root / f"models/m{number:04}.toml").write_text(
            'dataset = "digits"\nnetwork = { name = "mlp", hidden = [8] }\n'
            f'trainer = {{ name = "bp", epochs = 1, lr = {1e-3 + 1e-6 * number:.6f} }}\n'
        )
    kinds = KINDS if threats >= 200 else KINDS // 2
    for number in range(threats - 1 - 5 * kinds):
        (root / f"attacks/a{number:03}.toml").write_text(
            f'attack = "fgsm"\naccess = "white-box"\neps = {0.001 * (number + 1):.3f}\n'
        )
    from robench.corruptions.imagenet_c.compat import KINDS as NAMES

    (root / "corruptions/c.toml").write_text(
        f'corruption = {{ name = "imagenet-c", kinds = {list(NAMES)[:kinds]} }}\n'
    )
    (root / "reports/large.toml").write_text(
        'title = "t"\nmodels = ["m*"]\nattacks = ["a*"]\ncorruptions = ["c"]\n'
        f"images = {IMAGES}\ndiagnostics = false\n"
    )


def fill(run: Run, whole: bool) -> None:
    """Store every model, and every cell but the last."""
    for training in run.plan.trainings:
        store_model(run, training)
        run.weights_of(training)
    labels = Digits().load().test.labels[:IMAGES]
    rng = np.random.default_rng(0)
    noted = provenance(CPU, 0.1)
    made = [rows(labels, rng) for _ in range(100)]
    for number, cell in enumerate(run.plan.cells[:-1]):
        identified, _ = run.identify(cell)
        name = run.digests[cell]
        if whole or number == 0:
            run.store.write_cell(name, Outcome(made[number % 100], identified, dict(noted)))
            first = Path(run.store.files.path(file_of("cells", name)))
            continue
        path = Path(run.store.files.path(file_of("cells", name)))
        path.parent.mkdir(exist_ok=True)
        if number % 50_000 == 0:  # no file has more names than its system allows
            first = Path(shutil.copy(first, path))
        else:
            path.hardlink_to(first)


def store_model(run: Run, training: Training) -> None:
    state = fresh_network(training.card, training.seed).state_dict()
    state["layers.0.op.bias"].fill_(training.card.trainer.settings["lr"])  # no two are equal
    metadata = {
        "identity": run.resolved[training.card.name].identity(training.seed),
        "tensors": tensors_digest(safetensors.torch.save(state)),
        "history": [{"epoch": 1, "loss": 1.0, "validation_accuracy": 0.9, "seconds": 1.0}],
        "provenance": provenance(CPU, 0.1),
    }
    payload = safetensors.torch.save(state, {"robench": canonical(sealed(metadata))})
    run.store.write_model(run.model_digest(training), payload)


def rows(labels: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """What score_slice makes of a cell, with answers drawn at random."""
    count = len(labels)
    right = rng.random(count) < 0.6
    predicted = np.where(right, labels, (labels + 1) % 10).astype(np.int16)
    table = pa.table(
        {
            "image": pa.array(np.arange(count, dtype=np.int32)),
            "label": pa.array(labels.astype(np.int16)),
            "predictions": pa.array(list(predicted[:, None]), pa.list_(pa.int16())),
            "correct": pa.array(right.astype(np.float32)),
            "loss": pa.array(rng.random(count, np.float32)),
            "tie": pa.array(np.zeros(count, bool)),
            "input": pa.array([bytes(64)] * 8 + [None] * (count - 8), pa.binary()),
        }
    )
    return with_costs(table, None)


class Stop(Exception):
    """The first task would start now."""


class UntilTheFirstTask(Inline):
    def submit(self, task: Any) -> Any:
        raise Stop


class Cost(NamedTuple):
    """Of one step."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    before_mb: float
    """What Python and the imports had taken."""


def measure(step: str, root: Path) -> Cost:
    os.environ["COLUMNS"] = "100"
    torch.set_num_threads(1)
    workspace, store = open_workspace(root), Store(root / ".robench")
    open_workspace().card("models", "digits/mlp-bp")
    before, started, spent = peak_mb(), time.perf_counter(), time.process_time()
    if step == "plan":
        make_plan(workspace, "large")
    elif step == "resume":
        run = open_run(make_plan(workspace, "large"), store, "cpu")
        try:
            execute(run, Quiet(), start=UntilTheFirstTask)
        except Stop:
            pass
        else:
            raise SystemExit("there was nothing to do")
    else:
        run_report(
            workspace,
            "large",
            store=store,
            console=Console(quiet=True),
            command="",
            options=RunOptions(jobs=1),
        )
    return Cost(time.perf_counter() - started, time.process_time() - spent, peak_mb(), before)


COMMAND = """
import re, sys, time
from robench.cli import main
sys.argv = ["robench", "run", "large", "-j", "1"]
try:
    main()
finally:
    said = open("/proc/self/status").read()
    print(time.process_time(), int(re.search(r"VmHWM:\\s+(\\d+)", said)[1]) / 2**10)
"""


def of_the_command(root: Path) -> Cost:
    """Of `robench run`, start of Python and imports included."""
    started = time.perf_counter()
    words = [sys.executable, "-c", COMMAND]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    spent, peak = map(float, done.stdout.splitlines()[-1].split())
    return Cost(time.perf_counter() - started, spent, peak, 0.0)


def peak_mb() -> float:
    """Of this process alone: getrusage begins with the peak of the parent."""
    said = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(said[1]) / 2**10 if said else float("nan")


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What `work` returns in a process of its own, whose memory is counted from scratch."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def costs(cells: int, steps: Sequence[str], root: Path) -> Iterator[tuple[str, Cost]]:
    """Of each step over so many cells, in `root`, which is made where it is not there."""
    if not root.is_dir():
        make_workspace(root, *shape_of(cells))
        apart(make_store, root, bool({"whole", "page", "nothing"} & {*steps}))
    for step in steps:
        if step == "nothing":
            for time_of in ("first", "again"):
                yield time_of, of_the_command(root)
            continue
        if step != "page":
            (root / ".robench" / (root / "missing").read_text()).unlink(missing_ok=True)
        yield step, apart(measure, step, root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10_000, 100_000, 200_000])
    parser.add_argument(
        "--steps", nargs="+", default=["plan", "resume", "whole", "page", "nothing"]
    )
    parser.add_argument("--folder", type=Path, help="keep workspaces there")
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp())
    for cells in chosen.cells:
        print("{} cells: {} models x {} threats".format(cells, *shape_of(cells)))
        for step, cost in costs(cells, chosen.steps, folder / str(cells)):
            print(
                f"{step:8} {cost.seconds:8.1f} s {cost.cpu_seconds:8.1f} CPU s "
                f"{cost.peak_mb:8.0f} MB, of which {cost.before_mb:.0f} before",
                flush=True,
            )
        if chosen.folder is None:
            shutil.rmtree(folder / str(cells))


def make_store(root: Path, whole: bool) -> None:
    os.fsync = lambda descriptor: None  # 200,000 files: a power cut may take them
    run = open_run(make_plan(open_workspace(root), "large"), Store(root / ".robench"), "cpu")
    fill(run, whole)
    run.identify(last := run.plan.cells[-1])
    (root / "missing").write_text(file_of("cells", run.digests[last]))


if __name__ == "__main__":
    main()
