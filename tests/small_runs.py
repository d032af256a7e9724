"""A small workspace, runs of it in this process, and a listener that remembers what it was told."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from robench.make.keeping import Task
from robench.make.pool import Failure
from robench.make.run_state import Run, open_run
from robench.make.scheduler import execute
from robench.run import Done, RunOptions, run_report
from robench.store.store import Store
from robench.workspace.folders import FOLDERS, Workspace, open_workspace
from robench.workspace.plan import make_plan

MODEL = """
dataset = "digits"
network = { name = "mlp", hidden = [16] }
trainer = { name = "bp", epochs = 3, lr = 1e-2 }
"""
REPORT = """
title = "A small report"
models = ["small"]
attacks = ["fgsm", "noise"]
images = 40
draws = 2
diagnostics = false
"""
ONE_PROCESS = RunOptions(jobs=1)


def small_workspace(root: Path) -> Workspace:
    """A workspace in `root` with one small model on digits and a report that attacks it twice."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "models/small.toml").write_text(MODEL)
    (root / "reports/small.toml").write_text(REPORT)
    return open_workspace(root)


def reported(
    workspace: Workspace,
    report: str = "small",
    *,
    store: Store,
    options: RunOptions = ONE_PROCESS,
    console: Console | None = None,
    command: str = "",
) -> Done:
    """A report, run to its end and written; nothing is said where no console is given."""
    quiet = Console(quiet=True)
    return run_report(
        workspace, report, options, store=store, console=console or quiet, command=command
    )


class Ears:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: dict[str, Failure] = {}
        self.kept = 0
        self.elsewhere_made: list[str] = []
        self.notes: list[str] = []

    def begin(self, models: int, cells: int) -> None: ...
    def queued(self, task: Task) -> None: ...
    def told(self, label: str, done: float, text: str, seconds: float = 0.0) -> None: ...

    def finished(self, task: Task, failure: Failure | None) -> None:
        if failure is None:
            self.done.append(task.label)
        else:
            self.failed[task.label] = failure

    def found(self, what: str) -> None:
        self.kept += 1

    def elsewhere(self, task: Task) -> None:
        self.elsewhere_made.append(task.label)

    def note(self, text: str) -> None:
        self.notes.append(text)


def carry_out(
    workspace: Workspace,
    report: str = "small",
    jobs: int = 0,
    only: tuple[str, ...] = (),
    keep_images: bool = False,
) -> tuple[Run, Ears]:
    store = Store(workspace.root / ".robench")
    run = open_run(make_plan(workspace, report, only), store, "cpu", keep_images)
    ears = Ears()
    execute(run, ears, jobs)
    return run, ears


def outcomes(run: Run) -> dict[str, str]:
    return {cell.label: run.store.read_cell(name).digest for cell, name in run.digests.items()}
