"""What an attack made of single batches of a cell, in the store until the cell is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import safetensors.numpy

from robench.digest import Identity, digest
from robench.make.scoring import COLUMNS, Perturbed
from robench.store.seal import sealed_tensors
from robench.store.store import Damaged, Store


def batch_identity(cell: str, start: int) -> Identity:
    """Of a batch of the cell with this digest, which holds all that determines it."""
    return {"what": "batch", "cell": cell, "start": start}


def has_batch(store: Store, cell: str, start: int) -> bool:
    return store.has_batch(digest(batch_identity(cell, start)))


def write_batch(store: Store, cell: str, start: int, made: Perturbed) -> None:
    """What the attack of a cell made of the batch that begins with image `start`."""
    identity = batch_identity(cell, start)
    columns = {name: getattr(made, name) for name in COLUMNS}
    tensors = {k: np.ascontiguousarray(v) for k, v in columns.items() if v is not None}
    about = {
        "identity": identity,
        "loss_trace": made.loss_trace,
        "loss_runs": made.loss_runs,
        "notes": {str(image): text for image, text in made.notes.items()},
        "proof_seconds": made.proof_seconds,
        "without_gradients": made.without_gradients,
    }
    store.write_batch(digest(identity), sealed_tensors(tensors, about)[1])


def read_batches(store: Store, cell: str, starts: Sequence[int]) -> dict[int, Perturbed]:
    """Those of the batches that are there, by their first image; where there is one batch alone,
    nobody has looked for it apart."""
    found: dict[int, Perturbed] = {}
    for start in starts if len(starts) > 1 else ():
        with suppress(FileNotFoundError, Damaged):
            payload, about = store.read_batch(digest(batch_identity(cell, start)))
            tensors: dict[str, Any] = safetensors.numpy.load(payload)
            found[start] = Perturbed(
                **{name: tensors.get(name) for name in COLUMNS},  # type: ignore[arg-type]
                loss_trace=about["loss_trace"],
                loss_runs=about["loss_runs"],
                notes={int(image): text for image, text in about["notes"].items()},
                proof_seconds=about["proof_seconds"],
                without_gradients=about["without_gradients"],
            )
    return found


def forget_batches(store: Store, cell: str, starts: Iterable[int]) -> None:
    """The cell is there: nobody needs them any more."""
    for start in starts:
        store.forget_batch(digest(batch_identity(cell, start)))
