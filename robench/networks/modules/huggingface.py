"""Image classifiers of Hugging Face's library transformers, from a folder as it writes one, with
the normalisation of its image processor inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robench.digest import canonical, digest_bytes
from robench.errors import RobenchError, system_words
from robench.networks.modules.library import factory_of
from robench.networks.modules.module import Module
from robench.workspace import plugins
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting

LIBRARY = "transformers:AutoModelForImageClassification"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
ASIDE = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
"""What a configuration says of where and with what it was written. Networks are float32 here."""


class HuggingFace(Module):
    """Any image classifier of transformers, untrained, as the `config.json` in a folder says.
    Weights come from a trainer or, by trainer `given`, from the `model.safetensors` beside it.

    Where the card says no `mean` and `std`, they are those by which the folder's
    `preprocessor_config.json` prepares images, so that eps stays in pixels; where there is no such
    file, pixels are taken as they are. Sizes are the data set's (`resize`, `crop`, `side`).
    """

    model: Setting
    """The folder, beside the card or by its whole path; nothing is downloaded."""
    factory: Setting = LIBRARY
    output: int | str | None = "logits"

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("model")
        if not isinstance(name, str) or not name:
            return dict(settings)
        where = f"{card.file}: model = {name!r}"
        folder = plugins.beside(name, card, where)
        config = _read(folder / CONFIG, where)
        if config is None:
            raise RobenchError(
                f"{where}: there is no {CONFIG} in {folder}: give the folder that "
                "save_pretrained() writes, or where a model's files lie in the library's cache "
                "(robench downloads nothing)"
            )
        said = _normalisation(_read(folder / PROCESSOR, where) or {}, where)
        known = {key: value for key, value in config.items() if key not in ASIDE}
        make, code = factory_of("huggingface", LIBRARY, settings, card)
        text = f"{config.get('model_type')}@{digest_bytes(canonical([known, said]).encode())}"
        return {
            **settings,
            "model": Located(text, partial(dict, said)),
            "factory": Located(code, partial(_made, make, known, where)),
        }

    def build(self) -> None:
        channels = self.input_shape[0]
        own = {"num_labels": self.classes, "num_channels": channels}
        self.arguments = own | self.arguments
        super().build()
        prepared: Mapping[str, Any] = self.model.make() if isinstance(self.model, Located) else {}
        for name, values in prepared.items():
            if len(values) in (1, channels):
                self.unless_said(name, tuple(values))

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a file under the names that they have in the module: the library's files have
        others. Raises RuntimeError, as torch does, where they do not fit."""
        kind: Any = type(self.module)
        made, info = kind.from_pretrained(
            None, config=self.module.config, state_dict=dict(state), output_loading_info=True
        )
        said = [
            f"{how} keys {', '.join(sorted(map(str, info[f'{how}_keys'])))}"
            for how in ("missing", "unexpected", "mismatched")
            if info.get(f"{how}_keys")
        ]
        if said:
            raise RuntimeError("\n" + "\n".join(said))
        return dict(made.state_dict())


def _read(path: Path, where: str) -> dict[str, Any] | None:
    """A file of JSON; None: there is none."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RobenchError(f"{where}: {path.name}: {system_words(error)}") from None
    if not isinstance(said, dict):
        raise RobenchError(f"{where}: {path.name}: is no table of settings")
    return said


def _normalisation(processor: Mapping[str, Any], where: str) -> dict[str, list[float]]:
    """Mean and deviation of each channel, of images in [0, 1], by which a processor prepares them:
    it multiplies bytes by `rescale_factor`, may subtract 1, and then normalises."""
    scale = 255.0 * float(processor.get("rescale_factor") or 1 / 255)
    if processor.get("do_rescale") is False:
        scale = 255.0
    shift = 1.0 if processor.get("rescale_offset") else 0.0
    mean, std = [0.0], [1.0]
    if processor.get("do_normalize", "image_mean" in processor):
        mean, std = processor.get("image_mean") or mean, processor.get("image_std") or std
    try:
        mean, std = [float(value) for value in mean], [float(value) for value in std]
    except (TypeError, ValueError):
        raise RobenchError(f"{where}: {PROCESSOR}: image_mean or image_std: not numbers") from None
    if not scale or not all(std):
        raise RobenchError(f"{where}: {PROCESSOR}: divides by zero")
    if (mean, std, scale, shift) == ([0.0], [1.0], 1.0, 0.0):
        return {}
    # Rounded, since 255 / 255 is not 1 in floating point.
    return {
        "mean": [round((value + shift) / scale, 9) for value in mean],
        "std": [round(value / scale, 9) for value in std],
    }


def _made(
    make: Any, config: Mapping[str, Any], where: str, num_labels: int, **arguments: Any
) -> nn.Module:
    """The network that the library makes of a configuration; no code of the folder's is run."""
    from transformers import AutoConfig

    if "auto_map" in config:
        raise RobenchError(f"{where}: its code lies in the folder, and is not run")
    channels = arguments.pop("num_channels")
    said = {**config, **arguments}
    if "num_channels" in said or channels != 3:
        said["num_channels"] = channels
    if len(said.get("id2label", ())) != num_labels:  # names of other classes
        said = {key: value for key, value in said.items() if key not in ("id2label", "label2id")}
        said["num_labels"] = num_labels
    try:
        kind = said.pop("model_type")
        module: nn.Module = make.from_config(AutoConfig.for_model(kind, **said))
    except KeyError as error:
        raise RobenchError(f"{where}: {CONFIG}: {error} is missing or unknown") from None
    return module
