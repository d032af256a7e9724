"""Images and labels out of the items of other libraries' data sets: torch's, Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robench.data.pictures import WHOLE, in_bytes
from robench.errors import RobenchError

IMAGES = ("image", "img", "pixel_values", "x")
LABELS = ("label", "labels", "fine_label", "target", "y")
"""What the parts of an item may be called where it is a dictionary; the first of these counts."""


def holds_items(dataset: Any) -> bool:
    """Whether a data set is one of a library whose items are read one by one."""
    return isinstance(dataset, (TorchDataset, DataLoader)) or _is_of_huggingface(dataset)


def class_names(dataset: Any) -> tuple[str, ...]:
    """Names of the classes where Hugging Face's data set knows them, else none."""
    dataset = _behind(dataset)
    if not _is_of_huggingface(dataset):
        return ()
    features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
    key = next((key for key in LABELS if key in features), None)
    return tuple(map(str, getattr(features[key], "names", None) or ())) if key else ()


def stacked(dataset: Any, labelled: bool, where: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a data set, in its own order: a loader that shuffles would give
    another sample every time.

    Args:
        dataset: items are (image, label), or dictionaries with both; images tensors, arrays in
            [0, 1], or of PIL; of a loader over what has no numbers: batches of these.
        labelled: whether labels are asked for.
        where: what errors begin with.

    Raises RobenchError for items that are neither, of unequal sizes, or too many to be held.
    """
    dataset = _behind(dataset)
    if _is_of_huggingface(dataset) and _decodes_pictures(dataset):
        dataset = dataset.with_format(None)  # pictures, where its formats for tensors give bytes
    batched = isinstance(dataset, DataLoader)
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for number, item in enumerate(_items(dataset)):
        image, label = _pair(item, labelled, batched, f"{where}: item {number}")
        if images and image.shape[batched:] != images[0].shape[batched:]:
            raise RobenchError(
                f"{where}: item {number} is {image.shape}, but the first {images[0].shape}; bring "
                "all images to one size"
            )
        if not images:
            _refuse_too_many(dataset, image, where)
        images.append(image)
        labels.append(label)
    if not images:
        raise RobenchError(f"{where}: is empty")
    if batched:
        return np.concatenate(images), np.concatenate(labels)
    return np.stack(images), np.stack(labels)


def _behind(dataset: Any) -> Any:
    """The data set that a loader reads, where its items have numbers."""
    if isinstance(dataset, DataLoader) and hasattr(dataset.dataset, "__getitem__"):
        return dataset.dataset
    return dataset


def _decodes_pictures(dataset: Any) -> bool:
    features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
    key = next((key for key in IMAGES if key in features), None)
    return key is not None and type(features[key]).__name__ == "Image"


def _pair(item: Any, labelled: bool, batched: bool, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The image of an item, or the images of a batch, and the label or labels."""
    if isinstance(item, Mapping):
        item = _parts(item, labelled, where)
    if labelled:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise RobenchError(f"{where} is {type(item).__name__}, not (image, label)")
        image, label = item
        return _array(image, where), np.asarray(label)
    first = item[0] if isinstance(item, (list, tuple)) and item else item
    found = _array(first, where)
    return found, np.zeros(len(found) if batched else (), dtype=np.int64)


def _parts(item: Mapping[Any, Any], labelled: bool, where: str) -> tuple[Any, ...]:
    found = [next((key for key in keys if key in item), None) for keys in (IMAGES, LABELS)]
    if found[0] is None or (labelled and found[1] is None):
        raise RobenchError(
            f"{where} has {', '.join(map(str, item))}: an image is looked for as "
            f"{', '.join(IMAGES)}, a label as {', '.join(LABELS)}; rename them, or give (x, y)"
        )
    return tuple(item[key] for key in found if key is not None)


def _array(image: Any, where: str) -> np.ndarray:
    """An image as it is, and one of PIL as (c, h, w) in [0, 1]: grey ones have one channel, all
    others three."""
    if not type(image).__module__.startswith("PIL."):
        return np.asarray(image)
    try:
        opened = in_bytes(image, image.format)
    except ValueError as error:
        raise RobenchError(f"{where}: {error}") from None
    grey = opened.mode in ("1", "L")
    pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    pixels = pixels[None] if grey else pixels.transpose(2, 0, 1)
    scaled: np.ndarray = np.divide(pixels, 255, dtype=np.float32)
    return scaled


def _refuse_too_many(dataset: Any, image: np.ndarray, where: str) -> None:
    size = len(dataset) * image.size * 4 if hasattr(dataset, "__len__") else 0
    if size > WHOLE and not isinstance(dataset, DataLoader):
        raise RobenchError(
            f"{where}: {len(dataset)} images of {image.shape} are {size / 2**30:.0f} GiB, more "
            "than the 8 that are held at once: give some (torch.utils.data.Subset), or pictures in "
            "folders, which are read when they are used: {'name': 'imagefolder', 'path': FOLDER}"
        )


def _items(dataset: Any) -> Iterable[Any]:
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[number] for number in range(len(dataset)))
    items: Iterable[Any] = iter(dataset)
    return items


def _is_of_huggingface(dataset: Any) -> bool:
    """Asked of its class, so that the library need not be imported."""
    named = type(dataset).__module__.partition(".")[0] == "datasets"
    return named and not isinstance(dataset, dict) and not isinstance(dataset, Sequence)
