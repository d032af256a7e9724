"""Several runs on one store share its work: small files beside the results say who is at what.

    leases/<digest>.json    the run that makes that result
    leases/runs/<run>.json  that run lives: written anew every BEAT seconds

A lease saves work and decides nothing: results are written once, whoever makes them, so that one
that is lost, doubled or edited costs time and no result. The first to ask takes over what a run
held that is gone: its process is not there any more, or, on other machines, its file has not
changed for STALE seconds by the clock of whoever waits. Clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robench.errors import cut, printable
from robench.store.files import Files, NotRegular

BEAT, STALE = 5.0, 60.0
"""Seconds between two signs of life of a run, and without one until it counts as gone."""
LOOK = 0.5
"""Seconds between two looks at what other runs hold."""
FOLDER = "leases"


def _machine() -> str:
    """Where process numbers mean the same: name, boot and process namespace; empty: not known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    return ""


def _began(process: int) -> str | None:
    """When a process of this machine began, in ticks since boot; None: there is none, or one that
    has ended and is not yet waited for."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Leases:
    """What one run holds of the work on its store. Nothing is written before the first is taken.

    Args:
        note: told once where the store cannot keep two runs apart.
    """

    def __init__(self, files: Files, note: Callable[[str], None]) -> None:
        self._files, self._note = files, note
        self._run = uuid.uuid4().hex
        self._mine: set[str] = set()
        self._seen: dict[str, tuple[bytes, bytes, float]] = {}
        """Of others' leases: as it was, with its run's sign of life, and since when."""
        self._exclusive = True
        self._over = threading.Event()
        self._heart: threading.Thread | None = None
        self._beats = 0

    def holds(self, name: str) -> bool:
        return name in self._mine

    def take(self, name: str, what: str) -> bool:
        """Whether the work that makes `name` is this run's from now on; else another is at it.

        Raises RobenchError where the store cannot be written.
        """
        if name in self._mine or not self._files.shared:
            return True
        self._begin()
        path, said = f"{FOLDER}/{name}.json", self._says(task=what)
        if not self._create(path, said):
            there = self._read(path)
            if there is not None and not (self._gone(path, there) and self._clear(path, there)):
                return False
            if not self._create(path, said):
                return False
        self._mine.add(name)
        self._seen.pop(path, None)
        return True

    def holder(self, name: str) -> str:
        """Who is at it, for people."""
        about = _parsed(self._read(f"{FOLDER}/{name}.json"))
        host, process = (printable(str(about.get(key, "?"))) for key in ("host", "process"))
        return f"another run (host {cut(host, 100)}, process {cut(process, 20)})"

    def release(self, name: str) -> None:
        """The work is done, or given up."""
        if name in self._mine:
            self._mine.discard(name)
            path = f"{FOLDER}/{name}.json"
            if _parsed(self._read(path)).get("run") == self._run:  # else taken over, when asleep
                self._files.remove(path)

    def close(self) -> None:
        """Give up whatever is held."""
        self._over.set()
        if self._heart is not None:
            self._heart.join()
            for name in list(self._mine):
                self.release(name)
            self._files.remove(self._life)

    # -- signs of life -----------------------------------------------------------------------------

    @property
    def _life(self) -> str:
        return f"{FOLDER}/runs/{self._run}.json"

    def _says(self, **more: Any) -> bytes:
        process = os.getpid()
        said = {
            "run": self._run,
            "host": platform.node(),
            "machine": _machine(),
            "process": process,
            "began": _began(process),
            "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
        }
        return (json.dumps({**said, **more}) + "\n").encode()

    def _begin(self) -> None:
        if self._heart is not None:
            return
        self._forget_the_dead()
        self._exclusive = self._files.exclusive
        self._create(self._life, self._says(beat=0))
        if not self._exclusive or self._create(self._life, self._says(beat=0)):
            self._exclusive = False
            self._note(
                f"{self._files.shown}: this kind of store cannot be asked to create a file only "
                "where there is none: runs on it at the same time may do some work twice"
            )
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self._beats += 1
            with suppress(Exception):  # whoever writes a result will say what is wrong
                self._files.write(self._life, self._says(beat=self._beats), lasting=False)

    def _forget_the_dead(self) -> None:
        """Remove what runs left behind that died on this machine."""
        dead = set[str]()
        for run in list(self._files.names(f"{FOLDER}/runs", ".json")):
            about = _parsed(self._read(f"{FOLDER}/runs/{run}.json"))
            if _died_here(about) and about.get("run") == run:
                dead.add(run)
        if not dead:
            return
        for name in list(self._files.names(FOLDER, ".json")):
            path = f"{FOLDER}/{name}.json"
            there = self._read(path)
            if there is not None and _parsed(there).get("run") in dead:
                self._clear(path, there)
        for run in dead:
            self._files.remove(f"{FOLDER}/runs/{run}.json")

    # -- others ------------------------------------------------------------------------------------

    def _gone(self, path: str, there: bytes) -> bool:
        """Whether the run that holds a lease is."""
        about = _parsed(there)
        if _died_here(about):
            return True
        run = str(about.get("run"))
        life = self._read(f"{FOLDER}/runs/{run}.json") if re.fullmatch(r"\w{32}", run) else None
        seen, now = self._seen.get(path), time.monotonic()
        if seen is None or seen[:2] != (there, life or b""):
            self._seen[path] = there, life or b"", now
            return False
        return now - seen[2] > STALE

    def _clear(self, path: str, there: bytes) -> bool:
        """Take a lease away that is as it was when it was looked at; False: another was faster."""
        aside = f"{path}.{self._run}"
        try:
            self._files.move(path, aside)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if self._read(aside) != there:
            self._files.move_back(aside, path)
            return False
        self._files.remove(aside)
        return True

    def _read(self, path: str) -> bytes | None:
        """None: there is none. What is there and no file reads as nothing."""
        try:
            return self._files.read(path)
        except FileNotFoundError:
            return None
        except NotRegular:
            return b""

    def _create(self, path: str, data: bytes) -> bool:
        return self._files.create(path, data, exclusive=self._exclusive)


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        about = json.loads(data or b"{}")
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _died_here(about: dict[str, Any]) -> bool:
    """Whether a process of this machine held it that is not there any more."""
    machine, process = about.get("machine"), about.get("process")
    if not machine or machine != _machine() or type(process) is not int:
        return False
    return _began(process) != about.get("began")
