"""Where two results of the same work must have the same bits, and what is other where they need
not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMISED = ("device", "processor", "capability", "torch")
"""Of an environment: where all of these are equal, the same bits are promised."""


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What of PROMISED is other, such as `capability AVX512 there, AVX2 here`."""
    return "; ".join(
        f"{key} {there.get(key, 'unknown')} there, {here.get(key, 'unknown')} here"
        for key in PROMISED
        if there.get(key) != here.get(key)
    )
