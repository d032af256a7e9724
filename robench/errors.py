"""The one error type for what a user can cause and mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
