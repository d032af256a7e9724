"""The published folder: what it holds, that it rebuilds to the byte, and what its tables say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pages import FILES
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
)
from typer.testing import CliRunner

from robench.cli import app
from robench.errors import RobenchError
from robench.show.leaderboard import leaderboard
from robench.show.packed.pack import published
from robench.show.report.folder import write_report
from robench.show.report.tables import as_latex
from robench.show.results import Results, load_published, load_results
from robench.store.store import Store
from robench.workspace.folders import FOLDERS

quick, small, folder = pages.quick, pages.small, pages.folder  # fixtures


def test_a_report_is_six_files_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_writing_again_touches_nothing(quick: Results, folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_report(quick, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_second_process_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """With another hash seed: no set and no clock decides what a file says."""
    script = (
        "import sys; from pathlib import Path; from robench.show.report.folder import write_report;"
        "from robench.show.results import load_published;"
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


@pytest.mark.usefixtures("undrawn")
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
        "import sys, robench.show.report, robench.show.leaderboard, robench.show.report.page;"
        "heavy = {'torch', 'foolbox', 'art', 'robench.workspace.plugins'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("undrawn")
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


# -- the tables ------------------------------------------------------------------------------------


def test_csv_and_json_hold_the_leaderboard(quick: Results, folder: Path) -> None:
    table = leaderboard(quick)
    csv = pd.read_csv(folder / "leaderboard.csv")
    assert list(csv.columns) == [*table.columns, "verdict", "alarms"]
    long = pd.read_csv(folder / "accuracies.csv").set_index(["model", "threat"])["accuracy"]
    first = table.iloc[0]
    assert long[first["model"], "fgsm"] == pytest.approx(first["fgsm"], rel=1e-5)
    np.testing.assert_allclose(csv["worst_case_low"], table["worst_case_low"], rtol=1e-5)
    rows = json.loads((folder / "leaderboard.json").read_text())["rows"]
    assert [row["rank"] for row in rows] == table["rank"].tolist()
    assert rows[0]["worst_case"] == pytest.approx(table["worst_case"][0], rel=1e-5)


def test_parquet_holds_every_row_of_every_cell(quick: Results, folder: Path) -> None:
    table = pq.read_table(folder / "cells.parquet").to_pandas()
    assert len(table) == 200 * len(quick.manifest["cells"])
    digest = quick.manifest["cells"][0]["digest"]
    rows = table[table["cell"] == digest]
    bits = sum(byte.bit_count() for right in rows["right"] for byte in right)
    accuracy = bits / rows["draws"].sum()
    assert accuracy == pytest.approx(np.mean(quick.rows[digest].column("correct")))


def test_the_order_in_which_cells_were_done_does_not_show(quick: Results) -> None:
    later = Results(quick.manifest, dict(reversed(list(quick.rows.items()))))
    manifest, rows = published(later.manifest, later.rows, {})
    assert (manifest, rows) == published(quick.manifest, quick.rows, {})


@pytest.mark.usefixtures("undrawn")
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
    rows = [line for line in lines if "&" in line]
    assert len(rows) == 1 + 5
    assert "% models of synthetic/" in lines
    assert len({line.count("&") for line in rows}) == 1


def width_in_points(table: str) -> float:
    """Of a table at 8 pt: letters of 4.25 pt, in tiny 3.4 pt, 12 pt between columns."""

    def cell(text: str) -> float:
        bare, tiny = re.subn(r" \{\\tiny [^}]*\}", "", text)
        bare = re.sub(r"\\textsuperscript\{[^}]*\}", "+", bare).replace("\\", "").strip()
        return 4.25 * len(bare) + (4.25 + 3.4 * len("99.9--99.9")) * tiny

    rows = [line.removesuffix(r" \\").split(" & ") for line in table.splitlines() if "&" in line]
    widths = [max(map(cell, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + 12 * (len(widths) - 1)


@pytest.mark.parametrize("name", ["lr-graphs", "nit-mlp"])
def test_latex_fits_a_column_of_a_paper(name: str) -> None:
    results = load_published(Path(__file__).parents[1] / "reports" / name)
    text = as_latex(results, leaderboard(results))
    (head,) = (line for line in text.splitlines() if line.startswith("model &"))
    assert set(head.removesuffix(r" \\").split(" & ")[1:]) <= {
        "clean", "worst case", "proved", "average",
    }  # fmt: skip
    assert 100 < width_in_points(text) < 252, "a column of IEEE's two"
