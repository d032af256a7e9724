"""One model's outcomes as the checks look at them: by ball, by what the attack may see, by draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robench.show.results import Model, Results, Threat, answers, targeted
from robench.show.statistics import Floats

Ball = tuple[str, float]
"""Norm and radius: attacks are compared within one ball only."""
COUNTED = ("attack", "diagnostic")
"""Roles of the threats that enter the worst case."""
ASIDE = ("proof", "nearest")
"""Roles that measure something else than what an attack leaves."""


@dataclass(frozen=True)
class Subject:
    """A model and the report's outcomes of it. Only threats that all seeds have met are seen."""

    results: Results
    model: Model

    @cached_property
    def attacks(self) -> list[Threat]:
        """Attacks of every role; a proof asks no gradient and is none, and neither what goes
        towards a class nor what looks for the nearest measures what is left to break."""
        looked_at = [
            threat
            for threat in self.results.threats
            if threat["kind"] == "attack" and threat["role"] not in ASIDE and not targeted(threat)
        ]
        return [threat for threat in looked_at if self.correct(threat) is not None]

    @cached_property
    def clean(self) -> Threat | None:
        threats = [threat for threat in self.results.threats if threat["kind"] == "clean"]
        return next((threat for threat in threats if self.correct(threat) is not None), None)

    @property
    def headline(self) -> bool:
        """Whether there is a worst case: clean images and every attack that counts were met."""
        counted = self.results.met(self.model, self.results.attacks)
        met = all(self.correct(threat) is not None for threat in counted)
        return bool(counted) and met and self.clean is not None

    @cached_property
    def balls(self) -> dict[Ball, list[Threat]]:
        """The balls whose attacks enter the worst case, with the attacks of every role in them."""
        balls: dict[Ball, list[Threat]] = {}
        for threat in self.attacks:
            balls.setdefault((threat["norm"], threat["eps"]), []).append(threat)
        return {
            ball: threats
            for ball, threats in balls.items()
            if any(threat["role"] in COUNTED for threat in threats)
        }

    @cached_property
    def white_box(self) -> list[Threat]:
        """White-box attacks in all of these balls."""
        return white_box([threat for threats in self.balls.values() for threat in threats])

    def cells(self, threat: Threat) -> list[dict[str, Any]]:
        """The manifest's entry of every seed that has met the threat."""
        return self.results.cells(self.model, threat["name"])

    def noted(self, threat: Threat | None, name: str) -> list[Any]:
        """What the cells of a threat say under a name, seed by seed."""
        cells = self.cells(threat) if threat else []
        return [cell[name] for cell in cells if cell.get(name) not in (None, {}, [])]

    def correct(self, threat: Threat) -> Floats | None:
        """(seeds, images): share of draws in which each image was right; None: not all seeds have
        met the threat."""
        return self._correct[threat["name"]]

    @cached_property
    def _correct(self) -> dict[str, Floats | None]:
        looked_at = [t["name"] for t in self.results.threats if t["kind"] != "corruption"]
        return {name: self.results.correct(self.model, name) for name in looked_at}

    def known(self, threat: Threat) -> Floats:
        """`correct` of a threat in `attacks` or of `clean`."""
        correct = self.correct(threat)
        assert correct is not None
        return correct

    def accuracy(self, threat: Threat) -> float:
        return float(self.known(threat).mean())

    def strongest(self, threats: list[Threat]) -> Threat | None:
        """The one that leaves the lowest accuracy; the first of equals."""
        return min(threats, key=self.accuracy) if threats else None

    def column(self, threat: Threat, name: str) -> Floats | None:
        """(seeds, images) of a column of the rows; None where a seed does not have it."""
        columns = [table.column(name) for table in self._tables(threat, name)]
        if not columns or any(column.null_count for column in columns):
            return None
        return np.stack([column.to_numpy(zero_copy_only=False) for column in columns]).astype(float)

    def predictions(self, threat: Threat) -> NDArray[np.int16]:
        """(seeds, images, draws): the class that each draw answered."""
        return np.stack([answers(table) for table in self._tables(threat, "predictions")])

    def left(self, threats: list[Threat]) -> Floats:
        """(seeds, images): what an attacker who may choose between threats in `attacks` and `clean`
        leaves of each image."""
        chosen = self.results.worst_case(self.model, threats)
        assert chosen is not None
        return chosen

    def _tables(self, threat: Threat, column: str) -> list[pa.Table]:
        tables = [self.results.rows[cell["digest"]] for cell in self.cells(threat)]
        return [table for table in tables if column in table.column_names]

    @property
    def stochastic(self) -> bool:
        """Whether two answers to the same image may differ, as the model itself says."""
        return bool(self.model.get("stochastic", False))

    @property
    def jumps(self) -> bool:
        """Whether there are steps or spikes in the network, whose derivative is a surrogate."""
        return bool(self.model.get("jumps", False))


def settings(threat: Threat) -> Mapping[str, Any]:
    """Every field of the attack plugin."""
    fields: Mapping[str, Any] = threat.get("fields", {}).get("attack", {})
    return fields


def white_box(threats: list[Threat]) -> list[Threat]:
    return [threat for threat in threats if threat["access"] == "white-box"]


def native(threat: Threat) -> bool:
    """Whether the attack differentiates the network as it stands: with its own surrogates, of the
    images as they are, and unsmoothed."""
    fields = settings(threat)
    return not (fields.get("surrogate") or fields.get("diversity") or fields.get("smoothing"))


def steps(threat: Threat) -> int | None:
    """Steps of one run; None where the attack does not say."""
    fields = settings(threat)
    number = fields.get("steps", fields.get("max_iter"))
    return None if number is None else int(number)


def effort(threat: Threat, stochastic: bool) -> int | None:
    """Gradients per image that the attack's settings ask for; None where they do not say."""
    one_run, fields = steps(threat), settings(threat)
    if one_run is None:
        return None
    runs = int(fields.get("restarts") or 1) * max(int(fields.get("targets") or 0), 1)
    return one_run * runs * (int(fields.get("eot") or 1) if stochastic else 1)


def crosses_ball(threat: Threat) -> bool:
    """Whether the steps of one run add up to the way across the ball, so that a weak result is not
    owed to short steps."""
    fields = settings(threat)
    one_run, eps = steps(threat) or 0, float(threat["eps"])
    step = fields.get("step_size", fields.get("abs_stepsize"))
    if step is None and fields.get("rel_stepsize") is not None:
        step = float(fields["rel_stepsize"]) * eps
    if step is None or not math.isfinite(eps):
        return True
    way = 2 * eps if fields.get("random_start") else eps
    return one_run * float(step) >= way * (1 - 1e-6)
