"""Data that Python code hands over: arrays, torch data sets and loaders, data set classes, a
file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robench.data.arrays import arrays_of
from robench.data.base import Dataset, Held, Splits
from robench.data.items import class_names, holds_items, stacked
from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.cards import ModelCard, Spec
from robench.workspace.plugins import Located

WHAT = (
    "a name ('cifar10'), {'name': ..., 'split': ...}, (x, y), a torch Dataset or DataLoader, a "
    "Dataset of Hugging Face, a robench.Dataset, or './file.py:Class'; with labels='predicted' "
    "also images alone"
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
    if type(dataset).__name__ in ("DatasetDict", "IterableDatasetDict"):
        raise RobenchError(
            f"evaluate: dataset is {type(dataset).__name__}: say which part, as in DATA['test']; "
            f"there are {', '.join(dataset)}"
        )
    if isinstance(dataset, (str, dict)):
        return None
    if isinstance(dataset, Splits):
        return _source(dataset)
    if isinstance(dataset, Dataset) or (inspect.isclass(dataset) and issubclass(dataset, Dataset)):
        return _source(_loaded(dataset, getattr(dataset, "__name__", type(dataset).__name__)))
    if isinstance(dataset, (list, tuple)) and len(dataset) == 2:
        x, y = dataset
    elif holds_items(dataset):
        x, y = stacked(dataset, labelled, "evaluate: dataset")
        classes = classes or class_names(dataset)
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
