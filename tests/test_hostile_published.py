"""Published folders from strangers, damaged or changed: the page is rebuilt and no text on it is
code, or one error names what is wrong.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged_files import HOW, damage
from hostile import JSON, changed, files_in, put, works_or_says
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Outline
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, corruption_threat

from robench.show.packed.manifest_text import opened
from robench.show.report.folder import write_report
from robench.show.results import Results, load_published

alone = hostile.alone  # a fixture

MARK = "<script>alert(1)</script><img src=x onerror=alert(1)>"
PAGE_VALUES = st.one_of(JSON, st.just(MARK), st.sampled_from(["clean", "done", "attack", "curve"]))


@pytest.fixture(scope="module")
def page() -> Results:
    """A report with all that a page may show, of few images."""
    threats = [
        clean_threat(),
        attack_threat("fgsm", 0.1, 0.3),
        attack_threat("random-sign", 0.1, 0.1, role="floor"),
        attack_threat("curve@0.1", 0.1, 0.3, role="curve"),
        attack_threat("curve@0.2", 0.2, 0.5, role="curve"),
        attack_threat("moved", 0.1, 0.2, access="transfer", surrogate="a/one"),
        corruption_threat("fog", 1, 0.1),
        corruption_threat("fog", 2, 0.2),
    ]
    models = [
        SyntheticModel("a/one", published={"clean": 0.9}, failed=((0, "moved"),)),
        SyntheticModel("a/two", trainer="nit", network="snn", noisy=True, seeds=(0, 1)),
    ]
    claim = {"text": "t", "model": "a/one", "than": "a/two", "threat": "fgsm", "control": None}
    claims = [{**claim, "published": [0.8, 0.4], "strong": "worst case"}]
    return Synthetic(models, threats, images=12, claims=claims, baselines=["a/two"]).results()


@pytest.fixture(scope="module")
def published(page: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The two files that a page is made of, and what is beside them."""
    return files_in(write_report(page, tmp_path_factory.mktemp("published")).parent)


def rebuilt(alone: Path, files: dict[str, bytes]) -> None:
    """The folder is read and its page built: one error, or a page on which no text is code."""
    put(alone / "data", files)
    made = works_or_says(
        lambda: write_report(load_published(alone / "data"), alone / "made"), "/data|/made"
    )
    if made is not None:
        outline = Outline(made.read_text())
        assert outline.tags.count("script") == 2
        assert outline.handlers == []
        assert not [link for link in outline.links if link.startswith("javascript")]
        shutil.rmtree(alone / "made")


def test_the_report_as_it_is_can_be_rebuilt(alone: Path, published: dict[str, bytes]) -> None:
    put(alone / "data", published)
    made = write_report(load_published(alone / "data"), alone / "made")
    assert made.read_bytes() == published["index.html"]


@given(
    name=st.sampled_from(["manifest.json", "cells.parquet"]),
    how=HOW,
    data=st.data(),
    value=st.integers(0, 255),
)
def test_a_damaged_report_is_rebuilt_or_named(
    alone: Path, published: dict[str, bytes], name: str, how: str, data: st.DataObject, value: int
) -> None:
    size = len(published[name])
    where = data.draw(st.one_of(st.integers(0, size), st.integers(max(0, size - 2000), size)))
    rebuilt(alone, {**published, name: damage(published[name], how, where, value)})


@given(data=st.data())
def test_a_manifest_may_say_anything(
    alone: Path, published: dict[str, bytes], data: st.DataObject
) -> None:
    whole = opened(json.loads(published["manifest.json"]))
    manifest = data.draw(changed(whole, PAGE_VALUES))
    rebuilt(alone, {**published, "manifest.json": json.dumps(manifest).encode()})


@given(manifest=JSON)
def test_a_manifest_that_is_something_else_is_named(
    alone: Path, published: dict[str, bytes], manifest: Any
) -> None:
    rebuilt(alone, {**published, "manifest.json": json.dumps(manifest).encode()})


@settings(max_examples=settings.default.max_examples // 3)  # most are drawn, a page each
@given(data=st.data())
def test_rows_may_hold_anything(
    alone: Path, published: dict[str, bytes], data: st.DataObject
) -> None:
    table = pq.read_table(pa.BufferReader(published["cells.parquet"]))
    for _ in range(data.draw(st.integers(1, 2))):
        table = data.draw(with_other_column(table))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    rebuilt(alone, {**published, "cells.parquet": sink.getvalue().to_pybytes()})


@st.composite
def with_other_column(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """A column is dropped, or holds something else in all or in some of its rows."""
    name = draw(st.sampled_from(table.column_names))
    place, rows = table.column_names.index(name), len(table)
    match draw(st.sampled_from(["dropped", "nulls", "other", "some", "cut"])):
        case "dropped":
            return table.drop_columns([name])
        case "nulls":
            return table.set_column(place, name, pa.nulls(rows, table.schema.field(name).type))
        case "other":
            other = draw(
                st.sampled_from([0, -1, 2**40, 0.5, float("nan"), "x", b"x", [1], [], None])
            )
            return table.set_column(place, name, pa.array([other] * rows))
        case "some":
            values = table.column(name).to_pylist()
            values[draw(st.integers(0, rows - 1))] = draw(
                st.sampled_from(
                    [None, values[-1], [] if isinstance(values[0], list) else values[0]]
                )
            )
            return table.set_column(place, name, pa.array(values, table.schema.field(name).type))
        case _:
            return table.slice(draw(st.integers(0, rows)), draw(st.integers(0, rows)))
