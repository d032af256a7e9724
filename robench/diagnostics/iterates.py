"""Does an attack keep what it finds, and does it come to rest? Earlier iterates, the loss at the
end.

After Carlini et al. 2019 (arXiv 1902.06705).
"""

from __future__ import annotations

import math

import numpy as np

from robench.diagnostics.estimate import LEAST, Estimate, share
from robench.diagnostics.finding import Finding, percent
from robench.diagnostics.subject import Subject, steps, white_box
from robench.results import Threat
from robench.statistics import Floats

TAIL = 10
"""Steps at the end in which the loss should have come to rest."""
PACE = 0.5
"""Share of the mean pace of a run at which its loss may still rise at the end."""

ITERATES, LOSS = "earlier iterates", "loss at the end"


def earlier_iterates(subject: Subject) -> Finding:
    """An iterate on the way was adversarial and the final image is not: the attack throws away what
    it found, or the model answers differently when asked again.

    Inputs: models that say they are deterministic; white-box attacks that noted where a gradient
        was taken at a misclassified point of the ball.
    Computation: share of images that were misclassified on the way and are right at the end.
    Threshold: alarm where the interval of the largest share lies above 1% of the images: a final
        step may undo a few where the attack keeps the last iterate.
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
            f"{percent(lost.value)} ({lost.range}) of the images were misclassified on the way of "
            f"{threat['name']} and are right at its end."
        )
        return Finding(
            ITERATES, "alarm", text, evidence,
            'Keep the best iterate (keep = "best"), and ask the model twice about the same image.',
        )  # fmt: skip
    text = (
        f"Attacks keep what they find: {percent(lost.value)} of the images were misclassified on the "
        f"way of {threat['name']} and are right at its end."
    )
    return Finding(ITERATES, "pass", text, evidence)


def loss_at_the_end(subject: Subject) -> Finding:
    """The loss still moves over the last ten steps: the attack was stopped too early.

    Inputs: mean loss at each gradient (loss_trace) of the longest white-box attack, in its first
        run: the one run that all images go through; later ones are left to those that still stand.
    Computation: rise from the mean of steps N-10..N-6 to that of N-5..N, doubled, which is the
        rise over ten steps, relative to the mean rise over ten steps of the whole run; mean over
        seeds.
    Threshold: alarm above half the mean pace, where the rise exceeds twice its standard error. A
        run that has converged is near 0, one that rises evenly to its end is at 1. Runs of fewer
        than 30 steps, and those that ended early because every image was broken, say nothing.
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
