"""What a run of many cells asks of the store and keeps: it may not grow where it need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import carry_out, outcomes

from robench.digest import Written, canonical
from robench.make import identity
from robench.make.workers import Inline
from robench.store.outcomes import TOGETHER, Outcomes, Tables
from robench.store.store import Outcome, Store
from robench.workspace.folders import Workspace, open_workspace

Write = Callable[[str, str], Path]


@pytest.fixture
def many(small: Workspace, write: Write) -> Workspace:
    """Four models and eight threats, two of them corruptions that the models share."""
    text = (small.root / "models/small.toml").read_text()
    write("models/small.toml", text.replace("epochs = 3", "epochs = 1") + "seeds = [0, 1, 2, 3]\n")
    for number in range(5):
        write(
            f"attacks/a{number}.toml",
            f'attack = "fgsm"\naccess = "white-box"\neps = 0.0{number + 1}\n',
        )
    write(
        "corruptions/c.toml",
        'corruption = { name = "imagenet-c", kinds = ["contrast"] }\nseverities = [1, 2]\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["a*"]\ncorruptions = ["c"]\nimages = 20\n'
        "diagnostics = false\n",
    )
    return open_workspace(small.root)


def test_a_resume_lists_the_store_once_and_reads_no_cell_before_its_first_task(
    many: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(many)
    missing = run.digests[run.plan.cells[-1]]
    next(Path(run.store.url).rglob(f"{missing}.parquet")).unlink()
    asked: list[str] = []

    def listen(name: str) -> None:
        original = getattr(Store, name)

        def heard(store: Store, *arguments: Any) -> Any:
            asked.append(f"has {arguments[0]}" if name == "has" else name)
            return original(store, *arguments)

        monkeypatch.setattr(Store, name, heard)

    for name in ("cells", "has", "read_inputs", "read_cell", "read_model"):
        listen(name)
    at_the_first: list[Counter[str]] = []
    submit = Inline.submit

    def first(pool: Inline, task: Any) -> Any:
        at_the_first.append(Counter(asked))
        return submit(pool, task)

    monkeypatch.setattr(Inline, "submit", first)
    again, ears = carry_out(many)
    assert ears.done == [run.plan.cells[-1].label]
    there = {"has models": 4, "has inputs": 1, "has cells": 2}
    assert at_the_first == [Counter(there, cells=1, read_model=4)]
    assert Counter(asked)["read_cell"] == len(run.plan.cells), "each once, for the page"
    monkeypatch.undo()
    assert outcomes(again) == outcomes(run)


def test_what_many_cells_share_is_written_out_once(
    many: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(many)
    made: Counter[str] = Counter()
    for name in ("threat_fields", "_origin"):
        original = getattr(identity, name)

        def counted(*arguments: Any, name: str = name, original: Any = original) -> Any:
            made[name] += 1
            return original(*arguments)

        monkeypatch.setattr(identity, name, counted)
    run, _ = carry_out(many)
    threats = len(run.plan.threats)
    assert made["_origin"] == 2
    assert made["threat_fields"] == 2 * threats, "once to check the cards, once for all models"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(st.dictionaries(st.text(), PLAIN), st.dictionaries(st.text(), PLAIN))
def test_a_part_that_is_written_once_leaves_the_text_as_it_was(
    part: dict[str, Any], rest: dict[str, Any]
) -> None:
    assert canonical({**rest, "part": Written(part)}) == canonical({**rest, "part": part})


def test_packed_rows_are_those_that_were_put_in() -> None:
    outcomes, cells = Outcomes(), 2 * TOGETHER + 3
    schema = pa.schema({"image": pa.int32(), "label": pa.int16()})
    for number in range(cells):
        count = number % 5
        rows = pa.table({"image": list(range(count)), "label": [number] * count}, schema)
        noted = {"environment": {"device": "cpu"}, "seconds": number}
        outcomes.add(str(number), Outcome(rows, {}, noted))
        if number == 7:
            assert outcomes.rows["7"].equals(rows), "also while more are added"
    assert list(outcomes.rows) == [str(number) for number in range(cells)]
    for number in (0, 1, 7, 8, TOGETHER, cells - 1):
        assert outcomes.rows[str(number)]["label"].to_pylist() == [number] * (number % 5)
    assert len(outcomes.rows.whole()) == sum(outcomes.rows.lengths())
    environments = {id(noted["environment"]) for noted in outcomes.provenance.values()}
    assert len(environments) == 1
    assert len(outcomes.rows._packed) == 3, "the first eight were asked for early"


def test_rows_of_other_columns_are_kept_apart() -> None:
    tables = Tables()
    tables.add("a", pa.table({"image": [1]}))
    tables.add("b", pa.table({"image": [1.5], "label": [2]}))
    assert tables["b"].column_names == ["image", "label"]
    assert tables["a"]["image"].to_pylist() == [1]
