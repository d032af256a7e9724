"""What a check says: pass, alarm or not applicable, in one sentence with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Outcome = Literal["pass", "alarm", "not applicable"]
STRONGER = (
    'attack the network with another loss (loss = "margin"), other derivatives (surrogate = '
    '"sweep") and without gradients (square, nattack); whatever breaks an image counts'
)
"""What to run next wherever gradients mislead."""


@dataclass(frozen=True)
class Finding:
    """What one check found about one model.

    text: a sentence with the numbers it rests on. evidence: the same numbers, and more, by name;
    plain JSON values. next: what to run next; only alarms have one.
    """

    check: str
    verdict: Outcome
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    next: str = ""

    @classmethod
    def not_applicable(cls, check: str, why: str) -> Finding:
        return cls(check, "not applicable", why)


class Alarm(TypedDict):
    """A finding that raised an alarm, as a page shows it."""

    check: str
    text: str
    next: str


class Verdict(TypedDict):
    """Whether a model's numbers are to be believed; plain JSON."""

    verdict: Literal["believable", "doubtful", "unchecked"]
    """doubtful: a check raised an alarm; unchecked: none did, but the cells that the checks need
    are
    not in the report."""
    alarms: list[Alarm]
    findings: list[dict[str, Any]]
    """Every check's Finding as a dictionary, in the order of verdicts.CHECKS."""


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"
