"""Networks of timm: by their names, normalised as their configuration says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from timm_here import timm_or_skip
from torch import nn

import robench.networks.modules.timm
from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.modules.timm import Timm
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
CARD = """
dataset = "digits"
network = {{ name = "timm", model = "{model}"{more} }}
trainer = {trainer}
"""
BP = '{ name = "bp", epochs = 1 }'


class Flat(nn.Module):
    """What stands for a network of timm."""

    def __init__(self, num_classes: int, in_chans: int, wide: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(64 * in_chans, num_classes * wide)
        self.pretrained_cfg = {"mean": (0.25,) * in_chans, "std": (0.5,) * in_chans}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layer(x.flatten(1))
        return answer


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A library of that name with one network."""

    def create_model(model_name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
        assert not pretrained
        if model_name != "flat":
            raise RuntimeError(f"Unknown model ({model_name})")
        return Flat(**arguments)

    (tmp_path / "timm.py").write_text("")
    made = ModuleType("timm")
    made.__file__ = str(tmp_path / "timm.py")
    vars(made)["create_model"] = create_model
    monkeypatch.setitem(sys.modules, "timm", made)
    return made


def card_of(
    small: Workspace, write: Write, model: str = "flat", more: str = "", trainer: str = BP
) -> Any:
    write("models/own.toml", CARD.format(model=model, more=more, trainer=trainer))
    return small.card("models", "own")


def built(small: Workspace, write: Write, more: str = "") -> Timm:
    from robench.workspace import plugins

    card = card_of(small, write, more=more)
    torch.manual_seed(0)
    network = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
    assert isinstance(network, Timm)
    return network


@pytest.mark.usefixtures("timm")
def test_its_own_normalisation_is_inside(small: Workspace, write: Write) -> None:
    network = built(small, write)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(network(x), network.module((x - 0.25) / 0.5))


@pytest.mark.usefixtures("timm")
def test_a_card_may_say_another(small: Workspace, write: Write) -> None:
    network = built(small, write, ", mean = [0.0], std = [1.0]")
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(network(x), network.module(x))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("none", "", r"Unknown model \(none\)"),
        ("flat", ", arguments = { pretrained = true }", "downloads no weights"),
        ("flat", ', factory = "torch:rand"', "has its own"),
        ("flat", ", arguments = { wide = true, deep = 2 }", "deep"),
    ],
)
def test_mistakes_are_one_clear_error(
    small: Workspace, write: Write, model: str, more: str, said: str
) -> None:
    with pytest.raises(RobenchError, match=said):
        resolve_model(card_of(small, write, model, more))


def test_without_the_library_it_is_said_how_to_get_it(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RobenchError, match=r"network 'timm': .*pip install 'robench\[timm\]'"):
        resolve_model(card_of(small, write))


@pytest.mark.usefixtures("timm")
def test_weights_come_from_a_safetensors_file(small: Workspace, write: Write) -> None:
    network = Flat(10, 1)
    safetensors.torch.save_file(network.state_dict(), small.root / "models/flat.safetensors")
    given = '{ name = "given", weights = "flat.safetensors" }'
    card = card_of(small, write, trainer=given)
    from robench.workspace import plugins

    found = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
    trainer = plugins.build("trainers", card.trainer, card)
    trainer.fit(found, None, torch.Generator(), lambda *_: None)
    x = torch.rand(5, 1, 8, 8)
    np.testing.assert_array_equal(
        found(x).detach().numpy(), network((x - 0.25) / 0.5).detach().numpy()
    )


def test_networks_of_the_real_library() -> None:
    real = pytest.importorskip("timm", exc_type=ImportError)
    make = robench.networks.modules.timm._made
    made = make(real.create_model, "resnet18", "card", num_classes=7).eval()
    assert made(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_a_network_of_the_library_itself_is_made(small: Workspace, write: Write) -> None:
    timm_or_skip()
    assert resolve_model(card_of(small, write, "resnet18")).parameters > 11_000_000
