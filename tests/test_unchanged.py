"""With nothing to do a run reads nothing again, and whatever is other than it was is noticed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import robench, robench_here
from damaged_files import HOW, damage
from hypothesis import given
from hypothesis import strategies as st

from robench.make import unchanged
from robench.make.unchanged import Asked, Found, look
from robench.store.files import Files
from robench.store.fsck import check_store
from robench.store.store import Store
from robench.workspace.folders import FOLDERS, open_workspace

OWN = """
from robench import Attack
from .helpers import SIGMA

class Own(Attack):
    def perturb(self, target, x, y, rng):
        return target.ball.project(x + SIGMA, x)
"""
CARDS = {
    "models/small.toml": 'dataset = { name = "arrays", file = "DATA", split = "3:1:1" }\n'
    'network = { name = "mlp", hidden = [4] }\ntrainer = { name = "bp", epochs = 1 }\n',
    "attacks/own.py": OWN,
    "attacks/helpers.py": "SIGMA = 0.01\n",
    "attacks/own.toml": 'attack = "./own.py:Own"\naccess = "white-box"\neps = 0.1\n',
    "attacks/w1.toml": 'attack = "fgsm"\naccess = "white-box"\neps = 0.1\n',
    "corruptions/c.toml": 'corruption = { name = "imagenet-c", kinds = ["contrast"] }\n'
    "severities = [1]\n",
    "reports/small.toml": 'title = "t"\nmodels = ["*"]\nattacks = ["own", "w*"]\n'
    'corruptions = ["c"]\nimages = 20\ndiagnostics = false\n',
}
FOUND = Found(models=1, cells=4)


def data(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.random((200, 1, 4, 4), np.float32), "y": np.arange(200) % 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A run that has just ended, in a process of its own."""
    root = tmp_path_factory.mktemp("around") / "workspace"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    np.savez(root.parent / "data.npz", **data(0))
    for name, text in CARDS.items():
        (root / name).write_text(text.replace("DATA", str(root.parent / "data.npz")))
    done = robench("run", "small", "-j", "1", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "models: 1 trained, 0 kept; cells: 4 evaluated" in done.stderr
    return asked_in(root)


def asked_in(root: Path, **other: Any) -> Asked:
    made = {
        "workspace": open_workspace(root),
        "report": "small",
        "files": Files(str(root / ".robench")),
        "folder": root / "reports/small",
        "command": "robench run small -j 1",
    }
    return Asked(**(made | other))


@contextmanager
def as_before(*folders: Path) -> Iterator[None]:
    """What is changed in the block is put back."""
    kept = {path: path.read_bytes() for one in folders for path in one.rglob("*") if path.is_file()}
    try:
        yield
    finally:
        for one in folders:
            for path in [path for path in one.rglob("*") if path.is_file() or path.is_symlink()]:
                if path not in kept:
                    path.unlink()
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.write_bytes(content)


@pytest.fixture(autouse=True)
def _as_python_was(monkeypatch: pytest.MonkeyPatch, finished: Asked) -> None:
    """This process asks as the one that made the report did."""
    known = unchanged._parse(finished.files.read(finished.place))
    monkeypatch.setattr(sys, "path", known.said["python"][1])
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)


def flip(path: Path) -> None:
    """One bit, with the times as they were, as far as anybody can set them."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_to_do_is_found_out_without_reading_anything_again(
    finished: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(finished) == FOUND, "files that were just written are compared by their bytes"
    monkeypatch.setattr(unchanged, "SETTLED", -(10**18))
    read: list[str] = []
    original = Files.read
    monkeypatch.setattr(Files, "read", lambda f, name: read.append(name) or original(f, name))
    monkeypatch.setattr(unchanged, "read_regular", read.append)
    assert look(finished) == FOUND
    assert read == [finished.place], "all others by what the system says of them"


def test_the_command_line_says_the_same_and_imports_neither_torch_nor_arrow(
    finished: Asked,
) -> None:
    words = ("run", "small", "-j", "1")
    done = robench(*words, cwd=finished.workspace.root)
    line = "models: 0 trained, 1 kept; cells: 0 evaluated, 4 kept, 0 without outcome"
    assert done.stderr.strip() == line
    assert done.stdout.strip() == f"page: {finished.folder / 'index.html'}"
    again = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "robench", *words],
        cwd=finished.workspace.root,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {text.rpartition("|")[2].strip() for text in again.stderr.splitlines()}
    assert "robench.make.unchanged" in imported
    assert not imported & {"torch", "pyarrow", "numpy", "pandas", "robench.workspace.plugins"}


def one(folder: str, suffix: str) -> Callable[[Path], Path]:
    return lambda root: sorted((root / folder).rglob(f"*{suffix}"))[0]


FILES: dict[str, Callable[[Path], Path]] = {
    "a cell": one(".robench/cells", ".parquet"),
    "weights": one(".robench/models", ".safetensors"),
    "the manifest": one(".robench/runs", ".json"),
    "the page": lambda root: root / "reports/small/index.html",
    "published rows": lambda root: root / "reports/small/cells.parquet",
    "the table": lambda root: root / "reports/small/leaderboard.csv",
    "a model card": lambda root: root / "models/small.toml",
    "an attack card": lambda root: root / "attacks/w1.toml",
    "the report card": lambda root: root / "reports/small.toml",
    "a plugin": lambda root: root / "attacks/own.py",
    "what a plugin imports": lambda root: root / "attacks/helpers.py",
    "data": lambda root: root.parent / "data.npz",
}


@pytest.mark.rows(30)
@pytest.mark.parametrize("how", ["flipped", "gone", "empty", "a folder", "a link to another"])
@pytest.mark.parametrize("what", FILES)
def test_whatever_has_changed_is_noticed(finished: Asked, what: str, how: str) -> None:
    root = finished.workspace.root
    with as_before(root.parent):
        file = FILES[what](root)
        if how == "flipped":
            flip(file)
        elif how == "empty":
            file.write_bytes(b"")
        else:
            file.unlink()
            if how == "a folder":
                file.mkdir()
            elif how == "a link to another":
                file.symlink_to(root / "attacks/c.toml")
        assert look(finished) is None
        if how == "a folder":
            file.rmdir()
    assert look(finished) == FOUND, "as it was before"


ADDED = {
    "a card that a pattern finds": ("attacks/w2.toml", CARDS["attacks/w1.toml"]),
    "a model": ("models/other.toml", CARDS["models/small.toml"]),
    "a card that none finds": ("attacks/z.toml", CARDS["attacks/w1.toml"]),
    "code that may be imported instead": ("helpers.py", "SIGMA = 0.02\n"),
    "a package of that name": ("attacks/helpers/__init__.py", "SIGMA = 0.02\n"),
}


@pytest.mark.parametrize("what", ADDED)
def test_whatever_is_new_is_noticed(finished: Asked, what: str) -> None:
    root = finished.workspace.root
    name, text = ADDED[what]
    with as_before(root):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
        assert look(asked_in(root)) is None
    shutil.rmtree(root / "attacks/helpers", ignore_errors=True)
    assert look(finished) == FOUND


def test_another_question_is_another_run(finished: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    root = finished.workspace.root
    for other in (
        {"command": "robench run small"},
        {"folder": root / "elsewhere"},
        {"report": "other"},
        {"files": Files(str(root / "other-store"))},
    ):
        assert look(asked_in(root, **other)) is None
    monkeypatch.setenv("ROBENCH_DATA", "/elsewhere")
    assert look(finished) is None
    monkeypatch.undo()


def test_another_robench_looks_at_everything(
    finished: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "_own_code", lambda: "other")
    assert look(finished) is None


def test_what_was_only_touched_is_compared_and_remembered_anew(finished: Asked) -> None:
    for path in (*Path(finished.files.root).rglob("*.parquet"), finished.folder / "index.html"):
        os.utime(path)
    assert look(finished) == FOUND


@given(how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_a_damaged_memory_is_forgotten(finished: Asked, how: str, where: int, value: int) -> None:
    path = Path(finished.files.path(finished.place))
    good = path.read_bytes()
    try:
        path.write_bytes(damage(good, how, where, value))
        assert look(finished) in (None, FOUND)
        if path.read_bytes() != good:
            text = path.read_bytes().partition(b"\n")[2]
            assert look(finished) is None or text == good.partition(b"\n")[2]
    finally:
        path.write_bytes(good)


def test_a_memory_of_other_make_is_forgotten(finished: Asked) -> None:
    path = Path(finished.files.path(finished.place))
    good = path.read_bytes()
    try:
        for text in (b"[]", b"{}", b"7", b'{"said": 1}', b"[1,2,3]", b'[{},[1,2],{"store":[]}]'):
            path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            assert look(finished) is None
    finally:
        path.write_bytes(good)


def test_a_changed_file_is_looked_at_by_the_run_and_made_again(finished: Asked) -> None:
    root = finished.workspace.root
    file = FILES["a cell"](root)
    file.write_bytes(file.read_bytes()[:-9])
    done = robench("run", "small", "-j", "1", cwd=root)
    assert "cells: 1 evaluated, 3 kept" in done.stderr
    assert "set aside" in done.stderr
    shutil.rmtree(root / ".robench/damaged")
    assert look(finished) == FOUND


def test_an_incomplete_report_is_not_remembered(finished: Asked) -> None:
    root = finished.workspace.root
    with as_before(root):
        (root / "attacks/own.py").write_text(OWN.replace("return", "raise ValueError(x) or"))
        done = robench_here("run", "small", "-j", "1", cwd=root)
        assert done.returncode == 1
        assert "1 without outcome" in done.stderr
        assert look(finished) is None


def test_fsck_lists_what_is_remembered_apart(finished: Asked) -> None:
    found = check_store(Store(finished.files.root))
    assert not found.damaged
    assert [what for what in found.left if "found as it was written" in what]
