"""Does the code still give what the store holds? Reruns a sample of cells and compares bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.execute import choose_device, open_run
from robench.plan import make_plan
from robench.store import Damaged, Store
from robench.workspace import Workspace


@dataclass(frozen=True)
class Verified:
    """One cell, evaluated again."""

    label: str
    digest: str
    same: bool
    device: str
    """Where the stored outcome was made; bits are promised on the same kind of device only."""


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
        again = run.evaluation(cell, identified, inputs).evaluate()
        yield Verified(
            cell.label,
            name,
            again.digest == stored.digest,
            str(stored.provenance["environment"]["device"]),
        )
