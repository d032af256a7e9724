"""Whether files are those of their publisher, as far as hashes of them are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from robench.errors import RobenchError, system_words


def odd_files(who: str, files: Mapping[str, Path], hashes: Mapping[str, str]) -> tuple[str, ...]:
    """What pages say of files that are not the publisher's, whatever they are called; mostly
    nothing.

    Args:
        files: by the name that the publisher gave them.
        hashes: of the same, as pooch writes them ("md5:...", "sha1:...").

    Raises RobenchError for a file that cannot be read.
    """
    odd = [name for name in hashes if _hash(files[name], hashes[name]) != hashes[name]]
    return (f"{who}: not the publisher's data: {', '.join(odd)}",) if odd else ()


def _hash(path: Path, like: str) -> str:
    kind = like.partition(":")[0]
    try:
        with path.open("rb") as file:
            return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
    except OSError as error:
        raise RobenchError(f"{path}: cannot be read: {system_words(error)}") from None
