"""The same work in one process, in two, and on Ray with one node and with two.

pytest tests/benchmarks/test_executor_speed.py -o addopts= -s

Every side is a whole command, from nothing to the page: wall seconds, on a machine that does
nothing else. The nodes are processes of this machine, one core each.

What a cluster adds to the work is measured apart, by cells that wait for a second instead of
computing, so that a machine of two cores can show four nodes: 10 models x 30 threats, trained
networks and started workers given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import ROBENCH

from robench.show.packed.manifest_text import opened
from robench.show.packed.pack import unpacked
from robench.workspace.folders import FOLDERS

Tabled = Callable[..., None]
ONLY = "digits/mlp-*"


@contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """The address of a Ray cluster of so many nodes."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 10**8}
    nodes = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            nodes.add_node(**size)
        nodes.wait_for_nodes()
        yield nodes.address
    finally:
        nodes.shutdown()


def run(folder: Path, *how: str) -> tuple[float, dict[str, str]]:
    """Wall seconds, and the digest of every outcome."""
    command = [ROBENCH, "run", "quickstart", "--only", ONLY, *how,
               "--store", str(folder / "store"), "--out", str(folder / "page")]  # fmt: skip
    started = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    seconds = time.perf_counter() - started
    cells = unpacked(opened(json.loads((folder / "page/manifest.json").read_text())))["cells"]
    return seconds, {cell["digest"]: cell["rows"] for cell in cells}


def test_more_processes_and_more_nodes_take_less_time(tmp_path: Path, tabled: Tabled) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    seconds, outcomes = {}, {}
    for jobs in (1, 2):
        side = f"--jobs {jobs}"
        seconds[side], outcomes[side] = run(tmp_path / side, *side.split())
    for count in (1, 2):
        side = f"--ray, nodes of one core: {count}"
        with ray_nodes(count) as address:
            seconds[side], outcomes[side] = run(tmp_path / side, "--ray", address)
    tabled(
        "Executors",
        f"Wall seconds of robench run quickstart --only '{ONLY}' from nothing, "
        f"{len(outcomes['--jobs 1'])} cells; {os.cpu_count()} cores. The same bits everywhere.",
        seconds,
        "--jobs 1",
    )
    assert all(made == outcomes["--jobs 1"] for made in outcomes.values())


WAITS = """
import time

from robench import Attack


class Waits(Attack):
    seconds: float = 1.0
    number: int = 0

    def perturb(self, target, x, y, rng):
        time.sleep(self.seconds)
        return x
"""
MODELS, THREATS, SECONDS = 10, 30, 1.0
ON_NODES = """
import sys
import time
from pathlib import Path

from small_runs import Ears

from robench.make.cluster import Cluster
from robench.make.scheduler import execute
from robench.workspace.plan import make_plan
from robench.make.run_state import open_run
from robench.store.store import Store
from robench.workspace.folders import open_workspace

workspace, cluster = open_workspace(Path(sys.argv[1])), Cluster(sys.argv[2])
cells = []
for report in ("warm", "waits"):
    run = open_run(make_plan(workspace, report), Store(sys.argv[3]), "cpu")
    ears, started = Ears(), time.perf_counter()
    execute(run, ears, start=lambda told: cluster.pool(told, "cpu"))
    seconds = time.perf_counter() - started
    assert not ears.failed, ears.failed
    cells.append(len(ears.done))
print(cells[-1], seconds)
cluster.close()
"""


def waiting_report(root: Path) -> None:
    """A workspace with a report whose cells wait, and with one that starts as many workers."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "attacks/waits.py").write_text(WAITS)
    for number in range(THREATS + 4):
        name = f"waits{number}" if number < THREATS else f"warm{number}"
        (root / f"attacks/{name}.toml").write_text(
            f'attack = {{ name = "./waits.py:Waits", seconds = {SECONDS}, number = {number} }}\n'
            'access = "white-box"\neps = 0.1\n'
        )
    for number in range(MODELS):
        (root / f"models/m{number}.toml").write_text(
            f'dataset = "digits"\nnetwork = {{ name = "mlp", hidden = [{number + 8}] }}\n'
            'trainer = { name = "bp", epochs = 1 }\n'
        )
    for name in ("warm", "waits"):
        (root / f"reports/{name}.toml").write_text(
            f'title = "t"\nmodels = ["m*"]\nattacks = ["{name}*"]\nimages = 20\n'
            "diagnostics = false\n"
        )


def test_four_nodes_take_a_quarter_of_the_time_of_one(tmp_path: Path, tabled: Tabled) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    waiting_report(tmp_path / "workspace")
    seconds = {}
    for count in (1, 4):
        with ray_nodes(count) as address:
            words = (tmp_path / "workspace", address, tmp_path / f"store of {count}")
            path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
            done = subprocess.run(
                [sys.executable, "-c", ON_NODES, *map(str, words)],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert done.returncode == 0, done.stderr
            cells, took = done.stdout.split()
            seconds[f"nodes of one core: {count}"] = float(took)
        assert int(cells) == MODELS * THREATS
    quarter = seconds["nodes of one core: 1"] / 4
    tabled(
        "Nodes of a cluster",
        f"Wall seconds of {MODELS} models x {THREATS} threats on Ray: {cells} cells, each of which "
        f"waits for {SECONDS} s instead of computing, so that what is left is what the cluster "
        f"adds; networks and workers are there. {os.cpu_count()} cores for all nodes.",
        {**seconds, "a quarter of one": quarter, "waiting alone": MODELS * THREATS * SECONDS / 4},
        "a quarter of one",
    )
    assert seconds["nodes of one core: 4"] < 1.1 * quarter
