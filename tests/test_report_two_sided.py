"""Both ends on the page: the headline's bar of three parts, the plot, the words, and the files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import Outline, embedded_data
from proofs_by_hand import proven
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, quick_models
from synthetic import quick_threats as threats

from robench.show.diagnostics.verdicts import against_truth, diagnose, tally
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.site import write_site
from robench.show.results import Results, load_published

HOSTILE = "<script>window.pwned=1</script>\"'"


@pytest.fixture(scope="module")
def both() -> Results:
    return proven(Synthetic(quick_models(), threats(("fog",))).results())


@pytest.fixture(scope="module")
def page(both: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(both, tmp_path_factory.mktemp("both")).read_text()


def test_the_headline_of_a_row_is_both_ends_with_the_interval_of_each(
    both: Results, page: str
) -> None:
    row = leaderboard(both).set_index("model").loc["synthetic/mlp-bp"]
    low, attacked = (
        [f"{100 * row[name + end]:.1f}" for end in ("", "_low", "_high")]
        for name in ("proved", "worst_case")
    )
    ends = zip(("p", "pl", "ph", "v", "l", "h"), [*low, *attacked], strict=True)
    style = ";".join(f"--{name}:{value}" for name, value in ends)
    assert (
        f'style="{style}"><span><i>proved</i> {low[0]} –</span> '
        f"<span><i>attacked</i> {attacked[0]}</span><small>{low[1]}–{attacked[2]}</small>"
    ) in page


def test_the_lower_end_of_a_noisy_model_is_called_certified_and_said_to_be_small(page: str) -> None:
    row = page[page.index('<a href="#model=synthetic/snn-nit"') :]
    assert row.index("<i>certified</i> 0.0") < row.index("</tr>")
    how = page[page.index('id="how"') : page.index('id="plots"')]
    said = re.search(r"synthetic/snn-nit: ([^.]+\.\d%) at L∞ ≤ 0.02, .* nothing at L∞ ≤ 0.1", how)
    assert said
    assert "All between that and the attacked end is open" in how


def test_what_the_two_ends_are_is_explained_behind_how_to_read_this(page: str) -> None:
    how = " ".join(page[page.index('id="how"') : page.index('id="plots"')].split())
    for part in ("upper", "lower", "proved", "open", "broken", "settled"):
        assert f"<em>{part}</em>" in how
    assert "Open never counts as proved" in how


@pytest.mark.usefixtures("undrawn")
def test_a_model_is_settled_where_no_image_is_open(tmp_path: Path) -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/noisy", noisy=True)]
    made = Synthetic(models, [clean_threat(), attack_threat("pgd", 0.1, 0.3)]).results()
    badge = '<span class="badge good" title="No image is open'
    assert badge not in write_report(proven(made, open_within=0.5), tmp_path).read_text()
    text = write_report(proven(made, (0.1,), open_within=0), tmp_path).read_text()
    assert text.count(badge) == 1


def test_both_ends_are_drawn_over_the_radius_with_every_number(page: str) -> None:
    [drawn] = [f for f in re.findall(r'<figure class="plot.*?</figure>', page, re.DOTALL)
               if "Proved and attacked, by radius" in f]  # fmt: skip
    assert drawn.count("<tr>") == 1 + 3 * 5
    assert "<td>synthetic/mlp-bp</td><td>0.05</td>" in drawn


def test_a_single_radius_has_no_plot_of_its_own(tmp_path: Path) -> None:
    made = proven(Synthetic(quick_models(), threats(())).results(), (0.1,))
    assert "Proved and attacked, by radius" not in write_report(made, tmp_path).read_text()


def test_the_record_of_a_model_says_of_every_image_what_became_of_it(page: str) -> None:
    records = {model["name"]: model for model in embedded_data(page)["models"]}
    balls = records["synthetic/mlp-glr"]["ends"]
    assert [ball["ball"] for ball in balls] == ["L∞ ≤ 0.02", "L∞ ≤ 0.05", "L∞ ≤ 0.1"]
    assert all(len(ball["states"][0]) == 200 for ball in balls)
    proved = [ball["states"][0].count("p") / 2 for ball in balls]
    summary = records["synthetic/mlp-glr"]["summary"]
    assert proved == [summary[f"proved@linf-{eps}"][0] for eps in ("0.02", "0.05", "0.1")]
    assert "states" not in records["synthetic/snn-nit"]["ends"][0]


@pytest.mark.usefixtures("undrawn")
def test_the_record_of_a_model_says_what_the_proofs_took_and_why_images_are_open(
    tmp_path: Path,
) -> None:
    models = [SyntheticModel("synthetic/a", seeds=(0, 1))]
    made = proven(Synthetic(models, [clean_threat(), attack_threat("pgd", 0.1, 0.3)]).results())
    for cell in made.manifest["cells"]:
        if cell["threat"] == "exact@0.1":
            seconds = {"median": 0.2, "p95": 1.0, "max": 4.0 + cell["seed"]}
            cell["proof"] = {"images": 50, "open": {"3": "out of time"}, "seconds": seconds}
    file = write_report(made, tmp_path)
    [record] = embedded_data(file.read_text())["models"]
    small, _, large = record["ends"]
    assert "asked" not in small
    assert [large[key] for key in ("asked", "median", "longest")] == [100, 0.2, 5.0]
    assert large["why"] == {"out of time": 2}
    ours = load_published(tmp_path).manifest["cells"]
    assert [cell.get("proof") for cell in ours] == [c.get("proof") for c in made.manifest["cells"]]


def test_a_model_that_no_proof_applies_to_has_one_end(tmp_path: Path) -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b", failed=((0, "pgd"),))]
    made = Synthetic(models, [clean_threat(), attack_threat("pgd", 0.1, 0.3)]).results()
    text = write_report(proven(made, (0.1,)), tmp_path).read_text()
    assert text.count("<i>attacked</i>") == 1 + text.count("<i>attacked</i> ${")
    [record] = [m for m in embedded_data(text)["models"] if m["name"] == "synthetic/b"]
    assert "ends" not in record


def test_proofs_without_attacks_are_a_worst_case_too(tmp_path: Path) -> None:
    made = Synthetic([SyntheticModel("synthetic/a")], [clean_threat()]).results()
    text = write_report(proven(made, (0.05, 0.1)), tmp_path).read_text()
    assert "this report has no attacks" not in text.lower()
    assert "what proofs found" in text
    assert embedded_data(text)["columns"][0]["key"] == "worst_case"


@pytest.mark.usefixtures("undrawn")
def test_where_the_worst_case_has_one_end_the_columns_of_each_ball_are_shown(
    tmp_path: Path,
) -> None:
    far = attack_threat("far", 2.0, 0.5, norm="l2")
    made = Synthetic([SyntheticModel("synthetic/a")], [clean_threat(), far]).results()
    shown = embedded_data(write_report(proven(made), tmp_path).read_text())["columns"]
    keys = [column["key"] for column in shown if column["shown"]]
    assert keys[:3] == ["worst_case", "proved@linf-0.02", "attacked@linf-0.02"]


def test_names_in_a_report_with_proofs_are_text(tmp_path: Path) -> None:
    made = Synthetic(
        [SyntheticModel(HOSTILE), SyntheticModel(HOSTILE + "2", noisy=True)],
        [clean_threat(), attack_threat(HOSTILE, 0.1, 0.3)],
    ).results()
    outline = Outline(write_report(proven(made, card=HOSTILE), tmp_path).read_text())
    assert outline.tags.count("script") == 2
    assert outline.handlers == []


@pytest.mark.usefixtures("undrawn")
def test_the_index_of_a_site_shows_what_is_proved_of_its_leaders(
    both: Results, tmp_path: Path
) -> None:
    index = write_site({"both": both}, tmp_path).read_text()
    first = leaderboard(both).iloc[1]
    assert f"<small>proved {100 * first['proved']:.1f}</small>" in index


@pytest.mark.usefixtures("undrawn")
def test_verdicts_are_held_against_the_truth_on_the_page_and_in_its_files(
    both: Results, tmp_path: Path
) -> None:
    page = " ".join(write_report(both, tmp_path).read_text().split())
    held = against_truth(both, diagnose(both))
    assert held
    assert all(not model["stochastic"] for model in both.models if model["name"] in held)
    ((verdict, says),) = tally(held).items()
    assert sum(says.values()) == len(held)
    assert "Verdicts against the truth." in page
    assert (
        f"<em>{verdict}</em> what the attacks leave lies within the interval of the true accuracy "
        f"for {says['within']}, above it for {says['above']}"
    ) in page
    document = json.loads((tmp_path / "leaderboard.json").read_text())
    assert document["verdicts_against_truth"] == {verdict: says}
    for row in document["rows"]:
        told = held.get(row["model"])
        assert row.get("verdict_without_proofs") == (told and told.verdict)
        assert row.get("against_truth") == (told and told.truth)
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert lines[0].endswith("alarms,verdict_without_proofs,against_truth")


@pytest.mark.usefixtures("undrawn")
def test_a_report_without_proofs_says_nothing_of_the_truth(tmp_path: Path) -> None:
    made = Synthetic(quick_models(), threats(("fog",))).results()
    assert 'id="verdicts-against-truth"' not in write_report(made, tmp_path).read_text()
    assert "against_truth" not in (tmp_path / "leaderboard.json").read_text()
    assert "against_truth" not in (tmp_path / "leaderboard.csv").read_text()
