"""CIFAR-10 and CIFAR-100 in the binary layout of their publisher: for each image a label byte, or
one for the group of classes and one for the class, and 3,072 pixel bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from robench.data.base import Dataset, Raw
from robench.data.files import find_folder
from robench.data.publisher import odd_files
from robench.errors import RobenchError, system_words

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
NAMES = "fine_label_names.txt"


class CIFAR10(Dataset):
    """Small photographs in ten classes, 32x32 colour, 50,000 + 10,000 (Krizhevsky 2009)."""

    folder: ClassVar[str] = "cifar-10-batches-bin"
    pickled: ClassVar[str] = "cifar-10-batches-py"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    archive: ClassVar[str] = "md5:c32a1d4ab5d03f1284b67883e8d87530"
    hashes: ClassVar[dict[str, str]] = {
        "data_batch_1.bin": "sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "sha1:67eb016db431130d61cd03c7ad570b013799c88c",
    }
    """Of what the archive holds, as Apache MXNet lists them (gluon/data/vision/datasets.py); the
    last file is the test set."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Other files of it that are read."""
    bytes_of_labels: ClassVar[int] = 1
    classes: ClassVar[int] = len(CLASSES)

    def raw(self) -> Raw:
        folder = self._place()
        files = {name: folder / name for name in self.hashes}
        batches = read_batches([*files.values()], self.bytes_of_labels, self.classes)
        images, labels, starts = batches
        who = type(self).__name__.lower()
        return Raw(images, labels, starts[-1], odd_files(who, files, self.hashes))

    def _place(self) -> Path:
        files = (*self.hashes, *self.beside)
        return find_folder(self.folder, files, self.url, self.archive, self.pickled)

    def class_names(self) -> tuple[str, ...]:
        return CLASSES


class CIFAR100(CIFAR10):
    """Small photographs in a hundred classes, 32x32 colour, 50,000 + 10,000 (Krizhevsky 2009)."""

    folder: ClassVar[str] = "cifar-100-binary"
    pickled: ClassVar[str] = "cifar-100-python"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    archive: ClassVar[str] = "md5:03b5dce01913d631647c71ecec9e9cb8"
    hashes: ClassVar[dict[str, str]] = {
        "train.bin": "sha1:e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
        "test.bin": "sha1:8fb6623e830365ff53cf14adec797474f5478006",
    }
    beside: ClassVar[tuple[str, ...]] = (NAMES,)
    bytes_of_labels: ClassVar[int] = 2
    classes: ClassVar[int] = 100

    def class_names(self) -> tuple[str, ...]:
        file = self._place() / NAMES
        try:
            names = tuple(file.read_text("utf-8").split())
        except (OSError, ValueError) as error:
            raise RobenchError(f"{file}: cannot be read: {system_words(error)}") from None
        if len(names) != self.classes:
            raise RobenchError(
                f"{file}: {len(names)} names, not {self.classes}; remove it and its "
                "folder to fetch them anew"
            )
        return names


def read_batches(
    paths: Sequence[Path], bytes_of_labels: int, classes: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Images (n, 3, 32, 32) and labels (n,), uint8, of several files, and where each file's begin.
    Never more is held than all images once. Raises RobenchError for any other file.

    Args:
        bytes_of_labels: before the pixels of an image; the last one is its label.
    """
    rows = [_rows(path, bytes_of_labels) for path in paths]
    starts = np.cumsum([0, *map(len, rows)]).tolist()
    images = np.empty((starts[-1], 3, 32, 32), np.uint8)
    labels = np.empty(starts[-1], np.uint8)
    for path, start in zip(paths, starts, strict=False):
        batch = rows.pop(0)
        here = slice(start, start + len(batch))
        labels[here] = batch[:, bytes_of_labels - 1]
        if labels[here].max() >= classes:
            raise RobenchError(
                f"{path}: has label {labels[here].max()}, CIFAR-{classes}'s go from 0 to "
                f"{classes - 1}"
            )
        images[here] = batch[:, bytes_of_labels:].reshape(-1, 3, 32, 32)
    return images, labels, starts[:-1]


def _rows(path: Path, bytes_of_labels: int) -> np.ndarray:
    """Of a file, an image in each row, read when it is used."""
    row = bytes_of_labels + 3 * 32 * 32
    try:
        size = path.stat().st_size
        if size and not size % row:
            return np.memmap(path, np.uint8, "r", shape=(size // row, row))
    except OSError as error:
        raise RobenchError(f"{path}: cannot be read: {error.strerror}") from None
    raise RobenchError(
        f"{path}: {size} bytes are not whole rows of {row}: truncated; remove it to fetch it anew"
    )
