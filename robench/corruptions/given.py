"""Corrupted test sets that were made before: MNIST-C, CIFAR-10-C, Tiny-ImageNet-C and their like.

Layouts, as their publishers ship them:

    npy       <path>/<kind>.npy         (5 n, h, w, c) uint8, severity after severity; labels.npy
              <path>/<kind>/test_images.npy and test_labels.npy    (MNIST-C: one severity, called 1)
    folders   <path>/<kind>/<severity>/<class>/.../<image>.JPEG    (ImageNet-C, 3DCC)

Nothing is corrupted here: the images of the publisher's test set are handed out as they lie there,
and an identity holds the hash of those that were used, not where they lay.
"""

from __future__ import annotations

import io
import math
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from robench.corruptions.base import Corruption
from robench.data.base import Part
from robench.data.files import by_number, data_folders
from robench.data.pictures import contents
from robench.digest import digest_bytes
from robench.errors import RobenchError, check_name, nearest, resolved

SUFFIXES = (".jpeg", ".jpg", ".png")
MOST_PIXELS = 2**24
"""Of one picture: small files may announce very large ones."""


def _name(text: str) -> str:
    try:
        return check_name(text, "kind")
    except RobenchError as error:
        raise ValueError(str(error)) from None


def _inside(text: str) -> str:
    if ".." in Path(text).parts:
        raise ValueError("say the whole path, or one below a folder in ROBENCH_DATA, without ..")
    return text


class GivenImages(Corruption):
    """A corrupted test set made before: MNIST-C, CIFAR-10-C, Tiny-ImageNet-C and their like."""

    kinds: tuple[Annotated[str, AfterValidator(_name)], ...] = Field(min_length=1)
    path: Annotated[str, AfterValidator(_inside)] = Field(min_length=1)
    """The folder that holds the kinds: absolute, or under one of the folders in ROBENCH_DATA."""
    layout: Literal["npy", "folders"] = "npy"
    classes: int | None = Field(default=None, ge=2)
    """With folders: use only the first so many classes, sorted by name, as `tiny-imagenet` does."""
    order: Literal["numbers", "classes"] = "numbers"
    """With folders: which image is the first. numbers: by the numbers in the files' names, across
    classes, as `tiny-imagenet` goes and ImageNet as shipped beside its devkit; classes: class by
    class, and by number inside, as `imagefolder` goes, and `imagenet` in a folder per class."""
    not_identity: ClassVar[tuple[str, ...]] = ("kinds", "path", "layout", "classes", "order")

    def given(self, kind: str, severity: int, start: int, stop: int) -> Part:
        """Images `start` to `stop` of the set. Raises RobenchError for files that are missing,
        damaged or too few."""
        chosen, labels = self._select(kind, severity, start, stop)
        pixels = _decode_all(chosen) if isinstance(chosen, list) else chosen
        images: np.ndarray = pixels[..., None] if pixels.ndim == 3 else pixels
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return Part(images.astype(np.float32) / np.float32(255), labels)

    def origin(self, kind: str, severity: int, start: int, stop: int) -> dict[str, Any]:
        chosen, labels = self._select(kind, severity, start, stop)
        if isinstance(chosen, list):
            parts = [contents(path) for path in chosen]
        else:
            parts = [str(chosen.shape).encode(), np.ascontiguousarray(chosen).tobytes()]
        return {"source": "given", "fingerprint": digest_bytes(*parts, labels.tobytes())}

    def _select(
        self, kind: str, severity: int, start: int, stop: int
    ) -> tuple[np.ndarray | list[Path], np.ndarray]:
        """Images as (n, h, w[, c]) uint8 or as files, and their labels, int64."""
        root = self._root()
        resolved(root / kind, f"{root}: kind {kind!r}")
        if self.layout == "folders":
            files, of_class = _tree(root, kind, severity, self.classes, self.order)
            folder = root / kind / str(severity)
            _enough(len(files), stop, folder)
            return [folder / file for file in files[start:stop]], of_class[start:stop].copy()
        images, labels = _arrays(root, kind, severity)
        _enough(len(images), stop, root / kind)
        return np.asarray(images[start:stop]), labels[start:stop].astype(np.int64)

    def _root(self) -> Path:
        named = f"corruption given: path = {self.path!r}"
        own = Path(self.path)
        if self.path.startswith("~"):
            own = resolved(own, named)
        tried = [folder / own for folder in data_folders()]
        for root in tried:
            if resolved(root, named).is_dir():
                return root
        raise RobenchError(
            f"{named}: no such folder; looked for "
            f"{' and '.join(str(root) for root in tried)}; name its parent in ROBENCH_DATA"
        )


def _arrays(root: Path, kind: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
    """The test images of one kind and severity, and their labels; images stay on the disk."""
    stacked, alone = root / f"{kind}.npy", root / kind / "test_images.npy"
    if stacked in root.iterdir():  # listed, so that whoever watches knows what is looked for
        images, labels = _load(stacked), _load(root / "labels.npy").reshape(-1)
        per_severity, rest = divmod(len(images), 5)
        if rest:
            raise RobenchError(
                f"{stacked}: {len(images)} images are not five severities of equal size"
            )
        images = images[(severity - 1) * per_severity : severity * per_severity]
        repeats = len(labels) == 5 * per_severity and labels.dtype.kind in "iu"
        if repeats and (labels.reshape(5, -1) != labels[:per_severity]).any():
            raise RobenchError(
                f"{root / 'labels.npy'}: its fifths differ, so that {stacked.name} is not five "
                "severities of the same images, one after the other"
            )
        labels = labels[:per_severity]
    elif alone.is_file():
        if severity != 1:
            raise RobenchError(
                f"{alone}: this set has one severity, called 1; put severities = [1] into the card"
            )
        images, labels = _load(alone), _load(root / kind / "test_labels.npy").reshape(-1)
    elif any(path.is_dir() for path in _inside_of(root / kind)):
        raise RobenchError(
            f"{root}: kind {kind!r}: holds folders, no arrays: put layout = 'folders' into the card"
        )
    else:
        known = {path.stem for path in root.glob("*.npy")} - {"labels"}
        known |= {path.parent.name for path in root.glob("*/test_images.npy")}
        raise RobenchError(f"{root}: kind {kind!r}: no such file; {nearest(kind, known)}")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise RobenchError(
            f"{root}: kind {kind!r}: holds {images.dtype} {images.shape}, not uint8 images"
        )
    if labels.dtype.kind not in "iu":
        raise RobenchError(f"{root}: kind {kind!r}: holds labels of type {labels.dtype}")
    if len(images) != len(labels):
        raise RobenchError(f"{root}: kind {kind!r}: {len(images)} images, {len(labels)} labels")
    return images, labels


def _load(path: Path) -> np.ndarray:
    try:
        about = path.stat()
    except FileNotFoundError:
        raise RobenchError(f"{path}: no such file") from None
    return _mapped(path, about.st_mtime_ns, about.st_size, about.st_ino)


@lru_cache(maxsize=2)  # images and labels; of a sample, images are asked for one by one
def _mapped(path: Path, *stamp: int) -> np.ndarray:
    """The array in a file, as long as the file is the same; its rows stay on the disk."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a parser makes of a header
        raise RobenchError(f"{path}: truncated, or not a .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise RobenchError(f"{path}: not a .npy file with a row for each image")
    return array


@lru_cache(maxsize=32)
def _tree(
    root: Path, kind: str, severity: int, classes: int | None, order: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """All images of one kind and severity by their paths inside its folder, and their labels."""
    folder = root / kind / str(severity)
    if not folder.is_dir():
        raise RobenchError(f"{folder}: no such folder; {_instead(root, kind)}")
    names = sorted(path.name for path in _inside_of(folder) if path.is_dir())[:classes]
    pictures = []
    for label, name in enumerate(names):
        for place, _, files in os.walk(folder / name):
            inside = Path(place).relative_to(folder).as_posix()
            pictures += [
                (sys.intern(f"{inside}/{file}"), file, label)  # all kinds and severities have it
                for file in files
                if file.lower().endswith(SUFFIXES) and not file.startswith(".")
            ]
    if order == "classes":
        pictures.sort(key=lambda item: (item[2], by_number(item[0])))
    else:
        pictures.sort(key=lambda item: (by_number(item[1]), item[2]))
    return tuple(p[0] for p in pictures), np.array([p[2] for p in pictures], np.int64)


def _instead(root: Path, kind: str) -> str:
    """What there is in place of a severity's folder, and what to do about it."""
    if (root / f"{kind}.npy").is_file():
        return f"there is {kind}.npy: put layout = 'npy' into the card"
    if (root / kind).is_dir():
        there = sorted(int(p.name) for p in _inside_of(root / kind) if p.name in set("12345"))
        if there:
            return f"there are others: put severities = {there} into the card"
        return f"{root / kind} must hold a folder for each severity, called 1 to 5"
    return nearest(kind, [path.name for path in _inside_of(root) if path.is_dir()])


def _inside_of(folder: Path) -> list[Path]:
    """What a folder holds that is not hidden; nothing, where there is none."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _enough(there: int, wanted: int, where: Path) -> None:
    if there < wanted:
        raise RobenchError(f"{where}: has {there} images, {wanted} are asked for")


def _decode(path: Path) -> np.ndarray:
    """(h, w, 1) of a grey image file, else (h, w, 3)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(contents(path))) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise ValueError(f"{image.size[0]}x{image.size[1]} pixels are too many")
            pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except RobenchError:
        raise
    except Exception as error:  # whatever a decoder makes of broken bytes
        raise RobenchError(f"{path}: not a whole image ({error})") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode_all(files: list[Path]) -> np.ndarray:
    """(n, h, w, c), uint8; grey files among colour ones become colour."""
    images = [_decode(file) for file in files]
    for image, file in zip(images, files, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise RobenchError(
                f"{file}: {image.shape[:2]} pixels, but {files[0].name} has {images[0].shape[:2]}"
            )
    channels = max(image.shape[2] for image in images)
    return np.stack([np.repeat(i, channels // i.shape[2], axis=2) for i in images])
