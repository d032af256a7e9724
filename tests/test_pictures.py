"""Pictures in folders: which is of which class, how they come to one size, and that they stay in
their files until they are asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest
import scipy.io
import torch
from PIL import Image
from torch import nn

import robench
from robench.data.base import Splits
from robench.data.cifar import CIFAR100
from robench.data.image_folder import ImageFolder
from robench.data.imagenet import DEVKIT, META, TRUTH, ImageNet
from robench.data.loading import forget_splits, load_splits
from robench.data.pictures import KNOWN, Pictures, Shaping
from robench.data.sample import drawn
from robench.data.svhn import SVHN
from robench.errors import RobenchError
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
CARD = """
dataset = {{ name = "{name}", path = "{path}"{more} }}
network = {{ name = "mlp" }}
trainer = {{ name = "bp", epochs = 1 }}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_splits()
    monkeypatch.setattr(pooch, "os_cache", lambda _name: tmp_path / "cache")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))


def picture(file: Path, level: int, size: tuple[int, int] = (12, 8)) -> Path:
    """One colour all over: red tells which, so that no interpolation changes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 2 * level, 255 - level)).save(file)
    return file


def fill(folder: Path, per_class: int = 3, first: int = 0) -> Path:
    for label, name in enumerate(("ape", "bee", "cow")):
        for i in range(per_class):
            picture(folder / name / f"{i}.png", first + 10 * label + i, (12 + i, 8 + 3 * i))
    return folder


def splits_of(
    small: Workspace, write: Write, path: str, more: str = "", name: str = "imagefolder"
) -> Splits:
    write("models/own.toml", CARD.format(name=name, path=path, more=f", {more}" if more else ""))
    return load_splits(small.card("models", "own"))


def levels(images: np.ndarray) -> list[int]:
    return np.round(np.asarray(images)[:, 0, 0, 0] * 255).astype(int).tolist()


# -- which is of which class ----------------------------------------------------------------------


def test_classes_alone_are_all_for_testing(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets")
    found = splits_of(small, write, "pets", "side = 6")
    assert found.classes == ("ape", "bee", "cow")
    assert (len(found.train), len(found.validation), len(found.test)) == (0, 0, 9)
    assert found.input_shape == (3, 6, 6)
    assert [level // 10 for level in levels(found.test.images)] == found.test.labels.tolist()
    assert sorted(levels(found.test.images)) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_parts_are_those_that_the_folders_say(
    small: Workspace, write: Write, held_out: str
) -> None:
    fill(small.root / "models/pets/train", 10, first=100)
    fill(small.root / f"models/pets/{held_out}", 2)
    found = splits_of(small, write, "pets", "side = 6")
    assert (len(found.train), len(found.validation), len(found.test)) == (27, 3, 6)
    assert min(levels(found.train.images)) >= 100
    assert max(levels(found.test.images)) < 100


def test_all_three_parts_are_kept_apart(small: Workspace, write: Write) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(small.root / f"models/pets/{part}", 2 + number, first=60 * number)
    found = splits_of(small, write, "pets", "side = 6")
    assert [len(part) for part in (found.train, found.validation, found.test)] == [6, 9, 12]
    assert min(levels(found.test.images)) >= 120


def test_a_ratio_pools_and_shuffles_them(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets", 10)
    found = splits_of(small, write, "pets", 'side = 6, split = "6:1:3"')
    assert [len(part) for part in (found.train, found.validation, found.test)] == [18, 3, 9]
    for part in (found.train, found.validation, found.test):
        assert [level // 10 for level in levels(part.images)] == part.labels.tolist()


def test_it_lies_under_a_data_folder_too(small: Workspace, write: Write, tmp_path: Path) -> None:
    fill(tmp_path / "data/pets")
    assert len(splits_of(small, write, "pets", "side = 6").test) == 9


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("nowhere", "side = 6", r"models/own\.toml: path = 'nowhere': no such folder"),
        ("empty", "side = 6", r"holds no folder of pictures \(\.jpg"),
        ("pets", "side = 6, resize = 4", r"resize = 4: is below side = 6"),
        ("pets", "side = 0", "side"),
    ],
)
def test_a_folder_that_does_not_do_is_one_clear_error(
    small: Workspace, write: Write, path: str, more: str, said: str
) -> None:
    fill(small.root / "models/pets")
    (small.root / "models/empty/ape").mkdir(parents=True)
    with pytest.raises(RobenchError, match=said):
        splits_of(small, write, path, more)


# -- how they come to one size --------------------------------------------------------------------


def bytes_of(pixels: np.ndarray, tmp_path: Path) -> bytes:
    file = tmp_path / "one.png"
    Image.fromarray(pixels).save(file)
    return file.read_bytes()


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    pixels = np.arange(4 * 9, dtype=np.uint8).reshape(4, 9)
    data = bytes_of(pixels, tmp_path)
    cut = Shaping(4, 4, grey=True)(data)
    np.testing.assert_array_equal(cut[0], pixels[:, 2:6])
    np.testing.assert_array_equal(Shaping(2, 4, grey=True)(data)[0], pixels[1:3, 4:6])


def test_the_shorter_side_is_brought_to_size(tmp_path: Path) -> None:
    """As PIL brings a picture to that size, antialiased."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    data = bytes_of(pixels, tmp_path)
    for name in ("bilinear", "bicubic"):
        how = Image.Resampling[name.upper()]
        wanted = np.asarray(Image.fromarray(pixels).resize((32, 20), how))[2:18, 8:24]
        found = Shaping(16, 20, filter=name)(data)
        np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1))
        squeezed = np.asarray(Image.fromarray(pixels).resize((16, 16), how))
        found = Shaping(16, 16, "none", name)(data)
        np.testing.assert_array_equal(found, squeezed.transpose(2, 0, 1))


def test_a_picture_that_lies_on_its_side_is_turned(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "turned.png", exif=exif)
    found = Shaping(3, 3, "none", grey=True)((tmp_path / "turned.png").read_bytes())
    upright = Shaping(3, 3, "none", grey=True)(
        bytes_of(np.asarray(image)[::-1, ::-1].copy(), tmp_path)
    )
    np.testing.assert_array_equal(found, upright)


# -- they stay in their files ---------------------------------------------------------------------


def test_they_slice_like_the_array_that_they_decode_to(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets", 5)
    pictures = splits_of(small, write, "pets", "side = 6").test.images
    assert isinstance(pictures, Pictures)
    whole = np.asarray(pictures)
    assert (whole.shape, whole.dtype) == (pictures.shape, np.float32)
    for items in (slice(2, 7), slice(None, None, 4), np.array([3, 0, 14]), -1, 3):
        np.testing.assert_array_equal(pictures[items], whole[items])
    order = np.random.default_rng(0).permutation(15)
    np.testing.assert_array_equal(np.asarray(pictures.take(order, 0)), whole[order])
    np.testing.assert_array_equal(np.stack(list(pictures)), whole)


def test_the_fingerprint_is_that_of_files_order_and_size(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets")
    found = {
        splits_of(small, write, "pets", more).fingerprint
        for more in (
            "side = 6",
            "side = 7",
            "side = 6, resize = 8",
            'side = 6, crop = "none"',
            'side = 6, filter = "bicubic"',
            "side = 6, grey = true",
            'side = 6, split = "1:1"',
        )
    }
    picture(small.root / "models/pets/ape/0.png", 9)
    found.add(splits_of(small, write, "pets", "side = 6").fingerprint)
    assert len(found) == 8


def test_a_picture_that_changes_meanwhile_is_noticed(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets")
    found = splits_of(small, write, "pets", "side = 6")
    picture(small.root / "models/pets/bee/1.png", 99)
    with pytest.raises(RobenchError, match=r"bee/1\.png: has changed since the data set was read"):
        np.asarray(found.test.images)
    again = splits_of(small, write, "pets", "side = 6")
    assert 99 in levels(again.test.images)


def test_a_remembered_digest_is_not_believed(
    small: Workspace, write: Write, tmp_path: Path
) -> None:
    """A file that was changed behind the clock's back."""
    fill(small.root / "models/pets")
    splits_of(small, write, "pets", "side = 6")
    (memory,) = (tmp_path / "cache/pictures").glob("*.json")
    text = memory.read_text()
    digest = next(part for part in text.split('"') if len(part) == 64)
    memory.write_text(text.replace(digest, "0" * 64))
    KNOWN.clear()
    found = splits_of(small, write, "pets", "side = 6, resize = 7")
    with pytest.raises(RobenchError, match="has changed since"):
        np.asarray(found.test.images)


def test_files_are_read_for_their_digest_once_however_they_are_split(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(small.root / "models/pets", 4)
    splits_of(small, write, "pets", 'side = 6, split = "1:1"')
    read: list[Path] = []
    monkeypatch.setattr("robench.data.pictures.contents", lambda file: read.append(file) or b"")
    KNOWN.clear()
    forget_splits()
    splits_of(small, write, "pets", 'side = 6, split = "1:1"')
    assert read == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_broken_picture_is_named(small: Workspace, write: Write, content: bytes) -> None:
    fill(small.root / "models/pets")
    (small.root / "models/pets/cow/2.png").write_bytes(content)
    found = splits_of(small, write, "pets", "side = 6")
    with pytest.raises(RobenchError, match=r"cow/2\.png: is no whole picture"):
        np.asarray(found.test.images)


def test_a_picture_of_too_many_pixels_is_named(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robench.data.pictures.MOST_PIXELS", 100)
    fill(small.root / "models/pets")
    found = splits_of(small, write, "pets", "side = 6")
    with pytest.raises(RobenchError, match=r"12x8|13x11|14x14"):
        np.asarray(found.test.images)


def test_a_sample_of_them_is_drawn_undecoded(small: Workspace, write: Write) -> None:
    fill(small.root / "models/pets", 6)
    found = splits_of(small, write, "pets", "side = 6")
    sample = drawn(found, 3)
    assert isinstance(sample.images, Pictures)
    assert sorted(sample.labels.tolist()) == [0, 1, 2], "of each class its share"
    assert [level // 10 for level in levels(sample.images)] == sample.labels.tolist()


def test_training_and_attacks_take_them(small: Workspace, write: Write, tmp_path: Path) -> None:
    fill(small.root / "models/pets", 4)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    data = {"name": "imagefolder", "path": str(small.root / "models/pets"), "side": 6}
    found = robench.evaluate(net, data, workspace=small.root, attacks=["fgsm"], progress=False)
    files = sorted((small.root / "models/pets").rglob("*.png"))
    x = np.stack([Shaping(6, 6)(file.read_bytes()) for file in files]) / np.float32(255)
    y = np.repeat([0, 1, 2], 4)
    right = net(torch.from_numpy(x)).argmax(1).numpy() == y
    assert found.clean == pytest.approx(right.mean())


# -- ImageNet's validation images -----------------------------------------------------------------


def imagenet(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes, whose own numbers are not in the order of their ids."""
    monkeypatch.setattr("robench.data.imagenet.CLASSES", 4)
    ids = ["n40", "n10", "n30", "n20"]
    truth = [1, 3, 2, 4, 4]
    for number, line in enumerate(truth):
        picture(place / f"val/ILSVRC2012_val_{number + 1:08}.JPEG", 10 * int(ids[line - 1][1]))
    devkit = place / DEVKIT
    devkit.mkdir(parents=True)
    (devkit / TRUTH).write_text("\n".join(map(str, truth)) + "\n")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(number + 1, name, "w") for number, name in enumerate([*ids, "n99"])]
    scipy.io.savemat(devkit / META, {"synsets": np.array(rows, dtype=kinds)})


def test_imagenet_is_read_as_its_publisher_ships_it(
    small: Workspace, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet(tmp_path / "data/imagenet", monkeypatch)
    found = splits_of(small, write, "imagenet", name="imagenet")
    assert found.classes == ("n10", "n20", "n30", "n40")
    assert found.input_shape == (3, 224, 224)
    # A JPEG of one colour keeps it within a level or two.
    red = np.asarray(found.test.images)[:, 0].mean((1, 2)) * 25.5
    np.testing.assert_array_equal(np.round(red) - 1, found.test.labels)


def test_imagenet_in_folders_is_the_same(
    small: Workspace, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robench.data.imagenet.CLASSES", 2)
    for name in ("n1", "n2"):
        picture(tmp_path / f"data/imagenet/val/{name}/a.JPEG", 10)
    found = splits_of(small, write, "imagenet", name="imagenet")
    assert (found.classes, len(found.train), len(found.test)) == (("n1", "n2"), 0, 2)


@pytest.mark.parametrize("harm", ["lines", "devkit", "folders", "no devkit", "nothing"])
def test_what_is_not_imagenet_is_said(
    small: Workspace, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    place = tmp_path / "data/imagenet"
    imagenet(place, monkeypatch)
    said = {
        "lines": "holds 5 pictures, but .* has 6 lines",
        "devkit": "does not hold the publisher's",
        "no devkit": r"holds 5 pictures in no folders .*unpack ILSVRC2012_devkit_t12\.tar\.gz so",
        "nothing": "neither a folder for each WordNet id nor the publisher's pictures",
        "folders": "2 folders of pictures, ImageNet has 4",
    }
    if harm == "lines":
        with (place / DEVKIT / TRUTH).open("a") as file:
            file.write("2\n")
    elif harm == "devkit":
        (place / DEVKIT / META).write_bytes(b"none")
    elif harm == "no devkit":
        (place / DEVKIT).parent.rename(place / "devkit")
    elif harm == "nothing":
        shutil.rmtree(place / "val")
    else:
        for name in ("n10", "n20"):
            picture(place / f"val/{name}/a.JPEG", 3)
    with pytest.raises(RobenchError, match=said[harm]):
        splits_of(small, write, "imagenet", name="imagenet")


# -- SVHN and CIFAR-100 ---------------------------------------------------------------------------


def test_svhn_calls_ten_zero(tmp_path: Path) -> None:
    folder = tmp_path / "data/svhn"
    folder.mkdir(parents=True)
    for name, count in (("train_32x32.mat", 10), ("test_32x32.mat", 4)):
        pixels = np.zeros((32, 32, 3, count), np.uint8)
        pixels[0, 1, 2] = np.arange(count)
        scipy.io.savemat(folder / name, {"X": pixels, "y": np.arange(count)[:, None] % 10 + 1})
    found = SVHN().load()
    assert (len(found.train), len(found.validation), len(found.test)) == (9, 1, 4)
    np.testing.assert_array_equal(found.train.labels, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(found.validation.labels, [0])
    np.testing.assert_array_equal(np.round(found.test.images[:, 2, 0, 1] * 255), [0, 1, 2, 3])


@pytest.mark.parametrize(
    "held",
    [{"X": np.zeros((32, 32, 3, 2), np.uint8)}, {"X": np.zeros((2, 3)), "y": np.ones(2)}, None],
)
def test_another_file_than_svhns_is_named(
    tmp_path: Path, held: dict[str, np.ndarray] | None
) -> None:
    folder = tmp_path / "data/svhn"
    folder.mkdir(parents=True)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        if held is None:
            (folder / name).write_bytes(os.urandom(200))
        else:
            scipy.io.savemat(folder / name, held)
    with pytest.raises(RobenchError, match=r"train_32x32\.mat: .*remove it to fetch it anew"):
        SVHN().load()


def test_cifar100_rows_are_two_labels_and_three_planes(tmp_path: Path) -> None:
    folder = tmp_path / "data/cifar-100-binary"
    folder.mkdir(parents=True)
    rows = np.zeros((20, 2 + 3072), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2 + 1024] = 7, np.arange(20) + 80, 51
    rows.tofile(folder / "train.bin")
    rows[:5].tofile(folder / "test.bin")
    names = [f"c{number}" for number in range(100)]
    (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    found = CIFAR100().load()
    assert found.classes == tuple(names)
    np.testing.assert_array_equal(found.test.labels, [80, 81, 82, 83, 84])
    assert found.test.images[0, 1, 0, 0] == np.float32(0.2)
    (folder / "fine_label_names.txt").write_text("one\n")
    with pytest.raises(RobenchError, match="1 names, not 100"):
        CIFAR100().load()


def test_only_cards_say_where_a_folder_is() -> None:
    with pytest.raises(RobenchError, match="is only found beside a card"):
        ImageFolder(path="pets").load()
    assert ImageNet().side == 224
