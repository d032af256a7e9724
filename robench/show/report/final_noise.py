"""How strong the noise is that each model was trained with, as training left it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robench.show.results import Model, Results
from robench.store.manifest import history_of

SIGMA = re.compile(r"sigma/(\d{1,4})")
MOST = 12
"""Layers that are listed."""
HALF = 0.5
"""Share of a layer's neurons from which on its noise is called that of the clamp."""


@dataclass(frozen=True)
class FinalNoise:
    """sigmas: of each layer the mean over neurons and seeds, with the spread over the neurons where
    they differ. origin: where they come from."""

    model: str
    sigmas: str
    origin: str


def final_noise(results: Results) -> list[FinalNoise]:
    """One entry for each model that was trained with noise, where its training noted it."""
    return [found for model in results.models if (found := _of(model)) is not None]


def _of(model: Model) -> FinalNoise | None:
    last = [rows[-1] for seed in model["seeds"] if (rows := history_of(seed))]
    keys = {key for row in last for key in row if SIGMA.fullmatch(key)}
    layers = sorted(int(key.partition("/")[2]) for key in keys)[:MOST]
    if not layers:
        return None
    texts = []
    for layer in layers:
        mean, spread = (_mean(last, f"{what}/{layer}") for what in ("sigma", "sigma spread"))
        texts.append(f"{mean:.3g}" + (f" ± {spread:.2g}" if spread > 0.005 * mean else ""))
    return FinalNoise(model["name"], ", ".join(texts), _origin(model, last, layers))


def _origin(model: Model, last: Sequence[Mapping[str, float]], layers: Sequence[int]) -> str:
    named = model["card"].get("sigma_of")
    if named:
        return f"those of {named}, fixed"
    clamped = {layer: _mean(last, f"sigma clamped/{layer}") for layer in layers}
    if all(np.isnan(share) for share in clamped.values()):
        return "fixed"
    said = [
        f"layer {layer} "
        + ("learned" if share < HALF else "at its clamp")
        + (f" ({share:.0%} of its neurons at the clamp)" if 0 < share < 1 else "")
        for layer, share in clamped.items()
    ]
    return ", ".join(said)


def _mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    known = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(known)) if known else float("nan")
