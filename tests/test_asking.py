"""Checks of what a network was asked (memory, batches, numbers, slopes, relatives), by hand; and
the binarization test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import trick
import tricks_gradients
from handed import trained
from outcomes import Outcomes

import robench
from robench.errors import RobenchError
from robench.evaluation.binarization import binarization_test
from robench.make.probes.asking import ALONE, ASKED, asked_about
from robench.make.probes.elsewhere import Writes
from robench.show.diagnostics.asking import batches, memory, numbers
from robench.show.diagnostics.finding import Finding
from robench.show.diagnostics.known import known
from robench.show.diagnostics.slopes import slopes
from robench.show.diagnostics.subject import Subject

SAME = {
    "images": 48, "again": 0.0, "copy": 0.0, "graph": 0.0, "after near questions": 0.0,
    "order": 0.0, "company": 0.0, "alone": 0.0,
}  # fmt: skip


def subject(noted: dict[str, Any], stochastic: bool = False) -> Subject:
    """A model whose clean cell and whose attack noted this: `asked` and `slopes` in the former."""
    made = Outcomes(images=100, stochastic=stochastic).clean(0.95).attack("pgd", 0.5, steps=20)
    for cell in made.cells:
        clean = cell["threat"] == "clean"
        cell.update({k: v for k, v in noted.items() if (k in ("asked", "slopes")) == clean})
    results = made.results()
    return Subject(results, results.models[0])


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("again", memory), ("copy", memory), ("graph", memory), ("after near questions", memory),
        ("order", batches), ("company", batches), ("alone", batches),
    ],
)  # fmt: skip
def test_an_answer_that_changes_is_an_alarm_of_the_check_that_it_is_about(
    how: str, check: Any
) -> None:
    assert check(subject({"asked": SAME})).verdict == "pass"
    found = check(subject({"asked": {**SAME, how: 0.25}}))
    assert found.verdict == "alarm"
    assert "25.0%" in found.text


def test_robenchs_own_networks_are_not_asked() -> None:
    assert {c(subject({})).verdict for c in (memory, batches)} == {"not applicable"}


def test_noise_from_a_source_inside_the_network_goes_on_and_is_no_memory() -> None:
    assert memory(subject({"asked": {**SAME, "again": 1.0}}, stochastic=True)).verdict == "pass"


def test_an_attacked_copy_that_answers_otherwise_is_an_alarm() -> None:
    found = memory(subject({"asked": SAME, "state": {"attacked": 0.4, "order": 0.0}}))
    assert found.verdict == "alarm"
    assert "the copy that pgd has attacked" in found.text
    assert memory(subject({"state": {"gain": 0.2, "draws": 8}}, True)).verdict == "alarm"
    assert memory(subject({"state": {"gain": 0.01, "draws": 8}}, True)).verdict == "pass"


def test_answers_that_change_after_an_attack_or_are_written_down_are_an_alarm() -> None:
    assert "after an attack" in memory(subject({"asked": {**SAME, "after an attack": 0.5}})).text
    assert "for writing" in memory(subject({"asked": {**SAME, "writes": 3}})).text
    assert memory(subject({"asked": {**SAME, "writes": 0}})).verdict == "pass"


def test_what_is_opened_for_writing_is_counted_and_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    with Writes() as writes:
        file.write_text("a")
        file.read_text()
        (tmp_path / "code.pyc").write_bytes(b"")
        os.close(os.open(file, os.O_RDWR))
    file.write_text("afterwards")
    assert writes.count == 2


def test_no_number_and_no_gradient_are_alarms() -> None:
    assert numbers(subject({})).verdict == "pass"
    assert "1.0% of the images under pgd" in numbers(subject({"no_number": 1})).text
    found = numbers(subject({"without_gradients": "the network raises: no"}))
    assert found.verdict == "alarm"
    assert "since the network raises" in found.text


def test_a_gradient_that_disagrees_with_differences_is_an_alarm() -> None:
    def of(**noted: Any) -> Finding:
        return slopes(subject({"slopes": {"images": 24, "repeats": True, **noted}}))

    assert of(disagree=0.0, median=0.9999).verdict == "pass"
    assert of(disagree=0.5, median=0.1).verdict == "alarm"
    assert "no seed repeats" in of(repeats=False).text
    assert "There is no gradient" in of(images=0, error="cut off").text
    assert of(images=0).verdict == "not applicable"


def test_test_images_that_withstand_more_than_their_relatives_are_known() -> None:
    def of(attacked: float, clean: float = 0.95) -> Finding:
        sorts = {"training": {"images": 128, "clean": clean, "attacked": attacked}}
        return known(subject({"relatives": sorts}))

    assert of(0.45).verdict == "pass"
    assert of(0.9).verdict == "pass", "training images may be safer"
    assert of(0.2).verdict == "alarm"
    assert of(0.5, clean=0.5).verdict == "alarm"


def test_planted_examples_are_found_by_an_attack_that_has_a_gradient_and_by_no_other() -> None:
    x = torch.tensor(trick.digits().test.images[:6])
    assert binarization_test(trained(), x, eps=0.1).passed
    found = binarization_test(tricks_gradients.Lies(), x, eps=0.1)
    assert found.images == 6
    assert not found.passed
    assert "too weak for this network" in str(found)
    with pytest.raises(RobenchError, match="images are"):
        binarization_test(trained(), x[0], eps=0.1)


@pytest.mark.rows(0)
def test_evaluate_plants_examples_where_it_is_asked_to(tmp_path: Path) -> None:
    quietly: dict[str, Any] = {
        "report": "fgsm", "images": 20, "store": tmp_path, "progress": False, "eps": 0.1,
    }  # fmt: skip
    honest = robench.evaluate(trained(), "digits", planted=4, **quietly)
    assert honest.binarization is not None
    assert honest.binarization.passed
    assert "planted: the attack finds 4 of 4 planted examples" in str(honest)
    lying = robench.evaluate(tricks_gradients.Lies(), "digits", planted=4, name="lies", **quietly)
    assert lying.binarization is not None
    assert not lying.binarization.passed
    assert robench.evaluate(trained(), "digits", **quietly).binarization is None
    with pytest.raises(RobenchError, match="planted = -1"):
        robench.evaluate(trained(), "digits", planted=-1, **quietly)


def test_of_large_images_fewer_are_asked_about() -> None:
    assert asked_about(3 * 64 * 64) == asked_about(64) == ASKED
    assert asked_about(3 * 224 * 224) == ALONE
