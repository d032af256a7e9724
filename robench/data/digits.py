"""Digits: 1,797 handwritten 8x8 digits that scikit-learn ships (UCI Optical Recognition, test)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from robench.data.base import Dataset, Raw, _ratio


class Digits(Dataset):
    """Real 8x8 digits, embedded in scikit-learn: nothing to download."""

    split: Annotated[str, AfterValidator(_ratio)] = "6:1:3"

    def raw(self) -> Raw:
        """Intensities 0..16 of the publisher, brought to [0, 1]."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = (bunch.images / 16).astype(np.float32)[:, None]
        return Raw(images, bunch.target, official_train=0)
