"""Images that a network cannot know, beside a report's test images: to see whether it knows these.

Around a test image that is learnt by heart an attack in the ball finds nothing; around its
relatives it does. Relatives are training and validation images, mixtures of a test image with its
nearest training image of the same class, and test images moved by half a pixel. Mixtures and moved
images lie further than two radii from every image that they were made of.
"""

from __future__ import annotations

import numpy as np

from robench.data.base import Part, Splits
from robench.digest import derived_seed

MOST = 128
"""Images of each sort."""
FEWEST = 20
"""Images of a sort below which nothing is said about it."""
SEARCHED = 4000
"""Training images among which neighbours are looked for."""


def relatives(splits: Splits, test: Part, eps: float, seed: int) -> dict[str, Part]:
    """Images by sort: `training`, `validation`, `mixtures`, `moved`; only sorts that there are
    enough of. Items that are no pictures (nodes of a graph) have none.

    Args:
        test: the report's test images. eps: radius of the attack, in every pixel.
    """
    if splits.graph is not None:
        return {}
    rng = np.random.Generator(np.random.PCG64(derived_seed(seed, "relatives")))
    seen = {image.tobytes() for image in splits.test.images}
    found: dict[str, Part] = {}
    for name, part in (("training", splits.train), ("validation", splits.validation)):
        chosen = rng.permutation(len(part))[: 2 * MOST]
        other = [i for i in chosen if part.images[i].tobytes() not in seen][:MOST]
        found[name] = Part(part.images[other], part.labels[other])
    found["mixtures"] = _mixtures(splits, test, eps, rng)
    if min(splits.input_shape[1:]) >= 4:
        found["moved"] = _moved(test, eps)
    return {name: part for name, part in found.items() if len(part) >= FEWEST}


def _mixtures(splits: Splits, test: Part, eps: float, rng: np.random.Generator) -> Part:
    some = rng.permutation(len(splits.train))[:SEARCHED]
    others, labels = splits.train.images[some], splits.train.labels[some]
    flat = others.reshape(len(others), int(np.prod(splits.input_shape)))
    made: list[np.ndarray] = []
    said: list[int] = []
    for image, label in zip(test.images[:MOST], test.labels[:MOST], strict=True):
        alike = np.flatnonzero(labels == label)
        if not len(alike):
            continue
        far = np.abs(flat[alike] - image.reshape(1, -1))
        enough = np.flatnonzero(far.max(1) > 4.2 * eps)
        if len(enough):
            nearest = alike[enough[far[enough].sum(1).argmin()]]
            made.append((image + others[nearest]) / 2)
            said.append(int(label))
    return _part(made, said, test)


def _moved(test: Part, eps: float) -> Part:
    made, said = [], []
    for image, label in zip(test.images[:MOST], test.labels[:MOST], strict=True):
        moved = (image + np.roll(image, 1, axis=-1)) / 2
        if np.abs(moved - image).max() > 2.1 * eps:
            made.append(moved)
            said.append(int(label))
    return _part(made, said, test)


def _part(images: list[np.ndarray], labels: list[int], like: Part) -> Part:
    shape = (len(images), *like.images.shape[1:])
    stacked = np.stack(images) if images else np.zeros(shape)
    return Part(np.ascontiguousarray(stacked, dtype=np.float32), np.asarray(labels, dtype=np.int64))
