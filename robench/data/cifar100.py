"""CIFAR-100 in the binary layout of its publisher: a byte for the group of classes, one for the
class, and 3,072 pixel bytes per image."""

from __future__ import annotations

from robench.data.base import Dataset, Raw, find_folder
from robench.data.cifar10 import read_batches
from robench.data.publisher import odd_files
from robench.errors import RobenchError, system_words

FOLDER = "cifar-100-binary"
URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
HASH = "md5:03b5dce01913d631647c71ecec9e9cb8"
FILES = ("train.bin", "test.bin")
HASHES = {
    "train.bin": "sha1:e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
    "test.bin": "sha1:8fb6623e830365ff53cf14adec797474f5478006",
}
"""Of what the archive holds, as Apache MXNet lists them (gluon/data/vision/datasets.py)."""
NAMES = "fine_label_names.txt"
CLASSES = 100


class CIFAR100(Dataset):
    """Small photographs in a hundred classes, 32x32 colour, 50,000 + 10,000 (Krizhevsky 2009)."""

    def raw(self) -> Raw:
        folder = find_folder(FOLDER, (*FILES, NAMES), URL, HASH)
        images, labels, starts = read_batches([folder / name for name in FILES], 2, CLASSES)
        return Raw(
            images=images,
            labels=labels,
            official_train=starts[-1],
            notes=odd_files("cifar100", {name: folder / name for name in HASHES}, HASHES),
        )

    def class_names(self) -> tuple[str, ...]:
        file = find_folder(FOLDER, (*FILES, NAMES), URL, HASH) / NAMES
        try:
            names = tuple(file.read_text("utf-8").split())
        except (OSError, ValueError) as error:
            raise RobenchError(f"{file}: cannot be read: {system_words(error)}") from None
        if len(names) != CLASSES:
            raise RobenchError(
                f"{file}: {len(names)} names, not {CLASSES}; remove it and its "
                "folder to fetch them anew"
            )
        return names
