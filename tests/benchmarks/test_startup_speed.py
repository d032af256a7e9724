"""What stands before any work: CPU seconds of whole processes.

pytest tests/benchmarks/test_startup_speed.py -o addopts= -s
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

from processes import ROBENCH, cpu_seconds

ROUNDS = 5
Tabled = Callable[..., None]


def take_turns(sides: dict[str, tuple[str, ...]]) -> dict[str, float]:
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, command in sides.items():
            taken[side].append(cpu_seconds(*command))
    return {side: median(times) for side, times in taken.items()}


def test_help_and_list_cost_no_torch(tabled: Tabled) -> None:
    python = sys.executable
    seconds = take_turns(
        {
            "python": (python, "-c", "pass"),
            "import robench": (python, "-c", "import robench"),
            "robench --help": (ROBENCH, "--help"),
            "robench list models": (ROBENCH, "list", "models"),
            "import torch": (python, "-c", "import torch"),
            "import art.attacks.evasion": (python, "-c", "import art.attacks.evasion"),
        }
    )
    tabled("Start-up", "CPU time of whole processes, median of five.", seconds, "import torch")
    assert seconds["robench list models"] < seconds["import torch"]


def test_a_second_run_only_reads(tmp_path: Path, tabled: Tabled) -> None:
    """Of a report with 3 models and a page: what is left when nothing is to be done."""
    run = (ROBENCH, "run", "quickstart", "--only", "digits/mlp-bp", "--jobs", "1",
           "--store", str(tmp_path / "store"), "--out", str(tmp_path / "page"))  # fmt: skip
    first = cpu_seconds(*run)
    again = median(cpu_seconds(*run) for _ in range(ROUNDS))
    seconds = {
        "import torch": cpu_seconds(sys.executable, "-c", "import torch"),
        "from nothing": first,
        "again": again,
    }
    tabled("Resume: 3 trainings, 132 cells", "CPU time of whole processes.", seconds, "again")
    assert again < first
