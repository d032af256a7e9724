"""What a page may be told about its models and claims beside the numbers."""

from __future__ import annotations

from typing import Literal, TypedDict


class Verdict(TypedDict):
    """Whether a model's numbers are to be believed: an entry for each model by name."""

    verdict: Literal["believable", "doubtful"]
    alarms: list[dict[str, str]]
    """Each {"check", "text"}: which check raised it, and one sentence with its numbers."""


class Claim(TypedDict):
    """A published claim, judged against the measured numbers."""

    text: str
    verdict: str
    """"holds", "does not hold" or "cannot be judged"."""
    evidence: str
