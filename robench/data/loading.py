"""The data set that a card names, loaded once and checked."""

from __future__ import annotations

import numpy as np

from robench.data.base import Dataset, Part, Splits
from robench.data.files import NotHere
from robench.data.ready import ready
from robench.data.sample import drawn
from robench.digest import canonical
from robench.errors import RobenchError, cause
from robench.plugin_code.guard import AtWork, guarded
from robench.plugin_code.time_limit import STOPS
from robench.workspace import plugins
from robench.workspace.cards import ModelCard
from robench.workspace.plan import Cell

KEPT = 2
"""Data sets that are kept in memory, the last used ones."""


_kept: dict[str, Splits] = {}


def load_splits(card: ModelCard) -> Splits:
    """The data set of a model card, kept in memory for the next card that names the same one."""
    fields = canonical(plugins.resolve("datasets", card.dataset, card))
    _kept[fields] = _kept.pop(fields) if fields in _kept else _loaded(card)
    while len(_kept) > KEPT:
        del _kept[next(iter(_kept))]
    return _kept[fields]


def _loaded(card: ModelCard) -> Splits:
    dataset: Dataset = plugins.build("datasets", card.dataset, card)
    who = plugins.called("datasets", card.dataset, card)
    try:
        with guarded(AtWork(who, plugins.own("datasets", card.dataset))):
            splits = dataset.load()
        return ready(splits, who, dataset.split_seed)
    except (NotHere, *STOPS):
        raise
    except BaseException as error:  # more points than there is memory for, whatever a plugin raises
        raise RobenchError(f"{card.file}: {cause(error)}") from error


def load_sample(cell: Cell) -> Part:
    """The test images of a cell."""
    part = drawn(load_splits(cell.training.card), cell.stop)
    if not cell.start:
        return part
    numbers = np.arange(len(part)) if part.numbers is None else part.numbers
    return Part(part.at(slice(cell.start, None)), part.labels[cell.start :], numbers[cell.start :])


def forget_splits() -> None:
    """Have data sets loaded again: somebody has written into one."""
    _kept.clear()
