"""Does an attack keep what it finds, and come to rest? Earlier iterates, the loss on the way and at
the end.

After Carlini et al. 2019 (arXiv 1902.06705) and Pintor et al. 2022 (2106.09947).
"""

from __future__ import annotations

import numpy as np

from robench.show.diagnostics.estimate import LEAST, percent, share
from robench.show.diagnostics.finding import STRONGER, Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject, steps
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


@check("earlier iterates")
def earlier_iterates(subject: Subject) -> Judged:
    """An iterate on the way was adversarial and the final image is not: the attack throws away what
    it found, or the model answers differently when asked again.

    Inputs: models that say they are deterministic; white-box attacks that noted where a gradient
        was taken at a misclassified point of the ball.
    Computation: share of images that were misclassified on the way and are right at the end.
    Threshold: alarm where the interval of the largest share lies above 1% of the images: a final
        step may undo a few where the attack keeps the last iterate.
    """
    if subject.stochastic:
        return not_applicable("The model is noisy: each draw may differ.")
    shares = [
        (share(fooled * subject.known(threat)), threat)
        for threat in subject.white_box
        if (fooled := subject.column(threat, "fooled_on_the_way")) is not None
    ]
    if not shares:
        return not_applicable("No attack noted what its iterates were taken for.")
    lost, threat = max(shares, key=lambda item: item[0].low)
    evidence = {"attack": threat["name"], "share": lost.evidence()}
    if lost.low > LEAST:
        return alarm(
            f"{percent(lost.value)} ({lost.range}) of the images were misclassified on the way of "
            f"{threat['name']} and are right at its end.",
            evidence,
            'Keep the best iterate (keep = "best"), and ask the model twice about the same image.',
        )
    return passed(
        f"Attacks keep what they find: {percent(lost.value)} of the images were misclassified on "
        f"the way of {threat['name']} and are right at its end.",
        evidence,
    )


@check("loss on the way")
def loss_on_the_way(subject: Subject) -> Judged:
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
    lost: list[tuple[float, Threat, Floats]] = []
    for threat in subject.white_box:
        runs = _first_runs(subject, threat)
        if runs is not None:
            shares = [_given_back(run, subject.stochastic) for run in runs]
            lost.append((float(np.mean(shares)), threat, runs[0]))
    if not lost:
        return not_applicable(f"No attack of {3 * TAIL} steps or more noted its loss.")
    most, threat, run = max(lost, key=lambda item: item[0])
    evidence = {
        "attack": threat["name"],
        "given_back": {t["name"]: round(share, 4) for share, t, _ in lost},
        "loss_at_start": round(float(run[0]), 4),
        "highest_loss": round(float(run.max()), 4),
        "loss_at_the_end": round(float(run[-1]), 4),
    }
    numbers = f"{percent(most)} of what {threat['name']} had gained at its highest"
    if most > LOST:
        return alarm(
            f"The loss falls while it is to be raised: by the end {numbers} is gone.", evidence,
            f"Give the attack shorter steps, or do not follow this gradient: {STRONGER}.",
        )  # fmt: skip
    return passed(f"Attacks raise the loss: by the end {numbers} is gone.", evidence)


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


@check("loss at the end")
def loss_at_the_end(subject: Subject) -> Judged:
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
    for threat in sorted(subject.white_box, key=lambda threat: -(steps(threat) or 0)):
        runs = _first_runs(subject, threat)
        if runs is not None:
            return _at_the_end(threat, runs)
    return not_applicable(
        f"No attack of {3 * TAIL} steps or more went to its end with its loss noted."
    )


def _at_the_end(threat: Threat, runs: Floats) -> Judged:
    """runs: (seeds, steps)."""
    length, half = runs.shape[1], TAIL // 2
    risen = runs.max(axis=1) - runs[:, 0]
    if not (risen > 1e-6).all():
        return not_applicable(f"The loss never rose under {threat['name']}.")
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
        return alarm(text, evidence, "Give the attack more steps, or longer ones.")
    rest = "has come to rest" if pace <= PACE else "is not surely still rising"
    return passed(
        f"The loss {rest}: it rises over {numbers} of the pace of the whole run.", evidence
    )


def _first_runs(subject: Subject, threat: Threat) -> Floats | None:
    """The losses of a long attack's first run, (seeds, steps); None where one is not whole."""
    length, runs = steps(threat) or 0, []
    for cell in subject.cells(threat):
        trace, starts = cell.get("loss_trace") or [], cell.get("loss_runs") or [0]
        runs.append(trace[: starts[1] if len(starts) > 1 else None])
    whole = length >= 3 * TAIL and all(len(run) == length for run in runs)
    return np.array(runs, dtype=float) if whole else None
