"""What a page says in words is what the code does: every sentence that states a rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from outcomes import Outcomes
from pages import Outline, embedded_data
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, corruption_threat

from robench.show.claims import judge
from robench.show.corruption_error import corruption_errors
from robench.show.diagnostics.iterates import loss_at_the_end
from robench.show.diagnostics.strength import one_step
from robench.show.diagnostics.subject import Subject
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.site import write_site
from robench.show.results import Results
from robench.show.statistics import RESAMPLES

quick, folder = pages.quick, pages.folder  # fixtures
ROLES = ("attack", "diagnostic", "floor", "curve")


def said(text: str) -> str:
    """The words of a page, without its markup."""
    return " ".join(" ".join(Outline(text).words).split())


def section(text: str, name: str) -> str:
    """The words of one section of a page."""
    return said(text[text.index(f'id="{name}"') :].split("</section>")[0])


@pytest.fixture(scope="module")
def every_role(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, str]:
    """A report with one attack of each role, and its page."""
    threats = [
        clean_threat(),
        *(attack_threat(f"a-{role}", 0.1, 0.3 + 0.1 * i, role) for i, role in enumerate(ROLES)),
    ]
    results = Synthetic([SyntheticModel("synthetic/a")], threats, images=50).results()
    return results, write_report(results, tmp_path_factory.mktemp("roles")).read_text()


@pytest.mark.parametrize("role", ROLES)
def test_a_threat_is_said_to_count_where_it_counts(
    every_role: tuple[Results, str], role: str
) -> None:
    results, text = every_role
    name = f"a-{role}"
    row = re.search(rf"{name}</th><td>(.*?)</td>", section_html(text, "provenance"))
    assert row
    in_worst = name in {threat["name"] for threat in results.attacks}
    in_average = name in {threat["name"] for threat in results.averaged}
    for told in (row[1], embedded_data(text)["roles"].get(role, "")):
        assert ("not in the worst case" in told) is not in_worst
        assert ("not in the average" in told) is (in_worst and not in_average)


def section_html(text: str, name: str) -> str:
    return text[text.index(f'id="{name}"') :].split("</section>")[0]


def test_the_worst_case_is_over_as_many_attacks_as_the_page_says(
    every_role: tuple[Results, str],
) -> None:
    results, text = every_role
    told = section(text, "how")
    assert "under every one of the 2 attacks, image by image" in told
    assert "1 of them is a diagnostic: it counts in the worst case, not in the average" in told
    (model,) = results.models
    each = [results.correct(model, name) for name in ("clean", "a-attack", "a-diagnostic")]
    survived = np.minimum.reduce([part for part in each if part is not None])
    row = leaderboard(results).iloc[0]
    assert row["worst_case"] == pytest.approx(survived.mean())
    assert row["average_attacks"] == pytest.approx(row["a-attack"])


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_diagnostics_alone_speaks_of_no_average(tmp_path: Path) -> None:
    threats = [clean_threat(), attack_threat("a", 0.1, 0.3, "diagnostic")]
    made = Synthetic([SyntheticModel("synthetic/a")], threats, images=20)
    told = section(write_report(made.results(), tmp_path).read_text(), "how")
    assert "average over attacks" not in told


@pytest.mark.usefixtures("undrawn")
def test_relative_mce_stands_beside_the_number_of_kinds_of_its_own_baseline(tmp_path: Path) -> None:
    """Fog harms the first data set's baseline, and hardly the other's, which sees no clouds."""
    threats = [
        clean_threat(),
        *(corruption_threat(kind, s, 0.1 * s) for kind in ("fog", "contrast") for s in (1, 2)),
    ]
    models = [
        SyntheticModel(f"{of}/{who}", dataset={"name": of})
        for of in ("one", "two")
        for who in ("base", "mine")
    ]
    made = Synthetic(models, threats, baselines=["one/base", "two/base"])
    for cell in made.manifest["cells"]:
        if cell["model"].startswith("two") and "fog" in cell["threat"]:
            cell["digest"] = next(
                c["digest"]
                for c in made.manifest["cells"]
                if c["model"] == cell["model"] and c["threat"] == "clean"
            )
    results = made.results()
    assert [row.relative_kinds for row in corruption_errors(results)] == [2, 2, 1, 1]
    text = write_report(results, tmp_path).read_text()
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section_html(text, "mce"), re.DOTALL)
    shown = [re.findall(r"<td class=\"n\">(.*?)</td>", row) for row in rows]
    assert [cells[2] for cells in shown] == ["2", "2", "1", "1"]
    assert "of the row's own baseline" in section(text, "mce")
    assert "–" not in shown[0][0], "a baseline against itself has no interval"
    assert "–" in shown[1][0]


@pytest.mark.usefixtures("undrawn")
def test_without_a_kind_that_harms_the_baseline_relative_mce_is_a_dash(tmp_path: Path) -> None:
    threats = [clean_threat(), corruption_threat("fog", 1, 0.1)]
    made = Synthetic([SyntheticModel("base")], threats, baselines=["base"])
    for cell in made.manifest["cells"]:
        cell["digest"] = made.manifest["cells"][0]["digest"]
    text = write_report(made.results(), tmp_path).read_text()
    assert re.findall(r"<td class=\"n\">(.*?)</td>", section_html(text, "mce"))[1:3] == ["–", "0"]


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [((0.9, 0.5), "holds"), ((0.6, 0.5), "weaker"), ((0.5, 0.9), "does not hold")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_claim_is_judged_by_its_printed_rule(
    measured: tuple[float, float], verdict: str, turned: bool
) -> None:
    """Published: 40 points between the two; turned round, the claim is that one has less."""
    first, second = "ab" if not turned else "ba"
    claim = {
        "text": "t", "model": first, "than": second, "threat": "fgsm",
        "published": [0.8, 0.4] if not turned else [0.4, 0.8],
        "strong": "fgsm", "control": None,
    }  # fmt: skip
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.5)]
    models = [
        SyntheticModel(name, clean=1.0, slope=2 * (1 - accuracy))
        for name, accuracy in zip("ab", measured, strict=True)
    ]
    results = Synthetic(models, threats, images=400, claims=[claim]).results()
    assert judge(results)[0]["verdict"] == verdict


def test_the_rule_for_claims_is_printed(folder: Path) -> None:
    told = section((folder / "index.html").read_text(), "claims")
    assert "surely goes the published way" in told
    assert "at least half of the published one" in told
    assert "else it does not hold" in told


@pytest.mark.usefixtures("undrawn")
def test_the_number_of_test_images_is_that_of_the_rows(tmp_path: Path) -> None:
    made = Synthetic([SyntheticModel("synthetic/a")], [clean_threat()], images=30)
    made.manifest["report"]["images"] = 500  # which the data set does not have
    results = made.results()
    text = write_report(results, tmp_path / "report").read_text()
    assert "<dt>Test images</dt><dd>30</dd>" in text
    assert "30 test images" in section(text, "provenance")
    index = write_site({"r": results}, tmp_path / "site").read_text()
    assert "30 test images" in index
    assert "500 test images" not in said(text + index)


@pytest.mark.usefixtures("undrawn")
def test_the_index_of_a_site_says_what_ranks_a_report_without_attacks(tmp_path: Path) -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b", clean=0.5)]
    results = Synthetic(models, [clean_threat()], images=30).results()
    told = said(write_site({"r": results}, tmp_path).read_text())
    assert (
        "where a report has no attacks, by the average over corruptions or else the clean" in told
    )
    assert "Clean, %" in told
    assert "Worst case, %" not in told


def test_intervals_are_of_as_many_samples_as_the_page_says(folder: Path) -> None:
    told = section((folder / "index.html").read_text(), "provenance")
    assert f"percentile bootstrap over seeds and images, {RESAMPLES} samples" in told


def test_what_needs_the_script_is_named_and_the_rest_is_there(quick: Results, folder: Path) -> None:
    text = (folder / "index.html").read_text()
    told = said(text[(start := text.index('id="static"')) : text.index("</p>", start)])
    assert "further columns" in told
    hidden = [column["key"] for column in embedded_data(text)["columns"] if not column["shown"]]
    assert hidden, "some columns come by the script alone"
    header = (folder / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert set(hidden) <= set(header)


def test_the_heat_map_says_which_attacks_it_leaves_out(
    every_role: tuple[Results, str], tmp_path: Path
) -> None:
    results, text = every_role
    assert results.curves
    assert "Attacks at several eps are drawn by themselves" in section(text, "plots")
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
    plain = Synthetic([SyntheticModel("synthetic/a")], threats, images=20).results()
    assert not plain.curves
    assert "drawn by themselves" not in write_report(plain, tmp_path).read_text()


def test_an_examples_strip_is_of_what_its_sentence_says(quick: Results, folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert "under the hardest corruptions at their highest severity" in text
    for record in embedded_data(text)["models"]:
        names = [strip["label"] for strip in record["pictures"]][3:]
        accuracy = dict(zip(quick.kinds, (kind[0] for kind in record["kinds"]), strict=True))
        hardest = sorted(accuracy, key=lambda kind: (accuracy[kind], kind))[:3]
        tied = len(set(accuracy.values())) < len(accuracy)
        assert names == [quick.kinds[kind][-1]["name"] for kind in hardest] or tied


# -- findings --------------------------------------------------------------------------------------


def trace(pace: float, noise: float) -> Any:
    """Losses of 40 steps that rise by one, of which the last ten at `pace` times the mean pace."""
    rise = np.concatenate([np.full(30, (1 - pace / 4) / 30), np.full(10, pace / 40)]).cumsum()
    return rise + noise * np.where(np.arange(40) % 2, 1, -1)


@pytest.mark.parametrize(
    ("pace", "noise", "verdict", "words"),
    [
        (0.0, 0.0, "pass", "has come to rest"),
        (0.9, 0.0, "alarm", "still rises"),
        (0.7, 0.2, "pass", "is not surely still rising"),
    ],
)
def test_a_loss_is_said_to_rest_only_where_it_rests(
    pace: float, noise: float, verdict: str, words: str
) -> None:
    made = Outcomes().attack("pgd", 0.5, steps=40, trace=trace(pace, noise))
    [model] = made.results().models
    found = loss_at_the_end(Subject(made.results(), model))
    assert (found.verdict, words in found.text) == (verdict, True)


def test_many_steps_that_do_the_same_are_not_said_to_do_more() -> None:
    made = Outcomes().attack("fgsm", 0.5, steps=1, step_size=0.1)
    made.attack("bim", 0.5, steps=10, step_size=0.02)
    [model] = made.results().models
    assert "Many steps do no less than one" in one_step(Subject(made.results(), model)).text
