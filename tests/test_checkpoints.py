"""Checkpoints as people publish them: their tensors become a file that cards name, and no code in
them is run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import robench
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.modules.checkpoint import rewritten, tensors_of
from robench.workspace import plugins
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
NET = (
    "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
)
CARD = """
dataset = "digits"
network = {{ name = "module", factory = "./net.py:make" }}
trainer = {{ name = "given", weights = "{weights}" }}
"""
STATE = {"1.weight": torch.arange(640.0).view(10, 64), "1.bias": torch.ones(10)}


def same(found: dict[str, Tensor], names: Callable[[str], str] = lambda name: name) -> bool:
    return found.keys() == {names(name) for name in STATE} and all(
        torch.equal(found[names(name)], value) for name, value in STATE.items()
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("held", "beside"),
    [
        (STATE, ()),
        ({"state_dict": STATE, "best_prec1": 91.78}, ("best_prec1",)),
        ({"net": STATE, "acc": 95.2, "epoch": 199}, ("acc", "epoch")),
        ({"model": STATE, "optimizer": {"state": {0: {}}, "param_groups": []}}, ("optimizer",)),
        ({"model": {"state_dict": STATE, "arch": "x"}, "epoch": 1}, ("epoch", "arch")),
    ],
)
def test_weights_are_found_where_checkpoints_hold_them(
    tmp_path: Path, held: Any, beside: tuple[str, ...], zipped: bool
) -> None:
    torch.save(held, tmp_path / "n.th", _use_new_zipfile_serialization=zipped)
    found, left = tensors_of(tmp_path / "n.th")
    assert same(found)
    assert left == beside


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    tied = torch.rand(4, 4)
    torch.save({"a": tied, "b": tied, "c": tied.T}, tmp_path / "n.pt")
    new, said = rewritten(tmp_path / "n.pt")
    found = safetensors.torch.load_file(new)
    assert said == "3 tensors"
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied.T)


def test_a_card_is_told_what_to_do_with_a_checkpoint_and_that_works(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.root)
    write("models/net.py", NET)
    held = {"state_dict": {f"module.{name}": value for name, value in STATE.items()}, "epoch": 3}
    torch.save(held, small.root / "models/net.th")
    write("models/own.toml", CARD.format(weights="net.th"))
    with pytest.raises(RobenchError, match=r"is a pickle.*robench new weights (\S+)") as refused:
        resolve_model(small.card("models", "own"))
    file = str(refused.value).partition("new weights ")[2].split()[0]
    done = robench("new", "weights", file)
    assert done.returncode == 0, done.stderr
    said = done.stdout.replace("\n", "")
    assert "net.safetensors: 2 tensors; left out: epoch" in said
    assert 'trainer = { name = "given", weights = "net.safetensors" }' in said
    write("models/own.toml", CARD.format(weights="net.safetensors"))
    card = small.card("models", "own")
    network = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
    plugins.build("trainers", card.trainer, card).fit(
        network, None, torch.Generator(), lambda *_: None
    )
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(network(x), x.flatten(1) @ STATE["1.weight"].T + STATE["1.bias"])


def test_a_published_checkpoint_is_read_where_it_is_installed() -> None:
    """AutoAttack's example network: in torch's old format, its tensors on a GPU."""
    package = find_spec("pyautoattack")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pip install 'robench[autoattack]'")
    found, left = tensors_of(Path(package.submodule_search_locations[0]) / "examples/model_test.pt")
    assert (len(found), left) == (122, ())
    assert found["conv1.weight"].shape == (64, 3, 3, 3)
    assert sum(value.numel() for value in found.values()) == 11_183_582
    assert all(value.device.type == "cpu" for value in found.values())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"w": torch.ones(2), "best": np.float64(0.9)}, r"numpy\S*scalar"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_checkpoint_that_holds_more_than_tensors_is_refused_by_what_it_holds(
    tmp_path: Path, held: Any, named: str, zipped: bool
) -> None:
    path = tmp_path / "n.pt"
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    said = rf"n\.pt: holds more than tensors \({named}\).*write its weights alone.*save_file"
    with pytest.raises(RobenchError, match=said) as refused:
        rewritten(path)
    assert str(refused.value).isprintable()
    assert not path.with_suffix(".safetensors").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02}.", "cannot be read as a checkpoint of torch.save"),
        (b"PK\x03\x04", "cannot be read as a checkpoint of torch.save"),
        (b"some text", "is not a checkpoint of torch.save"),
        (None, "No such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "n.pt").write_bytes(content)
    with pytest.raises(RobenchError, match=rf"n\.pt: {said}"):
        rewritten(tmp_path / "n.pt")


def test_a_checkpoint_of_several_networks_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"state_dict": [STATE, STATE], "err": 0.7}, tmp_path / "n.pt")
    with pytest.raises(RobenchError, match=r"no tensor has a name.*state_dict \(list of 2\), err"):
        rewritten(tmp_path / "n.pt")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "n.pt")
    (tmp_path / "n.safetensors").write_bytes(b"mine")
    with pytest.raises(RobenchError, match="lies there already"):
        rewritten(tmp_path / "n.pt")
    assert (tmp_path / "n.safetensors").read_bytes() == b"mine"
