"""SVHN: house numbers in street photographs, cropped to digits, in its publisher's MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from robench.data.base import Dataset, Raw
from robench.data.files import find_files
from robench.data.publisher import odd_files
from robench.errors import RobenchError, system_words

URL = "http://ufldl.stanford.edu/housenumbers/"


class SVHN(Dataset):
    """House numbers, 32x32 colour, 73,257 + 26,032 digits (Netzer et al. 2011); its extra training
    images are left out."""

    hashes: ClassVar[dict[str, str]] = {
        "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
    }

    def raw(self) -> Raw:
        files = find_files("svhn", {name: URL + name for name in self.hashes}, self.hashes)
        parts = [_read(files[name]) for name in self.hashes]
        return Raw(
            images=np.concatenate([images for images, _ in parts]),
            labels=np.concatenate([labels for _, labels in parts]),
            official_train=len(parts[0][1]),
            notes=odd_files("svhn", files, self.hashes),
        )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32), uint8, and labels (n,), where the publisher's 10 is the digit 0."""
    from scipy.io import loadmat

    try:
        held = loadmat(path, variable_names=("X", "y"))
        images, labels = held["X"], held["y"].reshape(-1)
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RobenchError(
            f"{path}: not a MATLAB file with X and y ({system_words(error)}); remove it to fetch "
            "it anew"
        ) from None
    sound = images.dtype == np.uint8 and images.shape == (32, 32, 3, len(labels))
    if not sound or labels.dtype.kind not in "iu":
        raise RobenchError(
            f"{path}: X is {images.dtype} {images.shape} and there are {len(labels)} labels, not "
            "bytes (32, 32, 3, n) and n labels; remove it to fetch it anew"
        )
    return images.transpose(3, 2, 0, 1), np.where(labels == 10, 0, labels)
