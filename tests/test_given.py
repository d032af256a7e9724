"""Corrupted sets made before: their layouts, their hashes, and what is said of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import cifar_c, tiny_c
from PIL import Image
from small_runs import carry_out

from robench.corruptions.given import GivenImages
from robench.corruptions.imagenet_c.corruption import ImageNetC
from robench.corruptions.make import corrupt_images
from robench.errors import RobenchError
from robench.workspace.folders import Workspace


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    return tmp_path


def test_rows_of_a_stacked_file_are_severity_after_severity(data: Path) -> None:
    labels = cifar_c(data)
    given = GivenImages(path="C", kinds=["fog"])
    images = corrupt_images(
        given, np.zeros((2, 3, 32, 32), np.float32), 1, "fog", 3, 0, labels[1:3]
    )
    assert np.array_equal(images[:, 0, 5, 5] * 255, [9, 10])
    assert images[0, :, 0, 0] * 255 == pytest.approx([1, 2, 3])


def test_a_set_of_one_severity_is_read(data: Path) -> None:
    (data / "mnist_c/zigzag").mkdir(parents=True)
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28, 1)
    np.save(data / "mnist_c/zigzag/test_images.npy", images)
    np.save(data / "mnist_c/zigzag/test_labels.npy", np.array([3, 1, 4]))
    given = GivenImages(path="mnist_c", kinds=["zigzag"])
    clean = np.zeros((3, 1, 28, 28), np.float32)
    made = corrupt_images(given, clean, 0, "zigzag", 1, 0, np.array([3, 1, 4]))
    assert np.array_equal(np.round(made[:, 0] * 255), images[..., 0])
    with pytest.raises(RobenchError, match=r"put severities = \[1\] into the card"):
        corrupt_images(given, clean, 0, "zigzag", 2, 0)


def test_folders_are_read_in_the_order_of_the_numbers(data: Path) -> None:
    tiny_c(data)
    given = GivenImages(path="T", kinds=["fog"], layout="folders")
    clean = np.zeros((4, 3, 64, 64), np.float32)
    made = corrupt_images(given, clean, 8, "fog", 2, 0, np.array([0, 1, 0, 1]))
    assert np.array_equal(np.round(made[:, 0, 0, 0] * 255), [8, 9, 10, 11])


def test_folders_are_read_class_by_class_when_asked(data: Path) -> None:
    tiny_c(data)
    clean = np.zeros((12, 3, 64, 64), np.float32)
    labels = np.repeat([0, 1], 6)
    by_class = GivenImages(path="T", kinds=["fog"], layout="folders", order="classes")
    made = corrupt_images(by_class, clean, 0, "fog", 2, 0, labels)
    assert np.array_equal(np.round(made[:, 0, 0, 0] * 255), [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11])
    by_number = GivenImages(path="T", kinds=["fog"], layout="folders")
    with pytest.raises(RobenchError, match="labels of 6 of 12 .* order = 'classes'"):
        corrupt_images(by_number, clean, 0, "fog", 2, 0, labels)


def test_what_is_hidden_is_neither_a_class_nor_a_picture(data: Path) -> None:
    tiny_c(data)
    (data / "T/fog/2/.ipynb_checkpoints").mkdir()
    (data / "T/fog/2/n0/._val_0.png").write_bytes(b"what another system left there")
    given = GivenImages(path="T", kinds=["fog"], layout="folders")
    assert given.given("fog", 2, 0, 12).labels.tolist() == [0, 1] * 6


def test_only_the_first_classes_are_read_when_asked(data: Path) -> None:
    tiny_c(data)
    (data / "T/fog/2/n9").mkdir()
    Image.new("RGB", (64, 64)).save(data / "T/fog/2/n9/val_3.png")
    given = GivenImages(path="T", kinds=["fog"], layout="folders", classes=2)
    assert given.given("fog", 2, 0, 12).labels.tolist() == [0, 1] * 6


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    cifar_c(tmp_path)
    assert len(GivenImages(path=str(tmp_path / "C"), kinds=["fog"]).given("fog", 1, 0, 4)) == 4


def test_the_origin_is_the_content_and_not_the_place(data: Path) -> None:
    cifar_c(data)
    given = GivenImages(path="C", kinds=["fog"])
    before = given.origin("fog", 2, 0, 4)
    assert before["source"] == "given"
    (data / "C").rename(data / "D")
    moved = GivenImages(path="D", kinds=["fog"])
    assert moved.origin("fog", 2, 0, 4) == before
    assert moved.origin("fog", 3, 0, 4) != before
    assert moved.origin("fog", 2, 0, 3) != before
    images = np.load(data / "D/fog.npy")
    images[5, 0, 0, 0] += 1
    np.save(data / "D/fog.npy", images)
    assert moved.origin("fog", 2, 0, 4) != before
    assert ImageNetC().origin("fog", 2, 0, 4) == {"source": "generated"}


def test_labels_of_another_test_set_are_refused(data: Path) -> None:
    labels = cifar_c(data)
    with pytest.raises(RobenchError, match="labels of 2 of 4 images are not the data set's"):
        corrupt_images(
            GivenImages(path="C", kinds=["fog"]),
            np.zeros((4, 3, 32, 32), np.float32),
            *(0, "fog", 1, 0, labels[[1, 0, 2, 3]]),
        )


def test_a_given_set_of_another_size_is_refused(data: Path) -> None:
    cifar_c(data)
    with pytest.raises(
        RobenchError,
        match="4 colour images of 32 x 32 pixels are given, .* has 4 grey images of 28 x 28",
    ):
        corrupt_images(
            GivenImages(path="C", kinds=["fog"]),
            np.zeros((4, 1, 28, 28), np.float32),
            0,
            "fog",
            1,
            0,
        )


def damage_truncate(data: Path) -> None:
    file = data / "C/fog.npy"
    file.write_bytes(file.read_bytes()[:-100])


def damage_empty(data: Path) -> None:
    (data / "C/fog.npy").write_bytes(b"")


def damage_rows(data: Path) -> None:
    np.save(data / "C/fog.npy", np.zeros((7, 32, 32, 3), np.uint8))


def damage_type(data: Path) -> None:
    np.save(data / "C/fog.npy", np.zeros((20, 32, 32, 3), np.float32))


def damage_labels(data: Path) -> None:
    np.save(data / "C/labels.npy", np.zeros(3, np.uint8))


def damage_one_severity(data: Path) -> None:
    np.save(data / "C/labels.npy", np.arange(20, dtype=np.uint8))


def damage_no_labels(data: Path) -> None:
    (data / "C/labels.npy").unlink()


def damage_pickle(data: Path) -> None:
    np.save(data / "C/fog.npy", np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_truncate, r"fog\.npy: truncated, or not a \.npy file"),
        (damage_empty, r"fog\.npy: truncated, or not a \.npy file"),
        (damage_rows, "7 images are not five severities"),
        (damage_type, "holds float32 .* not uint8 images"),
        (damage_labels, "4 images, 3 labels"),
        (damage_one_severity, r"labels\.npy: its fifths differ"),
        (damage_no_labels, r"labels\.npy: no such file"),
        (damage_pickle, r"fog\.npy: truncated, or not a \.npy file"),
    ],
)
def test_a_damaged_set_is_named(data: Path, damage: Callable[[Path], None], says: str) -> None:
    cifar_c(data)
    damage(data)
    with pytest.raises(RobenchError, match=says) as refused:
        GivenImages(path="C", kinds=["fog"]).given("fog", 1, 0, 4)
    assert "\n" not in str(refused.value)


def test_a_set_with_too_few_images_is_named(data: Path) -> None:
    cifar_c(data)
    with pytest.raises(RobenchError, match="has 4 images, 5 are asked for"):
        GivenImages(path="C", kinds=["fog"]).given("fog", 1, 0, 5)


def test_a_kind_that_the_set_lacks_is_answered_with_the_near_ones(data: Path) -> None:
    cifar_c(data)
    tiny_c(data)
    with pytest.raises(RobenchError, match="kind 'fogs': no such file; did you mean fog"):
        GivenImages(path="C", kinds=["fogs"]).given("fogs", 1, 0, 1)
    with pytest.raises(RobenchError, match="no such folder; did you mean fog"):
        GivenImages(path="T", kinds=["fogs"], layout="folders").given("fogs", 2, 0, 1)


def test_a_severity_that_the_set_lacks_is_answered_with_those_it_has(data: Path) -> None:
    tiny_c(data)
    given = GivenImages(path="T", kinds=["fog"], layout="folders")
    with pytest.raises(RobenchError, match=r"fog/3: no such folder; .* severities = \[2\]"):
        given.given("fog", 3, 0, 1)
    (data / "T/fog/2").rename(data / "T/fog/all")
    with pytest.raises(RobenchError, match="must hold a folder for each severity, called 1 to 5"):
        given.given("fog", 3, 0, 1)


def test_another_layout_than_that_of_the_files_is_named(data: Path) -> None:
    cifar_c(data)
    tiny_c(data)
    with pytest.raises(RobenchError, match="put layout = 'folders' into the card"):
        GivenImages(path="T", kinds=["fog"]).given("fog", 2, 0, 1)
    with pytest.raises(RobenchError, match="put layout = 'npy' into the card"):
        GivenImages(path="C", kinds=["fog"], layout="folders").given("fog", 2, 0, 1)


def test_pictures_of_other_sizes_are_named_where_they_are_asked_for_one_by_one(data: Path) -> None:
    tiny_c(data)
    Image.new("RGB", (60, 64)).save(data / "T/fog/2/n1/val_3.png")
    given = GivenImages(path="T", kinds=["fog"], layout="folders")
    clean = np.zeros((3, 3, 64, 64), np.float32)
    with pytest.raises(RobenchError, match="image 3 is one of 1 colour images of 64 x 60 pixels"):
        corrupt_images(given, clean, 0, "fog", 2, 0, numbers=np.array([8, 3, 5]))


def test_a_file_that_is_another_is_read_anew(data: Path) -> None:
    cifar_c(data)
    given = GivenImages(path="C", kinds=["fog"])
    before = given.given("fog", 1, 0, 4).images
    np.save(data / "C/other.npy", np.load(data / "C/fog.npy")[::-1])
    (data / "C/other.npy").replace(data / "C/fog.npy")
    assert not np.array_equal(given.given("fog", 1, 0, 4).images, before)


def test_a_folder_that_is_not_there_says_where_it_was_looked_for(data: Path) -> None:
    with pytest.raises(RobenchError, match=f"path = 'nowhere': .*{data}/nowhere"):
        GivenImages(path="nowhere", kinds=["fog"]).given("fog", 1, 0, 1)


def test_a_truncated_picture_is_named(data: Path) -> None:
    tiny_c(data)
    file = data / "T/fog/2/n1/val_1.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(RobenchError, match=r"val_1\.png: not a whole image"):
        GivenImages(path="T", kinds=["fog"], layout="folders").given("fog", 2, 0, 4)


# -- in a run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [7, 12])
def test_a_set_in_the_layout_of_imagenet_c_goes_with_a_folder_per_class(
    small: Workspace, write: Callable[[str, str], Path], data: Path, images: int
) -> None:
    """Image i lies in a class folder of its own, and numbers run across classes, as ImageNet's."""
    rng = np.random.default_rng(0)
    for index, label in enumerate("abcbacabccba"):
        pixels = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        inside = ("pets/train", "pets/val", "pets-c/fog_3d/1", "pets-c/fog_3d/4")
        for folder in (data / place / label for place in inside):
            folder.mkdir(parents=True, exist_ok=True)
            pixels.save(folder / f"ILSVRC2012_val_{index:08d}.png")
    write(
        "models/small.toml",
        'dataset = { name = "imagefolder", path = "pets", side = 16 }\n'
        'network = { name = "mlp", hidden = [4] }\ntrainer = { name = "bp", epochs = 1 }\n',
    )
    write(
        "corruptions/nature.toml",
        'corruption = { name = "given", path = "pets-c", layout = "folders", order = "classes", '
        'kinds = ["fog_3d"] }\nseverities = [1, 4]\nkeep = false\n',
    )
    write(
        "reports/small.toml",
        f'title = "Given"\nmodels = ["small"]\ncorruptions = ["nature"]\nimages = {images}\n'
        "diagnostics = false\n",
    )
    run, ears = carry_out(small)
    assert ears.failed == {}
    clean, *corrupted = (run.store.read_cell(name).rows for name in run.digests.values())
    for rows in corrupted:  # the same pictures, image by image
        assert rows["label"] == clean["label"]
        assert rows["loss"] == clean["loss"]
