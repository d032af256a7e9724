"""`robench push` and `robench pull`: results of several people come together in one store; nothing
is replaced, nothing is believed unseen, and what is half there harms nothing."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
from command_line import robench_here
from damaged_files import HOW, damage
from hostile import snapshot
from hypothesis import given
from hypothesis import strategies as st
from small_runs import MODEL, carry_out, outcomes, small_workspace

from robench.digest import canonical, digest
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.needed import needed
from robench.show.results import load_results
from robench.store.files import Files
from robench.store.fsck import check_store
from robench.store.seal import sealed, tensors_digest
from robench.store.sharing import Sharing, all_files, check_stores, note_pulled
from robench.store.store import Outcome, Store
from robench.store.store_files import FOLDERS, examined, item_of
from robench.store.transferred import Transferred
from robench.workspace.folders import Workspace, open_workspace

QUIET: Callable[[int, int, str], None] = lambda done, known, name: None  # noqa: E731
TRANSFER = 'attack = "fgsm"\naccess = "transfer"\nsurrogate = "small"\neps = 0.1\n'


def share(source: Store, target: Store) -> Transferred:
    shared = Transferred()
    Sharing(source, target, shared, QUIET).carry(all_files(source, shared))
    return shared


def person(root: Path, cards: dict[str, str], report: str = "small") -> Workspace:
    """A workspace with these models, beside `small`, and a finished run of its report."""
    small_workspace(root)
    for name, text in cards.items():
        (root / name).write_text(text)
    workspace = open_workspace(root)
    run, _ = carry_out(workspace, report)
    run.store.write_run(report, describe(run, f"robench run {report}"))
    return workspace


OTHER = MODEL.replace("[16]", "[8]")
REPORT = (
    'title = "t"\nmodels = ["{}"]\nattacks = ["fgsm", "noise", "moved"]\nimages = 40\n'
    "draws = 2\ndiagnostics = false\n"
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Workspaces of two people, who have trained different models and share one."""
    made = []
    for name in ("small", "other"):
        root = tmp_path_factory.mktemp(name)
        cards = {
            "models/other.toml": OTHER,
            "attacks/moved.toml": TRANSFER,
            "reports/small.toml": REPORT.format(name),
            "reports/both.toml": REPORT.format("*"),
        }
        made.append(person(root, cards).root)
    return made[0], made[1]


@pytest.fixture
def pair(two: tuple[Path, Path], tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Copies of theirs that a test may change."""
    made = []
    for number, root in enumerate(two):
        shutil.copytree(root, tmp_path / str(number))
        made.append(open_workspace(tmp_path / str(number)))
    return made[0], made[1]


def store_of(workspace: Workspace) -> Store:
    return Store(workspace.root / ".robench")


def results(store: Store) -> dict[str, bytes]:
    files = store.files
    names = [n for folder in FOLDERS for n in files.sizes(folder)]
    return {name: files.read(name) for name in names}


def first(store: Store, folder: str) -> str:
    return min(store.files.sizes(folder))


# -- two people ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_what_two_people_have_comes_together_and_nothing_is_evaluated_again(
    pair: tuple[Workspace, Workspace], tmp_path: Path, where: str
) -> None:
    remote = Store(str(tmp_path / "remote") if where == "folder" else "memory://together")
    one, other = map(store_of, pair)
    had = {store: results(store) for store in (one, other)}
    assert had[one].keys() - had[other].keys()
    assert had[other].keys() - had[one].keys()
    assert all(share(store, remote).sound for store in (one, other))
    for store, others in ((one, had[other]), (other, had[one])):
        pulled = share(remote, store)
        assert pulled.sound
        assert ("small" in pulled.left) == (store is other), "the page of the first is there"
        # What both had made, such as the model that both attack from, each keeps as it made it.
        assert results(store) == {**others, **had[store]}
    run, ears = carry_out(pair[0], "both")
    assert ears.done == []
    assert len(outcomes(run)) == len(run.plan.cells) == 8
    if where == "memory":
        fsspec.filesystem("memory").rm("/together", recursive=True)


def test_doing_it_again_does_nothing_and_says_so(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    one, remote = store_of(pair[0]), Store(tmp_path / "remote")
    assert share(one, remote).moved == {"models": 1, "inputs": 1, "cells": 4, "runs": 1}
    before = snapshot(tmp_path)
    for source, target in ((one, remote), (remote, one)):
        again = share(source, target)
        assert not again.moved
        assert again.same == {"models": 1, "inputs": 1, "cells": 4, "runs": 1}
        assert again.sound
    assert snapshot(tmp_path) == before


def test_a_pulled_result_says_itself_who_made_it_and_the_store_where_it_came_from(
    pair: tuple[Workspace, Workspace],
) -> None:
    one, other = map(store_of, pair)
    cell = Path(first(other, "cells")).stem
    made = other.read_cell(cell).provenance
    pulled = share(other, one)
    note_pulled(one, other, pulled)
    assert one.read_cell(cell).provenance == made
    assert {"finished", "environment", "seconds"} <= made.keys()
    (noted,) = one.files.sizes("pulled")
    said = json.loads(one.files.read(noted))
    assert said["from"] == other.url
    assert said["files"] == sorted(pulled.names)
    found = check_store(one)
    assert not found.damaged
    assert "that say what was pulled from where" in found.left


def test_a_page_that_is_pulled_is_shown_without_any_run(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    target = Store(tmp_path / "empty")
    share(store_of(pair[0]), target)
    shown = load_results(target, "small")
    assert not shown.failures()
    assert shown.manifest["cells"] == load_results(store_of(pair[0]), "small").manifest["cells"]


def test_a_page_gives_way_to_one_that_says_all_of_it_and_more(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    one, remote = store_of(pair[0]), Store(tmp_path / "remote")
    whole = one.read_run("small")
    assert whole is not None
    less = json.loads(json.dumps(whole))
    for cell in less["cells"][:2]:
        cell.update(status="missing")
    one.write_run("small", less)
    assert share(one, remote).moved["runs"] == 1
    one.write_run("small", whole)
    assert share(one, remote).moved["runs"] == 1
    assert remote.read_run("small") == whole
    one.write_run("small", less)
    assert share(one, remote).same["runs"] == 1
    assert remote.read_run("small") == whole


def test_what_a_report_needs_is_taken_and_nothing_else(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    """Also where the cells of a proof are named by what attacks have broken."""
    one, remote, mine = pair[0], Store(tmp_path / "remote"), Store(tmp_path / "mine")
    (one.root / "reports/proved.toml").write_text(
        'title = "t"\nmodels = ["small"]\nattacks = ["fgsm", "proof/exact", "moved"]\n'
        "images = 4\ndiagnostics = false\n"
    )
    workspace = open_workspace(one.root)
    run, _ = carry_out(workspace, "proved")
    assert run.plan.handed
    run.store.write_run("proved", describe(run, ""))
    share(store_of(one), remote)
    shared = Transferred()
    Sharing(remote, mine, shared, QUIET).carry(needed(workspace, "proved", mine, remote))
    assert not shared.absent
    assert set(shared.names) == {*results(mine)}
    assert mine.cells() == set(run.digests.values())
    assert {name for name in results(mine) if name[:5] == "runs/"} == {"runs/proved.json"}
    assert len(results(mine)) < len(results(remote))
    shutil.move(one.root / ".robench", tmp_path / "before")
    shutil.move(tmp_path / "mine", one.root / ".robench")
    assert carry_out(workspace, "proved")[1].done == []


def test_part_of_a_report_is_taken(pair: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    words = ("pull", str(pair[0].root / ".robench"), "small", "--only", "fgsm")
    done = robench_here(*words, "-w", str(pair[0].root), "--store", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    assert "models: 1 pulled, 0 already there\n" in done.stdout
    assert "cells: 1 pulled, 0 already there\n" in done.stdout
    assert done.stdout.endswith("sound\nnext: robench run small\n")


# -- contradictions --------------------------------------------------------------------------------


def plant(store: Store, cell: str, torch: str | None = None) -> str:
    """Other rows under the digest of a cell, whole and sealed; the digest of the rows."""
    outcome = store.read_cell(cell)
    correct = 1 - outcome.rows.column("correct").to_numpy()
    place = outcome.rows.column_names.index("correct")
    rows = outcome.rows.set_column(place, "correct", pa.array(correct, pa.float32()))
    provenance = json.loads(json.dumps(outcome.provenance))
    if torch is not None:
        provenance["environment"]["torch"] = torch
    store.files.remove(f"cells/{cell[:2]}/{cell}.parquet")
    other = Outcome(rows, outcome.identity, provenance)
    store.write_cell(cell, other)
    return other.digest


def plant_weights(store: Store, model: str) -> str:
    payload, metadata = store.read_model(model)
    state = {name: value + 1 for name, value in safetensors.torch.load(payload).items()}
    metadata["tensors"] = tensors_digest(safetensors.torch.save(state))
    store.files.remove(f"models/{model}.safetensors")
    said = {"robench": canonical(sealed(metadata))}
    store.write_model(model, safetensors.torch.save(state, said))
    return str(metadata["tensors"])


def test_contradictions_are_named_with_both_and_neither_is_lost(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    """On the way there and on the way back; a third person who pulls hears of it, too."""
    one, remote, third = store_of(pair[0]), Store(tmp_path / "remote"), Store(tmp_path / "third")
    share(one, remote)
    cell, model = Path(first(one, "cells")).stem, Path(first(one, "models")).stem
    theirs = {cell: one.read_cell(cell).digest, model: one.read_model(model)[1]["tensors"]}
    ours = {cell: plant(one, cell), model: plant_weights(one, model)}
    mine, before = results(one), results(remote)
    pushed = share(one, remote)
    assert not pushed.sound
    found = {c.item.key: (c.ours.content, c.theirs.content) for c in pushed.contradictions}
    assert found == {key: (theirs[key], ours[key]) for key in theirs}
    assert results(one) == mine
    after = results(remote)
    assert {name: after[name] for name in before} == before, "nothing is replaced"
    kept = {name: data for name, data in after.items() if name not in before}
    assert {name.split("/")[1] for name in kept} == {"cells", "models"}
    assert set(kept.values()) == {mine[c.item.name] for c in pushed.contradictions}
    pulled = share(remote, one)
    assert {c.item.key: (c.ours.content, c.theirs.content) for c in pulled.contradictions} == {
        key: (ours[key], theirs[key]) for key in theirs
    }
    assert {name: results(one)[name] for name in mine} == mine
    heard = share(remote, third)
    assert {c.item.key for c in heard.contradictions} == {cell, model}
    assert third.read_cell(cell).digest == theirs[cell]
    assert heard.left["small"].startswith("names 1 models and 1 cells that are not there")
    assert not check_store(third).damaged
    assert not check_store(remote).damaged


@pytest.mark.parametrize(
    ("torch", "said"),
    [(None, "the same bits were promised"), ("1.0", "other bits may be, since they were made on")],
)
def test_a_contradiction_says_whether_the_same_bits_were_promised(
    pair: tuple[Workspace, Workspace], tmp_path: Path, torch: str | None, said: str
) -> None:
    one, remote = store_of(pair[0]), tmp_path / "remote"
    words = (str(remote), "-w", str(pair[0].root))
    assert robench_here("push", *words).returncode == 0
    cell = Path(first(one, "cells")).stem
    ours, theirs = one.read_cell(cell).digest, plant(Store(remote), cell, torch)
    done = robench_here("pull", *words)
    assert done.returncode == 1
    assert f"contradiction: cell {cell[:12]} (small seed 0 x " in done.stdout
    assert f"  {ours[:12]}  rows in {one.url}" in done.stdout
    assert f"  {theirs[:12]}  rows in {remote}" in done.stdout
    assert said in done.stdout
    assert "nothing was replaced" in done.stdout
    assert "\n1 contradictions\n" in done.stdout
    threat = next(c["threat"] for c in load_results(one, "small").manifest["cells"]
                  if c["digest"] == cell)  # fmt: skip
    shown = robench_here("report", "small", "-w", str(pair[0].root))
    page = (pair[0].root / "reports/small/index.html").read_text()
    assert shown.returncode == 0, shown.stderr
    assert f"small: somebody else has other results of the same work: seed 0 x {threat};" in page


def test_equal_results_do_not_contradict_whatever_they_cost(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    """Seconds, dates and machines are no part of what is compared; the file that is there stays."""
    one, remote = store_of(pair[0]), Store(tmp_path / "remote")
    share(one, remote)
    cell = Path(first(one, "cells")).stem
    outcome = one.read_cell(cell)
    one.files.remove(f"cells/{cell[:2]}/{cell}.parquet")
    slower = {**outcome.provenance, "seconds": 1e6, "finished": "2020-01-01T00:00:00+00:00"}
    one.write_cell(cell, Outcome(outcome.rows, outcome.identity, slower))
    before = results(remote)
    assert share(one, remote).sound
    assert results(remote) == before


# -- what is not whole -----------------------------------------------------------------------------


@given(how=HOW, where=st.integers(0, 10**6), value=st.integers(0, 255), data=st.data())
def test_no_damaged_file_enters(
    two: tuple[Path, Path], how: str, where: int, value: int, data: st.DataObject
) -> None:
    """Whatever enters has the content that it had; all else is refused by name."""
    source, target = Store("memory://damaged"), Store("memory://whole")
    sound = results(Store(two[0] / ".robench"))
    try:
        name = data.draw(st.sampled_from(sorted(sound)))
        for other, content in sound.items():
            broken = damage(content, how, where, value) if other == name else content
            source.files.write(other, broken)
        shared = share(source, target)
        there = results(target)
        manifest = name.startswith("runs/")
        assert {n: d for n, d in there.items() if n != name and n[:5] != "runs/"} == {
            n: d for n, d in sound.items() if n != name and n[:5] != "runs/"
        }
        if name in there and not manifest:
            item = item_of(name)
            assert item is not None
            assert examined(item, there[name]) == examined(item, sound[name])
        else:
            assert name in there or list(shared.refused) == [name]
        assert not check_store(target).damaged
    finally:
        for store in ("/damaged", "/whole"):
            if fsspec.filesystem("memory").exists(store):
                fsspec.filesystem("memory").rm(store, recursive=True)


def test_what_is_damaged_where_it_goes_is_set_aside_and_taken_anew(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    one, remote = store_of(pair[0]), Store(tmp_path / "remote")
    share(one, remote)
    before = results(remote)
    for folder in ("cells", "models", "runs"):
        name = first(remote, folder)
        Path(remote.files.path(name)).write_bytes(before[name][:100])
    again = share(one, remote)
    assert again.moved == {"cells": 1, "models": 1, "runs": 1}
    assert results(remote) == before
    assert len(remote.files.sizes("damaged")) == 3


def test_what_is_damaged_here_is_not_pushed(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    one, remote = store_of(pair[0]), tmp_path / "remote"
    name = first(one, "cells")
    path = Path(one.files.path(name))
    path.write_bytes(path.read_bytes()[:-30])
    done = robench_here("push", str(remote), "-w", str(pair[0].root))
    assert done.returncode == 1
    assert f"refused: {name}: " in done.stdout
    assert "cells: 3 pushed" in done.stdout
    assert "the page of small names 1 cells that are not there: it was left" in done.stdout
    assert path.exists(), "what it is to become of it a run decides"


@pytest.mark.parametrize("what", ["columns", "rows", "tensors", "pickle", "huge", "pipe", "bomb"])
def test_what_is_sealed_and_no_result_is_refused(tmp_path: Path, what: str) -> None:
    """Whoever writes a file makes its seal: what a page or a run could not read stays outside."""
    source, target = Store(tmp_path / "source"), Store(tmp_path / "target")
    identity: dict[str, Any] = {"what": "cell", "slice": [0, 2]}
    name = digest(identity)
    columns = {
        "image": pa.array([0, 1], pa.int32()),
        "label": pa.array([0, 1], pa.int16()),
        "predictions": pa.array([[0], [1]], pa.list_(pa.int16())),
        "correct": pa.array([1, 1], pa.float32()),
    }
    match what:
        case "columns":
            columns["correct"] = pa.array(["yes", "no"])
        case "rows":
            columns = {key: column[:1] for key, column in columns.items()}
        case "bomb":
            columns["image"] = pa.array(np.zeros(10**7, np.int32))
            columns = {"image": columns["image"]}
    if what in ("columns", "rows", "bomb"):
        source.write_cell(name, Outcome(pa.table(columns), identity, {}))
    elif what == "pipe":
        (tmp_path / f"source/cells/{name[:2]}").mkdir(parents=True)
        os.mkfifo(tmp_path / f"source/cells/{name[:2]}/{name}.parquet")
    elif what == "huge":
        (tmp_path / f"source/cells/{name[:2]}").mkdir(parents=True)
        with (tmp_path / f"source/cells/{name[:2]}/{name}.parquet").open("wb") as file:
            file.truncate(2**40)
    else:
        header = {"w": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4]}}
        plain = json.dumps(header).encode()
        data = len(plain).to_bytes(8, "little") + plain + bytes(4)
        said = sealed({"identity": identity, "tensors": tensors_digest(data)})
        full = json.dumps({**header, "__metadata__": {"robench": canonical(said)}}).encode()
        whole = len(full).to_bytes(8, "little") + full + bytes(4)
        source.write_model(name, b"\x80\x04\x95" + whole if what == "pickle" else whole)
    shared = share(source, target)
    assert len(shared.refused) == 1, shared
    assert not target.cells()
    assert not target.files.sizes("models")


def test_names_of_strangers_lead_nowhere(pair: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    one = store_of(pair[0])
    cell = first(one, "cells")
    digest_, data = Path(cell).stem, one.files.read(cell)
    hostile = [
        f"cells/../{digest_}.parquet",
        f"cells/zz/{digest_}.parquet",
        f"cells/{digest_}.parquet",
        f"cells/{digest_[:2]}/{digest_.upper()}.parquet",
        f"cells/{digest_[:2]}/{digest_}.parquet\n",
        f"cells/{digest_[:2]}/x/{digest_}.parquet",
        "models/../../../escaped.safetensors",
        f"models/{digest_}.pkl",
        "runs/.hidden.json",
        "runs/../../escaped.json",
        "runs/con.json",
        "runs/a\x1b[31m.json",
        f"contradictions/cells/{digest_}.{'0' * 12}.safetensors",
        f"contradictions/runs/{digest_}.{'0' * 12}.json",
    ]
    assert [name for name in hostile if item_of(name) is not None] == []
    memory = fsspec.filesystem("memory")
    for name in hostile:
        memory.store.pop(f"/hostile/{name}", None)
        memory.pipe_file(f"/hostile/{name}", data)
    target = Store(tmp_path / "around/target")
    try:
        shared = share(Store("memory://hostile"), target)
    finally:
        memory.rm("/hostile", recursive=True)
    assert not shared.moved
    assert not list((tmp_path / "around").rglob("*"))
    assert all(line.isprintable() for line in shared.summary("pulled"))


def test_links_in_a_folder_of_strangers_are_not_gone_after(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    one = store_of(pair[0])
    root = Path(one.url)
    (root / "cells/loop").symlink_to(root)
    (root / "models/outside").symlink_to("/")
    assert share(one, Store(tmp_path / "target")).moved["cells"] == 4


def test_nothing_of_what_is_pulled_is_run(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    """Code, cards, leases and what runs leave for themselves stay where they are."""
    root = Path(store_of(pair[0]).url)
    for name in ("models/x.py", "attacks/x.toml", "seen/x.json", "leases/x.json", "failures/x"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("raise SystemExit")
    target = Store(tmp_path / "target")
    shared = share(Store(root), target)
    assert shared.strange == ["models/x.py"]
    assert {name.split("/")[0] for name in target.files.sizes()} <= {*FOLDERS}


# -- interrupted, at once, elsewhere ---------------------------------------------------------------

SLOW = """
import os, signal, sys
from robench.store import files
from robench.cli import main

left = int(sys.argv.pop(1))
before = os.fsync

def fsync(descriptor):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    before(descriptor)

os.fsync = fsync
main()
"""


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_killed_on_the_way_it_goes_on_where_it_was(
    pair: tuple[Workspace, Workspace], tmp_path: Path, verb: str
) -> None:
    """Killed in the middle of a file, before it has its name."""
    mine, other = Path(store_of(pair[0]).url), tmp_path / "other"
    if verb == "pull":
        mine, other = other, mine
    words = [verb, str(other), "-w", str(pair[0].root), "--store", str(mine)]
    done = subprocess.run(
        [sys.executable, "-c", SLOW, "6", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    target = Store(other if verb == "push" else mine)
    half = [name for name in target.files.sizes() if name.endswith(".tmp")]
    assert len(half) == 1
    assert not check_store(target).damaged
    there = sum(check_store(target).sound.values())
    assert 0 < there < 6
    again = robench_here(*words)
    assert again.returncode == 0, again.stderr
    counts = [int(line.split()[1]) for line in again.stdout.splitlines() if f"{verb}ed" in line]
    assert sum(counts) == 7 - there
    assert sum(check_store(target).sound.values()) == 6


def test_several_may_push_to_one_place_at_once(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    remote = tmp_path / "remote"
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "robench", "push", str(remote), "-w", str(workspace.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for workspace in (*pair, pair[0])
    ]
    for process in running:
        said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    names = {*results(store_of(pair[0])), *results(store_of(pair[1]))}
    assert {*results(Store(remote))} == names
    assert not check_store(Store(remote)).damaged
    assert not [name for name in Store(remote).files.sizes() if name.endswith(".tmp")]


def test_of_two_that_write_a_name_at_once_one_does_and_the_other_compares(
    pair: tuple[Workspace, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's file appears between the look and the writing: it stays, and is compared."""
    one, remote = store_of(pair[0]), Store(tmp_path / "remote")
    cell = Path(first(one, "cells")).stem
    (tmp_path / "another").mkdir()
    another = Store(tmp_path / "another")
    another.write_cell(cell, one.read_cell(cell))
    theirs = plant(another, cell)
    real, late = Files.exists, first(one, "cells")

    def too_early(files: Files, name: str) -> bool:
        found = real(files, name)
        if name == late and files is remote.files:
            shutil.copytree(tmp_path / "another", tmp_path / "remote", dirs_exist_ok=True)
        return found

    monkeypatch.setattr(Files, "exists", too_early)
    pushed = share(one, remote)
    assert [c.item.key for c in pushed.contradictions] == [cell]
    assert remote.read_cell(cell).digest == theirs


@pytest.fixture
def web(pair: tuple[Workspace, Workspace]) -> Iterator[str]:
    """The store of one of the two on a web server that lists its folders."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    serve = partial(Handler, directory=str(pair[0].root / ".robench"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_store_on_a_web_server_is_pulled_and_not_pushed_to(
    pair: tuple[Workspace, Workspace], web: str, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads web pages with it")
    mine = ("-w", str(pair[0].root), "--store", str(tmp_path / "mine"))
    done = robench_here("pull", web, *mine)
    assert done.returncode == 0, done.stderr
    assert results(Store(tmp_path / "mine")) == results(store_of(pair[0]))
    assert "cells: 0 pulled, 4 already there" in robench_here("pull", web, *mine).stdout
    pushed = robench_here("push", web, *mine)
    assert pushed.returncode == 2
    assert "web pages can only be read; push to a folder" in pushed.stderr


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nowhere://x", "pull nowhere://x: Protocol not known: nowhere"),
        ("ROOT/none", "holds no results of robench"),
        ("ROOT", "but .robench in it may be one: name that"),
        ("ROOT/.robench", "this is the store itself; name another one"),
    ],
)
def test_a_place_without_results_is_one_error(
    pair: tuple[Workspace, Workspace], url: str, said: str
) -> None:
    root = str(pair[0].root)
    done = robench_here("pull", url.replace("ROOT", root), "-w", root)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RobenchError, match=r"^push s3://bucket/x: .*; pip install s3fs$"):
        Files("s3://bucket/x", "push")


def test_a_place_that_cannot_be_written_is_one_error(
    pair: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    done = robench_here("push", str(tmp_path / "taken/x"), "-w", str(pair[0].root))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr or "Not a directory" in done.stderr


def test_only_goes_with_a_report(pair: tuple[Workspace, Workspace]) -> None:
    done = robench_here("pull", "memory://x", "--only", "x", "-w", str(pair[0].root))
    assert done.returncode == 2
    assert "--only: of a report: name one after the URL" in done.stderr


def test_pulling_imports_no_torch(pair: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    code = (
        "import sys; from robench.cli import main\n"
        "try:\n main()\nfinally:\n print('torch' in sys.modules)"
    )
    words = ["pull", str(pair[0].root / ".robench"), "-w", str(pair[0].root)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--store", str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.endswith("False\n"), done.stdout + done.stderr


def test_a_store_is_not_shared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match="the store itself"):
        check_stores(Store(tmp_path), Store(f"{tmp_path}/"), "pull x")
