"""The performance page says what was recorded, in ratios to robench, and what was not measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parent / "benchmarks" / "performance.py"
RECORDED = Path(__file__).parents[1] / "reports" / "performance" / "results.json"


@pytest.fixture(scope="module")
def performance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("performance_page", FILE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def table(**sides: float) -> dict[str, Any]:
    rows = [{"side": side, "ms": ms, "ratio": 0.0, "note": ""} for side, ms in sides.items()]
    return {"about": "", "rows": rows, "test": "t", "machine": "m"}


def test_a_ratio_is_a_time_divided_by_robenchs(performance: ModuleType) -> None:
    tables = {"PGD, 15 steps, cnn": table(robench=10.0, foolbox=25.0, art=5.0)}
    beside = performance.questions(tables)[0]
    known = {bar.side: bar.ratio for bar in beside.bars if bar.ratio is not None}
    assert known == {"foolbox": 2.5, "art": 0.5}
    assert beside.sentence.startswith("In 1 of 2 comparisons the other library takes longer")
    assert performance.reference("PGD", tables["PGD, 15 steps, cnn"]["rows"]) == 10.0
    assert performance.reference("EOT", table(a=1.0)["rows"]) is None


def test_what_was_not_measured_says_so(performance: ModuleType, tmp_path: Path) -> None:
    assert {one.sentence for one in performance.questions({})} == {"Not measured."}
    performance.write_page(tmp_path, {"PGD, 15 steps, cnn": table(robench=10.0, foolbox=25.0)})
    page = (tmp_path / "index.html").read_text()
    assert "2.50" in page
    assert page.count("not measured") > 10
    assert json.loads((tmp_path / "results.json").read_text())["PGD, 15 steps, cnn"]


def test_the_published_page_is_of_what_is_recorded(performance: ModuleType, tmp_path: Path) -> None:
    performance.write_page(tmp_path, json.loads(RECORDED.read_text()))
    told = json.loads((tmp_path / "about.json").read_text())
    assert told == json.loads(RECORDED.with_name("about.json").read_text())
    assert "Not measured." not in told["headline"]


def test_time_that_grows_as_the_work_does_is_said_so(performance: ModuleType) -> None:
    rows = {"1 draws": 10.0, "4 draws": 40.0}
    growth = performance.questions({"EOT, one gradient, cnn": table(**rows)})[3]
    assert growth.sentence.startswith("A gradient of 4 times as many draws takes 4 times as long")
