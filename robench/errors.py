"""The one error type for what a user can cause and mend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that some systems keep for devices, with or without a suffix."""


class RobenchError(Exception):
    """Bad input, said in one or two lines: file, key, value, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the names near it, else all there are."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not names:
        return "there are none"
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {listed}"


def check_name(name: str, what: str) -> str:
    """`name`, when it can be a file's inside its folder: parts joined by `/`, none of them empty,
    hidden, `..`, a device's or with characters that cannot be printed.

    Raises RobenchError, which calls it `what`.
    """
    for part in name.split("/"):
        if not part or part.startswith(".") or part != part.strip() or "\\" in part:
            wrong = "an empty, hidden or relative part"
        elif not part.isprintable():
            wrong = "characters that cannot be printed"
        elif DEVICES.fullmatch(part):
            wrong = f"{part!r}, which some systems keep for a device"
        elif len(part.encode()) > 200:
            wrong = "a part of more than 200 bytes"
        else:
            continue
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise RobenchError(f"{what} {shown!r}: not a name: it has {wrong}; rename it")
    return name


def printable(text: object) -> str:
    """`text` on one line: characters that cannot be printed are written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
