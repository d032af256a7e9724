"""Every check on every model: is its number to be believed? (METHODS: gradient masking)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal, NamedTuple

from robench.show.diagnostics.above_clean import above_clean
from robench.show.diagnostics.answers import determinism, outputs
from robench.show.diagnostics.asking import batches, memory, numbers
from robench.show.diagnostics.averaging import averaging
from robench.show.diagnostics.finding import Alarm, Check, Finding, Outcome, Verdict
from robench.show.diagnostics.gradient import surrogates, zero_gradients
from robench.show.diagnostics.gradient_free import gradient_free
from robench.show.diagnostics.iterates import earlier_iterates, loss_at_the_end, loss_on_the_way
from robench.show.diagnostics.known import known
from robench.show.diagnostics.slopes import slopes
from robench.show.diagnostics.strength import growing_eps, more_effort, one_step
from robench.show.diagnostics.subject import Subject
from robench.show.diagnostics.truth import settles, truth
from robench.show.results import Results

CHECKS: tuple[Check, ...] = (
    zero_gradients,
    slopes,
    surrogates,
    gradient_free,
    more_effort,
    averaging,
    growing_eps,
    one_step,
    loss_on_the_way,
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
what the model answers."""
OWN = (above_clean, determinism, outputs, numbers, memory, batches, known, truth)
"""Checks whose alarms stand whatever is proved: they are not about what gradients may hide."""
NEEDED = tuple(check.name for check in (gradient_free, more_effort, growing_eps))
"""Checks without which a model cannot be called believable; the cards in attacks/diagnostics/ make
their cells."""


SAYS: dict[Outcome, Literal["within", "above", "open"]] = {
    "pass": "within", "alarm": "above", "not applicable": "open",
}  # fmt: skip
"""What the check of attacks against the truth says of the attacks' number."""


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


class Held(NamedTuple):
    """A verdict that was reached without proofs, and what these say of the attacks' number."""

    verdict: str
    truth: Literal["within", "above", "open"]
    """Whether what the attacks leave by themselves lies within the interval of the true accuracy or
    above it; open: too many images are, for either."""


def against_truth(results: Results, verdicts: Mapping[str, Verdict]) -> dict[str, Held]:
    """How verdicts do where the truth is known: of each model that a proof reaches, by name.

    Args:
        verdicts: as `diagnose` gives them, with the evidence of all checks.
    """
    held = {}
    for model in results.models if results.proofs else []:
        made = verdicts.get(model["name"])
        findings = [Finding(**one) for one in made["findings"]] if made else []
        told = next((one for one in findings if one.check == truth.name and one.evidence), None)
        if told is not None:
            others = [one for one in findings if one.check != truth.name]
            without = verdict(others, Subject(results, model).headline)["verdict"]
            held[model["name"]] = Held(without, SAYS[told.verdict])
    return held


def tally(held: Mapping[str, Held]) -> dict[str, dict[str, int]]:
    """Verdict -> what the truth says -> how many models; verdicts that no model has are left
    out."""
    counts = Counter(held.values())
    return {
        verdict: {truth: counts[Held(verdict, truth)] for truth in SAYS.values()}
        for verdict in ("believable", "doubtful", "unchecked")
        if any(one.verdict == verdict for one in held.values())
    }


def verdict(findings: list[Finding], headline: bool = True) -> Verdict:
    """What a model's findings come to. headline: whether it has a worst case."""
    certain, own = any(settles(finding) for finding in findings), {check.name for check in OWN}
    alarms = [
        Alarm(check=finding.check, text=finding.text, next=finding.next)
        for finding in findings
        if finding.verdict == "alarm" and (finding.check in own or not certain)
    ]
    passed = {finding.check for finding in findings if finding.verdict == "pass"}
    enough = headline and (certain or passed.issuperset(NEEDED))
    return Verdict(
        verdict="doubtful" if alarms else "believable" if enough else "unchecked",
        alarms=alarms,
        findings=[asdict(finding) for finding in findings],
    )
