"""Every check on every model: is its number to be believed? (METHODS: gradient masking)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from robench.diagnostics.above_clean import CHECK as ABOVE_CLEAN
from robench.diagnostics.above_clean import above_clean
from robench.diagnostics.answers import DETERMINISM, OUTPUTS, determinism, outputs
from robench.diagnostics.asking import BATCHES, MEMORY, NUMBERS, batches, memory, numbers
from robench.diagnostics.averaging import averaging
from robench.diagnostics.finding import Alarm, Finding, Verdict
from robench.diagnostics.gradient import surrogates, zero_gradients
from robench.diagnostics.gradient_free import CHECK as GRADIENT_FREE
from robench.diagnostics.gradient_free import gradient_free
from robench.diagnostics.iterates import earlier_iterates, loss_at_the_end
from robench.diagnostics.known import CHECK as KNOWN
from robench.diagnostics.known import known
from robench.diagnostics.slopes import slopes
from robench.diagnostics.strength import EFFORT, GROWING, growing_eps, more_effort, one_step
from robench.diagnostics.subject import Subject
from robench.diagnostics.truth import CHECK as TRUTH
from robench.diagnostics.truth import settles, truth
from robench.results import Results

CHECKS: tuple[Callable[[Subject], Finding], ...] = (
    zero_gradients,
    slopes,
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
    numbers,
    memory,
    batches,
    known,
)
"""In the order in which a page shows them: the gradient, what gets past it, how hard was tried,
what
the model answers."""
OWN = (ABOVE_CLEAN, DETERMINISM, OUTPUTS, NUMBERS, MEMORY, BATCHES, KNOWN, TRUTH)
"""Checks whose alarms stand whatever is proved: they are not about what gradients may hide."""
NEEDED = (GRADIENT_FREE, EFFORT, GROWING)
"""Checks without which a model cannot be called believable; the cards in attacks/diagnostics/ make
their cells."""


def diagnose(results: Results) -> dict[str, Verdict]:
    """The verdict on every model of a report, by name. Depends on the results alone.

    A model is doubtful where any check raises an alarm, believable where none does, those in NEEDED
    pass and there is a worst case to be believed, else unchecked. Where proofs know the truth it
    decides: attacks that miss what can be broken are an alarm, and those that find it answer what
    other checks suspect of gradients.
    """
    subjects = [Subject(results, model) for model in results.models]
    checks = (truth, *CHECKS) if results.proofs else CHECKS
    return {
        subject.model["name"]: verdict([check(subject) for check in checks], subject.headline)
        for subject in subjects
    }


def against_truth(results: Results) -> dict[str, tuple[str, str]]:
    """Of each model that proofs know the truth about: the verdict without them, and what the truth
    says of the attacks' number: "pass" where it lies within the interval of the true accuracy,
    "alarm" where it lies above, else "not applicable"."""
    found = {}
    for model in results.models if results.proofs else []:
        subject = Subject(results, model)
        known_of = truth(subject)
        if known_of.evidence:
            without = verdict([check(subject) for check in CHECKS], subject.headline)
            found[model["name"]] = (str(without["verdict"]), str(known_of.verdict))
    return found


def verdict(findings: list[Finding], headline: bool = True) -> Verdict:
    """What a model's findings come to. headline: whether it has a worst case."""
    certain = any(settles(finding) for finding in findings)
    alarms = [
        Alarm(check=finding.check, text=finding.text, next=finding.next)
        for finding in findings
        if finding.verdict == "alarm" and (finding.check in OWN or not certain)
    ]
    passed = {finding.check for finding in findings if finding.verdict == "pass"}
    enough = headline and (certain or passed.issuperset(NEEDED))
    return Verdict(
        verdict="doubtful" if alarms else "believable" if enough else "unchecked",
        alarms=alarms,
        findings=[asdict(finding) for finding in findings],
    )
