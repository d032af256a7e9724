"""Intervals, paired tests and ranks: when two accuracies differ, and by how much they may not.

- one accuracy: Wilson's score interval (Wilson 1927). For the fractional `correct` of a noisy model
  it is conservative, since a mean in [0, 1] varies no more than a coin of the same mean.
- several seeds, and averages over threats that reuse the same images: percentile bootstrap, seeds
  first, then images. Every seed is tested on the same images, so they share the images drawn (Owen
  2007, "The pigeonhole bootstrap"); drawing images anew for each seed would hide their variance.
- two deterministic models with one seed each: McNemar's exact test on the same images.
- any other pair: a t-test on the per-image differences, to which the variance between seeds is
  added, with Welch and Satterthwaite's degrees of freedom. Votes are not thresholded: the expected
  accuracy is what is ranked, so it is what is tested.
- all pairs together: Holm's step-down correction (Holm 1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LEVEL = 0.95
RESAMPLES = 2000


def wilson(accuracy: Floats, images: int, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Wilson's interval (low, high) around accuracies in [0, 1] measured on `images` images."""
    low, high = proportion_confint(
        np.asarray(accuracy, dtype=float) * images, images, alpha=1 - level, method="wilson"
    )
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


@dataclass(frozen=True)
class Resampling:
    """How often each bootstrap sample draws each seed and each image.

    seeds: (samples, seeds); images: (samples, images). Both as fractions that sum to one. One
    resampling serves all quantities of a row, so that their intervals rest on the same draws.
    """

    seeds: Floats
    images: Floats


def resampling(
    seeds: int, images: int, rng: np.random.Generator, samples: int = RESAMPLES
) -> Resampling:
    """Draws seeds with replacement, and images with replacement, `samples` times."""
    return Resampling(
        rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds,
        rng.multinomial(images, np.full(images, 1 / images), size=samples) / images,
    )


def shared_resampling(
    seeds: int, others: int, images: int, rng: np.random.Generator
) -> tuple[Resampling, Resampling]:
    """For two models with seeds of their own: both meet the images that are drawn."""
    drawn = resampling(seeds, images, rng)
    return drawn, Resampling(resampling(others, 1, rng).seeds, drawn.images)


def percentile_interval(samples: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """(low, high) between which the middle of the samples lies; samples run along the first axis.

    Rounded to 12 digits: products of matrices differ in their last bits with the number of threads,
    and pages shall not.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0).round(12)
    return low, high


def resampled_means(values: Floats, drawn: Resampling) -> Floats:
    """The mean of every bootstrap sample, (samples, quantities).

    Args:
        values: (quantities, seeds, images). drawn: a resampling of as many seeds and images.
    """
    quantities, seeds, images = values.shape
    per_seed = (drawn.images @ values.reshape(-1, images).T).reshape(-1, quantities, seeds)
    means: Floats = np.einsum("bqs,bs->bq", per_seed, drawn.seeds)
    return means


def bootstrap(correct: Floats, drawn: Resampling, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Percentile interval (low, high) of mean accuracies, over seeds and images.

    Args:
        correct: (quantities, seeds, images), in [0, 1].
        drawn: a resampling of as many seeds and images.

    Where all samples agree (every image right, or every one wrong) there is nothing to resample,
    and Wilson's interval stands in.
    """
    means = resampled_means(correct, drawn)
    low, high = percentile_interval(means, level)
    stuck = np.ptp(means, axis=0) < 1e-9
    plain_low, plain_high = wilson(correct.mean(axis=(1, 2)), correct.shape[2], level)
    return np.where(stuck, plain_low, low), np.where(stuck, plain_high, high)


def mcnemar(correct: Bools) -> Floats:
    """Exact two-sided p-values of McNemar's test for all pairs of rows.

    Args:
        correct: (models, images): whether each model is right on each of the same images.

    Returns (models, models), symmetric, 1 on the diagonal.
    """
    right = correct.astype(float)
    only_first = right @ (1 - right).T
    fewer = np.minimum(only_first, only_first.T)
    discordant = only_first + only_first.T
    p: Floats = np.minimum(1.0, 2 * stats.binom.cdf(fewer, discordant, 0.5))
    return p


def paired_t(correct: list[Floats]) -> Floats:
    """Two-sided p-values for all pairs of models tested on the same images.

    Args:
        correct: for each model (seeds, images) in [0, 1]; the number of seeds may differ.

    The variance of a difference is that of its per-image differences over the images, plus each
    model's variance between seeds over its seeds. No p-value falls below 2^(1 - images), the least
    that exchanging the two models' answers image by image could give.

    Returns (models, models), symmetric, 1 on the diagonal.
    """
    by_image = np.stack([model.mean(axis=0) for model in correct])
    models, images = by_image.shape
    if images < 2:
        return np.ones((models, models))
    mean = by_image.mean(axis=1)
    covariance = np.atleast_2d(np.cov(by_image))
    own = np.diag(covariance)
    from_images = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0) / images
    counts = np.array([len(model) for model in correct])
    from_seeds = np.array(
        [model.mean(axis=1).var(ddof=1) / len(model) if len(model) > 1 else 0 for model in correct]
    )
    variance = from_images + from_seeds[:, None] + from_seeds[None, :]
    seed_terms = from_seeds**2 / np.maximum(counts - 1, 1)
    spread = from_images**2 / (images - 1) + seed_terms[:, None] + seed_terms[None, :]
    difference = np.abs(mean[:, None] - mean[None, :])
    # Rounding must not turn equal models into distinct ones.
    same = difference < 1e-12
    variance, spread = np.maximum(variance, 1e-30), np.maximum(spread, 1e-60)
    with np.errstate(over="ignore"):
        p = 2 * stats.t.sf(difference / np.sqrt(variance), variance**2 / spread)
    p = np.where(same, 1.0, np.clip(p, 2.0 ** max(1 - images, -1000), 1.0))
    return np.asarray(p, dtype=float)


def pairwise(correct: list[Floats]) -> Floats:
    """p-values for all pairs: McNemar where both are 0/1 with one seed, else the paired t-test."""
    exact = _exact(correct)
    p = paired_t(correct)
    if exact.sum() > 1:
        chosen = np.flatnonzero(exact)
        p[np.ix_(chosen, chosen)] = mcnemar(np.stack([correct[i][0] > 0.5 for i in chosen]))
    return p


def _exact(correct: list[Floats]) -> Bools:
    """(models,): which have one seed and no noise, so that McNemar's test is theirs."""
    return np.array(
        [len(model) == 1 and bool(np.isin(model, (0.0, 1.0)).all()) for model in correct]
    )


def holm(p: Floats) -> Floats:
    """Holm-adjusted p-values over all pairs of a symmetric (models, models) matrix: each times the
    number of those that are not smaller, never below a smaller one's (Holm 1979).

    statsmodels has it, too, with a full garbage collection in every call: most of a leaderboard's
    time.
    """
    first, second = np.triu_indices(len(p), 1)
    adjusted = np.ones_like(p)
    pairs = p[first, second]
    order = np.argsort(pairs)
    raised = np.maximum.accumulate(pairs[order] * np.arange(len(pairs), 0, -1))
    adjusted[first[order], second[order]] = np.minimum(raised, 1.0)
    adjusted[second, first] = adjusted[first, second]
    return adjusted


def smallest_seen(correct: list[Floats], pairs: int | None = None, level: float = LEVEL) -> float:
    """The difference in accuracy from which any two of these models would have been told apart, by
    the test that ranks use (`pairwise`, with the correction for all pairs): of the pair for which
    it is largest. In [0, 1]; 1 where no difference would have been.

    Args:
        correct: (seeds, images) of each model, the same images.
        pairs: that are tested together; None: those of these models.

    McNemar's test looks at the images that one of two models gets: as many as differ now, at least
    as many as it needs when all go one way. A t-test has the variance that it has now.
    """
    models, images = len(correct), correct[0].shape[1]
    if models < 2 or images < 2:
        return 1.0
    chosen = list(zip(*np.triu_indices(models, 1), strict=True))
    tail = (1 - level) / max(pairs or 0, len(chosen))
    exact = _exact(correct)
    seen = [
        _seen_by_mcnemar(correct[i][0] > 0.5, correct[j][0] > 0.5, tail)
        if exact[i] and exact[j]
        else _seen_by_t(correct[i], correct[j], tail)
        for i, j in chosen
    ]
    return min(1.0, max(seen))


def _seen_by_mcnemar(first: Bools, second: Bools, tail: float) -> float:
    discordant = max(int((first != second).sum()), int(np.floor(1 - np.log2(tail))) + 1)
    fewer = np.arange(discordant // 2 + 1)
    enough = fewer[2 * stats.binom.cdf(fewer, discordant, 0.5) < tail]
    return float((discordant - 2 * enough.max(initial=0)) / len(first))


def _seen_by_t(first: Floats, second: Floats, tail: float) -> float:
    images = first.shape[1]
    if 2.0 ** max(1 - images, -1000) >= tail:  # `paired_t` gives no smaller p-value
        return 1.0
    paired = float(np.var(first.mean(axis=0) - second.mean(axis=0), ddof=1)) / images
    several = [model.mean(axis=1) for model in (first, second) if len(model) > 1]
    from_seeds = [float(means.var(ddof=1)) / len(means) for means in several]
    variance = paired + sum(from_seeds)
    spread = paired**2 / (images - 1) + sum(
        own**2 / (len(means) - 1) for own, means in zip(from_seeds, several, strict=True)
    )
    freedom = variance**2 / spread if spread > 0 else images - 1
    return float(stats.t.isf(tail / 2, freedom) * np.sqrt(variance))


@dataclass(frozen=True)
class Ranks:
    """Ranks of models, 1 the best; all arrays run over the models in the order given.

    rank: 1 + the models surely above it; never less than the rank of a more accurate model, so that
        ranks follow accuracy even where a model of few seeds can be told from none. It always lies
        in best .. worst: of a more accurate model, those surely above are more accurate still.
    best, worst: the ranks it may hold: 1 + the models surely above it .. all - those surely below.
    """

    rank: Ints
    best: Ints
    worst: Ints


def ranks(accuracy: Floats, adjusted: Floats, level: float = LEVEL) -> Ranks:
    """Ranks from accuracies (models,) and Holm-adjusted p-values (models, models)."""
    separable = adjusted < 1 - level
    above = separable & (accuracy[:, None] > accuracy[None, :])
    best = 1 + above.sum(axis=0)
    order = np.argsort(-accuracy, kind="stable")
    rank = np.empty_like(best)
    rank[order] = np.maximum.accumulate(best[order])
    for value in np.unique(accuracy):  # equals share one, whichever came first
        rank[accuracy == value] = rank[accuracy == value].max()
    return Ranks(rank, best, len(accuracy) - above.sum(axis=1))
