"""What a data set hands out is made ready: checked before anything computes with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robench.data.base import InBytes, Part, Splits
from robench.data.checked import checked_labels, wrong_pixels
from robench.errors import RobenchError


def ready(splits: Splits, where: str, sample_seed: int = 0) -> Splits:
    """The splits as robench computes with them.

    Args:
        where: what errors call the data set.
        sample_seed: by which samples of the test images are drawn (data/sample.py).

    Raises RobenchError for images that are not (n, c, h, w) in [0, 1], and for labels that are not
    one whole number for each.
    """
    parts = {
        name: _checked(getattr(splits, name), f"{where}: {name}", splits.classes)
        for name in ("train", "validation", "test")
    }
    if len({isinstance(part, InBytes) for part in parts.values() if len(part)}) == 2:
        # An image of one is to be known again among those of another.
        parts = {name: _as_numbers(part) for name, part in parts.items()}
    train, validation, test = parts.values()
    return replace(splits, train=train, validation=validation, test=test, sample_seed=sample_seed)


def _as_numbers(part: Part) -> Part:
    return Part(part.images, part.labels) if isinstance(part, InBytes) else part


def _checked(part: Part, where: str, classes: tuple[str, ...]) -> Part:
    if isinstance(part, InBytes):  # which only robench makes, of labels that it has looked at
        return part
    if part.pictures is not None:  # whose pixels are what they are divided by
        labels, _ = checked_labels(part.labels, len(part.images), f"{where}: labels", classes)
        return replace(part, labels=labels)
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
