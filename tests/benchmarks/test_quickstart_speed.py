"""What `robench run` costs beside the arithmetic that it cannot do without.

    pytest tests/benchmarks/test_quickstart_speed.py -o addopts= -s

The quickstart runs from nothing in one process, on one thread. Its floor is the updates of the
trainings (gradient and optimiser), the passes through networks that attacks and scoring ask for,
forward and to the images, and the corruptions; all timed inside that run. CPU seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from processes import ROBENCH, cpu_seconds

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
    again = cpu_seconds(
        ROBENCH, "run", "--jobs", "1", "--store", store, "--out", page, OMP_NUM_THREADS="1"
    )
    floor = sum(found["parts"].values())
    tabled(
        "Quickstart from nothing",
        "CPU seconds of one process on one thread: 15 trainings, 660 cells; the parts are timed "
        "inside the run.",
        {
            **found["parts"],
            "the sum of these": floor,
            "robench run": found["whole"],
            "robench run again: start-up, reading, page": again,
        },
        "the sum of these",
    )
    assert found["whole"] <= 1.6 * floor, "worse than it was: 1.4"
