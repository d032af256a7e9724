"""The terminal's bars: an honest time left, and messages from another thread."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rich.console import Console

from robench.make.progress import Terminal, TimeLeft


@dataclass(frozen=True)
class Work:
    """A task with nothing to do."""

    label: str
    group: str
    digest: str = ""
    kind: str = "evaluate"
    makes: tuple[str, ...] = ("cells",)

    def run(self, tell: object) -> None: ...


def test_time_left_comes_from_like_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=2)
    tasks = [Work(f"a seed 0 x t{i}", "a x attack t") for i in range(5)]
    for task in tasks:
        left.queue(task)
    assert left.seconds() is None, "nothing is known before the first is done"
    left.told(tasks[0], 0.0)
    now[0] = 4.0
    left.finish(tasks[0])
    assert left.seconds() == pytest.approx(4 * 4.0 / 2)


def test_a_running_training_tells_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=1)
    task = Work("train a seed 0", "a", kind="train", makes=("models",))
    left.queue(task)
    left.told(task, 0.0)
    now[0] = 10.0
    left.told(task, 0.25)
    assert left.seconds() == pytest.approx(30.0)


def test_a_task_that_takes_longer_than_its_like_is_not_done_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=1)
    short, long = Work("a seed 0 x t", "a x attack t"), Work("a seed 1 x t", "a x attack t")
    for task in (short, long):
        left.queue(task)
    left.told(short, 0.0)
    now[0] = 4.0
    left.finish(short)
    left.told(long, 0.0)
    now[0] = 6.0
    assert left.seconds() == pytest.approx(2.0)
    now[0] = 44.0
    assert left.seconds() == pytest.approx(10.0), "a quarter of its forty seconds"


def test_a_group_of_which_none_is_done_counts_as_an_average_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=1)
    done = [Work(f"a seed 0 x t{i}", group) for i, group in enumerate(("one", "one", "other"))]
    for task in [*done, Work("a seed 0 x t3", "third")]:
        left.queue(task)
    for task, seconds in zip(done, (2.0, 4.0, 9.0), strict=True):
        left.told(task, 0.0)
        now[0] += seconds
        left.finish(task)
    assert left.seconds() == pytest.approx((3.0 + 9.0) / 2)


def test_what_is_known_of_durations_does_not_grow_with_what_is_done() -> None:
    """A report of thousands of cells asks thousands of times what is left."""

    def size(done: int) -> int:
        left = TimeLeft(jobs=1)
        for number in range(done):
            left.queue(task := Work(f"m seed 0 x t{number}", f"m x {number % 5}"))
            left.told(task, 0.0)
            left.finish(task)
        return len(pickle.dumps(vars(left)))

    assert size(1000) < 1.2 * size(10)


def test_bars_move_while_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    written = io.StringIO()
    terminal = Terminal(Console(file=written, force_terminal=True, width=100), jobs=1)
    tasks = [Work(f"m seed 0 x t{number}", "m x t") for number in range(40)]
    with terminal:
        terminal.begin(0, len(tasks))
        for task in tasks:
            terminal.queued(task)
        for task in tasks:
            now[0] += 0.05
            terminal.finished(task, None)
    drawn = [number for number in range(1, 40) if f"{number}/40" in written.getvalue()]
    assert 5 < len(drawn) < 20, "as they go on, and no more often than anybody sees"


def test_a_log_without_a_terminal_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.make.progress.time.monotonic", lambda: now[0])
    written = io.StringIO()
    terminal = Terminal(Console(file=written), jobs=1)
    terminal.begin(1, 2)
    task = Work("a seed 0 x t", "a x attack t")
    terminal.queued(task)
    terminal.told(task.label, 0.0, "")
    terminal.tick()
    assert written.getvalue() == ""
    for second in range(1, 75):
        now[0] = float(second)
        terminal.tick()
    lines = written.getvalue().splitlines()
    assert len(lines) == 3, "after ten seconds, then every thirty"
    assert lines[0] == (
        "models 0 of 1, cells 0 of 2, time left: measuring; running: a seed 0 x t (10 s)"
    )


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 1000)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_workers_may_talk_while_tasks_finish() -> None:
    terminal = Terminal(Console(file=io.StringIO()), jobs=2)
    terminal.begin(0, 1000)
    tasks = [Work(f"m seed 0 x t{i}", f"m x attack t{i % 7}") for i in range(1000)]
    for task in tasks:
        terminal.queued(task)
    failed: list[BaseException] = []

    def talk() -> None:
        try:
            for task in tasks:
                terminal.told(task.label, 0.0, "")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=talk)
    thread.start()
    for task in tasks:
        terminal.finished(task, None)
    thread.join()
    assert not failed
    assert terminal.made["cells"] == 1000
