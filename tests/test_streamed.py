"""Corrupted images that are made while they are used: the same bits, and none of them kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import carry_out, outcomes

import robench.corruptions.streamed
import robench.make.tasks
from robench.corruptions.streamed import Streamed
from robench.data.base import Part
from robench.data.pictures import Pictures
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.run_state import Run
from robench.make.verify import verify
from robench.show.images import export, read_images
from robench.show.results import Results, load_results
from robench.store.store import Store
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
NATURE = """
corruption = {{ name = "imagenet-c", small = "scale", kinds = ["fog", "gaussian_noise"] }}
severities = [1, 4]
keep = {keep}
"""
REPORT = """
title = "Nature"
models = ["small"]
corruptions = ["nature"]
images = 40
batch_size = 16
diagnostics = false
"""


@pytest.fixture
def nature(small: Workspace, write: Write) -> Workspace:
    write("reports/small.toml", REPORT)
    write("corruptions/nature.toml", NATURE.format(keep="false"))
    return small


def inputs(workspace: Workspace) -> list[Path]:
    return list((workspace.root / ".robench/inputs").glob("*"))


def test_they_are_not_kept_and_change_no_identity_and_no_number(
    nature: Workspace, write: Write
) -> None:
    streamed, ears = carry_out(nature)
    assert inputs(nature) == []
    assert not any("make" in label for label in ears.done)
    (nature.root / ".robench").rename(nature.root / "before")
    write("corruptions/nature.toml", NATURE.format(keep="true"))
    kept, _ = carry_out(nature)
    assert len(inputs(nature)) == 4
    assert list(kept.digests.values()) == list(streamed.digests.values())
    assert outcomes(kept) == outcomes(streamed)


def test_what_is_kept_already_is_used(
    nature: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("corruptions/nature.toml", NATURE.format(keep="true"))
    carry_out(nature)
    write("corruptions/nature.toml", NATURE.format(keep="false"))
    for cell in (nature.root / ".robench/cells").rglob("*.parquet"):
        cell.unlink()

    def never(*asked: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(robench.make.tasks, "corrupt_images", never)
    _, ears = carry_out(nature)
    assert ears.failed == {}
    assert len(ears.done) == 5


def test_they_are_made_a_batch_at_a_time(
    nature: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = robench.make.tasks.corrupt_images

    def noted(corruption: object, images: np.ndarray, *more: object) -> np.ndarray:
        sizes.append(len(images))
        return real(corruption, images, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(robench.make.tasks, "corrupt_images", noted)
    carry_out(nature)
    assert sizes == [16, 16, 8] * 4


def test_a_batch_is_given_up_before_the_next_is_made(
    nature: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    real = Streamed.__getitem__

    def noted(self: Streamed, items: slice) -> np.ndarray:
        assert [ref for ref in made if ref() is not None] == []
        answer = real(self, items)
        made.append(weakref.ref(answer))
        return answer

    monkeypatch.setattr(Streamed, "__getitem__", noted)
    _, ears = carry_out(nature)
    assert ears.failed == {}
    assert len(made) == 3 * 4


def test_of_large_pictures_some_of_a_batch_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.arange(11, dtype=np.float32)[:, None, None, None].repeat(4, axis=2)
    part = Part(images, np.arange(11), np.arange(11)[::-1])
    asked: list[tuple[list[int], list[int], int]] = []

    def make(some: Part, first: int) -> np.ndarray:
        assert some.numbers is not None
        asked.append((some.labels.tolist(), some.numbers.tolist(), first))
        return np.asarray(some.images) + 100

    streamed = Streamed(part, 30, make)
    at_once = streamed[2:11]
    monkeypatch.setattr(robench.corruptions.streamed, "AT_ONCE", 4 * 4 * 4)
    assert np.array_equal(streamed[2:11], at_once)
    assert np.array_equal(streamed.whole(6), images + 100)
    assert streamed[3:3].shape == (0, 1, 4, 1)
    assert asked[0] == (list(range(2, 11)), list(range(8, -1, -1)), 32)
    assert [(len(labels), first) for labels, _, first in asked[1:4]] == [(4, 32), (4, 36), (1, 40)]


def test_a_failure_of_the_corruption_is_the_cell_s(nature: Workspace, write: Write) -> None:
    write(
        "corruptions/bad.py",
        "from robench import Corruption\n\nclass Bad(Corruption):\n    kinds: tuple[str, ...] = "
        '("dark",)\n    def corrupt(self, image, kind, severity, rng):\n        return image * 9\n',
    )
    write(
        "corruptions/nature.toml", 'corruption = "./bad.py:Bad"\nseverities = [1]\nkeep = false\n'
    )
    _, ears = carry_out(nature)
    (failure,) = ears.failed.values()
    assert list(ears.failed) == ["small seed 0 x nature/dark/1"]
    assert "the answer goes from 0 to 9, not from 0 to 1" in failure.message


def test_verify_makes_them_again(nature: Workspace) -> None:
    carry_out(nature)
    found = list(verify(nature, "small", Store(nature.root / ".robench"), 5))
    assert [one.said for one in found] == ["same bits"] * 5


def results(run: Run) -> Results:
    run.store.write_run("small", describe(run, "robench run small"))
    return load_results(run.store, "small")


def pictured(run: Run, tmp_path: Path) -> list[str]:
    return [str(file.name) for file in export(run.store, results(run), tmp_path / "out")]


def test_keep_images_keeps_them_after_all(nature: Workspace, tmp_path: Path) -> None:
    run, _ = carry_out(nature)
    with pytest.raises(RobenchError, match="were not kept; run it again with --keep-images"):
        read_images(run.store, results(run), "small", 0, "nature/fog/1")
    with pytest.raises(RobenchError, match="no images are kept"):
        pictured(run, tmp_path)
    again, ears = carry_out(nature, keep_images=True)
    assert len(ears.done) == 4, "no cell is evaluated again"
    assert len(pictured(again, tmp_path)) == 4
    assert outcomes(again) == outcomes(run)


def test_each_picture_is_decoded_once_for_a_cell(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for label in ("ape", "bee"):
        for number in range(5):
            file = small.root / f"models/pets/{label}/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)).save(file)
    write(
        "models/small.toml",
        'dataset = { name = "imagefolder", path = "pets", side = 32, split = "1:1" }\n'
        'network = { name = "mlp", hidden = [4] }\ntrainer = { name = "bp", epochs = 1 }\n',
    )
    write("corruptions/nature.toml", NATURE.format(keep="false"))
    write("reports/small.toml", REPORT.replace("images = 40", "images = 5"))
    read: list[int] = []
    real = Pictures._read

    def noted(self: Pictures, item: int) -> np.ndarray:
        read.append(item)
        return real(self, item)

    carry_out(small)
    for cell in (small.root / ".robench/cells").rglob("*.parquet"):
        cell.unlink()
    monkeypatch.setattr(Pictures, "_read", noted)
    _, ears = carry_out(small)
    assert ears.failed == {}
    looked_at_when_a_run_opens = 5
    assert len(read) == looked_at_when_a_run_opens + 5 * 5
