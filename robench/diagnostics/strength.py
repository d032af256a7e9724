"""Does an attack that should be stronger do more? One step against many, more effort, growing eps,
earlier iterates, the loss at the end.

After Athalye et al. 2018 (arXiv 1802.00420, section 3.1) and Carlini et al. 2019 (1902.06705).
"""

from __future__ import annotations

import math

import numpy as np

from robench.diagnostics.estimate import Estimate, difference, share
from robench.diagnostics.finding import Finding, percent, points
from robench.diagnostics.subject import (
    Ball,
    Subject,
    crosses_ball,
    effort,
    native,
    settings,
    steps,
    white_box,
)
from robench.results import Threat
from robench.statistics import Floats

LEAST = 0.01
"""Share of images, or difference of accuracies, below which nothing is worth an alarm."""
REMAINS = 0.05
"""Accuracy that may remain where every image can be reached: a noisy model is right by luck."""
EVERYWHERE = 0.5
"""Radius (L-infinity) at which every image can become plain grey."""
FEWEST = 10
"""Gradients per image from which on an attack is more than a sketch."""
TAIL = 10
"""Steps at the end in which the loss should have come to rest."""
PACE = 0.5
"""Share of the mean pace of a run at which its loss may still rise at the end."""

ONE_STEP, EFFORT, GROWING = "one step against many", "more effort", "growing eps"
ITERATES, LOSS = "earlier iterates", "loss at the end"
STRONGER = (
    'attack it with other losses (loss = "margin"), other derivatives (surrogate = "sweep") and '
    "without gradients (square, nattack); what breaks an image counts"
)


def one_step(subject: Subject) -> Finding:
    """An iterative attack is weaker than a single step: its gradients lead nowhere.

    Inputs: in each ball, one-step and iterative white-box attacks with the network's own gradient;
        iterative ones in a single run whose steps add up to the way across the ball.
    Computation: accuracy under the iterative attack minus that under one step, paired by image and
        seed, bootstrap interval corrected for the number of pairs.
    Threshold: alarm where the interval of the largest difference lies above one point. An honest
        iterative attack is rarely weaker at all; a point is what a handful of images can do.
    """
    pairs: list[tuple[Threat, Threat]] = []
    for threats in subject.balls.values():
        plain = [t for t in white_box(threats) if native(t) and steps(t)]
        single = [t for t in plain if steps(t) == 1]
        many = [
            t
            for t in plain
            if steps(t) != 1 and effort(t, stochastic=False) == steps(t) and crosses_ball(t)
        ]
        pairs += [(one, iterative) for one in single for iterative in many]
    if not pairs:
        return Finding.not_applicable(
            ONE_STEP, "No ball has both a one-step attack and an iterative one that can cross it."
        )
    found = [
        (difference(subject.known(many) - subject.known(one), len(pairs)), one, many)
        for one, many in pairs
    ]
    worst, one, many = max(found, key=lambda item: item[0].low)
    numbers = (
        f"{many['name']} ({steps(many)} steps) leaves {percent(subject.accuracy(many))}, "
        f"{one['name']} (one step) {percent(subject.accuracy(one))}"
    )
    evidence = {
        "one_step": one["name"],
        "iterative": many["name"],
        "one_step_accuracy": round(subject.accuracy(one), 6),
        "iterative_accuracy": round(subject.accuracy(many), 6),
        "iterative_minus_one_step": worst.evidence(),
    }
    if worst.low > LEAST:
        text = f"Many steps do less than one: {numbers}, a difference of {_interval(worst)} points."
        return Finding(ONE_STEP, "alarm", text, evidence, f"Trust neither: {STRONGER}.")
    return Finding(ONE_STEP, "pass", f"Many steps do no less than one: {numbers}.", evidence)


def more_effort(subject: Subject) -> Finding:
    """More steps, restarts or draws still lower the accuracy: the attack has not converged.

    Inputs: in each ball, white-box attacks with the network's own gradient and at least ten gradients
        per image by their settings (steps x restarts, x draws where the model is noisy).
    Computation: the one with most gradients against the strongest of those with at most half as many.
    Threshold: alarm where its accuracy falls below the 95% interval of the other's, and the paired
        difference is surely above zero: "by more than the interval".
    """
    found: list[tuple[float, Threat, Threat, Estimate, Estimate]] = []
    for threats in subject.balls.values():
        sized = {
            t["name"]: size
            for t in white_box(threats)
            if native(t) and (size := effort(t, subject.stochastic)) and size >= FEWEST
        }
        plain = [t for t in threats if t["name"] in sized]
        if not plain:
            continue
        largest = max(sized.values())
        longer = subject.strongest([t for t in plain if sized[t["name"]] == largest])
        shorter = subject.strongest([t for t in plain if sized[t["name"]] <= largest / 2])
        if longer is None or shorter is None:
            continue
        fall = difference(subject.known(shorter) - subject.known(longer))
        before = share(subject.known(shorter))
        found.append((before.low - subject.accuracy(longer), shorter, longer, before, fall))
    if not found:
        return Finding.not_applicable(
            EFFORT, "No ball has two attacks with this model's gradient, one twice as long."
        )
    excess, shorter, longer, before, fall = max(found, key=lambda item: item[0])
    few, many = (effort(t, subject.stochastic) for t in (shorter, longer))
    numbers = (
        f"{percent(before.value)} ({_range(before)}) under {shorter['name']}, {few} gradients per "
        f"image, and {percent(subject.accuracy(longer))} under {longer['name']}, {many}"
    )
    evidence = {
        "shorter": shorter["name"],
        "longer": longer["name"],
        "shorter_gradients": few,
        "longer_gradients": many,
        "shorter_accuracy": before.evidence(),
        "longer_accuracy": round(subject.accuracy(longer), 6),
        "fall": fall.evidence(),
    }
    if excess > 0 and fall.low > 0:
        text = f"More steps, restarts or draws still lower the accuracy: {numbers}."
        return Finding(
            EFFORT, "alarm", text, evidence,
            "Raise steps, restarts and eot until two attacks in a row agree; until then the accuracy "
            "is an upper bound.",
        )  # fmt: skip
    return Finding(EFFORT, "pass", f"More effort changes little: {numbers}.", evidence)


def growing_eps(subject: Subject) -> Finding:
    """The accuracy does not reach about zero as eps grows: the attack gets stuck.

    Inputs: white-box attacks of one card at two radii or more, the largest at least 0.5 in L-infinity
        (in L2 and L1 as far in the mean over pixels), where every image can become plain grey.
    Computation: accuracy at the largest radius, under the strongest such card.
    Threshold: alarm where its interval lies above 5%. No model can recognise what is no longer there;
        5% leaves room for a noisy one that is right by luck.
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
        return Finding.not_applicable(
            GROWING, "No attack was run at growing radii up to 0.5 or more."
        )
    left = share(subject.known(end))
    curve = sorted(
        cards[(end["card"], end["norm"])], key=lambda threat: float(threat["eps"])
    )  # fmt: skip
    evidence = {
        "card": end["card"],
        "norm": end["norm"],
        "eps": [threat["eps"] for threat in curve],
        "accuracy": [round(subject.accuracy(threat), 6) for threat in curve],
        "at_the_largest": left.evidence(),
    }
    numbers = f"{percent(left.value)} ({_range(left)}) at eps = {end['eps']:g} under {end['card']}"
    if left.low > REMAINS:
        text = f"The accuracy does not fall to zero as eps grows: it is {numbers}."
        return Finding(
            GROWING, "alarm", text, evidence,
            f"The gradients lead nowhere, since every image is within reach: {STRONGER}.",
        )  # fmt: skip
    return Finding(
        GROWING, "pass", f"The accuracy falls to about zero as eps grows: {numbers}.", evidence
    )


def earlier_iterates(subject: Subject) -> Finding:
    """An iterate on the way was adversarial and the final image is not: the attack throws away what
    it found, or the model answers differently when asked again.

    Inputs: models that say they are deterministic; white-box attacks that noted where a gradient was
        taken at a misclassified point of the ball.
    Computation: share of images that were misclassified on the way and are right at the end.
    Threshold: alarm where the interval of the largest share lies above 1% of the images: a final step
        may undo a few where the attack keeps the last iterate.
    """
    if subject.stochastic:
        return Finding.not_applicable(ITERATES, "The model is noisy: each draw may differ.")
    shares: list[tuple[Estimate, Threat]] = []
    for threat in white_box([t for ts in subject.balls.values() for t in ts]):
        fooled = subject.column(threat, "fooled_on_the_way")
        if fooled is not None:
            shares.append((share(fooled * subject.known(threat)), threat))
    if not shares:
        return Finding.not_applicable(ITERATES, "No attack noted what its iterates were taken for.")
    lost, threat = max(shares, key=lambda item: item[0].low)
    evidence = {"attack": threat["name"], "share": lost.evidence()}
    if lost.low > LEAST:
        text = (
            f"{percent(lost.value)} ({_range(lost)}) of the images were misclassified on the way of "
            f"{threat['name']} and are right at its end."
        )
        return Finding(
            ITERATES, "alarm", text, evidence,
            'Keep the best iterate (keep = "best"), and ask the model twice about the same image.',
        )  # fmt: skip
    text = (
        "What an attack found on its way it kept: at most "
        f"{percent(lost.value)} of the images were misclassified on the way of {threat['name']} only."
    )
    return Finding(ITERATES, "pass", text, evidence)


def loss_at_the_end(subject: Subject) -> Finding:
    """The loss still moves over the last ten steps: the attack was stopped too early.

    Inputs: mean loss at each gradient (loss_trace) of the longest white-box attack, in its first run:
        the one run that all images go through; later ones are left to those that still stand.
    Computation: rise from the mean of steps N-10..N-6 to that of N-5..N, doubled, which is the rise over
        ten steps, relative to the mean rise over ten steps of the whole run; mean over seeds.
    Threshold: alarm above half the mean pace, where the rise exceeds twice its standard error. A run
        that has converged is near 0, one that rises evenly to its end is at 1. Runs of fewer than 30
        steps, and those that ended early because every image was broken, say nothing.
    """
    long = [t for t in white_box(subject.attacks) if (steps(t) or 0) >= 3 * TAIL]
    counted = [t for ts in subject.balls.values() for t in ts]
    long = sorted((t for t in long if t in counted), key=lambda t: -(steps(t) or 0))
    for threat in long:
        runs = [_first_run(cell, steps(threat) or 0) for cell in subject.cells(threat)]
        known = [run for run in runs if run is not None]
        if known and len(known) == len(runs):
            return _moving(threat, known)
    return Finding.not_applicable(
        LOSS, f"No attack of {3 * TAIL} steps or more went on to its end with its loss noted."
    )


def _moving(threat: Threat, runs: list[Floats]) -> Finding:
    length = len(runs[0])
    half = TAIL // 2
    paces, errors = [], []
    for run in runs:
        last, before = run[-half:], run[-2 * half : -half]
        whole = max(float(run.max() - run[0]), 1e-9) * TAIL / length
        error = math.sqrt((last.var(ddof=1) + before.var(ddof=1)) / half)
        paces.append(2 * float(last.mean() - before.mean()) / whole)
        errors.append(2 * error / whole)
    pace = float(np.mean(paces))
    error = math.sqrt(float(np.sum(np.square(errors)))) / len(runs)
    evidence = {
        "attack": threat["name"],
        "steps": length,
        "pace_by_seed": [round(value, 4) for value in paces],
        "loss": [[round(float(run[i]), 4) for i in (0, -TAIL, -1)] for run in runs],
    }
    numbers = f"the last {TAIL} of {length} steps of {threat['name']} at {percent(pace)}"
    if pace > PACE and pace > 2 * error:
        text = f"The loss still rises over {numbers} of the pace of the whole run."
        return Finding(LOSS, "alarm", text, evidence, "Give the attack more steps, or longer ones.")
    text = f"The loss has come to rest: it moves over {numbers} of the pace of the whole run."
    return Finding(LOSS, "pass", text, evidence)


def _first_run(cell: dict[str, object], length: int) -> Floats | None:
    """The losses of the attack's first run; None where it is not whole."""
    trace, runs = cell.get("loss_trace"), cell.get("loss_runs") or [0]
    assert isinstance(runs, list)
    if not isinstance(trace, list):
        return None
    end = runs[1] if len(runs) > 1 else len(trace)
    run = np.asarray(trace[:end], dtype=float)
    return run if len(run) == length else None


def _reach(subject: Subject, threat: Threat) -> float:
    """How far every pixel can move at once."""
    pixels = math.prod((subject.cells(threat)[0].get("input_shape")) or [0])
    scale = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}.get(threat["norm"], 0.0)
    return float(threat["eps"]) / scale if scale else 0.0


def _range(estimate: Estimate) -> str:
    return f"{points(estimate.low)} to {points(estimate.high)}"


def _interval(estimate: Estimate) -> str:
    return f"{points(estimate.value)} ({_range(estimate)})"


__all__ = [
    "Ball", "earlier_iterates", "growing_eps", "loss_at_the_end", "more_effort", "one_step",
    "settings",
]  # fmt: skip
