"""What `robench run` costs beside the arithmetic that it cannot do without.

    pytest tests/benchmarks/test_quickstart_speed.py -o addopts= -s

The quickstart runs from nothing in one process, on one thread. Its floor is the updates of the
trainings (gradient and optimiser), the passes through networks that attacks and scoring ask for,
forward and to the images, and the corruptions; all timed inside that run. CPU seconds, and seconds
by the clock of the run as README has it, which uses one process for each core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from processes import ROBENCH, wall_seconds

Tabled = Callable[..., None]
PARTS = Path(__file__).with_name("quickstart_parts.py")


def test_the_quickstart_costs_little_more_than_its_arithmetic(
    tmp_path: Path, tabled: Tabled
) -> None:
    store, page = str(tmp_path / "store"), str(tmp_path / "page")
    done = subprocess.run(
        [sys.executable, str(PARTS), store, page],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    other = ("--store", str(tmp_path / "other"), "--out", str(tmp_path / "beside"))
    clock = wall_seconds(ROBENCH, "run", *other)
    floor = sum(found["parts"].values())
    tabled(
        "Quickstart from nothing",
        "CPU seconds of one process on one thread: 15 trainings, 660 cells; the parts are timed "
        "inside the run.",
        {
            **found["parts"],
            "the sum of these": floor,
            "robench run, one process": found["whole"],
            "of it start-up and page": found["around"],
            "robench run as README has it, by the clock": clock,
        },
        "the sum of these",
        {"robench run as README has it, by the clock": f"{os.cpu_count()} processes"},
    )
    assert found["whole"] <= 1.6 * floor, "worse than it was: 1.4"
    assert found["around"] <= 0.2 * floor
