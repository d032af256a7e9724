"""Verdicts hold against tricks (tests/tricks.py): an alarm, or the number of an attacker who knows
the trick. Two or three of each kind here; all of them, under `strong`, with ROBENCH_RELEASE=1."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tricks
from handed import trained

FEW: dict[str, Any] = {"attacks": ["strong/pgd-50"], "report": "strong", "images": tricks.IMAGES}
QUICK: list[tuple[type[tricks.Trick], str]] = [
    (tricks.AnswersNearQuestionsAsBefore, "memory"),
    (tricks.RemembersInItsClass, "memory"),
    (tricks.Tires, "memory"),
    (tricks.WakesUnderAttack, "memory"),
    (tricks.RemembersOnDisk, "memory"),
    (tricks.KnowsTheTestImages, "test images and their relatives"),
    (tricks.NearestTestImage, "test images and their relatives"),
    (tricks.KnowsTheRelativesToo, "test images and their relatives"),
    (tricks.NanWhereItIsUnsure, "numbers"),
    (tricks.RaisesNearTheEdge, "numbers"),
    (tricks.ThroughNumpy, "numbers"),
    (tricks.Lies, "gradient against differences"),
    (tricks.LiesAtRandom, "gradient against differences"),
    (tricks.AnswersGradientsDifferently, "memory"),
    (tricks.Votes, "batches"),
    (tricks.ByPlace, "batches"),
    (tricks.CoarseInCrowds, "batches"),
]


@pytest.mark.parametrize(("trick", "check"), QUICK, ids=lambda one: getattr(one, "__name__", ""))
def test_a_trick_raises_the_alarm_that_names_it_and_gets_a_number(
    trick: type[tricks.Trick], check: str, tmp_path: Path
) -> None:
    images = getattr(trick, "images", tricks.IMAGES)
    found = tricks.measured(trick(), tmp_path, **{**FEW, "images": images})
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
def test_every_trick_is_caught_or_broken(kind: str, make: type[tricks.Trick]) -> None:
    found = tricks.row(kind, make)
    assert found["verdict"] == "doubtful" or found["printed"] <= found["truth"] + 0.03, found
