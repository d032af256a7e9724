"""A watch around every call of a plugin: what it changed in the process is put back, and the call
fails by the plugin's name and by what it changed.

    with guarded("attack 'mine' (attacks/mine.toml)", seed, network):
        x_adv = attack.perturb(...)

Global random states are seeded for the call and put back after it, so that numbers drawn from them
depend on the call alone.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.plugin_code.freed_memory import give_back
from robench.plugin_code.leftovers import OF_IMPORTS, WATCHED, keep_streams
from robench.plugin_code.loading import Noticed, shown
from robench.plugin_code.originals import Originals
from robench.plugin_code.watched_weights import NAMED, Shown

LEFT_MB = 1024
"""MB that calls of plugins may add to a process, all together, until it is renewed."""
LEFT_OPEN = 64
"""Files that they may leave open."""
SEED = 2**31

worn: str | None = None
"""Why this process is to be renewed; None: it may go on. pool.py does it."""
_originals = Originals()
_left = {"memory": 0.0, "files": 0}
_first = float("inf")
"""MB that this process had at least when a plugin was called."""
_around = 0
"""Watches over plugins from outside that are open in this process."""


class Meddled(RobenchError):
    """A plugin has changed what is not its own; it has been put back."""


@dataclass(frozen=True)
class AtWork:
    """Plugins that work together.

    who: as errors name them. own: whether all are robench's own. files: of a workspace, what their
    identity covers; None: whatever they read. aside: a folder that is theirs to read and write.
    """

    who: str
    own: bool = False
    files: frozenset[Path] | None = None
    aside: Path | None = None


class guarded:  # noqa: N801 (a context manager, written as one)
    """Puts back whatever the block changed in the process.

    Args:
        work: the plugins that are called, or the one, as errors name it. Those of robench's own
            replace no functions and leave nothing open, and looking for that takes the longest.
        seed: of torch's, numpy's and Python's global random states inside the block; None: they
            are left to it.
        network: what the plugin is shown; its weights, layers and hooks stay as they are.

    A watch inside another leaves what takes the longest, replaced functions and what is left open,
    to the outer one: many short calls of the same plugins cost little within one watch.

    Raises RobenchError at the end of the block, naming the plugin and what it changed; where an
    exception leaves the block, that one goes on.
    """

    def __init__(
        self, work: AtWork | str, seed: int | None = 0, network: nn.Module | None = None
    ) -> None:
        self._work = work if isinstance(work, AtWork) else AtWork(work)
        self._who, self._seed, self._network = self._work.who, seed, network

    def __enter__(self) -> None:
        keep_streams()
        self._process = os.getpid()
        self._modules = len(sys.modules)
        whole = not (self._work.own or _around)
        self._usage = _usage() if whole else None
        self._originals = _originals.snapshot() if whole else None
        self._before = [watched.read() for watched in WATCHED]
        self._shown = None if self._network is None else Shown(self._network, self._who)
        self._random = None if self._seed is None else _seeded(self._seed)
        self._noticed = None if self._work.files is None else Noticed()
        if self._noticed is not None:
            self._noticed.start()
        _count(+1 if not self._work.own else 0)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if os.getpid() != self._process:
            os._exit(1)  # a copy that the plugin has made of it: its work is another's
        _count(-1 if not self._work.own else 0)
        opened = self._noticed.stop() if self._noticed is not None else set()
        # First, since what follows uses them.
        imported = len(sys.modules) != self._modules
        replaced = self._originals.put_back(imported) if self._originals else []
        if self._random is not None:
            _restore_random(self._random)
        changed = [f"replaces {', '.join(replaced[:NAMED])}"] if replaced else []
        if self._shown is not None and (seen := self._shown.changes()):
            changed.append(f"changes the network that it is shown: {seen}")
        changed += self._put_back()
        unnamed = self._unnamed(opened)
        if unnamed:
            changed.append(
                f"reads {', '.join(unnamed[:NAMED])}, which no identity covers: name it on the "
                "class, as in files = ['table.npy']"
            )
        if self._usage is not None:
            _note_usage(self._who, self._usage)
        if changed and kind is None:
            raise Meddled(
                f"{self._who} {'; '.join(changed[:NAMED])}"
                + ("" if unnamed else "; a plugin leaves the process as it was")
            )

    def _unnamed(self, opened: set[Path]) -> list[str]:
        """Files that were read although no identity covers them."""
        aside = self._work.aside
        covered = self._work.files or frozenset()
        return sorted(
            shown(path)
            for path in opened - covered
            if aside is None or not path.is_relative_to(aside)
        )

    def _put_back(self) -> list[str]:
        """Restore whatever is not as it was; what that is."""
        changed = []
        imported = len(sys.modules) != self._modules
        for watched, before in zip(WATCHED, self._before, strict=True):
            now = watched.read()
            if now == before:
                continue
            said = f"changes {watched.name} {watched.detail(before, now)}".rstrip()
            try:
                watched.restore(before)
            except Exception as error:
                wear(f"{self._who} {said}, which cannot be put back: {error}")
            if not (imported and watched.name in OF_IMPORTS):
                changed.append(said)
        return changed


def watched(
    work: AtWork, seed: int | None, network: nn.Module | None = None
) -> AbstractContextManager[None]:
    """`guarded`, where plugins from outside are called: robench's own networks leave all as it was
    (tested), and looking costs as much as they."""
    return nullcontext() if work.own else guarded(work, seed, network)


def _count(more: int) -> None:
    global _around
    _around += more


def wear(why: str) -> None:
    """Have this process renewed."""
    global worn
    worn = worn or why


# -- random states ---------------------------------------------------------------------------------

_numpy = np.random.MT19937(0)
"""What numpy's global functions draw from inside a guard."""
_Random = tuple[Any, Tensor, Any, "dict[int, Tensor]"]


def _seeded(seed: int) -> _Random:
    """Seed the global random states; what they were."""
    before = (
        random.getstate(),
        torch.get_rng_state(),
        np.random.get_bit_generator(),  # type: ignore[attr-defined]
        _cuda_states(),
    )
    number = seed % SEED
    random.seed(number)
    torch.default_generator.manual_seed(number)
    # A generator of its own: reading the state of numpy's costs more than the rest together.
    inner = before[2] is _numpy
    np.random.set_bit_generator(  # type: ignore[attr-defined]
        np.random.MT19937(number) if inner else _numpy
    )
    np.random.seed(number)
    for device in before[3]:
        torch.cuda.default_generators[device].manual_seed(number)
    return before


def _restore_random(before: _Random) -> None:
    random.setstate(before[0])
    torch.set_rng_state(before[1])
    np.random.set_bit_generator(before[2])  # type: ignore[attr-defined]
    for device, state in before[3].items():
        torch.cuda.default_generators[device].set_state(state)


def _cuda_states() -> dict[int, Tensor]:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    return {i: g.get_state() for i, g in enumerate(torch.cuda.default_generators)}


# -- growth ----------------------------------------------------------------------------------------


def _usage() -> tuple[float, int, int]:
    """Memory in MB, open files, threads."""
    memory, files = 0.0, 0
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (a device file)
            memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return memory, files, threading.active_count()


def _note_usage(who: str, before: tuple[float, int, int]) -> None:
    global _first
    _first = min(_first, before[0])
    memory, files, threads = _usage()
    _left["memory"] = max(0.0, _left["memory"] + memory - before[0])
    _left["files"] = max(0, _left["files"] + files - before[1])
    if _left["memory"] > LEFT_MB:
        # What was freed and is used again counts as added: what lies there now is what was left.
        give_back()
        _left["memory"] = min(_left["memory"], max(0.0, _usage()[0] - _first))
    if _left["memory"] > LEFT_MB:
        wear(f"{who} has left {_left['memory']:.0f} MB of memory in use")
    if _left["files"] > LEFT_OPEN:
        wear(f"{who} has left {_left['files']} files open")
    if threads > before[2]:
        wear(f"{who} has left a thread running")
