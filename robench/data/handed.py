"""Data that Python code hands over: arrays, torch data sets and loaders, data set classes, a
file."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robench.data.arrays import arrays_of
from robench.data.base import Dataset, Held, Splits
from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.cards import ModelCard, Spec
from robench.workspace.plugins import Located

WHAT = (
    "a name ('cifar10'), {'name': ..., 'split': ...}, (x, y), a torch Dataset or DataLoader, a "
    "robench.Dataset, or './file.py:Class'; with labels='predicted' also images alone"
)


def data_handed_over(
    dataset: Any, classes: Sequence[str] = (), labelled: bool = True
) -> Located | None:
    """The data in memory, known by its content; None for what a model card can name itself.

    Args:
        dataset: see `WHAT`. classes: names of the classes, in the order of the labels.
        labelled: whether labels are asked for; without, images may come alone, and all are of
            class 0 then.

    Raises RobenchError for anything else, and for images and labels that are none.
    """
    if isinstance(dataset, str) and ".py:" in dataset:
        return _source(_loaded(_from_file(dataset), dataset))
    if isinstance(dataset, (str, dict)):
        return None
    if isinstance(dataset, Splits):
        return _source(dataset)
    if isinstance(dataset, Dataset) or (inspect.isclass(dataset) and issubclass(dataset, Dataset)):
        return _source(_loaded(dataset, getattr(dataset, "__name__", type(dataset).__name__)))
    if isinstance(dataset, (list, tuple)) and len(dataset) == 2:
        x, y = dataset
    elif isinstance(dataset, (TorchDataset, DataLoader)):
        x, y = _stacked(dataset, labelled)
    elif not labelled and getattr(dataset, "ndim", 0) in (3, 4):
        x, y = dataset, np.zeros(len(dataset), dtype=np.int64)
    else:
        raise RobenchError(f"evaluate: dataset is {type(dataset).__name__}; give {WHAT}")
    return _source(arrays_of(x, y, "evaluate: dataset", tuple(map(str, classes))))


def _source(splits: Splits) -> Located:
    return Located(f"data@{splits.fingerprint}", Held(splits))


def _from_file(name: str) -> type[Any]:
    """The class that `./file.py:Class` names, relative to the current folder."""
    file, _, wanted = name.partition(":")
    path = (Path.cwd() / file).resolve()
    card = ModelCard(
        name="dataset",
        root=path.parent,
        dataset=Spec(name=name),
        network=Spec(name="module"),
        trainer=Spec(name="given"),
    )
    return plugins.load("datasets", f"{path}:{wanted}", card)


def _loaded(dataset: Any, name: str) -> Splits:
    try:
        made: Any = dataset() if inspect.isclass(dataset) else dataset
        splits = made.load()
    except RobenchError:
        raise
    except Exception as error:  # whatever a stranger's class raises
        raise RobenchError(f"evaluate: dataset {name}: {type(error).__name__}: {error}") from error
    if not isinstance(splits, Splits):
        raise RobenchError(
            f"evaluate: dataset {name}: load() gives {type(splits).__name__}, not Splits"
        )
    return splits


def _stacked(
    dataset: TorchDataset[Any] | DataLoader[Any], labelled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a torch data set, in its own order: a loader that shuffles would
    give another sample every time."""
    where = "evaluate: dataset"
    if isinstance(dataset, DataLoader) and hasattr(dataset.dataset, "__getitem__"):
        dataset = dataset.dataset
    batched = isinstance(dataset, DataLoader)
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for number, found in enumerate(_items(dataset)):
        item = found if labelled else _unlabelled(found, batched)
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise RobenchError(
                f"{where}: item {number} is {type(item).__name__}, not (image, label)"
            )
        image, label = (np.asarray(part) for part in item)
        if type(item[0]).__module__.startswith("PIL."):
            raise RobenchError(
                f"{where}: item {number} is a PIL image; give the data set a transform to a tensor "
                "in [0, 1] (torchvision's ToTensor())"
            )
        if images and image.shape[batched:] != images[0].shape[batched:]:
            raise RobenchError(
                f"{where}: item {number} is {image.shape}, but the first {images[0].shape}; bring "
                "all images to one size"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise RobenchError(f"{where}: is empty")
    if batched:
        return np.concatenate(images), np.concatenate(labels)
    return np.stack(images), np.stack(labels)


def _unlabelled(item: Any, batched: bool) -> tuple[Any, Any]:
    """An image, or a batch of them, that may come alone, with labels of class 0."""
    image = item[0] if isinstance(item, (list, tuple)) and item else item
    return image, np.zeros(len(image) if batched else (), dtype=np.int64)


def _items(dataset: Any) -> Iterable[Any]:
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[number] for number in range(len(dataset)))
    items: Iterable[Any] = iter(dataset)
    return items
