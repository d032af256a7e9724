"""Corrupted test sets that were made before: MNIST-C, CIFAR-10-C, Tiny-ImageNet-C and their like.

Layouts, as their publishers ship them:

    npy       <path>/<kind>.npy         (5 n, h, w, c) uint8, severity after severity; labels.npy
              <path>/<kind>/test_images.npy and test_labels.npy    (MNIST-C: one severity, called 1)
    folders   <path>/<kind>/<severity>/<class>/.../<image>.JPEG

Nothing is corrupted here: the images of the publisher's test set are handed out as they lie there,
and an identity holds the hash of those that were used, not where they lay.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from robench.corruptions.base import Corruption
from robench.data.base import Part, by_number, data_folders
from robench.data.pictures import contents
from robench.digest import digest_bytes
from robench.errors import RobenchError, check_name, nearest, resolved

SUFFIXES = {".jpeg", ".jpg", ".png"}
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
    not_identity: ClassVar[tuple[str, ...]] = ("kinds", "path", "layout", "classes")

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
            files, of_class = _tree(root, kind, severity, self.classes)
            _enough(len(files), stop, root / kind / str(severity))
            return list(files[start:stop]), np.array(of_class[start:stop], np.int64)
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
        labels = labels[:per_severity]
    elif alone.is_file():
        if severity != 1:
            raise RobenchError(
                f"{alone}: this set has one severity, called 1; put severities = [1] into the card"
            )
        images, labels = _load(alone), _load(root / kind / "test_labels.npy").reshape(-1)
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
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise RobenchError(f"{path}: no such file") from None
    except Exception as error:  # whatever a parser makes of a header
        raise RobenchError(f"{path}: truncated, or not a .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise RobenchError(f"{path}: not a .npy file with a row for each image")
    return array


@lru_cache(maxsize=128)
def _tree(
    root: Path, kind: str, severity: int, classes: int | None
) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    """All images of one kind and severity, in the order of the numbers in their names; labels."""
    folder = root / kind / str(severity)
    if not folder.is_dir():
        known = [path.name for path in root.iterdir() if path.is_dir()]
        raise RobenchError(f"{folder}: no such folder; {nearest(kind, known)}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())[:classes]
    pictures = [
        (path, label)
        for label, name in enumerate(names)
        for path in (folder / name).rglob("*")
        if path.suffix.lower() in SUFFIXES
    ]
    pictures.sort(key=lambda item: (by_number(item[0].name), item[1]))
    return tuple(path for path, _ in pictures), tuple(label for _, label in pictures)


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
