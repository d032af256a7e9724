"""Synthetic outcomes: invented numbers in the store's own shape, so that pages can be tested fast.

No network was trained for any of this. Everything is named `synthetic` and follows from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from robench.digest import derived_seed, digest
from robench.show.results import Results
from robench.store.store import Outcome, Store, rows_digest

KINDS = ("gaussian_noise", "glass_blur", "contrast", "fog", "jpeg_compression")
EPS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class SyntheticModel:
    """An invented model: how often it is right, and how fast that falls as a threat grows."""

    name: str
    trainer: str = "bp"
    network: str = "mlp"
    dataset: dict[str, Any] = field(default_factory=lambda: {"name": "synthetic-digits"})
    seeds: tuple[int, ...] = (0,)
    clean: float = 0.96
    slope: float = 1.0
    noisy: bool = False
    published: dict[str, float] = field(default_factory=dict)
    description: str = "Invented numbers: no network was trained."
    failed: tuple[tuple[int, str], ...] = ()
    """(seed, threat) pairs whose cells failed."""


def clean_threat() -> dict[str, Any]:
    return {"name": "clean", "kind": "clean", "hardness": 0.0}


def attack_threat(
    name: str, eps: float, hardness: float, role: str = "attack", **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "attack",
        "card": name.split("@")[0],
        "access": "white-box",
        "norm": "linf",
        "eps": eps,
        "role": role,
        "surrogate": None,
        "description": f"synthetic {name}",
        "paper": "",
        "fields": {"steps": 15, "step_size": 0.01},
        "hardness": hardness,
        **more,
    }


def corruption_threat(kind: str, severity: int, hardness: float) -> dict[str, Any]:
    return {
        "name": f"imagenet-c/{kind}/{severity}",
        "kind": "corruption",
        "card": "imagenet-c",
        "corruption": kind,
        "severity": severity,
        "description": "synthetic corruption",
        "fields": {"kinds": list(KINDS)},
        "hardness": hardness,
    }


def quick_threats(kinds: Sequence[str] = KINDS) -> list[dict[str, Any]]:
    """Clean, three attacks, a noise floor, a curve over four strengths, and corruptions."""
    corruptions = [
        corruption_threat(kind, severity, severity * (0.03 + 0.015 * place))
        for place, kind in enumerate(kinds)
        for severity in range(1, 6)
    ]
    return [
        clean_threat(),
        attack_threat("fgsm", 0.1, 0.35),
        attack_threat("pgd", 0.1, 0.55),
        *(attack_threat(f"curve@{eps}", eps, min(0.95, 5.5 * eps), role="curve") for eps in EPS),
        attack_threat("square", 0.1, 0.4, access="score"),
        attack_threat("random-sign", 0.1, 0.06, role="floor"),
        *corruptions,
    ]


def quick_models() -> list[SyntheticModel]:
    return [
        SyntheticModel("synthetic/mlp-bp", slope=1.25, published={"clean": 0.96, "fgsm": 0.283}),
        SyntheticModel("synthetic/mlp-glr", trainer="glr", clean=0.93, slope=0.9),
        SyntheticModel(
            "synthetic/snn-stbp", trainer="stbp", network="snn", clean=0.92, slope=1.2,
            seeds=(0, 1, 2),
        ),
        SyntheticModel(
            "synthetic/snn-nit", trainer="nit", network="snn", clean=0.9, slope=0.75, noisy=True,
            seeds=(0, 1, 2), published={"clean": 0.923, "fgsm": 0.814, "nattack": 0.852},
        ),
        SyntheticModel(
            "synthetic/snn-nit-s", trainer="nit-s", network="snn", clean=0.88, slope=0.76
        ),
    ]  # fmt: skip


class Synthetic:
    """A manifest and its outcomes, invented: as Results, or written into a store."""

    def __init__(
        self,
        models: Sequence[SyntheticModel],
        threats: Sequence[dict[str, Any]],
        images: int = 200,
        shape: tuple[int, int, int] = (1, 8, 8),
        draws: int = 4,
        distinct: int | None = None,
        **report: Any,
    ) -> None:
        self.images, self.shape, self.draws = images, shape, draws
        self.distinct = distinct  # so many cells have rows of their own; the others repeat them
        self.outcomes: dict[str, Outcome] = {}
        self._made: list[pa.Table] = []
        names = [threat["name"] for threat in threats]
        self.manifest: dict[str, Any] = {
            "schema": 1,
            "robench": "0.1.0",
            "report": {
                "name": "synthetic",
                "title": "Synthetic leaderboard",
                "description": "Invented numbers that exercise every part of the page.",
                "paper": "",
                "images": images,
                "draws": draws,
                "batch_size": 100,
                "seed": 0,
                "claims": [],
                **report,
            },
            "command": "robench run synthetic",
            "threat_set": digest({"threats": names}),
            "models": [self._model(model) for model in models],
            "threats": [
                {key: item for key, item in threat.items() if key != "hardness"}
                for threat in threats
            ],
            "cells": [
                self._cell(model, seed, threat)
                for model in models
                for seed in model.seeds
                for threat in threats
            ],
            "environments": {
                "e0": {
                    "device": "cpu",
                    "processor": "synthetic processor",
                    "cores": 2,
                    "python": "3.12.0",
                    "torch": "2.13.0",
                    "robench": "0.1.0",
                    "system": "Linux",
                    "started": "2025-01-01T00:00:00+00:00",
                }
            },
        }

    def results(self) -> Results:
        return Results(self.manifest, {name: out.rows for name, out in self.outcomes.items()})

    def write(self, store: Store) -> Store:
        """The same, as a finished run in `store`."""
        plain = {
            **self.manifest,
            "cells": [
                {k: v for k, v in cell.items() if k not in ("input_shape", "loss_trace")}
                for cell in self.manifest["cells"]
            ],
        }
        for name, outcome in self.outcomes.items():
            store.write_cell(name, outcome)
        store.write_run(self.manifest["report"]["name"], plain)
        return store

    def _model(self, model: SyntheticModel) -> dict[str, Any]:
        card = {
            "description": model.description,
            "dataset": model.dataset,
            "network": {"name": model.network, "hidden": [50]},
            "trainer": {"name": model.trainer, "epochs": 12},
            "seeds": list(model.seeds),
            "inference_noise": model.noisy,
            "paper": "Synthetic et al.",
            "published": model.published,
        }
        return {
            "name": model.name,
            "card": card,
            "fields": {
                "dataset": {"plugin": model.dataset["name"], "version": 1, **model.dataset},
                "network": {"plugin": model.network, "version": 1, "hidden": [50]},
                "trainer": {"plugin": model.trainer, "version": 1, "epochs": 12},
            },
            "seeds": [self._seed(model, seed) for seed in model.seeds],
        }

    def _seed(self, model: SyntheticModel, seed: int) -> dict[str, Any]:
        history = []
        for epoch in range(1, 13):
            row = {
                "epoch": epoch,
                "loss": round(2.3 * 0.75**epoch + 0.02 * seed + 0.1, 6),
                "validation_accuracy": round(model.clean * (1 - 0.6**epoch) - 0.01 * seed, 6),
                "seconds": 0.5 * epoch,
                "added_memory_mb": 300.0,
            }
            if model.noisy:
                row["sigma_1"], row["sigma_2"] = 1 - 0.02 * epoch, 1 + 0.01 * epoch
            history.append(row)
        identity = {"synthetic model": model.name, "seed": seed}
        return {
            "seed": seed,
            "digest": digest(identity),
            "weights": digest({"weights": identity}),
            "status": "done",
            "error": None,
            "parameters": 3760,
            "history": history,
            "seconds": 6.0,
            "environment": "e0",
        }

    def _cell(self, model: SyntheticModel, seed: int, threat: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "model": model.name,
            "seed": seed,
            "threat": threat["name"],
            "digest": None,
            "status": "failed",
            "error": "synthetic failure: the attack ran past its time_limit",
            "outcome": None,
            "seconds": None,
            "environment": None,
        }
        if (seed, threat["name"]) in model.failed:
            return entry
        identity = self._identity(model, seed, threat)
        name = digest(identity)
        if self.distinct is None or len(self._made) < self.distinct:
            self._made.append(self._rows(model, seed, threat))
            rows = self._made[-1]
        else:
            rows = self._made[len(self.outcomes) % self.distinct]
        attack = threat["kind"] == "attack"
        extra = {
            "input_shape": list(self.shape),
            "loss_trace": [round(2 - 1.5 * 0.8**i, 4) for i in range(15)] if attack else None,
        }
        provenance = {"seconds": 1.5, **extra}
        self.outcomes[name] = Outcome(rows, identity, provenance)
        return {
            **entry,
            "digest": name,
            "status": "done",
            "error": None,
            "outcome": rows_digest(rows),
            "seconds": 1.5,
            "environment": "e0",
            **extra,
        }

    def _identity(self, model: SyntheticModel, seed: int, threat: dict[str, Any]) -> dict[str, Any]:
        shown = self._model(model)
        fields = {"kind": "clean"} if threat["kind"] == "clean" else threat.get("fields", {})
        if threat["kind"] == "corruption":
            fields = {"inputs": digest({"synthetic inputs": threat["name"]})}
        return {
            "what": "cell",
            "synthetic": [model.name, threat["name"]],  # whatever fields threats have in common
            "model": {
                "weights": self._seed(model, seed)["weights"],
                "network": shown["fields"]["network"],
                "inference_noise": model.noisy,
            },
            "threat": fields,
            "slice": [0, self.images],
            "seed": 0,
        }

    def _rows(self, model: SyntheticModel, seed: int, threat: dict[str, Any]) -> pa.Table:
        n, draws = self.images, self.draws if model.noisy else 1
        ease = np.random.default_rng(7).random(n)  # images that are easy for one are so for all
        rng = np.random.default_rng(derived_seed("synthetic", model.name, seed, threat["name"]))
        chance = np.clip(model.clean - model.slope * threat["hardness"] - 0.01 * seed, 0.02, 1)
        labels = (np.arange(n) % 10).astype(np.int16)
        luck = 0.15 * rng.standard_normal((n, draws))
        right = ease[:, None] + luck < chance * 1.02
        predictions = np.where(right, labels[:, None], (labels[:, None] + 1) % 10).astype(np.int16)
        attack = threat["kind"] == "attack"
        white = attack and threat["access"] == "white-box"
        inputs = self._inputs(threat)
        shown: list[bytes | None] = [image.tobytes() for image in inputs]
        return pa.table(
            {
                "image": pa.array(np.arange(n, dtype=np.int32)),
                "label": pa.array(labels),
                "predictions": pa.array(list(predictions), pa.list_(pa.int16())),
                "correct": pa.array(right.mean(axis=1).astype(np.float32)),
                "loss": pa.array(rng.exponential(1.0, n).astype(np.float32)),
                "tie": pa.array(rng.random(n) < (0.2 if model.network == "snn" else 0.0)),
                "distance": pa.array(
                    np.full(n, threat["eps"], np.float32) if attack else [None] * n, pa.float32()
                ),
                "queries": pa.array(np.full(n, 15 if attack else 0, np.float32)),
                "gradients": pa.array(np.full(n, 15 if white else 0, np.float32)),
                "zero_gradient": pa.array(
                    list(rng.random(n) < 0.3) if white else [None] * n, pa.bool_()
                ),
                "input": pa.array((shown + [None] * n)[:n], pa.binary()),
            }
        )

    def _inputs(self, threat: dict[str, Any]) -> np.ndarray:
        """Eight invented images, (8, c, h, w) uint8: a bright ring, disturbed by the threat."""
        c, h, w = self.shape
        y, x = np.mgrid[0:h, 0:w] / max(h, w)
        rng = np.random.default_rng(derived_seed("synthetic inputs", threat["name"]))
        images = np.empty((8, c, h, w))
        for i in range(8):
            radius = np.hypot(y - 0.45, x - 0.35 - 0.03 * i)
            images[i] = np.exp(-(((radius - 0.3) / 0.1) ** 2))[None]
        size = threat.get("eps", 0.06 * threat.get("severity", 0))
        images += size * np.sign(rng.standard_normal(images.shape))
        return (np.clip(images, 0, 1) * 255).astype(np.uint8)
