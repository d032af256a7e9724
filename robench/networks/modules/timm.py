"""Networks of the library timm, by name, with the normalisation that it configures inside."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field
from torch import nn

from robench.errors import RobenchError
from robench.networks.modules.library import factory_of
from robench.networks.modules.module import Module
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting

FACTORY = "timm:create_model"


class Timm(Module):
    """Any network of timm, untrained: `model` as in timm.list_models(). Weights come from a trainer
    or, by trainer `given`, from a safetensors file, such as the one in timm's cache.

    Where the card says no `mean` and `std`, they are those that timm's configuration of the network
    names, so that eps stays in pixels.
    """

    model: str = Field(min_length=1)
    """Its name, such as "resnet18" or "vit_small_patch16_224"."""
    factory: Setting = FACTORY

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        make, text = factory_of("timm", FACTORY, settings, card)
        wanted = settings.get("model")
        if isinstance(wanted, str):
            make = partial(_made, make, wanted, str(card.file))
        return {**settings, "factory": Located(text, make)}

    def build(self) -> None:
        channels = self.input_shape[0]
        self.arguments = {"num_classes": self.classes, "in_chans": channels, **self.arguments}
        super().build()
        config: Mapping[str, Any] = getattr(self.module, "pretrained_cfg", None) or {}
        for name in ("mean", "std"):
            values = tuple(config.get(name, ()))
            if len(values) == channels:
                self.unless_said(name, values)


def _made(make: Any, model: str, where: str, **arguments: Any) -> nn.Module:
    """The network that timm makes; nothing is downloaded."""
    if arguments.pop("pretrained", False):
        raise RobenchError(
            f"{where}: arguments: pretrained: robench downloads no weights; name a safetensors "
            "file of them: trainer = { name = 'given', weights = FILE }"
        )
    module: nn.Module = make(model, pretrained=False, **arguments)
    return module
