"""Networks of RobustBench's zoo: by their names, with weights from the files that lie there."""

from __future__ import annotations

import enum
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.modules.robustbench import RobustBench
from robench.workspace import plugins
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
CARD = """
dataset = "digits"
network = {{ name = "robustbench", model = "{model}"{more} }}
trainer = {{ name = "given", weights = "{weights}" }}
"""


class Normed(nn.Module):
    """What stands for a network of the zoo: it normalises inside, and has a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.full((1,), 0.25))
        self.layer = nn.Linear(64, 10)
        self.norm = nn.BatchNorm1d(10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.layer((x - self.get_buffer("mu")).flatten(1)))
        return answer


class Wrapped(nn.Module):
    """One whose names begin with `model.`, as the zoo's for ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Normed()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)
        return answer


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library of that name with a small zoo, and what it imports."""
    data = enum.Enum("BenchmarkDataset", {"cifar_10": "cifar10", "imagenet": "imagenet"})
    threats = enum.Enum("ThreatModel", {"Linf": "Linf", "L2": "L2"})
    known = {
        "Good2020Normed": {"model": Normed, "gdrive_id": "1x"},
        "Good2021Wrapped": {"model": Wrapped, "gdrive_id": "1y"},
        "Other2020Deck": {"model": Normed, "gdrive_id": ["1a", "1b"]},
        "Standard_R50": {"model": _fetches, "gdrive_id": ""},
        "Light2022-S": {"model": _fetches, "gdrive_id": None},
    }

    def create_model(name: str, num_classes: int, pretrained: bool) -> nn.Module:
        assert not pretrained
        assert (name, num_classes) == ("light2022_s_cifar10_linf", 10)
        return Normed()

    modules = {
        name: ModuleType(name)
        for name in ("robustbench", "robustbench.model_zoo", "robustbench.model_zoo.enums", "timm")
    }
    vars(modules["robustbench.model_zoo"])["model_dicts"] = {
        data("cifar10"): {threats("Linf"): known, threats("L2"): {}}
    }
    vars(modules["robustbench.model_zoo.enums"]).update(BenchmarkDataset=data, ThreatModel=threats)
    vars(modules["timm"]).update(
        create_model=create_model, is_model=lambda name: name == "light2022_s_cifar10_linf"
    )
    (tmp_path / "robustbench").mkdir()
    (tmp_path / "robustbench/__init__.py").write_text("")
    modules["robustbench.model_zoo"].__file__ = str(tmp_path / "robustbench/__init__.py")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def _fetches() -> nn.Module:
    raise AssertionError("this one would be downloaded")


def card_of(
    small: Workspace, write: Write, model: str, weights: str = "zoo/n.pt", more: str = ""
) -> Any:
    write("models/own.toml", CARD.format(model=model, weights=weights, more=more))
    return small.card("models", "own")


def filled(small: Workspace, card: Any) -> RobustBench:
    """The network of a card with the weights of its file."""
    network = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
    trainer = plugins.build("trainers", card.trainer, card)
    trainer.fit(network, None, torch.Generator(), lambda *_: None)
    assert isinstance(network, RobustBench)
    return network.eval()


def zoo_file(small: Workspace, content: Any, name: str = "n.pt") -> Path:
    path = small.root / "models/zoo" / name
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


def weights_of(kind: type[nn.Module]) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(1)
    network = kind().eval()
    return network, network.state_dict()


@pytest.mark.parametrize(
    "held", [lambda state: state, lambda state: {"state_dict": state, "epoch": 7},
             lambda state: {"last": state, "best": {}}],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("kind", [Normed, Wrapped])
def test_files_of_the_zoo_are_read_however_they_hold_their_weights(
    small: Workspace,
    write: Write,
    held: Callable[[Any], Any],
    prefix: str,
    kind: type[nn.Module],
) -> None:
    network, state = weights_of(kind)
    inner = {name.removeprefix("model."): value for name, value in state.items()}
    zoo_file(small, held({prefix + name: value for name, value in inner.items()}))
    model = "Good2020Normed" if kind is Normed else "Good2021Wrapped"
    found = filled(small, card_of(small, write, model))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(found(x), network(x))


def test_the_network_brings_its_normalisation_where_a_file_has_none(
    small: Workspace, write: Write
) -> None:
    network, state = weights_of(Normed)
    del state["mu"], state["norm.num_batches_tracked"]
    zoo_file(small, {**state, "scores": torch.ones(3)})
    found = filled(small, card_of(small, write, "Good2020Normed"))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(found(x), network(x))


def test_a_file_of_an_older_timm_is_converted_as_timm_does(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ModuleType("timm.models.swin_transformer")

    def convert(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, Normed)
        return {name.replace("head.", "layer."): value for name, value in state.items()}

    vars(home)["checkpoint_filter_fn"] = convert
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setattr(Normed, "__module__", home.__name__)
    network, state = weights_of(Wrapped)
    old = {f"module.{name}".replace("layer.", "head."): value for name, value in state.items()}
    zoo_file(small, {"state_dict": old})
    found = filled(small, card_of(small, write, "Good2021Wrapped"))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(found(x), network(x))


def test_a_weight_that_is_missing_is_an_error(small: Workspace, write: Write) -> None:
    _, state = weights_of(Normed)
    del state["norm.running_mean"]
    zoo_file(small, {**state, "scores": torch.ones(3)})
    with pytest.raises(RobenchError, match=r"do not fit the network: Missing key.*running_mean"):
        filled(small, card_of(small, write, "Good2020Normed"))


def test_a_safetensors_file_counts_by_the_same_tensors(small: Workspace, write: Write) -> None:
    network, state = weights_of(Normed)
    zoo_file(small, state)
    (small.root / "models/zoo/n.safetensors").write_bytes(safetensors.torch.save(state))
    cards = [
        card_of(small, write, "Good2020Normed", f"zoo/n.{end}") for end in ("pt", "safetensors")
    ]
    one, other = (resolve_model(card) for card in cards)
    assert one.digest(0) == other.digest(0)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(filled(small, cards[1])(x), network(x))


class Runs:
    """A pickle that would make a folder when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_no_code_in_a_file_is_run(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path = zoo_file(small, {"state_dict": Runs()})
    where = r"own\.toml: weights = 'zoo/n\.pt': "
    with pytest.raises(RobenchError, match=rf"{where}holds more than tensors \(posix\.mkdir\)"):
        resolve_model(card_of(small, write, "Good2020Normed"))
    path.write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(RobenchError, match=rf"{where}holds more than tensors \(posix\.mkdir\)"):
        resolve_model(card_of(small, write, "Good2020Normed"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("Good2020Normd", "", r"not in the zoo for cifar10 and Linf; did you mean Good2020Normed"),
        (
            "Good2020Normed",
            ', threat_model = "L2"',
            r"not in the zoo for cifar10 and L2; there are",
        ),
        ("Good2020Normed", ', zoo = "mnist"', r"zoo = 'mnist': must be one of 'cifar10'"),
        ("Other2020Deck", "", r"several networks with a file each"),
        ("Standard_R50", "", r"from another library"),
        ("Good2020Normed", ', factory = "torch:rand"', "has its own"),
    ],
)
def test_mistakes_are_one_clear_error(
    small: Workspace, write: Write, model: str, more: str, said: str
) -> None:
    zoo_file(small, weights_of(Normed)[1])
    with pytest.raises(RobenchError, match=said):
        resolve_model(card_of(small, write, model, more=more))


def test_what_is_not_there_is_not_downloaded(small: Workspace, write: Write) -> None:
    said = r"weights = 'zoo/n\.pt': .*\(robench downloads nothing: robustbench\.load_model\("
    with pytest.raises(RobenchError, match=said):
        resolve_model(card_of(small, write, "Good2020Normed"))


def test_one_that_the_zoo_registers_with_timm_is_made_without_its_weights(
    small: Workspace, write: Write
) -> None:
    network, state = weights_of(Normed)
    zoo_file(small, state)
    found = filled(small, card_of(small, write, "Light2022-S"))
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(found(x), network(x))


def test_its_releases_find_autoattack_under_the_name_that_they_require(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("robustbench", "robustbench.model_zoo", "robustbench.model_zoo.enums"):
        monkeypatch.delitem(sys.modules, name)
    for name in ("autoattack", "autoattack.state", "pyautoattack", "pyautoattack.state"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    files = {
        "robustbench/__init__.py": "from autoattack import AutoAttack\n"
        "from autoattack.state import EvaluationState\n",
        "robustbench/model_zoo/__init__.py": "from .enums import *\nfrom torch import nn\n"
        "def plain(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "plainly = {'Good2020Plain': {'model': plain, 'gdrive_id': '1x'}}\n"
        "model_dicts = {BenchmarkDataset('cifar10'): {ThreatModel('Linf'): plainly}}\n",
        "robustbench/model_zoo/enums.py": "from enum import Enum\n"
        "BenchmarkDataset = Enum('BenchmarkDataset', {'cifar_10': 'cifar10'})\n"
        "ThreatModel = Enum('ThreatModel', {'Linf': 'Linf'})\n",
        "pyautoattack/__init__.py": "AutoAttack = 1\n",
        "pyautoattack/state.py": "EvaluationState = 2\n",
    }
    for name, text in files.items():
        path = tmp_path / "installed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    zoo_file(small, {"1.weight": torch.ones(10, 64), "1.bias": torch.zeros(10)})
    found = filled(small, card_of(small, write, "Good2020Plain"))
    assert torch.equal(found(torch.ones(1, 1, 8, 8)), torch.full((1, 10), 64.0))
    assert "autoattack" not in sys.modules
    for name in [name for name in sys.modules if name.startswith(("robustbench", "pyautoattack"))]:
        del sys.modules[name]  # for good: what was there before comes back


def test_without_the_library_it_is_said_how_to_get_it(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "robustbench", None)
    monkeypatch.delitem(sys.modules, "robustbench.model_zoo")
    zoo_file(small, weights_of(Normed)[1])
    with pytest.raises(RobenchError, match=r"network 'robustbench': .*pip install 'robench\[robus"):
        resolve_model(card_of(small, write, "Good2020Normed"))


def test_a_torchvision_for_another_torch_is_said(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("robustbench", "robustbench.model_zoo", "robustbench.model_zoo.enums"):
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "installed/robustbench").mkdir(parents=True)
    (tmp_path / "installed/robustbench/__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    zoo_file(small, weights_of(Normed)[1])
    with pytest.raises(RobenchError, match=r"'robustbench': .*nms.*; torchvision is built for an"):
        resolve_model(card_of(small, write, "Good2020Normed"))
