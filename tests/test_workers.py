"""What hangs, dies or leaves something running ends with its process, in time, and takes no other
cell with it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_runs import Ears, carry_out, outcomes, reported, small_workspace

from robench.errors import RobenchError
from robench.make.run_state import open_run, survey
from robench.make.scheduler import execute
from robench.make.workers import Inline, Processes, may_copy
from robench.plugin_code.time_limit import within
from robench.run import RunOptions
from robench.store.files import NotRegular, read_regular
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

pytestmark = pytest.mark.usefixtures("without_plots")

Write = Callable[[str, str], Path]
copies = pytest.mark.skipif(not may_copy("cpu"), reason="no copies of a process here")

HEAD = """
import os, signal, subprocess, sys, threading, time
from robench import Attack

def deaf():
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

class Mute(Exception):
    def __str__(self):
        time.sleep(600)

class Deaf(Exception):
    def __str__(self):
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass

class Bad(Attack):
    norms = ("linf",)
    def perturb(self, target, x, y, rng):
        {body}
        return x
"""
DIED, LATE = "its worker process died", "ran past its time_limit"
BODIES = {
    "leaves with 0": ("os._exit(0)", f"{DIED} with status 0"),
    "leaves with 3": ("os._exit(3)", f"{DIED} with status 3"),
    "kills itself": ("os.kill(os.getpid(), 9)", f"{DIED}, signal 9"),
    "aborts": ("os.abort()", f"{DIED}, signal 6"),
    "exits": ("sys.exit(5)", "SystemExit: 5"),
    "raises no Exception": ("raise BaseException('mine')", "BaseException: mine"),
    "raises a group": ("raise BaseExceptionGroup('many', [BaseException()])", "many"),
    "ends a generator": ("raise GeneratorExit('mine')", "GeneratorExit: mine"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "closes what it is heard by": ("os.closerange(3, 4096); os._exit(0)", DIED),
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", LATE),
    "is deaf": ("deaf(); exec('while True: time.sleep(60)')", LATE),
    "is in compiled code": ("deaf(); threading.Lock().acquire(); threading.Event().wait()", LATE),
    "hangs in a child": ("subprocess.run(['sleep', '600'])", LATE),
    "hangs when it says why": ("raise Mute", "Mute: (an error that cannot be printed)"),
    "is deaf when it says why": ("raise Deaf", LATE),
}


def with_attack(write: Write, body: str, seconds: float = 0.3) -> Workspace:
    root = write("attacks/bad.py", HEAD.format(body=body)).parent.parent
    write(
        "attacks/bad.toml",
        f'attack = "./bad.py:Bad"\naccess = "white-box"\neps = 0.1\ntime_limit = {seconds}\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["bad", "fgsm"]\nimages = 10\n'
        "diagnostics = false\n",
    )
    return open_workspace(root)


@pytest.mark.rows(6)
@copies
@pytest.mark.parametrize("what", BODIES)
def test_with_one_process_too_the_run_goes_on_and_the_cell_says_why(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    body, why = BODIES[what]
    monkeypatch.setattr("robench.make.pool.SAYING", 0.3)
    limit = 0.3 if why == LATE else 60  # a busy machine is not to be late with what ends by itself
    run, ears = carry_out(with_attack(write, body, limit), jobs=1)
    (failed,) = ears.failed.items()
    assert failed[0] == "small seed 0 x bad"
    assert why in failed[1].short
    assert {"small seed 0 x clean", "small seed 0 x fgsm"} <= {*ears.done}
    assert any(why in text for text in survey(run)[2])


@copies
@pytest.mark.parametrize("jobs", [0, 1])
def test_a_copy_that_a_plugin_makes_of_its_process_does_nothing_twice(
    small: Workspace, write: Write, jobs: int
) -> None:
    run, ears = carry_out(with_attack(write, "os.fork()", 60), jobs=jobs)
    assert not ears.failed
    assert len(ears.done) == len(set(ears.done)) == 4
    assert len(outcomes(run)) == 3


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


LEFT = {
    "a program": "child = subprocess.Popen(['sleep', '600']).pid",
    "a copy": "child = os.fork() or exec('while True: time.sleep(60)')",
    "a program that is deaf": (
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time\\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)']).pid"
    ),
}


@pytest.mark.rows(3)
@copies
@pytest.mark.parametrize("what", LEFT)
@pytest.mark.parametrize(
    ("then", "limit"), [("pass", 60), ("time.sleep(600)", 1.5)], ids=["returns", "hangs"]
)
def test_what_a_plugin_started_does_not_outlive_the_run(
    small: Workspace, write: Write, what: str, then: str, limit: float, tmp_path: Path
) -> None:
    noted = tmp_path / "child.txt"
    body = f"{LEFT[what]}; open({str(noted)!r}, 'w').write(str(child)); {then}"
    carry_out(with_attack(write, body, limit), jobs=1)
    child = int(noted.read_text())
    until = time.monotonic() + 5
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)


@copies
def test_a_thread_that_never_ends_does_not_keep_the_run(small: Workspace, write: Write) -> None:
    body = "threading.Thread(target=threading.Event().wait).start()"
    carry_out(with_attack(write, body), jobs=1)  # it returns


TRAINER = """
import time
from robench import Trainer

class Bad(Trainer):
    def fit(self, network, data, rng, progress):
        time.sleep(600)
"""
NETWORK = """
import time
from robench.networks.mlp import MLP

class Bad(MLP):
    def forward(self, x):
        if len(x) == 40:  # the images of the report
            time.sleep(600)
        return super().forward(x)
"""


@copies
@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_training_has_a_limit(small: Workspace, write: Write, jobs: int) -> None:
    write("models/bad.py", TRAINER)
    text = (small.root / "models/small.toml").read_text()
    write(
        "models/small.toml",
        'dataset = "digits"\nnetwork = "mlp"\ntrainer = "./bad.py:Bad"\ntime_limit = 0.2\n',
    )
    write("models/good.toml", text)
    report = (small.root / "reports/small.toml").read_text()
    write("reports/small.toml", report.replace('["small"]', '["small", "good"]'))
    _, ears = carry_out(open_workspace(small.root), jobs=jobs)
    (failed,) = ears.failed.items()
    assert failed[0] == "train small seed 0"
    assert "ran past its time_limit of 0.2 s" in failed[1].short
    assert "good seed 0 x fgsm" in ears.done


@copies
@pytest.mark.parametrize("jobs", [0, 1])
def test_scoring_has_a_limit(small: Workspace, write: Write, jobs: int) -> None:
    workspace = open_workspace(small.root)
    write("models/bad.py", NETWORK)
    text = (small.root / "models/small.toml").read_text()
    text = text.replace('"mlp"', '"./bad.py:Bad"')
    write("models/small.toml", "time_limit = 0.5\n" + text)
    _, ears = carry_out(workspace, jobs=jobs)
    assert ears.failed
    assert all(LATE in failure.short for failure in ears.failed.values())


def test_without_limits_on_cards_everything_still_has_one(small: Workspace) -> None:
    run = open_run(make_plan(small, "small"), Store(small.root / ".robench"), "cpu")
    seen: dict[str, float] = {}

    class Notes(Inline):
        def submit(self, task):  # type: ignore[no-untyped-def]
            seen[type(task).__name__] = task.time_limit
            return super().submit(task)

    execute(run, Ears(), start=Notes)
    assert seen == {"Train": 7 * 86400, "Evaluate": 86400}


class Sleeps:
    """A task that is at work when the pool is closed."""

    label, digest, group, time_limit = "sleeps", "", "sleeps", None

    def __init__(self, file: Path, body: str) -> None:
        self.file, self.body = file, body

    def run(self, tell: Callable[[float, str], None]) -> None:
        self.file.write_text(str(os.getpid()))
        exec(self.body)


CLOSED = {
    "heeds": "time.sleep(600)",
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "is stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "swallows all": "exec('while True:\\n try: time.sleep(600)\\n except BaseException: pass')",
}


@pytest.mark.parametrize(
    ("how", "copy"),
    [
        *(pytest.param(how, True, marks=copies) for how in CLOSED),
        *(pytest.param(how, False, marks=pytest.mark.release) for how in [*CLOSED][:-1]),
        ([*CLOSED][-1], False),  # the worst of them; a process of its own imports everything
    ],
)
def test_closing_the_pool_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, copy: bool
) -> None:
    monkeypatch.setattr("robench.make.workers.PATIENCE", 1.0)
    pool = Processes(1, lambda *said: None, copy)
    noted = tmp_path / "pid.txt"
    future = pool.submit(Sleeps(noted, f"import os, signal, time\n{CLOSED[how]}"))
    while not (noted.exists() and noted.read_text()):
        pool.turn(0.05)
    closing = threading.Thread(target=pool.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert not alive(int(noted.read_text()))
    assert not future.done()


@copies
def test_an_interrupted_worker_leaves_no_half_written_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    body = (
        "import os, time\nfrom robench.store.store import Store\n"
        "os.fsync = lambda descriptor: time.sleep(600)\n"
        f"Store({store.url!r}).write_failure('f', {{}})"
    )
    pool = Processes(1, lambda *said: None, True)
    pool.submit(Sleeps(tmp_path / "pid.txt", body))
    while not list((tmp_path / "store").rglob("*.tmp")):
        pool.turn(0.05)
    pool.close()
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


@copies
@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_need_no_semaphores(
    small: Workspace, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """They lie under /dev/shm, which may be read-only."""

    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    _, ears = carry_out(small, jobs=jobs)
    assert not ears.failed
    assert len(ears.done) == 4


@copies
def test_a_copy_and_a_process_of_its_own_give_the_same_bits(small: Workspace) -> None:
    here = outcomes(carry_out(small)[0])
    for number, start in enumerate(
        [lambda told: Processes(1, told, True), lambda told: Processes(1, told, False)]
    ):
        (small.root / ".robench").rename(small.root / f"before{number}")
        run = open_run(make_plan(small, "small"), Store(small.root / ".robench"), "cpu")
        execute(run, Ears(), start=start)
        assert outcomes(run) == here


# -- stores ----------------------------------------------------------------------------------------


def test_a_store_in_memory_cannot_be_shared_and_says_so(small: Workspace) -> None:
    run = open_run(make_plan(small, "small"), Store("memory://shared"), "cpu")
    with pytest.raises(RobenchError, match="lives in one process: --jobs 2 would lose"):
        execute(run, Ears(), 2)
    ears = Ears()
    execute(run, ears, 1)
    assert len(ears.done) == 4


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Store]:
    """A small workspace whose report is finished and published, from a store in memory."""
    workspace = small_workspace(tmp_path_factory.mktemp("published"))
    store = Store("memory://published")
    reported(workspace, store=store)
    return workspace, store


METHODS = ["exists", "cat_file", "pipe_file", "makedirs", "find"]
ERRORS = [ConnectionError, TimeoutError, RuntimeError, ValueError]


@pytest.mark.parametrize(
    ("method", "error"),
    [  # each method and each error; all pairs for a release
        pytest.param(method, error, marks=[] if i % len(ERRORS) == j else pytest.mark.release)
        for i, method in enumerate(METHODS)
        for j, error in enumerate(ERRORS)
    ],
)
def test_a_remote_store_that_goes_away_is_one_error(
    published: tuple[Workspace, Store],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    error: type[Exception],
) -> None:
    small, store = published
    missing = sorted(store.cells())[0]
    store.files.remove(f"cells/{missing[:2]}/{missing}.parquet")

    def gone(*arguments: object, **settings: object) -> None:
        raise error("no route to host")

    monkeypatch.setattr(type(store.files.fs), method, gone)
    with pytest.raises(RobenchError, match="no route to host"):
        reported(small, store=store)
    monkeypatch.undo()
    done = reported(small, store=store)
    assert done.incomplete == 0, "nothing is lost"


@pytest.mark.parametrize("folder", ["cells", "models", "runs", "failures"])
def test_a_pipe_under_a_files_name_is_set_aside_and_waited_for_by_nobody(
    small: Workspace, folder: str
) -> None:
    store = Store(small.root / ".robench")
    reported(small, store=store)
    store.write_failure(next(iter(store.cells())), {"task": "t", "error": "e"})
    file = next(path for path in (small.root / ".robench" / folder).rglob("*") if path.is_file())
    file.unlink()
    os.mkfifo(file)
    assert survey(open_run(make_plan(small, "small"), store, "cpu"))
    done = reported(small, store=store)
    assert done.incomplete == 0
    if folder != "failures":
        assert file.is_file()


@pytest.mark.parametrize("name", ["manifest.json", "cells.parquet", "index.html"])
def test_a_pipe_in_a_published_folder_is_waited_for_by_nobody(small: Workspace, name: str) -> None:
    store = Store(small.root / ".robench")
    reported(small, store=store)
    file = small.root / "reports/small" / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(NotRegular):
        read_regular(file)
    reported(small, store=store)
    assert file.is_file()


def test_a_finished_report_in_a_read_only_store_is_shown_by_run(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(small.root / ".robench")
    reported(small, store=store, command="robench run a")
    (small.root / "reports/small/index.html").unlink()
    before = {path: path.read_bytes() for path in (small.root / ".robench").rglob("*.*")}

    def refuse(*arguments: object, **settings: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(store.files.fs), "makedirs", refuse)
    monkeypatch.setattr("os.fsync", refuse)
    again = reported(small, store=store, command="robench run b")
    assert again.incomplete == 0
    assert again.page.is_file()
    monkeypatch.undo()
    assert before == {path: path.read_bytes() for path in (small.root / ".robench").rglob("*.*")}


@pytest.mark.parametrize("jobs", [0, 1])
def test_the_whole_of_a_run_goes_through_with_so_many_workers(small: Workspace, jobs: int) -> None:
    store = Store(small.root / ".robench")
    done = reported(small, store=store, options=RunOptions(jobs=jobs))
    assert done.incomplete == 0


@copies
def test_a_process_with_threads_of_opencv_can_be_copied(small: Workspace) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.ones((2000, 2000)), (9, 9), 2)  # which starts them
    try:
        with within(120, "the run"):
            _, ears = carry_out(small, jobs=1)
        assert not ears.failed
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_store_that_lives_in_this_process_is_not_left_by_a_worn_one(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robench.plugin_code.guard.worn", "a plugin has left 65 files open")
    run = open_run(make_plan(small, "small"), Store("memory://worn"), "cpu")
    ears = Ears()
    execute(run, ears, 1)
    assert not ears.failed
    assert len(run.outcomes.digests) == len(run.plan.cells)
