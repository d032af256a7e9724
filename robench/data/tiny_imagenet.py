"""Tiny-ImageNet: 64x64 photographs of 200 ImageNet classes, from its publisher's folder or zip."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Raw
from robench.data.files import by_number, data_folders, find_folder
from robench.data.pictures import Shaping
from robench.data.publisher import odd_files
from robench.errors import RobenchError

FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
HASH = "md5:90528d7ca1a48142e341f4ef8d21d0de"
SIDE = 64
LARGEST = 2**24
"""Bytes of a file of the set; its longest, words.txt, has 2.7 million."""

Place = Path | zipfile.Path


class TinyImageNet(Dataset):
    """Small photographs, 64x64 colour, 500 + 50 of each of 200 classes (Stanford CS231n).

    The publisher's validation images are the test set, for its own test set has no labels. Training
    images come in turns from all classes, test images in the order of their numbers.
    """

    classes: int = Field(default=10, ge=2, le=200)
    """The first so many classes in the order of their WordNet ids; GLR's experiments use 10."""
    grey: bool = False
    """One channel: luminance (ITU-R 601)."""
    side: Literal[48, 64] = 64
    """48: resized by bilinear interpolation with antialiasing; with `grey`, GLR's 2,304 inputs."""

    def raw(self) -> Raw:
        place = _find()
        ids = self._ids(place)
        files = [
            (folder / image, label)
            for label, name in enumerate(ids)
            for folder in [place / "train" / name / "images"]
            for image in _names(folder)
        ]
        # n01443537_0, n01629819_0, ...: so that the last tenth, for validation, holds all classes
        files.sort(key=lambda item: (by_number(item[0].name.rpartition("_")[2]), item[1]))
        test = self._annotated(place, ids)
        images = [self._read(file) for file, _ in (*files, *test)]
        return Raw(
            images=np.stack(images),
            labels=np.array([label for _, label in (*files, *test)]),
            official_train=len(files),
            notes=_notes(place),
        )

    def class_names(self) -> tuple[str, ...]:
        """The first of each class's words: goldfish, European fire salamander, ..."""
        place = _find()
        words = dict(line.split("\t", 1) for line in _lines(place / "words.txt") if "\t" in line)
        return tuple(words.get(name, name).split(",")[0] for name in self._ids(place))

    def _ids(self, place: Place) -> list[str]:
        ids = sorted({*filter(None, _lines(place / "wnids.txt"))})
        if len(ids) < self.classes:
            raise RobenchError(
                f"dataset tiny-imagenet: classes = {self.classes}: {place} holds {len(ids)}"
            )
        return ids[: self.classes]

    def _annotated(self, place: Place, ids: list[str]) -> list[tuple[Place, int]]:
        annotations = place / "val" / "val_annotations.txt"
        rows = [line.split("\t") for line in _lines(annotations) if line]
        if any(len(row) < 2 for row in rows):
            raise RobenchError(f"{annotations}: a line is not 'file <tab> class ...'")
        rows.sort(key=lambda row: by_number(row[0]))
        images = place / "val" / "images"
        return [(images / row[0], ids.index(row[1])) for row in rows if row[1] in ids]

    def _read(self, file: Place) -> np.ndarray:
        """(c, side, side), uint8."""
        from PIL import Image

        try:
            data = _bytes(file)
            with Image.open(io.BytesIO(data)) as opened:
                size = opened.size
            if size == (SIDE, SIDE):  # before a bomb of another size is unpacked
                return Shaping(self.side, self.side, "none", grey=self.grey)(data)
        except Exception as error:  # whatever a decoder makes of broken bytes
            raise RobenchError(f"{file}: missing or not a whole image ({error})") from None
        raise RobenchError(f"{file}: {size[0]}x{size[1]} pixels, not {SIDE}x{SIDE}")


def _find() -> Place:
    """The publisher's folder, or the inside of its zip file, wherever data is looked for."""
    for base in data_folders():
        archive = base / f"{FOLDER}.zip"
        if archive.is_file() and not (base / FOLDER).exists():
            try:
                return zipfile.Path(archive, f"{FOLDER}/")
            except (OSError, zipfile.BadZipFile) as error:
                raise RobenchError(
                    f"{archive}: not a whole zip file ({error}); remove it to fetch it anew"
                ) from None
    return find_folder(FOLDER, ("wnids.txt", "train", "val"), URL, HASH)


def _notes(place: Place) -> tuple[str, ...]:
    """Only of the archive a hash is known."""
    if isinstance(place, Path):
        return (
            "tiny-imagenet: not held against the publisher's data: a hash is known of its archive "
            "only, and this was unpacked before",
        )
    archive = Path(str(place.root.filename))
    return odd_files("tiny-imagenet", {archive.name: archive}, {archive.name: HASH})


def _bytes(file: Place) -> bytes:
    """Raises ValueError for a file that unpacks to more than any of this set."""
    with file.open("rb") as opened:
        data: bytes = opened.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    return data


def _lines(file: Place) -> list[str]:
    try:
        return _bytes(file).decode("utf-8").splitlines()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RobenchError(f"{file}: missing or not a text ({error})") from None


def _names(folder: Place) -> list[str]:
    try:
        names = [item.name for item in folder.iterdir()]
    except (OSError, KeyError, ValueError) as error:
        raise RobenchError(f"{folder}: no such folder of images ({error})") from None
    if not names:
        raise RobenchError(f"{folder}: holds no images")
    return names
