"""Pictures in folders: one folder per class, of any size and number."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Held, Part, Split, Splits
from robench.data.files import NotHere, by_number, data_folders
from robench.data.pictures import KNOWN, Pictures, Shaping, digests
from robench.digest import digest_bytes
from robench.errors import RobenchError
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting, beside

ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"),
)
UNREAD = (".heic", ".heif", ".avif", ".jp2", ".tga", ".svg", ".raw", ".npy")
"""Pictures of other kinds, which are left out; the page says so."""
TRAIN, VALIDATION = ("train", "training"), ("validation", "valid", "val")
TEST = ("test", "testing")
"""What the folders of the parts may be called, in capitals or not."""
Pairs = list[tuple[Path, int]]
"""Files of pictures, and the class of each."""


@dataclass(frozen=True)
class Listing:
    """What lies in a folder: the names of the classes, and the pictures of each part."""

    classes: tuple[str, ...]
    train: Pairs
    validation: Pairs
    test: Pairs
    notes: tuple[str, ...] = ()
    """What is left out."""

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
    aside: ClassVar[tuple[str, ...]] = ("__MACOSX", "__pycache__")
    """Folders that lie beside those of classes and are none."""

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
        """What lies in a folder. Raises RobenchError where there are no pictures, or a class has
        none."""
        where = where or str(place)
        inside = {each.name.lower(): each for each in _folders(place)}
        train, validation, test = (
            next((inside[name] for name in names if name in inside), None)
            for names in (TRAIN, VALIDATION, TEST)
        )
        if not test:
            test, validation = validation, None
        if not (train or test):
            test = place
        parts = [part for part in (train, validation, test) if part]
        found = [_classes(part, cls.aside) for part in parts]
        names = sorted({name for each in found for name, filled in each.items() if filled})
        if not names:
            raise RobenchError(
                f"{where}: {place} holds no folder of pictures ({', '.join(ENDINGS)}); put those "
                "of each class into a folder of its name"
            )
        empty = sorted({name for each in found for name in each} - {*names})
        if empty:
            raise RobenchError(
                f"{where}: {parts[0] / empty[0]} holds no picture ({', '.join(ENDINGS)}); fill it, "
                "or remove it: without it, later classes have other numbers"
            )
        if len(names) == 1:
            raise RobenchError(
                f"{where}: {place} holds pictures in one folder only, {names[0]}: that is one "
                "class; name the folder that holds those of the classes, or of train, val and test"
            )
        learned, held, asked = (_pairs(part, names) for part in (train, validation, test))
        return Listing(tuple(names), learned, held, asked, _left_out(parts, names))

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
        notes = tuple(f"{type(self).__name__.lower()}: {note}" for note in listed.notes)
        return Splits(train, validation, asked, listed.classes, notes=notes)


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
        f"ROBENCH_DATA ({', '.join(map(str, tried))})"
    )


def _times(place: Path) -> tuple[int, ...]:
    """When files were last added to a folder or to those inside, or taken away."""
    inner = _folders(place)
    parts = [each for each in inner if each.name.lower() in (*TRAIN, *VALIDATION, *TEST)]
    every = [place, *inner, *(each for part in parts for each in _folders(part))]
    return tuple(each.stat().st_mtime_ns for each in every)


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _classes(part: Path, aside: Sequence[str]) -> dict[str, bool]:
    """Which folders of a part may be classes, and whether there is a picture in each."""
    shown = [each for each in _folders(part) if not each.name.startswith(".")]
    return {each.name: bool(pictures(each)) for each in shown if each.name not in aside}


def _left_out(parts: Sequence[Path], names: Sequence[str]) -> tuple[str, ...]:
    """What a page says of pictures that are not read."""
    beside = [file.name for part in parts for file in part.iterdir() if _is_picture(file)]
    unread = [
        file.name
        for part in parts
        for name in names
        for file in (part / name).rglob("*")
        if file.suffix.lower() in UNREAD and not file.name.startswith(".")
    ]
    said = {"beside the folders of classes": beside, "of a kind that is not read": unread}
    return tuple(
        f"left out, {why}: {len(files)} ({', '.join(sorted(files)[:3])})"
        for why, files in said.items()
        if files
    )


def _pairs(folder: Path | None, names: Sequence[str]) -> Pairs:
    if folder is None:
        return []
    return [(file, label) for label, name in enumerate(names) for file in pictures(folder / name)]


def pictures(folder: Path) -> list[Path]:
    """The pictures under a folder, in the order of their names. Raises RobenchError for a link to
    one that is not there."""
    files = [file for file in (folder.rglob("*") if folder.is_dir() else ()) if _is_picture(file)]
    return sorted(files, key=lambda file: by_number(file.relative_to(folder).as_posix()))


def _is_picture(file: Path) -> bool:
    if file.suffix.lower() not in ENDINGS or file.name.startswith("."):
        return False
    if file.is_symlink() and not file.exists():
        raise RobenchError(f"{file}: is a link to what is not there ({file.readlink()})")
    return file.is_file()
