"""CIFAR-10 in the binary layout of its publisher: a label byte and 3,072 pixel bytes per image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robench.data.base import Dataset, Raw, find_folder
from robench.errors import RobenchError

FOLDER = "cifar-10-batches-bin"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
HASH = "md5:c32a1d4ab5d03f1284b67883e8d87530"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ROW = 1 + 3 * 32 * 32


class CIFAR10(Dataset):
    """Small photographs in ten classes, 32x32 colour, 50,000 + 10,000 (Krizhevsky 2009)."""

    def raw(self) -> Raw:
        folder = find_folder(FOLDER, (*TRAIN, TEST), URL, HASH)
        batches = [read_batch(folder / name) for name in (*TRAIN, TEST)]
        return Raw(
            images=np.concatenate([images for images, _ in batches]),
            labels=np.concatenate([labels for _, labels in batches]),
            official_train=sum(len(labels) for _, labels in batches[:-1]),
        )

    def class_names(self) -> tuple[str, ...]:
        return CLASSES


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n,), uint8. Raises RobenchError for any other file."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise RobenchError(f"{path}: cannot be read: {error.strerror}") from None
    if not len(data) or len(data) % ROW:
        raise RobenchError(
            f"{path}: {len(data)} bytes are not whole rows of {ROW}: truncated; remove it to fetch "
            "it anew"
        )
    rows = data.reshape(-1, ROW)
    labels = rows[:, 0]
    if labels.max() >= len(CLASSES):
        raise RobenchError(f"{path}: has label {labels.max()}, CIFAR-10's go from 0 to 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32), labels
