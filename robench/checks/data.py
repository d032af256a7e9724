"""What every data set must fulfil: checks that `robench check` runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robench.checks.finding import Result, findings, pickles, raised
from robench.data.base import Dataset, Splits
from robench.digest import digest_bytes
from robench.plugin_code.guard import guarded

LEAKED = 0.01
"""Share of the test images that may also be training images."""
Make = Callable[..., Dataset]


def check_dataset(make: Make) -> list[Result]:
    """All checks of a data set, one finding each."""
    results = findings([pickles], make)
    try:
        dataset = make()
        with guarded(f"dataset {type(dataset).__name__}", None):
            splits = dataset.load()
    except Exception as error:
        return [*results, Result("loads", False, raised(error))]
    return results + findings([images, labels, repeats, leaks], make, splits)


def images(make: Make, splits: Splits) -> str:
    """Images are (n, c, h, w), float32 in [0, 1], of one size."""
    for name in ("train", "validation", "test"):
        pixels = getattr(splits, name).images
        sound = pixels.ndim == 4 and pixels.dtype == np.float32
        if not sound or (name != "validation" and not len(pixels)):
            return f"{name}: {pixels.dtype} {pixels.shape}, not float32 (n, c, h, w)"
        if len(pixels) and not (pixels.min() >= 0 and pixels.max() <= 1):
            return f"{name}: [{pixels.min()}, {pixels.max()}], not [0, 1]"
    return ""


def labels(make: Make, splits: Splits) -> str:
    """Labels count the classes from 0, and every class is there."""
    for part in (splits.train, splits.validation, splits.test):
        if len(part) and not 0 <= part.labels.min() <= part.labels.max() < len(splits.classes):
            span = f"{part.labels.min()} to {part.labels.max()}"
            return f"labels {span}, but {len(splits.classes)} classes"
    absent = set(range(len(splits.classes))) - set(splits.train.labels.tolist())
    return f"no training image of class {min(absent)}" if absent else ""


def repeats(make: Make, splits: Splits) -> str:
    """Two loads give the same images in the same order."""
    same = make().load().fingerprint == splits.fingerprint
    return "" if same else "two loads differ: shuffle by split_seed alone"


def leaks(make: Make, splits: Splits) -> str:
    """Test images are not among the training images."""
    known = {digest_bytes(image.tobytes()) for image in splits.train.images}
    seen = sum(digest_bytes(image.tobytes()) in known for image in splits.test.images)
    few = seen <= LEAKED * len(splits.test)
    return "" if few else f"{seen} of {len(splits.test)} test images are training images too"
