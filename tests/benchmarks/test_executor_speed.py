"""The same work in one process, in two, and on Ray with one node and with two.

pytest tests/benchmarks/test_executor_speed.py -o addopts= -s

Every side is a whole command, from nothing to the page: wall seconds, on a machine that does
nothing else. The nodes are processes of this machine, one core each.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import ROBENCH

from robench.manifest_text import opened
from robench.packed import unpacked

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
