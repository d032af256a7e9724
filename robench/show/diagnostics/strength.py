"""Does an attack that should be stronger do more? One step against many, more effort, growing eps.

After Athalye et al. 2018 (arXiv 1802.00420, section 3.1) and Carlini et al. 2019 (1902.06705).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from robench.show.diagnostics.estimate import LEAST, Estimate, difference, percent, share
from robench.show.diagnostics.finding import STRONGER, Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject, crosses_ball, effort, native, steps, white_box
from robench.show.results import Threat

REMAINS = 0.05
"""Accuracy that may remain where every image can be reached: a noisy model is right by luck."""
EVERYWHERE = 0.5
"""Radius (L-infinity) at which every image can become plain grey."""
FEWEST = 10
"""Gradients per image from which on an attack is more than a sketch."""


@dataclass(frozen=True)
class Fall:
    """One attack against another that should not do more, in one ball. left: accuracy under the
    former; fall: by how much the latter leaves less, paired."""

    before: Threat
    after: Threat
    left: Estimate
    fall: Estimate
    excess: float
    """By how much the latter lies below the interval of the former."""

    @property
    def sure(self) -> bool:
        """Whether it leaves less by more than the interval."""
        return self.excess > 0 and self.fall.low > 0


def largest_fall(
    subject: Subject, sides: Iterable[tuple[list[Threat], list[Threat]]]
) -> Fall | None:
    """Of balls with attacks on two sides, the strongest of each side, where the second does most
    beyond the interval of the first."""
    falls = []
    for first, second in sides:
        before, after = subject.strongest(first), subject.strongest(second)
        if before is not None and after is not None:
            left = share(subject.known(before))
            fall = difference(subject.known(before) - subject.known(after))
            falls.append(Fall(before, after, left, fall, left.low - subject.accuracy(after)))
    return max(falls, key=lambda one: one.excess, default=None)


@check("one step against many")
def one_step(subject: Subject) -> Judged:
    """An iterative attack is weaker than a single step: its gradients lead nowhere.

    Inputs: in each ball, the strongest one-step and all iterative white-box attacks with the
        network's own gradient; iterative ones in a single run whose steps can cross the ball.
    Computation: accuracy under the iterative attack minus that under one step, paired by image and
        seed, bootstrap interval corrected for the number of pairs.
    Threshold: alarm where the largest difference is more than one point and its interval lies
        above zero. An honest iterative attack is rarely weaker at all; a point is what a handful of
        images can do.
    """
    pairs: list[tuple[Threat, Threat]] = []
    for threats in subject.balls.values():
        plain = [t for t in white_box(threats) if native(t) and steps(t)]
        single = subject.strongest([t for t in plain if steps(t) == 1])
        if single is not None:
            pairs += [(single, t) for t in plain if _one_long_run(t)]
    if not pairs:
        return not_applicable(
            "No ball has both a one-step attack and an iterative one that can cross it."
        )
    weaker = [p for p in pairs if subject.accuracy(p[1]) - subject.accuracy(p[0]) > LEAST]
    differences = [
        (difference(subject.known(many) - subject.known(one), len(pairs)), one, many)
        for one, many in weaker or pairs[:1]
    ]
    worst, one, iterative = max(differences, key=lambda item: item[0].low)
    numbers = (
        f"{iterative['name']} ({steps(iterative)} steps) leaves "
        f"{percent(subject.accuracy(iterative))}, {one['name']} (one step) "
        f"{percent(subject.accuracy(one))}, a difference of {worst.points} points"
    )
    evidence = {
        "one_step": one["name"],
        "iterative": iterative["name"],
        "one_step_accuracy": round(subject.accuracy(one), 4),
        "iterative_accuracy": round(subject.accuracy(iterative), 4),
        "iterative_minus_one_step": worst.evidence(),
    }
    if worst.value > LEAST and worst.low > 0:
        text = f"Many steps do less than one: {numbers}."
        return alarm(text, evidence, f"Trust neither: {STRONGER}.")
    sure = "are not surely weaker than one" if worst.value > 0 else "do no less than one"
    return passed(f"Many steps {sure}: {numbers}.", evidence)


def _one_long_run(threat: Threat) -> bool:
    """Whether the attack takes many steps from one start, and they can cross the ball."""
    several = steps(threat) != 1
    return several and effort(threat, stochastic=False) == steps(threat) and crosses_ball(threat)


@check("more effort")
def more_effort(subject: Subject) -> Judged:
    """More steps, restarts or draws still lower the accuracy: the attack has not converged.

    Inputs: in each ball, white-box attacks with the network's own gradient and at least ten
        gradients per image by their settings (steps x restarts, x draws where the model is noisy).
    Computation: the one with most gradients against the strongest of those with at most half as
        many.
    Threshold: alarm where its accuracy falls below the 95% interval of the other's, and the paired
        difference is surely above zero: "by more than the interval".
    """
    sides = []
    for threats in subject.balls.values():
        sized = [
            (t, size)
            for t in white_box(threats)
            if native(t) and (size := effort(t, subject.stochastic)) and size >= FEWEST
        ]
        largest = max((size for _, size in sized), default=0)
        short = [t for t, size in sized if size <= largest / 2]
        sides.append((short, [t for t, size in sized if size == largest]))
    most = largest_fall(subject, sides)
    if most is None:
        return not_applicable(
            "No ball has two attacks with this model's gradient, one twice as long."
        )
    shorter, longer, before = most.before, most.after, most.left
    few, many = (effort(t, subject.stochastic) for t in (shorter, longer))
    numbers = (
        f"{percent(before.value)} ({before.range}) under {shorter['name']}, {few} gradients per "
        f"image, and {percent(subject.accuracy(longer))} under {longer['name']}, {many}"
    )
    evidence = {
        "shorter": shorter["name"],
        "longer": longer["name"],
        "shorter_gradients": few,
        "longer_gradients": many,
        "shorter_accuracy": before.evidence(),
        "longer_accuracy": round(subject.accuracy(longer), 4),
        "fall": most.fall.evidence(),
    }
    if most.sure:
        return alarm(
            f"More steps, restarts or draws still lower the accuracy: {numbers}.", evidence,
            "Raise steps, restarts and eot until two attacks in a row agree; until then the "
            "accuracy is an upper bound.",
        )  # fmt: skip
    return passed(f"More effort does not surely gain more than the interval: {numbers}.", evidence)


@check("growing eps")
def growing_eps(subject: Subject) -> Judged:
    """The accuracy does not reach about zero as eps grows: the attack gets stuck.

    Inputs: white-box attacks of one card at two radii or more, the largest at least 0.5 in
        L-infinity (in L2 and L1 as far in the mean over pixels), where every image can become
        plain grey.
    Computation: accuracy at the largest radius, under the strongest such card.
    Threshold: alarm where its interval lies above 5%. No model can recognise what is no longer
        there; 5% leaves room for a noisy one that is right by luck.
    """
    cards: dict[tuple[str, str], list[Threat]] = {}
    for threat in white_box(subject.attacks):
        cards.setdefault((threat["card"], threat["norm"]), []).append(threat)
    ends = []
    for threats in cards.values():
        largest = max(threats, key=lambda threat: float(threat["eps"]))
        several = len({threat["eps"] for threat in threats}) > 1
        if several and _reach(subject, largest) >= EVERYWHERE:
            ends.append(largest)
    end = subject.strongest(ends)
    if end is None:
        return not_applicable("No attack was run at growing radii up to 0.5 or more.")
    left = share(subject.known(end))
    curve = sorted(cards[end["card"], end["norm"]], key=lambda threat: float(threat["eps"]))
    evidence = {
        "card": end["card"],
        "norm": end["norm"],
        "eps": [threat["eps"] for threat in curve],
        "accuracy": [round(subject.accuracy(threat), 4) for threat in curve],
        "at_the_largest": left.evidence(),
    }
    numbers = f"{percent(left.value)} ({left.range}) at eps = {end['eps']:g} under {end['card']}"
    if left.low > REMAINS:
        return alarm(
            f"The accuracy does not fall to zero as eps grows: it is {numbers}.", evidence,
            f"The gradients lead nowhere, since every image is within reach: {STRONGER}.",
        )  # fmt: skip
    return passed(f"The accuracy falls to about zero as eps grows: {numbers}.", evidence)


def _reach(subject: Subject, threat: Threat) -> float:
    """How far every pixel can move at once."""
    pixels = math.prod((subject.cells(threat)[0].get("input_shape")) or [0])
    scale = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}.get(threat["norm"], 0.0)
    return float(threat["eps"]) / scale if scale else 0.0
