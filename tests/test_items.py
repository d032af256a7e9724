"""Data sets of other libraries, whose items are read one by one: torch's, Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from robench.data.handed import data_handed_over
from robench.data.items import class_names, stacked
from robench.errors import RobenchError

BYTES = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
PICTURES = [Image.fromarray(each) for each in BYTES]
X = torch.from_numpy(BYTES.transpose(0, 3, 1, 2).astype(np.float32) / 255)
Y = [0, 1, 1, 0, 2]


class Items(TorchDataset[Any]):
    def __init__(self, item: Callable[[int], Any], count: int = 5) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return ({"image": X[i], "label": Y[i]} for i in range(5))


class OfHuggingFace:
    """What robench asks of a `datasets.Dataset`, by that module's name."""

    def __init__(self, form: str | None = "torch") -> None:
        image = type("Image", (), {})()
        self.form = form
        self.features = {"img": image, "label": SimpleNamespace(names=["ant", "bee", "cow", "dog"])}

    def with_format(self, form: str | None) -> OfHuggingFace:
        return OfHuggingFace(form)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        image: Any = PICTURES[number] if self.form is None else X[number] * 255
        return {"img": image, "label": Y[number], "id": number}


OfHuggingFace.__module__ = "datasets.arrow_dataset"


@pytest.mark.parametrize(
    "dataset",
    [
        Items(lambda i: (X[i], Y[i])),
        Items(lambda i: [X[i].numpy(), torch.tensor(Y[i])]),
        Items(lambda i: (PICTURES[i], Y[i])),
        Items(lambda i: {"image": PICTURES[i], "label": Y[i]}),
        Items(lambda i: {"pixel_values": X[i], "labels": Y[i], "file": "x"}),
        DataLoader(Items(lambda i: (X[i], Y[i])), batch_size=2, shuffle=True),
        Stream(),
        DataLoader(Stream(), batch_size=2),
        OfHuggingFace(),
        DataLoader(OfHuggingFace(), batch_size=2),  # type: ignore[arg-type]
    ],
)
def test_images_and_labels_are_found_in_items_of_any_form(dataset: Any) -> None:
    images, labels = stacked(dataset, True, "data")
    np.testing.assert_array_equal(images, X.numpy())
    assert labels.tolist() == Y


def test_names_of_classes_come_with_huggingfaces_data_even_of_those_without_an_image() -> None:
    assert class_names(OfHuggingFace()) == ("ant", "bee", "cow", "dog")
    handed = data_handed_over(OfHuggingFace())
    assert handed is not None
    assert handed.make().classes == ("ant", "bee", "cow", "dog")


def test_a_grey_picture_has_one_channel_and_sixteen_bits_their_white() -> None:
    wide = Image.fromarray(np.full((4, 4), 51 * 257, np.uint16))
    for image in (Image.new("L", (4, 4), 51), wide):
        images, _ = stacked(Items(lambda _, image=image: (image, 0)), True, "data")
        np.testing.assert_array_equal(images, np.full((5, 1, 4, 4), np.float32(51) / 255))


def test_images_alone_do_where_no_labels_are_asked_for() -> None:
    images, labels = stacked(Items(lambda i: {"image": X[i]}), False, "data")
    np.testing.assert_array_equal(images, X.numpy())
    assert labels.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (Items(lambda i: (X[i], Y[i], i)), r"item 0 is tuple, not \(image, label\)"),
        (Items(lambda i: {"picture": X[i], "label": 0}), "item 0 has picture, label: an image is"),
        (Items(lambda i: {"image": X[i]}), "item 0 has image: .*a label as label, labels"),
        (Items(lambda i: (X[i][:, : i + 1], 0)), r"item 1 is \(3, 2, 4\), but the first"),
        (Items(lambda i: (X[0], 0), 0), "is empty"),
        (Items(lambda i: (X[0], 0), 10**8), "100000000 images of .* are 18 GiB, more than the 8"),
    ],
)
def test_items_that_do_not_do_are_one_clear_error(dataset: Any, said: str) -> None:
    with pytest.raises(RobenchError, match=f"data: {said}"):
        stacked(dataset, True, "data")


def test_several_parts_are_not_guessed_among() -> None:
    parts = type("DatasetDict", (dict,), {})(train=1, test=2)
    with pytest.raises(RobenchError, match=r"DatasetDict: say which part.*train, test"):
        data_handed_over(parts)
