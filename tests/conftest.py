"""What the tests share: a one-thread torch, and small workspaces to run in."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from robench.workspace.folders import Workspace

# Property-based tests try few examples by default, always the same; ROBENCH_EXAMPLES=1000 tries
# more, drawn anew each time.
EXAMPLES = int(os.environ.get("ROBENCH_EXAMPLES", "0"))
hypothesis.settings.register_profile(
    "robench",
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("robench")


def pytest_configure(config: pytest.Config) -> None:
    """What all tests need; seconds, which the process that only hands them out does not wait."""
    if config.getoption("dist", "no") != "no":
        return
    import torch
    import torch._dynamo  # torch's first optimiser imports it: here, and not in every copied worker

    torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: some tests wait, for a page, a limit, a lease."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = {
        "data": ("ROBENCH_DATA", "needs MNIST & co.: set {} to the folder that holds them"),
        "release": ("ROBENCH_RELEASE", "takes minutes, for a release: set {} to run it"),
    }
    for marker, (variable, reason) in wanted.items():
        if not os.environ.get(variable):
            skip = pytest.mark.skip(reason=reason.format(variable))
            for item in items:
                if marker in item.keywords:
                    item.add_marker(skip)
    if os.environ.get("ROBENCH_ROWS") != "all":
        _skip_rows(items)


def _skip_rows(items: list[pytest.Item]) -> None:
    """Of a test marked rows(n), which has dear rows, run n. They are drawn so that none of the
    parameters stays at one value: by a step that has no divisor with the number of rows in common.
    """
    tests: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("rows") and not item.get_closest_marker("skip"):
            tests.setdefault((str(item.path), getattr(item, "originalname", "")), []).append(item)
    for rows in tests.values():
        marker = rows[0].get_closest_marker("rows")
        assert marker is not None
        (wanted,) = marker.args
        count = len(rows)
        step = next(n for n in range(max(1, round(0.618 * count)), 2 * count) if gcd(n, count) == 1)
        chosen = {step * turn % count for turn in range(wanted)}
        reason = f"{wanted} of {count} rows run by default: set ROBENCH_ROWS=all to run all"
        for place, item in enumerate(rows):
            if place not in chosen:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What libraries and test modules hold stays to the end: the collector, which would go through
    it all again and again, took a quarter of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _unworn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plugins of earlier tests left in this process renews no worker of this one."""
    from robench.plugin_code import guard

    monkeypatch.setattr(guard, "worn", None)


@pytest.fixture(scope="module")
def without_plots() -> Iterator[None]:
    """For modules that are not about plots; none may share a page with others."""
    from pages import no_plots

    with no_plots():
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """For tests that are not about plots."""
    from pages import no_plots

    with no_plots():
        yield


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of the workspace under tmp_path, making the four folders first."""
    from robench.workspace.folders import FOLDERS

    def write_file(name: str, text: str) -> Path:
        for folder in FOLDERS:
            (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture(scope="session")
def no_diagnostics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of robench.evaluate for a report that meets FGSM and is not diagnosed, for tests
    of something else: diagnostics are most of what an evaluation costs."""
    from robench.workspace.folders import FOLDERS

    root = tmp_path_factory.mktemp("plain")
    for folder in FOLDERS:
        (root / folder).mkdir()
    (root / "reports/plain.toml").write_text(
        'title = "t"\nmodels = ["digits/mlp-bp"]\nattacks = ["fgsm"]\ndiagnostics = false\n'
    )
    return {"workspace": root, "report": "plain", "progress": False}


@pytest.fixture
def small(tmp_path: Path) -> Workspace:
    """A workspace with one small model on digits and a report that attacks it twice."""
    from small_runs import small_workspace

    return small_workspace(tmp_path)
