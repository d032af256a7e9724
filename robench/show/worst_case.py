"""What an attacker who may choose gets from a noisy model: chosen by some draws, scored by others.

The least of many noisy shares is lower than any attack makes it, and the lower the more attacks
there are. So the attack of each image is chosen by part of the draws and scored by the rest, in
turns, until every draw has scored (cross-fitting). An image's share is pulled towards its attack's
mean over the images, as if so many more draws had come out like that mean (the posterior mean of a
beta prior); how strongly, the other half of the images decides. The strongest pull leaves the best
single attack for all images, so that choosing per image is never worse but for noise.

The mean is unbiased for this policy, and so an upper bound of what the best policy leaves. Its
noise is independent from image to image: whoever resamples images resamples draws with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.integer[Any]]
Choice = NDArray[np.intp]

FOLDS = 8
"""Parts of the draws that score in turn; where there are fewer draws, each is a part."""
PULLS = (1e-6, 1.0, 4.0, 16.0, 64.0)
"""Draws that an attack's mean may count for; the least only breaks ties. Beyond them the mean alone
decides."""


class Fold(NamedTuple):
    """One division of the draws; arrays are (attacks, images), less is better for the attacker."""

    judged: Floats
    """In [0, 1], by the draws that choose."""
    draws: int
    """How many these are."""
    scored: Floats
    """In [0, 1], by the other draws."""
    weight: float


def expected(answers: Classes, labels: Classes) -> Floats:
    """Share of right answers under the attack chosen for each image, (images,).

    Args:
        answers: (attacks, images, draws), predicted classes. Draws of one number may hang together
            across attacks, as where all attacks are scored by the same noise.
        labels: (images,), the right ones.
    """
    right = answers == labels[:, None]
    if right.shape[2] < 2:
        once = right[:, :, 0].astype(float)
        return _by_other_images(once, once)
    folds = shares(right)
    return left(folds, chosen(folds))


def shares(right: NDArray[np.bool_]) -> list[Fold]:
    """Shares of right answers, (attacks, images, draws), by each part of the draws and by the
    rest."""
    draws = right.shape[2]
    parts = [right[:, :, fold::FOLDS] for fold in range(min(draws, FOLDS))]
    counts = [part.sum(axis=2, dtype=float) for part in parts]
    total = np.sum(counts, axis=0)
    own = [part.shape[2] for part in parts]
    return [
        Fold((total - count) / (draws - few), draws - few, count / few, few / draws)
        for few, count in zip(own, counts, strict=True)
    ]


def vote(answers: Classes, labels: Classes, voters: int) -> Floats:
    """How often a vote of so many draws is right under the attack chosen for each image, as a mean
    over the votes that the draws make up, (images,).

    Args:
        voters: draws in a vote, at most half of the draws: the others choose.
    """
    ballots = _ballots(answers.shape[2], voters)
    folds = []
    for ballot in ballots:
        rest = np.delete(answers, ballot, axis=2)
        right, wrong, _ = _tally(rest, labels)
        # About the chance that the right class is likelier than its rival, by so many draws.
        ahead = (right - wrong) / np.sqrt(right + wrong + 1)
        judged = (1 / (1 + np.exp(-1.7 * ahead))).round(9)
        scored = majority(answers[:, :, ballot], labels)
        folds.append(Fold(judged, rest.shape[2], scored, 1 / len(ballots)))
    return left(folds, chosen(folds))


def votes(answers: Classes, labels: Classes, voters: int) -> Floats:
    """The same under a single attack, (1, images, draws), without any choice: (images,)."""
    ballots = _ballots(answers.shape[2], voters)
    won = [majority(answers[:, :, ballot], labels)[0] for ballot in ballots]
    return np.asarray(np.mean(won, axis=0))


def majority(answers: Classes, labels: Classes) -> Floats:
    """1 where most answers, (..., images, draws), are right, else 0; of equals the lower class."""
    right, wrong, rival = _tally(answers, labels)
    won: NDArray[np.bool_] = (right > wrong) | ((right == wrong) & (labels < rival))
    return won.astype(float)


def _tally(answers: Classes, labels: Classes) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """How often the right class was answered, how often the likeliest wrong one, and which that is
    (of equals the lowest), (..., images) each."""
    right = (answers == labels[:, None]).sum(axis=-1)
    most, rival = np.zeros_like(right), np.full(right.shape, np.iinfo(np.int64).max)
    for label in np.unique(answers):
        count = (answers == label).sum(axis=-1) * (labels != label)
        more = count > most
        most, rival = np.where(more, count, most), np.where(more, label, rival)
    return right.astype(float), most.astype(float), rival


def _ballots(draws: int, voters: int) -> list[NDArray[np.int64]]:
    """Which draws vote together, at most half of them: as many votes as it takes for each draw to
    have a say; the last one may begin anew with the first draws."""
    voters = min(voters, draws // 2)
    return [np.arange(start, start + voters) % draws for start in range(0, draws, voters)]


def chosen(folds: Sequence[Fold]) -> list[Choice]:
    """The attack of each image, (images,), by the draws that choose in each fold."""
    ways = []  # to choose, by pull
    for fold in folds:
        mean = fold.judged.mean(axis=1, keepdims=True).round(9)
        pulled = [(fold.draws * fold.judged + pull * mean).argmin(axis=0) for pull in PULLS]
        single = np.full(fold.judged.shape[1], mean.argmin())
        ways.append([*pulled, single])
    under = np.stack([left(folds, way) for way in zip(*ways, strict=True)])
    return [_by_other_images(np.stack(way), under) for way in ways]


def left(folds: Sequence[Fold], choices: Sequence[Choice]) -> Floats:
    """Each image's score under the attacks chosen for it, a mean over folds, (images,)."""
    taken = [
        fold.weight * np.take_along_axis(fold.scored, choice[None], axis=0)[0]
        for fold, choice in zip(folds, choices, strict=True)
    ]
    return np.asarray(np.sum(taken, axis=0))


def _by_other_images(found: NDArray[Any], left: Floats) -> NDArray[Any]:
    """What was found for an image, (ways, images), in the way that leaves least of the other half
    of the images, (ways, images); of equals in the first. (images,)"""
    result = np.empty(found.shape[1], dtype=found.dtype)
    for half, other in ((0, 1), (1, 0)):
        # Rounded: equal means stay equal in whichever order they are added up.
        least = left[:, other::2].sum(axis=1).round(6).argmin()
        result[half::2] = found[least, half::2]
    return result
