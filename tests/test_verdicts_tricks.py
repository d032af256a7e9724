"""Verdicts hold against tricks (tests/tricks.py): an alarm, or the number of an attacker who knows
the trick. Two or three of each kind here; all of them, under `strong`, with ROBENCH_RELEASE=1."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trick
import tricks
import tricks_batches
import tricks_gradients
import tricks_known
import tricks_memory
import tricks_numbers
from handed import trained

FEW: dict[str, Any] = {"attacks": ["strong/pgd-50"], "report": "strong", "images": trick.IMAGES}
QUICK: list[tuple[type[trick.Trick], str]] = [
    (tricks_memory.AnswersNearQuestionsAsBefore, "memory"),
    (tricks_memory.RemembersInItsClass, "memory"),
    (tricks_memory.Tires, "memory"),
    (tricks_memory.WakesUnderAttack, "memory"),
    (tricks_memory.RemembersOnDisk, "memory"),
    (tricks_known.KnowsTheTestImages, "test images and their relatives"),
    (tricks_known.NearestTestImage, "test images and their relatives"),
    (tricks_known.KnowsTheRelativesToo, "test images and their relatives"),
    (tricks_numbers.NanWhereItIsUnsure, "numbers"),
    (tricks_numbers.RaisesNearTheEdge, "numbers"),
    (tricks_numbers.ThroughNumpy, "numbers"),
    (tricks_gradients.Lies, "gradient against differences"),
    (tricks_gradients.LiesAtRandom, "gradient against differences"),
    (tricks_gradients.AnswersGradientsDifferently, "memory"),
    (tricks_batches.Votes, "batches"),
    (tricks_batches.ByPlace, "batches"),
    (tricks_batches.CoarseInCrowds, "batches"),
]


@pytest.mark.rows(3)
@pytest.mark.parametrize(("make", "check"), QUICK, ids=lambda one: getattr(one, "__name__", ""))
def test_a_trick_raises_the_alarm_that_names_it_and_gets_a_number(
    make: type[trick.Trick], check: str, tmp_path: Path
) -> None:
    images = getattr(make, "images", trick.IMAGES)
    found = tricks.measured(make(), tmp_path, **{**FEW, "images": images})
    alarms = {alarm["check"]: alarm["text"] for alarm in found.verdicts["trick"]["alarms"]}
    assert check in alarms
    assert np.isfinite(found.to_pandas().iloc[0]["worst_case"])
    assert found.results.failures() == []


def test_the_network_underneath_is_believable(tmp_path: Path) -> None:
    found = tricks.measured(trained(), tmp_path, **FEW)
    assert found.verdicts["trick"]["alarms"] == []
    assert found.verdicts["trick"]["verdict"] == "believable"


@pytest.mark.skipif(not os.environ.get("ROBENCH_RELEASE"), reason="minutes: ROBENCH_RELEASE=1")
@pytest.mark.parametrize(
    ("kind", "make"), tricks.CASES, ids=lambda one: getattr(one, "__name__", one)
)
def test_every_trick_is_caught_or_broken(kind: str, make: type[trick.Trick]) -> None:
    found = tricks.row(kind, make)
    assert found["verdict"] == "doubtful" or found["printed"] <= found["truth"] + 0.03, found
