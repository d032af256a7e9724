"""Corrupted sets made before: their layouts, their hashes, and what is said of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import cifar_c, tiny_c
from PIL import Image

from robench.corruptions.given import GivenImages
from robench.corruptions.imagenet_c.corruption import ImageNetC
from robench.corruptions.make import corrupt_images
from robench.errors import RobenchError


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
        RobenchError, match=r"shape \(4, 3, 32, 32\), the image has \(4, 1, 28, 28\)"
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


def test_a_folder_that_is_not_there_says_where_it_was_looked_for(data: Path) -> None:
    with pytest.raises(RobenchError, match=f"path = 'nowhere': .*{data}/nowhere"):
        GivenImages(path="nowhere", kinds=["fog"]).given("fog", 1, 0, 1)


def test_a_truncated_picture_is_named(data: Path) -> None:
    tiny_c(data)
    file = data / "T/fog/2/n1/val_1.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(RobenchError, match=r"val_1\.png: not a whole image"):
        GivenImages(path="T", kinds=["fog"], layout="folders").given("fog", 2, 0, 4)
