"""Folders of pictures as strangers have them: other kinds of files, links, capitals, classes
without a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image

from robench.data.base import Splits
from robench.data.loading import forget_splits, load_splits
from robench.data.pictures import Shaping
from robench.errors import RobenchError
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
COLOUR = (200, 100, 50)
CARD = """
dataset = { name = "imagefolder", path = "pets", side = 4 }
network = "mlp"
trainer = { name = "bp", epochs = 1 }
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_splits()
    monkeypatch.setattr(pooch, "os_cache", lambda _name: tmp_path / "cache")


@pytest.fixture
def pets(small: Workspace) -> Path:
    """Two classes of two pictures."""
    folder = small.root / "models/pets"
    for name in ("cat", "dog"):
        fill(folder / name)
    return folder


def fill(folder: Path, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        Image.new("RGB", (6, 6), COLOUR).save(folder / f"{number}.{ending}")


def splits_of(small: Workspace, write: Write) -> Splits:
    write("models/own.toml", CARD)
    return load_splits(small.card("models", "own"))


def seen(path: Path, grey: bool = False) -> list[int]:
    """The middle pixel of a picture, in levels of a byte."""
    pixels: list[int] = Shaping(4, 4, grey=grey)(path.read_bytes())[:, 2, 2].tolist()
    return pixels


# -- kinds of pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("CMYK", "tiff"), ("P", "png"), ("P", "gif"), ("RGBA", "png"), ("YCbCr", "tiff")],
)
def test_colour_is_colour_however_a_file_holds_it(tmp_path: Path, mode: str, ending: str) -> None:
    image = Image.new("RGB", (6, 6), COLOUR)
    held = image.quantize(4) if mode == "P" else image.convert(mode)
    held.save(tmp_path / f"one.{ending}")
    np.testing.assert_allclose(seen(tmp_path / f"one.{ending}"), COLOUR, atol=2)


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_sixteen_bits_are_brought_to_eight(tmp_path: Path, level: int, ending: str) -> None:
    path = tmp_path / f"one.{ending}"
    Image.fromarray(np.full((6, 6), level * 257, np.uint16)).save(path)
    assert seen(path) == [level] * 3
    assert seen(path, grey=True) == [level]


def test_a_grey_map_of_sixteen_bits_is_brought_to_eight(tmp_path: Path) -> None:
    (tmp_path / "one.pgm").write_bytes(b"P5 6 6 65535\n" + np.full(36, 77 * 257, ">u2").tobytes())
    assert seen(tmp_path / "one.pgm") == [77] * 3


@pytest.mark.parametrize(
    "levels", [np.full((6, 6), 0.7, np.float32), np.full((6, 6), 70_000, np.int32)]
)
def test_levels_without_a_white_are_refused(pets: Path, small: Workspace, write: Write,
                                            levels: np.ndarray) -> None:  # fmt: skip
    Image.fromarray(levels).save(pets / "cat/2.tiff")
    found = splits_of(small, write)
    with pytest.raises(RobenchError, match=r"cat/2\.tiff: .*nobody knows what is white"):
        np.asarray(found.test.images)


def test_what_is_no_picture_is_said_in_words(pets: Path, small: Workspace, write: Write) -> None:
    (pets / "cat/2.jpg").write_bytes(b"<html>404</html>")
    found = splits_of(small, write)
    with pytest.raises(RobenchError, match=r"cat/2\.jpg: .*bytes are those of no kind of picture"):
        np.asarray(found.test.images)


def test_a_thread_of_a_picture_is_not_blown_up(tmp_path: Path) -> None:
    Image.new("RGB", (1, 300_000)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="1x300000 pixels would become 224x67200000"):
        Shaping(224, 224)((tmp_path / "one.png").read_bytes())


# -- what lies in the folder ----------------------------------------------------------------------


def test_a_class_without_a_picture_is_an_error_and_shifts_no_label(
    pets: Path, small: Workspace, write: Write
) -> None:
    (pets / "bee").mkdir()
    (pets / "bee/notes.txt").write_text("none yet")
    with pytest.raises(RobenchError, match=r"pets/bee holds no picture \(\.jpg.*later classes"):
        splits_of(small, write)


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAINING", "Testing"), ("train", "VAL")])
def test_parts_are_found_in_capitals_too(
    pets: Path, small: Workspace, write: Write, names: tuple[str, str]
) -> None:
    for part in names:
        for name in ("cat", "dog"):
            fill(pets / part / name, "JPG")
    for name in ("cat", "dog"):
        (pets / name).rename(small.root / f"models/{name}-aside")
    found = splits_of(small, write)
    assert found.classes == ("cat", "dog")
    assert (len(found.train), len(found.test)) == (4, 4)


def test_a_class_may_be_missing_from_one_part(pets: Path, small: Workspace, write: Write) -> None:
    for place in ("train/cat", "train/dog", "train/eel", "val/cat", "val/eel"):
        fill(pets / place)
    (pets / "val/dog").mkdir()
    found = splits_of(small, write)
    assert found.classes == ("cat", "dog", "eel")
    assert found.test.labels.tolist() == [0, 0, 2, 2]


def test_one_folder_of_pictures_is_no_data_set(small: Workspace, write: Write) -> None:
    for name in ("cat", "dog"):
        fill(small.root / "models/pets/pets-v2" / name)
    with pytest.raises(RobenchError, match=r"in one folder only, pets-v2: that is one class"):
        splits_of(small, write)


def test_a_link_to_nothing_is_no_picture_less(pets: Path, small: Workspace, write: Write) -> None:
    (pets / "cat/2.png").symlink_to(pets / "unmounted/2.png")
    with pytest.raises(RobenchError, match=r"cat/2\.png: is a link to what is not there \(.*unmo"):
        splits_of(small, write)


def test_a_link_to_a_picture_counts(pets: Path, small: Workspace, write: Write) -> None:
    (pets / "cat/2.png").symlink_to(pets / "dog/1.png")
    assert splits_of(small, write).test.labels.tolist() == [0, 0, 0, 1, 1]


def test_pictures_that_are_not_read_are_said(pets: Path, small: Workspace, write: Write) -> None:
    (pets / "cat/9.heic").write_bytes(b"x")
    Image.new("RGB", (6, 6)).save(pets / "contact-sheet.png")
    for name in ("README.md", ".DS_Store", "cat/Thumbs.db"):
        (pets / name).write_text("x")
    (pets / "__MACOSX").mkdir()
    assert splits_of(small, write).notes == (
        "imagefolder: left out, beside the folders of classes: 1 (contact-sheet.png)",
        "imagefolder: left out, of a kind that is not read: 1 (9.heic)",
    )
