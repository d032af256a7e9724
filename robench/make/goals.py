"""What a targeted threat is after, image by image, and what a network itself answers to clean
images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.losses import mean_output
from robench.data.base import Part
from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.make.scoring import Perturbed, batch_of, in_use
from robench.networks.base import Network, check_finite, check_shape
from robench.networks.memory import whole
from robench.networks.noise import InUse
from robench.plugin_code.guard import AtWork, watched
from robench.store import columns
from robench.workspace.cards import AttackCard

NONE = -1
"""The aim of an image that has none: its label is the class that all are to be taken for."""
Score = Callable[[np.ndarray, np.ndarray, int], tuple[pa.Table, dict[str, Any]]]
ASKED = 16
"""Draws of a noisy network whose mean output says what it answers."""


def check_goal(attack: Attack, card: AttackCard, classes: int | None = None) -> None:
    """Raises RobenchError where an attack cannot do what its card is after.

    Args:
        classes: of the data; None: not known yet.
    """
    if card.goal != "targeted":
        return
    name = card.attack.name
    if not attack.targeted:
        which = f" {attack.attack}" if hasattr(attack, "attack") else ""
        raise RobenchError(
            f'{card.file}: goal = "targeted": attack {name!r}{which} goes towards no class'
        )
    for key, unset in (("targets", 0), ("goal", "untargeted")):
        if getattr(attack, key, unset) != unset:
            raise RobenchError(
                f'{card.file}: goal = "targeted" and {key} = {getattr(attack, key)!r} of attack '
                f"{name!r}: both say which class is run towards; drop one"
            )
    if classes is not None and isinstance(card.aim, int) and card.aim >= classes:
        raise RobenchError(
            f"{card.file}: aim = {card.aim}: the data has the classes 0 to {classes - 1}"
        )


def aims(card: AttackCard, logits: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """The classes that images are to be taken for, (n,) each; NONE where an image has no such goal.
    One array, or of `aim = "each"` as many as there are wrong classes.

    Args:
        logits: of the clean images, (n, classes). labels: (n,).
    """
    classes = logits.shape[1]
    if isinstance(card.aim, int):
        return [np.where(labels == card.aim, NONE, card.aim)]
    if card.aim == "each":
        return [(labels + shift) % classes for shift in range(1, classes)]
    away = logits.astype(np.float64)
    likeliest = card.aim == "likeliest"
    away[np.arange(len(labels)), labels] = -np.inf if likeliest else np.inf
    return [away.argmax(1) if likeliest else away.argmin(1)]


def clean_answers(
    network: Network,
    part: Part,
    *,
    noisy: InUse,
    seed: int,
    batch_size: int,
    device: torch.device,
    work: AtWork,
) -> np.ndarray:
    """What a network answers to clean images, (n, classes): its logits, or of a noisy one the
    logarithm of the mean probabilities of ASKED draws."""
    answers = []
    for start in range(0, len(part), batch_size):
        x, _ = batch_of(part, start, batch_size, device)
        watch = watched(work, derived_seed(seed, "answers", "global", start), network)
        asked = in_use(network, noisy, derived_seed(seed, "answers", start), device)
        random = noisy or network.random_input
        drawn: list[Tensor] = []
        with torch.no_grad(), asked, watch:
            for _ in range(ASKED if random else 1):
                logits = whole(network, x)
                check_shape(logits, len(x), network.classes)
                check_finite("logits", logits)
                drawn.append(logits)
        answers.append(mean_output(torch.stack(drawn)) if random else drawn[0])
    return torch.cat(answers).float().cpu().numpy()


@dataclass(frozen=True)
class Towards:
    """What an attack made of a slice: one run, or of a targeted threat one towards each of the
    classes that images are to be taken for."""

    runs: list[Perturbed] = field(default_factory=list)
    wanted: list[np.ndarray] = field(default_factory=list)
    """The aims of each run, (n,); empty where the threat is not targeted."""

    def scored(
        self, score: Score, labels: np.ndarray, seed: int
    ) -> tuple[Perturbed | None, dict[str, pa.Array]]:
        """The images that count, and the columns `aims` and `reached` of the rows: of each image
        the classes that it was to be taken for, and the share of draws that answered each.

        Of several images of one, the accuracy is of the one that is right least often, by other
        draws than those that count.

        Args:
            score: images, labels and a seed of draws -> rows, and what was seen on the way.
        """
        if not self.runs:
            return None, {}
        if not self.wanted:
            return self.runs[0], {}
        reached = []
        for run, aim in zip(self.runs, self.wanted, strict=True):
            rows, _ = score(run.images, np.where(aim == NONE, labels, aim).astype(np.int64), seed)
            reached.append(columns.values(rows.column("correct")))
        best = np.zeros(len(labels), dtype=np.int64)
        if len(self.runs) > 1:
            aside = derived_seed(seed, "choose")
            right = [score(run.images, labels, aside)[0].column("correct") for run in self.runs]
            best = np.stack(list(map(columns.values, right))).argmin(0)
        there = np.stack(self.wanted).T != NONE
        named = [row[has] for row, has in zip(np.stack(self.wanted).T, there, strict=True)]
        shares = [row[has] for row, has in zip(np.stack(reached).T, there, strict=True)]
        return _chosen(self.runs, best), {
            "aims": columns.lists(named, np.int16),
            "reached": columns.lists(shares, np.float32),
        }


def with_columns(rows: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The rows with some columns more."""
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows


def _chosen(runs: Sequence[Perturbed], best: np.ndarray) -> Perturbed:
    """One image of each, of the runs towards several classes; what it cost is of all of them.

    Args:
        best: which run's image counts, (n,).
    """
    if len(runs) == 1:
        return runs[0]
    rows = np.arange(len(best))
    chosen: dict[str, Any] = {}
    for name in ("images", "distance", "zero_gradient", "fooled_on_the_way"):
        columns = [getattr(run, name) for run in runs]
        known = all(column is not None for column in columns)
        chosen[name] = np.stack(columns)[best, rows] if known else None
    for name in ("queries", "gradients"):
        chosen[name] = np.sum([getattr(run, name) for run in runs], axis=0)
    return replace(runs[0], **chosen)
