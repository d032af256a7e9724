"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

FREE = 2**25
"""Bytes that the C library may keep of what was freed before they are given back to the system."""


def give_back() -> None:
    """Give freed memory back to the system, where there is much of it: glibc keeps what lies below
    the last block in use, so that a process stays as large as it ever was."""
    library = _glibc()
    if library is not None and library.mallinfo2().fordblks > FREE:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc's of 2.33 or later."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2") or not hasattr(library, "malloc_trim"):
        return None
    library.mallinfo2.restype = _Mallinfo
    return library


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h; `fordblks`: bytes in free blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]
