"""Write-once results, read by anyone.

    models/<digest>.safetensors   weights; card, training curves and provenance in the metadata
    inputs/<digest>.safetensors   perturbed inputs that several models share (corrupted test sets,
                                  examples crafted on a surrogate)
    cells/ab/<digest>.parquet     one row per image; identity and provenance in the metadata
    images/ab/<digest>.safetensors  what an attack made of the images of the cell of that name,
                                  where that was asked for (adversarial.py)
    batches/<digest>.safetensors  what an attack made of single batches of a cell that is not there
                                  yet (make/batches.py)
    failures/<digest>.json        what went wrong, for people; not a result
    scratch/<digest>/             what a training that is stopped finds again; gone when it is done
    runs/<report>.json            which of the above a report is made of
    contradictions/KIND/<digest>.<content>.SUFFIX  what somebody else has under a digest that has
                                  other content here (sharing.py)
    seen/<digest>.json            what a finished report was made from (unchanged.py); not a result
    leases/<digest>.json          which run is at it (leases.py); not a result

A file is written under a temporary name and renamed, and never edited. One that does not match its
own digest is set aside under `damaged/` and made again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from robench.digest import digest
from robench.errors import RobenchError, system_words
from robench.store.files import Content, Files, NotRegular
from robench.store.seal import (
    SEAL,
    check_room,
    rows_digest,
    rows_match,
    sealed,
    tensors_digest,
    tensors_header,
    unsealed,
)

Read = TypeVar("Read")
Kind = Literal["models", "inputs", "cells", "images"]
FILES: dict[Kind, str] = {
    "models": "models/{0}.safetensors",
    "inputs": "inputs/{0}.safetensors",
    "cells": "cells/{0:.2}/{0}.parquet",
    "images": "images/{0:.2}/{0}.safetensors",
}
"""The name of a result's file by its kind, from its digest."""
METADATA_KEY = b"robench"
FIRST, UNSEALED = 1, "unsealed"
"""Schema of the manifests of before there were seals, and the key that marks them from then on."""
LEAN: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,  # parquet has all of these types itself
}
"""How a small table of few rows is written: what helps to search large ones costs more than it
saves."""


class Damaged(Exception):
    """A stored file that does not match its own digest; it has been set aside."""


@dataclass(frozen=True)
class Outcome:
    """What a cell yields: one row per image, with the identity and provenance of its making."""

    rows: pa.Table
    identity: dict[str, Any]
    provenance: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Of the rows alone: equal for equal results, whoever made them."""
        return rows_digest(self.rows)


class Store:
    """Results under a local folder or any fsspec URL.

    Clocks play no part: a file is known by its name, and believed when its content fits it.
    """

    def __init__(self, url: str | Path | Files) -> None:
        self.files = url if isinstance(url, Files) else Files(str(url))
        self.url = self.files.url

    def has(self, kind: Kind, digest: str) -> bool:
        return self.files.exists(file_of(kind, digest))

    @staticmethod
    def needed(digests: Mapping[Kind, Iterable[str]], report: str = "") -> list[str]:
        """The names of the files that a report is made of."""
        names = [file_of(kind, name) for kind in FILES for name in digests.get(kind, ())]
        return [*names, f"runs/{report}.json"] if report else names

    # -- models ---------------------------------------------------------------------------------

    def write_model(self, model: str, payload: Content) -> None:
        """`payload`: a safetensors file whose metadata `robench` holds identity and provenance."""
        self._put(file_of("models", model), payload)

    def read_model(self, model: str) -> tuple[bytes, dict[str, Any]]:
        """The safetensors bytes and their metadata. Raises Damaged."""
        return self.read(file_of("models", model), lambda data: as_tensors(data, model))

    def scratch(self, model: str) -> Path | None:
        """Where the training of a model may leave what it needs to go on; None: not on this
        machine."""
        return Path(self.files.root) / "scratch" / model if self.files.local else None

    # -- inputs ---------------------------------------------------------------------------------

    def write_inputs(self, name: str, payload: Content) -> None:
        self._put(file_of("inputs", name), payload)

    def read_inputs(self, name: str) -> tuple[bytes, dict[str, Any]]:
        return self.read(file_of("inputs", name), lambda data: as_tensors(data, name))

    # -- batches --------------------------------------------------------------------------------

    def has_batch(self, name: str) -> bool:
        return self.files.exists(_batch_path(name))

    def write_batch(self, name: str, payload: Content) -> None:
        """What an attack made of one batch of a cell, which is then made of it."""
        self._put(_batch_path(name), payload)

    def read_batch(self, name: str) -> tuple[bytes, dict[str, Any]]:
        return self.read(_batch_path(name), lambda data: as_tensors(data, name))

    def forget_batch(self, name: str) -> None:
        self.files.remove(_batch_path(name))

    # -- cells ----------------------------------------------------------------------------------

    def cells(self) -> set[str]:
        """Digests of all finished cells: one listing, whatever their number."""
        return set(self.files.names("cells", ".parquet"))

    def write_cell(self, cell: str, outcome: Outcome) -> None:
        metadata = {
            "identity": outcome.identity,
            "provenance": outcome.provenance,
            "rows": outcome.digest,
        }
        said = json.dumps(sealed(metadata)).encode()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, outcome.rows.schema, **LEAN) as writer:
            writer.write_table(outcome.rows)
            writer.add_key_value_metadata({METADATA_KEY: said})
        self._put(file_of("cells", cell), sink.getvalue().to_pybytes())
        self.clear_failure(cell)

    def read_cell(self, cell: str) -> Outcome:
        """Raises Damaged when the file is not what its name says; FileNotFoundError when absent."""
        return self.read(file_of("cells", cell), lambda data: as_outcome(data, cell))

    # -- images ---------------------------------------------------------------------------------

    def images(self) -> set[str]:
        """Digests of the cells whose adversarial images are kept: one listing."""
        return set(self.files.names("images", ".safetensors"))

    def write_images(self, cell: str, payload: Content, outcome: str) -> None:
        """Keep the images of a cell. Those of another outcome give way: a run that was killed has
        left them, on a machine that gives other bits.

        Args:
            outcome: digest of the rows that they were scored for.
        """
        with suppress(FileNotFoundError, Damaged):
            if self.read_images(cell)[1]["outcome"] == outcome:
                return
        self.files.write(file_of("images", cell), payload)

    def read_images(self, cell: str) -> tuple[bytes, dict[str, Any]]:
        """The safetensors bytes and their metadata. Raises Damaged."""
        return self.read(file_of("images", cell), lambda data: as_tensors(data, cell))

    def contradicted(self) -> set[str]:
        """Digests under which somebody else has other content than is here: one listing."""
        kept = self.files.names("contradictions", "")
        return {name.partition(".")[0] for name in kept}

    # -- failures and runs ----------------------------------------------------------------------

    def write_failure(self, name: str, failure: Mapping[str, Any]) -> None:
        self.files.write(f"failures/{name}.json", _json(failure))

    def read_failure(self, name: str) -> dict[str, Any] | None:
        with suppress(Damaged, FileNotFoundError):
            return self.read(f"failures/{name}.json", _as_object)
        return None

    def clear_failure(self, name: str) -> None:
        self.files.remove(f"failures/{name}.json")

    def write_run(self, report: str, manifest: Mapping[str, Any]) -> None:
        """What is there already is not written again."""
        data = _json(sealed(manifest))
        name = f"runs/{report}.json"
        with suppress(FileNotFoundError, NotRegular):
            if self.files.read(name) == data:
                return
        self.files.write(name, data)
        if self.files.sights is not None and self.files.read(name) != data:
            self.files.sights.pop(name)

    def has_run(self, report: str) -> bool:
        return self.files.exists(f"runs/{report}.json")

    def read_run(self, report: str) -> dict[str, Any] | None:
        """The manifest of the last run; None: there was none. Raises Damaged."""
        with suppress(FileNotFoundError):
            return self.read(f"runs/{report}.json", lambda data: as_manifest(_as_object(data)))
        return None

    # -- files ----------------------------------------------------------------------------------

    def _put(self, name: str, data: Content) -> None:
        """Written once."""
        if not self.files.exists(name):
            self.files.write(name, data)

    def read(self, name: str, parse: Callable[[bytes], Read]) -> Read:
        """What `parse` makes of a file. Where that fails, the file is set aside and Damaged raised.

        What is moved is looked at again: another run may have put the good file there since this
        one was read, and then it is put back and believed.
        """
        try:
            return parse(self.files.read(name))
        except (FileNotFoundError, RobenchError):
            raise
        except MemoryError:  # which is no fault of the file's
            raise RobenchError(f"{self.files.path(name)}: memory does not hold it") from None
        except Exception as error:  # whatever a parser makes of broken bytes
            why = str(error) or type(error).__name__
        path, leaf = self.files.path(name), name.rpartition("/")[2]
        aside = f"damaged/{leaf}.{uuid.uuid4().hex[:8]}"
        try:
            self.files.move(name, aside)
        except FileNotFoundError:
            raise Damaged(f"{path}: {why}; another run has set it aside") from None
        except Exception as error:
            said = system_words(error)
            raise Damaged(f"{path}: {why}; cannot be set aside: {said}") from None
        try:
            parsed = parse(self.files.read(aside))
        except Exception:
            raise Damaged(f"{path}: {why}; set aside as {self.files.path(aside)}") from None
        self.files.move_back(aside, name)
        return parsed


def as_outcome(data: bytes, cell: str, schema: int | None = None) -> Outcome:
    """A cell's file, whose name is `cell`. Raises some Exception for what is not whole.

    Args:
        schema: of identities; None: today's.
    """
    # Threads of Arrow's own cost more than so small a file.
    file = pq.ParquetFile(pa.BufferReader(data))
    metadata = unsealed(json.loads((file.metadata.metadata or {})[METADATA_KEY]))
    if digest(metadata["identity"], schema) != cell:
        raise ValueError("its content does not match its digest")
    start, stop = metadata["identity"].get("slice", (0, file.metadata.num_rows))
    check_room(file.metadata, data, stop - start)
    rows = file.read(use_threads=False).replace_schema_metadata(None)
    if not rows_match(rows, metadata["rows"]):
        raise ValueError("its content does not match its digest")
    return Outcome(rows, metadata["identity"], metadata["provenance"])


def as_tensors(
    data: bytes, expected: str, schema: int | None = None
) -> tuple[bytes, dict[str, Any]]:
    """A safetensors file and its metadata. Raises some Exception for what is not whole."""
    metadata = unsealed(json.loads(tensors_header(data)["__metadata__"]["robench"]))
    fits = digest(metadata["identity"], schema) == expected
    if not fits or tensors_digest(data) != metadata["tensors"]:
        raise ValueError("its content does not match its digest")
    return data, metadata


def as_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without its seal. `unsealed` is set in one of before there were seals.

    Raises ValueError where the seal is broken, or missing although there were seals.
    """
    if SEAL in manifest:
        return unsealed(manifest)
    if manifest.get("schema") != FIRST:
        raise ValueError("it has no seal")
    return {**manifest, UNSEALED: True}


def as_read(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as `read_run` gives it after it was written."""
    return _as_object(_json(manifest))


def _as_object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def file_of(kind: Kind, digest: str) -> str:
    """The name of a result's file."""
    return FILES[kind].format(digest)


def key_of(name: str) -> str:
    """The digest in the name of a result's file."""
    return name.rsplit("/", 1)[-1].partition(".")[0]


def _batch_path(name: str) -> str:
    return f"batches/{name}.safetensors"


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
