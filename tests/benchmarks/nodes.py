"""Seconds of a report on Ray with one node and with several, and what its driver costs a cell.

    python tests/benchmarks/nodes.py [--nodes 1 4] [--wait 0.02 | --steps 10] [--pin] [--repeat 3]

Nodes are processes of this machine, one core each; networks are trained and workers started
before the clock is. A machine shows only as many nodes as it has cores: so, with --wait, a worker
writes a cell of rows made up here and waits until as many seconds are over as a cell of the kind
would have computed; all else is as it is in any run. With --steps, cells are PGD of so many steps,
and compute. --pin gives every node a core of its own, the first of them to the driver as well, as
in a cluster of machines of one core whose head the run is started on; without it the driver has
whatever the nodes leave. A slice is the same threat at another radius: a cell is never smaller
than its images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from scale import CPU, rows

from robench.data.digits import Digits
from robench.make.cluster import Cluster
from robench.make.progress import Terminal
from robench.make.provenance import provenance
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.make.tasks import Evaluate
from robench.store.store import Outcome, Store
from robench.workspace.folders import FOLDERS, open_workspace
from robench.workspace.plan import make_plan

IMAGES, WARM = 100, 6
KINDS = ("worker", "raylet", "gcs_server")
"""Processes of a cluster whose CPU is told, beside the driver's."""
ATTACK = """
attack = {{ name = "pgd", steps = {}, step_size = {:.3f} }}
access = "white-box"
eps = {}
"""
MODEL = """
dataset = "digits"
network = {{ name = "mlp", hidden = [{}] }}
trainer = {{ name = "bp", epochs = 1 }}
"""
REPORT = """
title = "t"
models = ["m*"]
attacks = ["{}*"]
images = {}
diagnostics = false
"""


DRIVER = """
import json, sys
from pathlib import Path
from nodes import drive
root, address, store, wait = sys.argv[1:]
print(json.dumps(drive(Path(root), address, Path(store), float(wait))))
"""
"""A process of its own, in which what Ray is to find again has the name of its module."""


class Shape(NamedTuple):
    """Of a report: its cells are models x threats x slices, and the models' clean images."""

    models: int = 10
    threats: int = 30
    slices: int = 10


class Cost(NamedTuple):
    """Of one run."""

    cells: int
    seconds: float
    cpu_ms: dict[str, float]
    """Of a cell: the driver's, and those of all processes of KINDS together."""


@cache
def made_up() -> pa.Table:
    """Rows of a cell."""
    return rows(Digits().load().test.labels[:IMAGES], np.random.default_rng(0))


@dataclass(frozen=True)
class StandIn:
    """A cell whose worker waits, and writes rows made up; of no seconds: the cell itself."""

    evaluation: Evaluate
    seconds: float
    meet: int = 0
    """How many workers are to be there before it is done."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "evaluation":  # pickle asks before it is there
            raise AttributeError(name)
        return getattr(self.evaluation, name)

    def run(self, tell: Any) -> None:
        until, cell = time.monotonic() + self.seconds, self.evaluation
        if not self.seconds:
            cell.run(tell)
        else:
            outcome = Outcome(made_up(), cell.identity, provenance(CPU, self.seconds))
            Store(cell.store).write_cell(cell.digest, outcome)
        time.sleep(max(0.0, until - time.monotonic()))
        there = Path(cell.store) / "workers"
        if self.meet:
            there.mkdir(exist_ok=True)
            (there / str(os.getpid())).touch()
            while len(list(there.iterdir())) < self.meet:
                time.sleep(0.05)


def make_workspace(root: Path, shape: Shape, steps: int) -> None:
    """Cards, and a report of few cells by which every worker imports what it needs."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    radii = [round(0.05 + 0.01 * number, 2) for number in range(shape.slices)]
    for kind, threats in (("warm", WARM), ("asked", shape.threats)):
        (root / f"reports/{kind}.toml").write_text(REPORT.format(kind, IMAGES))
        for number in range(threats):
            size = 0.01 + 0.001 * number
            card = ATTACK.format(steps, size, 0.5 if kind == "warm" else radii)
            (root / f"attacks/{kind}{number}.toml").write_text(card)
    for number in range(shape.models):
        (root / f"models/m{number}.toml").write_text(MODEL.format(number + 8))


@contextmanager
def ray_nodes(count: int, pin: bool = False) -> Iterator[str]:
    """The address of a Ray cluster of so many nodes of one core each.

    Args:
        pin: node after node to a core of its own, with all that runs on it.
    """
    from ray.cluster_utils import Cluster as Nodes

    # Ray's workers give way to all else (nice 15): on a busy machine an import takes minutes.
    head = {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    size = {"num_cpus": 1, "object_store_memory": 10**8}
    cores = sorted(os.sched_getaffinity(0))
    nodes = Nodes()
    try:
        for number in range(count):
            if pin:
                os.sched_setaffinity(0, {cores[number]})
            nodes.add_node(**size, **({} if number else head))
        nodes.wait_for_nodes()
        yield nodes.address
    finally:
        os.sched_setaffinity(0, cores)
        nodes.shutdown()


def cpu_seconds() -> Counter[str]:
    """Of the processes of all clusters on this machine so far, by what they are."""
    spent = Counter[str]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, _, fields = (process / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        user, system = map(int, fields.split()[11:13])
        kind = "worker" if name.startswith("ray::") else name
        spent[kind] += (user + system) / os.sysconf("SC_CLK_TCK")
    return spent


def drive(root: Path, address: str, store: Path, wait: float) -> Cost:
    """Carry out the report from this process, which is nothing but its driver."""
    workspace, cluster = open_workspace(root), Cluster(address)

    nodes = cluster.tasks_at_once("cpu")

    def pool(told: Any, meet: int) -> Any:
        made = cluster.pool(told, "cpu")
        submit = made.submit
        if wait or meet:
            made.submit = lambda task: submit(  # type: ignore[method-assign]
                StandIn(task, wait, meet) if isinstance(task, Evaluate) else task
            )
        return made

    for report, meet in (("warm", nodes), ("asked", 0)):
        run = open_run(make_plan(workspace, report), Store(store), "cpu")
        with Terminal(Console(quiet=True), nodes) as terminal:
            before, own, started = cpu_seconds(), time.process_time(), time.perf_counter()
            execute(run, terminal, start=partial(pool, meet=meet))
            seconds, own = time.perf_counter() - started, time.process_time() - own
            spent = cpu_seconds()
        assert not run.failures, next(iter(run.failures.values()))
    cells = terminal.made["cells"]
    cpu = {"driver": own, **{kind: spent[kind] - before[kind] for kind in KINDS}}
    cluster.close()
    return Cost(cells, seconds, {kind: 1e3 * value / cells for kind, value in cpu.items()})


def cost(count: int, shape: Shape, wait: float = 0.0, steps: int = 10, pin: bool = False) -> Cost:
    """Of the report on so many nodes, from a store that holds the trained networks alone.

    Args:
        wait: seconds that a cell waits instead of computing; 0: it computes.
        steps: of PGD.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder) / "workspace", shape, steps)
        with ray_nodes(count, pin) as address:
            words = [f"{folder}/workspace", address, f"{folder}/store", str(wait)]
            path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
            done = subprocess.run(
                [sys.executable, "-c", DRIVER, *words],
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--shape", type=int, nargs=3, default=Shape(), metavar="NUMBER")
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    shape = Shape(*chosen.shape)
    print("{} models x {} threats x {} slices".format(*shape))
    seconds: dict[int, list[float]] = {count: [] for count in chosen.nodes}
    for _ in range(chosen.repeat):  # by turns: a machine is not as fast at all times
        for count in chosen.nodes:
            found = cost(count, shape, chosen.wait, chosen.steps, chosen.pin)
            seconds[count].append(found.seconds)
            said = ", ".join(f"{kind} {ms:.2f}" for kind, ms in found.cpu_ms.items())
            print(
                f"{count} nodes: {found.cells} cells, {found.seconds:.2f} s; CPU ms a cell: {said}"
            )
    alone = min(seconds)
    for count, took in seconds.items():
        share = alone * median(seconds[alone]) / count
        said = (
            f"{count} nodes: median {median(took):.2f} s, {median(took) / share:.3f} of its share"
        )
        if chosen.wait:
            waiting = found.cells * chosen.wait / count
            said += f" of one node, {median(took) / waiting:.3f} of waiting alone"
        print(said)


if __name__ == "__main__":
    main()
