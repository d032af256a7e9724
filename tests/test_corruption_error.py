"""mCE: the formula on numbers worked out by hand, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robench.show.corruption_error import corruption_errors
from robench.show.results import Results

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


def test_a_kind_under_which_the_baseline_makes_no_error_is_left_out_and_named() -> None:
    none = {**BASE[1], "brightness": [0, 0]}
    model = (5, {"fog": [10, 20], "snow": [40, 80], "brightness": [1, 1]})
    base, found = corruption_errors(made(["base"], base=(10, none), model=model))
    assert found.left_out == base.left_out == ["c/brightness"]
    assert found.mce[0] == pytest.approx(1.0)  # of fog and snow, as above; it was 83,750,002,928
    assert 0.5 < found.mce[1] < found.mce[2] < 2
    assert np.isnan(found.kinds["c/brightness"])


def test_a_baseline_without_any_error_gives_no_ratio_at_all() -> None:
    perfect = (0, {"fog": [0, 0], "snow": [0, 0]})
    _, found = corruption_errors(made(["base"], base=perfect, model=BASE))
    assert np.isnan(found.mce).all()
    assert np.isnan(found.relative).all()
    assert found.left_out == ["c/fog", "c/snow"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_baseline_that_hardly_errs_gives_a_value_without_an_interval(count: int) -> None:
    """In e^-count of the bootstrap samples it does not err at all: more than one in forty."""
    rare = (0, {"fog": [0, count], "snow": [30, 50]})
    _, found = corruption_errors(made(["base"], base=rare, model=BASE))
    assert found.mce[0] == pytest.approx((60 / count + 1) / 2)
    assert np.isnan(found.mce[1:]).all()


def test_no_kind_that_harms_the_baseline_leaves_no_relative_mce() -> None:
    harmless = (30, {"fog": [30, 30], "snow": [20, 20]})
    _, found = corruption_errors(made(["base"], base=harmless, model=BASE))
    assert found.relative_kinds == 0
    assert np.isnan(found.relative).all()
    assert found.mce[0] == pytest.approx((1.0 + 2.0) / 2)
