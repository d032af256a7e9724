"""Which files of a store a report needs, found piece by piece: the digests of cells hang on
weights, and those of proofs on what attacks have broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from robench.make.run_state import Run, open_run
from robench.store.store import Damaged, Store, key_of
from robench.workspace.folders import Workspace
from robench.workspace.plan import Cell, make_plan


def needed(
    workspace: Workspace, report: str, store: Store, beside: Store, only: Sequence[str] = ()
) -> Iterator[list[str]]:
    """Names of files, batch by batch: a batch is known once those before it are in `store`.

    Args:
        store: where they are to be, or are; its weights say which cells are asked for.
        beside: the other store, whose contradictions of what is needed count.
        only: patterns of models or threats.

    Raises RobenchError for bad cards.
    """
    run = open_run(make_plan(workspace, report, only), store, "cpu")
    keys = {run.model_digest(training) for training in run.plan.trainings}
    yield store.needed({"models": sorted(keys)})
    kept = store.images() | beside.images()
    waves = dict[Cell, int]()
    for cell in run.plan.cells:  # a proof comes after what it is handed, which stands before it
        before = [waves[other] for other in run.plan.handed.get(cell, ()) if other in waves]
        waves[cell] = 1 + max(before, default=-1)
    for wave in range(1 + max(waves.values(), default=-1)):
        batch = _of_cells(run, [cell for cell in waves if waves[cell] == wave], kept)
        keys |= {*map(key_of, batch)}
        yield batch
    against = beside.files.sizes("contradictions")
    yield [name for name in against if key_of(name) in keys]
    if not only:
        yield store.needed({}, report)


def _of_cells(run: Run, planned: Sequence[Cell], kept: set[str]) -> list[str]:
    """Files of cells, of what they share and of their images where those are kept, as far as their
    digests are known."""
    names, trained = dict[str, None](), run.trained()
    for cell in planned:
        with suppress(Damaged):  # it counts as missing
            if not trained.issuperset(cell.trainings):
                continue
            _, inputs = run.identify(cell)
            shared = [inputs.digest] if inputs is not None and not run.streams(cell) else []
            cells = [run.digests[cell]]
            images = [name for name in cells if name in kept]
            files = run.store.needed({"inputs": shared, "cells": cells, "images": images})
            names |= dict.fromkeys(files)
    return list(names)
