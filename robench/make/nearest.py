"""The nearest wrong image that an attack finds: its ball is halved, image by image.

An attack in a ball says nothing of how far it had to go. Asked in smaller and smaller balls it
does, whatever attack it is: between a radius at which it succeeded and one at which it did not, the
middle is asked about next. The attack is measured in the ball as ever, and of the first images the
radius beside it. A proof, asked in the same way, gives the other end: how far there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robench.data.base import Part
from robench.make.scoring import Perturbed
from robench.workspace.cards import Nearest

Within = Callable[[Part, float, Mapping[int, str] | None], Perturbed]
"""What an attack makes of images in a ball of some radius, of which some are broken already."""
Wrong = Callable[[np.ndarray, Part], NDArray[np.bool_]]
"""Whether the network gets each image wrong; a noisy one, by most of its draws."""
Levels = NDArray[np.int_]
NOISY_DRAWS = 16
"""Draws of a noisy network that have a say in whether an attack succeeded at a radius."""


def look_nearer(
    within: Within,
    wrong: Wrong,
    data: Part,
    eps: float,
    asked: Nearest,
    broken: Mapping[int, str] | None = None,
) -> Perturbed:
    """The attack in the whole ball, and of the first images how near it gets.

    Args:
        eps: the largest radius.
        broken: of a proof, the images that something else has broken in that ball -> what did; the
            first are asked about all the same.

    Radii are whole multiples of eps / 2^halvings, so that images are asked about together. An image
    at which an attack fails in the whole ball is given up, even if it would succeed in a smaller
    one. Of a proof, which may leave a ball open, first the least ball is looked for in which it
    finds a wrong image, then the largest that it proves to hold none.
    """
    count = min(asked.images, len(data))
    others = {image: what for image, what in (broken or {}).items() if image >= count}
    made = within(data, eps, others)
    images, distance = made.images.copy(), made.distance.copy()
    queries, gradients = made.queries.copy(), made.gradients.copy()
    seconds = list(made.proof_seconds)
    few, steps = data.some(np.arange(count)), 2**asked.halvings
    lost = wrong(few.images, few)
    found = lost | wrong(images[:count], few)
    reached = np.where(found, np.where(lost, 0.0, distance[:count]), np.nan)
    known = _Known(
        np.where(lost, 0, np.where(found, _level(distance[:count], eps, steps), steps)),
        found,
        None if made.proved is None else made.proved[:count] == 1,
        steps,
    )

    def ask(level: int, rows: NDArray[np.intp]) -> None:
        part = data.some(rows)
        one = within(part, eps * level / steps, None)
        wins = wrong(one.images, part)
        nearer = rows[wins]
        images[nearer], distance[nearer] = one.images[wins], one.distance[wins]
        reached[nearer] = one.distance[wins]
        queries[rows] += one.queries
        gradients[rows] += one.gradients
        seconds.extend(one.proof_seconds)
        sure = None if one.proved is None else one.proved == 1
        known.learn(level, rows, wins, _level(one.distance, eps, steps), sure)

    ends = [(known.failed, known.hit)]
    if made.proved is not None:
        ends.append((known.proved, known.doubtful))
    for low, high in ends:
        while (open_ := high - low > 1).any():
            middle = np.where(open_, (low + high) // 2, 0)
            for level in np.unique(middle[open_])[::-1].tolist():
                ask(level, np.flatnonzero(middle == level))
    tail = np.full(len(data) - count, np.nan)
    clear = None if made.proved is None else np.concatenate([eps * known.proved / steps, tail])
    return replace(
        made,
        images=images,
        distance=distance,
        queries=queries,
        gradients=gradients,
        proved=None,
        radius=np.concatenate([reached, tail]),
        clear=clear,
        proof_seconds=seconds,
    )


class _Known:
    """Of each image, in multiples of the smallest radius, (images,).

    hit: the least at which the attack succeeded; 0: at none, or the clean image is wrong.
    failed: the largest at which it was asked in vain.
    proved, doubtful: the largest that a proof settled, and the least that it did not.

    Args:
        first: after the whole ball, where it was found; `steps` where it was not.
        sure: what was proved; None: the attack is no proof.
    """

    def __init__(
        self, first: Levels, found: NDArray[np.bool_], sure: NDArray[np.bool_] | None, steps: int
    ) -> None:
        self.hit, self.failed = np.where(found, first, 0), np.zeros_like(first)
        self.proved = np.where(False if sure is None else sure, steps, self.failed)
        self.doubtful = first.copy()

    def learn(
        self,
        level: int,
        rows: NDArray[np.intp],
        wins: NDArray[np.bool_],
        at: Levels,
        sure: NDArray[np.bool_] | None,
    ) -> None:
        """What some images gave at one level; at: where those that are wrong then lie."""
        self.failed[rows[~wins]] = level
        rest = rows if sure is None else rows[~sure]
        if sure is not None:
            self.proved[rows[sure]] = level
        self.doubtful[rest] = np.minimum(self.doubtful[rest], level)
        nearer = rows[wins]
        least = np.where(self.failed < level, self.failed, self.proved)[nearer] + 1
        self.hit[nearer] = np.clip(at[wins], least, level)
        self.doubtful[nearer] = np.minimum(self.doubtful[nearer], self.hit[nearer])


def _level(distance: NDArray[np.floating], eps: float, steps: int) -> Levels:
    """The least multiple of eps / steps, as a whole number, whose ball holds such distances."""
    share = np.asarray(distance, dtype=np.float64) / eps * steps
    return np.clip(np.ceil(share - 1e-3), 1, steps).astype(int)
