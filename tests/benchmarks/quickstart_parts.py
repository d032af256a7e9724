"""The quickstart from nothing in this process, and where its CPU time went, as JSON.

    python tests/benchmarks/quickstart_parts.py STORE PAGE

The arithmetic is timed where it happens, in the run itself: what else the machine does, and whether
it is slow or fast that minute, is then the same for the parts and for the whole.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robench import run
from robench.make import cell_network, tasks
from robench.networks.base import Network
from robench.store.store import Store
from robench.trainers.base import Trainer
from robench.workspace.folders import open_workspace, reference_root

UPDATES, ATTACKS, SCORING = "updates of the trainings", "passes of the attacks", "passes that score"
CORRUPTIONS = "corruptions"


class Parts:
    """CPU seconds inside calls of certain functions, by part; a call inside another counts once."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.doing: str | None = None
        self._timing = False

    def timed(self, owner: Any, name: str, part: str | None = None) -> None:
        """Count what `owner.name` takes as `part`, or as what is being done."""
        call: Callable[..., Any] = getattr(owner, name)

        def work(*given: Any, **named: Any) -> Any:
            counted = part or self.doing
            if counted is None or self._timing:
                return call(*given, **named)
            self._timing = True
            started = time.thread_time()
            try:
                return call(*given, **named)
            finally:
                self.seconds[counted] += time.thread_time() - started
                self._timing = False

        setattr(owner, name, work)

    def during(self, owner: Any, name: str, part: str) -> None:
        """While `owner.name` is called, `part` is being done."""
        call: Callable[..., Any] = getattr(owner, name)

        def work(*given: Any, **named: Any) -> Any:
            self.doing = part
            try:
                return call(*given, **named)
            finally:
                self.doing = None

        setattr(owner, name, work)


def main(store: str, page: str) -> None:
    parts = Parts()
    optimizers = Trainer.make_optimizer

    def make_optimizer(trainer: Trainer, network: Network) -> torch.optim.Optimizer:
        made = optimizers(trainer, network)
        parts.timed(made, "step", UPDATES)
        return made

    Trainer.make_optimizer = make_optimizer  # type: ignore[method-assign]
    parts.timed(Trainer, "_gradient", UPDATES)
    parts.during(cell_network.CellNetwork, "attack", ATTACKS)
    parts.during(cell_network, "score_slice", SCORING)
    parts.timed(Network, "__call__")
    parts.timed(torch.autograd, "grad")
    parts.timed(tasks, "corrupt_images", CORRUPTIONS)
    made: list[float] = []
    make_results = run.make_results

    def timed_results(*given: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return make_results(*given, **named)
        finally:
            made.append(time.process_time() - started)

    run.make_results = timed_results
    run.run_report(
        open_workspace(reference_root()),
        "quickstart",
        store=Store(store),
        folder=Path(page),
        console=Console(quiet=True),
        command="",
        options=run.RunOptions(device="cpu", jobs=1),
    )
    whole = time.process_time()
    print(json.dumps({"parts": parts.seconds, "whole": whole, "around": whole - sum(made)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
