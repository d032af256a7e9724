"""Arrays: images and labels of one's own, in a file beside the card or handed over in Python."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Part, Split, Splits
from robench.data.checked import checked_images, checked_labels
from robench.errors import RobenchError, system_words
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting, beside

LARGEST = 2**33
"""Bytes that the arrays of a file may unpack to."""


class Arrays(Dataset):
    """Your own images: a .npz file with x (n, c, h, w) in [0, 1] and y (n,), or tensors in
    Python."""

    file: Setting
    """The file, beside the card. It holds x and y; x_train and y_train too, where there are
    training images of their own; classes, where the classes have names."""
    classes: int = Field(default=0, ge=0)
    """How many classes there are, where the labels at hand lack the last ones; 0: as they say."""
    split: Split = "official"
    """official: x and y are all for testing, and x_train and y_train, where given, for training;
    a ratio shuffles all of them."""

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("file")
        if not isinstance(name, str):
            return dict(settings)
        where = f"{card.file}: file = {name!r}"
        path = beside(name, card, where)
        if not path.is_file():
            raise RobenchError(f"{where}: no such file: {path}")
        stat = path.stat()
        digest = _digest(path, stat.st_mtime_ns, stat.st_size)
        return {**settings, "file": Located(f"arrays@{digest}", partial(_read, path))}

    def load(self) -> Splits:
        if not isinstance(self.file, Located):
            raise RobenchError(
                f"dataset 'arrays': file = {self.file!r}: is only found beside a card"
            )
        held: Splits = self.file.make()
        more = tuple(str(number) for number in range(len(held.classes), self.classes))
        held = replace(held, classes=(*held.classes, *more))
        if self.split == "official":
            return held
        parts = (held.train, held.validation, held.test)
        images = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        train, validation, test = (
            Part(np.ascontiguousarray(images[items]), labels[items])
            for items in self.cut(len(labels))
        )
        return Splits(train, validation, test, held.classes)


def arrays_of(
    x: Any, y: Any, where: str, classes: tuple[str, ...] = (), train: tuple[Any, Any] | None = None
) -> Splits:
    """Images and labels as a data set whose test images they are.

    Raises RobenchError as data/checked.py does.
    """
    images = checked_images(x, f"{where}: x")
    labels, names = checked_labels(y, len(images), f"{where}: y", classes)
    learned = Part(np.empty((0, *images.shape[1:]), np.float32), np.empty(0, np.int64))
    if train is not None:
        more = checked_images(train[0], f"{where}: x_train")
        if more.shape[1:] != images.shape[1:]:
            raise RobenchError(
                f"{where}: x_train are {more.shape[1:]}, but x are {images.shape[1:]}"
            )
        _, others = checked_labels(train[1], len(more), f"{where}: y_train", classes)
        if not classes:  # a class may be missing from either
            names = max(names, others, key=len) if _numbers(names, others) else _all(names, others)
            labels, _ = checked_labels(y, len(images), f"{where}: y", names)
        learned = Part(more, checked_labels(train[1], len(more), f"{where}: y_train", names)[0])
    return Splits(
        learned, Part(learned.images[:0], learned.labels[:0]), Part(images, labels), names
    )


def _numbers(*names: tuple[str, ...]) -> bool:
    """Whether classes are called 0, 1, ..., as whole numbers are."""
    return all(name == tuple(str(number) for number in range(len(name))) for name in names)


def _all(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set().union(*names)))


def _read(path: Path) -> Splits:
    """The arrays of a .npz file. Raises RobenchError for a file that is none; pickles are not
    read."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise RobenchError(
                f"{path.name}: its arrays unpack to {size / 2**30:.1f} GiB, more than 8"
            )
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except RobenchError:
        raise
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RobenchError(
            f"{path.name}: is not a .npz file of arrays ({system_words(error)}); "
            "write it with numpy.savez(FILE, x=images, y=labels)"
        ) from None
    absent = [name for name in ("x", "y") if name not in arrays]
    if absent:
        raise RobenchError(
            f"{path.name}: lacks {absent[0]}; it has {', '.join(arrays) or 'nothing'}"
        )
    if ("x_train" in arrays) != ("y_train" in arrays):
        raise RobenchError(f"{path.name}: x_train and y_train go together")
    train = (arrays["x_train"], arrays["y_train"]) if "x_train" in arrays else None
    classes = tuple(str(name) for name in arrays.get("classes", ()))
    return arrays_of(arrays["x"], arrays["y"], path.name, classes, train)


@lru_cache(maxsize=16)
def _digest(path: Path, _mtime: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
