"""The store under kill -9, power cuts, full disks, read-only folders, rival runs and odd clocks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from damaged_files import HOW, damage
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Ears, carry_out, outcomes

from robench.errors import RobenchError
from robench.make.run_state import open_run, survey
from robench.make.scheduler import execute
from robench.store.files import Files
from robench.store.store import Damaged, Outcome, Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]

FORK = multiprocessing.get_context("fork")  # a child starts in the middle of things


@pytest.fixture
def several(small: Workspace, write: Write) -> Workspace:
    """Three trainings, and inputs that cells share."""
    text = (small.root / "models/small.toml").read_text()
    write("models/small.toml", text + "seeds = [0, 1]\n")
    write("models/source.toml", text.replace("[16]", "[8]"))
    write(
        "attacks/moved.toml",
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\neps = 0.1\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["fgsm", "noise", "pgd", "moved"]\n'
        "images = 40\ndraws = 2\ndiagnostics = false\n",
    )
    return open_workspace(small.root)


def run_to_the_end(root: str, largest_file: int | None = None) -> None:
    """What a child does: the whole run. Exits with 3 for an error of the project's own type."""
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.environ["OMP_NUM_THREADS"] = "1"
    workspace = open_workspace(Path(root))
    run = open_run(make_plan(workspace, "small"), Store(workspace.root / ".robench"), "cpu")
    try:
        execute(run, Ears())
    except RobenchError as error:
        print(error, file=sys.stderr)
        sys.exit(3)


def child(workspace: Workspace, *arguments: Any) -> Any:
    process = FORK.Process(target=run_to_the_end, args=(str(workspace.root), *arguments))
    process.start()
    return process


def finished(workspace: Workspace) -> dict[str, tuple[int, int]]:
    """Every result under its final name: when it was written and how long it is."""
    folder = workspace.root / ".robench"
    found = [*folder.rglob("*.parquet"), *folder.rglob("*.safetensors")]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def check_all_sound(store: Store) -> None:
    """Raises Damaged for anything in the store that is not what its name says."""
    folder = Path(store.url)
    for path in folder.glob("cells/*/*.parquet"):
        store.read_cell(path.stem)
    for path in folder.glob("models/*.safetensors"):
        store.read_model(path.stem)
    for path in folder.glob("inputs/*.safetensors"):
        store.read_inputs(path.stem)


def put_aside(workspace: Workspace, name: str) -> None:
    (workspace.root / ".robench").rename(workspace.root / name)


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.release)])
def test_killed_at_random_moments_nothing_finished_is_lost(several: Workspace, kills: int) -> None:
    """A moment is when so many results more are there, drawn at random, and a little later."""
    whole = outcomes(carry_out(several)[0])
    results = len(finished(several))
    put_aside(several, "whole")
    rng, done, kept = random.Random(kills), 0, 0
    before: dict[str, tuple[int, int]] = {}
    while done < kills:
        process = child(several)
        wanted = rng.randrange(len(before), results)
        while len(finished(several)) < wanted and process.is_alive():
            process.join(0.01)
        process.join(rng.uniform(0, 0.1))
        if process.is_alive():
            process.kill()
            done += 1
        process.join()
        after = finished(several)
        assert before.items() <= after.items(), "what was finished is as it was"
        check_all_sound(Store(several.root / ".robench"))
        before, kept = after, kept + (0 < len(after) < results)
        if len(after) == results:  # it came to its end: from the beginning
            put_aside(several, f"round-{done}-{time.monotonic_ns()}")
            before = {}
    assert kept, "killed where something was finished and something was not"
    run, ears = carry_out(several)
    assert outcomes(run) == whole
    assert not ears.failed
    assert not (several.root / ".robench" / "damaged").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, str]]:
    """A finished run, and the digests of its outcomes."""
    root = tmp_path_factory.mktemp("whole")
    for name in ("models", "attacks", "corruptions", "reports"):
        (root / name).mkdir()
    (root / "models/small.toml").write_text(
        'dataset = "digits"\nnetwork = { name = "mlp", hidden = [8] }\n'
        'trainer = { name = "bp", epochs = 1, lr = 1e-2 }\n'
    )
    (root / "attacks/moved.toml").write_text(
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "small"\neps = 0.1\n'
    )
    (root / "reports/small.toml").write_text(
        'title = "t"\nmodels = ["small"]\nattacks = ["fgsm", "moved"]\nimages = 20\n'
        "diagnostics = false\n"
    )
    workspace = open_workspace(root)
    return workspace, outcomes(carry_out(workspace)[0])


@given(data=st.data(), how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_whatever_is_cut_or_changed_is_made_again_to_the_same_bits(
    whole: tuple[Workspace, dict[str, str]], data: st.DataObject, how: str, where: int, value: int
) -> None:
    workspace, expected = whole
    store = workspace.root / ".robench"
    results = [*store.glob("cells/*/*"), *store.glob("models/*"), *store.glob("inputs/*")]
    file = data.draw(st.sampled_from(sorted(results)))
    file.write_bytes(damage(file.read_bytes(), how, where, value))
    if file.parent.name == "inputs":  # they are read for cells that are missing only
        for path in store.glob("cells/*/*"):
            path.unlink()
    run, ears = carry_out(workspace)
    assert outcomes(run) == expected
    assert not ears.failed
    check_all_sound(run.store)


@given(how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_a_cell_is_believed_only_as_it_was_written(
    whole: tuple[Workspace, dict[str, str]], how: str, where: int, value: int
) -> None:
    workspace, _ = whole
    store = Store(workspace.root / ".robench")
    name = sorted(store.cells())[0]
    file = next(Path(store.url).rglob(f"{name}.parquet"))
    good, outcome = file.read_bytes(), store.read_cell(name)
    try:
        file.write_bytes(damage(good, how, where, value))
        read = store.read_cell(name)
    except Damaged:
        read = None
    file.write_bytes(good)
    if read is not None:  # the change touched nothing that is read
        assert read.rows.equals(outcome.rows)
        assert read.identity == outcome.identity
        assert read.provenance == outcome.provenance


@settings(max_examples=10)
@given(how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_a_damaged_manifest_or_failure_is_forgotten_not_believed(
    tmp_path_factory: pytest.TempPathFactory, how: str, where: int, value: int
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.write_run("r", {"schema": 1, "models": []})
    store.write_failure("f", {"task": "t", "error": "e"})
    for path in [*Path(store.url).glob("runs/*"), *Path(store.url).glob("failures/*")]:
        path.write_bytes(damage(path.read_bytes(), how, where, value))
    with suppress(Damaged):
        assert store.read_run("r") == {"schema": 1, "models": []}
    assert isinstance(store.read_failure("f"), dict | None)


def test_a_damaged_input_file_is_made_again_within_the_run(several: Workspace) -> None:
    before = outcomes(carry_out(several)[0])
    store = several.root / ".robench"
    for path in store.glob("inputs/*"):
        path.write_bytes(path.read_bytes()[:-7])
    for path in store.glob("cells/*/*"):
        path.unlink()
    run, ears = carry_out(several)
    assert outcomes(run) == before
    assert not ears.failed
    assert any("set aside" in note for note in ears.notes)


def test_a_file_that_is_cut_short_while_it_is_written_is_never_seen(several: Workspace) -> None:
    before = outcomes(carry_out(several)[0])
    store = several.root / ".robench"
    large = max(path.stat().st_size for path in store.glob("inputs/*"))
    put_aside(several, "whole")
    # The system writes no more of any file; one also holds seconds, whose digits may be fewer.
    process = child(several, large - 100)
    process.join()
    assert process.exitcode == 0
    check_all_sound(Store(store))
    assert list(store.rglob("*.tmp")) == []
    kept = finished(several)
    assert kept, "what fits is there"
    said = survey(open_run(make_plan(several, "small"), Store(store), "cpu"))[2]
    assert all("File too large; free space or choose another place" in text for text in said)
    assert said
    assert outcomes(carry_out(several)[0]) == before
    assert kept.items() <= finished(several).items()


def test_a_disk_that_is_full_ends_the_run_with_one_error_and_keeps_what_is_finished(
    several: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outcomes(carry_out(several)[0])
    put_aside(several, "whole")
    room = iter(range(9))

    def synchronise(descriptor: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", synchronise)
    with pytest.raises(RobenchError, match="No space left on device; free space or choose"):
        carry_out(several)
    monkeypatch.undo()
    kept = finished(several)
    assert 0 < len(kept) < len(before)
    assert list((several.root / ".robench").rglob("*.tmp")) == []
    assert outcomes(carry_out(several)[0]) == before
    assert kept.items() <= finished(several).items()


WRITES = range(16)  # more than the run has


@pytest.mark.parametrize(
    "room", [n if n in (0, 1, 5) else pytest.param(n, marks=pytest.mark.release) for n in WRITES]
)
def test_a_disk_that_is_full_at_any_write_is_one_error_and_nothing_is_lost(
    small: Workspace, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Of a file's bytes, or of what makes it last: each write has two such places."""
    before = outcomes(carry_out(small)[0])
    put_aside(small, "whole")
    left = iter(range(room))

    def synchronise(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", synchronise)
    try:
        _, ears = carry_out(small)
        assert room > 6 or ears.failed  # the last one is of a folder, which not all systems have
    except RobenchError as error:
        assert "No space left on device; free space or choose" in str(error)  # noqa: PT017
    monkeypatch.undo()
    kept = finished(small)
    check_all_sound(Store(small.root / ".robench"))
    assert list((small.root / ".robench").rglob("*.tmp")) == []
    assert outcomes(carry_out(small)[0]) == before
    assert kept.items() <= finished(small).items()


def test_a_folder_that_cannot_be_written_is_one_error_and_no_loop(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    store = Store(small.root / ".robench")
    monkeypatch.setattr(type(store.files.fs), "makedirs", refuse)
    with pytest.raises(RobenchError, match="Read-only file system; free space or choose"):
        carry_out(small)
    assert survey(open_run(make_plan(small, "small"), store, "cpu"))[1]["missing"] == 3


def test_a_finished_run_in_a_read_only_store_can_still_be_read(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)

    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("replace", "rename", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    for name in ("makedirs", "rm_file", "mv"):
        monkeypatch.setattr(type(run.store.files.fs), name, refuse)
    again, ears = carry_out(small)
    assert ears.done == []
    assert outcomes(again) == outcomes(run)
    name = next(iter(run.digests.values()))
    file = next(Path(run.store.url).rglob(f"{name}.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(Damaged, match="cannot be set aside: Read-only file system"):
        run.store.read_cell(name)


def test_the_store_may_not_be_a_file(small: Workspace) -> None:
    (small.root / ".robench").write_text("")
    with pytest.raises(RobenchError, match="cannot be"):
        carry_out(small)


def test_two_runs_on_one_store_at_once_both_finish_and_agree(several: Workspace) -> None:
    processes = [child(several) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    check_all_sound(Store(several.root / ".robench"))
    together, ears = carry_out(several)
    assert ears.done == []
    put_aside(several, "together")
    assert outcomes(carry_out(several)[0]) == {
        cell.label: Store(several.root / "together").read_cell(name).digest
        for cell, name in together.digests.items()
    }


def test_two_that_set_the_same_damaged_cell_aside_do_not_trip_over_each_other(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    name = next(iter(run.digests.values()))
    file = next(Path(run.store.url).rglob(f"{name}.parquet"))
    file.write_bytes(b"")
    move = Files.move

    def late(files: Files, name: str, to: str) -> None:
        move(files, name, "elsewhere")  # by another run
        move(files, name, to)

    monkeypatch.setattr(Files, "move", late)
    with pytest.raises(Damaged, match="another run has set it aside"):
        run.store.read_cell(name)
    monkeypatch.undo()
    file.write_bytes(b"")
    with pytest.raises(Damaged, match="set aside as"):
        run.store.read_cell(name)


@pytest.mark.parametrize("folder", ["cells", "models", "inputs", "runs"])
def test_a_good_file_that_another_run_has_just_written_is_not_set_aside(
    several: Workspace, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    run, _ = carry_out(several)
    run.store.write_run("small", {"schema": 2})
    file = next(path for path in (Path(run.store.url) / folder).rglob("*") if path.is_file())
    good, move = file.read_bytes(), Files.move
    file.write_bytes(good[:-9])

    def late(files: Files, name: str, to: str) -> None:
        file.write_bytes(good)
        move(files, name, to)

    monkeypatch.setattr(Files, "move", late)
    read: dict[str, Callable[[str], Any]] = {
        **{"cells": run.store.read_cell, "models": run.store.read_model},
        **{"inputs": run.store.read_inputs, "runs": run.store.read_run},
    }
    assert read[folder](file.stem) is not None
    assert file.read_bytes() == good
    assert not list((Path(run.store.url) / "damaged").iterdir())


@pytest.mark.parametrize("year", [1971, 2106])
def test_clocks_that_jump_change_nothing(
    several: Workspace, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    part, _ = carry_out(several, only=("fgsm",))
    then = (year - 1970) * 365.25 * 86400
    for path in (several.root / ".robench").rglob("*"):
        os.utime(path, (then, then))
    monkeypatch.setattr("time.time", lambda: -then)
    run, ears = carry_out(several)
    assert not ears.failed
    assert not {label for label in ears.done if label.endswith("x fgsm")}
    assert outcomes(part).items() <= outcomes(run).items()


def test_an_outcome_with_odd_numbers_reads_back(tmp_path: Path) -> None:
    import pyarrow as pa

    from robench.digest import digest

    identity = {"what": "odd"}
    odd = {"loss_trace": [float("nan"), float("inf"), -0.0, 1e-320], "text": "\ud800 \x00"}
    made = Outcome(pa.table({"image": [0]}), identity, odd)
    store = Store(tmp_path)
    store.write_cell(digest(identity), made)
    assert str(store.read_cell(digest(identity)).provenance) == str(odd)
