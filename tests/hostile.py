"""What inputs from strangers are tried with: values of any kind, a change at any place of a nested
value, the one rule (it works, or one clear error is raised; nothing else is touched), and places
where it is tried: a home and a workspace that are watched.

The fixtures `alone` and `workspace` are for the files test_hostile_*.py, which name them.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pooch
import pytest
import safetensors.torch
import torch
from factory import FACTORY
from hypothesis import strategies as st

from robench.checks import cards as check
from robench.errors import RobenchError
from robench.make.run_state import Run, open_run, survey
from robench.store.store import Store
from robench.workspace.folders import FOLDERS, Workspace, open_workspace
from robench.workspace.plan import make_plan

SECONDS = 20
"""Until an example counts as hanging; none takes a second on a machine at rest."""
ROOM = 3 * 2**30
"""Bytes that an example may ask for beside what the process has: no bomb goes off unnoticed."""
LONGEST = 2001
"""Characters of an error, which quotes names of any length."""
Made = TypeVar("Made")
Place = tuple[Any, ...]


class Hangs(BaseException):
    """An example has run past SECONDS. Not an Exception, so that nothing takes it for its own."""


# -- the rule --------------------------------------------------------------------------------------


class Watch:
    """Notes every path that this process opens, makes, moves or removes while it is on.

    What compiled code opens is not seen; a snapshot of the folder around sees what that writes.
    """

    EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link")

    def __init__(self) -> None:
        self.on = self.hears = False
        self.read: list[str] = []
        self.written: list[str] = []

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event not in self.EVENTS or not isinstance(arguments[0], (str, bytes)):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 (links are kept)
        writes = event != "open" or bool(
            (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        )
        (self.written if writes else self.read).append(path)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self.hears:  # none before it is needed: one that is there cannot be taken away,
            sys.addaudithook(self._hear)  # and is told of each look at a function's code
            self.hears = True
        self.read, self.written, self.on = [], [], True
        try:
            yield
        finally:
            self.on = False


watch = Watch()


@contextmanager
def bounded() -> Iterator[None]:
    """Within SECONDS and ROOM."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"still at work after {SECONDS} s")

    used = int(re.findall(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, hangs)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def works_or_says(act: Callable[[], Made], named: str = "") -> Made | None:
    """What `act` returns; None where it raised one clear error.

    Args:
        named: pattern of what the error must name: a file, a key, a value.

    Any other exception passes on, and so fails the test.
    """
    with bounded():
        try:
            return act()
        except RobenchError as error:
            said = str(error)
    lines = said.split("\n")
    assert 1 <= len(lines) <= 2, said
    assert all(line.strip() and line.isprintable() for line in lines), ascii(said)
    assert len(said) <= LONGEST, said
    assert re.search(named, said), said
    return None


def snapshot(folder: Path, *beside: str) -> dict[str, Any]:
    """Every file under `folder` with its content, but for what lies under the names in `beside`."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not str(path.relative_to(folder)).startswith(beside)
    }


# -- values ----------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x00", "a\nb", "'\"\\", "\u202e", "é" * 300, "*", "[", "{0}", "%s", "../x"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([-1, 0, 1, 5, 10**6, 2**31, 2**63, 10**400, -(10**400)]),
    st.floats(),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 1e308, 5e-324]),
)


def nested(*leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.one_of(*leaves),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)
        ),
        max_leaves=5,
    )


MOMENTS = st.one_of(st.dates(), st.times(), st.datetimes())
TOML = nested(TEXTS, NUMBERS, st.booleans(), MOMENTS)
JSON = nested(TEXTS, NUMBERS, st.booleans(), st.none())


class Written(str):
    """A value as it stands in a TOML file."""


ODDLY_WRITTEN = st.sampled_from(
    ["0x" + "f" * 5000, "9" * 5000, "1e400", "-nan", "[" * 2000 + "]" * 2000, "'''\n\n'''"]
).map(Written)


def toml(value: Any) -> str:
    """A value as TOML writes it, tables inline."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return repr(value)


def card_text(card: dict[str, Any]) -> str:
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in card.items())


# -- changes ---------------------------------------------------------------------------------------


def places(tree: Any, way: Place = ()) -> Iterator[Place]:
    """Where in a nested value something stands."""
    if way:
        yield way
    inside = tree.items() if isinstance(tree, dict) else ()
    for key, item in enumerate(tree) if isinstance(tree, list) else inside:
        yield from places(item, (*way, key))


@st.composite
def changed(draw: st.DrawFn, tree: Any, values: st.SearchStrategy[Any]) -> Any:
    """`tree` with one to three things in it removed, added or replaced, at any depth."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        there = list(places(tree))
        if not there:
            return tree
        *way, last = draw(st.sampled_from(there))
        around = tree
        for key in way:
            around = around[key]
        match draw(st.sampled_from(["removed", "added", "replaced", "replaced"])):
            case "removed":
                del around[last]
            case "added" if isinstance(around, dict):
                around[draw(TEXTS)] = draw(values)
            case "added":
                around.append(draw(values))
            case _:
                around[last] = draw(values)
    return tree


# -- places where it is tried ----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, no data but what a test puts there, and a home and a place to stand in that are
    watched."""

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    for name in ("data", "home", "here", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    """`files` and nothing else."""
    shutil.rmtree(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def png_header(width: int, height: int) -> bytes:
    """A picture of any size that holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


# -- a workspace -----------------------------------------------------------------------------------

DIGITS = {"name": "digits", "split": "6:1:3", "split_seed": 0}
CARDS: dict[str, dict[str, Any]] = {
    "models/small": {
        "description": "small",
        "dataset": DIGITS,
        "network": {"name": "mlp", "hidden": [8], "activation": "relu"},
        "trainer": {"name": "bp", "epochs": 1, "lr": 0.01},
        "seeds": [0, 1],
        "inference_noise": False,
        "published": {"clean": 0.9},
    },
    "models/given": {
        "dataset": DIGITS,
        "network": {
            "name": "module",
            "factory": "./net.py:make",
            "arguments": {"hidden": 20},
            "mean": [0.1],
        },
        "trainer": {"name": "given", "weights": "net.safetensors"},
    },
    "models/spiking": {
        "dataset": DIGITS,
        "network": {"name": "snn", "hidden": [8]},
        "trainer": {"name": "nit", "epochs": 1},
    },
    "attacks/near": {
        "attack": {"name": "pgd", "steps": 2},
        "access": "white-box",
        "eps": [0.1, 0.2],
    },
    "attacks/moved": {
        "attack": "fgsm",
        "access": "transfer",
        "surrogate": "small",
        "norm": "linf",
        "eps": 0.1,
        "max_queries": 10,
        "time_limit": 1.5,
        "role": "attack",
    },
    "corruptions/noisy": {
        "corruption": {"name": "imagenet-c", "kinds": ["fog", "contrast"]},
        "severities": [1, 5],
    },
    "reports/all": {
        "title": "All",
        "models": ["small", "given", "spiking"],
        "attacks": ["near", "moved", "noise"],
        "transfer": ["fgsm"],
        "corruptions": ["noisy"],
        "images": 20,
        "draws": 2,
        "batch_size": 10,
        "seed": 0,
        "diagnostics": True,
        "baselines": ["small"],
        "claims": [
            {
                "text": "t",
                "model": "small",
                "than": "given",
                "threat": "clean",
                "published": [0.5, 0.4],
                "control": "spiking",
            }
        ],
    },
}
A_CARD = r"(models|attacks|corruptions|reports)/"
"""What errors about cards name: the file of one."""
MAY_APPEAR = ("work/.robench", "work/models/__pycache__", "home/.art")
"""The store, what Python compiles, and what the library ART notes when it is imported."""


@pytest.fixture
def workspace(alone: Path) -> Iterator[Workspace]:
    """A workspace with a card of every kind, and files of code and weights beside them; what lies
    around it stays as it was."""
    root = alone / "work"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "models/net.py").write_text(FACTORY)
    weights = {"1.weight": (20, 64), "1.bias": (20,), "3.weight": (10, 20), "3.bias": (10,)}
    tensors = {name: torch.zeros(shape) for name, shape in weights.items()}
    safetensors.torch.save_file(tensors, root / "models/net.safetensors")
    write_cards(root)
    before = snapshot(alone, *MAY_APPEAR)
    yield open_workspace(root)
    write_cards(root)
    assert snapshot(alone, *MAY_APPEAR) == before


def write_cards(root: Path) -> None:
    for name, card in CARDS.items():
        (root / f"{name}.toml").write_text(card_text(card))


def looked_at(workspace: Workspace, report: str = "all") -> Run:
    """All that is done with cards before the work starts."""
    for folder in FOLDERS:
        for name in workspace.names(folder):
            check._card(workspace, folder, name)
    run = open_run(make_plan(workspace, report), Store(workspace.root / ".robench"), "cpu")
    survey(run)
    run.weights = {training: training.label for training in run.plan.trainings}  # as if trained
    for cell in run.plan.cells:
        run.identify(cell)
    return run
