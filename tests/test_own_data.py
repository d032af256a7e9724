"""`robench.evaluate` on data that people bring: arrays, torch data sets, classes, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import carry_out
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import robench
from robench.data.checked import checked_images, checked_labels
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def pixels() -> tuple[Tensor, Tensor]:
    """Forty digits, 8x8, and their labels."""
    data = Digits().load().test
    return torch.from_numpy(data.images[:40]), torch.from_numpy(data.labels[:40])


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def quietly(small: Workspace) -> dict[str, Any]:
    return {"workspace": small.root, "report": "small", "progress": False, "attacks": ["fgsm"]}


MINE = """
import numpy as np
from robench import Dataset
from robench.data.digits import Digits

class Mine(Dataset):
    def load(self):
        return Digits().load()
"""


def test_arrays_tensors_torch_data_and_loaders_are_the_same_data(
    pixels: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    x, y = pixels
    ways = [
        (x, y),
        (x.numpy(), y.numpy()),
        (x.double(), y.tolist()),
        TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True),
    ]
    cells = []
    for way in ways:
        result = robench.evaluate(net, way, **quietly)
        cells.append(result.results.cell("Sequential", 0, "fgsm"))
        assert result.per_image["label"][:40].tolist() == y.tolist()
    assert len({cell["digest"] for cell in cells if cell}) == 1, "known by their content"


def test_a_data_set_class_its_instance_and_its_file_are_one(
    net: nn.Module, quietly: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mydata.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    found = [
        robench.evaluate(net, way, images=30, **quietly).results.cell("Sequential", 0, "clean")
        for way in (Digits, Digits(), "./mydata.py:Mine")
    ]
    assert len({cell["digest"] for cell in found if cell}) == 1


def test_a_class_file_with_an_error_is_named(
    net: nn.Module, quietly: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RobenchError, match=r"mydata\.py.*no such file"):
        robench.evaluate(net, "./mydata.py:Mine", **quietly)


def test_labels_of_which_the_last_classes_are_absent_still_fit_the_module(
    pixels: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    x, y = pixels
    few = y < 4
    result = robench.evaluate(net, (x[few], y[few]), **quietly)
    assert (result.per_image["threat"] == "clean").sum() == int(few.sum())


def test_labels_that_are_texts_are_mapped(
    pixels: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    x, y = pixels
    names = [f"digit {number}" for number in range(10)]
    texts = [names[int(label)] for label in y]
    by_name = robench.evaluate(net, (x, texts), classes=names, **quietly)
    assert by_name.clean == robench.evaluate(net, (x, y), **quietly).clean


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 255, r"from 0 to 255, not in \[0, 1\]: they seem to be 0..255; divide"),
        (lambda x: (x * 255).byte(), "0..255; divide them by 255"),
        (lambda x: x * 2 - 1, r"seem to be -1..1; give \(x \+ 1\) / 2"),
        (lambda x: (x - 0.13) / 0.31, "seem to be normalised; .*mean = .*std ="),
        (lambda x: x[:, 0], r"one channel: x\[:, None\]"),
        (
            lambda x: x.expand(-1, 3, 8, 8).permute(0, 2, 3, 1),
            "channels seem to come last.*permute",
        ),
        (lambda x: x[:0], "none of them 0"),
        (lambda x: x * float("nan"), "NaN or infinite"),
        (lambda x: [[1.0], [1.0, 2.0]], "is no array"),
        (lambda x: np.array(["a"] * len(x)), "not numbers"),
    ],
)
def test_images_that_are_none_are_refused_with_the_likely_mistake(
    pixels: tuple[Tensor, Tensor],
    net: nn.Module,
    quietly: dict[str, Any],
    change: Callable[[Tensor], Any],
    said: str,
) -> None:
    with pytest.raises(RobenchError, match=said):
        robench.evaluate(net, (change(pixels[0]), pixels[1]), **quietly)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y + 0.5, "0.5 is not a whole number|is not a whole number"),
        (lambda y: y - 1, "label -1: labels count the classes from 0"),
        (lambda y: nn.functional.one_hot(y, 10), "one-hot"),
        (lambda y: y[:-1], r"shape \(39,\), but there are 40 images"),
        (lambda y: [None] * 40, "holds object|not among"),
    ],
)
def test_labels_that_are_none_are_refused(
    pixels: tuple[Tensor, Tensor], change: Callable[[Tensor], Any], said: str
) -> None:
    names = tuple(str(number) for number in range(10))
    with pytest.raises(RobenchError, match=said):
        checked_labels(change(pixels[1]), 40, "y", names)


@pytest.mark.parametrize("dataset", [3, None, object(), (1, 2, 3)])
def test_what_is_no_data_is_refused_with_what_may_be_given(
    net: nn.Module, quietly: dict[str, Any], dataset: Any
) -> None:
    with pytest.raises(RobenchError, match=r"give a name .*\(x, y\), a torch Dataset"):
        robench.evaluate(net, dataset, **quietly)


def test_a_torch_data_set_of_unequal_sizes_names_the_item(
    net: nn.Module, quietly: dict[str, Any]
) -> None:
    items = [(torch.zeros(1, 8, 8), 0), (torch.zeros(1, 9, 8), 0)]

    class Uneven(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Any:
            return items[number]

    with pytest.raises(RobenchError, match=r"item 1 is \(1, 9, 8\), but the first \(1, 8, 8\)"):
        robench.evaluate(net, Uneven(), **quietly)


def test_the_framework_keeps_a_copy_of_what_was_handed_over() -> None:
    mine = np.zeros((2, 1, 8, 8), np.float32)
    kept = checked_images(mine, "x")
    mine[:] = 1
    assert kept.max() == 0


def test_a_file_of_arrays_is_a_data_set_of_a_card(
    small: Workspace, write: Write, pixels: tuple[Tensor, Tensor]
) -> None:
    x, y = (part.numpy() for part in pixels)
    np.savez(small.root / "models/mine.npz", x=x[:10], y=y[:10], x_train=x, y_train=y)
    text = 'dataset = { name = "arrays", file = "mine.npz" }\nnetwork = "mlp"\ntrainer = "bp"\n'
    write("models/own.toml", text)
    first = resolve_model(small.card("models", "own"))
    assert first.parameters > 0
    np.savez(small.root / "models/mine.npz", x=x[:9], y=y[:9], x_train=x, y_train=y)
    assert resolve_model(small.card("models", "own")).digest(0) != first.digest(0)


@pytest.mark.parametrize("split", ["official", "8:2"])
def test_a_model_is_trained_only_where_there_are_images_for_training(
    small: Workspace, write: Write, pixels: tuple[Tensor, Tensor], split: str
) -> None:
    x, y = (np.concatenate([part.numpy()] * 6) for part in pixels)
    np.savez(small.root / "models/mine.npz", x=x, y=y)
    mine = f'dataset = {{ name = "arrays", file = "mine.npz", split = "{split}" }}\n'
    write("models/small.toml", mine + 'network = "mlp"\ntrainer = { name = "bp", epochs = 1 }\n')
    _, heard = carry_out(small)
    said = [failure.message for failure in heard.failed.values()]
    if split == "official":  # x and y are all for testing
        assert any("'arrays' has no training images: say split = '8:2'" in text for text in said)
    else:
        assert not said


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"x": np.zeros((2, 1, 4, 4))}, "lacks y; it has x"),
        ({"x": np.zeros((2, 1, 4, 4)), "y": np.zeros(2), "x_train": np.zeros(1)}, "go together"),
        (None, r"is not a \.npz file of arrays"),
        ({"x": np.array([object()], dtype=object), "y": np.zeros(1)}, r"is not a \.npz file"),
    ],
)
def test_a_file_that_holds_no_arrays_is_one_clear_error(
    small: Workspace, write: Write, held: dict[str, Any] | None, said: str
) -> None:
    path = small.root / "models/mine.npz"
    if held is None:
        path.write_bytes(b"no arrays")
    else:
        np.savez(path, **held)
    text = 'dataset = { name = "arrays", file = "mine.npz" }\nnetwork = "mlp"\ntrainer = "bp"\n'
    write("models/own.toml", text)
    with pytest.raises(RobenchError, match=said):
        resolve_model(small.card("models", "own"))
