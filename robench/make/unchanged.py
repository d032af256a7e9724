"""Is all that a finished report was made from as it was when it was read? Then there is nothing to
do, and that is found out without reading it again, and without torch.

After a run that leaves nothing missing, `seen/` in the store says which files it believed: cells,
weights, the manifest, the page, every card, and whatever else was opened on the way, such as code
and data; of each what the system says of it (size, both times, inode), and a digest of its bytes.
As in the index of git, a file counts as unchanged while the system says so, where it had not been
written just before it was read; else its bytes are compared. What nobody can have written through
the system, such as a bit that has turned on the disk, is found by `robench fsck`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import source_from_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robench.errors import RobenchError
from robench.store.files import Files, NotRegular, Stamp, read_regular, stamp_of
from robench.workspace.folders import FOLDERS, Workspace

if TYPE_CHECKING:  # which needs pyarrow
    from robench.store.store import Store

FOLDER = "seen"
SETTLED = 2 * 10**9
"""Nanoseconds without a change before a file is read, from which on its times say that it is the
same: clocks of file systems are that coarse."""
SMALL = 2**20
"""Bytes up to which what was opened on the way is compared by its content, too."""
MOST = 50_000
"""Files that are opened on the way; where there are more, nothing is remembered."""
PYTHON = {Path(path) for path in sysconfig.get_paths().values()}
SITES = ("site-packages", "dist-packages")
SYSTEM = ("/proc/", "/sys/", "/dev/")


class Sight(NamedTuple):
    """A file as it was before it was read."""

    stamp: Stamp | None
    """None: there was none."""
    at: int
    """When that was, in nanoseconds."""
    digest: str | None = None
    """Of its bytes, or of the names in a folder; None: not known, as of a large file."""

    @property
    def settled(self) -> bool:
        return self.stamp is None or max(self.stamp[1:3]) + SETTLED < self.at


@dataclass(frozen=True)
class Asked:
    """A run as it is asked for."""

    workspace: Workspace
    report: str
    files: Files
    """Of the store."""
    folder: Path
    """Of the page."""
    command: str

    @property
    def place(self) -> str:
        """Where it is remembered."""
        said = json.dumps([str(self.workspace.root), self.report, str(self.folder.absolute())])
        return f"{FOLDER}/{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"

    def said(self) -> dict[str, Any]:
        """What has to be equal, beside files."""
        return {
            "robench": [version("robench"), _own_code()],
            "python": [sys.version, sys.path],
            "variables": {
                name: value
                for name, value in sorted(os.environ.items())
                if name.startswith(("ROBENCH", "PYTHON", "XDG_", "HOME"))
            },
            "store": self.files.url,
            "command": self.command,
            "cards": sorted(map(str, _declared(self.workspace))),
        }


class Found(NamedTuple):
    """A report of which nothing is missing or has changed."""

    models: int
    cells: int

    @property
    def line(self) -> str:
        """As a run says it that has looked at all of it."""
        return (
            f"models: 0 trained, {self.models} kept; "
            f"cells: 0 evaluated, {self.cells} kept, 0 without outcome"
        )


def look(asked: Asked) -> Found | None:
    """What there is to say of a run with nothing to do; None: look at all of it."""
    if not asked.files.local or sys.platform == "win32":  # where times say less
        return None
    try:
        known = _parse(asked.files.read(asked.place))
    except (FileNotFoundError, NotRegular, RobenchError, ValueError):
        return None
    if known.said != json.loads(json.dumps(asked.said())):
        return None
    now, changed = time.time_ns(), False
    bases = {"store": asked.files.root, "page": str(asked.folder.absolute()), "around": "/"}
    for base, sights in known.files.items():
        for name, sight in sights.items():
            path = os.path.join(bases[base], name)  # noqa: PTH118 (ten thousand of them)
            before = stamp_of(path)
            if before == sight.stamp and sight.settled:
                continue
            if before is None or sight.digest is None or _digest(path) != sight.digest:
                return None
            sights[name], changed = Sight(before, now, sight.digest), True
    if changed:
        _write(asked, known)
    return known.found


def _digest(path: str) -> str | None:
    """Of the bytes of a file, or of the names in a folder; None: of neither."""
    with suppress(OSError, ValueError):
        if os.path.isdir(path):  # noqa: PTH112
            names = sorted(os.listdir(path))  # noqa: PTH208 (their names alone)
            return hashlib.sha256("\0".join(names).encode()).hexdigest()
        return hashlib.sha256(read_regular(path)).hexdigest()
    return None


def _own_code() -> str:
    """Digest of robench itself: whatever else it makes, it makes by other code."""
    whole, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and "reference" not in path.parts:
            whole.update(str(path.relative_to(root)).encode() + b"\0")
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _declared(workspace: Workspace) -> Iterator[Path]:
    """Every card that patterns could find, and code beside them that could be imported."""
    yield from workspace.root.glob("*.py")
    for folder in FOLDERS:
        for suffix in ("toml", "py"):
            yield from (workspace.root / folder).rglob(f"*.{suffix}")
    if workspace.fallback is not None:
        yield from _declared(workspace.fallback)


class Known(NamedTuple):
    """What is remembered of a run."""

    said: dict[str, Any]
    found: Found
    files: dict[str, dict[str, Sight]]
    """By what they lie in: the store, the folder of the page, anything else; then by name."""


def _parse(data: bytes) -> Known:
    """Raises ValueError for what is not whole, or of another make."""
    digest, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError("its content does not match its digest")
    try:
        said, found, files = json.loads(text)
        sights = {
            base: {
                name: Sight(stamp and tuple(stamp), at, content)
                for name, (stamp, at, content) in files[base].items()
            }
            for base in ("store", "page", "around")
        }
        return Known(said, Found(*found), sights)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"of another make: {error}") from None


def _write(asked: Asked, known: Known) -> None:
    """Where that cannot be, all is read again the next time."""
    text = json.dumps(known, separators=(",", ":")).encode()
    with suppress(RobenchError, OSError):
        digest = hashlib.sha256(text).hexdigest().encode()
        asked.files.write(asked.place, digest + b"\n" + text, lasting=False)


# -- what a run looks at --------------------------------------------------------------------------


@dataclass
class Watch:
    """Notices which files this process opens while a report is made, and which folders it lists.

    Only a process that has made no report yet sees all of them: what is in its memory already is
    not opened again.
    """

    asked: Asked
    around: dict[str, Sight] = field(default_factory=dict)

    def begin(self) -> None:
        global _watching
        self.asked.files.sights = {}
        for card in _declared(self.asked.workspace):
            self.see(str(card))
        for folder in sys.path:  # what is installed or gone changes these
            if any(site in folder for site in SITES):
                self.see(folder)
        for named in filter(None, os.environ.get("ROBENCH_DATA", "").split(os.pathsep)):
            self.see(os.path.abspath(named))  # noqa: PTH100 (and where data is looked for first)
            for inside in sorted(Path(named).glob("*/")):
                self.see(str(inside.absolute()))
        if not _hooked:
            sys.addaudithook(_hear)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_look_away)
            _hooked.append(True)
        _watching = self

    def end(self) -> None:
        _look_away()

    def see(self, path: str) -> None:
        """Before it is read."""
        if path not in self.around and len(self.around) <= MOST:
            self.around[path] = Sight(stamp_of(path), time.time_ns())

    def opened(self, path: str) -> None:
        if path.endswith(".pyc"):
            with suppress(ValueError):
                path = source_from_cache(path)
        path = os.path.abspath(path)  # noqa: PTH100 (links are followed when it is looked at)
        if self._aside(path):
            return
        if not any(path.startswith(folder) for folder in self._declared):
            self.see(path)
            self.see(os.path.dirname(path))  # noqa: PTH120 (another in it may be taken instead)
        elif not os.path.isdir(path):  # noqa: PTH112 (what lies in these folders is compared)
            self.see(path)

    @cached_property
    def _declared(self) -> list[str]:
        here = self.asked.workspace
        roots = [here.root] if here.fallback is None else [here.root, here.fallback.root]
        return [str(root / folder) for root in roots for folder in FOLDERS]

    def _aside(self, path: str) -> bool:
        package = str(Path(__file__).parents[1])
        own = (self.asked.files.root, str(self.asked.folder.absolute()), package)
        return (
            path.startswith(SYSTEM)
            or any(site in path for site in SITES)
            or any(path == mine or path.startswith(f"{mine}{os.sep}") for mine in own)
            or any(path.startswith(f"{place}{os.sep}") for place in PYTHON)
        )

    def remember(
        self, manifest: Mapping[str, Any], store: Store, page: Mapping[str, bytes]
    ) -> None:
        """What a report was made from of which nothing is missing. Where anything of that is not
        known, nothing.

        Args:
            manifest: of the report.
            page: the files of its folder.
        """
        sights = self.asked.files.sights or {}
        models = {seed["digest"] for model in manifest["models"] for seed in model["seeds"]}
        cells = {cell["digest"] for cell in manifest["cells"]}
        needed = store.needed({"models": models, "cells": cells}, self.asked.report)
        needed += [name for name in sights if name.startswith(("models/", "images/"))]
        if len(self.around) > MOST or not all(name in sights for name in needed):
            return
        now = time.time_ns()
        folder = self.asked.folder
        of_page = {
            name: Sight(stamp_of(str(folder / name)), now, hashlib.sha256(data).hexdigest())
            for name, data in page.items()
        }
        if not all(_digest(str(folder / name)) == sight.digest for name, sight in of_page.items()):
            return
        around: dict[str, Sight] = {}
        for path, sight in self.around.items():
            if stamp_of(path) != sight.stamp:
                return  # it has been changed since
            around[path.lstrip("/")] = sight
            if sight.stamp and (stat.S_ISDIR(sight.stamp[4]) or sight.stamp[0] <= SMALL):
                digest = _digest(path)
                if stamp_of(path) != sight.stamp:
                    return
                around[path.lstrip("/")] = sight._replace(digest=digest)
        of_store = {name: Sight(*sights[name]) for name in needed}
        files = {"store": of_store, "page": of_page, "around": around}
        crafted = {t.get("surrogate") for t in manifest["threats"]} - {None}
        others = crafted - {model["name"] for model in manifest["models"]}
        seeds = sum(len(model["seeds"]) for model in manifest["models"])
        found = Found(seeds + len(others), len(manifest["cells"]))
        _write(self.asked, Known(self.asked.said(), found, files))


def watch(asked: Asked) -> Watch | None:
    """Begin to notice what a run looks at; None where that would not be all, or says too little."""
    if "robench.make.scheduler" in sys.modules or not asked.files.local or sys.platform == "win32":
        return None
    made = Watch(asked)
    made.begin()
    return made


_hooked: list[bool] = []
_watching: Watch | None = None


def _look_away() -> None:
    global _watching
    _watching = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None or event not in ("open", "os.listdir", "os.scandir"):
        return
    path = arguments[0]
    if event == "open" and (arguments[2] or 0) & os.O_ACCMODE == os.O_WRONLY:
        return
    if isinstance(path, (str, bytes)):
        _watching.opened(os.fsdecode(path))
