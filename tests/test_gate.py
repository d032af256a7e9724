"""Build servers: least accuracies as an exit code, JUnit XML and Markdown."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from command_line import robench_here
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat

from robench.errors import RobenchError
from robench.show import gate
from robench.show.leaderboard import leaderboard
from robench.show.results import Results
from robench.workspace.folders import Workspace


@pytest.fixture
def results() -> Results:
    models = [SyntheticModel("mine"), SyntheticModel("other")]
    return Synthetic(models, [clean_threat(), attack_threat("pgd", 0.1, 0.5)]).results()


@pytest.fixture
def accuracy(results: Results) -> dict[str, float]:
    table = leaderboard(results).set_index("model")
    return {name: float(table.loc["mine", name]) for name in ("clean", "pgd", "worst_case")}


@pytest.mark.parametrize(
    ("column", "more", "passed"),
    [
        ("worst_case", 0, True),
        ("worst_case", 0.001, False),
        ("clean", -0.1, True),
        ("pgd", 0, True),
    ],
)
def test_an_accuracy_is_held_against_its_least(
    results: Results, accuracy: dict[str, float], column: str, more: float, passed: bool
) -> None:
    asked = f"mi*:{column}={accuracy[column] + more!r}"
    (check,) = gate.hold(results, gate.parse([asked]))
    assert check.passed is passed
    assert check.model == "mine"


def test_a_number_that_is_not_there_fails(results: Results) -> None:
    checks = gate.hold(results, gate.parse(["average_corruptions=0.1"]))
    assert [check.passed for check in checks] == [False, False]
    assert "has no number" in checks[0].text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("worst_case", "say COLUMN=ACCURACY"),
        ("worst_case=much", "say COLUMN=ACCURACY"),
        ("worst_case=40", r"accuracy in \[0, 1\]"),
        ("worst_cse=0.4", "no column 'worst_cse'; did you mean worst_case"),
        ("yours:clean=0.4", "matches no model; .*other"),
    ],
)
def test_what_cannot_be_asked_is_refused(results: Results, asked: str, said: str) -> None:
    with pytest.raises(RobenchError, match=said):
        gate.hold(results, gate.parse([asked]))


def test_junit_says_what_failed(results: Results) -> None:
    checks = gate.hold(results, gate.parse(["mine:worst_case=1", "clean=0.5"]))
    suite = ET.fromstring(gate.junit(results, checks))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    failed = [case for case in suite if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["mine:worst_case=1"]


def test_hostile_text_stays_text(results: Results) -> None:
    results.manifest["report"]["title"] = "a|b<script>\x1b[31m`"
    text = gate.markdown(results, [])
    assert "<script" not in text
    assert "\x1b" not in text
    assert "a\\|b&lt;script>" in text


def test_the_command_line_exits_with_three_and_writes_both_files(small: Workspace) -> None:
    junit, table = small.root / "out/junit.xml", small.root / "out/table.md"
    words = ["run", "small", "--jobs", "1", "--fail-under", "clean=0.2", "--fail-under"]
    files = ["--junit", str(junit), "--markdown", str(table)]
    done = robench_here(*words, "worst_case=0.99", *files, cwd=small.root)
    assert done.returncode == 3, done.stderr
    assert "UNDER  small: worst_case" in done.stdout
    assert "ok     small: clean" in done.stdout
    assert ET.fromstring(junit.read_bytes()).get("failures") == "1"
    assert "| small |" in table.read_text()
    again = robench_here(*words, "clean=0.1", cwd=small.root)
    assert again.returncode == 0, again.stderr
