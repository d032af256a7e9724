"""mCE and relative mCE: corruption errors normalised by those of a named baseline.

Hendrycks & Dietterich 2019 (arXiv 1903.12261), section 4.1, with E the error (1 - accuracy):

    CE_c  = sum_s E_{s,c}(f) / sum_s E_{s,c}(baseline)                            mCE:  mean over c
    rCE_c = sum_s (E_{s,c}(f) - E_clean(f)) / sum_s (the same of the baseline)    rmCE: mean over c

A kind under which the baseline makes no error at all is left out of mCE; one that hardly harms it
(a division by about zero) out of the relative mCE; for all models of a data set alike, and said.
Where the baseline makes no error in so many bootstrap samples that an end of the interval would be
infinite, there is a value without an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robench.digest import derived_seed
from robench.show.results import Model, Results
from robench.show.statistics import (
    LEVEL,
    Floats,
    percentile_interval,
    resampled_means,
    shared_resampling,
)

HARM = 0.01
"""Error that a kind must add to the baseline's, on average, to enter the relative mCE."""


@dataclass(frozen=True)
class CorruptionError:
    """A model's errors against its baseline's, as ratios (1 = as bad as the baseline).

    Intervals are bootstrapped over seeds and, clustered, over images: an image comes with all its
    corruptions, for the model and for the baseline alike.
    """

    model: str
    baseline: str
    mce: tuple[float, float, float]
    """Value and 95% interval; NaN where there is none."""
    relative: tuple[float, float, float]
    relative_kinds: int
    """Kinds that harm the baseline enough to enter the relative mCE."""
    kinds: dict[str, float]
    """CE of each kind, "card/kind"; NaN where the baseline makes no error."""

    @property
    def left_out(self) -> list[str]:
        """Kinds that do not enter mCE, as the baseline makes no error under them."""
        return [kind for kind, value in self.kinds.items() if math.isnan(value)]


def corruption_errors(results: Results) -> list[CorruptionError]:
    """One entry for each complete model whose data set has a baseline in the report."""
    named = results.manifest["report"].get("baselines", [])
    models = results.by_name
    compared = []
    for model in results.models:
        fields = model["fields"]["dataset"]
        same = [n for n in named if n in models and models[n]["fields"]["dataset"] == fields]
        if same and results.kinds:
            errors = _errors(results, model, models[same[0]])
            compared += [errors] if errors else []
    return compared


def _errors(results: Results, model: Model, baseline: Model) -> CorruptionError | None:
    first, second = _stack(results, model), _stack(results, baseline)
    if first is None or second is None or first.shape[2] != second.shape[2]:
        return None
    images = first.shape[2]
    rng = np.random.default_rng(derived_seed("mce", model["name"], first.shape, second.shape))
    drawn, others = shared_resampling(first.shape[1], second.shape[1], images, rng)
    samples = np.stack([resampled_means(first, drawn), resampled_means(second, others)])
    points = np.stack([first.mean(axis=(1, 2)), second.mean(axis=(1, 2))])[:, None]
    ce, harm = _sums(points, results)
    sampled_ce, sampled_harm = _sums(samples, results)
    severities = np.array([len(kind) for kind in results.kinds.values()])
    kept = harm[1, 0] > HARM * severities
    erring = ce[1, 0] > 0
    itself = model is baseline
    each = np.where(erring, ce[0, 0] / np.where(erring, ce[1, 0], 1), np.nan)
    return CorruptionError(
        model=model["name"],
        baseline=baseline["name"],
        mce=_interval(ce[:, :, erring], sampled_ce[:, :, erring], itself),
        relative=_interval(harm[:, :, kept], sampled_harm[:, :, kept], itself),
        relative_kinds=int(kept.sum()),
        kinds=dict(zip(results.kinds, each.tolist(), strict=True)),
    )


def _stack(results: Results, model: Model) -> Floats | None:
    """Errors, (1 + corruption threats, seeds, images): clean first, then kind by kind."""
    names = ["clean", *(threat["name"] for kind in results.kinds.values() for threat in kind)]
    arrays = [results.correct(model, name) for name in names]
    known = [1 - part for part in arrays if part is not None]
    return np.stack(known) if len(known) == len(names) else None


def _sums(errors: Floats, results: Results) -> tuple[Floats, Floats]:
    """Errors, and errors beyond the clean ones, summed over severities: (2, samples, kinds) each,
    from (2, samples, threats); the first axis is model, baseline."""
    total, harm, start = [], [], 1
    for kind in results.kinds.values():
        total.append(errors[:, :, start : start + len(kind)].sum(axis=2))
        harm.append(total[-1] - len(kind) * errors[:, :, 0])
        start += len(kind)
    return np.stack(total, axis=2), np.stack(harm, axis=2)


def _interval(point: Floats, sampled: Floats, itself: bool) -> tuple[float, float, float]:
    """The mean over kinds of the ratios model / baseline, and its 95% percentile interval; a
    baseline against itself has none.

    Args:
        point: (2, 1, kinds); sampled: (2, samples, kinds). Ratios to zero or less are infinite.
    """
    if not point.size:
        return math.nan, math.nan, math.nan
    value = float((point[0] / point[1]).mean())
    if itself:
        return value, value, value
    infinite = (sampled[1] <= 0).any(axis=1)
    if infinite.mean() >= (1 - LEVEL) / 2:
        return value, math.nan, math.nan
    ratios = (sampled[0] / np.where(sampled[1] > 0, sampled[1], 1.0)).mean(axis=1)
    ratios[infinite] = ratios[~infinite].max()  # beyond the end of the interval, both ways
    low, high = percentile_interval(ratios)
    return value, float(low), float(high)
