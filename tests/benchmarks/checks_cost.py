"""What the checks cost beside the `strong` evaluation that they belong to, in CPU seconds.

    python tests/benchmarks/checks_cost.py [--images 200] [NETWORK ...]

Checks are the cells that only diagnostics ask for, what the clean cell asks the network, what each
attack's cell asks once more, and the reading of all of it. The rest is loading, the cells of
`strong` and the leaderboard. All in this process, on one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from honest import made
from torch import nn

import robench
from robench.data.base import Splits
from robench.data.digits import Digits
from robench.data.mnist import MNIST
from robench.evaluation import notebook
from robench.make import tasks
from robench.make.probes import cell as probes
from robench.networks.snn import SNN


def convolutions(data: Splits) -> nn.Module:
    torch.manual_seed(0)
    return fitted(
        nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2, 2), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
        ),
        data,
    )  # fmt: skip


def fitted(net: nn.Module, data: Splits, steps: int = 300) -> nn.Module:
    x, y = torch.tensor(data.train.images), torch.tensor(data.train.labels)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        some = torch.randint(len(x), (128,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[some]), y[some]).backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


def spiking(data: Splits) -> nn.Module:
    torch.manual_seed(0)
    return fitted(SNN(data.input_shape, 10, hidden=(50,), steps=5), data)


NETWORKS: dict[str, tuple[str, Callable[[Splits], nn.Module]]] = {
    "mlp": ("digits", lambda data: made("undefended", data, 0, 150)),
    "mlp-pgd": ("digits", lambda data: made("pgd", data, 0, 150)),
    "mnist-mlp": ("mnist", lambda data: made("undefended", data, 0, 150)),
    "cnn": ("mnist", convolutions),
    "snn": ("digits", spiking),
    "noisy": ("digits", lambda data: made("noisy", data, 0, 150)),
}


class Clock:
    """CPU seconds by part; a part inside another is taken off it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[float] = []

    def timed(self, owner: Any, name: str, part: Callable[..., str]) -> None:
        """Count what `owner.name` takes as `part` of its arguments."""
        call: Callable[..., Any] = getattr(owner, name)

        def work(*given: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            started = time.process_time()
            try:
                return call(*given, **named)
            finally:
                spent = time.process_time() - started
                self.seconds[part(*given)] += spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        setattr(owner, name, work)


def cell(task: tasks.Evaluate, *_: Any) -> str:
    threat = task.cell.threat
    name = threat.card.name if threat.card else "clean"
    return f"check {name}" if name.startswith("diagnostics/") else f"strong {name}"


def measured(name: str, images: int) -> Counter[str]:
    """Of one network, by part."""
    dataset, make = NETWORKS[name]
    data = (Digits() if dataset == "digits" else MNIST()).load()
    module, clock = make(data), Clock()
    clock.timed(tasks.Evaluate, "run", cell)
    clock.timed(probes.Probes, "before", lambda *_: "check asking, before")
    clock.timed(probes, "slopes", lambda *_: "check slopes, before")
    clock.timed(probes.Probes, "after", lambda *_: "check asking, after attacks")
    clock.timed(probes.Probes, "of_relatives", lambda *_: "check relatives")
    clock.timed(probes, "ranks", lambda *_: "check ranks")
    clock.timed(notebook, "diagnose", lambda *_: "check reading")
    with tempfile.TemporaryDirectory() as store:
        started = time.process_time()
        found = robench.evaluate(
            module, dataset, report="strong", norm="linf", eps=0.1, images=images, jobs=0,
            store=Path(store), progress=False, name=name, stochastic=name == "noisy",
        )  # fmt: skip
        _ = found.to_pandas(), found.verdicts
        whole = time.process_time() - started
    clock.seconds["rest"] = whole - sum(clock.seconds.values())
    print(
        name, found.verdicts[name]["verdict"], [a["text"] for a in found.verdicts[name]["alarms"]]
    )
    return clock.seconds


def main(given: list[str]) -> None:
    images = int(given[given.index("--images") + 1]) if "--images" in given else 200
    for name in [one for one in given if one in NETWORKS] or list(NETWORKS):
        seconds = measured(name, images)
        whole = sum(seconds.values())
        checks = sum(value for part, value in seconds.items() if part.startswith("check"))
        strong = sum(value for part, value in seconds.items() if part.startswith("strong"))
        for part, value in sorted(seconds.items(), key=lambda item: -item[1]):
            print(f"  {part:40} {value:7.3f} {100 * value / whole:5.1f}%")
        print(
            f"{name}: checks {checks:.2f} of {whole:.2f} CPU-s = {100 * checks / whole:.1f}% of "
            f"the evaluation, {100 * checks / strong:.1f}% of strong's cells",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
