"""Published claims, judged against the measured numbers: holds, weaker, or does not hold.

A claim says that one model keeps more accuracy than another under a threat. It holds where the
measured difference is surely above zero (95% bootstrap over seeds and images, on the same images)
and at least half of the published one; it is weaker where it is surely above zero but smaller;
else it does not hold. The same rule is applied to the strong evaluation, and to a control that
shares the suspected cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from robench.digest import derived_seed
from robench.results import Results
from robench.statistics import Floats, percentile_interval, resampling

WORST = "worst case"
ENOUGH = 0.5
"""Share of the published difference that must be found for a claim to hold."""


class Claim(TypedDict):
    """A published claim with what was measured."""

    text: str
    verdict: str
    """holds, weaker, does not hold, or cannot be judged; under the paper's threat."""
    strong_verdict: str
    """The same under the strong evaluation; empty where that is the paper's threat."""
    evidence: str


def judge(results: Results) -> list[Claim]:
    """Every claim of the report's card, in its order."""
    return [_judge(results, claim) for claim in results.manifest["report"].get("claims", [])]


def _judge(results: Results, claim: Mapping[str, Any]) -> Claim:
    published = claim["published"][0] - claim["published"][1]
    verdict, found = _compare(results, claim["model"], claim["than"], claim["threat"], published)
    sentences = [
        f"Published under {claim['threat']}: {_percent(claim['published'][0])} against "
        f"{_percent(claim['published'][1])} ({_points(published)} points).",
        f"Measured: {found}.",
    ]
    strong = ""
    if claim["strong"] != claim["threat"]:
        of = (claim["model"], claim["than"], claim["strong"])
        strong, strongly = _compare(results, *of, published)
        sentences.append(f"Under {claim['strong']}: {strongly}: {strong}.")
    if claim.get("control"):
        _, control = _compare(results, claim["control"], claim["than"], claim["threat"], published)
        sentences.append(f"The control {claim['control']} under {claim['threat']}: {control}.")
    return Claim(
        text=claim["text"],
        verdict=verdict,
        strong_verdict=strong,
        evidence=" ".join(sentences),
    )


def _compare(
    results: Results, model: str, than: str, threat: str, published: float
) -> tuple[str, str]:
    """Verdict and numbers of one difference."""
    first, second = _accuracy(results, model, threat), _accuracy(results, than, threat)
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return "cannot be judged", "not measured completely"
    difference = float(first.mean() - second.mean())
    low, high = _interval(first, second)
    sign = 1.0 if published >= 0 else -1.0
    sure = low > 0 if sign > 0 else high < 0
    if not sure:
        verdict = "does not hold"
    else:
        verdict = "holds" if abs(difference) >= ENOUGH * abs(published) else "weaker"
    numbers = (
        f"{_percent(first.mean())} against {_percent(second.mean())} "
        f"({_points(difference)} points, 95% interval {_points(low)} to {_points(high)})"
    )
    return verdict, numbers


def _accuracy(results: Results, name: str, threat: str) -> Floats | None:
    """(seeds, images), under one threat or as the worst case over all attacks."""
    model = next((m for m in results.models if m["name"] == name), None)
    if model is None:
        return None
    if threat != WORST:
        return results.correct(model, threat)
    return results.worst_case(model) if results.attacked else None


def _interval(first: Floats, second: Floats) -> tuple[float, float]:
    """Bootstrap over seeds of each model and over the images that both share."""
    rng = np.random.default_rng(derived_seed("claim", first.shape, second.shape))
    drawn = resampling(len(first), first.shape[1], rng)
    others = resampling(len(second), 1, rng).seeds
    ours = np.einsum("bs,si,bi->b", drawn.seeds, first, drawn.images, optimize=True)
    theirs = np.einsum("bs,si,bi->b", others, second, drawn.images, optimize=True)
    low, high = percentile_interval(ours - theirs)
    return float(low), float(high)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
