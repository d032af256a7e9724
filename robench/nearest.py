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

from robench.cards import Nearest
from robench.data.base import Part
from robench.scoring import Perturbed

Within = Callable[[Part, float, Mapping[int, str] | None], Perturbed]
"""What an attack makes of images in a ball of some radius, of which some are broken already."""
Wrong = Callable[[np.ndarray, Part], NDArray[np.bool_]]
"""Whether the network gets each image wrong; a noisy one, by most of its draws."""
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
    proves, steps = made.proved is not None, 2**asked.halvings
    few = data.some(np.arange(count))
    lost = wrong(few.images, few)
    found = lost | wrong(images[:count], few)
    reached = np.where(found, np.where(lost, 0.0, distance[:count]), np.nan)
    # Levels, multiples of the smallest radius: the least at which it succeeded (a proof may succeed
    # elsewhere), the largest at which it failed, the largest that is proved, the least that is not.
    hit = np.where(found, _level(distance[:count], eps, steps), 0)
    hit[lost] = 0
    failed, proved = np.zeros(count, dtype=int), np.zeros(count, dtype=int)
    doubtful = np.where(lost, 0, np.where(found, hit, steps))
    if made.proved is not None:
        proved[made.proved[:count] == 1] = steps

    def ask(level: int, rows: NDArray[np.intp]) -> None:
        part = data.some(rows)
        one = within(part, eps * level / steps, None)
        wins = wrong(one.images, part)
        nearer, closer = rows[wins], np.flatnonzero(wins)
        images[nearer], distance[nearer] = one.images[closer], one.distance[closer]
        reached[nearer] = one.distance[closer]
        least = np.where(failed < level, failed, proved)[nearer] + 1
        hit[nearer] = np.clip(_level(one.distance[closer], eps, steps), least, level)
        failed[rows[~wins]] = level
        sure = np.zeros(len(rows), dtype=bool) if one.proved is None else one.proved == 1
        proved[rows[sure]] = level
        doubtful[rows[~sure]] = np.minimum(doubtful[rows[~sure]], level)
        doubtful[nearer] = np.minimum(doubtful[nearer], hit[nearer])
        queries[rows] += one.queries
        gradients[rows] += one.gradients
        seconds.extend(one.proof_seconds)

    for low, high in ((failed, hit), (proved, doubtful)) if proves else ((failed, hit),):
        while (open_ := high - low > 1).any():
            middle = np.where(open_, (low + high) // 2, 0)
            for level in np.unique(middle[open_])[::-1].tolist():
                ask(level, np.flatnonzero(middle == level))
    tail = np.full(len(data) - count, np.nan)
    return replace(
        made,
        images=images,
        distance=distance,
        queries=queries,
        gradients=gradients,
        proved=None,
        radius=np.concatenate([reached, tail]),
        clear=np.concatenate([eps * proved / steps, tail]) if proves else None,
        proof_seconds=seconds,
    )


def _level(distance: NDArray[np.floating], eps: float, steps: int) -> NDArray[np.int_]:
    """The least multiple of eps / steps, as a whole number, whose ball holds such distances."""
    share = np.asarray(distance, dtype=np.float64) / eps * steps
    return np.clip(np.ceil(share - 1e-3), 1, steps).astype(int)
