"""A published folder is light: what it leaves out, what it still says, and that it is not believed
unseen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from robench.errors import RobenchError
from robench.show.claims import judge
from robench.show.diagnostics.verdicts import diagnose
from robench.show.leaderboard import leaderboard
from robench.show.packed.manifest_text import as_text, opened
from robench.show.packed.pack import lean, unpacked
from robench.show.packed.rows import pack_rows, unpack_rows
from robench.show.report.folder import write_report
from robench.show.report.measurements import measurements
from robench.show.results import Results, load_published
from robench.store.seal import sealed

quick, small, folder = pages.quick, pages.small, pages.folder  # fixtures

REPORTS = Path(__file__).parent.parent / "reports"


def test_all_published_reports_together_are_light() -> None:
    """A clone is most of what setting up takes. What README's first command makes is no part of
    one."""
    files = [path.relative_to(REPORTS) for path in REPORTS.rglob("*") if path.is_file()]
    files = [file for file in files if file.parts[0] != "quickstart"]
    found = [(REPORTS / file).stat().st_size for file in files]
    if len(found) < 20:
        pytest.skip("no published reports here: they are not part of a package")
    assert sum(found) < 25e6
    by_page = Counter[str]()
    for file, size in zip(files, found, strict=True):
        by_page[file.parts[0]] += size
    assert not [page for page, size in by_page.items() if size > 4e6]


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
    other = pc.add(table.column("label"), 1)
    pq.write_table(
        table.set_column(place, "label", other).cast(table.schema), tmp_path / "cells.parquet"
    )
    (tmp_path / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    with pytest.raises(RobenchError, match="are not those that"):
        load_published(tmp_path)


def test_a_digest_that_was_changed_with_the_rows_breaks_the_seal(
    folder: Path, tmp_path: Path
) -> None:
    manifest = opened(json.loads((folder / "manifest.json").read_text()))
    manifest["cells"]["rows"][0] = "0" * 64
    (tmp_path / "manifest.json").write_text(as_text(manifest))
    (tmp_path / "cells.parquet").write_bytes((folder / "cells.parquet").read_bytes())
    with pytest.raises(RobenchError, match="seal"):
        load_published(tmp_path)


def test_what_people_read_of_a_manifest_is_no_block(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    said = json.loads(text)
    assert {"cells", "inputs"}.isdisjoint(said)
    assert not [seed for model in said["models"] for seed in model["seeds"] if seed.get("history")]
    assert [model["card"] for model in said["models"]]
    assert as_text(opened(said)) == text
    assert len(text) < len(json.dumps(opened(said)))


def test_a_folder_of_before_blocks_is_read_and_is_the_same(folder: Path, tmp_path: Path) -> None:
    whole = {**opened(json.loads((folder / "manifest.json").read_text())), "schema": 4}
    del whole["seal"]
    (tmp_path / "manifest.json").write_text(json.dumps(sealed(whole)))
    (tmp_path / "cells.parquet").write_bytes((folder / "cells.parquet").read_bytes())
    page = write_report(load_published(tmp_path), tmp_path)
    assert page.read_bytes() == (folder / "index.html").read_bytes()
    assert page.with_name("manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 10**12},
        {"bytes": 7},
        {"bytes": -1},
        {"bytes": "many"},
        {"bytes": None},
        {"zstd": "no base64!"},
        {"zstd": "KLUv/SAA"},
        {"zstd": None},
    ],
    ids=str,
)
def test_a_block_that_does_not_open_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(said | change))
    (tmp_path / "cells.parquet").write_bytes((folder / "cells.parquet").read_bytes())
    with pytest.raises(RobenchError, match="not a published report"):
        load_published(tmp_path)


def test_training_curves_come_back_as_they_were() -> None:
    packed = {"models": [{"seeds": [{"history": {"epoch": [1, 2], "loss": [0.5, None]}}]}]}
    [epoch, last] = unpacked(packed)["models"][0]["seeds"][0]["history"]
    assert (epoch, last) == ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None})


def cells(*shapes: tuple[int, int], classes: tuple[int, int], correct: float | None) -> pa.Table:
    """Cells of so many images and draws, with other labels from cell to cell."""
    rng, tables = np.random.default_rng(0), []
    for number, (images, draws) in enumerate(shapes):
        labels = (np.arange(images) + number // 2) % 3
        answers = np.where(
            rng.random((images, draws)) < 0.7,
            labels[:, None],
            rng.integers(*classes, (images, draws)),
        )
        shares = (answers == labels[:, None]).mean(1, dtype=np.float32)
        shares = shares if correct is None else np.full(images, correct, np.float32)
        tables.append(
            pa.table(
                {
                    "image": pa.array(np.arange(images)[::-1], pa.int32()),
                    "label": pa.array(labels, pa.int16()),
                    "correct": shares,
                    "predictions": pa.array(
                        answers.tolist(), pa.list_(pa.field("element", pa.int16()))
                    ),
                }
            )
        )
    return pa.concat_tables(tables).combine_chunks()


@pytest.mark.parametrize("classes", [(0, 10), (-1, 10), (0, 300)])
@pytest.mark.parametrize("correct", [None, 0.3], ids=["as answered", "by another rule"])
def test_rows_come_back_to_the_bit(classes: tuple[int, int], correct: float | None) -> None:
    shapes = [(7, 16), (7, 16), (7, 16), (5, 1), (5, 1), (5, 9), (5, 9)]
    whole = cells(*shapes, classes=classes, correct=correct)
    ends = np.cumsum([images for images, _ in shapes]).tolist()
    places = list(zip([0, *ends], ends, strict=False))
    packed = pack_rows(whole, places, ["a", "a", "b", "b", "b", "b", "b"])
    assert packed.column("wrong").null_count == len(whole) - 4, "a value for each run"
    assert (packed.column("correct").null_count == len(whole)) == (correct is None)
    found = unpack_rows(packed, places)
    assert found.select(whole.column_names).equals(whole)


@pytest.mark.parametrize("column", ["wrong", "right", "draws"])
def test_rows_whose_columns_do_not_go_together_are_refused(column: str) -> None:
    whole = cells((7, 16), (7, 16), classes=(0, 10), correct=None)
    places = [(0, 7), (7, 14)]
    packed = pack_rows(whole, places, ["a", "a"])
    place, values = packed.column_names.index(column), packed.column(column).to_pylist()
    values[0] = values[0] + 1 if column == "draws" else values[0] + b"0"
    other = packed.set_column(place, column, pa.array(values, packed.schema.field(column).type))
    with pytest.raises(ValueError, match="column"):
        unpack_rows(other, places)


def test_a_numbers_name_may_be_missing_in_some_epochs() -> None:
    history = [{"epoch": 1, "area/own": 0.5}, {"epoch": 2}]
    seed: dict[str, Any] = {"seed": 0, "history": history}
    made = lean({"models": [{"seeds": [seed]}], "cells": []})
    assert isinstance(made["models"][0]["seeds"][0]["history"], dict)
    assert unpacked(made)["models"][0]["seeds"][0]["history"] == history
