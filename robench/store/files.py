"""Files under a folder or any fsspec URL: regular ones, read whole, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import known_implementations

from robench.errors import RobenchError, conceal, keep_secret, secrets_of, system_words

DEEPEST = 4
"""Folders that a store has one in another, at most."""
Stamp = tuple[int, int, int, int, int]
"""What the system says of a file: bytes, when its content and when anything of it was last changed
(nanoseconds), inode, mode."""


Content = bytes | Sequence[bytes | memoryview]
"""Of a file, in one piece or in several that lie somewhere in memory."""


def stamp_of(path: str | int) -> Stamp | None:
    """None: there is nothing."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of ten thousand paths)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_mode


at_hand: dict[tuple[str, str], Any] = {}
"""URL and name of files that are never edited -> their bytes, where this process was sent them."""


class NotRegular(ValueError):
    """Where a file should be, there is something that is none: a folder, a pipe, a device."""


class Files:
    """What lies under one root, by relative name.

    Raises RobenchError, in which no password of the URL is said, for whatever a file system raises
    that is not FileNotFoundError.
    """

    def __init__(self, url: str, called: str = "--store") -> None:
        """`called`: what the user has said before this URL."""
        for secret in secrets_of(url):
            keep_secret(secret)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except Exception as error:  # each file system fails in ways of its own
            raise RobenchError(f"{called} {url}: {error}{_to_install(url, error)}") from None
        self._advice = f"; free space or choose another place with {called}"
        self.local = "file" in _protocols(self.fs)
        self.url = self.root if self.local else url  # absolute: workers may stand elsewhere
        self.sights: dict[str, tuple[Stamp | None, int, str]] | None = None
        """Where somebody wants to know: of each local file that was read its stamp before that, the
        time, and the SHA-256 of its bytes."""

    @property
    def shown(self) -> str:
        """The URL as it may be printed."""
        return conceal(self.url)

    @property
    def shared(self) -> bool:
        """Whether other processes see the same files."""
        return "memory" not in _protocols(self.fs)

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        with self._saying(name, "cannot be looked for"):
            return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str, suffix: str) -> Iterator[str]:
        """Names without `suffix` of the files under `folder`, hidden and temporary ones aside."""
        with suppress(FileNotFoundError), self._saying(folder, "cannot be read"):
            if self.local:  # a hundred thousand files: without asking about each
                leaves: Iterable[str] = _local_files(Path(self.path(folder)))
            else:
                leaves = (path.rsplit("/", 1)[-1] for path in self.fs.find(self.path(folder)))
            yield from (name.removesuffix(suffix) for name in leaves if name.endswith(suffix))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Every file under the root, or under a folder of it, by relative name -> its bytes, 0
        where a server does not say. A folder that is not there is empty."""
        sizes: dict[str, int] = {}
        where = self.path(folder) if folder else self.root
        with suppress(FileNotFoundError), self._saying(folder, "cannot be read"):
            for path, about in self.fs.find(where, detail=True, **self._how_to_walk()).items():
                if about["type"] != "directory":
                    name = path.removeprefix(self.root.rstrip("/")).lstrip("/")
                    sizes[name] = about["size"] or 0
        return sizes

    def _how_to_walk(self) -> dict[str, Any]:
        """A folder that cannot be read is no empty one; links of web pages may go in circles."""
        deepest = {"maxdepth": DEEPEST} if "http" in _protocols(self.fs) else {}
        return deepest if _does_itself(self.fs, "find") else {"on_error": "raise", **deepest}

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file; more where a server gives only whole files. Raises as `read`
        does."""
        with self._saying(name, "cannot be read"):
            if self.local:
                return read_regular(self.path(name), length)
            return bytes(self.fs.cat_file(self.path(name), start=0, end=length))

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError, and NotRegular for what is there and no file."""
        if at_hand and (sent := at_hand.get((self.url, name))) is not None:
            return bytes(sent)
        with self._saying(name, "cannot be read"):
            if self.local:
                before = None if self.sights is None else (stamp_of(self.path(name)), time_ns())
                data = read_regular(self.path(name))
                if self.sights is not None and before is not None:
                    self.sights[name] = (*before, hashlib.sha256(data).hexdigest())
                return data
            return bytes(self.fs.cat_file(self.path(name)))

    @property
    def exclusive(self) -> bool:
        """Whether a file can be created only where there is none, at once: on this machine, and on
        remote stores whose library does it itself (fsspec's own way is to look and then to write).
        """
        return self.local or _does_itself(self.fs, "pipe_file")

    def create(self, name: str, data: bytes, exclusive: bool = True) -> bool:
        """Write a file where there is none; False: there is one. It need not outlast a power cut.

        Args:
            exclusive: whether of several that do so at once only one may be told that it did.
        """
        path = self.path(name)
        with self._saying(name, "cannot be written", self._advice):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            try:
                if self.local:
                    _create(path, data)
                elif exclusive:
                    try:
                        self.fs.pipe_file(path, data, mode="create")
                    except (TypeError, NotImplementedError):  # it has never heard of it
                        self.fs.pipe_file(path, data)
                elif self.fs.exists(path):
                    return False
                else:
                    self.fs.pipe_file(path, data)
            except FileExistsError:
                return False
            return True

    def write(self, name: str, data: Content, lasting: bool = True) -> None:
        """Atomic: a reader sees the whole file or none; where `lasting`, also after a power cut."""
        path = self.path(name)
        with self._saying(name, "cannot be written", self._advice):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if not self.local:
                self.fs.pipe_file(path, data if isinstance(data, bytes) else b"".join(data))
                return
            with _written_beside(path, data, lasting) as temporary:
                Path(temporary).replace(path)
                if lasting:
                    _sync_folder(path.rsplit("/", 1)[0])

    def write_new(self, name: str, data: bytes) -> bool:
        """As `write`, but never in the place of another file; False: there is one.

        Where neither the machine nor the remote store can do both at once, two that write the same
        name in the same moment may both be told that they did.
        """
        path = self.path(name)
        if self.exists(name):
            return False
        if not self.local and self.exclusive:
            return self.create(name, data)
        with self._saying(name, "cannot be written", self._advice):
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if self.local:
                return _write_new(path, data)
            temporary = f"{path}.{uuid.uuid4().hex}.tmp"
            try:
                self.fs.pipe_file(temporary, data)
                if self.fs.exists(path):
                    return False
                self.fs.mv(temporary, path)
                return True
            finally:
                with suppress(Exception):
                    if self.fs.exists(temporary):
                        self.fs.rm_file(temporary)

    def remove(self, name: str) -> None:
        """Gone afterwards, unless it cannot be written; another run may have been first."""
        with suppress(OSError, RobenchError):
            if self.exists(name):
                self.fs.rm_file(self.path(name))

    def move(self, name: str, to: str) -> None:
        """Raises FileNotFoundError, and OSError where it cannot be moved."""
        self.fs.makedirs(self.path(to).rsplit("/", 1)[0], exist_ok=True)
        if self.local:
            Path(self.path(name)).rename(self.path(to))
        else:
            self.fs.mv(self.path(name), self.path(to))

    def move_back(self, name: str, to: str) -> None:
        """To where nothing is by now, else it stays."""
        with suppress(OSError):
            if self.local:
                os.link(self.path(name), self.path(to))
                Path(self.path(name)).unlink()
            elif not self.fs.exists(self.path(to)):
                self.fs.mv(self.path(name), self.path(to))

    @contextmanager
    def _saying(self, name: str, what: str, advice: str = "") -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, RobenchError, NotRegular):
            raise
        except (OSError, MemoryError, OverflowError) as error:
            raise RobenchError(
                f"{self.path(name)}: {what}: {system_words(error)}{advice}"
            ) from error
        except Exception as error:
            if self.local:
                raise
            said = f"{type(error).__name__}: {error}"  # libraries of remote stores have their own
            raise RobenchError(f"{self.path(name)}: {what}: {said}{advice}") from error


def _create(path: str, data: bytes) -> None:
    """Raises FileExistsError; where there is no room nothing is left."""
    with open(path, "xb", buffering=0) as file:  # noqa: PTH123
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise


@contextmanager
def _written_beside(path: str, data: Content, lasting: bool) -> Iterator[str]:
    """The name of a whole file beside `path`, which is gone at the end unless it was moved."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:  # noqa: PTH123 (paths here are fsspec's strings)
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def _write_new(path: str, data: bytes) -> bool:
    """A whole file where there is none, also after a power cut; False: there is one."""
    with _written_beside(path, data, lasting=True) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a disk without hard links
            if os.path.lexists(path):
                return False
            Path(temporary).replace(path)
        _sync_folder(path.rsplit("/", 1)[0])
        return True


def read_regular(path: str | Path, length: int = -1) -> bytes:
    """The bytes of a file, at once; the first `length` of them, where that is not negative.

    Raises NotRegular for a pipe, on which an ordinary `open` waits for ever, a folder or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotRegular("not a regular file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular("not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(length)
    finally:
        os.close(descriptor)


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


def _to_install(url: str, error: Exception) -> str:
    """What to do where the library of a remote store is not installed; else nothing."""
    protocol = url.partition("://")[0]
    known = known_implementations.get(protocol)
    if not isinstance(error, ImportError) or known is None:
        return ""
    library = known["class"].partition(".")[0]
    extra = "http" if protocol == "https" else protocol
    return f"; pip install {library}" if library != "fsspec" else f"; pip install 'fsspec[{extra}]'"


def _does_itself(fs: Any, what: str) -> bool:
    """Whether a file system has a way of its own, beside the one that fsspec has for all."""
    if isinstance(fs, AsyncFileSystem):
        return getattr(type(fs), f"_{what}") is not getattr(AsyncFileSystem, f"_{what}")
    return getattr(type(fs), what) is not getattr(fsspec.AbstractFileSystem, what)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
