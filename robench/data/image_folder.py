"""Pictures in folders: one folder per class, of any size and number."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Held, NotHere, Part, Split, Splits, by_number, data_folders
from robench.data.pictures import KNOWN, Pictures, Shaping, digests
from robench.digest import digest_bytes
from robench.errors import RobenchError
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting, beside

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
TRAIN, VALIDATION, TEST = ("train", "training"), ("validation", "valid", "val"), ("test",)
"""What the folders of the parts may be called."""
Pairs = list[tuple[Path, int]]
"""Files of pictures, and the class of each."""


@dataclass(frozen=True)
class Listing:
    """What lies in a folder: the names of the classes, and the pictures of each part."""

    classes: tuple[str, ...]
    train: Pairs
    validation: Pairs
    test: Pairs

    def digest(self, place: Path) -> str:
        """Of the names and bytes of all files."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        pairs = [(part, *pair) for part, pictures in parts.items() for pair in pictures]
        contents = digests([file for _, file, _ in pairs])
        return digest_bytes(
            *(name.encode() for name in self.classes),
            *(
                f"{part} {file.relative_to(place).as_posix()} {label} {content}".encode()
                for (part, file, label), content in zip(pairs, contents, strict=True)
            ),
        )


class ImageFolder(Dataset):
    """Your own pictures: a folder per class, in one folder or in `train`, `val` and `test`. They
    are decoded when they are used, so that a set may be larger than memory."""

    path: Setting
    """The folder: beside the card, under a folder of ROBENCH_DATA, or by its whole path."""
    side: int = Field(default=224, ge=1, le=4096)
    """Pixels of the square images that networks see."""
    resize: int = Field(default=0, ge=0, le=8192)
    """What the shorter side is brought to before the middle is cut out; 0: `side`."""
    crop: Literal["centre", "none"] = "centre"
    """none: the whole picture is squeezed into the square."""
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are interpolated, with antialiasing."""
    grey: bool = False
    """One channel: luminance (ITU-R 601)."""
    split: Split = "official"
    """official: the parts as the folders say (`val` is for testing where there is no `test`; a
    folder of classes alone is all for testing); a ratio shuffles all pictures."""

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("path", getattr(cls, "path", None))
        if not isinstance(name, str):
            return dict(settings)
        where = f"{card.file}: path = {name!r}"
        place = _place(name, card, where)
        known = (cls, place, _times(place))
        if known not in KNOWN:
            listed = cls.listed(place, where)
            KNOWN[known] = f"pictures@{listed.digest(place)}", Held(listed)
        return {**settings, "path": Located(*KNOWN[known])}

    @classmethod
    def listed(cls, place: Path, where: str = "") -> Listing:
        """What lies in a folder. Raises RobenchError where there are no pictures."""
        train, validation, test = (
            next((place / name for name in names if (place / name).is_dir()), None)
            for names in (TRAIN, VALIDATION, TEST)
        )
        if not test:
            test, validation = validation, None
        if not (train or test):
            test = place
        names = sorted({name for part in (train, validation, test) for name in _classes(part)})
        if not names:
            raise RobenchError(
                f"{where or place}: {place} holds no folder of pictures ({', '.join(ENDINGS)}); "
                "put those of each class into a folder of its name"
            )
        return Listing(tuple(names), *(_pairs(part, names) for part in (train, validation, test)))

    def load(self) -> Splits:
        if not isinstance(self.path, Located):
            raise RobenchError(
                f"dataset {type(self).__name__}: path = {self.path!r}: is only found beside a card"
            )
        resize = self.resize or self.side
        if self.crop == "centre" and resize < self.side:
            raise RobenchError(
                f"dataset {type(self).__name__}: resize = {resize}: is below side = {self.side}; "
                "there is no square of that side to cut out"
            )
        listed: Listing = self.path.make()
        learned, held, test = listed.train, listed.validation, listed.test
        if self.split != "official":
            pooled = [*learned, *held, *test]
            learned, held, test = ([pooled[i] for i in items] for items in self.cut(len(pooled)))
        elif learned and not held:  # a tenth for validation, of all classes
            order = np.random.default_rng(self.split_seed).permutation(len(learned))
            kept = np.split(order, [len(learned) - len(learned) // 10])
            learned, held = ([learned[i] for i in sorted(items)] for items in kept)
        shaping = Shaping(self.side, resize, self.crop, self.filter, self.grey)
        train, validation, asked = (_part(items, shaping) for items in (learned, held, test))
        return Splits(train, validation, asked, listed.classes)


def _part(items: Pairs, shaping: Shaping) -> Part:
    files = [file for file, _ in items]
    pictures = cast("np.ndarray", Pictures(files, digests(files), shaping))  # slices as one does
    return Part(pictures, np.array([label for _, label in items], np.int64))


def _place(name: str, card: Card, where: str) -> Path:
    """The folder that a card names. Raises NotHere where there is none."""
    tried = [beside(name, card, where), *(base / name for base in data_folders())]
    for place in tried:
        if place.is_dir():
            return place.resolve()
    raise NotHere(
        f"{where}: no such folder: looked for it beside the card and under the folders of "
        "ROBENCH_DATA"
    )


def _times(place: Path) -> tuple[int, ...]:
    """When files were last added to a folder or to those inside, or taken away."""
    inner = _folders(place)
    parts = [each for each in inner if each.name in (*TRAIN, *VALIDATION, *TEST)]
    every = [place, *inner, *(each for part in parts for each in _folders(part))]
    return tuple(each.stat().st_mtime_ns for each in every)


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _classes(folder: Path | None) -> list[str]:
    inside = folder.iterdir() if folder else ()
    return [each.name for each in inside if not each.name.startswith(".") and pictures(each)]


def _pairs(folder: Path | None, names: Sequence[str]) -> Pairs:
    if folder is None:
        return []
    return [(file, label) for label, name in enumerate(names) for file in pictures(folder / name)]


def pictures(folder: Path) -> list[Path]:
    """The pictures under a folder, in the order of their names."""
    files = [
        file
        for file in (folder.rglob("*") if folder.is_dir() else ())
        if file.suffix.lower() in ENDINGS and not file.name.startswith(".") and file.is_file()
    ]
    return sorted(files, key=lambda file: by_number(file.relative_to(folder).as_posix()))
