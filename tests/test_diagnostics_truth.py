"""Attacks measured against proofs: what they miss is an alarm, and what they find answers all that
other checks suspect.
"""

from __future__ import annotations

import numpy as np
import pytest
from outcomes import Outcomes

from robench.show.diagnostics.finding import Finding
from robench.show.diagnostics.subject import Subject
from robench.show.diagnostics.truth import truth
from robench.show.diagnostics.verdicts import against_truth, diagnose, tally


def against(left: float, robust: float, proved: float | None = None, **more: float) -> Outcomes:
    """400 images: an attack leaves so many, a proof breaks all but the robust and proves of these
    all, or as many as said; the rest is open."""
    made = Outcomes().clean(more.get("clean", 1.0)).attack("pgd", left, zero=more.get("zero"))
    shown = np.arange(400) < round(400 * (robust if proved is None else proved))
    return made.attack("exact", robust, role="proof", proved=shown)


def found(made: Outcomes) -> Finding:
    results = made.results()
    return truth(Subject(results, results.models[0]))


def test_attacks_that_miss_more_than_the_interval_are_an_alarm_that_says_which_and_how_many() -> (
    None
):
    finding = found(against(left=0.42, robust=0.26, clean=0.9))
    assert finding.verdict == "alarm"
    assert "The attacks miss 64 of 256 breakable images: 192 of 256" in finding.text
    assert "(pgd 192), which leaves 42.0%" in finding.text
    assert "in truth at most 26.0%" in finding.text
    assert finding.evidence["missed"] == 64
    assert finding.evidence["found_by_attack"] == {"pgd": 192}
    assert finding.next


def test_attacks_within_the_interval_pass_where_the_truth_is_known() -> None:
    finding = found(against(left=0.28, robust=0.26))
    assert finding.verdict == "pass"
    assert "288 of 296 breakable images" in finding.text


@pytest.mark.parametrize(
    ("left", "proved", "verdict"),
    [
        (0.30, 0.26, "pass"),  # open images would not change it
        (0.30, 0.10, "not applicable"),  # they might
        (0.50, 0.10, "alarm"),  # what is broken is enough
    ],
)
def test_open_images_neither_alarm_nor_pass(left: float, proved: float, verdict: str) -> None:
    assert found(against(left=left, robust=0.30, proved=proved)).verdict == verdict


def test_what_one_attack_misses_another_may_find() -> None:
    broken = np.arange(400)[None, :, None] >= 240
    made = Outcomes().clean().attack("even", ~(broken & (np.arange(400) % 2 == 0)[None, :, None]))
    made.attack("odd", ~(broken & (np.arange(400) % 2 == 1)[None, :, None]))
    made.attack("exact", 0.6, role="proof", proved=np.arange(400) < 240)
    finding = found(made)
    assert finding.verdict == "pass"
    assert finding.evidence["found_by_attack"] == {"even": 80, "odd": 80}
    assert finding.evidence["found"] == 160


def test_noise_floors_do_not_find_for_attacks() -> None:
    made = against(left=0.6, robust=0.3).attack("noise", 0.3, role="floor")
    assert found(made).verdict == "alarm"


def test_a_handful_of_images_is_no_alarm() -> None:
    made = Outcomes().clean().attack("pgd", 0.01)
    made.attack("exact", 0.0, role="proof", proved=np.zeros(400))
    assert found(made).verdict == "alarm"  # 4 of 400, and none may be left
    made = Outcomes().clean().attack("pgd", 0.0075)
    made.attack("exact", 0.0, role="proof", proved=np.zeros(400))
    assert found(made).verdict == "pass"


def test_without_a_proof_in_an_attacked_ball_there_is_nothing_to_say() -> None:
    made = Outcomes().clean().attack("pgd", 0.5)
    made.attack("exact", 1.0, eps=0.05, role="proof", proved=np.ones(400))
    assert found(made).verdict == "not applicable"
    noisy = Outcomes(stochastic=True).clean().attack("pgd", 0.5)
    noisy.attack("certificate", 1.0, role="proof", proved=np.full(400, 0.2))
    assert found(noisy).verdict == "not applicable"


def test_a_report_without_proofs_is_checked_as_before() -> None:
    checks = diagnose(Outcomes().clean().attack("pgd", 0.5).results())["mine"]["findings"]
    assert "attacks against the truth" not in [one["check"] for one in checks]


# -- what the verdict makes of it --------------------------------------------------------------


def test_attacks_that_find_what_there_is_answer_what_gradients_are_suspected_of() -> None:
    masked = Outcomes().clean().attack("pgd", 0.26, zero=0.5)
    assert diagnose(masked.results())["mine"]["verdict"] == "doubtful"
    settled = diagnose(against(left=0.26, robust=0.26, zero=0.5).results())["mine"]
    assert settled["verdict"] == "believable"
    assert settled["alarms"] == []
    zero = next(one for one in settled["findings"] if one["check"] == "zero gradients")
    assert zero["verdict"] == "alarm"  # the evidence stays


def test_attacks_that_miss_are_doubtful_however_their_gradients_look() -> None:
    judged = diagnose(against(left=0.42, robust=0.26, zero=0.0).results())["mine"]
    assert judged["verdict"] == "doubtful"
    assert [alarm["check"] for alarm in judged["alarms"]] == ["attacks against the truth"]


def test_an_answer_for_one_ball_does_not_answer_for_another() -> None:
    made = against(left=0.26, robust=0.26, zero=0.5).attack("far", 0.26, norm="l2", eps=2.0)
    assert found(made).evidence["balls_without_proof"] == ["l2-2"]
    assert diagnose(made.results())["mine"]["verdict"] == "doubtful"


def test_what_a_model_answers_is_no_matter_of_gradients() -> None:
    made = against(left=0.26, robust=0.26)
    made.cells[0]["probabilities"] = True
    assert diagnose(made.results())["mine"]["verdict"] == "doubtful"


def test_a_proof_is_no_attack_of_the_other_checks() -> None:
    made = against(left=0.9, robust=0.2).attack("square", 0.2, access="score")
    judged = diagnose(made.results())["mine"]
    alarms = [one["check"] for one in judged["findings"] if one["verdict"] == "alarm"]
    assert alarms == ["attacks without gradients"]
    assert judged["verdict"] == "believable"  # the worst case is the truth, whoever found it


def test_a_verdict_does_not_wait_for_attacks_that_are_for_noisy_models_only() -> None:
    made = against(left=0.26, robust=0.26)
    noisy_only = made.threats[1] | {"name": "eot", "meets": "noisy"}
    made.threats.append(noisy_only)
    assert diagnose(made.results())["mine"]["verdict"] == "believable"


def test_of_several_balls_the_one_where_most_is_missed_is_told() -> None:
    made = against(left=0.28, robust=0.26).attack("near", 0.8, eps=0.05)
    made.attack("exact@0.05", 0.8, eps=0.05, role="proof", proved=np.arange(400) < 320)
    finding = found(made)
    assert finding.verdict == "pass"
    assert finding.evidence["eps"] == 0.1


def test_verdicts_without_proofs_are_held_against_them() -> None:
    for left, truth_says in ((0.42, "above"), (0.28, "within")):
        results = against(left=left, robust=0.26).results()
        held = against_truth(results, diagnose(results))
        assert held == {"mine": ("unchecked", truth_says)}, "by hand nobody ran the diagnostics"
    results = against(left=0.30, robust=0.30, proved=0.10).results()
    assert against_truth(results, diagnose(results)) == {"mine": ("unchecked", "open")}
    results = Outcomes().clean().attack("pgd", 0.5).results()
    assert against_truth(results, diagnose(results)) == {}


def test_a_verdict_is_doubtful_without_the_proof_that_clears_it() -> None:
    results = against(left=0.26, robust=0.26, zero=0.5).results()
    verdicts = diagnose(results)
    assert verdicts["mine"]["verdict"] == "believable"
    held = against_truth(results, verdicts)
    assert held == {"mine": ("doubtful", "within")}
    assert tally(held) == {"doubtful": {"within": 1, "above": 0, "open": 0}}
