"""The terminal's bars: an honest time left, and messages from another thread."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

import pytest
from rich.console import Console

from robench.progress import Terminal, TimeLeft


@dataclass(frozen=True)
class Work:
    """A task with nothing to do."""

    label: str
    group: str
    digest: str = ""

    def run(self, tell: object) -> None: ...


def test_time_left_comes_from_like_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=2)
    tasks = [Work(f"a seed 0 x t{i}", "a x attack t") for i in range(5)]
    for task in tasks:
        left.queue(task)
    assert left.seconds() is None, "nothing is known before the first is done"
    left.told(tasks[0].label, tasks[0].group, 0.0)
    now[0] = 4.0
    left.finish(tasks[0])
    assert left.seconds() == pytest.approx(4 * 4.0 / 2)


def test_a_running_training_tells_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("robench.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(jobs=1)
    task = Work("train a seed 0", "train a")
    left.queue(task)
    left.told(task.label, task.group, 0.0)
    now[0] = 10.0
    left.told(task.label, task.group, 0.25)
    assert left.seconds() == pytest.approx(30.0)


def test_workers_may_talk_while_tasks_finish() -> None:
    terminal = Terminal(Console(file=io.StringIO()), jobs=2)
    terminal.begin(0, 4000)
    tasks = [Work(f"m seed 0 x t{i}", f"m x attack t{i % 7}") for i in range(4000)]
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
    assert terminal.made["cells"] == 4000
