"""A data set that needs no file: a bright bar in one of four places."""

from __future__ import annotations

import numpy as np

from robench import Dataset
from robench.data.base import Raw


class Bars(Dataset):
    """400 images of 8x8 pixels, noise and one bright bar; the class says where."""

    split: str = "7:1:2"

    def raw(self) -> Raw:
        rng = np.random.default_rng(0)
        labels = np.arange(400) % 4
        images = rng.integers(0, 100, (400, 1, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[0, 2 * label : 2 * label + 2] += 120
        return Raw(images.astype(np.uint8), labels.astype(np.int64), official_train=0)

    def class_names(self) -> tuple[str, ...]:
        return ("top", "upper", "lower", "bottom")
