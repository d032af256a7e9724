"""Data as people have it: sorted by class, in other types, with mistakes named as theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handed import Plain
from PIL import Image
from torch import Tensor, nn

import robench
from robench.corruptions.base import Corruption
from robench.corruptions.given import GivenImages
from robench.corruptions.make import corrupt_images
from robench.data.base import Dataset, Part, Raw, Splits
from robench.data.digits import Digits
from robench.data.ready import ready
from robench.data.sample import drawn, said, stratified
from robench.errors import RobenchError
from robench.show.report.folder import write_report
from robench.workspace.cards import AttackCard, as_number
from robench.workspace.folders import Workspace

# -- a report that asks for fewer test images than there are meets a sample of them ----------------


@pytest.mark.parametrize("images", [10, 50, 100, 137])
def test_every_beginning_of_a_sorted_set_is_a_sample_of_all_classes(images: int) -> None:
    drawn_labels = drawn(labelled(np.repeat(np.arange(10), 50)), images).labels
    counts = np.bincount(drawn_labels, minlength=10)
    assert len(drawn_labels) == images
    assert abs(counts - images / 10).max() <= 1


def test_classes_of_unequal_size_get_their_share() -> None:
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    found = labels[stratified(labels)][:100]
    assert abs(np.bincount(found) - [70, 20, 10]).max() <= 1


def test_a_sample_is_the_same_every_time_and_another_for_another_seed() -> None:
    labels = np.repeat(np.arange(4), 30)
    assert np.array_equal(stratified(labels), stratified(labels))
    assert np.array_equal(np.sort(stratified(labels)), np.arange(120))
    assert not np.array_equal(stratified(labels), stratified(labels, seed=1))


def test_images_of_one_class_come_from_everywhere_in_a_publisher_s_order() -> None:
    """Of MNIST's test images the first half are the easy ones."""
    labels = np.random.default_rng(0).integers(0, 10, 10_000)
    assert 400 < np.count_nonzero(stratified(labels)[:1000] < 5000) < 600


def test_a_smaller_sample_is_the_beginning_of_a_larger_one_and_says_which_images_it_holds() -> None:
    splits = labelled(Digits().load().test.labels)
    small, large = drawn(splits, 100), drawn(splits, 200)
    assert small.numbers is not None
    assert large.numbers is not None
    assert np.array_equal(small.numbers, large.numbers[:100])
    assert np.array_equal(splits.test.labels[small.numbers], small.labels)
    assert np.array_equal(splits.test.images[small.numbers], small.images)


def test_whoever_asks_for_all_images_gets_them_in_the_publisher_s_order() -> None:
    splits = labelled(Digits().load().test.labels)
    for images in (len(splits.test), len(splits.test) + 1):
        assert drawn(splits, images) is splits.test
        assert said(splits, images) == {}


def test_a_sample_is_part_of_a_cell_s_identity_and_all_images_are_none(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    test = Digits().load().test
    data = (test.images[:60], test.labels[:60])
    kinds = {}
    for images in (30, 60):
        found = robench.evaluate(
            Plain(), data, attacks=["fgsm"], images=images, store=tmp_path / "s", **no_diagnostics
        )
        manifest = found.results.manifest
        (kinds[images],) = {one.get("order") for one in samples_of(manifest)}
        assert manifest["models"][0]["sample"]["of"] == 60
    assert kinds == {30: "by class", 60: None}


def samples_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [identity.get("sample", {}) for identity in manifest["identities"].values()]


def labelled(labels: np.ndarray) -> Splits:
    """A data set with these labels of test images; each image says which it is."""
    images = np.arange(len(labels), dtype=np.float32)[:, None, None, None] / len(labels)
    part, none = Part(images, labels), Part(images[:0], labels[:0])
    return ready(Splits(none, none, part, tuple(map(str, range(10)))), "d")


def sorted_digits() -> tuple[np.ndarray, np.ndarray]:
    test = Digits().load().test
    order = np.argsort(test.labels, kind="stable")
    return test.images[order], test.labels[order]


def test_a_sorted_set_is_sampled_and_the_page_says_so(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    x, y = sorted_digits()
    found = robench.evaluate(
        Plain(), (x, y), attacks=["fgsm"], images=40, store=tmp_path / "s", **no_diagnostics
    )
    met = found.per_image
    clean = met[met["threat"] == "clean"]
    assert set(clean["label"]) == set(range(10))
    assert np.array_equal(y[clean["image"]], clean["label"])  # numbers are the user's own
    text = write_report(found.results, tmp_path / "page").read_text()
    assert f"40 of {len(y)} test images, drawn by class, seed 0" in text
    whole = robench.evaluate(
        Plain(), (x, y), attacks=["fgsm"], images=len(y), store=tmp_path / "s", **no_diagnostics
    )
    text = write_report(whole.results, tmp_path / "all").read_text()
    assert f"all {len(y)} test images" in text
    assert whole.per_image["image"].unique().tolist() == list(range(len(y)))


def test_classes_that_no_test_image_is_of_are_named(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    test = Digits().load().test
    few = np.flatnonzero(test.labels < 3)[:20]
    rare = np.concatenate([few, [np.argmax(test.labels == label) for label in range(3, 10)]])
    data = (test.images[rare], test.labels[rare])
    found = robench.evaluate(
        Plain(), data, attacks=["fgsm"], images=4, store=tmp_path / "s", **no_diagnostics
    )
    absent = sorted(set(range(10)) - set(found.per_image["label"]))
    assert len(absent) >= 6
    assert found.results.models[0]["absent"] == [str(label) for label in absent]
    text = write_report(found.results, tmp_path / "page").read_text()
    assert f"{len(absent)} classes are missing from the test images" in text


class Numbered(Corruption):
    """A set made before, whose images say which they are."""

    kinds: tuple[str, ...] = ("fog",)

    def given(self, kind: str, severity: int, start: int, stop: int) -> Part:
        numbers = np.arange(start, stop)
        images = np.broadcast_to(
            (numbers / 1000).astype(np.float32)[:, None, None, None], (len(numbers), 1, 2, 2)
        )
        return Part(images, numbers % 10)


def test_a_set_made_before_follows_the_sample() -> None:
    numbers = np.array([7, 3, 11])
    images = np.zeros((3, 1, 2, 2), np.float32)
    found = corrupt_images(Numbered(), images, 0, "fog", 1, 0, numbers % 10, numbers)
    assert found[:, 0, 0, 0] == pytest.approx(numbers / 1000)


class Told(Corruption):
    """Every image becomes a grey that its own random numbers tell."""

    kinds: tuple[str, ...] = ("fog",)

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        return np.full_like(image, rng.random())


def test_a_corrupted_image_is_the_same_in_every_sample() -> None:
    images = np.zeros((10, 1, 2, 2), np.float32)
    whole = corrupt_images(Told(), images, 0, "fog", 1, 0)
    numbers = np.array([7, 3, 9])
    some = corrupt_images(Told(), images[numbers], 0, "fog", 1, 0, None, numbers)
    assert np.array_equal(some, whole[numbers])


def test_3d_common_corruptions_are_given_as_their_publisher_ships_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kara et al. 2022 (arXiv 2203.01441): KIND/SEVERITY/CLASS/IMAGE, as ImageNet-C."""
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    for place, name in enumerate(("n01440764", "n01443537")):
        folder = tmp_path / "3dcc" / "fog_3d" / "4" / name
        folder.mkdir(parents=True)
        pixels = np.full((8, 8, 3), 100 * place, np.uint8)
        Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_0000000{place + 1}.png")
    made = GivenImages(path="3dcc", layout="folders", kinds=("fog_3d", "near_focus"))
    found = made.given("fog_3d", 4, 0, 2)
    assert found.labels.tolist() == [0, 1]
    assert found.images.shape == (2, 3, 8, 8)
    assert found.images[1] == pytest.approx(100 / 255)


# -- data sets with mistakes -----------------------------------------------------------------------


def splits_of(x: Any, y: Any, classes: int = 10) -> Splits:
    part = Part(x, y)
    return Splits(part, Part(x[:0], y[:0]), part, tuple(map(str, range(classes))))


X = np.random.default_rng(0).random((12, 1, 4, 4)).astype(np.float32)
Y = np.arange(12) % 10
MISTAKES: dict[str, tuple[Any, Any, str]] = {
    "bytes as numbers": (X * 255, Y, r"mine: train: pixels from .* they seem to be 0..255"),
    "normalised": (X * 4 - 2, Y, r"mine: train: pixels from .* they seem to be normalised"),
    "minus one to one": (X * 2 - 1, Y, r"mine: train: pixels from .*they seem to be -1..1"),
    "NaN": (np.where(X > 0.9, np.nan, X), Y, "mine: train: pixels that are NaN or infinite"),
    "no channel": (X[:, 0], Y, r"mine: train: images of shape \(12, 4, 4\).*x\[:, None\]"),
    "flat": (X.reshape(12, -1), Y, r"mine: train: images of shape \(12, 16\)"),
    "fractional labels": (X, Y + 0.5, "mine: train: labels: label 0.5 is not a whole number"),
    "one-hot labels": (X, np.eye(10)[Y], r"mine: train: labels: .* give y.argmax\(1\)"),
    "too few labels": (X, Y[:5], "mine: train: labels: shape .*but there are 12 images"),
    "a class too many": (X, Y + 3, "mine: train: labels: label 12, but there are 10 classes"),
    "negative labels": (X, Y - 1, "mine: train: labels: label -1: labels count"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_data_sets_mistake_is_its_own_and_not_the_attacks(mistake: str) -> None:
    x, y, message = MISTAKES[mistake]
    with pytest.raises(RobenchError, match=message):
        ready(splits_of(x, y), "mine")


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_pixels_and_labels_in_other_types_are_brought_to_ours(kind: Any) -> None:
    made = ready(splits_of(X.astype(kind), Y.astype(np.float64)), "mine")
    assert made.test.images.dtype == np.float32
    assert made.test.labels.dtype == np.int64
    assert np.array_equal(made.test.labels, Y)


class Fractional(Dataset):
    split: str = "7:3"

    def raw(self) -> Raw:
        return Raw((X * 255).astype(np.uint8), Y + 0.25, 0)


def test_fractional_labels_of_a_publisher_are_not_cut() -> None:
    with pytest.raises(RobenchError, match="dataset Fractional: labels: label 0.25 is not a whole"):
        Fractional().load()


PLUGIN = """
import numpy as np
from robench.data.base import Dataset, Part, Splits

class Bytes(Dataset):
    def load(self):
        x = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.float32)
        part = Part(x, np.arange(40) % 10)
        return Splits(part, Part(x[:0], part.labels[:0]), part, tuple("0123456789"))
"""


def test_a_plugin_is_blamed_for_its_pixels(
    small: Workspace, write: Callable[[str, str], Path]
) -> None:
    write("models/data.py", PLUGIN)
    with pytest.raises(
        RobenchError, match="dataset.*pixels from 0 to 255, not in .0, 1.: they seem"
    ):
        robench.evaluate(
            Plain(),
            {"name": "./data.py:Bytes"},
            attacks=["fgsm"],
            workspace=small.root,
            progress=False,
        )


# -- cards -----------------------------------------------------------------------------------------


def test_a_card_may_begin_with_a_byte_order_mark(
    small: Workspace, write: Callable[[str, str], Path]
) -> None:
    text = '\ufeffattack = "fgsm"\naccess = "white-box"\neps = "8/255"\n'
    write("attacks/marked.toml", text)
    assert small.card("attacks", "marked").eps == 8 / 255


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("8/255", 8 / 255),
        (" 0.5 / 255 ", 0.5 / 255),
        ("3/1", 3.0),
        (["2/255", 0.1], (2 / 255, 0.1)),
    ],
)
def test_a_radius_may_be_a_fraction(said: Any, meant: Any) -> None:
    card = AttackCard(attack="fgsm", access="white-box", norm="l2", eps=said, name="a", root=Path())
    assert card.eps == meant


@pytest.mark.parametrize("said", ["8/0", "8//255", "-8/255", "eight", "1e400/2x"])
def test_what_is_no_fraction_is_refused(said: str) -> None:
    assert as_number(said) == said
    with pytest.raises(ValueError, match="eps"):
        AttackCard(attack="fgsm", access="white-box", eps=said, name="a", root=Path())


# -- draws from elsewhere --------------------------------------------------------------------------


class DrawsElsewhere(nn.Module):
    """Adds noise that numpy or `random` draws."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.inner, self.source = Plain(), source

    def forward(self, x: Tensor) -> Any:
        import random

        if self.source == "numpy":
            noise = torch.from_numpy(np.random.normal(size=(len(x), 10)).astype(np.float32))
        else:
            noise = torch.tensor([[random.gauss(0, 1) for _ in range(10)] for _ in x])
        return self.inner(x) + noise


@pytest.mark.parametrize("source", ["numpy", "random"])
def test_what_a_stochastic_network_draws_elsewhere_is_the_same_in_every_store(
    source: str, small: Workspace
) -> None:
    torch.manual_seed(0)
    module = DrawsElsewhere(source)
    rows = [
        robench.evaluate(
            module, "digits", report="small", workspace=small.root, images=30, stochastic=True,
            progress=False, store=small.root / store, name="mine",
        ).results.table("mine", 0, "clean")
        for store in ("one", "two")
    ]  # fmt: skip
    assert rows[0] is not None
    assert rows[0].equals(rows[1])
    predictions = np.array(rows[0].column("predictions").to_pylist())
    assert (predictions != predictions[:, :1]).any()
