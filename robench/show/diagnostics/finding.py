"""What a check is, and what it says: pass, alarm or not applicable, in one sentence with its
numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypedDict

from robench.show.diagnostics.subject import Subject

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


Judged = tuple[Outcome, str, Mapping[str, Any], str]
"""A Finding without the name of its check."""


def alarm(text: str, evidence: Mapping[str, Any], next_: str) -> Judged:
    return "alarm", text, evidence, next_


def passed(text: str, evidence: Mapping[str, Any]) -> Judged:
    return "pass", text, evidence, ""


def not_applicable(why: str, evidence: Mapping[str, Any] | None = None) -> Judged:
    return "not applicable", why, evidence or {}, ""


@dataclass(frozen=True)
class Check:
    """A question about a model's outcomes, with its name."""

    name: str
    judge: Callable[[Subject], Judged]

    def __call__(self, subject: Subject) -> Finding:
        return Finding(self.name, *self.judge(subject))


def check(name: str) -> Callable[[Callable[[Subject], Judged]], Check]:
    """Decorates what judges, and makes a check of that name of it."""
    return partial(Check, name)


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
