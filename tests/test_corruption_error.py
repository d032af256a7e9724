"""mCE: the formula on numbers worked out by hand, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robench.corruption_error import corruption_errors
from robench.results import Results

IMAGES = 100


def made(
    baselines: list[str], dataset: str = "d", **errors: tuple[int, dict[str, list[int]]]
) -> Results:
    """Per model: wrong images of 100 clean, and of each kind at severities 1, 2."""
    rows: dict[str, pa.Table] = {}
    cells: list[dict[str, Any]] = []
    threats: dict[str, dict[str, Any]] = {"clean": {"name": "clean", "kind": "clean"}}
    for model, (clean, kinds) in errors.items():
        wrong = {"clean": clean}
        for kind, counts in kinds.items():
            for severity, count in enumerate(counts, start=1):
                name = f"c/{kind}/{severity}"
                wrong[name] = count
                threats[name] = {
                    "name": name,
                    "kind": "corruption",
                    "card": "c",
                    "corruption": kind,
                    "severity": severity,
                }
        for threat, count in wrong.items():
            digest = f"{model}-{threat}"
            correct = (np.arange(IMAGES) >= count).astype(np.float32)
            rows[digest] = pa.table(
                {"image": np.arange(IMAGES, dtype=np.int32), "correct": correct}
            )
            cells.append(
                {"model": model, "seed": 0, "threat": threat, "status": "done", "digest": digest}
            )
    manifest = {
        "report": {"name": "r", "baselines": baselines},
        "models": [
            {"name": m, "seeds": [{"seed": 0}], "fields": {"dataset": {"plugin": dataset}}}
            for m in errors
        ],
        "threats": list(threats.values()),
        "cells": cells,
    }
    return Results(manifest, rows)


BASE = (10, {"fog": [20, 40], "snow": [30, 50]})


def test_mce_is_the_mean_ratio_of_summed_errors() -> None:
    model = (5, {"fog": [10, 20], "snow": [40, 80]})
    base, found = corruption_errors(made(["base"], base=BASE, model=model))
    # fog: 30/60 = 0.5; snow: 120/80 = 1.5. Relative: (30-10)/(60-20); (120-10)/(80-20).
    assert found.kinds == {"c/fog": pytest.approx(0.5), "c/snow": pytest.approx(1.5)}
    assert found.mce[0] == pytest.approx(1.0)
    assert found.relative[0] == pytest.approx((0.5 + 110 / 60) / 2)
    assert found.mce[1] < found.mce[0] < found.mce[2]
    assert base.mce == pytest.approx((1.0, 1.0, 1.0))
    assert base.relative == pytest.approx((1.0, 1.0, 1.0))


def test_without_a_baseline_there_is_no_mce() -> None:
    assert corruption_errors(made([], base=BASE)) == []


def test_an_incomplete_model_has_no_mce() -> None:
    results = made(["base"], base=BASE, model=BASE)
    results.manifest["cells"][-1]["status"] = "failed"
    assert [found.model for found in corruption_errors(results)] == ["base"]


def test_a_baseline_serves_its_own_data_set_only() -> None:
    results = made(["base"], base=BASE, model=BASE)
    results.manifest["models"][1]["fields"] = {"dataset": {"plugin": "other"}}
    assert [found.model for found in corruption_errors(results)] == ["base"]
