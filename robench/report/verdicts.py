"""What a page may be told about its models beside the numbers."""

from __future__ import annotations

from typing import Literal, TypedDict


class Verdict(TypedDict):
    """Whether a model's numbers are to be believed: an entry for each model by name."""

    verdict: Literal["believable", "doubtful"]
    alarms: list[dict[str, str]]
    """Each {"check", "text"}: which check raised it, and one sentence with its numbers."""
