"""Published claims, judged against the measured numbers: holds, weaker, or does not hold.

A claim says that one model keeps more accuracy than another under a threat. It holds where the
measured difference is surely above zero (95% bootstrap over seeds and images, on the same images)
and at least half of the published one; it is weaker where it is surely above zero but smaller;
else it does not hold. A claim whose paper measured other networks or data has no figures to stand
beside ours: under its own threat it holds where the difference is surely above zero, and what the
strong evaluation leaves is held against that difference. A model that answers clean images no
better than chance did not learn: no claim about it is judged. The same rule is applied to the
strong evaluation, and to a control that shares the suspected cause: what the model has and its
control lacks is what is owed to the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from robench.digest import derived_seed
from robench.show.diagnostics.estimate import percent
from robench.show.results import Results
from robench.show.statistics import (
    Floats,
    percentile_interval,
    resampled_means,
    shared_resampling,
    wilson,
)

WORST = "worst case"
CLEAN = "clean"
ENOUGH = 0.5
"""Share of the published difference that must be found for a claim to hold."""


class Claim(TypedDict):
    """A published claim with what was measured."""

    text: str
    verdict: str
    """holds, weaker, does not hold, did not learn, or cannot be judged; under the paper's
    threat."""
    strong_verdict: str
    """The same under the strong evaluation; empty where that is the paper's threat."""
    evidence: str


def judge(results: Results) -> list[Claim]:
    """Every claim of the report's card, in its order."""
    return [_judge(results, claim) for claim in results.manifest["report"].get("claims", [])]


def _judge(results: Results, claim: Mapping[str, Any]) -> Claim:
    said, threat = claim.get("published"), claim["threat"]
    published = said[0] - said[1] if said else 0.0
    verdict, found, measured = _compare(results, claim["model"], claim["than"], threat, published)
    if said:
        sentences = [
            f"Published under {threat}: {percent(said[0])} against {percent(said[1])} "
            f"({_points(published)} points).",
            f"Measured: {found}.",
        ]
    else:
        sentences = [f"Measured under {threat}: {found}."]
        published = max(measured, 0.0)
    strong = ""
    if claim["strong"] != threat:
        of = (claim["model"], claim["than"], claim["strong"])
        strong, strongly, _ = _compare(results, *of, published)
        sentences.append(f"Under {claim['strong']}: {strongly}: {strong}.")
        if not said:
            sentences += _left(results, claim)
    if claim.get("control"):
        _, control, _ = _compare(
            results, claim["control"], claim["than"], claim["threat"], published
        )
        sentences.append(f"The control {claim['control']} under {claim['threat']}: {control}.")
        sentences += [
            _beside(results, claim["model"], claim["control"], threat, published)
            for threat in dict.fromkeys((claim["threat"], claim["strong"]))
        ]
    evidence = " ".join(sentences)
    return Claim(text=claim["text"], verdict=verdict, strong_verdict=strong, evidence=evidence)


def _compare(
    results: Results, model: str, than: str, threat: str, published: float
) -> tuple[str, str, float]:
    """Verdict and numbers of one difference, and the difference; 0 where it was not measured."""
    first, second = _accuracy(results, model, threat), _accuracy(results, than, threat)
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return "cannot be judged", "not measured completely", 0.0
    difference = float(first.mean() - second.mean())
    low, high = _interval(first, second)
    sign = 1.0 if published >= 0 else -1.0
    sure = low > 0 if sign > 0 else high < 0
    unlearnt = next((name for name in (model, than) if _at_chance(results, name)), None)
    if unlearnt is not None:
        verdict = "did not learn"
    elif not sure:
        verdict = "does not hold"
    else:
        verdict = "holds" if abs(difference) >= ENOUGH * abs(published) else "weaker"
    numbers = (
        f"{percent(first.mean())} against {percent(second.mean())} "
        f"({_points(difference)} points, 95% interval {_points(low)} to {_points(high)})"
    )
    if unlearnt is not None:
        numbers += f"; {unlearnt} answers clean images no better than chance"
    return verdict, numbers, difference


def _left(results: Results, claim: Mapping[str, Any]) -> list[str]:
    """What the strong evaluation leaves of the accuracy that the paper's threat shows."""
    parts = []
    for name in (claim["model"], claim["than"]):
        shown = _accuracy(results, name, claim["threat"])
        left = _accuracy(results, name, claim["strong"])
        if shown is None or left is None:
            return []
        parts.append(f"{name} from {percent(shown.mean())} to {percent(left.mean())}")
    return [f"The strong evaluation takes {' and '.join(parts)}."]


def _beside(results: Results, model: str, control: str, threat: str, published: float) -> str:
    """What a model has and its control lacks, in a sentence."""
    first, second = _accuracy(results, model, threat), _accuracy(results, control, threat)
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return f"Beside its control under {threat}: not measured completely."
    low, high = _interval(first, second)
    more = low > 0 if published >= 0 else high < 0
    owed = "that much is owed to the method" if more else "nothing is surely owed to the method"
    difference = _points(float(first.mean() - second.mean()))
    return (
        f"Beside its control under {threat}: {difference} points "
        f"({_points(low)} to {_points(high)}): {owed}."
    )


def _at_chance(results: Results, name: str) -> bool:
    """Whether a model's clean accuracy is not surely above that of always naming the class that
    most of the images are of."""
    model = results.by_name[name]
    correct = results.correct(model, CLEAN)
    rows = results.table(name, model["seeds"][0]["seed"], CLEAN)
    if correct is None or rows is None or "label" not in rows.column_names:
        return False
    labels = rows.column("label").to_numpy()
    chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    low, _ = wilson(np.asarray(correct.mean()), len(labels))
    return bool(low <= chance)


def _accuracy(results: Results, name: str, threat: str) -> Floats | None:
    """(seeds, images), under one threat or as the worst case over all attacks."""
    model = results.by_name.get(name)
    if model is None:
        return None
    if threat != WORST:
        return results.correct(model, threat)
    return results.worst_case(model) if results.attacked else None


def _interval(first: Floats, second: Floats) -> tuple[float, float]:
    """Bootstrap over seeds of each model and over the images that both share."""
    rng = np.random.default_rng(derived_seed("claim", first.shape, second.shape))
    drawn, others = shared_resampling(len(first), len(second), first.shape[1], rng)
    gaps = resampled_means(first[None], drawn) - resampled_means(second[None], others)
    low, high = percentile_interval(gaps[:, 0])
    return float(low), float(high)


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
