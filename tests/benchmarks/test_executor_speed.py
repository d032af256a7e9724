"""The same work in one process, in two, and on Ray with one node and with two.

pytest tests/benchmarks/test_executor_speed.py -o addopts= -s

Every side is a whole command, from nothing to the page: wall seconds, on a machine that does
nothing else. The nodes are processes of this machine, one core each.

What a cluster adds to the work is measured apart, by cells that wait instead of computing, so that
a machine of two cores can show four nodes (nodes.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from nodes import Shape, cost, ray_nodes
from processes import ROBENCH

from robench.show.packed.manifest_text import opened
from robench.show.packed.pack import unpacked

Tabled = Callable[..., None]
ONLY = "digits/mlp-*"


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


WAIT = 0.05
"""Seconds; four nodes are done with more cells a second than two cores carry out if it is less."""


def test_four_nodes_take_a_quarter_of_the_time_of_one(tabled: Tabled) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    shape = Shape()
    found = {count: [cost(count, shape, WAIT) for _ in range(3)] for count in (1, 4)}
    cells = found[1][0].cells
    seconds = {count: median(one.seconds for one in ones) for count, ones in found.items()}
    cpu = {count: median(one.cpu_ms["driver"] for one in ones) for count, ones in found.items()}
    sides = {f"nodes of one core: {count}": took for count, took in seconds.items()}
    tabled(
        "Nodes of a cluster",
        f"Wall seconds of {cells} cells ({{}} models x {{}} threats x {{}} slices) on Ray, each of "
        f"which waits until {WAIT} s are over instead of computing, so that what is left is what "
        "the cluster adds; networks and workers are there; the median of three. "
        f"{os.cpu_count()} cores for driver and nodes.".format(*shape),
        {**sides, "a quarter of one": seconds[1] / 4, "waiting alone": cells * WAIT / 4},
        "a quarter of one",
        {s: f"driver: {cpu[n]:.1f} ms of CPU a cell" for s, n in zip(sides, cpu, strict=True)},
    )
    assert seconds[4] < 1.1 * seconds[1] / 4
