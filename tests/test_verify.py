"""Stored cells made again: the same bits here, within rounding on another kind of processor."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from command_line import robench
from small_runs import carry_out

from robench.errors import RobenchError
from robench.make import verify as module
from robench.make.provenance import environment
from robench.make.scoring import score_slice
from robench.make.verify import Verified, differences, verify
from robench.store.store import Store
from robench.workspace.folders import Workspace

IMAGES = 40  # of the small report


def turned(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the code gives another outcome for so many images of each cell."""

    def other(*arguments: Any, **settings: Any) -> Any:
        rows, seen = score_slice(*arguments, **settings)
        correct = rows["correct"].to_pylist()
        changed = [1 - value for value in correct[:images]] + correct[images:]
        place = rows.column_names.index("correct")
        return rows.set_column(place, "correct", pa.array(changed, pa.float32())), seen

    monkeypatch.setattr("robench.make.cell_network.score_slice", other)


def elsewhere(monkeypatch: pytest.MonkeyPatch, **other: str | None) -> None:
    """From now on this is another machine than the one that the stored cells were made on."""
    here = environment("cpu") | other
    monkeypatch.setattr(module, "environment", lambda device: here)


def test_cells_made_again_have_the_same_bits(small: Workspace) -> None:
    run, _ = carry_out(small)
    found = list(verify(small, "small", run.store, 3))
    assert [cell.said for cell in found] == ["same bits"] * 3
    assert len({cell.digest for cell in found}) == 3


def test_what_the_code_no_longer_gives_is_different(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry_out(small)
    turned(3, monkeypatch)
    for cell in verify(small, "small", run.store, 3):
        assert cell.failed
        assert cell.said == f"DIFFERENT: 3 of {IMAGES} images changed their outcome"


@pytest.mark.parametrize(
    "other", [{"processor": "another"}, {"capability": "NONE"}, {"torch": "2.6.0"}]
)
def test_elsewhere_outcomes_are_compared_within_rounding(
    small: Workspace, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    run, _ = carry_out(small)
    elsewhere(monkeypatch, **other)
    assert [cell.said for cell in verify(small, "small", run.store, 3)] == ["same bits"] * 3
    turned(1, monkeypatch)
    [(key, value)] = other.items()
    for cell in verify(small, "small", run.store, 3):
        assert not cell.failed
        assert cell.said.startswith(
            f"other processor: compared within rounding: 1 of {IMAGES} images changed their outcome"
        )
        assert f"{key} {environment('cpu')[key]} there, {value} here" in cell.said
    turned(5, monkeypatch)
    for cell in verify(small, "small", run.store, 3):
        assert cell.failed, "rounding does not turn one image of eight"
        assert "MORE THAN ROUNDING: 5 of" in cell.said


def test_a_cell_made_before_capabilities_were_noted_may_be_from_elsewhere() -> None:
    here = environment("cpu")
    there = {key: value for key, value in here.items() if key != "capability"}
    assert differences(there, here) == f"capability unknown there, {here['capability']} here"
    assert not differences(here, here)


def test_another_device_draws_other_numbers_and_promises_nothing() -> None:
    found = Verified("a", "b", False, 30, IMAGES, other_device=True, elsewhere="device cuda there")
    assert not found.failed
    assert found.said.startswith("other device, which draws other numbers: 30 of 40 images")


def test_the_capability_of_the_processor_is_provenance(small: Workspace) -> None:
    run, _ = carry_out(small)
    noted = run.store.read_cell(next(iter(run.digests.values()))).provenance["environment"]
    assert noted["capability"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.slow
def test_plainer_vector_code_on_the_same_machine_is_another_processor(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: the cells are made again by torch's plainest code."""
    run, _ = carry_out(small)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    folder = ("--workspace", str(small.root), "--store", run.store.url)
    done = robench("verify", "small", "--cells", "3", *folder)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.endswith("same bits") or "capability" in line.partition("rounding:")[2]


def test_verify_needs_finished_cells(small: Workspace) -> None:
    with pytest.raises(RobenchError, match="no finished cells"):
        list(verify(small, "small", Store(small.root / ".robench"), 3))
