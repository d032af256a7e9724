"""Data sets: what their files say, how they are split, and what is said of broken ones."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
from data_files import cifar10, mnist, tiny_imagenet
from PIL import Image

from robench.data.base import InBytes, Part, Splits
from robench.data.cifar import CIFAR10
from robench.data.digits import Digits
from robench.data.files import by_number, find_folder
from robench.data.mnist import MNIST, FashionMNIST, read_idx
from robench.data.ready import ready
from robench.data.tiny_imagenet import TinyImageNet
from robench.errors import RobenchError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that ROBENCH_DATA names, and no network."""

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setattr(pooch, "os_cache", lambda _name: tmp_path / "cache")
    (tmp_path / "data").mkdir()
    (tmp_path / "cache").mkdir()
    return tmp_path / "data"


# -- splits ---------------------------------------------------------------------------------------


def test_a_ratio_pools_shuffles_and_splits() -> None:
    splits = Digits(split="6:1:3").load()
    sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
    assert sum(sizes) == 1797
    assert np.allclose(np.array(sizes) / 1797, [0.6, 0.1, 0.3], atol=0.001)
    assert splits.test.images.dtype == np.float32
    assert splits.test.images.min() == 0
    assert splits.test.images.max() == 1


def test_the_fingerprint_tells_data_sets_apart() -> None:
    one = Digits().load()
    assert one.fingerprint == Digits().load().fingerprint
    assert one.fingerprint != Digits(split_seed=1).load().fingerprint
    assert one.fingerprint != Digits(split="6:4").load().fingerprint


def test_the_fingerprint_is_that_of_the_images_however_they_lie_in_memory() -> None:
    images, labels = Digits().load().test.images, Digits().load().test.labels
    expected = Splits(*[Part(images, labels)] * 3, tuple("0123456789")).fingerprint
    for lying in (np.asfortranarray(images), images.astype(">f4"), images[::-1].copy()[::-1]):
        assert Splits(*[Part(lying, labels)] * 3, tuple("0123456789")).fingerprint == expected


def test_an_image_is_known_again_in_a_part_that_holds_it_otherwise() -> None:
    pixels = np.arange(2 * 16, dtype=np.uint8).reshape(2, 1, 4, 4)
    train = InBytes(pixels, np.array([0, 1]))
    splits = Splits(
        train, InBytes(pixels[:0], train.labels[:0]), train.some(np.array([1])), ("a", "b")
    )
    made = ready(splits, "here")
    assert [made.train.content(i) in made.test.contents for i in (0, 1)] == [False, True]
    assert type(made.train) is Part
    assert isinstance(ready(replace(splits, test=train), "here").train, InBytes)


def test_a_ratio_of_two_holds_a_tenth_of_the_training_part_back_for_validation() -> None:
    splits, whole = Digits(split="6:4").load(), Digits(split="6:2:2").load()
    assert len(splits.validation) == 1797 * 6 // 10 // 10
    assert len(splits.train) + len(splits.validation) == len(whole.train)
    images = {image.tobytes() for image in splits.train.images}
    assert not images & {image.tobytes() for image in splits.test.images}
    assert np.array_equal(splits.train.images, whole.train.images[: len(splits.train)])


def test_a_data_set_without_a_publishers_test_set_wants_a_ratio() -> None:
    with pytest.raises(RobenchError, match="give a ratio such as '7:2:1'"):
        Digits(split="official").load()


def test_file_names_sort_by_their_numbers() -> None:
    names = ["val_10.JPEG", "val_9.JPEG", "val_100.JPEG", "a.JPEG"]
    assert sorted(names, key=by_number) == ["a.JPEG", "val_9.JPEG", "val_10.JPEG", "val_100.JPEG"]


# -- MNIST ----------------------------------------------------------------------------------------


def test_mnist_keeps_its_publishers_test_set(folder: Path) -> None:
    mnist(folder)
    splits = MNIST().load()
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [14, 1, 5]
    assert splits.test.labels.tolist() == [5, 6, 7, 8, 9]


def test_mnist_is_averaged_to_14_pixels(folder: Path) -> None:
    mnist(folder)
    large, small = MNIST().load().test.images, MNIST(resize=14).load().test.images
    assert small.shape == (5, 1, 14, 14)
    assert small[0, 0, 3, 4] == pytest.approx(large[0, 0, 6:8, 8:10].mean(), abs=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"not gzip", gzip.compress(b"\x00\x00\x08\x01\x00", mtime=0)]
)
def test_a_file_that_is_no_idx_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(RobenchError, match=r"labels\.gz: not a .*remove it to fetch it anew"):
        read_idx(path)


# -- CIFAR-10 -------------------------------------------------------------------------------------


def test_cifar10_rows_are_a_label_and_three_planes(folder: Path) -> None:
    cifar10(folder)
    splits = CIFAR10().load()
    assert splits.input_shape == (3, 32, 32)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [18, 2, 4]
    assert splits.test.labels.tolist() == [0, 1, 2, 3]
    assert np.allclose(splits.test.images.mean(axis=(0, 2, 3)) * 255, [10, 20, 30])
    assert splits.classes[3] == "cat"


def test_a_truncated_cifar10_file_is_named(folder: Path) -> None:
    cifar10(folder)
    file = folder / "cifar-10-batches-bin/data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RobenchError, match=r"data_batch_3\.bin: 12291 bytes .* truncated"):
        CIFAR10().load()


def test_an_empty_cifar10_file_is_named(folder: Path) -> None:
    cifar10(folder)
    (folder / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"")
    with pytest.raises(RobenchError, match=r"test_batch\.bin: 0 bytes"):
        CIFAR10().load()


def test_a_cifar10_label_above_nine_is_named(folder: Path) -> None:
    cifar10(folder, per_file=11)
    with pytest.raises(RobenchError, match=r"data_batch_1\.bin: has label 10"):
        CIFAR10().load()


def test_without_files_and_network_it_is_said_where_to_put_them(folder: Path) -> None:
    for dataset in (CIFAR10(), TinyImageNet(), MNIST(), FashionMNIST()):
        with pytest.raises(RobenchError, match=r"no network.*named in ROBENCH_DATA"):
            dataset.load()


# -- archives -------------------------------------------------------------------------------------


def test_a_downloaded_archive_is_unpacked_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cifar10(tmp_path / "made")
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made/cifar-10-batches-bin", "cifar-10-batches-bin")
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(tmp_path / "cifar.tar.gz"))
    assert len(CIFAR10().load().test) == 4
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]


def test_a_broken_archive_leaves_nothing_half_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "tiny.zip"
    broken.write_bytes(b"PK\x03\x04 and no more")
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(broken))
    with pytest.raises(RobenchError, match="data set some: not found and not downloadable"):
        find_folder("some", ("file",), "https://example.org/some.zip", "md5:0")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("cifar-10-batches-bin/test_batch.bin", "batches-bin lacks data_batch_1.bin, .*_5.bin; "),
        ("cifar-10-batches-py/test_batch", "cifar-10-batches-py holds pickles.*torchvision's"),
    ],
)
def test_what_is_nearly_there_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, there: str, said: str
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", offline)
    (folder / there).parent.mkdir()
    (folder / there).write_bytes(b"x")
    with pytest.raises(RobenchError, match=rf"not downloadable \(no network\); .*{said}"):
        CIFAR10().load()


# -- Tiny-ImageNet --------------------------------------------------------------------------------


def test_tiny_imagenet_is_read_from_the_publishers_folder(folder: Path) -> None:
    tiny_imagenet(folder)
    splits = TinyImageNet(classes=3).load()
    assert splits.input_shape == (3, 64, 64)
    assert splits.classes == ("goldfish", "tarantula", "n03")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [33, 3, 6]
    assert splits.test.labels.tolist() == [2, 0, 1, 1, 2, 0]  # val_0, 1, 2, 5, 9, 10
    red = splits.test.images[:, 0].mean(axis=(1, 2)) * 255
    assert np.allclose(red, 50 * (splits.test.labels + 1), atol=3)


def test_tiny_imagenets_validation_part_holds_all_classes(folder: Path) -> None:
    tiny_imagenet(folder)
    splits = TinyImageNet(classes=3).load()
    assert sorted(splits.validation.labels.tolist()) == [0, 1, 2]
    green = splits.validation.images[:, 1].mean(axis=(1, 2)) * 255
    assert np.allclose(green, 110, atol=3)  # the last of each class, number 11


def test_the_first_classes_are_those_first_by_id(folder: Path) -> None:
    tiny_imagenet(folder)
    splits = TinyImageNet(classes=2).load()
    assert splits.classes == ("goldfish", "tarantula")
    assert len(splits.test) == 4


def test_tiny_imagenet_is_read_from_the_publishers_zip_file(folder: Path) -> None:
    root = tiny_imagenet(folder)
    expected = TinyImageNet(classes=3).load().fingerprint
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(folder))
    shutil.rmtree(root)
    splits = TinyImageNet(classes=3).load()
    assert splits.fingerprint == expected
    assert splits.classes == ("goldfish", "tarantula", "n03")


def test_tiny_imagenet_comes_small_and_grey_as_in_glrs_experiments(folder: Path) -> None:
    tiny_imagenet(folder)
    splits = TinyImageNet(classes=3, grey=True, side=48).load()
    assert splits.input_shape == (1, 48, 48)
    assert splits.test.images[0].mean() * 255 == pytest.approx(0.299 * 150, abs=3)


def test_a_truncated_photograph_is_named(folder: Path) -> None:
    file = tiny_imagenet(folder) / "train/n02/images/n02_7.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RobenchError, match=r"n02_7\.JPEG: missing or not a whole image"):
        TinyImageNet(classes=3).load()


def test_a_photograph_of_another_size_is_named(folder: Path) -> None:
    file = tiny_imagenet(folder) / "train/n02/images/n02_7.JPEG"
    Image.new("RGB", (64, 60)).save(file)
    with pytest.raises(RobenchError, match=r"n02_7\.JPEG: 64x60 pixels, not 64x64"):
        TinyImageNet(classes=3).load()


def test_a_missing_photograph_is_named(folder: Path) -> None:
    (tiny_imagenet(folder) / "val/images/val_9.JPEG").unlink()
    with pytest.raises(RobenchError, match=r"val_9\.JPEG: missing or not a whole image"):
        TinyImageNet(classes=3).load()


def test_more_classes_than_there_are_is_said(folder: Path) -> None:
    tiny_imagenet(folder)
    with pytest.raises(RobenchError, match=r"classes = 10: .* holds 3"):
        TinyImageNet().load()


def test_annotations_without_classes_are_named(folder: Path) -> None:
    (tiny_imagenet(folder) / "val/val_annotations.txt").write_text("val_0.JPEG\n")
    with pytest.raises(RobenchError, match=r"val_annotations\.txt: a line is not"):
        TinyImageNet(classes=3).load()


def test_a_broken_zip_file_is_named(folder: Path) -> None:
    (folder / "tiny-imagenet-200.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(RobenchError, match=r"tiny-imagenet-200\.zip: not a whole zip file"):
        TinyImageNet().load()


# -- the real ones --------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST])
def test_mnist_and_its_replacement_are_whole(dataset: type[MNIST]) -> None:
    raw = dataset().raw()
    assert raw.images.shape == (70_000, 1, 28, 28)
    assert raw.official_train == 60_000
    assert len(np.unique(raw.labels)) == 10


@pytest.mark.data
def test_cifar10_is_whole_and_balanced() -> None:
    raw = CIFAR10().raw()
    assert raw.images.shape == (60_000, 3, 32, 32)
    assert np.bincount(raw.labels[raw.official_train :]).tolist() == [1000] * 10


@pytest.mark.data
def test_tiny_imagenets_first_ten_classes_are_whole_and_balanced() -> None:
    splits = TinyImageNet(grey=True, side=48).load()
    assert splits.input_shape == (1, 48, 48)
    assert len(splits.train) + len(splits.validation) == 5000
    assert np.bincount(splits.test.labels).tolist() == [50] * 10
    assert splits.classes[0] == "goldfish"


def test_digits_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    raw = Digits().raw()
    bunch = load_digits()
    np.testing.assert_array_equal(raw.images[:, 0], (bunch.images / 16).astype(np.float32))
    np.testing.assert_array_equal(raw.labels, bunch.target)
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    np.testing.assert_array_equal(Digits().raw().images, raw.images)
