"""A b-function that is itself learned (BF paper): g is a network 1-1-1, g(z) = w2 s(w1 z + b1) + b2
with s the sigmoid, whose four weights Bayesian optimisation chooses.

Each trial trains a copy of the fresh network with one g and notes the area under its loss curve
(AULC: the mean loss over the steps). A Gaussian process (Matern 5/2, scikit-learn) is fitted to the
trials; the next g maximises the expected improvement (Jones, Schonlau, Welch 1998). The best g then
trains the network that the card asks for.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from scipy.special import ndtr

from robench.data.base import Part, Splits
from robench.digest import digest
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.derivatives import OWN, BFunction
from robench.trainers.base import History, Progress
from robench.trainers.bfunction import BFunctionTrainer

LOW, HIGH = np.array([-8.0, -4.0, -2.0, -1.0]), np.array([8.0, 4.0, 2.0, 1.0])
"""The box that (w1, b1, w2, b2) are sought in."""
NEARLY_RELU = (8.0, 0.0, 1.0, 0.0)
"""The first trial: a steep step."""
PROPOSALS = 4096


@dataclass(frozen=True)
class Tried:
    """One g and what it came to."""

    point: tuple[float, ...]
    area: float


class LearnedBFunction(BFunctionTrainer):
    """Backpropagation with the g that Bayesian optimisation finds for this network and data."""

    trials: int = Field(default=24, ge=2)
    initial: int = Field(default=8, ge=1)
    """Trials at random points, the first of them nearly relu's derivative."""
    trial_epochs: int = Field(default=1, ge=1)
    trial_images: int = Field(default=5000, ge=1)
    """Training images of a trial: the first ones."""

    def fit(
        self, network: Network, data: Splits, rng: torch.Generator, progress: Progress
    ) -> History:
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        own = self._area(network, data, OWN, seed, rng.device)
        trials = self._resumed(network, data, seed)
        while len(trials) < self.trials:
            done = len(trials) / (self.trials + 1)
            best = min((trial.area for trial in trials), default=math.nan)
            progress(done / 2, f"b-function {len(trials) + 1}/{self.trials} best area {best:.4f}")
            point = self._next(trials, seed)
            text = str(BFunction("network", point))
            trials.append(Tried(point, self._area(network, data, text, seed, rng.device)))
            self._keep(network, data, seed, trials)
        best_trial = min(trials, key=lambda trial: trial.area)
        self.functions = (str(BFunction("network", best_trial.point)),)

        def second_half(done: float, text: str) -> None:
            progress(0.5 + done / 2, text)

        history = super().fit(network, data, rng, second_half)
        names = zip(("w1", "b1", "w2", "b2"), best_trial.point, strict=True)
        learned = {f"b-function/{name}": value for name, value in names}
        areas = {"area/own": own, "area/learned": best_trial.area}
        for place, row in enumerate(history):
            row |= {**learned, **areas} if place == 0 else {}
        return history

    def _area(
        self, network: Network, data: Splits, function: str, seed: int, device: torch.device
    ) -> float:
        """Mean loss over the steps of a trial; of one that diverges, ten times that of a guess."""
        images = slice(0, self.trial_images)
        part = Part(data.train.images[images], data.train.labels[images])
        few = Splits(part, data.validation, data.test, data.classes, data.graph)
        names = set(BFunctionTrainer.fields().model_fields) - {"trajectory"}
        settings = {name: getattr(self, name) for name in names}
        changed = {"functions": (function,), "epochs": self.trial_epochs, "patience": None}
        rng = torch.Generator(device).manual_seed(seed)
        worst = 10 * math.log(network.classes)
        try:
            history = BFunctionTrainer(**settings | changed).fit(
                copy.deepcopy(network), few, rng, lambda done, text: None
            )
        except RobenchError:
            return worst
        return min(worst, sum(row["loss"] for row in history) / len(history))

    def _next(self, trials: Sequence[Tried], seed: int) -> tuple[float, ...]:
        """The point to try after these: at random first, then where improvement is expected."""
        if not trials:
            return NEARLY_RELU
        draw = np.random.default_rng([seed, len(trials)])
        if len(trials) < self.initial:
            return tuple(float(value) for value in draw.uniform(LOW, HIGH))
        return expected_best(trials, draw)

    # -- what a run that is stopped leaves behind ----------------------------------------------

    def _key(self, network: Network, data: Splits, seed: int) -> str:
        """Of all that the trials depend on but their number."""
        weights = [float(p.detach().double().square().sum()) for p in network.parameters()]
        fields = {
            name: getattr(self, name)
            for name in type(self).fields().model_fields
            if name not in ("trials", "epochs", "trajectory", "patience")
        }
        return digest(
            {"fields": fields, "data": data.fingerprint, "weights": weights, "seed": seed}
        )

    def _resumed(self, network: Network, data: Splits, seed: int) -> list[Tried]:
        if self.scratch is None:
            return []
        try:
            kept = json.loads((self.scratch / "trials.json").read_text())
            if kept["key"] != self._key(network, data, seed):
                return []
            return [Tried(tuple(point), area) for point, area in kept["trials"]][: self.trials]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # nothing, or nothing whole: the trials are made again

    def _keep(self, network: Network, data: Splits, seed: int, trials: Sequence[Tried]) -> None:
        if self.scratch is None:
            return
        rows = [[list(trial.point), trial.area] for trial in trials]
        text = json.dumps({"key": self._key(network, data, seed), "trials": rows})
        self.scratch.mkdir(parents=True, exist_ok=True)
        partial = self.scratch / "trials.json.partial"
        partial.write_text(text)
        partial.replace(self.scratch / "trials.json")


def expected_best(trials: Sequence[Tried], draw: np.random.Generator) -> tuple[float, ...]:
    """The point of the box with the largest expected improvement on the trials: the best of many
    random ones, half of them near the best trial so far."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    points = (np.array([trial.point for trial in trials]) - LOW) / (HIGH - LOW)
    areas = np.log(np.array([trial.area for trial in trials]))  # a diverged one is not all
    kernel = ConstantKernel(1.0) * Matern([0.3] * 4, (0.05, 10.0), nu=2.5) + WhiteKernel(1e-3)
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=int(draw.integers(2**31))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(points, areas)
    near = points[areas.argmin()] + draw.normal(scale=0.1, size=(PROPOSALS // 2, 4))
    proposals = np.concatenate([draw.random((PROPOSALS // 2, 4)), near.clip(0, 1)])
    mean, spread = process.predict(proposals, return_std=True)
    best = proposals[expected_improvement(mean, spread, float(areas.min())).argmax()]
    return tuple(float(value) for value in LOW + best * (HIGH - LOW))


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """E[max(best - f, 0)] for f ~ N(mean, spread^2)."""
    spread = np.maximum(spread, 1e-12)
    z = (best - mean) / spread
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    improvement: np.ndarray = spread * (z * ndtr(z) + density)
    return improvement
