"""What a run looks like in a terminal: bars with loss and an honest time left; and a transfer of
files. Plain lines, now and then, where there is no terminal: in logs and notebooks."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TaskID as BarID

if TYPE_CHECKING:
    from robench.make.keeping import Task
    from robench.make.pool import Failure

TICK, FIRST_LINE, LINES = 1.0, 10.0, 30.0
"""Seconds between two looks at the clock; until the first plain line, and between two."""
DRAWN = 0.2
"""Seconds between two drawings, at least: a large report tells more than anybody reads."""
LATE = 0.25
"""What a task that takes longer than its like still needs, as a share of what it took so far."""

_drawing = threading.RLock()
"""Held by whoever draws. No process is copied meanwhile: what the copy prints would wait for ever
for the one who was drawing."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_drawing.acquire,
        after_in_parent=_drawing.release,
        after_in_child=_drawing.release,
    )

Like = tuple[str, str]
"""Kind and group of a task."""


class TimeLeft:
    """Seconds left, from the durations of like tasks that are done.

    Tasks of one group take about the same time. A group of which none is done yet counts as an
    average task of its kind; while nothing of a kind is done, its share is unknown and said so.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = max(jobs, 1)  # without workers, this process
        self._waiting: dict[Like, int] = defaultdict(int)
        self._took: dict[Like, tuple[int, float]] = {}
        """Of each group: how many are done, and the mean of their seconds."""
        self._kinds: dict[str, tuple[int, float]] = {}
        """Of each kind: groups of which one is done, and the sum of their means."""
        self._running: dict[str, tuple[Like, float, float]] = {}

    def begin(self) -> None:
        """Nothing is waiting; what is known of durations stays."""
        self._waiting.clear()
        self._running.clear()

    def queue(self, task: Task) -> None:
        self._waiting[_like(task)] += 1

    def drop(self, task: Task) -> None:
        """It is done by somebody else."""
        self._waiting[_like(task)] -= 1

    def told(self, task: Task, done: float, seconds: float = 0.0) -> None:
        began = min(self._start_of(task), time.monotonic() - seconds)
        self._running[task.label] = (_like(task), began, done)

    def finish(self, task: Task) -> None:
        like, seconds = _like(task), time.monotonic() - self._start_of(task)
        done, before = self._took.get(like, (0, 0.0))
        mean = before + (seconds - before) / (done + 1)
        groups, means = self._kinds.get(task.kind, (0, 0.0))
        self._took[like] = done + 1, mean
        self._kinds[task.kind] = groups + (not done), means + mean - before
        self._running.pop(task.label, None)
        self._waiting[like] -= 1

    def _start_of(self, task: Task) -> float:
        return self._running.get(task.label, (None, time.monotonic(), 0.0))[1]

    def seconds(self) -> float | None:
        now, total = time.monotonic(), 0.0
        begun: dict[Like, float] = {}
        for like, started, done in self._running.values():
            if done > 0.02:
                begun.setdefault(like, (now - started) / done)
        for like, number in self._waiting.items():
            if number <= 0:
                continue
            each = self._estimate(like, begun)
            if each is None:
                return None
            total += number * each
        for like, started, done in self._running.values():
            each, elapsed = self._estimate(like, begun) or 0.0, now - started
            # One that takes longer than its like is not done yet.
            total -= min(elapsed, each) * (done < 1)
            total += LATE * elapsed if elapsed > each else 0.0
        return max(total, 0.0) / self._jobs

    def longest(self) -> tuple[str, float] | None:
        """The label that has been running longest, and for how many seconds."""
        if not self._running:
            return None
        label, (_, started, _) = min(self._running.items(), key=lambda item: item[1][1])
        return label, time.monotonic() - started

    def _estimate(self, like: Like, begun: Mapping[Like, float]) -> float | None:
        """Seconds of one task.

        Args:
            begun: of groups that are at work, what the first of their tasks would take.
        """
        if like in self._took:
            return self._took[like][1]
        if like in begun:
            return begun[like]
        groups, means = self._kinds.get(like[0], (0, 0.0))
        return means / groups if groups else None


def _like(task: Task) -> Like:
    return task.kind, task.group


def bars(console: Console) -> Progress:
    """Bars that count, with a text behind each, gone at the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}", style="dim"),
        console=console,
        transient=True,
        auto_refresh=False,  # whoever tells something draws, if it is time to
    )


class Terminal:
    """What a run (scheduler.py) tells how it goes: bars with rich, or plain lines."""

    def __init__(self, console: Console, jobs: int, debug: bool = False) -> None:
        self._console, self._debug = console, debug
        self._lock = threading.RLock()
        self._progress = bars(console)
        self._left = TimeLeft(jobs)
        self._tasks: dict[str, Task] = {}
        self._bars: dict[str, BarID] = {}
        self._models = self._cells = BarID(-1)
        self.made = {"models": 0, "given": 0, "inputs": 0, "cells": 0, "images": 0}
        self.kept = {"model": 0, "cell": 0, "failed": 0}
        self._plain = not console.is_terminal
        self._drawn, self._next_line = 0.0, time.monotonic() + FIRST_LINE
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Terminal:
        self._progress.start()
        self._clock.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._clock.join()
        self._progress.stop()

    def _watch(self) -> None:
        """The time left goes on while one long cell runs and nothing else happens."""
        while not self._over.wait(TICK):
            self.tick()

    def tick(self) -> None:
        """Show the time left as it is now; where there is no terminal, a line when it is due."""
        with self._lock:
            if not self._progress.task_ids:
                return
            self._draw()
            if self._plain and time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + LINES
                with _drawing:
                    self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        done = {bar.id: f"{bar.completed:.0f} of {bar.total:.0f}" for bar in self._progress.tasks}
        said = f"models {done[self._models]}, cells {done[self._cells]}, {self._time_left()}"
        if longest := self._left.longest():
            said += f"; running: {longest[0]} ({_duration(longest[1])})"
        return said

    def begin(self, models: int, cells: int) -> None:
        for bar in list(self._progress.task_ids):
            self._progress.remove_task(bar)
        self._bars.clear()
        self._left.begin()
        # In a second round what the first has made is found, and kept by nobody.
        made = {"model": self.made["models"] + self.made["given"], "cell": self.made["cells"]}
        self.kept = {"model": -made["model"], "cell": -made["cell"], "failed": 0}
        self._models = self._progress.add_task("models", total=models, text="")
        self._cells = self._progress.add_task("cells ", total=cells, text="")

    def queued(self, task: Task) -> None:
        with self._lock:
            self._tasks[task.label] = task
            self._left.queue(task)

    def told(self, label: str, done: float, text: str, seconds: float = 0.0) -> None:
        """`seconds`: for how long it has been at work, where that was not said before."""
        with self._lock:
            task = self._tasks.get(label)
            if task is None:
                return
            self._left.told(task, done, seconds)
            if task.kind == "train":
                if label not in self._bars:
                    self._bars[label] = self._progress.add_task(f"  {label}", total=100, text=text)
                self._progress.update(self._bars[label], completed=round(100 * done), text=text)
            self._draw()

    def finished(self, task: Task, failure: Failure | None) -> None:
        with self._lock:
            self._tasks.pop(task.label, None)
            self._left.finish(task)
            if (bar := self._bars.pop(task.label, None)) is not None:
                self._progress.remove_task(bar)
            if failure is not None:
                self._console.print(
                    f"[red]failed[/red] {escape(task.label)}: {escape(failure.short)}",
                    highlight=False,
                )
                if self._debug and failure.traceback:
                    self._console.print(escape(failure.traceback), highlight=False, style="dim")
            if failure is None:
                for what in task.makes:
                    self.made[what] += 1
            if task.kind != "make inputs":
                self._progress.advance(self._models if task.kind == "train" else self._cells)
            self._draw()

    def elsewhere(self, task: Task) -> None:
        """What was queued is done: by another run."""
        with self._lock:
            self._tasks.pop(task.label, None)
            self._left.drop(task)
        if task.kind != "make inputs":
            self.found("model" if task.kind == "train" else "cell")

    def found(self, what: str) -> None:
        self.kept[what] += 1
        self._progress.advance(self._models if what == "model" else self._cells)

    def note(self, text: str) -> None:
        self._console.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False)

    def _draw(self) -> None:
        """Bars and the time left as they are now, if it is time to and anybody sees them."""
        if self._plain or time.monotonic() - self._drawn < DRAWN:
            return
        self._drawn = time.monotonic()
        self._progress.update(self._cells, text=self._time_left())
        with _drawing:
            self._progress.refresh()

    def _time_left(self) -> str:
        left = self._left.seconds()
        return "time left: measuring" if left is None else f"time left: {_duration(left)}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class FilesBar:
    """A bar over files, and which one it is at."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._progress = bars(console)
        self._progress.disable = not console.is_terminal
        self._bar = self._progress.add_task(what, total=None, text="")
        self._drawn, self._next_line = 0.0, time.monotonic() + FIRST_LINE

    def __enter__(self) -> FilesBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, known: int, name: str) -> None:
        """So many files are done, of as many as are known by now."""
        now = time.monotonic()
        if self._console.is_terminal and now - self._drawn > DRAWN:
            self._drawn = now
            folder, _, leaf = name.rpartition("/")
            text = f"{folder.partition('/')[0]}/{leaf[:12]}"
            self._progress.update(self._bar, completed=done, total=known, text=text)
            self._progress.refresh()
        elif not self._console.is_terminal and now > self._next_line:
            self._next_line = now + LINES
            self._console.print(f"{self._what}: {done} of {known} files", highlight=False)
