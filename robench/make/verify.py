"""Does the code still give what the store holds? Reruns a sample of cells, retrains a sample of
models and compares bits, or, where the stored ones were made on another kind of processor, the
images' outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.make.provenance import environment
from robench.make.run_state import choose_device, open_run
from robench.store import columns
from robench.store.promised import differences
from robench.store.store import Damaged, Store
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

Item = TypeVar("Item")
ROUNDING = 0.01
"""Share of a cell's images whose outcome rounding may change. Of 330,000 outcomes of the quickstart
it changed none between AVX-512 and torch's plainest code; longer attacks and larger networks carry
it further."""


@dataclass(frozen=True)
class Verified:
    """One cell, evaluated again."""

    label: str
    digest: str
    same: bool
    """Whether all rows have the same bits."""
    changed: int
    """Images whose outcome, the share of draws that are right, is another now."""
    images: int
    other_device: bool
    """Whether the stored outcome was made on another kind of device, which draws other numbers."""
    elsewhere: str
    """What is other here than where the stored outcome was made, in words; empty: nothing, so that
    the same bits are promised. Elsewhere sums are added in another order, and a sign or a rank
    that hangs on their last bits can turn."""

    @property
    def failed(self) -> bool:
        """Whether it is not what was promised: other bits, or elsewhere more than rounding does."""
        if self.same or self.other_device:
            return False
        return not self.elsewhere or self.changed > max(1, ROUNDING * self.images)

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.same:
            return "same bits"
        moved = f"{self.changed} of {self.images} images changed their outcome"
        if not self.elsewhere:
            return f"DIFFERENT: {moved}"
        if self.other_device:
            return f"other device, which draws other numbers: {moved} ({self.elsewhere})"
        beyond = "MORE THAN ROUNDING: " if self.failed else ""
        return f"other processor: compared within rounding: {beyond}{moved} ({self.elsewhere})"


@dataclass(frozen=True)
class Retrained:
    """One model, trained again."""

    label: str
    digest: str
    same: bool
    """Whether all weights have the same bits."""
    elsewhere: str
    """As in Verified: where it is not empty, other weights are no failure."""

    @property
    def failed(self) -> bool:
        return not self.same and not self.elsewhere

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.same:
            return "same weights"
        return f"other weights, as may be ({self.elsewhere})" if self.elsewhere else "DIFFERENT"


def verify_training(
    workspace: Workspace, report: str, store: Store, models: int
) -> Iterator[Retrained]:
    """Train `models` stored models of a report again, without writing anything.

    Which ones is drawn at random, the same for the same report and number; weights that were given
    are left out. Raises RobenchError when none is stored.
    """
    run = open_run(make_plan(workspace, report), store, choose_device(None))
    tasks = [run.training_of(t) for t in run.plan.trainings if run.weights_of(t) is not None]
    trained = [task for task in tasks if task.trains]
    if not trained:
        raise RobenchError(
            f"{report}: no trained models in {store.url}; run it first: robench run {report}"
        )
    for task in _sample(trained, models, "verify training", report, models):
        _, stored = _there(store.read_model, task.digest, task.label)
        weights, _ = task.train(lambda done, text: None)
        there, here = stored["provenance"]["environment"], environment(run.device)
        same = weights == stored["tensors"]
        yield Retrained(task.label, task.digest, same, differences(there, here))


def verify(workspace: Workspace, report: str, store: Store, cells: int) -> Iterator[Verified]:
    """Evaluate `cells` finished cells of a report again, without writing anything.

    Which ones is drawn at random, the same for the same report and number. Raises RobenchError when
    none is finished.
    """
    run = open_run(make_plan(workspace, report), store, choose_device(None))
    finished = []
    known = store.cells()
    for cell in run.plan.cells:
        if all(map(run.weights_of, cell.trainings)):
            identified, inputs = run.identify(cell)
            held = inputs is None or run.streams(cell) or store.has("inputs", inputs.digest)
            if run.digests[cell] in known and held:
                finished.append((cell, identified, inputs))
    if not finished:
        raise RobenchError(
            f"{report}: no finished cells in {store.url}; run it first: robench run {report}"
        )
    for cell, identified, inputs in _sample(finished, cells, "verify", report, cells):
        name = run.digests[cell]
        stored = _there(store.read_cell, name, cell.label)
        there, here = stored.provenance["environment"], environment(run.device)
        again = run.evaluation(cell, identified, inputs).evaluate()
        yield Verified(
            cell.label,
            name,
            again.digest == stored.digest,
            _changed(stored.rows, again.rows),
            len(again.rows),
            there["device"] != here["device"],
            differences(there, here),
        )


def data_notes(workspace: Workspace, report: str, store: Store) -> list[str]:
    """What is to be said of the data of a report, such as that it is not the publisher's."""
    run = open_run(make_plan(workspace, report), store, choose_device(None))
    return list(dict.fromkeys(note for model in run.resolved.values() for note in model.notes))


def _changed(stored: pa.Table, again: pa.Table) -> int:
    if len(stored) != len(again):
        return len(again)
    before, now = (columns.values(rows.column("correct")) for rows in (stored, again))
    return int((before != now).sum())


def _sample(found: Sequence[Item], number: int, *seed: Any) -> list[Item]:
    """So many of what was found, in its order."""
    rng = np.random.default_rng(derived_seed(*seed))
    chosen = rng.choice(len(found), size=min(number, len(found)), replace=False)
    return [found[index] for index in sorted(chosen)]


def _there(read: Callable[[str], Item], name: str, label: str) -> Item:
    try:
        return read(name)
    except (Damaged, FileNotFoundError) as error:
        raise RobenchError(f"{label}: {error}; run the report again") from None
