"""Claims: judged by the same rule under the paper's threat and under the strong one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robench.show.claims import judge
from robench.show.results import Results

IMAGES = 400


def made(**accuracies: tuple[float, float]) -> Results:
    """Two attacks, "weak" and "strong"; per model its accuracy under each, two seeds."""
    rng = np.random.default_rng(0)
    rows: dict[str, pa.Table] = {}
    cells: list[dict[str, Any]] = []
    for model, (weak, strong) in accuracies.items():
        for seed in (0, 1):
            for threat, accuracy in (("clean", 1.0), ("weak", weak), ("strong", strong)):
                digest = f"{model}-{seed}-{threat}"
                correct = (rng.permutation(IMAGES) < accuracy * IMAGES).astype(np.float32)
                rows[digest] = pa.table(
                    {"image": np.arange(IMAGES, dtype=np.int32), "correct": correct}
                )
                cells.append(
                    {
                        "model": model,
                        "seed": seed,
                        "threat": threat,
                        "status": "done",
                        "digest": digest,
                    }
                )
    claim = {
        "text": "a is harder to fool than b",
        "model": "a",
        "than": "b",
        "threat": "weak",
        "published": [0.9, 0.5],
        "control": "c" if "c" in accuracies else None,
        "strong": "worst case",
    }
    attack = {"kind": "attack", "role": "attack"}
    manifest = {
        "report": {"name": "r", "claims": [claim]},
        "models": [{"name": name, "seeds": [{"seed": 0}, {"seed": 1}]} for name in accuracies],
        "threats": [
            {"name": "clean", "kind": "clean"},
            *({"name": n, **attack} for n in ("weak", "strong")),
        ],
        "cells": cells,
    }
    return Results(manifest, rows)


@pytest.mark.parametrize(
    ("a", "b", "verdict", "strong"),
    [
        ((0.9, 0.8), (0.5, 0.2), "holds", "holds"),
        ((0.9, 0.05), (0.5, 0.05), "holds", "does not hold"),
        ((0.7, 0.3), (0.6, 0.1), "weaker", "weaker"),
        ((0.5, 0.1), (0.5, 0.1), "does not hold", "does not hold"),
        ((0.4, 0.1), (0.7, 0.4), "does not hold", "does not hold"),
    ],
)
def test_a_claim_holds_is_weaker_or_does_not_hold(
    a: tuple[float, float], b: tuple[float, float], verdict: str, strong: str
) -> None:
    (claim,) = judge(made(a=a, b=b))
    assert (claim["verdict"], claim["strong_verdict"]) == (verdict, strong)
    assert f"{100 * a[0]:.1f}% against {100 * b[0]:.1f}%" in claim["evidence"]
    assert "90.0% against 50.0% (+40.0 points)" in claim["evidence"]


def test_a_control_is_measured_beside_the_claim() -> None:
    (claim,) = judge(made(a=(0.9, 0.1), b=(0.5, 0.1), c=(0.88, 0.1)))
    assert "The control c under weak: 88.0% against 50.0%" in claim["evidence"]


def test_a_claim_whose_strong_evaluation_is_its_own_threat_is_judged_once() -> None:
    results = made(a=(0.4, 0.1), b=(0.7, 0.4))
    results.manifest["report"]["claims"][0]["strong"] = "weak"
    (claim,) = judge(results)
    assert (claim["verdict"], claim["strong_verdict"]) == ("does not hold", "")
    assert claim["evidence"].count("40.0% against 70.0% (−30.0 points") == 1


def test_a_claim_about_what_was_not_measured_cannot_be_judged() -> None:
    results = made(a=(0.9, 0.1), b=(0.5, 0.1))
    results.manifest["cells"][1]["status"] = "missing"
    (claim,) = judge(results)
    assert claim["verdict"] == "cannot be judged"


def with_labels(results: Results, classes: int) -> Results:
    labels = np.arange(IMAGES) % classes
    for digest, rows in results.rows.items():
        results.rows[digest] = rows.append_column("label", pa.array(labels))  # type: ignore[index]
    return results


@pytest.mark.parametrize(("classes", "verdict"), [(1, "did not learn"), (10, "holds")])
def test_a_claim_about_a_model_at_chance_says_that_it_did_not_learn(
    classes: int, verdict: str
) -> None:
    found = judge(with_labels(made(a=(0.9, 0.9), b=(0.4, 0.4)), classes))[0]
    assert found["verdict"] == verdict
    assert ("no better than chance" in found["evidence"]) == (verdict == "did not learn")


@pytest.mark.parametrize(
    ("control", "said"),
    [(0.5, r"\+40.0 points .*: that much is owed"), (0.9, "nothing is surely owed to the method")],
)
def test_a_control_shows_what_is_owed_to_the_method(control: float, said: str) -> None:
    found = judge(made(a=(0.9, 0.9), b=(0.4, 0.4), c=(control, control)))[0]
    assert re.search(f"Beside its control under weak: .*{said}", found["evidence"])


@pytest.mark.parametrize(
    ("a", "b", "verdict", "strong"),
    [
        ((0.9, 0.7), (0.5, 0.4), "holds", "holds"),
        ((0.9, 0.7), (0.5, 0.2), "holds", "holds"),
        ((0.9, 0.3), (0.5, 0.2), "holds", "weaker"),
        ((0.9, 0.05), (0.5, 0.1), "holds", "does not hold"),
        ((0.5, 0.3), (0.5, 0.1), "does not hold", "holds"),
        ((0.3, 0.1), (0.7, 0.3), "does not hold", "does not hold"),
    ],
)
def test_a_claim_without_figures_is_held_against_what_its_own_threat_leaves(
    a: tuple[float, float], b: tuple[float, float], verdict: str, strong: str
) -> None:
    results = made(a=a, b=b)
    card = results.manifest["report"]["claims"][0]
    del card["published"]
    card["strong"] = "strong"
    (claim,) = judge(results)
    assert (claim["verdict"], claim["strong_verdict"]) == (verdict, strong)
    assert "Published" not in claim["evidence"]
    assert f"Measured under weak: {100 * a[0]:.1f}% against" in claim["evidence"]
    fallen = [f"from {100 * weak:.1f}% to {100 * left:.1f}%" for weak, left in (a, b)]
    said = claim["evidence"].split("The strong evaluation takes ")[1].split(". ")[0]
    assert all(part in said for part in fallen)
