"""Attacks against the truth: how many of the breakable images each finds, how near it gets, and at
what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robench.show.balls import Ball
from robench.show.diagnostics.subject import ASIDE
from robench.show.gaps import Gap, does, gaps
from robench.show.leaderboard import CLEAN
from robench.show.report.measurements import measurements
from robench.show.report.plots.drawing import Drawing, Sketch, number, tones
from robench.show.report.plots.figure import figure, logarithmic, percent_ticks, tidy
from robench.show.report.plots.scatter import write_names
from robench.show.results import Model, Results, Threat
from robench.show.statistics import wilson
from robench.show.two_sided import balls, ends


@dataclass
class Recall:
    """One attack, over all models without noise and balls in which something is proved.

    breakable: images that the model gets right, but not everywhere in the ball, as far as any
    attack or proof found a point; found: of those, the ones that this attack broke. passes, ms:
    forward and backward passes and milliseconds per image, means over its cells.
    """

    card: str
    does: str
    breakable: int
    found: int
    passes: float
    ms: float


def recalls(results: Results, models: list[Model]) -> list[Recall]:
    """Every attack that meets a model in such a ball, the one that finds most first."""
    found: dict[tuple[str, str], list[tuple[int, int, float, float]]] = {}
    for model in models:
        for threat, numbers in _cells(results, model):
            found.setdefault((str(threat["card"]), does(threat)), []).append(numbers)
    made = []
    for named, cells in found.items():
        breakable, broken, passes, ms = zip(*cells, strict=True)
        means = float(np.mean(passes)), float(np.mean(ms))
        made.append(Recall(*named, sum(breakable), sum(broken), *means))
    known = [one for one in made if one.breakable and one.passes]
    return sorted(known, key=lambda one: (-one.found / one.breakable, one.passes))


def _cells(
    results: Results, model: Model
) -> Iterator[tuple[Threat, tuple[int, int, float, float]]]:
    """An attack, with breakable and found images, passes and milliseconds of an image."""
    clean = results.correct(model, CLEAN)
    if model.get("stochastic") or clean is None:
        return
    for ball in balls(results):
        both = ends(results, model, ball)
        if both is None:
            continue
        breakable = (clean == 1) & (both.survived == 0)
        for threat in results.threats:
            aside = threat["kind"] != "attack" or threat["role"] in ASIDE
            if aside or Ball.of(threat) != ball:
                continue
            correct = results.correct(model, threat["name"])
            if correct is None:
                continue
            cost = measurements(results, model, threat["name"])
            ms = 1000 * (cost.seconds or 0.0) / max(clean.shape[1], 1)
            broken = int((breakable & (correct == 0)).sum())
            yield threat, (int(breakable.sum()), broken, cost.passes, ms)


def _interval(share: float, images: int) -> tuple[float, float]:
    low, high = wilson(np.array(share), images)
    return 100 * float(low), 100 * float(high)


def recall_against_cost(drawing: Drawing) -> Sketch | None:
    """What each attack finds of what can be broken, against what it asks."""
    shown = set(drawing.table["model"])
    models = [model for model in drawing.results.models if model["name"] in shown]
    known = recalls(drawing.results, models) if drawing.results.proofs else []
    if len(known) < 2:
        return None
    shares = [one.found / one.breakable for one in known]
    drawn = figure(6.4, 4.2)
    axes = drawn.subplots()
    axes.scatter([one.passes for one in known], shares, color=tones(1)[0], s=36, zorder=2)
    logarithmic(axes)
    axes.set(xlabel="forward and backward passes per image", ylabel="found of breakable, %")
    tidy(axes)
    axes.set_ylim(-0.02, 1.04)
    axes.set_yticks(*percent_ticks(axes.get_ylim()))
    places = [(one.passes, share) for one, share in zip(known, shares, strict=True)]
    cards = [one.card.removeprefix("truth/") for one in known]
    write_names(drawn, axes, dict(zip(cards, places, strict=True)))
    nearest = gaps(drawing.results, models)
    lines = [
        [
            one.card,
            f"{100 * share:.1f}",
            "{:.1f}–{:.1f}".format(*_interval(share, one.breakable)),
            str(one.found),
            str(one.breakable),
            number(one.passes),
            number(one.ms),
            *([] if not nearest else _gap(nearest.get(one.does))),
        ]
        for one, share in zip(known, shares, strict=True)
    ]
    others = set(nearest) - {one.does for one in known}
    lines += [[nearest[name].card, *["–"] * 6, *_gap(nearest[name])] for name in sorted(others)]
    return Sketch(
        drawn,
        "What attacks find of what can be broken",
        "All models without noise and all balls in which something is proved. Breakable are images "
        "that the model gets right and for which an attack or a proof found a point of the ball "
        "that it gets wrong; where images are open there may be more. Further up finds more, "
        "further left asks less; an image that is broken is asked about no more."
        + _about(list(nearest.values())),

        ["attack", "found of breakable", "95% interval", "found", "breakable", "passes per image",
         "ms per image", *(["median gap", "times as far", "images of the gap"] if nearest else [])],
        lines,
    )  # fmt: skip


def _gap(gap: Gap | None) -> list[str]:
    """Cells of the table: how much farther an attack goes than it had to."""
    if gap is None:
        return ["–"] * 3
    if np.isinf(gap.median):
        return ["none found", "–", str(len(gap.exact))]
    return [number(gap.median), f"{gap.times:.2f}", str(len(gap.exact))]


def _about(nearest: Sequence[Gap]) -> str:
    """What the columns of gaps say; nothing where there are none."""
    if not nearest:
        return ""
    return (
        " The gap is how much farther away an attack's nearest wrong image lies than the nearest "
        "of all, in the norm of the ball: of images for which a proof closed in on that from both "
        f"sides, by halves, to within {max(gap.step for gap in nearest):.2g}; by so little may an "
        "attack that chooses its own distances be nearer. Where one finds nothing in the whole "
        "ball its gap is without end; none found: so for most images."
    )
