"""Diagnostics: frauds are caught, honest networks are left alone, and why, check by check."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outcomes import Outcomes
from pages import embedded_data
from small_runs import Ears

from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.show.diagnostics.above_clean import above_clean
from robench.show.diagnostics.answers import determinism, outputs
from robench.show.diagnostics.averaging import averaging
from robench.show.diagnostics.finding import Finding, Verdict
from robench.show.diagnostics.gradient import surrogates, zero_gradients
from robench.show.diagnostics.gradient_free import gradient_free
from robench.show.diagnostics.iterates import earlier_iterates, loss_at_the_end, loss_on_the_way
from robench.show.diagnostics.strength import growing_eps, more_effort, one_step
from robench.show.diagnostics.subject import Subject
from robench.show.diagnostics.verdicts import CHECKS, NEEDED, diagnose, verdict
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.results import Results, load_published, load_results
from robench.store.store import Store
from robench.workspace.folders import FOLDERS, Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]
FRAUDS = Path(__file__).with_name("frauds.py")
TRAINER = 'trainer = { name = "bp", epochs = 12, lr = 5e-3, batch_size = 50 }'
NETWORKS = {
    "saturated": '"./frauds.py:Saturated", hidden = [32]',
    "quantised": '"./frauds.py:Quantised", hidden = [32]',
    "random-resize": '"./frauds.py:RandomResize", hidden = [32]',
    "leak": '"./frauds.py:Leak", hidden = [32]',
    "probabilities": '"./frauds.py:Probabilities", hidden = [32]',
    "narrow": '"snn", hidden = [32], surrogate = "rectangle:0.05"',
    "undefended": '"mlp", hidden = [32]',
    "honest": '"mlp", hidden = [32]',
}
TRAINERS = {
    "narrow": TRAINER.replace('"bp"', '"stbp", surrogate = "rectangle:1"'),
    "honest": TRAINER.replace('"bp", epochs = 12', '"adversarial", eps = 0.1, epochs = 20'),
}
REPORT = """
title = "Planted frauds, and networks that are honest"
models = ["*"]
attacks = ["fgsm"]
images = 200
batch_size = 200
"""


# -- planted frauds ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frauds(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return planted(tmp_path_factory.mktemp("frauds"))


def planted(root: Path) -> Results:
    """Every fraud and every honest network, trained and attacked as `robench run` does it."""
    for folder in FOLDERS:
        (root / folder).mkdir()
    (root / "models/frauds.py").write_text(FRAUDS.read_text())
    for name, network in NETWORKS.items():
        lines = (
            'dataset = "digits"',
            f"network = {{ name = {network} }}",
            TRAINERS.get(name, TRAINER),
        )
        (root / f"models/{name}.toml").write_text("\n".join(lines))
    (root / "reports/frauds.toml").write_text(REPORT)
    run = open_run(make_plan(open_workspace(root), "frauds"), Store(root / ".robench"), "cpu")
    with torch.random.fork_rng(devices=[]):  # what the random frauds draw from, unasked
        torch.manual_seed(0)
        execute(run, Ears())
    assert not run.failures
    run.store.write_run("frauds", describe(run, "robench run frauds"))
    return load_results(run.store, "frauds")


@pytest.fixture(scope="module")
def verdicts(frauds: Results) -> dict[str, Verdict]:
    return diagnose(frauds)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("saturated", {"zero gradients", "growing eps"}),  # pgd-sweep's margin does not saturate
        ("quantised", {"zero gradients", "attacks without gradients", "growing eps"}),
        ("random-resize", {"determinism", "earlier iterates"}),
        ("narrow", {"zero gradients", "surrogate derivatives", "growing eps"}),
        ("leak", {"zero gradients", "determinism", "earlier iterates", "growing eps"}),
        ("probabilities", {"outputs"}),
    ],
)
def test_a_fraud_raises_the_alarms_that_name_what_it_does(
    verdicts: dict[str, Verdict], name: str, expected: set[str]
) -> None:
    found = verdicts[name]
    assert found["verdict"] == "doubtful"
    assert {alarm["check"] for alarm in found["alarms"]} >= expected
    assert all(alarm["text"].endswith(".") and alarm["next"] for alarm in found["alarms"])


@pytest.mark.parametrize("name", ["honest", "undefended"])
def test_an_honest_network_raises_no_alarm(verdicts: dict[str, Verdict], name: str) -> None:
    assert [alarm["text"] for alarm in verdicts[name]["alarms"]] == []
    assert verdicts[name]["verdict"] == "believable"


def test_every_model_has_a_finding_of_every_check(verdicts: dict[str, Verdict]) -> None:
    for found in verdicts.values():
        assert len({finding["check"] for finding in found["findings"]}) == len(CHECKS)


def test_a_published_folder_gives_the_same_verdicts_and_shows_them(
    frauds: Results, verdicts: dict[str, Verdict], tmp_path: Path
) -> None:
    page = write_report(frauds, tmp_path).read_text()
    assert diagnose(load_published(tmp_path)) == verdicts
    assert f"doubtful · {len(verdicts['saturated']['alarms'])}" in page
    assert "believable" in page
    said_to_script = json.dumps(embedded_data(page))
    assert json.dumps(verdicts["narrow"]["alarms"][1]["next"]) in said_to_script


def test_diagnosing_imports_neither_torch_nor_plugins() -> None:
    code = (
        "import sys, robench.show.diagnostics.verdicts;"
        "sys.exit(', '.join({'torch', 'robench.workspace.plugins'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- the checks, one by one -------------------------------------------------------------------


def finding(check: Callable[[Subject], Finding], made: Outcomes) -> Finding:
    results = made.results()
    return check(Subject(results, results.models[0]))


def said(check: Callable[[Subject], Finding], made: Outcomes) -> str:
    return finding(check, made).verdict


def test_an_iterative_attack_that_does_less_than_one_step_alarms() -> None:
    def with_bim(accuracy: float, **changed: Any) -> Outcomes:
        fields = {"steps": 15, "step_size": 0.01, **changed}
        return Outcomes().attack("fgsm", 0.5, steps=1).attack("bim", accuracy, **fields)

    alarm = finding(one_step, with_bim(0.6))
    assert alarm.verdict == "alarm"
    assert "bim (15 steps) leaves 60.0%, fgsm (one step) 50.0%" in alarm.text
    assert said(one_step, with_bim(0.4)) == "pass"
    assert said(one_step, with_bim(0.505)) == "pass"


def test_steps_too_short_to_cross_the_ball_are_not_held_against_the_model() -> None:
    short = Outcomes().attack("fgsm", 0.5, steps=1).attack("bim", 0.9, steps=5, step_size=0.01)
    assert said(one_step, short) == "not applicable"
    random = {"steps": 15, "step_size": 0.01, "random_start": True}
    started = Outcomes().attack("fgsm", 0.5, steps=1).attack("pgd", 0.9, **random)
    assert said(one_step, started) == "not applicable"


def test_transformed_gradients_are_not_compared_with_plain_ones() -> None:
    made = Outcomes().attack("fgsm", 0.5, steps=1).attack("tim", 0.9, steps=15, smoothing=15)
    assert said(one_step, made) == "not applicable"


def test_more_effort_alarms_beyond_the_interval_only() -> None:
    def with_long(accuracy: float, restarts: int = 5) -> Outcomes:
        made = Outcomes().attack("pgd", 0.5, steps=20)
        return made.attack("long", accuracy, steps=20, restarts=restarts)

    alarm = finding(more_effort, with_long(0.4))
    assert alarm.verdict == "alarm"
    assert alarm.evidence["longer_gradients"] == 100
    assert said(more_effort, with_long(0.47)) == "pass"
    assert said(more_effort, with_long(0.4, restarts=1)) == "not applicable"


def test_draws_count_as_effort_for_a_noisy_model_only() -> None:
    def averaged(stochastic: bool) -> Outcomes:
        made = Outcomes(stochastic=stochastic).attack("pgd", 0.8, steps=20)
        return made.attack("averaged", 0.4, steps=20, eot=10)

    assert said(more_effort, averaged(True)) == "alarm"
    assert said(more_effort, averaged(False)) == "not applicable"


def test_attacks_are_compared_within_one_ball_only() -> None:
    made = Outcomes().attack("pgd", 0.5, steps=20).attack("far", 0.0, steps=100, eps=0.3)
    assert said(more_effort, made) == "not applicable"


def curve(last: float, eps: float = 1.0, norm: str = "linf") -> Outcomes:
    made = Outcomes().attack("curve@0.1", 0.8, role="curve", norm=norm)
    return made.attack("curve@big", last, eps=eps, role="curve", norm=norm)


def test_accuracy_that_stays_up_as_eps_grows_alarms() -> None:
    assert said(growing_eps, curve(0.2)) == "alarm"
    assert said(growing_eps, curve(0.05)) == "pass"
    assert finding(growing_eps, curve(0.2)).evidence["accuracy"] == [0.8, 0.2]


def test_a_curve_that_does_not_reach_every_image_says_nothing() -> None:
    assert said(growing_eps, curve(0.5, eps=0.3)) == "not applicable"
    assert said(growing_eps, curve(0.5, eps=1.0, norm="l2")) == "not applicable"
    assert said(growing_eps, curve(0.5, eps=4.0, norm="l2")) == "alarm"


def test_images_that_only_an_attack_without_gradients_breaks_alarm() -> None:
    def with_square(accuracy: float, access: str = "score", role: str = "attack") -> Outcomes:
        made = Outcomes().clean().attack("pgd", 0.8, steps=20)
        return made.attack("square", accuracy, access=access, role=role)

    assert said(gradient_free, with_square(0.7)) == "alarm"
    assert said(gradient_free, with_square(0.7, "decision", "floor")) == "alarm"
    assert said(gradient_free, with_square(0.7, "transfer")) == "alarm"
    assert said(gradient_free, with_square(0.79)) == "pass"
    assert said(gradient_free, with_square(0.95)) == "pass"


def test_images_that_were_wrong_from_the_start_are_nobodys_merit() -> None:
    made = Outcomes().clean(0.9).attack("fgsm", 1.0, steps=1)
    assert said(gradient_free, made.attack("noise", 0.9, access="decision")) == "pass"


def test_luck_in_scoring_a_noisy_model_is_no_merit_either() -> None:
    """Every attack leaves each image right in half of the draws: the least of a few such means lies
    below the others', but that is all."""
    rng = np.random.default_rng(0)

    def tossed(chance: float) -> np.ndarray:
        return rng.random((2, 400, 8)) < chance

    def against(black: float) -> Outcomes:
        made = Outcomes(seeds=2, stochastic=True).clean(tossed(1.0)).attack("pgd", tossed(0.5))
        for name in ("square", "nattack", "noise"):
            made.attack(name, tossed(black), access="score")
        return made

    fair, better = finding(gradient_free, against(0.5)), finding(gradient_free, against(0.3))
    assert fair.verdict == "pass"
    assert abs(fair.evidence["share"][0]) < 0.02
    assert better.verdict == "alarm"


def test_zero_gradients_alarm_above_one_per_cent() -> None:
    assert said(zero_gradients, Outcomes().attack("fgsm", 0.5, zero=0.3)) == "alarm"
    assert said(zero_gradients, Outcomes().attack("fgsm", 0.5, zero=0.01)) == "pass"
    assert said(zero_gradients, Outcomes().attack("library", 0.5)) == "not applicable"


def test_zero_gradients_of_a_foreign_surrogate_are_not_the_models() -> None:
    made = Outcomes().attack("narrow", 0.5, zero=0.9, surrogate="rectangle:0.01")
    assert said(zero_gradients, made) == "not applicable"


def test_another_surrogate_that_does_much_more_alarms() -> None:
    def swept(accuracy: float, jumps: bool = True) -> Outcomes:
        made = Outcomes(jumps=jumps).attack("pgd", 0.8, steps=20)
        return made.attack("sweep", accuracy, steps=20, surrogate="sweep")

    alarm = finding(surrogates, swept(0.3))
    assert alarm.verdict == "alarm"
    assert "30.0% through sweep" in alarm.text
    assert said(surrogates, swept(0.78)) == "pass"
    assert said(surrogates, swept(0.3, jumps=False)) == "not applicable"


def test_a_deterministic_model_that_changes_one_answer_alarms() -> None:
    def twice(changed: int, stochastic: bool = False, between: float = 0.0) -> Outcomes:
        right = np.ones((1, 400, 2), bool)
        right[0, :changed, 1] = False
        return Outcomes(stochastic=stochastic).clean(right, between_draws=between)

    assert said(determinism, twice(1)) == "alarm"
    assert said(determinism, twice(0)) == "pass"
    assert said(determinism, twice(0, between=0.1)) == "alarm"
    assert said(determinism, twice(0, between=1e-6)) == "pass"
    assert said(determinism, twice(50, stochastic=True)) == "not applicable"


def test_an_adversarial_iterate_that_was_thrown_away_alarms() -> None:
    def lost(images: int, stochastic: bool = False) -> Outcomes:
        fooled = np.arange(400) < images
        return Outcomes(stochastic=stochastic).attack("pgd", 1.0, fooled=fooled, steps=20)

    assert said(earlier_iterates, lost(40)) == "alarm"
    assert said(earlier_iterates, lost(2)) == "pass"
    assert said(earlier_iterates, lost(40, stochastic=True)) == "not applicable"


def test_an_adversarial_iterate_that_was_kept_is_as_it_should_be() -> None:
    made = Outcomes().attack("pgd", 0.5, fooled=np.arange(400) >= 200, steps=20)
    assert said(earlier_iterates, made) == "pass"


def test_a_loss_that_rises_to_the_end_alarms_and_one_at_rest_does_not() -> None:
    def traced(trace: Any, steps: int = 50) -> Outcomes:
        return Outcomes(seeds=2).attack("pgd", 0.5, trace=trace, steps=steps)

    even = np.linspace(0, 1, 50)
    assert said(loss_at_the_end, traced(even)) == "alarm"
    assert said(loss_at_the_end, traced(np.minimum(even, 0.6))) == "pass"
    noise = 0.5 * np.random.default_rng(0).standard_normal(50)
    assert said(loss_at_the_end, traced(np.minimum(even, 0.6) + noise)) == "pass"
    assert said(loss_at_the_end, traced(np.zeros(50))) == "not applicable"
    assert said(loss_at_the_end, traced(even[:15], steps=15)) == "not applicable"
    assert said(loss_at_the_end, traced(even[:20])) == "not applicable"  # all broken early


def test_a_loss_that_falls_while_it_is_to_be_raised_is_an_alarm() -> None:
    def of(trace: Any, noisy: bool = False) -> Finding:
        made = Outcomes(seeds=2, stochastic=noisy)
        results = made.attack("pgd", 0.5, trace=trace, steps=len(trace)).results()
        return loss_on_the_way(Subject(results, results.models[0]))

    rising = np.linspace(0.1, 2.0, 40)
    assert of(rising).verdict == "pass"
    wavers = np.minimum(rising, 1.0) + 0.1 * (np.arange(40) % 2)
    assert of(wavers).verdict == "pass", "to and fro is not lost"
    back = np.concatenate([rising[:20], rising[:20][::-1]])
    assert of(back).verdict == "alarm"
    assert "by the end 94.6%" in of(back).text
    assert of(rising[::-1]).verdict == "alarm", "it falls from the start"
    assert of(np.ones(40)).verdict == "pass", "nothing to lose"
    assert of(rising[:5]).verdict == "not applicable"
    draws = np.minimum(rising, 0.5) + 0.15 * np.random.default_rng(2).standard_normal(40)
    assert of(draws).verdict == "alarm"
    assert of(draws, noisy=True).verdict == "pass", "other draws at each step"
    assert of(back + 0.1 * (draws - draws.mean()), noisy=True).verdict == "alarm"


def test_outputs_that_are_probabilities_alarm() -> None:
    assert said(outputs, Outcomes().clean(probabilities=True)) == "alarm"
    assert said(outputs, Outcomes().clean()) == "pass"
    assert said(outputs, Outcomes()) == "not applicable"


def test_an_attack_that_makes_a_model_better_alarms() -> None:
    alarm = finding(above_clean, Outcomes().clean(0.8).attack("jsma", 1.0))
    assert alarm.verdict == "alarm"
    assert "100.0% under jsma, 80.0% on clean images" in alarm.text
    assert said(above_clean, Outcomes().clean(0.8).attack("jsma", 0.8)) == "pass"
    assert said(above_clean, Outcomes().clean(0.8).attack("noise", 0.9, role="floor")) == (
        "not applicable"
    )
    assert said(above_clean, Outcomes().attack("jsma", 1.0)) == "not applicable"


def test_a_threat_that_one_seed_has_not_met_is_not_looked_at() -> None:
    made = Outcomes(seeds=2).attack("pgd", 0.5, steps=20).attack("long", 0.1, steps=100)
    assert said(more_effort, made) == "alarm"
    made.cells[-1]["status"] = "failed"
    assert said(more_effort, made) == "not applicable"


def test_a_model_without_the_cells_that_would_tell_is_unchecked() -> None:
    assert diagnose(Outcomes().clean().results())["mine"]["verdict"] == "unchecked"
    made = Outcomes().clean().attack("fgsm", 0.5, steps=1, zero=0.0)
    assert diagnose(made.results())["mine"]["verdict"] == "unchecked"


def test_nothing_is_believable_without_a_headline() -> None:
    passed = [Finding(name, "pass", "") for name in NEEDED]
    assert verdict(passed)["verdict"] == "believable"
    assert verdict(passed, headline=False)["verdict"] == "unchecked"
    made = Outcomes().clean().attack("pgd", 0.5).attack("apgd", 0.5)
    assert Subject(made.results(), made.model).headline
    made.cells[-1]["status"] = "failed"  # as where an attack wants more classes than there are
    assert not Subject(made.results(), made.model).headline
    none = Outcomes().clean()
    assert not Subject(none.results(), none.model).headline


def test_one_alarm_outweighs_all_that_passes() -> None:
    passed = [Finding(f"check {i}", "pass", "") for i in range(5)]
    found = verdict([*passed, Finding("zero gradients", "alarm", "30% of them.", {}, "more")])
    assert found["verdict"] == "doubtful"
    assert found["alarms"] == [{"check": "zero gradients", "text": "30% of them.", "next": "more"}]


# -- the cells that diagnostics add to a plan -------------------------------------------------


def threats(workspace: Workspace, write: Write, report: str) -> dict[str, Any]:
    text = (workspace.root / "reports/small.toml").read_text()
    text = text.replace("diagnostics = false\n", "")
    write("reports/small.toml", text.replace('"fgsm", "noise"', report))
    return {threat.name: threat for threat in make_plan(workspace, "small").threats}


def test_diagnostics_are_planned_at_the_radius_of_the_reports_attacks(
    small: Workspace, write: Write
) -> None:
    write("attacks/mine.toml", 'attack = "pgd"\naccess = "white-box"\neps = 0.03\n')
    planned = threats(small, write, '"mine"')
    added = {name: threat for name, threat in planned.items() if name.startswith("diagnostics/")}
    assert {t.eps for t in added.values() if t.attack.role != "curve"} == {0.03}
    curve = sorted(t.eps for t in added.values() if t.attack.role == "curve")
    assert 0.03 in curve
    assert curve[-1] >= 0.5
    assert {"diagnostics/one-step", "diagnostics/pgd-long", "diagnostics/square"} <= set(added)


def test_what_the_report_runs_already_is_not_run_twice(small: Workspace, write: Write) -> None:
    planned = threats(small, write, '"fgsm", "noise"')
    assert "diagnostics/one-step" not in planned
    assert "diagnostics/noise" not in planned
    assert "diagnostics/square" in planned


@pytest.mark.parametrize(("queries", "planned"), [(100, True), (1000, False)])
def test_a_longer_search_of_the_report_s_own_answers_what_a_short_one_asks(
    small: Workspace, write: Write, queries: int, planned: bool
) -> None:
    search = f'attack = {{ name = "square", queries = {queries} }}\naccess = "score"\n'
    write("attacks/mine.toml", search + "eps = 0.1\n")
    assert ("diagnostics/square" in threats(small, write, '"mine", "fgsm"')) is planned


CURVE = 'attack = {{ name = "pgd", steps = {} }}\naccess = "white-box"\neps = {}\n'


@pytest.mark.parametrize(
    ("curve", "planned"),
    [
        (CURVE.format(20, [0.1, 1.0]), False),
        (CURVE.format(20, [0.1, 0.3]), True),  # does not reach every image
        (CURVE.format(10, [0.1, 1.0]), True),  # fewer steps
        (CURVE.format(20, [0.1, 1.0]).replace("20", '20, loss = "margin"'), True),
    ],
)
def test_a_curve_of_the_report_s_own_takes_the_place_of_that_of_diagnostics(
    small: Workspace, write: Write, curve: str, planned: bool
) -> None:
    write("attacks/mine.toml", curve)
    found = threats(small, write, '"mine", "fgsm"')
    assert any(name.startswith("diagnostics/eps-curve") for name in found) is planned


def test_each_radius_of_a_report_gets_diagnostics_of_its_own(
    small: Workspace, write: Write
) -> None:
    for eps in (0.03, 0.2):
        write(f"attacks/a{eps}.toml", f'attack = "pgd"\naccess = "white-box"\neps = {eps}\n')
    planned = threats(small, write, '"a*"')
    assert {"diagnostics/square@0.03", "diagnostics/square@0.2"} <= set(planned)


@pytest.mark.parametrize("name", ["l2", "curve", "floor"])
def test_diagnostics_need_an_attack_in_their_norm(
    small: Workspace, write: Write, name: str
) -> None:
    attack = 'attack = "pgd"\naccess = "white-box"\n'
    write("attacks/l2.toml", attack + 'norm = "l2"\neps = 1.0\n')
    write("attacks/curve.toml", attack + 'eps = 0.1\nrole = "curve"\n')
    write("attacks/floor.toml", attack + 'eps = 0.1\nrole = "floor"\n')
    assert set(threats(small, write, f'"{name}"')) == {"clean", name}


def test_a_report_without_attacks_gets_no_diagnostics(small: Workspace, write: Write) -> None:
    assert set(threats(small, write, "")) == {"clean"}


def test_a_report_can_do_without_diagnostics(small: Workspace) -> None:
    planned = [threat.name for threat in make_plan(small, "small").threats]
    assert planned == ["clean", "fgsm", "noise"]


def test_a_workspace_may_bring_diagnostics_of_its_own(small: Workspace, write: Write) -> None:
    write(
        "attacks/diagnostics/mine.toml",
        'attack = "pgd"\naccess = "white-box"\neps = 0.1\nrole = "diagnostic"\n',
    )
    planned = threats(small, write, '"fgsm"')
    assert set(planned) == {"clean", "fgsm", "diagnostics/mine"}


def test_diagnostics_count_in_the_worst_case_but_not_in_the_average(frauds: Results) -> None:
    row = leaderboard(frauds).set_index("model").loc["narrow"]
    assert row["worst_case"] <= row["diagnostics/pgd-sweep"] < row["fgsm"]
    assert row["average_attacks"] == row["fgsm"]


def test_a_role_that_does_not_exist_is_refused(small: Workspace, write: Write) -> None:
    write("attacks/odd.toml", 'attack = "pgd"\naccess = "white-box"\neps = 0.1\nrole = "check"\n')
    with pytest.raises(RobenchError, match="attacks/odd.toml: role"):
        threats(small, write, '"odd"')


def test_averaging_over_more_draws_that_still_helps_raises_an_alarm() -> None:
    rng = np.random.default_rng(0)

    def met(*chances: float, stochastic: bool = True) -> Outcomes:
        made = Outcomes(images=400, seeds=2, stochastic=stochastic).clean(1.0)
        for eot, chance in zip((1, 4, 16, 64), chances, strict=False):
            right = rng.random((2, 400, 8)) < chance
            made.attack(f"eot-{eot}", right, role="diagnostic", eot=eot, steps=10)
        return made.attack("other", 0.9, eot=10, steps=40)

    assert said(averaging, met(0.9, 0.7, 0.5, 0.3)) == "alarm"
    assert said(averaging, met(0.9, 0.5, 0.3, 0.3)) == "pass"
    assert said(averaging, met(0.3, 0.5, 0.5, 0.3)) == "pass", "what one draw finds is found"
    assert said(averaging, met(0.3)) == "not applicable"
    assert said(averaging, met(0.9, 0.7, 0.5, 0.3, stochastic=False)) == "not applicable"
    found = finding(averaging, met(0.9, 0.7, 0.5, 0.3))
    assert found.evidence["attacks"] == ["eot-1", "eot-4", "eot-16", "eot-64"]
    assert found.evidence["draws"] == [1, 4, 16, 64]
    assert found.evidence["fall"][0] == pytest.approx(0.2, abs=0.04)
