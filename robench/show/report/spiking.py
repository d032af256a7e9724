"""What spiking networks do besides answering: how often neurons fire, what energy that stands for,
and how often there is a tie or no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from robench.show.leaderboard import CLEAN
from robench.show.report.measurements import measurements
from robench.show.results import Model, Results

ADDITION_PJ, MULTIPLICATION_PJ = 0.9, 4.6
"""Picojoules of an addition, and of a multiplication with an addition, of 32-bit floating-point
numbers in 45 nm: Horowitz, "Computing's energy problem", ISSCC 2014 (0.9, and 3.7 + 0.9)."""


@dataclass(frozen=True)
class Spikes:
    """One model, means over its seeds; None where nothing was measured.

    rates: spikes per neuron and step, layer by layer. synaptic_operations, multiply_accumulates,
    energy_nj: of one clean image; nanojoules of arithmetic alone. ties: share of clean images whose
    two highest outputs tie before any tie-break. zero_gradient: largest share of images, over the
    attacks, whose first gradient is exactly zero; attack: which one that was, "" where there are
    none.
    """

    model: str
    rates: list[float]
    synaptic_operations: float | None
    multiply_accumulates: float | None
    energy_nj: float | None
    ties: float | None
    zero_gradient: float | None
    attack: str


def spikes(results: Results) -> list[Spikes]:
    """One entry for each model that spikes, in the order of the manifest."""
    every = [_of(results, model) for model in results.models]
    return [one for one in every if one is not None]


def _of(results: Results, model: Model) -> Spikes | None:
    cells = results.cells(model, CLEAN)
    seen = [cell["activity"] for cell in cells if cell.get("activity")]
    rates: list[float] = []
    while seen and all(f"spike_rate_{len(rates) + 1}" in one for one in seen):
        rates.append(fmean(float(one[f"spike_rate_{len(rates) + 1}"]) for one in seen))
    if not rates:
        return None

    def mean(name: str) -> float | None:
        return fmean(float(one[name]) for one in seen) if all(name in one for one in seen) else None

    additions, multiplications = mean("synaptic_operations"), mean("multiply_accumulates")
    energy = None
    if additions is not None and multiplications is not None:
        energy = (additions * ADDITION_PJ + multiplications * MULTIPLICATION_PJ) / 1000
    zeros = {
        threat["name"]: measurements(results, model, threat["name"]).zero_gradient
        for threat in results.threats
        if threat["kind"] == "attack"
    }
    known = {name: share for name, share in zeros.items() if share is not None}
    most = max(known, key=lambda name: known[name], default="")
    return Spikes(
        model=model["name"],
        rates=rates,
        synaptic_operations=additions,
        multiply_accumulates=multiplications,
        energy_nj=energy,
        ties=measurements(results, model, CLEAN).tie,
        zero_gradient=known.get(most),
        attack=most if known.get(most) else "",
    )
