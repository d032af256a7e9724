"""The published folder: what it holds, that it rebuilds, and that no name can break the page."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
    quick_models,
    quick_threats,
)
from typer.testing import CliRunner

from robench.cli import app
from robench.errors import RobenchError
from robench.leaderboard import leaderboard
from robench.report import write_report
from robench.report.costs import costs
from robench.report.measurements import by_class
from robench.report.payload import curves, embedded, runs
from robench.report.pictures import difference, png, strip
from robench.report.site import write_site
from robench.report.text import seconds
from robench.results import Results, load_published, load_results
from robench.store import Store
from robench.workspace import FOLDERS

FILES = [
    "cells.parquet",
    "index.html",
    "leaderboard.csv",
    "leaderboard.json",
    "leaderboard.tex",
    "manifest.json",
]
HOSTILE = "<script>window.pwned=1</script>\"'&amp;{{7*7}}</script><!--$x_1$\\" + "å" * 10_000


class Outline(HTMLParser):
    """What a browser would make of a page: its elements, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "data", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def quick() -> Results:
    claim = {
        "text": "NIT withstands FGSM better than STBP",
        "model": "synthetic/snn-nit",
        "than": "synthetic/snn-stbp",
        "threat": "fgsm",
        "published": [0.814, 0.426],
    }
    card = {**claim, "strong": "worst case", "control": None}
    return Synthetic(quick_models(), quick_threats(), claims=[card]).results()


@pytest.fixture(scope="module")
def small() -> Results:
    """One model, two threats: quickly drawn."""
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
    return Synthetic([SyntheticModel("synthetic/a")], threats, images=20).results()


@pytest.fixture(scope="module")
def folder(quick: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(quick, tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text()


def embedded_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_a_report_is_six_files_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES


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


def test_writing_again_touches_nothing(quick: Results, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_report(quick, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_second_process_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """With another hash seed: no set and no clock decides what a file says."""
    script = (
        "import sys; from pathlib import Path; from robench.report import write_report;"
        "from robench.results import load_published;"
        "write_report(load_published(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "again")],
        check=True,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_store_and_a_published_folder_give_the_same_report(tmp_path: Path) -> None:
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3), corruption_threat("fog", 1, 0.1)]
    made = Synthetic([SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b")], threats)
    store = made.write(Store(tmp_path / "store"))
    write_report(load_results(store, "synthetic"), tmp_path / "one")
    write_report(load_published(tmp_path / "one"), tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("name", ["index.html", "cells.parquet", "leaderboard.csv"])
def test_a_file_that_was_changed_by_hand_is_made_again(
    small: Results, tmp_path: Path, name: str
) -> None:
    file = write_report(small, tmp_path).with_name(name)
    before = file.read_bytes()
    file.write_bytes(before[:-30])
    write_report(small, tmp_path)
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_said_so(small: Results, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(RobenchError, match="cannot be written"):
        write_report(small, tmp_path / "taken")


def test_showing_imports_neither_torch_nor_plugins() -> None:
    code = (
        "import sys, robench.report, robench.leaderboard, robench.report.builder;"
        "heavy = {'torch', 'foolbox', 'art', 'robench.plugins'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- what the page says -----------------------------------------------------------------------


def test_every_model_has_a_row_with_its_headline_and_a_bar(quick: Results, page: str) -> None:
    for _, row in leaderboard(quick).iterrows():
        value, low, high = (f"{100 * row['worst_case' + end]:.1f}" for end in ("", "_low", "_high"))
        assert f'style="--v:{value};--l:{low};--h:{high}">{value}' in page


def test_the_average_is_labelled_as_an_average(page: str) -> None:
    assert "Average over attacks" in page
    assert page.index(">Worst case<") < page.index(">Average over attacks<")


def test_averages_of_nothing_have_no_column(small: Results, tmp_path: Path) -> None:
    text = write_report(small, tmp_path).read_text()
    assert ">Average over attacks<" in text
    assert "verage over corruptions" not in text[: text.index("<dialog")]


def test_a_report_without_attacks_shows_no_worst_case(tmp_path: Path) -> None:
    threats = [clean_threat(), corruption_threat("fog", 1, 0.1)]
    text = write_report(Synthetic([SyntheticModel("a")], threats).results(), tmp_path).read_text()
    shown = text[: text.index("<dialog")]
    assert ">Worst case<" not in shown
    assert "This report has no attacks" in shown
    assert embedded_data(text)["columns"][0]["key"] == "clean"


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


def test_published_figures_stand_beside_ours_and_unmeasured_ones_say_so(page: str) -> None:
    section = page[page.index('id="published"') : page.index('id="provenance"')]
    assert "28.3" in section
    assert "not measured in this report" in section
    assert "28.3" not in page[page.index('<table id="board"') : page.index("</table>")]


def test_claims_of_the_card_are_judged_on_the_page(page: str) -> None:
    section = page[page.index('id="claims"') : page.index('id="plots"')]
    assert "NIT withstands FGSM better than STBP" in section
    assert "Under the strong evaluation" in section


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


def test_the_cost_of_training_and_of_an_answer_stands_on_the_page(tmp_path: Path) -> None:
    made = Synthetic([SyntheticModel("synthetic/a", seeds=(0, 1))], [clean_threat()])
    for cell, milliseconds in zip(made.manifest["cells"], (0.01, 0.03), strict=True):
        cell["inference_ms"] = milliseconds
    made.manifest["models"][0]["seeds"][1]["history"][3]["peak_memory_mb"] = 420.0
    cost = costs(made.results())[0]
    assert (cost.epochs, cost.epoch_seconds, cost.memory_mb) == (12, 3.25, 360)
    assert cost.inference_ms == pytest.approx(0.02)
    text = write_report(made.results(), tmp_path).read_text()
    row = text[text.index('id="cost"') :]
    assert row.index("3.2 s") < row.index("360") < row.index("0.02")


def test_outcomes_made_before_answers_were_timed_show_a_dash(quick: Results, page: str) -> None:
    assert all(cost.inference_ms is None for cost in costs(quick))
    assert 'id="cost"' in page


def test_plots_take_the_colours_of_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--ink)" in drawings
    assert "#010203" not in drawings
    assert "#000000" not in drawings


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


# -- hostile names ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile() -> Results:
    model = SyntheticModel(
        f"synthetic/{HOSTILE}",
        trainer=HOSTILE,
        network=HOSTILE,
        dataset={"name": HOSTILE},
        description=HOSTILE,
        published={HOSTILE: 0.5},
    )
    threats = [
        clean_threat(),
        attack_threat(HOSTILE, 0.1, 0.3, description=HOSTILE, surrogate=HOSTILE),
        attack_threat(f"{HOSTILE}@2", 0.2, 0.3, card=HOSTILE),
        attack_threat(f"{HOSTILE}@3", 0.1, 0.3, card=HOSTILE),
        corruption_threat(HOSTILE, 1, 0.1),
    ]
    failing = SyntheticModel(f"{HOSTILE}2", failed=((0, HOSTILE),))
    twin = SyntheticModel(f"{HOSTILE}3", trainer=f"{HOSTILE}3")
    made = Synthetic([model, failing, twin], threats, title=HOSTILE, description=HOSTILE)
    for cell in made.manifest["cells"]:
        if cell["status"] == "failed":
            cell["error"] = HOSTILE
    return made.results()


@pytest.fixture(scope="module")
def hostile_folder(hostile: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(hostile, tmp_path_factory.mktemp("hostile")).parent


def test_hostile_names_add_no_element_and_no_handler(hostile_folder: Path) -> None:
    text = (hostile_folder / "index.html").read_text()
    outline = Outline(text)
    assert outline.tags.count("script") == 2
    assert outline.handlers == []
    assert "49" not in "".join(re.findall(r"<h1>.*?</h1>", text))
    assert embedded_data(text)["models"][0]["name"].endswith("å" * 100)
    assert len(text.encode()) < 5_000_000


def test_hostile_names_do_nothing_to_the_index_of_a_site(hostile: Results, tmp_path: Path) -> None:
    index = write_site({"<b>'\"": hostile, "plain": hostile}, tmp_path)
    text = index.read_text()
    outline = Outline(text)
    assert {"script", "img", "b"}.isdisjoint(outline.tags)
    assert outline.handlers == []
    assert len(text) < 100_000, "names of any length are cut"
    pages = [link for link in outline.links if not link.startswith(("#", "data:"))]
    for link in pages:
        assert (tmp_path / unquote(link.split("#")[0])).is_file()
    assert len({link.split("#")[0] for link in pages}) == 2


def test_hostile_names_leave_csv_json_and_latex_readable(
    hostile: Results, hostile_folder: Path
) -> None:
    expected = list(leaderboard(hostile)["model"])
    assert list(pd.read_csv(hostile_folder / "leaderboard.csv")["model"]) == expected
    document = json.loads((hostile_folder / "leaderboard.json").read_text())
    assert [row["model"] for row in document["rows"]] == expected
    latex = (hostile_folder / "leaderboard.tex").read_text()
    assert r"\$x\_1\$\textbackslash{}" in latex
    assert r"\{\{7*7\}\}" in latex


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_name_that_a_spreadsheet_would_compute_is_text(sign: str, tmp_path: Path) -> None:
    name = f'{sign}HYPERLINK("http://x")'
    threats = [clean_threat(), attack_threat(name, 0.1, 0.3)]
    model = SyntheticModel(name, trainer=name, dataset={"name": name})
    results = Synthetic([model], threats, images=20).results()
    write_report(results, tmp_path)
    csv = pd.read_csv(tmp_path / "leaderboard.csv")
    assert csv.loc[0, ["model", "trainer", "dataset"]].tolist() == [f"'{name}"] * 3
    assert not [head for head in csv.columns if head.startswith(sign)]
    (row,) = json.loads((tmp_path / "leaderboard.json").read_text())["rows"]
    assert row["model"] == name


def test_embedded_json_cannot_end_its_script_element() -> None:
    text = embedded({"name": "</script><script>alert(1)</script><!-- \u2028"})
    assert "<" not in text
    assert json.loads(text)["name"].startswith("</script>")


# -- the tables -------------------------------------------------------------------------------


def test_csv_and_json_hold_the_leaderboard(quick: Results, folder: Path) -> None:
    table = leaderboard(quick)
    csv = pd.read_csv(folder / "leaderboard.csv")
    assert list(csv.columns) == list(table.columns)
    np.testing.assert_allclose(csv["worst_case_low"], table["worst_case_low"], rtol=1e-5)
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    assert [row["rank"] for row in rows] == table["rank"].tolist()
    assert rows[0]["worst_case"] == pytest.approx(table["worst_case"][0], rel=1e-5)


def test_parquet_holds_every_row_of_every_cell(quick: Results, folder: Path) -> None:
    table = pq.read_table(folder / "cells.parquet").to_pandas()
    assert len(table) == 200 * len(quick.manifest["cells"])
    digest = quick.manifest["cells"][0]["digest"]
    accuracy = table[table["cell"] == digest]["correct"].mean()
    assert accuracy == pytest.approx(np.mean(quick.rows[digest].column("correct")))


def test_json_and_latex_say_which_numbers_are_doubtful(small: Results, tmp_path: Path) -> None:
    alarm: Any = {"check": "zero gradients", "text": "30% of the images.", "next": "more"}
    verdicts: Any = {"synthetic/a": {"verdict": "doubtful", "alarms": [alarm], "findings": []}}
    write_report(small, tmp_path, verdicts=verdicts)
    (row,) = json.loads((tmp_path / "leaderboard.json").read_text())["rows"]
    assert (row["verdict"], row["alarms"]) == ("doubtful", ["zero gradients"])
    assert r"synthetic/a\textsuperscript{\dag}" in (tmp_path / "leaderboard.tex").read_text()
    write_report(small, tmp_path, verdicts={})
    assert r"\dag" not in (tmp_path / "leaderboard.tex").read_text()


def test_latex_has_a_line_for_each_model(folder: Path) -> None:
    lines = (folder / "leaderboard.tex").read_text().splitlines()
    rows = [line for line in lines if "synthetic/" in line and line.endswith(r"\\")]
    assert len(rows) == 5
    assert len({line.count("&") for line in rows}) == 1


# -- parts ------------------------------------------------------------------------------------


def test_png_decodes_to_the_pixels_it_was_given() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    data = png(pixels)
    size = int.from_bytes(data[33:37], "big")
    lines = zlib.decompress(data[41 : 41 + size])
    decoded = np.frombuffer(lines, np.uint8).reshape(5, 1 + 7 * 4)[:, 1:].reshape(5, 7, 4)
    assert (decoded == pixels).all()


def test_the_difference_is_magnified_to_fill_the_range() -> None:
    clean = np.full((1, 2, 2, 1), 100, np.uint8)
    moved = clean.copy()
    moved[0, 0, 0] += 10
    shown, factor = difference(moved, clean)
    assert factor == 13
    assert shown[0, 0, 0, 0] > 250
    assert shown[0, 1, 1, 0] == 127


def test_an_unperturbed_image_differs_by_plain_grey() -> None:
    clean = np.full((1, 2, 2, 1), 100, np.uint8)
    shown, factor = difference(clean, clean)
    assert (factor, set(np.unique(shown))) == (1.0, {127})


def test_a_strip_keeps_the_place_of_a_missing_image() -> None:
    tile = np.zeros((4, 4, 1), np.uint8)
    made = strip("fog", [tile, None, tile])
    assert made is not None
    assert made.tiles == 3


def test_long_training_curves_are_thinned_and_keep_their_end() -> None:
    history = [{"epoch": float(i), "loss": 1 / i, "seconds": 3.0} for i in range(1, 501)]
    thin = curves(history)
    assert len(thin["loss"]) <= 60
    assert thin["epoch"][-1] == 500
    assert "seconds" not in thin


def test_the_runs_of_an_attack_are_told_apart() -> None:
    trace = {"loss_trace": [0.1, 0.2, 0.3, 0.1, 0.4], "loss_runs": [0, 3]}
    assert runs(trace) == [[0.1, 0.2, 0.3], [0.1, 0.4]]
    assert runs({"loss_trace": [0.1, 0.2]}) == [[0.1, 0.2]]


def test_a_loss_that_is_not_finite_becomes_a_gap() -> None:
    assert curves([{"epoch": 1.0, "loss": math.nan}])["loss"] == [None]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.4 s"), (12.2, "12 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")],
)
def test_times_are_written_for_people(value: float, text: str) -> None:
    assert seconds(value) == text


def test_the_page_is_opened_when_asked_for(
    small: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    page = write_report(small, tmp_path / "reports/synthetic")
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    asked = ["report", "synthetic", "-w", str(tmp_path)]
    for more, expected in (([], []), (["--open"], [str(page)])):
        done = CliRunner().invoke(app, [*asked, *more])
        assert done.exit_code == 0, done.output
        assert opened == expected


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
    assert '"classes":{"0":' in write_report(results, tmp_path).read_text()
