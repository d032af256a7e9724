"""What every trainer must fulfil: checks that `robench check` runs in seconds, on a few digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from robench.checks.finding import GLOBAL, Result, findings, global_state, pickles
from robench.checks.networks import Bench, find_bench
from robench.checks.networks import Make as NetworkMake
from robench.data.base import Part, Splits
from robench.data.digits import Digits
from robench.networks.base import Network
from robench.plugin_code.guard import guarded
from robench.trainers.base import History, Trainer

IMAGES = 300
"""Training images; a fifth of them for validation, and for tests."""
SHORT = {"epochs": 6, "batch_size": 20}
"""At most so much, whatever the card says: a short training of many small steps."""
Make = Callable[..., Trainer]
"""Builds the trainer; keywords override its settings."""


@dataclass(frozen=True)
class Trained:
    """One training run, and what it left behind."""

    network: Network
    history: History
    told: list[float]
    """Shares done, as the trainer told them."""
    drew_elsewhere: bool
    data_changed: bool


class Trials:
    """Training runs that the checks share: each seed of torch's generator once."""

    def __init__(self, make: Make, bench: Bench) -> None:
        self.make, self.bench = make, bench

    @cached_property
    def first(self) -> Trained:
        return self._run()

    @cached_property
    def again(self) -> Trained:
        return self._run()

    def trainer(self) -> Trainer:
        """As the card has it, but short."""
        trainer, shorter = self.make(), dict[str, int]()
        for key, most in SHORT.items():
            own = getattr(trainer, key, None)
            if isinstance(own, int):
                shorter[key] = min(own, most)
        return self.make(**shorter)

    def _run(self) -> Trained:
        data = sample(self.bench)
        before, told = data.fingerprint, list[float]()
        network = self.bench.built()
        trainer, rng = self.trainer(), torch.Generator().manual_seed(11)
        # What Dropout draws is seeded with everything else, as in a run.
        drops = any(isinstance(part, _DropoutNd) for part in network.modules())
        with guarded(f"trainer {type(trainer).__name__}", 11):
            state = global_state()
            history = trainer.fit(network, data, rng, lambda done, text: told.append(done))
            drew = global_state() != state and not drops
        data.__dict__.pop("fingerprint", None)
        return Trained(network, history, told, drew, data.fingerprint != before)


def sample(bench: Bench) -> Splits:
    """A little of the bench's own data; else a few digits, brought to a shape by repeating and
    cutting, labels modulo the classes."""
    if bench.data is not None:
        splits, names, graph = bench.data, bench.data.classes, bench.data.graph
    else:
        names, graph = tuple(str(label) for label in range(bench.classes)), None
        splits = Digits().load()
    channels, height, width = bench.shape
    factor = math.ceil(max(height, width) / 8)

    def few(part: Part, number: int) -> Part:
        images, labels = part.images[:number].copy(), part.labels[:number].copy()
        if bench.data is None:
            images = np.kron(images, np.ones((1, 1, factor, factor), np.float32))
            images = np.repeat(images[:, :, :height, :width], channels, axis=1)
            images, labels = np.ascontiguousarray(images), labels % bench.classes
        return Part(images, labels)

    train, validation = few(splits.train, IMAGES), few(splits.validation, IMAGES // 5)
    return Splits(train, validation, few(splits.test, IMAGES // 5), names, graph)


def check_trainer(make: Make, network: NetworkMake, own: Splits | None = None) -> list[Result]:
    """All checks of a trainer on a network, one finding each; on the data set `own`, if given."""
    checks = [isolation, trains, history, seeds, data]
    if make().trains:
        bench = find_bench(network, own)
        checks.append(learns)
    else:  # weights made elsewhere fit one size of images only
        bench = find_bench(network, own, lambda bench: Trials(make, bench).first)
    return findings([pickles], make) + findings(checks, Trials(make, bench))


def isolation(trials: Trials) -> str:
    """The process is left as it was: else this raises."""
    trials.first  # noqa: B018 (where it raises, that is what is found)
    return ""


def trains(trials: Trials) -> str:
    """Training ends with finite weights, other than those it began with."""
    state = trials.first.network.state_dict()
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        return f"it leaves NaN or infinite values in {', '.join(bad)}"
    fresh = trials.bench.built().state_dict()
    moved = any(not torch.equal(value, fresh[name]) for name, value in state.items())
    still = not moved and trials.make().trains
    return "it leaves the network's weights as they were" if still else ""


def history(trials: Trials) -> str:
    """The curves are numbers by name, and progress goes from 0 to 1."""
    rows = trials.first.history
    numbers = isinstance(rows, list) and all(
        isinstance(row, dict) and all(math.isfinite(value) for value in row.values())
        for row in rows
    )
    if not numbers:
        return "fit returns something else than rows of finite numbers"
    told = trials.first.told
    sound = all(0 <= done <= 1 for done in told) and told == sorted(told)
    return "" if sound else "the progress it tells leaves 0 to 1"


def seeds(trials: Trials) -> str:
    """The same seed gives the same bits, and nothing is drawn from global random states."""
    one, two = trials.first, trials.again
    if one.drew_elsewhere:
        return GLOBAL
    weights = one.network.state_dict(), two.network.state_dict()
    differ = [key for key, value in weights[0].items() if not torch.equal(value, weights[1][key])]
    return f"two runs with one seed differ in {differ[0]}: use rng alone" if differ else ""


def data(trials: Trials) -> str:
    """Images and labels are left as they were."""
    return "it writes into the images or labels" if trials.first.data_changed else ""


def learns(trials: Trials) -> str:
    """The training images are answered better than before; a few epochs are enough to see it."""
    part = sample(trials.bench).train
    x, y = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    measured = []
    for network in (trials.bench.built(), trials.first.network.eval()):
        answer = trials.bench.answer(network, x)
        measured.append(
            (float((answer.argmax(1) == y).float().mean()), float(F.cross_entropy(answer, y)))
        )
    (right, loss), (right_after, loss_after) = measured
    better = right_after > max(right, 1.5 / trials.bench.classes) or loss_after < 0.99 * loss
    numbers = f"accuracy {right:.2f} before, {right_after:.2f} after a short training"
    return "" if better else numbers
