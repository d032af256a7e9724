"""Planning a large report, and resuming one, up to the first task.

pytest tests/benchmarks/test_scale_speed.py -o addopts= -s
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scale import costs, shape_of

Tabled = Callable[..., None]
SIZES = (1_000, 10_000, 100_000, 200_000)


def test_plans_and_resumes_grow_with_the_cells(tmp_path: Path, tabled: Tabled) -> None:
    seconds, notes = {}, {}
    for cells in SIZES:
        for step, cost in costs(cells, ("plan", "resume"), tmp_path / str(cells)):
            side = f"{step}, {cells:,} cells"
            seconds[side] = cost.cpu_seconds
            notes[side] = "{} models x {} threats; ".format(*shape_of(cells)) + (
                f"{cost.peak_mb - cost.before_mb:.0f} MB more than the imports"
            )
    tabled(
        "Large reports",
        "CPU seconds of one process: the plan from the cards; the plan, and all that comes before "
        "the one task that is left.",
        seconds,
        f"plan, {SIZES[0]:,} cells",
        notes,
    )
    assert seconds[f"resume, {SIZES[-1]:,} cells"] < 4 * seconds[f"resume, {SIZES[-2]:,} cells"]
