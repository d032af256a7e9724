"""Does the code still give what the store holds? Reruns a sample of cells and compares bits, or,
where the stored ones were made on another kind of processor, the images' outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.execute import choose_device, open_run
from robench.plan import make_plan
from robench.store import Damaged, Store
from robench.tasks import environment
from robench.workspace import Workspace

PROMISED = ("device", "processor", "capability", "torch")
"""Of an environment: where all of these are equal, the same bits are promised."""
ROUNDING = 0.01
"""Share of a cell's images whose outcome rounding may change. Of the quickstart's 330,000 outcomes
it changes none between AVX-512 and torch's plainest code; longer attacks and larger networks carry
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


def verify(workspace: Workspace, report: str, store: Store, cells: int) -> Iterator[Verified]:
    """Evaluate `cells` finished cells of a report again, without writing anything.

    Which ones is drawn at random, the same for the same report and number. Raises RobenchError when
    none is finished.
    """
    run = open_run(make_plan(workspace, report), store, choose_device(None))
    finished = []
    known = store.cells()
    for cell in run.plan.cells:
        models = [t for t in (cell.training, cell.surrogate) if t is not None]
        if all(run.weights_of(training) is not None for training in models):
            identified, inputs = run.identify(cell)
            if run.digests[cell] in known and (inputs is None or store.has_inputs(inputs.digest)):
                finished.append((cell, identified, inputs))
    if not finished:
        raise RobenchError(
            f"{report}: no finished cells in {store.url}; run it first: robench run {report}"
        )
    rng = np.random.default_rng(derived_seed("verify", report, cells))
    chosen = rng.choice(len(finished), size=min(cells, len(finished)), replace=False)
    for cell, identified, inputs in (finished[index] for index in sorted(chosen)):
        name = run.digests[cell]
        try:
            stored = store.read_cell(name)
        except Damaged as damaged:
            raise RobenchError(f"{cell.label}: {damaged}; run the report again") from None
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


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What of PROMISED is other, such as `capability AVX512 there, AVX2 here`."""
    return "; ".join(
        f"{key} {there.get(key, 'unknown')} there, {here[key]} here"
        for key in PROMISED
        if there.get(key) != here[key]
    )


def _changed(stored: pa.Table, again: pa.Table) -> int:
    if len(stored) != len(again):
        return len(again)
    before, now = (rows.column("correct").to_numpy() for rows in (stored, again))
    return int((before != now).sum())
