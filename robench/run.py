"""`robench run` and `robench status`: a plan, its execution and its page, in one call each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from robench.errors import RobenchError
from robench.make.cluster import Cluster
from robench.make.describe import describe
from robench.make.progress import Terminal
from robench.make.run_state import choose_device, open_run, survey, with_the_rest
from robench.make.scheduler import execute
from robench.make.unchanged import Watch
from robench.plugin_code import loading
from robench.store.store import Store
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

if TYPE_CHECKING:  # what shows results takes memory that those who make them need
    from robench.show.results import Results


@dataclass(frozen=True)
class Done:
    """What a run left behind."""

    page: Path
    incomplete: int
    """Cells that were asked for and have no outcome, or not the images that were to be kept."""
    results: Results


@dataclass(frozen=True)
class RunOptions:
    """How a report is made, whatever it asks for."""

    device: str | None = None
    """None: CUDA where there is one."""
    jobs: int | None = None
    """Worker processes; None: one per core on a CPU, one on CUDA."""
    ray: str | None = None
    """Address of a Ray cluster that does the work instead (see cluster.py)."""
    gpu_share: float = 1.0
    """Share of a GPU that one task takes there."""
    only: tuple[str, ...] = ()
    """Patterns: only models or threats whose name matches one are made."""
    keep_images: bool = False
    """Whether what attacks make of the images is kept (images.py); of cells that are finished
    without, the attacks run again."""
    debug: bool = False
    """Whether tracebacks of what failed are shown."""


def run_report(
    workspace: Workspace,
    report: str,
    options: RunOptions = RunOptions(),
    *,
    store: Store,
    console: Console,
    command: str,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Done:
    """Make what is missing of a report (see `make_results`) and write its page.

    Args:
        folder: where the page goes; None: reports/REPORT in the workspace.
        watch: is told what a report was made from of which nothing is missing (unchanged.py).
    """
    from robench.show.report.folder import PAGE, write_files  # it needs scipy, and no cell does

    results = make_results(
        workspace, report, options, store=store, console=console, command=command
    )
    if watch is not None:
        watch.end()
    folder = folder or workspace.output / "reports" / report
    files = write_files(results, folder)
    only = options.only
    planned = make_plan(workspace, report, only).cells if only else ()
    asked = {(cell.training.card.name, cell.training.seed, cell.threat.name) for cell in planned}
    missing = [
        cell
        for cell in results.manifest["cells"]
        if cell["status"] != "done" or (options.keep_images and _lacks_images(results, cell))
    ]
    incomplete = [c for c in missing if not only or (c["model"], c["seed"], c["threat"]) in asked]
    if watch is not None and not missing:
        watch.remember(results.manifest, store, files)
    return Done(folder / PAGE, len(incomplete), results)


def _lacks_images(results: Results, cell: Mapping[str, Any]) -> bool:
    attacks = {threat["name"] for threat in results.threats if threat["kind"] == "attack"}
    return cell["threat"] in attacks and not (cell.get("images") or cell.get("inputs"))


@loading.held_still()
def make_results(
    workspace: Workspace,
    report: str,
    options: RunOptions = RunOptions(),
    *,
    store: Store,
    console: Console,
    command: str,
) -> Results:
    """Make what is missing of a report and return its results.

    With `only` the results are still those of the whole report: what was made now, what was there
    before, and the rest as missing.

    Raises RobenchError for bad input before any work starts. A failing cell does not stop the run.
    """
    plan = make_plan(workspace, report, options.only)
    jobs, debug, keep_images = options.jobs, options.debug, options.keep_images
    if options.ray is None:
        device = choose_device(options.device)
        if jobs is None:
            jobs = (os.cpu_count() or 1) if device == "cpu" else 1
        state = open_run(plan, store, device, keep_images)
        with Terminal(console, jobs, debug) as terminal:
            execute(state, terminal, jobs)
    else:
        with closing(Cluster(options.ray, jobs, options.gpu_share)) as cluster:
            device = options.device or ("cuda" if cluster.has_gpu else "cpu")
            state = open_run(plan, store, device, keep_images)
            with Terminal(console, cluster.tasks_at_once(device), debug) as terminal:
                execute(state, terminal, start=lambda told: cluster.pool(told, device))
    missing = sum(state.digests.get(cell) not in state.outcomes for cell in state.plan.cells)
    if options.only:  # the page is of the whole report, whatever else there is of it
        state = with_the_rest(state, make_plan(workspace, report), terminal.note)
    manifest = describe(state, command)
    try:
        store.write_run(report, manifest)
    except RobenchError as error:
        if missing or any(terminal.made.values()):
            raise
        terminal.note(f"{error}; the report is finished, and is shown")
    made, kept = terminal.made, terminal.kept
    given = f"{made['given']} given, " if made["given"] else ""
    console.print(
        f"models: {made['models']} trained, {given}{kept['model']} kept; "
        f"cells: {made['cells']} evaluated, {kept['cell']} kept, {missing} without outcome"
        + (f"; adversarial images of {made['images']} kept" if keep_images else ""),
        highlight=False,
    )
    from robench.show.results import load_results

    return load_results(store, report, state.outcomes, manifest)


@dataclass(frozen=True)
class Status:
    """How far a report has come."""

    report: str
    models: dict[str, int]
    cells: dict[str, int]
    failures: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.cells["done"] == sum(self.cells.values())

    def lines(self) -> list[str]:
        def count(states: dict[str, int]) -> str:
            return ", ".join(f"{number} {state}" for state, number in states.items())

        return [
            f"report {self.report}",
            f"models: {count(self.models)}",
            f"cells:  {count(self.cells)}",
            *(f"failed: {failure}" for failure in self.failures),
        ]


def report_status(workspace: Workspace, report: str, store: Store) -> Status:
    """What is done, missing and failed of a report; makes nothing."""
    state = open_run(make_plan(workspace, report), store, choose_device(None))
    return Status(report, *survey(state))
