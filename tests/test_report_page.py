"""What the page shows (numbers, plots, claims, verdicts, failures, origins), asking no network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from pages import FILES, Outline, embedded_data
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, corruption_threat

from robench.show.leaderboard import leaderboard
from robench.show.report.costs import costs
from robench.show.report.folder import write_report
from robench.show.report.measurements import by_class
from robench.show.results import Results, load_published

quick, small, folder = pages.quick, pages.small, pages.folder  # fixtures


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text()


def test_the_page_is_small_and_asks_the_network_for_nothing(page: str) -> None:
    assert len(page.encode()) < 1_000_000
    outline = Outline(page)
    beside = {name for name in FILES if name != "index.html"}
    for link in outline.links:
        assert link.startswith(("#", "data:")) or link in beside
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_ids_on_the_page_are_unique(page: str) -> None:
    ids = Outline(page).ids
    assert len(ids) == len(set(ids))


def test_every_model_has_a_row_with_its_headline_and_a_bar(quick: Results, page: str) -> None:
    for _, row in leaderboard(quick).iterrows():
        value, low, high = (f"{100 * row['worst_case' + end]:.1f}" for end in ("", "_low", "_high"))
        assert f'style="--v:{value};--l:{low};--h:{high}">{value}' in page


def test_the_average_is_labelled_as_an_average(page: str) -> None:
    assert "Average over attacks" in page
    assert page.index(">Worst case<") < page.index(">Average over attacks<")


@pytest.mark.usefixtures("undrawn")
def test_averages_of_nothing_have_no_column(small: Results, tmp_path: Path) -> None:
    text = write_report(small, tmp_path).read_text()
    assert ">Average over attacks<" in text
    assert "verage over corruptions" not in text[: text.index("<dialog")]


@pytest.mark.usefixtures("undrawn")
def test_a_report_without_attacks_shows_no_worst_case(tmp_path: Path) -> None:
    threats = [clean_threat(), corruption_threat("fog", 1, 0.1)]
    text = write_report(Synthetic([SyntheticModel("a")], threats).results(), tmp_path).read_text()
    shown = text[: text.index("<dialog")]
    assert ">Worst case<" not in shown
    assert "This report has no attacks" in shown
    assert embedded_data(text)["columns"][0]["key"] == "average_corruptions"


def test_every_table_has_a_caption_and_every_picture_says_what_it_shows(page: str) -> None:
    outline = Outline(page)
    assert outline.tags.count("caption") == outline.tags.count("table") > 8
    assert all(re.search(r'aria-label="[^"]+"', tag) for tag in re.findall(r"<svg [^>]+>", page))
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]+>", page))


def test_the_page_says_by_digest_what_its_rows_may_be_compared_with(
    quick: Results, page: str
) -> None:
    section = page[page.index('id="how"') : page.index('id="plots"')]
    assert f'<code title="{quick.manifest["threat_set"]}">' in section
    assert "comparable only where" in " ".join(section.split())


def test_published_figures_stand_beside_ours_and_unmeasured_ones_are_counted(page: str) -> None:
    section = page[page.index('id="published"') : page.index('id="provenance"')]
    section = section[: section.index("</section>")]
    assert len(re.findall('<td class="n">[+−]', section)) == section.count("<tr>") - 1
    assert "1 more is of a threat that this report does not measure" in section
    assert "28.3" in section
    assert "28.3" not in page[page.index('<table id="board"') : page.index("</table>")]


def test_claims_of_the_card_are_judged_on_the_page(page: str) -> None:
    section = page[page.index('id="claims"') : page.index('id="plots"')]
    assert "NIT withstands FGSM better than STBP" in section
    assert "Under the strong evaluation" in section


@pytest.mark.usefixtures("undrawn")
def test_verdicts_are_shown_when_given_and_absent_when_empty(
    small: Results, tmp_path: Path
) -> None:
    silent = write_report(small, tmp_path / "silent", verdicts={}).read_text()
    assert "doubtful" not in silent[: silent.index("<dialog")]
    verdicts: Any = {
        "synthetic/a": {
            "verdict": "doubtful",
            "alarms": [{"check": "zero gradients", "text": "30% of the images", "next": ""}],
            "findings": [],
        }
    }
    told = write_report(small, tmp_path / "told", verdicts=verdicts).read_text()
    assert "doubtful · 1" in told
    [record] = [m for m in embedded_data(told)["models"] if "verdict" in m]
    assert record["verdict"] == verdicts["synthetic/a"]


def test_every_plot_has_its_numbers_as_a_table(page: str) -> None:
    figures = re.findall(r'<figure class="plot.*?</figure>', page, re.DOTALL)
    assert len(figures) >= 5
    for figure in figures:
        assert figure.count("<svg") == 1
        assert figure.count("<table>") == 1


def test_paths_of_two_weights_are_drawn_with_every_point_as_a_number(tmp_path: Path) -> None:
    made = Synthetic(
        [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b")], [clean_threat()]
    )
    for place, model in enumerate(made.manifest["models"]):
        for row in model["seeds"][0]["history"]:
            row |= {"weight/1": row["epoch"] / 8, "weight/2": -1.0 - place}
    text = write_report(made.results(), tmp_path).read_text()
    assert "Ways through weight space" in text
    assert re.search(r"<td>synthetic/b</td><td>12</td><td>1.5</td><td>-2</td>", text)
    assert '<th scope="col">weight/1</th>' not in text  # not a training curve


def test_a_page_without_networks_of_two_weights_draws_no_path(page: str) -> None:
    assert "Ways through weight space" not in page


@pytest.mark.usefixtures("undrawn")
def test_the_cost_of_training_and_of_an_answer_stands_on_the_page(tmp_path: Path) -> None:
    made = Synthetic([SyntheticModel("synthetic/a", seeds=(0, 1))], [clean_threat()])
    for cell, milliseconds in zip(made.manifest["cells"], (0.01, 0.03), strict=True):
        cell["inference_ms"] = milliseconds
    made.manifest["models"][0]["seeds"][1]["history"][3]["added_memory_mb"] = 420.0
    cost = costs(made.results())[0]
    assert (cost.epochs, cost.epoch_seconds, cost.memory_mb) == (12, 3.25, 360)
    assert cost.inference_ms == pytest.approx(0.02)
    text = write_report(made.results(), tmp_path).read_text()
    row = text[text.index('id="cost"') :]
    assert row.index("3.2 s") < row.index(">360<") < row.index("0.02")
    assert "what training added" in row
    assert ">≤ " not in row


@pytest.mark.usefixtures("undrawn")
def test_of_runs_that_measured_the_whole_process_the_page_says_at_most(tmp_path: Path) -> None:
    made = Synthetic([SyntheticModel("synthetic/a")], [clean_threat()])
    for seed in made.manifest["models"][0]["seeds"]:
        for epoch in seed["history"]:
            epoch["peak_memory_mb"] = epoch.pop("added_memory_mb") + 385
    (cost,) = costs(made.results())
    assert (cost.memory_mb, cost.whole) == (685, True)
    text = write_report(made.results(), tmp_path).read_text()
    row = text[text.index('id="cost"') :]
    assert ">≤ 685<" in row
    assert "what training added" not in row


def test_outcomes_made_before_answers_were_timed_show_a_dash(quick: Results, page: str) -> None:
    assert all(cost.inference_ms is None for cost in costs(quick))
    assert 'id="cost"' in page


def test_plots_take_the_colours_of_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--ink)" in drawings
    assert "#010203" not in drawings
    assert "#000000" not in drawings


@pytest.mark.usefixtures("undrawn")
def test_missing_cells_are_listed_with_their_reason(tmp_path: Path) -> None:
    model = SyntheticModel("synthetic/broken", failed=((0, "fgsm"),))
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3), attack_threat("pgd", 0.1, 0.5)]
    made = Synthetic([model, SyntheticModel("synthetic/whole")], threats)
    text = write_report(made.results(), tmp_path).read_text()
    section = text[text.index('id="missing"') : text.index('id="provenance"')]
    assert "synthetic failure: the attack ran past its time_limit" in section
    assert ">incomplete<" in text


def test_a_report_where_everything_failed_is_still_a_page(tmp_path: Path) -> None:
    model = SyntheticModel("synthetic/broken", failed=((0, "clean"), (0, "fgsm")))
    made = Synthetic([model], [clean_threat(), attack_threat("fgsm", 0.1, 0.3)])
    text = write_report(made.results(), tmp_path).read_text()
    assert "synthetic/<wbr>broken" in text
    assert load_published(tmp_path).failures()


def test_provenance_names_command_threat_set_weights_and_machine(quick: Results, page: str) -> None:
    section = page[page.index('id="provenance"') :]
    assert "robench run synthetic" in section
    assert quick.manifest["threat_set"] in section
    assert quick.models[0]["seeds"][0]["weights"][:12] in section
    assert "synthetic processor" in section


def test_example_images_are_clean_attacked_and_their_difference(page: str) -> None:
    record = embedded_data(page)["models"][0]
    found = [strip["label"] for strip in record["pictures"]]
    assert found[:2] == ["clean", "pgd"]
    assert found[2].startswith("difference ×")
    assert len(found) == 6


def test_transfer_between_two_surrogates_is_drawn_as_a_matrix(tmp_path: Path) -> None:
    threats = [
        clean_threat(),
        *(
            attack_threat(f"transfer-{name}", 0.1, 0.3, access="transfer", surrogate=name)
            for name in ("synthetic/a", "synthetic/b")
        ),
    ]
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b")]
    text = write_report(Synthetic(models, threats, images=20).results(), tmp_path).read_text()
    assert "Transfer from surrogate to victim" in text
    assert "examples made on" in text


@pytest.mark.usefixtures("undrawn")
def test_clean_accuracy_is_given_class_by_class_and_averages_to_the_whole(tmp_path: Path) -> None:
    results = Synthetic([SyntheticModel("synthetic/a", seeds=(0, 1))], [clean_threat()]).results()
    (model,) = results.models
    found = by_class(results, model, "clean")
    tables = [results.table("synthetic/a", seed, "clean") for seed in (0, 1)]
    for label, value in found.items():
        expected = [
            np.mean(
                [
                    right
                    for right, own in zip(
                        table["correct"].to_pylist(), table["label"].to_pylist(), strict=True
                    )
                    if own == int(label)
                ]
            )
            for table in tables
            if table
        ]
        assert value == pytest.approx(np.mean(expected))
    assert len(found) == 10
    (record,) = embedded_data(write_report(results, tmp_path).read_text())["models"]
    assert list(record["classes"]) == [str(label) for label in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.release)])
def test_many_models_under_a_hundred_threats_fit_the_page(tmp_path: Path, count: int) -> None:
    models = [
        SyntheticModel(f"synthetic/model-{i}", trainer=f"trainer-{i % 9}", slope=0.8 + 0.003 * i)
        for i in range(count)
    ]
    threats = [
        clean_threat(),
        *(attack_threat(f"attack-{i}", 0.1, 0.2 + 0.05 * i) for i in range(9)),
        *(corruption_threat(f"kind_{i}", s, 0.03 * s) for i in range(18) for s in range(1, 6)),
    ]
    file = write_report(Synthetic(models, threats, images=8, distinct=60).results(), tmp_path)
    assert file.stat().st_size < 25_000 * count
    records = embedded_data(file.read_text())["models"]
    assert len([one for one in records if "pictures" in one]) == count, "all have example images"
