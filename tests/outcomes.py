"""Outcomes written by hand, a model at a time: what a check sees, without a network behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from robench.show.results import Results

CLASSES = 10


class Outcomes:
    """The cells of one model. Images that survive a threat also survive the ones that leave more,
    so that accuracies say which images fall."""

    def __init__(
        self, images: int = 400, seeds: int = 1, stochastic: bool = False, jumps: bool = False
    ) -> None:
        self.images, self.seeds = images, seeds
        self.model = {
            "name": "mine",
            "stochastic": stochastic,
            "jumps": jumps,
            "seeds": [{"seed": seed, "status": "done"} for seed in range(seeds)],
        }
        self.threats: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.rows: dict[str, pa.Table] = {}

    def clean(
        self, right: Any = 1.0, probabilities: bool = False, between_draws: float = 0.0
    ) -> Outcomes:
        self.threats.append({"name": "clean", "kind": "clean"})
        noted = {"probabilities": probabilities, "between_draws": between_draws}
        return self._meet("clean", right, {}, noted)

    def attack(
        self,
        name: str,
        right: Any,
        *,
        eps: float = 0.1,
        access: str = "white-box",
        role: str = "attack",
        norm: str = "linf",
        zero: float | None = None,
        fooled: Any = None,
        trace: Any = None,
        proved: Any = None,
        **fields: Any,
    ) -> Outcomes:
        """right: accuracy, or whether each draw is right, (seeds, images, draws). zero: share of
        the images with a zero gradient. fooled: whether each was, on the way. trace: losses, one
        for each step. proved: of each image by a proof, (images,) or (seeds, images).
        fields: those of the attack plugin."""
        self.threats.append(
            {
                "name": name,
                "kind": "attack",
                "card": name.split("@")[0],
                "access": access,
                "norm": norm,
                "eps": eps,
                "role": role,
                "surrogate": None,
                "fields": {"attack": fields},
            }
        )
        columns: dict[str, Any] = {"zero_gradient": None, "fooled_on_the_way": fooled}
        if zero is not None:
            columns["zero_gradient"] = np.arange(self.images) < zero * self.images
        noted = {} if trace is None else {"loss_trace": list(trace), "loss_runs": [0]}
        return self._meet(name, right, columns, {"input_shape": [1, 8, 8], **noted}, proved)

    def _meet(
        self,
        name: str,
        right: Any,
        columns: dict[str, Any],
        noted: dict[str, Any],
        proved: Any = None,
    ) -> Outcomes:
        if np.ndim(right) == 0:
            survives = np.arange(self.images) < round(right * self.images)
            right = np.broadcast_to(survives[None, :, None], (self.seeds, self.images, 1))
        labels = (np.arange(self.images) % CLASSES).astype(np.int16)
        for seed in range(self.seeds):
            drawn = np.where(right[seed], labels[:, None], (labels[:, None] + 1) % CLASSES)
            table = {
                "image": pa.array(np.arange(self.images, dtype=np.int32)),
                "label": pa.array(labels),
                "predictions": pa.array(list(drawn.astype(np.int16)), pa.list_(pa.int16())),
                "correct": pa.array(right[seed].mean(axis=1).astype(np.float32)),
            }
            for column, values in columns.items():
                nulls = pa.nulls(self.images, pa.bool_())
                table[column] = nulls if values is None else pa.array(np.asarray(values, bool))
            if proved is not None:
                shown = np.broadcast_to(np.asarray(proved, np.float32), (self.seeds, self.images))
                table["proved"] = pa.array(shown[seed])
            digest = f"{name} {seed}"
            self.rows[digest] = pa.table(table)
            self.cells.append(
                {
                    "model": "mine",
                    "seed": seed,
                    "threat": name,
                    "digest": digest,
                    "status": "done",
                    "error": None,
                    **noted,
                }
            )
        return self

    def results(self) -> Results:
        manifest = {
            "schema": 1,
            "report": {"name": "by-hand", "draws": 8},
            "models": [self.model],
            "threats": self.threats,
            "cells": self.cells,
        }
        return Results(manifest, self.rows)
