"""Digits: 1,797 handwritten 8x8 digits that scikit-learn ships (UCI Optical Recognition, test)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from robench.data.base import Dataset, Raw, Split


class Digits(Dataset):
    """Real 8x8 digits, embedded in scikit-learn: nothing to download."""

    split: Split = "6:1:3"

    def raw(self) -> Raw:
        """Intensities 0..16 of the publisher, brought to [0, 1]."""
        table = _table()
        images = (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
        return Raw(images, table[:, -1].astype(np.int64), official_train=0)


def _table() -> np.ndarray:
    """64 pixels and the label, a row per image, as scikit-learn ships them.

    Its file is read directly: importing sklearn.datasets takes longer than a run that does nothing.
    """
    package = importlib.util.find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path()
    path = folder / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
