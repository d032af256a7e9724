"""How much farther than it had to each attack goes: its nearest wrong image beside the truth's.

Of an image whose nearest wrong image is known, from a proof that closed in on it from both sides,
the gap of an attack is how much farther away its own nearest is. An attack that finds none in the
whole ball has a gap without end there, so that medians count it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from robench.digest import canonical
from robench.errors import RobenchError
from robench.show.balls import Ball
from robench.show.results import Model, Results, Threat
from robench.show.statistics import Floats
from robench.store.rows_shape import CLEAR, RADIUS

CLOSE = 1.05
"""By how many of its smallest steps a proof may leave open where the nearest wrong image lies."""
ROUNDING = (1 - 1e-4, 1e-6)
"""Factor and offset by which a radius may be smaller than one that was proved to hold nothing."""


@dataclass
class Gap:
    """One attack, over all images whose nearest wrong image is known.

    farther: how much farther its nearest is, infinite where it found none; exact: how far the
    nearest of all is. step: the smallest difference that was looked at.
    """

    card: str
    step: float
    farther: list[float] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the gaps; infinite where most images have none."""
        return float(np.sort(self.farther)[(len(self.farther) - 1) // 2])

    @property
    def times(self) -> float:
        """Median of how many times as far as it had to the attack went."""
        ratios = 1 + np.array(self.farther) / np.array(self.exact)
        return float(np.sort(ratios)[(len(ratios) - 1) // 2])


def does(threat: Threat) -> str:
    """What tells attacks apart that are asked in different ways."""
    return canonical([threat["fields"].get("attack"), threat["access"], threat["norm"]])


def gaps(results: Results, models: Sequence[Model]) -> dict[str, Gap]:
    """By what it does (`does`), every attack that looked for the nearest in a ball in which a proof
    did."""
    made: dict[str, Gap] = {}
    for model in models:
        for truth, threat, clear, exact, own in _pairs(results, model):
            step = _step(truth)
            known = (exact > 0) & (exact - clear <= CLOSE * step)
            if not known.any():
                continue
            gap = made.setdefault(does(threat), Gap(str(threat["card"]), 0.0))
            gap.step = max(gap.step, step, _step(threat))
            own, least = own[known], exact[known]
            gap.farther += np.where(np.isnan(own), np.inf, own - least).tolist()
            gap.exact += least.tolist()
    return made


def check(results: Results) -> None:
    """Raises RobenchError where an attack found a wrong image nearer than a proof allows: one of
    the two is a bug."""
    for model in results.models:
        for truth, threat, clear, _, own in _pairs(results, model):
            wrong = own < clear * ROUNDING[0] - ROUNDING[1]
            if wrong.any():
                place, image = (int(index) for index in np.argwhere(wrong)[0])
                seed = model["seeds"][place]["seed"]
                raise RobenchError(
                    f"{results.name}: {model['name']}, seed {seed}, image {image}: "
                    f"{threat['name']} breaks it at {own[place, image]:.6g}, where "
                    f"{truth['name']} proves that nothing is wrong within "
                    f"{clear[place, image]:.6g}; one of them is a bug: run both again, and report "
                    "what stays"
                )


def _pairs(
    results: Results, model: Model
) -> Iterator[tuple[Threat, Threat, Floats, Floats, Floats]]:
    """A proof and an attack that looked for the nearest in one ball; where the proof says nothing
    is, its nearest, and the attack's, (seeds, images) each."""
    if model.get("stochastic"):
        return
    met = results.met(model, results.nearest)
    for truth in (one for one in met if one["access"] == "weights"):
        clear, exact = (_column(results, model, truth, name) for name in (CLEAR, RADIUS))
        for threat in met:
            own = _column(results, model, threat, RADIUS)
            alike = threat["access"] != "weights" and Ball.of(threat) == Ball.of(truth)
            if alike and own is not None and clear is not None and exact is not None:
                yield truth, threat, clear, exact, own


def _column(results: Results, model: Model, threat: Threat, name: str) -> Floats | None:
    """(seeds, images): NaN where a radius is null; None where a seed has no outcome."""
    tables = results.tables(model, threat["name"])
    if not tables or any(name not in table.column_names for table in tables):
        return None
    return np.stack([table.column(name).to_numpy().astype(np.float64) for table in tables])


def _step(threat: Threat) -> float:
    """By how much the radii differ that were looked at; 0 where an attack chose its own."""
    halvings = int(threat["fields"]["nearest"]["halvings"])
    return float(threat["eps"]) * 0.5**halvings if halvings else 0.0
