"""A published folder is light: what it leaves out, what it still says, and that it is not believed
unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pages
import pyarrow.parquet as pq
import pytest

from robench.claims import judge
from robench.diagnostics.verdicts import diagnose
from robench.errors import RobenchError
from robench.leaderboard import leaderboard
from robench.packed import unpacked
from robench.report.measurements import measurements
from robench.results import Results, load_published

quick, small, folder = pages.quick, pages.small, pages.folder  # fixtures

REPORTS = Path(__file__).parent.parent / "reports"


def test_all_published_reports_together_are_light() -> None:
    """A clone is most of what setting up takes. What README's first command makes is no part of
    one."""
    files = [path.relative_to(REPORTS) for path in REPORTS.rglob("*") if path.is_file()]
    found = [(REPORTS / file).stat().st_size for file in files if file.parts[0] != "quickstart"]
    if len(found) < 20:
        pytest.skip("no published reports here: they are not part of a package")
    assert sum(found) < 25e6


def test_what_a_page_concludes_is_the_same_from_a_light_folder(
    quick: Results, folder: Path
) -> None:
    light = load_published(folder)
    assert leaderboard(light).equals(leaderboard(quick))
    assert diagnose(light) == diagnose(quick)
    assert judge(light) == judge(quick)


def test_costs_are_means_over_images_in_the_manifest(quick: Results, folder: Path) -> None:
    light = load_published(folder)
    model, name = quick.models[0], quick.attacks[0]["name"]
    one, two = (measurements(results, model, name) for results in (quick, light))
    assert one.queries is not None
    assert two == one
    assert "queries" not in pq.read_schema(folder / "cells.parquet").names


def test_pictures_are_kept_where_the_page_shows_them(folder: Path) -> None:
    light = load_published(folder)
    with_pictures = {
        name for name, rows in light.rows.items() if rows.column("input").null_count < len(rows)
    }
    clean = {light.cell(m["name"], m["seeds"][0]["seed"], "clean")["digest"] for m in light.models}  # type: ignore[index]
    assert clean <= with_pictures
    assert len(with_pictures) < len(light.rows)


def test_rows_that_were_changed_are_not_believed(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "cells.parquet")
    place = table.column_names.index("label")
    other = table.column("label").to_numpy() ^ 1
    pq.write_table(
        table.set_column(place, "label", [other]).cast(table.schema), tmp_path / "cells.parquet"
    )
    (tmp_path / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    with pytest.raises(RobenchError, match="are not those that"):
        load_published(tmp_path)


def test_a_digest_that_was_changed_with_the_rows_breaks_the_seal(
    folder: Path, tmp_path: Path
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["cells"][0]["rows"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "cells.parquet").write_bytes((folder / "cells.parquet").read_bytes())
    with pytest.raises(RobenchError, match="seal"):
        load_published(tmp_path)


def test_training_curves_come_back_as_they_were() -> None:
    packed = {"models": [{"seeds": [{"history": {"epoch": [1, 2], "loss": [0.5, None]}}]}]}
    [epoch, last] = unpacked(packed)["models"][0]["seeds"][0]["history"]
    assert (epoch, last) == ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None})
