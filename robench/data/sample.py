"""Which test images a report meets that asks for fewer than there are: a sample, drawn by class.

The first images of a publisher's test set are no sample of it: they may come class by class, or the
easy ones first. So the test images have an order of robench's own, of which every beginning is a
sample of all classes, and the first 100 are among the first 200. Who asks for all of them gets them
in the publisher's order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robench.data.base import Part, Splits
from robench.digest import derived_seed

BY_CLASS = "by class"
"""How images are drawn, as identities and manifests call it. Another way needs another name."""


def drawn(splits: Splits, images: int) -> Part:
    """That many test images; `numbers` say which of the publisher's they are.

    Args:
        images: where there are no more, all of them.
    """
    test = splits.test
    if images >= len(test):
        return test
    chosen = stratified(test.labels, splits.sample_seed)[:images]
    sample = test.some(chosen)
    return sample if sample.numbers is not None else replace(sample, numbers=chosen)


def said(splits: Splits, images: int) -> dict[str, Any]:
    """What identities and manifests say of the sample; nothing where there is none."""
    if images >= len(splits.test):
        return {}
    return {"order": BY_CLASS, "seed": splits.sample_seed}


def stratified(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """An order in which every beginning has of each class as many as its share, give or take one;
    random within a class, and the same every time for the same seed."""
    rng = np.random.Generator(np.random.PCG64(derived_seed("stratified", seed, len(labels))))
    order = rng.permutation(len(labels))
    # The k-th of a class of m images is due after (k + u) / m of all, u of its own for each class.
    due = np.empty(len(labels))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        due[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    placed: np.ndarray = order[np.argsort(due, kind="stable")]
    return placed
