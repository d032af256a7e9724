"""Write-once results, read by anyone.

    models/<digest>.safetensors   weights; card, training curves and provenance in the metadata
    inputs/<digest>.safetensors   perturbed inputs that several models share (corrupted test sets,
                                  examples crafted on a surrogate)
    cells/ab/<digest>.parquet     one row per image; identity and provenance in the metadata
    failures/<digest>.json        what went wrong, for people; not a result
    scratch/<digest>/             what a training that is stopped finds again; gone when it is done
    runs/<report>.json            which of the above a report is made of

A file is written under a temporary name and renamed, and never edited. One that does not match its
own digest is set aside under `damaged/` and made again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from robench.digest import digest
from robench.errors import RobenchError
from robench.seal import rows_digest, sealed, tensors_digest, tensors_header, unsealed

METADATA_KEY = b"robench"
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

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # each file system fails in ways of its own
            raise RobenchError(f"--store {self.url}: {error}") from None
        self._local = "file" in _protocols(self._fs)
        if self._local:
            self.url = self._root  # absolute: workers may stand elsewhere

    # -- models ---------------------------------------------------------------------------------

    def has_model(self, model: str) -> bool:
        return self._exists(f"models/{model}.safetensors")

    def write_model(self, model: str, payload: bytes) -> None:
        """`payload`: a safetensors file whose metadata `robench` holds identity and provenance."""
        self._put(f"models/{model}.safetensors", payload)

    def read_model(self, model: str) -> tuple[bytes, dict[str, Any]]:
        """The safetensors bytes and their metadata. Raises Damaged."""
        return self._read_tensors(f"models/{model}.safetensors", model)

    def scratch(self, model: str) -> Path | None:
        """Where the training of a model may leave what it needs to go on; None: not on this
        machine."""
        return Path(self._root) / "scratch" / model if self._local else None

    # -- inputs ---------------------------------------------------------------------------------

    def has_inputs(self, name: str) -> bool:
        return self._exists(f"inputs/{name}.safetensors")

    def write_inputs(self, name: str, payload: bytes) -> None:
        self._put(f"inputs/{name}.safetensors", payload)

    def read_inputs(self, name: str) -> tuple[bytes, dict[str, Any]]:
        return self._read_tensors(f"inputs/{name}.safetensors", name)

    # -- cells ----------------------------------------------------------------------------------

    def cells(self) -> set[str]:
        """Digests of all finished cells: one listing, whatever their number."""
        return set(self._names("cells", ".parquet"))

    def has_cell(self, cell: str) -> bool:
        return self._exists(_cell_path(cell))

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
        self._put(_cell_path(cell), sink.getvalue().to_pybytes())
        self._remove(f"failures/{cell}.json")

    def read_cell(self, cell: str) -> Outcome:
        """Raises Damaged when the file is not what its name says; FileNotFoundError when absent."""
        path = _cell_path(cell)
        data = self._get(path)
        try:
            # Threads of Arrow's own cost more than so small a file.
            table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
            metadata = unsealed(json.loads((table.schema.metadata or {})[METADATA_KEY]))
            rows = table.replace_schema_metadata(None)
            outcome = Outcome(rows, metadata["identity"], metadata["provenance"])
            sound = digest(outcome.identity) == cell and metadata["rows"] == outcome.digest
        except Exception as error:  # whatever a parser makes of broken bytes
            raise self._set_aside(path, f"not a whole cell: {error}") from None
        if not sound:
            raise self._set_aside(path, "its content does not match its digest")
        return outcome

    # -- failures and runs ----------------------------------------------------------------------

    def write_failure(self, name: str, failure: Mapping[str, Any]) -> None:
        self._put(f"failures/{name}.json", _json(failure), replace=True)

    def read_failure(self, name: str) -> dict[str, Any] | None:
        return self._read_json(f"failures/{name}.json")

    def clear_failure(self, name: str) -> None:
        self._remove(f"failures/{name}.json")

    def write_run(self, report: str, manifest: Mapping[str, Any]) -> None:
        self._put(f"runs/{report}.json", _json(manifest), replace=True)

    def read_run(self, report: str) -> dict[str, Any] | None:
        return self._read_json(f"runs/{report}.json")

    # -- files ----------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._path(name)))

    def _names(self, folder: str, suffix: str) -> Iterator[str]:
        """Names without `suffix` of the files under `folder`, hidden and temporary ones aside."""
        try:
            if self._local:  # a hundred thousand files: without asking about each
                found: Iterable[str] = _local_files(Path(self._path(folder)))
            else:
                found = (path.rsplit("/", 1)[-1] for path in self._fs.find(self._path(folder)))
            yield from (name.removesuffix(suffix) for name in found if name.endswith(suffix))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _get(self, name: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: OSError) -> RobenchError:
        return RobenchError(f"{self._path(name)}: cannot be read: {error.strerror or error}")

    def _put(self, name: str, data: bytes, replace: bool = False) -> None:
        """Atomic: a reader sees the whole file or none, also after a power cut."""
        path = self._path(name)
        if not replace and self._fs.exists(path):
            return
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if not self._local:
                self._fs.pipe_file(path, data)
                return
            temporary = f"{path}.{uuid.uuid4().hex}.tmp"
            try:
                with open(temporary, "wb") as file:  # noqa: PTH123 (paths here are fsspec's strings)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
                _sync_folder(path.rsplit("/", 1)[0])
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise RobenchError(
                f"{path}: cannot be written: {error.strerror or error}; free space or choose "
                "another place with --store"
            ) from error

    def _remove(self, name: str) -> None:
        """Gone afterwards, unless the store cannot be written; another run may have been first."""
        with suppress(OSError):
            if self._exists(name):
                self._fs.rm_file(self._path(name))

    def _set_aside(self, name: str, why: str) -> Damaged:
        path = self._path(name)
        aside = self._path(f"damaged/{name.rsplit('/', 1)[-1]}.{uuid.uuid4().hex[:8]}")
        try:
            self._fs.makedirs(aside.rsplit("/", 1)[0], exist_ok=True)
            if self._local:
                Path(path).rename(aside)
            else:
                self._fs.mv(path, aside)
        except FileNotFoundError:
            return Damaged(f"{path}: {why}; another run has set it aside")
        except OSError as error:
            return Damaged(f"{path}: {why}; cannot be set aside: {error.strerror or error}")
        return Damaged(f"{path}: {why}; set aside as {aside}")

    def _read_json(self, name: str) -> dict[str, Any] | None:
        if not self._exists(name):
            return None
        try:
            found = json.loads(self._get(name))
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
        except (ValueError, RecursionError) as error:
            self._set_aside(name, str(error))
            return None
        except FileNotFoundError:  # another run has just removed it
            return None
        return found

    def _read_tensors(self, name: str, expected: str) -> tuple[bytes, dict[str, Any]]:
        data = self._get(name)
        try:
            metadata = unsealed(json.loads(tensors_header(data)["__metadata__"]["robench"]))
            sound = digest(metadata["identity"]) == expected
            sound = sound and tensors_digest(data) == metadata["tensors"]
        except Exception as error:  # whatever a parser makes of broken bytes
            raise self._set_aside(name, f"not a robench safetensors file: {error}") from None
        if not sound:
            raise self._set_aside(name, "its content does not match its digest")
        return data, metadata


def _local_files(folder: Path) -> Iterator[str]:
    """Names of the files under a local folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _local_files(Path(entry.path))
            else:
                yield entry.name


def _sync_folder(folder: str) -> None:
    """A renamed file is there after a power cut once its folder is on the disk too."""
    with suppress(OSError):  # not every file system lets a folder be synchronised
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cell_path(cell: str) -> str:
    return f"cells/{cell[:2]}/{cell}.parquet"


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
