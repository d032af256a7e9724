"""Do the attacks find what there is to find? Measured against proofs, where these know the truth.

Every other check asks whether gradients look as if they mislead. A proof knows which images can be
broken at all, so this one counts those that the attacks left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robench.show.balls import Ball
from robench.show.diagnostics.estimate import LEAST, Estimate, percent, share
from robench.show.diagnostics.finding import (
    STRONGER,
    Finding,
    Judged,
    alarm,
    check,
    not_applicable,
    passed,
)
from robench.show.diagnostics.subject import Subject
from robench.show.statistics import Floats
from robench.show.two_sided import ends

NAMED = 4
"""Attacks whose finds the sentence names."""


@dataclass(frozen=True)
class Ledger:
    """What is known of one ball, over all seeds and images, and what the attacks made of it."""

    ball: Ball
    found: dict[str, int]
    """Breakable images that each attack breaks, the best first."""
    together: int
    """That any of them breaks."""
    breakable: int
    """Images that are right clean, and that anything at all breaks in this ball."""
    unknown: int
    """Open images."""
    images: int
    """All there are, a seed's own each."""
    left: float
    """Accuracy that the attacks leave."""
    most: Estimate
    """Of images that nothing broke: what the accuracy is at most."""
    least: Estimate
    """Of images that are proved: what it is at least."""

    @property
    def missed(self) -> int:
        return self.breakable - self.together

    @property
    def excess(self) -> float:
        """By how much the accuracy that attacks leave lies above the interval of the truth,
        whatever becomes of open images."""
        return self.left - self.most.high

    @property
    def within(self) -> bool:
        """Whether it lies in the interval of the truth even if all open images are breakable."""
        return self.left <= self.least.high

    @property
    def where(self) -> str:
        return f"{self.ball.norm} eps = {self.ball.eps:g}"


@check("attacks against the truth")
def truth(subject: Subject) -> Judged:
    """The attacks leave images that can be broken: more than the interval of the truth allows.

    Inputs: in each ball of the worst case, all attacks in it (curves too), and a proof that holds
        in it: which images it broke, proved, or left open.
    Computation: accuracy that the attacks leave by themselves, against the 95% interval of the
        true one. An open image counts as robust where an alarm is at stake, and as breakable where
        it is to pass.
    Threshold: alarm where what the attacks leave lies above the interval and they miss at least one
        point; pass where it lies within, in all balls that a proof knows.
    """
    if subject.stochastic:
        return not_applicable(
            "Of a noisy model the truth is not known: its noise certifies a lower bound."
        )
    named = {Ball.of(threats[0]) for threats in subject.balls.values()}
    read = {ball: _ledger(subject, ball) for ball in sorted(named)}
    known = [ledger for ledger in read.values() if ledger is not None]
    if not known:
        return not_applicable("No proof reaches a ball that is attacked.")
    worst = max(
        known,
        key=lambda one: (max(one.excess, 0.0), not one.within, one.missed, one.ball.eps),
    )
    best = ", ".join(f"{name} {count}" for name, count in list(worst.found.items())[:NAMED])
    evidence = {
        "norm": worst.ball.norm,
        "eps": worst.ball.eps,
        "breakable": worst.breakable,
        "found": worst.together,
        "missed": worst.missed,
        "found_by_attack": worst.found,
        "open": worst.unknown,
        "left_by_attacks": round(worst.left, 4),
        "not_broken_by_anything": worst.most.evidence(),
        "proved": worst.least.evidence(),
        "balls_without_proof": [str(ball) for ball, ledger in read.items() if ledger is None],
    }
    numbers = (
        f"{worst.together} of {worst.breakable} breakable images at {worst.where} are found "
        f"({best}), which leaves {percent(worst.left)}"
    )
    if worst.excess > 0 and worst.missed >= LEAST * worst.images:
        return alarm(
            f"The attacks miss {worst.missed} of {worst.breakable} breakable images: {numbers}, "
            f"where in truth at most {percent(worst.most.value)} ({worst.most.range}) are robust.",
            evidence,
            f"Quote what is proved, or {STRONGER}.",
        )
    if not all(ledger.within for ledger in known):
        return not_applicable(
            f"Too many images are open for a judgement ({worst.unknown}): {numbers}.", evidence
        )
    return passed(
        f"The attacks find what there is: {numbers}, within the interval of the truth "
        f"({percent(worst.most.value)}, {worst.most.range}).",
        evidence,
    )


def settles(finding: Finding) -> bool:
    """Whether the worst case is known to be right, whatever gradients are suspected of."""
    settled = finding.check == truth.name and finding.verdict == "pass"
    return settled and not finding.evidence["balls_without_proof"]


def _ledger(subject: Subject, ball: Ball) -> Ledger | None:
    """None where no proof holds in the ball, or a cell is missing."""
    both = ends(subject.results, subject.model, ball)
    if both is None or subject.clean is None:
        return None
    attacks = [t for t in subject.attacks if t["name"] in both.attacks and t["role"] != "floor"]
    left = subject.left([subject.clean, *attacks])
    right, broken = subject.known(subject.clean) == 1, both.survived < 1
    breakable = right & broken

    def count(correct: Floats) -> int:
        return int((breakable & (correct < 1)).sum())

    broken_by = {threat["name"]: count(subject.known(threat)) for threat in attacks}
    return Ledger(
        ball=ball,
        found=dict(sorted(broken_by.items(), key=lambda item: (-item[1], item[0]))),
        together=count(left),
        breakable=int(breakable.sum()),
        unknown=int((~broken & (both.proved < 1)).sum()),
        images=int(broken.size),
        left=float(np.mean(left == 1)),
        most=share((~broken).astype(float)),
        least=share((both.proved == 1).astype(float)),
    )
