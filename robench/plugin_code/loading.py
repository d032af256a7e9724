"""Code of a workspace: its Python files are read once in a process, and what runs is compiled from
the very bytes that were hashed. Files of the workspace that are opened meanwhile are noticed.

Not noticed is what compiled code opens by itself, and what lies outside the workspace.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import linecache
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_read: dict[Path, bytes] = {}
"""Python files as this process has read them."""
_signatures: dict[Path, tuple[int, int, int]] = {}
opened_by: dict[Path, set[Path]] = {}
"""Which files of its workspace a module opened while it was imported."""
_roots: set[str] = set()
"""Workspaces in use, with a slash at the end."""
_opened: list[str] = []
"""Files of workspaces that were opened for reading, while somebody wants to know."""
_depth = {"still": 0, "listening": 0}
on_change: list[Callable[[], None]] = []
"""Called when files have changed: what was made of them is to be forgotten."""


# -- reading, once ---------------------------------------------------------------------------------


def source(path: Path) -> bytes:
    """A Python file as this process read it first."""
    if path not in _read:
        _signatures[path] = signature(path)
        _read[path] = path.read_bytes()
    return _read[path]


def signature(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, -1, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


def _differs(path: Path) -> bool:
    """Whether a file that was read has other bytes now."""
    now = signature(path)
    if now == _signatures[path]:
        return False
    try:
        same = path.read_bytes() == _read[path]
    except OSError:
        same = False
    if same:
        _signatures[path] = now
    return not same


@contextmanager
def held_still() -> Iterator[None]:
    """Inside the block code stays as it was at its beginning, whatever becomes of its files."""
    refresh()
    _depth["still"] += 1
    try:
        yield
    finally:
        _depth["still"] -= 1


def refresh() -> None:
    """Have the code of workspaces imported anew of which a file has changed since it was read."""
    for root in [] if _depth["still"] else _roots:
        mine = [path for path in _read if str(path).startswith(root)]
        if any(_differs(path) for path in mine):
            for path in mine:
                del _read[path], _signatures[path]
                opened_by.pop(path, None)
            for name, module in list(sys.modules.items()):
                if isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _Loader):
                    del sys.modules[name]
            importlib.invalidate_caches()
            for forget in on_change:
                forget()


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the very bytes that were hashed."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = Path(self.path)
        code: types.CodeType = compile(source(path), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: types.ModuleType) -> None:
        noticed = Noticed()
        noticed.start()
        try:
            super().exec_module(module)
        finally:
            opened_by.setdefault(Path(self.path), set()).update(noticed.stop())


class _Finder:
    """Finds modules of workspaces, under their private names and those that `sys.path` gives."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        file = os.path.realpath(spec.loader.path)
        if not of_workspace(file):
            return None
        spec.loader = _Loader(spec.loader.name, file)
        return spec


def watch(root: Path) -> None:
    """Load code under `root` from what is read once, and notice what is opened there."""
    if not _roots:
        sys.meta_path.insert(0, _Finder)
        sys.addaudithook(_hear)
    _roots.add(f"{root}{os.sep}")


def of_workspace(file: str) -> bool:
    """Whether a file lies in a workspace in use, but not in an environment of packages in it."""
    root = next((root for root in _roots if file.startswith(root)), None)
    if root is None or "site-packages" in file or "dist-packages" in file:
        return False
    elsewhere = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))
    return not any(f"{own}{os.sep}".startswith(root) and file.startswith(own) for own in elsewhere)


# -- opened files ----------------------------------------------------------------------------------


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _depth["listening"]:
        return
    path, _, flags = arguments
    if isinstance(path, (str, bytes)) and (flags or 0) & os.O_ACCMODE != os.O_WRONLY:
        whole = os.path.realpath(os.fsdecode(path))
        if of_workspace(whole) and not (whole.endswith(".py") and _for_a_traceback()):
            _opened.append(whole)


def _for_a_traceback() -> bool:
    """Whether the lines of a stack are being looked up, as torch.manual_seed does where no GPU is
    at work, and whatever warns."""
    frame = sys._getframe(2)
    for _ in range(3):  # through tokenize.open
        if frame is None or frame.f_globals is vars(linecache):
            return frame is not None
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Noticed:
    """Which files of workspaces are opened for reading between `start` and `stop`."""

    def start(self) -> None:
        _depth["listening"] += 1
        self._from = len(_opened)

    def stop(self) -> set[Path]:
        opened = {_meant(path) for path in _opened[self._from :]}
        _depth["listening"] -= 1
        if not _depth["listening"]:
            _opened.clear()
        return {path for path in opened if path.is_file()}


def _meant(path: str) -> Path:
    """The file itself; for one that Python has compiled, its source."""
    if path.endswith(".pyc"):
        with suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return Path(path).resolve()


def shown(file: Path) -> str:
    """A file as errors name it: within its workspace, where it lies in one."""
    root = next((root for root in _roots if str(file).startswith(root)), "")
    return str(file).removeprefix(root)
