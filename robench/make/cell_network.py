"""The network of a cell: its clean answers, what attacks make of images, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from robench.attacks.base import Attack
from robench.data.base import Part
from robench.data.loading import load_splits
from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.make.goals import Towards, aims, check_goal, clean_answers
from robench.make.nearest import NOISY_DRAWS, look_nearer
from robench.make.scoring import Perturbed, attack_slice, score_slice
from robench.make.trained import forget
from robench.networks.base import Network
from robench.plugin_code.guard import AtWork
from robench.plugin_code.time_limit import DAY
from robench.store import columns
from robench.workspace import plugins
from robench.workspace.cards import Card, ModelCard, ReportCard, Spec
from robench.workspace.plan import Cell, Threat


@dataclass(frozen=True)
class CellNetwork:
    """A network of a model, as the questions of one cell are put to it."""

    network: Network
    model: ModelCard
    cell: Cell
    report: ReportCard
    device: torch.device

    @cached_property
    def work(self) -> AtWork:
        return at_work(("networks", self.model.network, self.model))

    @property
    def _usual(self) -> dict[str, Any]:
        """What all questions have in common."""
        return {
            "noisy": self.model.inference_noise,
            "seed": self.report.seed,
            "batch_size": self.report.batch_size,
            "device": self.device,
            "work": self.work,
        }

    def score(
        self, images: np.ndarray, part: Part, draws: int, **other: Any
    ) -> tuple[pa.Table, dict[str, Any]]:
        """What it answers to these images; `other` than is usual: see scoring.score_slice."""
        settings = {**self._usual, "top_k": self.report.top_k, **other}
        return score_slice(self.network, images, part, draws=draws, **settings)

    def truth(self, part: Part) -> tuple[Part, np.ndarray | None]:
        """The slice with the labels that count, and what the network answers to its clean images,
        where that is asked for: by a targeted threat, or by a report that measures against it. A
        network that strangers had in their hands is not kept."""
        threat, own = self.cell.threat, self.report.labels == "predicted"
        if not own and not (threat.kind == "attack" and threat.attack.goal == "targeted"):
            return part, None
        if not self.work.own:
            forget(self.network)
        answers = clean_answers(self.network, part, **self._usual)
        return (Part(part.images, answers.argmax(1), part.numbers) if own else part), answers

    def attack(
        self,
        part: Part,
        answers: np.ndarray | None,
        broken: Mapping[int, str] | None = None,
        **batches: Any,
    ) -> Towards:
        """Let the cell's attack perturb a slice; of a targeted threat once towards each class that
        it names. A network that strangers had in their hands is not kept.

        Args:
            answers: of the network to the clean images, where the threat is targeted.
            broken: see scoring.attack_slice.
            batches: which are wanted, or there (`only`, `made`): see there.
        """
        card, network, report = self.cell.threat.attack, self.network, self.report
        attack: Attack = plugins.build("attacks", card.attack, card)
        check_goal(attack, card, network.classes)
        model = self.model
        work = at_work(("attacks", card.attack, card), ("networks", model.network, model))
        if not work.own:
            forget(network)
        wanted: list[np.ndarray] = []
        if card.goal == "targeted":
            assert answers is not None
            wanted = aims(card, answers, part.labels)
        eps = float(self.cell.threat.eps or 0.0)
        top_k = 1 if card.access == "weights" else report.top_k
        usual = {**self._usual, "top_k": top_k, "work": work}

        def attacked(
            data: Part, eps: float, broken: Mapping[int, str] | None, **other: Any
        ) -> Perturbed:
            changed = load_splits(self.cell.training.card).pixels(card.part)
            limit = time_limit(self.cell.threat, model)
            settings = {**usual, "part": changed, "limit": limit, "broken": broken, **other}
            return attack_slice(network, attack, card, eps, data, **settings)

        if card.nearest is not None:
            noisy = network.random_input or bool(model.inference_noise)
            settings = usual | {"seed": derived_seed(report.seed, "nearest"), "perturbed": True}

            def wrong(images: np.ndarray, data: Part) -> np.ndarray:
                draws = NOISY_DRAWS if noisy else 1
                rows, _ = score_slice(network, images, data, draws=draws, **settings)
                return np.asarray(columns.values(rows.column("correct")) < 0.5)

            return Towards([look_nearer(attacked, wrong, part, eps, card.nearest, broken)])
        if not wanted:
            return Towards([attacked(part, eps, broken, **batches)])
        seeds = [derived_seed(report.seed, "towards", number) for number in range(len(wanted))]
        seeds[0] = report.seed
        runs = [
            attacked(part, eps, broken, aims=aim, seed=seed)
            for aim, seed in zip(wanted, seeds, strict=True)
        ]
        return Towards(runs, wanted)


def time_limit(threat: Threat, model: ModelCard | None = None) -> float:
    said = [threat.attack.time_limit] if threat.kind == "attack" else []
    said += [model.time_limit] if model is not None else []
    return min((limit for limit in said if limit is not None), default=DAY)


def check_code(kind: plugins.Kind, spec: Spec, card: Card, wanted: Mapping[str, Any]) -> None:
    """Raises RobenchError where a plugin's code, or a file that it names, is not what it was when
    the run began: results are known by what was there then.

    Args:
        wanted: the plugin's fields in the identity of what is made.
    """
    if plugins.own(kind, spec) and spec.name != "given":
        return
    fields = plugins.resolve(kind, spec, card)
    if any(wanted[key] != fields[key] for key in fields if key in wanted):
        raise RobenchError(
            f"{plugins.called(kind, spec, card)}: its code or a file that it names is not what it "
            "was when the run began; run again"
        )


def at_work(*called: tuple[plugins.Kind, Spec, Card]) -> AtWork:
    """Plugins that work together: those from outside by name, where there are some."""
    outside = [one for one in called if not plugins.own(one[0], one[1])]
    who = " with ".join(plugins.called(*one) for one in outside or called[:1])
    if not outside:
        return AtWork(who, own=True)
    files = set[Path]().union(*(plugins.files(*one) for one in called))
    return AtWork(who, files=frozenset(files))
