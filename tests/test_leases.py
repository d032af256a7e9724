"""Several runs on one store: each piece of work is done once, by another where a run is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_runs import Ears, carry_out, outcomes

from robench.errors import RobenchError
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.store import leases
from robench.store.files import Files
from robench.store.fsck import check_store
from robench.store.leases import Leases
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]
FORK = multiprocessing.get_context("fork")
CELLS = 12

WAITS = """
import os
import time
from pathlib import Path

from robench import Attack

class Waits(Attack):
    number: int = 0
    gate: str
    def perturb(self, target, x, y, rng):
        gate = Path(self.gate)
        (gate / str(os.getpid())).touch()
        while not (gate / "go").exists():
            time.sleep(0.01)
        return x
"""


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the process of every run that has begun a cell leaves its number; none goes
    on before there is a file `go`."""
    return tmp_path_factory.mktemp("gate")


@pytest.fixture
def many(small: Workspace, write: Write, gate: Path) -> Workspace:
    """One model under clean images and attacks that wait at the gate."""
    write("attacks/waits.py", WAITS)
    for number in range(CELLS):
        write(
            f"attacks/w{number}.toml",
            f'attack = {{ name = "./waits.py:Waits", number = {number}, gate = "{gate}" }}\n'
            'access = "white-box"\neps = 0.1\n',
        )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["w*"]\nimages = 20\ndiagnostics = false\n',
    )
    return open_workspace(small.root)


class Running:
    """Runs in processes of their own, and what they did."""

    def __init__(self, workspace: Workspace, runs: int) -> None:
        self._said = FORK.Queue()
        self.processes = [
            FORK.Process(target=self._run, args=(workspace,), daemon=True) for _ in range(runs)
        ]
        for process in self.processes:
            process.start()

    def _run(self, workspace: Workspace) -> None:
        _, ears = carry_out(workspace)
        self._said.put((ears.done, ears.elsewhere_made, list(ears.failed)))

    def at_the_gate(self, gate: Path) -> None:
        """Wait until every run has begun a cell."""
        wanted = {str(process.pid) for process in self.processes}
        while not wanted <= {path.name for path in gate.iterdir()}:
            assert all(process.is_alive() for process in self.processes)
            time.sleep(0.02)

    def done(self, runs: int) -> list[tuple[list[str], list[str], list[str]]]:
        """By each of so many runs: done, done by others, failed."""
        found = [self._said.get(timeout=120) for _ in range(runs)]
        for process in self.processes:
            process.join(60)
        return found


def left(workspace: Workspace) -> list[Path]:
    folder = workspace.root / ".robench/leases"
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.rows(1)
@pytest.mark.parametrize("runs", [2, 4])
def test_runs_on_one_store_do_each_piece_of_work_once(
    many: Workspace, gate: Path, runs: int
) -> None:
    running = Running(many, runs)
    running.at_the_gate(gate)
    (gate / "go").touch()
    found = running.done(runs)
    done = Counter(label for labels, _, _ in found for label in labels)
    assert set(done.values()) == {1}
    assert len(done) == CELLS + 2, "the training and the clean cell too"
    assert all(labels for labels, _, _ in found), "each did some"
    assert not any(failed for _, _, failed in found)
    assert not left(many)
    again, ears = carry_out(many)
    assert not ears.done
    together = outcomes(again)
    (many.root / ".robench").rename(many.root / "together")
    assert outcomes(carry_out(many)[0]) == together


def test_what_a_killed_run_held_is_done_by_another_at_once(many: Workspace, gate: Path) -> None:
    running = Running(many, 3)
    running.at_the_gate(gate)
    running.processes[0].kill()
    running.processes[0].join()
    (gate / "go").touch()
    found = running.done(2)
    done = Counter(label for labels, _, _ in found for label in labels)
    evaluated = {label: times for label, times in done.items() if " x w" in label}
    assert evaluated == dict.fromkeys(evaluated, 1)
    assert len(evaluated) == CELLS
    run, ears = carry_out(many)
    assert not ears.done
    assert len(outcomes(run)) == CELLS + 1


def test_what_dead_runs_left_is_gone_after_the_next(many: Workspace, gate: Path) -> None:
    running = Running(many, 1)
    running.at_the_gate(gate)
    running.processes[0].kill()
    running.processes[0].join()
    assert len(left(many)) == 2, "the sign of life, and the cell it was at"
    said = check_store(Store(many.root / ".robench")).left
    assert sum(len(names) for what, names in said.items() if "a run is at" in what) == 2
    (gate / "go").touch()
    carry_out(many, only=("clean",))
    assert len(left(many)) == 2, "nothing to do, nothing written"
    carry_out(many)
    assert not left(many)


# -- other machines --------------------------------------------------------------------------------

RUN = "0" * 32


class Clock:
    """Time as a test makes it go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(leases.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path / "store"))


@pytest.fixture
def mine(files: Files) -> Iterator[Leases]:
    made = Leases(files, pytest.fail)
    yield made
    made.close()


def foreign(when: str = "2026-01-01T00:00:00+00:00", **more: Any) -> bytes:
    said = {"run": RUN, "host": "far", "machine": "far boot pid", "process": 1, "time": when}
    return json.dumps(said | more).encode()


@pytest.mark.parametrize("when", ["1971-01-01T00:00:00+00:00", "2106-01-01T00:00:00+00:00"])
@pytest.mark.parametrize("year", [1971, 2106])
def test_a_lease_of_another_host_is_kept_while_that_lives_whatever_its_clock_says(
    files: Files,
    mine: Leases,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    year: int,
) -> None:
    monkeypatch.setattr("time.time", lambda: (year - 1970) * 365.25 * 86400)
    files.write("leases/a.json", foreign(when))
    for beat in range(10):
        files.write(f"leases/runs/{RUN}.json", foreign(when, beat=beat))
        for path in Path(files.root).rglob("*.json"):
            os.utime(path, (beat, beat))
        assert not mine.take("a", "work")
        clock.now += leases.STALE - 1
    assert "host far, process 1" in mine.holder("a")
    assert not mine.take("a", "work")
    clock.now += leases.STALE + 1
    assert mine.take("a", "work")
    assert json.loads(files.read("leases/a.json"))["task"] == "work"


def test_a_run_takes_over_what_another_host_left_and_says_who_was_waited_for(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    monkeypatch.setattr(leases, "STALE", 0.2)
    monkeypatch.setattr("robench.make.scheduler.LOOK", 0.05)
    name = run.digests[run.plan.cells[0]]
    next(Path(run.store.url).rglob(f"{name}.parquet")).unlink()
    run.store.files.write(f"leases/{name}.json", foreign())
    again, ears = carry_out(small)
    assert ears.done == [run.plan.cells[0].label]
    assert ears.notes == [
        f"{ears.done[0]}: another run (host far, process 1) is at it",
    ]
    assert outcomes(again) == outcomes(run)
    assert not left(small)


def test_what_another_run_makes_meanwhile_is_not_made_again(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    monkeypatch.setattr("robench.make.scheduler.LOOK", 0.05)
    name = run.digests[run.plan.cells[0]]
    file = next(Path(run.store.url).rglob(f"{name}.parquet"))
    file.rename(small.root / "elsewhere")
    run.store.files.write(f"leases/{name}.json", foreign())

    class Other(Ears):
        def note(self, text: str) -> None:
            super().note(text)
            (small.root / "elsewhere").rename(file)

    again, ears = open_run(make_plan(small, "small"), run.store, "cpu"), Other()
    execute(again, ears)
    assert not ears.done
    assert ears.elsewhere_made == [run.plan.cells[0].label]
    assert outcomes(again) == outcomes(run)


NOT_LEASES: dict[str, Any] = {
    "nothing": b"",
    "no text": b"\x80\x81",
    "a list": b"[]",
    "a number": b"7",
    "a run that is a path": foreign(run="../../cells"),
    "a run that is a number": foreign(run=7),
    "a process that is a text": foreign(process="1", machine=leases._machine()),
    "half of one": foreign()[:20],
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
}


@pytest.mark.parametrize("what", NOT_LEASES)
def test_whatever_lies_where_a_lease_should_holds_nothing_up_for_good(
    files: Files, mine: Leases, clock: Clock, what: str
) -> None:
    made, path = NOT_LEASES[what], Path(files.path("leases/a.json"))
    path.parent.mkdir(parents=True)
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made(path)
    assert not mine.take("a", "work")
    assert "another run" in mine.holder("a")
    clock.now += leases.STALE + 1
    assert mine.take("a", "work")
    mine.release("a")
    assert not path.exists()


@pytest.mark.skipif(not leases._machine(), reason="this system does not say which process is which")
def test_a_dead_process_of_this_machine_holds_nothing_and_a_living_one_does(
    files: Files, mine: Leases
) -> None:
    living = FORK.Process(target=time.sleep, args=(60,))
    living.start()
    assert living.pid is not None
    began, machine = leases._began(living.pid), leases._machine()
    said = foreign(machine=machine, process=living.pid, began=began)
    files.write("leases/a.json", said)
    assert not mine.take("a", "work")
    living.kill()
    while leases._began(living.pid) is not None:  # a zombie is dead enough
        time.sleep(0.01)
    assert mine.take("a", "work")
    living.join()
    me = os.getpid()
    files.write("leases/b.json", foreign(machine=machine, process=me, began=leases._began(me)))
    assert not mine.take("b", "work")
    files.write("leases/c.json", foreign(machine=machine, process=me, began="1"))
    assert mine.take("c", "work"), "its number is another's by now"


def test_of_two_that_take_over_one_gets_it(
    files: Files, mine: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other was faster between the look and the move: what is moved is put back."""
    files.write("leases/a.json", foreign())
    assert not mine.take("a", "work")
    clock.now += leases.STALE + 1
    move, fresh = Files.move, foreign(run="1" * 32)

    def late(files: Files, name: str, to: str) -> None:
        files.write(name, fresh)
        move(files, name, to)

    monkeypatch.setattr(Files, "move", late)
    assert not mine.take("a", "work")
    assert files.read("leases/a.json") == fresh


def test_a_run_that_slept_gives_up_only_what_is_still_its_own(files: Files, mine: Leases) -> None:
    assert mine.take("a", "work")
    files.write("leases/a.json", foreign())
    mine.release("a")
    assert files.exists("leases/a.json")


def test_many_that_ask_at_once_get_each_piece_once(tmp_path: Path) -> None:
    asking = [Leases(Files(str(tmp_path)), pytest.fail) for _ in range(8)]
    got: list[str] = []

    def take(one: Leases) -> None:
        got.extend(str(name) for name in range(40) if one.take(str(name), "work"))

    threads = [threading.Thread(target=take, args=(one,)) for one in asking]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in asking:
        one.close()
    assert sorted(got, key=int) == [str(name) for name in range(40)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# -- stores that cannot be written, and remote ones ------------------------------------------------


def test_a_store_that_cannot_be_written_is_one_error(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    before = set((small.root / ".robench").rglob("*"))

    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(run.store.files.fs), "makedirs", refuse)
    monkeypatch.setattr("robench.store.files._create", refuse)
    assert not carry_out(small)[1].done, "nothing to do, nothing to hold"
    name = run.digests[run.plan.cells[0]]
    next(Path(run.store.url).rglob(f"{name}.parquet")).unlink()
    with pytest.raises(RobenchError, match="Read-only file system; free space or choose"):
        carry_out(small)
    after = set((small.root / ".robench").rglob("*"))
    assert after <= before


class Shelf(MemoryFileSystem):
    """A remote store that creates a file only where there is none."""

    protocol = "shelf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]


class Slate(Shelf):
    """One that does as if."""

    protocol = "slate"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
        super().pipe_file(path, value)


class Plain(Shelf):
    """One whose library looks first and then writes."""

    protocol = "plain"
    pipe_file = fsspec.AbstractFileSystem.pipe_file


class Stubborn(Shelf):
    """One that has never heard of it."""

    protocol = "stubborn"

    def pipe_file(self, path: str, value: bytes) -> None:
        super().pipe_file(path, value)


@pytest.mark.parametrize("kind", [Shelf, Slate, Plain, Stubborn])
def test_a_remote_store_is_shared_as_far_as_it_can_be_and_else_it_is_said(
    small: Workspace, kind: type[Shelf]
) -> None:
    fsspec.register_implementation(str(kind.protocol), kind, clobber=True)
    store = Store(f"{kind.protocol}://s")
    run, ears = open_run(make_plan(small, "small"), store, "cpu"), Ears()
    name = None
    for attempt in range(2):
        execute(run, ears)
        assert not ears.failed
        assert not list(store.files.names("leases", ".json"))
        if attempt == 0:
            assert len(ears.done) == 4
            name = run.digests[run.plan.cells[0]]
            store.files.remove(f"cells/{name[:2]}/{name}.parquet")
            run, ears = open_run(make_plan(small, "small"), store, "cpu"), Ears()
    assert len(ears.done) == 1
    said = [note for note in ears.notes if "may do some work twice" in note]
    assert len(said) == (kind is not Shelf)
    other = Leases(store.files, lambda text: None)
    rival = Leases(store.files, lambda text: None)
    assert other.take("a", "work")
    assert not rival.take("a", "work"), "one after the other they are kept apart everywhere"
    other.close()
    assert rival.take("a", "work")
    rival.close()


def test_images_that_another_run_did_not_keep_are_made(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    monkeypatch.setattr("robench.make.scheduler.LOOK", 0.05)
    fgsm = next(cell for cell in run.plan.cells if cell.threat.name == "fgsm")
    file = next(Path(run.store.url).rglob(f"{run.digests[fgsm]}.parquet"))
    file.rename(small.root / "elsewhere")
    run.store.files.write(f"leases/{run.digests[fgsm]}.json", foreign())

    class Other(Ears):
        def note(self, text: str) -> None:
            super().note(text)
            (small.root / "elsewhere").rename(file)

    plan = make_plan(small, "small", ("fgsm",))
    again, ears = open_run(plan, run.store, "cpu", keep_images=True), Other()
    execute(again, ears)
    assert ears.elsewhere_made == ["small seed 0 x fgsm"]
    assert ears.done == ["images of small seed 0 x fgsm"]
    assert run.store.images() == {run.digests[fgsm]}
