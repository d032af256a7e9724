"""Image classifiers of transformers: from folders that lie there already, normalised inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robench.checks.networks import check_network
from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.modules.huggingface import HuggingFace, _normalisation
from robench.workspace import plugins
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
SMALL = {
    "vit": {
        "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "image_size": 8, "patch_size": 4,
    },
    "resnet": {
        "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"
    },
}  # fmt: skip


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("transformers", reason="the extra huggingface is not installed")


def folder(root: Path, kind: str, processor: dict[str, Any] | None = None, **more: Any) -> Path:
    made = root / "models" / kind
    made.mkdir(parents=True, exist_ok=True)
    config = {"model_type": kind, "num_channels": 1, **SMALL.get(kind, {}), **more}
    (made / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (made / "preprocessor_config.json").write_text(json.dumps(processor))
    return made


def card(small: Workspace, write: Write, kind: str, trainer: str = '"bp"', more: str = "") -> Any:
    write(
        "models/own.toml",
        f'dataset = "digits"\nnetwork = {{ name = "huggingface", model = "{kind}"{more} }}\n'
        f"trainer = {{ {trainer if '=' in trainer else 'name = ' + trainer} }}\n",
    )
    return small.card("models", "own")


def built(of: Any) -> HuggingFace:
    torch.manual_seed(0)
    network = plugins.build("networks", of.network, of, input_shape=(1, 8, 8), classes=10)
    assert isinstance(network, HuggingFace)
    return network.eval()


@pytest.mark.usefixtures("library")
def test_it_keeps_the_contract_of_every_network(small: Workspace, write: Write) -> None:
    folder(small.root, "resnet", {"do_normalize": True, "image_mean": [0.4], "image_std": [0.2]})
    of = card(small, write, "resnet")

    def made(shape: Any, classes: int, graph: Any) -> Any:
        return plugins.build("networks", of.network, of, input_shape=shape, classes=classes)

    assert [found for found in check_network(made) if not found.passed] == []


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_folder_is_a_network_normalised_as_its_processor_says(
    small: Workspace, write: Write, kind: str
) -> None:
    folder(small.root, kind, {"do_normalize": True, "image_mean": [0.25], "image_std": [0.5]})
    network = built(card(small, write, kind))
    x = torch.rand(3, 1, 8, 8)
    assert network(x).shape == (3, 10)
    torch.testing.assert_close(network(x), network.module((x - 0.25) / 0.5).logits)


def test_whatever_a_processor_does_to_bytes_is_known_of_pixels() -> None:
    assert _normalisation({}, "") == {}
    assert _normalisation({"do_rescale": True, "rescale_factor": 1 / 255}, "") == {}
    both = {"image_mean": [0.5], "image_std": [0.25]}
    assert _normalisation(both, "") == {"mean": [0.5], "std": [0.25]}
    assert _normalisation({**both, "do_normalize": False}, "") == {}
    # EfficientNet's: bytes / 127.5 - 1, which is (x - .5) / .5.
    assert _normalisation({"rescale_factor": 1 / 127.5, "rescale_offset": True}, "") == {
        "mean": [0.5],
        "std": [0.5],
    }


@pytest.mark.usefixtures("library")
def test_weights_lie_beside_the_configuration(small: Workspace, write: Write) -> None:
    folder(small.root, "vit")
    whole = built(card(small, write, "vit"))
    whole.module.save_pretrained(small.root / "models" / "vit")
    again = card(small, write, "vit", 'name = "given", weights = "vit/model.safetensors"')
    other = built(again)
    trainer = plugins.build("trainers", again.trainer, again)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    trainer.fit(other, None, torch.Generator(), lambda *_: None)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(other(x), whole(x))


@pytest.mark.usefixtures("library")
def test_weights_of_another_network_do_not_fit(small: Workspace, write: Write) -> None:
    folder(small.root, "resnet")
    built(card(small, write, "resnet")).module.save_pretrained(small.root / "models" / "resnet")
    folder(small.root, "vit")
    of = card(small, write, "vit", 'name = "given", weights = "resnet/model.safetensors"')
    trainer = plugins.build("trainers", of.trainer, of)
    with pytest.raises(RobenchError, match="the weights do not fit the network: missing keys"):
        trainer.fit(built(of), None, torch.Generator(), lambda *_: None)


@pytest.mark.usefixtures("library")
def test_an_identity_holds_the_configuration_and_not_where_it_lies(
    small: Workspace, write: Write
) -> None:
    folder(small.root, "vit")
    before = resolve_model(card(small, write, "vit")).fields["network"]
    (small.root / "models" / "vit").rename(small.root / "models" / "elsewhere")
    assert resolve_model(card(small, write, "elsewhere")).fields["network"] == before
    folder(small.root, "elsewhere", model_type="vit", **{**SMALL["vit"], "intermediate_size": 16})
    assert resolve_model(card(small, write, "elsewhere")).fields["network"] != before


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("none", None, "there is no config.json"),
        ("odd", {"model_type": "no-such-kind"}, "no-such-kind"),
        ("own", {"model_type": "vit", "auto_map": {}}, "is not run"),
    ],
)
def test_mistakes_are_one_clear_error(
    small: Workspace, write: Write, kind: str, config: dict[str, Any] | None, said: str
) -> None:
    if config is not None:
        folder(small.root, kind, **config)
    with pytest.raises(RobenchError, match=said):
        resolve_model(card(small, write, kind))


def test_without_the_library_it_is_said_how_to_get_it(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(small.root, "vit")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RobenchError, match=r"pip install 'robench\[huggingface\]'"):
        resolve_model(card(small, write, "vit"))
