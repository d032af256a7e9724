"""Does an attack keep what it finds, and come to rest? Earlier iterates, the loss on the way and at
the end.

After Carlini et al. 2019 (arXiv 1902.06705) and Pintor et al. 2022 (2106.09947).
"""

from __future__ import annotations

import numpy as np

from robench.show.diagnostics.estimate import LEAST, Estimate, share
from robench.show.diagnostics.finding import STRONGER, Finding, percent
from robench.show.diagnostics.subject import Subject, steps, white_box
from robench.show.results import Threat
from robench.show.statistics import Floats

TAIL = 10
"""Steps at the end in which the loss should have come to rest."""
PACE = 0.5
"""Share of the mean pace of a run at which its loss may still rise at the end."""

LOST = 0.25
"""Share of what a run had gained of loss that it may give back; 402 runs of published reports lost
4% at most."""
LUCK = 4.0
"""Standard errors by which draws alone may make the loss of a noisy model fall."""
SMOOTHED = 3
"""Steps that losses are averaged over, so that one that goes to and fro is not lost."""

ITERATES, WAY, LOSS = "earlier iterates", "loss on the way", "loss at the end"


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
        f"Attacks keep what they find: {percent(lost.value)} of the images were misclassified on "
        f"the way of {threat['name']} and are right at its end."
    )
    return Finding(ITERATES, "pass", text, evidence)


def loss_on_the_way(subject: Subject) -> Finding:
    """The loss falls while the attack raises it: its gradients point elsewhere, or its steps are
    too long (Pintor et al.: increasing loss).

    Inputs: mean loss at each gradient (loss_trace) of the first run of every white-box attack of 30
        steps or more, which is what published folders keep; all images go through that one.
    Computation: means over three steps; from the highest to the last, relative to the rise from the
        start to the highest; of the attack that gives back most, mean over seeds. The losses of a
        noisy model are of other draws at each step: what these alone may do (four standard errors,
        from the second differences of the run) is no fall.
    Threshold: alarm above a quarter, or where the last lies below the start.
    """
    found: list[tuple[float, Threat, Floats]] = []
    for threat in white_box([t for ts in subject.balls.values() for t in ts]):
        runs = [_first_run(cell, steps(threat) or 0) for cell in subject.cells(threat)]
        known = [run for run in runs if run is not None]
        if _long(threat) and known and len(known) == len(runs):
            lost = [_given_back(run, subject.stochastic) for run in known]
            found.append((float(np.mean(lost)), threat, known[0]))
    if not found:
        return Finding.not_applicable(WAY, f"No attack of {3 * TAIL} steps or more noted its loss.")
    most, threat, run = max(found, key=lambda item: item[0])
    evidence = {
        "attack": threat["name"],
        "given_back": {t["name"]: round(share, 4) for share, t, _ in found},
        "loss_at_start": round(float(run[0]), 4),
        "highest_loss": round(float(run.max()), 4),
        "loss_at_the_end": round(float(run[-1]), 4),
    }
    numbers = f"{percent(most)} of what {threat['name']} had gained at its highest"
    if most > LOST:
        return Finding(
            WAY, "alarm", f"The loss falls while it is to be raised: by the end {numbers} is gone.",
            evidence, f"Give the attack shorter steps, or do not follow this gradient: {STRONGER}.",
        )  # fmt: skip
    return Finding(WAY, "pass", f"Attacks raise the loss: by the end {numbers} is gone.", evidence)


def _given_back(run: Floats, noisy: bool = False) -> float:
    """Of the rise of a loss, how much is gone at the end; 1 where it ends below its start."""
    smooth = np.convolve(run, np.ones(SMOOTHED) / SMOOTHED, "valid")
    start, highest, end = run[0], max(smooth.max(), run[0]), smooth[-1]
    fallen = highest - end
    if noisy:  # a second difference of independent numbers has six times their variance
        error = np.sqrt(np.mean(np.diff(run, 2) ** 2) / 6) * np.sqrt(2 / SMOOTHED)
        fallen = max(fallen - LUCK * error, 0.0)
    if fallen <= 1e-4 * max(abs(highest), abs(start)):
        return 0.0
    return min(float(fallen / max(highest - start, 1e-12)), 1.0)


def loss_at_the_end(subject: Subject) -> Finding:
    """The loss still moves over the last ten steps: the attack was stopped too early.

    Inputs: mean loss at each gradient (loss_trace) of the longest white-box attack, in its first
        run: the one run that all images go through; later ones are left to those that still stand.
    Computation: rise from the mean of steps N-10..N-6 to that of N-5..N-1, doubled, which is the
        rise over ten steps, relative to the mean rise over ten steps of the whole run; mean over
        seeds.
    Threshold: alarm above half the mean pace, where the rise exceeds twice its standard error. A
        run that has converged is near 0, one that rises evenly to its end is at 1. Runs of fewer
        than 30 steps, and those that ended early because every image was broken, say nothing.
    """
    found = [t for ts in subject.balls.values() for t in white_box(ts) if _long(t)]
    for threat in sorted(found, key=lambda threat: -(steps(threat) or 0)):
        runs = [_first_run(cell, steps(threat) or 0) for cell in subject.cells(threat)]
        known = [run for run in runs if run is not None]
        if len(known) == len(runs):
            return _at_the_end(threat, np.stack(known))
    return Finding.not_applicable(
        LOSS, f"No attack of {3 * TAIL} steps or more went to its end with its loss noted."
    )


def _at_the_end(threat: Threat, runs: Floats) -> Finding:
    """runs: (seeds, steps)."""
    length, half = runs.shape[1], TAIL // 2
    risen = runs.max(axis=1) - runs[:, 0]
    if not (risen > 1e-6).all():
        return Finding.not_applicable(LOSS, f"The loss never rose under {threat['name']}.")
    last, before = runs[:, -half:], runs[:, -2 * half : -half]
    whole = risen * TAIL / length
    paces = 2 * (last.mean(axis=1) - before.mean(axis=1)) / whole
    errors = 2 * np.sqrt((last.var(axis=1, ddof=1) + before.var(axis=1, ddof=1)) / half) / whole
    pace, error = float(paces.mean()), float(np.sqrt((errors**2).sum()) / len(runs))
    evidence = {
        "attack": threat["name"],
        "steps": length,
        "pace_by_seed": paces.round(4).tolist(),
        "loss_at_start": runs[:, 0].round(4).tolist(),
        "loss_ten_steps_before_the_end": runs[:, -TAIL].round(4).tolist(),
        "loss_at_the_end": runs[:, -1].round(4).tolist(),
    }
    numbers = f"the last {TAIL} of {length} steps of {threat['name']} at {percent(pace)}"
    if pace > PACE and pace > 2 * error:
        text = f"The loss still rises over {numbers} of the pace of the whole run."
        return Finding(LOSS, "alarm", text, evidence, "Give the attack more steps, or longer ones.")
    rest = "has come to rest" if pace <= PACE else "is not surely still rising"
    text = f"The loss {rest}: it rises over {numbers} of the pace of the whole run."
    return Finding(LOSS, "pass", text, evidence)


def _long(threat: Threat) -> bool:
    return (steps(threat) or 0) >= 3 * TAIL


def _first_run(cell: dict[str, object], length: int) -> Floats | None:
    """The losses of the attack's first run; None where it is not whole."""
    trace, runs = cell.get("loss_trace"), cell.get("loss_runs") or [0]
    assert isinstance(runs, list)
    if not isinstance(trace, list):
        return None
    end = runs[1] if len(runs) > 1 else len(trace)
    run = np.asarray(trace[:end], dtype=float)
    return run if len(run) == length else None
