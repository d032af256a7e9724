"""What a data set hands out is made ready: checked, and in an order of which every beginning is a
sample of all classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robench.data.base import Part, Splits
from robench.data.checked import checked_labels, wrong_pixels
from robench.digest import derived_seed
from robench.errors import RobenchError

FEW = 2
"""Images for each class up to which an order of classes says nothing."""


def ready(splits: Splits, where: str) -> Splits:
    """The splits as robench computes with them.

    Args:
        where: what errors call the data set.

    Raises RobenchError for images that are not (n, c, h, w) in [0, 1], and for labels that are not
    one whole number for each.
    """
    train, validation, test = (
        _checked(getattr(splits, name), f"{where}: {name}", splits.classes)
        for name in ("train", "validation", "test")
    )
    splits = replace(splits, train=train, validation=validation, test=test)
    return sampled(splits) if is_sorted(splits.test.labels) else splits


def sampled(splits: Splits) -> Splits:
    """The splits with their test images in a stratified order; `numbers` say which are which."""
    test, order = splits.test, stratified(splits.test.labels)
    numbers = order if test.numbers is None else test.numbers[order]
    drawn = Part(np.ascontiguousarray(test.images[order]), test.labels[order], numbers)
    return replace(splits, test=drawn)


def is_sorted(labels: np.ndarray) -> bool:
    """Whether images come class by class, so that the first ones are of few classes."""
    found = len(np.unique(labels))
    changes = int(np.count_nonzero(labels[1:] != labels[:-1]))
    return found > 1 and len(labels) > FEW * found and changes == found - 1


def stratified(labels: np.ndarray) -> np.ndarray:
    """An order in which every beginning has of each class as many as its share, give or take one;
    random within a class, and the same every time."""
    rng = np.random.default_rng(derived_seed("stratified", len(labels)))
    order = rng.permutation(len(labels))
    # The k-th of a class of m images is due after (k + u) / m of all, u of its own for each class.
    due = np.empty(len(labels))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        due[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    placed: np.ndarray = order[np.argsort(due, kind="stable")]
    return placed


def _checked(part: Part, where: str, classes: tuple[str, ...]) -> Part:
    images = np.asarray(part.images)
    if not len(part.labels) and not len(images):
        return part
    if images.ndim != 4:
        grey = "; where they are grey, give them one channel: x[:, None]"
        raise RobenchError(
            f"{where}: images of shape {images.shape}, not (n, channels, height, width)"
            + (grey if images.ndim == 3 else "")
        )
    if images.dtype != np.float32:
        images = images.astype(np.float32)
    wrong = wrong_pixels(images)
    if wrong:
        raise RobenchError(f"{where}: {wrong}")
    labels, _ = checked_labels(part.labels, len(images), f"{where}: labels", classes)
    if images is part.images and labels is part.labels:
        return part
    return replace(part, images=np.ascontiguousarray(images), labels=labels)
