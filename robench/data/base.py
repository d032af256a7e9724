"""What a data set is to robench, and how it is split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from robench.data.checked import checked_labels
from robench.data.graph import Graph, ItemPart
from robench.data.pictures import Pictures
from robench.digest import digest_bytes
from robench.errors import RobenchError
from robench.workspace.plugins import Plugin


@dataclass(frozen=True)
class Part:
    """Images (n, c, h, w), float32 in [0, 1], and labels (n,), int64. Images that stay in their
    files are sliced like an array (data/pictures.py)."""

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray | None = None
    """Which of the publisher's images each is; None: they are in its order."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, c, h, w)."""
        return tuple(self.images.shape)

    @property
    def pictures(self) -> Pictures | None:
        """The images, where they stay in their files."""
        return self.images if isinstance(self.images, Pictures) else None

    def at(self, items: Any) -> np.ndarray:
        """Some of the images, by a slice, an array of numbers or a number; only these are decoded
        or converted."""
        images: np.ndarray = self.images[items]
        return images

    def some(self, items: np.ndarray) -> Part:
        """Some of them as a part of its own; pictures stay in their files."""
        return Part(self.images.take(items, 0), self.labels[items], _take(self.numbers, items))

    def quantised(self, items: Any) -> np.ndarray:
        """Some of the images in steps of 1/65280, uint16: what a data set is known by."""
        steps: np.ndarray = np.round(self.at(items) * 255 * 256).astype(np.uint16)
        return steps

    def content(self, item: int) -> bytes:
        """What one of them is known by among those of its data set, in few bytes: of pictures their
        file's digest, undecoded."""
        if self.pictures is not None:
            return self.pictures.digests[item].encode()
        return _few_bytes(self.at(item))

    @cached_property
    def contents(self) -> frozenset[bytes]:
        """What all of them are known by."""
        return frozenset(map(self.content, range(len(self))))

    def seal(self) -> Iterator[np.ndarray]:
        """What would differ if somebody wrote into the images."""
        if self.pictures is None:  # nobody writes into what is read each time
            yield self.images


def _take(numbers: np.ndarray | None, items: np.ndarray) -> np.ndarray | None:
    return None if numbers is None else numbers[items]


class Sliced:
    """The images of a part, converted or decoded as they are sliced."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, items: slice) -> np.ndarray:
        return self._part.at(items)


def _few_bytes(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


class InBytes(Part):
    """Images of a publisher who ships bytes: they become float32, four times as much, when they are
    asked for; all of them at once, and to stay, where `images` is."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """
        Args:
            pixels: (n, c, h, w), uint8.
        """
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "numbers", None)

    pixels: np.ndarray

    @cached_property
    def images(self) -> np.ndarray:
        return self.at(slice(None))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)

    @property
    def pictures(self) -> None:
        return None

    def at(self, items: Any) -> np.ndarray:
        images: np.ndarray = np.divide(self.pixels[items], 255, dtype=np.float32)
        return images

    def quantised(self, items: Any) -> np.ndarray:
        # A quarter of the time: rounded, a byte's steps are 256 times itself.
        steps: np.ndarray = np.left_shift(self.pixels[items], 8, dtype=np.uint16)
        return steps

    def content(self, item: int) -> bytes:
        return _few_bytes(self.pixels[item])  # all parts of a data set are bytes, or none

    def some(self, items: np.ndarray) -> Part:
        return Part(self.at(items), self.labels[items])

    def seal(self) -> Iterator[np.ndarray]:
        yield self.pixels
        for start in range(0, len(self) if "images" in vars(self) else 0, 1000):
            held = self.images[start : start + 1000]
            if not np.array_equal(held, self.at(slice(start, start + 1000)), equal_nan=False):
                yield held


@dataclass(frozen=True)
class Raw:
    """What a publisher ships: uint8 images (n, c, h, w), labels, and how many come first as
    training images (0: the publisher does not say)."""

    images: np.ndarray
    labels: np.ndarray
    official_train: int
    notes: tuple[str, ...] = ()
    """What pages say of the data, such as that a file is not the publisher's."""


@dataclass(frozen=True)
class Splits:
    """A data set ready for use. `validation` may be empty."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    graph: Graph | None = None
    """Where the items are nodes: what is around them."""
    notes: tuple[str, ...] = ()
    """What pages say of the data."""
    sample_seed: int = 0
    """By which samples of the test images are drawn."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def pixels(self, part: ItemPart) -> slice | None:
        """Where along an item's last axis a part lies; None: all of it. Raises RobenchError for
        edges of items that have none."""
        if self.graph is not None:
            return self.graph.pixels(part)
        if part == "edges":
            raise RobenchError('part = "edges": items of this data set are no nodes of a graph')
        return None

    def seal(self) -> bytes:
        """Of all that is held, bit by bit, to see whether somebody has written into it: quicker
        than the fingerprint, and never stored."""
        sha = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for array in (*part.seal(), part.labels):
                sha.update(np.ascontiguousarray(array).view(np.uint8).data)
        if self.graph is not None:
            for array in (self.graph.features, self.graph.edges, self.graph.adjacency):
                sha.update(np.ascontiguousarray(array).view(np.uint8).data)
        return sha.digest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all images and labels as they are handed out, split by split."""
        parts: list[bytes] = []
        for part in (self.train, self.validation, self.test):
            parts.append(str(part.shape).encode())
            if part.pictures is not None:
                parts += [part.pictures.fingerprint.encode(), part.labels.tobytes()]
                continue
            for start in range(0, len(part), 1000):  # not all at once: they would double the memory
                quantised = part.quantised(slice(start, start + 1000))
                parts.append(digest_bytes(np.ascontiguousarray(quantised).data).encode())
            parts.append(part.labels.tobytes())
        if self.graph is not None:
            parts.append(self.graph.fingerprint.encode())
        return digest_bytes(*parts)


def _ratio(text: str) -> str:
    parts = text.split(":")
    if text != "official" and not (
        len(parts) in (2, 3) and all(part.isdecimal() and int(part) > 0 for part in parts)
    ):
        raise ValueError(
            "say 'official', train:test as in '6:4', or train:validation:test as in '7:2:1'"
        )
    return text


@dataclass(frozen=True)
class Held:
    """Hands out what it holds; pickles to worker processes."""

    value: Any

    def __call__(self) -> Any:
        return self.value


Split = Annotated[str, AfterValidator(_ratio)]


class Dataset(Plugin):
    """Base of the data sets: subclasses say where their images come from."""

    split: Split = "official"
    """official: the publisher's test set, and the last tenth of the training set for validation;
    a:b = train:test, a tenth of the training part, at most 2,000 images, held back for validation;
    a:b:c = train:validation:test. Ratios pool and shuffle."""
    split_seed: int = Field(default=0, ge=0)
    """By which ratios shuffle, and by which a report that asks for fewer test images than there are
    draws its sample of them."""

    def raw(self) -> Raw:
        """All images as the publisher ships them."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its images come from")

    def class_names(self) -> tuple[str, ...]:
        return tuple(str(label) for label in range(10))

    def load(self) -> Splits:
        """The images, split as the fields say. Raises RobenchError when files are missing."""
        raw = self.raw()
        count, test_from = len(raw.labels), raw.official_train
        if self.split != "official":
            return self._splits(raw, *self.cut(count))
        if not test_from:
            raise RobenchError(
                f"dataset {type(self).__name__}: split = 'official': its publisher names no "
                "test set; give a ratio such as '7:2:1'"
            )
        ends = (0, test_from - test_from // 10, test_from, count)
        return self._splits(raw, *map(slice, ends[:-1], ends[1:]))

    def cut(self, items: int | np.ndarray) -> list[np.ndarray]:
        """Items, or so many of them, shuffled and cut into those for training, validation and test
        by the ratio in `split`."""
        order = np.random.default_rng(self.split_seed).permutation(items)
        shares = [int(part) for part in self.split.split(":")]
        test_from = len(order) * (sum(shares) - shares[-1]) // sum(shares)
        validation_from = len(order) * shares[0] // sum(shares)
        if len(shares) == 2:
            validation_from -= min(validation_from // 10, HELD_BACK)
        return np.split(order, [validation_from, test_from])

    def _splits(self, raw: Raw, *sets: np.ndarray | slice) -> Splits:
        classes = self.class_names()
        if np.asarray(raw.labels).dtype.kind not in "iu":
            who = f"dataset {type(self).__name__}: labels"
            raw = replace(raw, labels=checked_labels(raw.labels, len(raw.images), who, classes)[0])
        if len(raw.labels) and not 0 <= raw.labels.min() <= raw.labels.max() < len(classes):
            raise RobenchError(
                f"dataset {type(self).__name__}: has labels from {raw.labels.min()} to "
                f"{raw.labels.max()}, but {len(classes)} classes, which count from 0"
            )
        train, validation, test = (_part(raw, items) for items in sets)
        return Splits(train, validation, test, classes, notes=raw.notes)


HELD_BACK = 2000
"""Training images, at most, that validate where a split says nothing of validation."""


def _part(raw: Raw, index: np.ndarray | slice) -> Part:
    """Some items; a slice of a publisher's bytes is no copy."""
    images, labels = raw.images[index], raw.labels[index].astype(np.int64)
    if images.dtype == np.uint8:
        return InBytes(np.ascontiguousarray(images), labels)
    return Part(np.array(images, order="C", copy=isinstance(index, slice) or None), labels)
