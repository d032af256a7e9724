"""Images that a network cannot know, beside a report's test images: to see whether it knows these.

Around a test image that is learnt by heart an attack in the ball finds nothing; around its
relatives it does. Relatives are training and validation images, mixtures of a test image with its
nearest training image of the same class, and test images moved by half a pixel, turned by eight
degrees, or darker by a quarter. What is made of test images lies further than two radii from them.
All of that can be made beforehand by whoever reads this; so others are turned, moved and darkened a
little each, by chance that comes from the network's weights, which cannot hold what they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np

from robench.data.base import InBytes, Part, Splits
from robench.digest import derived_seed

MOST = 128
"""Images of each sort; of large ones as many as have VALUES numbers, but at least LEAST."""
LEAST = 24
FEWEST = 20
"""Images of a sort below which nothing is said about it."""
SEARCHED = 4000
"""Training images among which neighbours are looked for."""
ROOM = 2**26
"""Numbers that they may have together: of large ones there are fewer."""
TURN = 8.0
"""Degrees; every second image is turned the other way."""
DARKER = 0.75
TURNS, MOVES, LIGHTS = (3.0, 9.0), (0.1, 0.4), (0.8, 1.0)
"""Degrees, pixels in either direction, and brightness, by which images are changed a little."""
MANY = 1000
"""Images of each part whose margins are ranked (robench/make/probes/ranks.py); of large ones as
many as have VALUES numbers, but at least MOST."""
VALUES = 2**22


def relatives(
    splits: Splits, test: Part, eps: float, seed: int, weights: str = ""
) -> dict[str, Part]:
    """Images by sort: `training`, `validation`, `mixtures`, `moved`, `turned`, `darker`, `changed`;
    only sorts that there are enough of. Items that are no pictures (nodes of a graph) have none.

    Args:
        test: the report's test images. eps: radius of the attack, in every pixel.
        weights: digest of the network's weights, from which the chance of `changed` comes.
    """
    if splits.graph is not None:
        return {}
    rng = np.random.Generator(np.random.PCG64(derived_seed(seed, "relatives")))
    most = max(LEAST, min(MOST, VALUES // int(np.prod(splits.input_shape))))
    test = Part(test.at(slice(most)), test.labels[:most])
    seen = splits.test.contents
    sorts = {
        "training": _some(splits.train, most, seen, rng),
        "validation": _some(splits.validation, most, seen, rng),
    }
    sorts["mixtures"] = _mixtures(splits, test, eps, rng)
    if min(splits.input_shape[1:]) >= 4:
        sorts["moved"] = _changed(test, eps, lambda image, _: (image + np.roll(image, 1, -1)) / 2)
        sorts["turned"] = _changed(test, eps, _turned)
        sorts["darker"] = _changed(test, eps, lambda image, _: DARKER * image)
        chance = np.random.Generator(np.random.PCG64(derived_seed(seed, "changed", weights)))
        sorts["changed"] = _changed(test, eps, lambda image, _: _a_little(image, chance))
    return {name: part for name, part in sorts.items() if len(part) >= FEWEST}


def _mixtures(splits: Splits, test: Part, eps: float, rng: np.random.Generator) -> Part:
    searched = min(SEARCHED, ROOM // int(np.prod(splits.input_shape)))
    some = rng.permutation(len(splits.train))[:searched]
    mixtures: dict[int, np.ndarray] = {}
    for label in np.unique(test.labels):  # class by class: not all of them at once
        others = splits.train.at(some[splits.train.labels[some] == label])
        for number in np.flatnonzero(test.labels == label) if len(others) else ():
            image = test.images[number]
            far = np.abs((others - image).reshape(len(others), -1))
            enough = np.flatnonzero(far.max(1) > 4.2 * eps)
            if len(enough):
                nearest = enough[far[enough].sum(1).argmin()]
                mixtures[int(number)] = (image + others[nearest]) / 2
    numbers = sorted(mixtures)
    return _part([mixtures[i] for i in numbers], test.labels[numbers].tolist(), test)


def parts(splits: Splits, seed: int) -> dict[str, Part]:
    """Many images of `test`, `validation` and `training`, drawn at random; of the last two only
    those that are no test images. Items that are no pictures have none."""
    if splits.graph is not None:
        return {}
    rng = np.random.Generator(np.random.PCG64(derived_seed(seed, "parts")))
    seen = splits.test.contents
    many = max(MOST, min(MANY, VALUES // int(np.prod(splits.input_shape))))
    sorts = {
        "test": _some(splits.test, many, set(), rng),
        "validation": _some(splits.validation, many, seen, rng),
        "training": _some(splits.train, many, seen, rng),
    }
    return {name: part for name, part in sorts.items() if len(part) >= FEWEST}


def _some(part: Part, many: int, seen: Set[bytes], rng: np.random.Generator) -> Part:
    """At most so many images drawn at random, none of them seen."""
    drawn = rng.permutation(len(part))[: 2 * many]
    chosen: list[int] = []
    for i in drawn:
        if len(chosen) < many and part.content(i) not in seen:
            chosen.append(i)
    if isinstance(part, InBytes):
        return InBytes(part.pixels[chosen], part.labels[chosen])
    return Part(part.at(chosen), part.labels[chosen])


def _turned(image: np.ndarray, number: int) -> np.ndarray:
    from scipy import ndimage  # which few of those that need this module do

    degrees = TURN if number % 2 else -TURN
    turned: np.ndarray = ndimage.rotate(
        image, degrees, axes=(-2, -1), reshape=False, order=1, mode="nearest"
    ).clip(0, 1)
    return turned


def _a_little(image: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Turned, moved and darkened, (c, h, w)."""
    from scipy import ndimage

    turn = np.radians(chance.uniform(*TURNS) * chance.choice((-1, 1)))
    move = chance.uniform(*MOVES, 2) * chance.choice((-1, 1), 2)
    light = chance.uniform(*LIGHTS)
    cos, sin = np.cos(turn), np.sin(turn)
    around = np.array([[cos, -sin], [sin, cos]])
    middle = (np.array(image.shape[1:]) - 1) / 2
    made = [
        ndimage.affine_transform(
            channel, around, middle - around @ middle + move, order=1, mode="nearest"
        )
        for channel in image
    ]
    changed: np.ndarray = (light * np.stack(made)).clip(0, 1)
    return changed


def _changed(test: Part, eps: float, change: Callable[[np.ndarray, int], np.ndarray]) -> Part:
    """Test images after a change that takes them out of each other's balls."""
    made, said = [], []
    pairs = zip(test.images, test.labels, strict=True)
    for number, (image, label) in enumerate(pairs):
        changed = change(image, number)
        if np.abs(changed - image).max() > 2.1 * eps:
            made.append(changed)
            said.append(int(label))
    return _part(made, said, test)


def _part(images: list[np.ndarray], labels: list[int], like: Part) -> Part:
    shape = (len(images), *like.images.shape[1:])
    stacked = np.stack(images) if images else np.zeros(shape)
    return Part(np.ascontiguousarray(stacked, dtype=np.float32), np.asarray(labels, dtype=np.int64))
