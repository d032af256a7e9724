"""Where the files of data sets are looked for, and how they are fetched."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from robench.errors import RobenchError

with warnings.catch_warnings():
    # Its bars would be drawn with widgets in a notebook; they are drawn as text.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch


class NotHere(RobenchError):
    """The files of a data set are not on this machine."""


_may_download = ContextVar("may_download", default=True)


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is downloaded inside the block: what is not here raises NotHere."""
    token = _may_download.set(False)
    try:
        yield
    finally:
        _may_download.reset(token)


def data_folders() -> list[Path]:
    """Where files are looked for: the folders of ROBENCH_DATA, then the cache."""
    named = [Path(part) for part in os.environ.get("ROBENCH_DATA", "").split(os.pathsep) if part]
    return [*named, Path(pooch.os_cache("robench"))]


def find_files(folder: str, urls: Mapping[str, str], hashes: Mapping[str, str]) -> dict[str, Path]:
    """The files of a data set by name: looked for in `data_folders()`, else downloaded.

    Args:
        folder: sub-folder that holds the files, under any of the data folders.
        urls: file name -> address.
        hashes: file name -> known hash, as pooch writes it ("md5:...").
    """
    for base in data_folders():
        if all((base / folder / name).is_file() for name in urls):
            return {name: base / folder / name for name in urls}
    cache = data_folders()[-1] / folder
    remedy = (
        f"{_lacking(folder, [*urls])}put {', '.join(urls)} into {folder}/ under a folder named in "
        f"ROBENCH_DATA, or into {cache}"
    )
    with _downloading(folder, remedy):
        return {name: _retrieved(url, hashes[name], name, cache) for name, url in urls.items()}


def find_folder(
    folder: str, files: Sequence[str], url: str, known_hash: str, pickled: str = ""
) -> Path:
    """The folder of a data set whose publisher ships one archive: looked for in `data_folders()`,
    else downloaded and unpacked into the cache.

    Args:
        folder: the folder that the archive holds, as it is called under any of the data folders.
        files: what must lie in it.
        url: address of the archive, .tar.gz or .zip. known_hash: of it, as pooch writes it.
        pickled: what the folder is called in which the publisher ships the same as pickles.
    """
    for base in data_folders():
        if all((base / folder / name).exists() for name in files):
            return base / folder
    cache = data_folders()[-1]
    pickles = ""
    for base in data_folders():
        if pickled and (base / pickled).is_dir():
            pickles = (
                f"{base / pickled} holds pickles, which are not read (torchvision's data set of "
                "them can be handed over to robench.evaluate); "
            )
    remedy = (
        f"{_lacking(folder, files)}{pickles}unpack {url} under a folder named in ROBENCH_DATA, or "
        f"under {cache}"
    )
    with _downloading(folder, remedy):
        _unpack(_retrieved(url, known_hash, url.rsplit("/", 1)[-1], cache), folder, cache)
    return cache / folder


def _lacking(folder: str, files: Sequence[str]) -> str:
    """What is missing from a folder of that name that is there."""
    for base in data_folders():
        if (base / folder).is_dir():
            missing = [name for name in files if not (base / folder / name).exists()]
            if len(missing) < len(files):
                return f"{base / folder} lacks {', '.join(missing)}; "
    return ""


@contextmanager
def _downloading(folder: str, remedy: str) -> Iterator[None]:
    """Whatever goes wrong inside the block is one error that says what to do instead."""
    if not _may_download.get():
        raise NotHere(f"data set {folder}: is not on this machine, and nothing is downloaded now")
    try:
        yield
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = str(error).split("\n")[0][:200]
        raise RobenchError(
            f"data set {folder}: not found and not downloadable ({reason}); {remedy}"
        ) from None


def _retrieved(url: str, known_hash: str, name: str, into: Path) -> Path:
    file = pooch.retrieve(url, known_hash=known_hash, fname=name, path=into, progressbar=True)
    return Path(file)


def _unpack(archive: Path, folder: str, into: Path) -> None:
    """`folder` of the archive appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=into) as unpacked:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as contents:
                contents.extractall(unpacked)
        else:
            with tarfile.open(archive) as contents:
                if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                    contents.extractall(unpacked, filter="data")
                else:  # the archive is the publisher's, by its digest
                    contents.extractall(unpacked)
        shutil.rmtree(into / folder, ignore_errors=True)
        (Path(unpacked) / folder).replace(into / folder)


def by_number(name: str) -> list[tuple[int, str]]:
    """A sorting key for file names by which val_9 comes before val_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
