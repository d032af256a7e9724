"""Every check on every model: is its number to be believed? (METHODS: gradient masking)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from robench.diagnostics.above_clean import above_clean
from robench.diagnostics.answers import determinism, outputs
from robench.diagnostics.averaging import averaging
from robench.diagnostics.finding import Alarm, Finding, Verdict
from robench.diagnostics.gradient import surrogates, zero_gradients
from robench.diagnostics.gradient_free import CHECK as GRADIENT_FREE
from robench.diagnostics.gradient_free import gradient_free
from robench.diagnostics.iterates import earlier_iterates, loss_at_the_end
from robench.diagnostics.strength import EFFORT, GROWING, growing_eps, more_effort, one_step
from robench.diagnostics.subject import Subject
from robench.results import Results

CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    zero_gradients,
    surrogates,
    gradient_free,
    more_effort,
    averaging,
    growing_eps,
    one_step,
    loss_at_the_end,
    earlier_iterates,
    above_clean,
    determinism,
    outputs,
)
"""In the order in which a page shows them: the gradient, what gets past it, how hard was tried,
what
the model answers."""
NEEDED = (GRADIENT_FREE, EFFORT, GROWING)
"""Checks without which a model cannot be called believable; the cards in attacks/diagnostics/ make
their cells."""


def diagnose(results: Results) -> dict[str, Verdict]:
    """The verdict on every model of a report, by name. Depends on the results alone.

    A model is doubtful where any check raises an alarm, believable where none does, those in NEEDED
    pass and there is a worst case to be believed, else unchecked.
    """
    subjects = [Subject(results, model) for model in results.models]
    return {
        subject.model["name"]: verdict([check(subject) for check in CHECKS], subject.headline)
        for subject in subjects
    }


def verdict(findings: list[Finding], headline: bool = True) -> Verdict:
    """What a model's findings come to. headline: whether it has a worst case."""
    alarms = [
        Alarm(check=finding.check, text=finding.text, next=finding.next)
        for finding in findings
        if finding.verdict == "alarm"
    ]
    passed = {finding.check for finding in findings if finding.verdict == "pass"}
    enough = headline and passed.issuperset(NEEDED)
    return Verdict(
        verdict="doubtful" if alarms else "believable" if enough else "unchecked",
        alarms=alarms,
        findings=[asdict(finding) for finding in findings],
    )
