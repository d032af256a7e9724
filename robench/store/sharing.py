"""Results of several people in one store: whatever one holds and another lacks is copied, checked
and whole, and nothing is ever replaced.

A file is named by what determines it, so that two stores that hold the same name hold the same
work. Where its content is other nevertheless, both are named and kept: what is there stays, what
comes lies beside it under `contradictions/`. What others wrote is read by parsers of JSON, Parquet
and safetensors only, and enters under a name that was put together here.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from robench.errors import RobenchError, cut, printable
from robench.store.files import NotRegular
from robench.store.manifest import done
from robench.store.seal import tensors_header, unsealed
from robench.store.store import Damaged, Store, key_of
from robench.store.store_files import (
    FOLDERS,
    LARGEST,
    RUNS,
    Said,
    StoreFile,
    checked_manifest,
    covers,
    examined,
    item_of,
)
from robench.store.transferred import Contradiction, Transferred

Found = TypeVar("Found")
FilesTold = Callable[[int, int, str], None]
"""Files that are done, how many there are as far as is known, which one."""
HEAD = 2**16
"""Bytes of a file of tensors in which its header mostly has room."""
AT_ONCE, LARGE_AT_ONCE = 8, 2
"""Files that are on their way at the same time between two machines: small ones, and tensors."""


def all_files(source: Store, shared: Transferred) -> Iterator[list[str]]:
    """The names of all results in a store, kind by kind; others are noted in `shared`."""
    for folder in FOLDERS:
        names = [name for name in source.files.sizes(folder) if not name.endswith(".tmp")]
        shared.strange += [name for name in names if item_of(name) is None]
        yield [name for name in names if item_of(name) is not None]


def check_stores(source: Store, target: Store, read: str) -> None:
    """Raises RobenchError where there is nothing to share, or nowhere to.

    Args:
        read: how the source was named.
    """
    one, other = (store.files for store in (source, target))
    if (type(one.fs), one.root.rstrip("/")) == (type(other.fs), other.root.rstrip("/")):
        raise RobenchError(f"{read}: this is the store itself; name another one")
    if "http" in str(other.fs.protocol):
        raise RobenchError(
            f"push {other.shown}: web pages can only be read; push to a folder, s3://, gs://, "
            "sftp://, or whatever else can be written"
        )
    folders = {part.rstrip("/").rsplit("/", 1)[-1] for part in _entries(one)}
    if folders & {"cells", RUNS} or ("models" in folders and "reports" not in folders):
        return  # a workspace has models/, too
    inside = " (but .robench in it may be one: name that)" if ".robench" in folders else ""
    unlisted = "; its server may not list folders" if "http" in str(one.fs.protocol) else ""
    raise RobenchError(
        f"{read}: holds no results of robench, which are in folders such as models/ and cells/"
        f"{inside}{unlisted}"
    )


def _entries(files: Any) -> list[str]:
    """What lies right under the root."""
    try:
        return [str(path) for path in files.fs.ls(files.root, detail=False)]
    except FileNotFoundError:
        return []
    except Exception as error:  # of as many kinds as there are file systems
        raise RobenchError(f"{files.shown}: cannot be read: {error}") from None


class Sharing:
    """Copies what `target` lacks of `source`. Files that are on their way when it ends leave
    nothing but a temporary name; doing it again goes on."""

    def __init__(self, source: Store, target: Store, shared: Transferred, told: FilesTold) -> None:
        self.source, self.target, self.shared, self._told = source, target, shared, told
        self._near = source.files.local and target.files.local
        self._lock = threading.Lock()
        self._there: dict[str, dict[str, int]] = {}
        self._done = self._known = 0

    def carry(self, batches: Iterable[list[str]]) -> None:
        """Share files by name, batch by batch: a batch is asked for when the one before is done.

        Raises RobenchError where a store cannot be read or written.
        """
        for batch in batches:
            items = [item for name in batch if (item := item_of(name)) is not None]
            self._known += len(items)
            large = [item for item in items if item.name.endswith(".safetensors")]
            small = [item for item in items if not item.name.endswith(".safetensors")]
            self._carry_all(large, 1 if self._near else LARGE_AT_ONCE)
            self._carry_all(small, 1 if self._near else AT_ONCE)

    def _carry_all(self, items: list[StoreFile], at_once: int) -> None:
        if at_once == 1:
            for item in items:
                self._carry(item)
            return
        pool = ThreadPoolExecutor(at_once)
        try:
            futures = [pool.submit(self._carry, item) for item in items]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _carry(self, item: StoreFile) -> None:
        folder = item.name.partition("/")[0]
        if item.kind == RUNS:
            self._manifest(item)
        elif item.content:
            self._against(item)
        elif item.name not in self._listed(self.source, folder):
            there = item.name in self._listed(self.target, folder)
            self._count(self.shared.same if there else self.shared.absent, item)
        elif item.name in self._listed(self.target, folder) and self._heads_equal(item):
            self._count(self.shared.same, item)
        elif (taken := self._taken(item, partial(examined, item))) is not None:
            self._put(item, *taken)
        with self._lock:
            self._done += 1
            self._told(self._done, self._known, item.name)

    def _listed(self, store: Store, folder: str) -> dict[str, int]:
        """Names and sizes of the files of a kind, as they were when they were first asked for."""
        key = f"{id(store)} {folder}"
        with self._lock:
            if key not in self._there:
                self._there[key] = store.files.sizes(folder)
            return self._there[key]

    def _count(self, what: Counter[str], item: StoreFile) -> None:
        with self._lock:
            what[item.name.partition("/")[0]] += 1

    def _wrote(self, item: StoreFile, name: str) -> None:
        self._count(self.shared.moved, item)
        self.shared.names.append(name)

    def _refuse(self, item: StoreFile, why: str) -> None:
        self.shared.refused[item.name] = cut(printable(why.split("\n")[0]), 300)

    # -- results -----------------------------------------------------------------------------------

    def _taken(
        self, item: StoreFile, parse: Callable[[bytes], Found]
    ) -> tuple[bytes, Found] | None:
        """A file of the source and what `parse` makes of it; None: it is not what its name says,
        and is refused."""
        size = self._listed(self.source, item.name.partition("/")[0]).get(item.name, 0)
        if size > LARGEST.get(item.kind, size):
            self._refuse(item, f"{size} bytes, more than {LARGEST[item.kind]}")
            return None
        try:
            data = self.source.files.read(item.name)
            return data, parse(data)
        except (FileNotFoundError, NotRegular) as error:
            self._refuse(item, str(error) if isinstance(error, NotRegular) else "is gone")
        except RobenchError as error:
            if item.name in str(error):  # the store cannot be read
                raise
            self._refuse(item, str(error))
        except MemoryError:
            self._refuse(item, "memory does not hold it")
        except Exception as error:  # whatever parsers make of a stranger's bytes
            self._refuse(item, str(error) or type(error).__name__)
        return None

    def _put(self, item: StoreFile, data: bytes, theirs: Said) -> None:
        for _ in range(2):
            if self.target.files.write_new(item.name, data):
                self._wrote(item, item.name)
                self.target.clear_failure(item.key)
                return
            try:
                ours = self.target.read(item.name, partial(examined, item))
            except (Damaged, FileNotFoundError) as error:  # it is set aside: there is room now
                why = str(error)
                continue
            if ours.content == theirs.content:
                self._count(self.shared.same, item)
            else:
                self._contradicts(item, data, ours, theirs)
            return
        self._refuse(item, f"what is there instead is no result: {why}")

    def _contradicts(self, item: StoreFile, data: bytes, ours: Said, theirs: Said) -> None:
        copy = StoreFile(item.kind, item.key, theirs.content[:12]).name
        if self.target.files.write_new(copy, data):
            self.shared.names.append(copy)
        with self._lock:
            self.shared.contradictions.append(Contradiction(item, ours, theirs, copy))

    def _against(self, item: StoreFile) -> None:
        """What somebody else has found to contradict a result: kept beside that, unless it is what
        is there."""
        taken = self._taken(item, partial(examined, item))
        if taken is None:
            return
        data, theirs = taken
        main = StoreFile(item.kind, item.key)
        try:
            ours = self.target.read(main.name, partial(examined, main))
        except (Damaged, FileNotFoundError):
            return  # nothing here that it contradicts
        if ours.content == theirs.content:
            self._count(self.shared.same, item)
        elif not any(
            (one.item.key, one.theirs.content) == (item.key, theirs.content)
            for one in self.shared.contradictions
        ):
            self._contradicts(main, data, ours, theirs)

    def _heads_equal(self, item: StoreFile) -> bool:
        """Whether two files of tensors say, under seal, that they hold the same ones: then neither
        is read whole."""
        if not item.name.endswith(".safetensors"):
            return False
        with suppress(ValueError, KeyError, TypeError, FileNotFoundError):
            ours, theirs = (_content_said(store, item) for store in (self.target, self.source))
            return ours == theirs
        return False

    # -- manifests ---------------------------------------------------------------------------------

    def _manifest(self, item: StoreFile) -> None:
        """Taken when all that it names is there, and where it says all that the one there says."""
        if item.name not in self._listed(self.source, RUNS):
            return
        taken = self._taken(item, lambda data: checked_manifest(data, item.key))
        if taken is None:
            return
        data, manifest = taken
        if lacking := self._lacking(manifest):
            self.shared.left[item.key] = f"names {lacking} that are not there: it was left"
            return
        try:
            there = self.target.read_run(item.key)
        except Damaged:  # and set aside
            there = None
        if there is None and self.target.files.write_new(item.name, data):
            self._wrote(item, item.name)
        elif there is None or covers(there, manifest):
            self._count(self.shared.same, item)
        elif covers(manifest, there):
            self.target.files.write(item.name, data)
            self._wrote(item, item.name)
        else:
            self.shared.left[item.key] = (
                f"is of other results here than there: it was left; robench run {item.key} makes "
                "it of all that is here"
            )

    def _lacking(self, manifest: Mapping[str, Any]) -> str:
        """What a manifest names as done and the target does not hold, in words."""
        named = done(manifest)
        other = {one.item.key for one in self.shared.contradictions}
        models = {*named["models"]} - ({*map(key_of, self.target.files.sizes("models"))} - other)
        cells = {*named["cells"]} - (self.target.cells() - other)
        counts = {"models": len(models), "cells": len(cells)}
        return " and ".join(f"{number} {what}" for what, number in counts.items() if number)


def _content_said(store: Store, item: StoreFile) -> str:
    """Digest of the tensors as the sealed header says. Raises ValueError, KeyError or TypeError."""
    data = store.files.head(item.name, HEAD)
    size = 8 + int.from_bytes(data[:8], "little")
    if HEAD < size < 2**30:
        data = store.files.head(item.name, size)
    header = tensors_header(data[:size])
    return str(unsealed(json.loads(header["__metadata__"]["robench"]))["tensors"])


def labels(*stores: Store) -> dict[str, str]:
    """What manifests of stores call their models and cells, by digest."""
    called: dict[str, str] = {}
    for store in stores:
        for name in store.files.sizes(RUNS):
            with suppress(Exception):  # it is only for words
                manifest = checked_manifest(store.files.read(name), name[5:-5])
                for model in manifest["models"]:
                    for seed in model["seeds"]:
                        called[str(seed["digest"])] = f"{model['name']} seed {seed['seed']}"
                for cell in manifest["cells"]:
                    where = f"{cell['model']} seed {cell['seed']} x {cell['threat']}"
                    called[str(cell["digest"])] = where
    return {key: cut(printable(label), 200) for key, label in called.items()}


def note_pulled(target: Store, source: Store, shared: Transferred) -> None:
    """Leave in the store where files of it came from: what their own records do not say."""
    if shared.names:
        now = datetime.now(UTC)
        said = {
            "from": source.files.shown,
            "when": now.isoformat(timespec="seconds"),
            "files": sorted(shared.names),
        }
        name = f"pulled/{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}.json"
        target.files.write(name, (json.dumps(said, indent=1) + "\n").encode())
