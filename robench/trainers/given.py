"""Weights that were made elsewhere: nothing is trained, a safetensors file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, ClassVar

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor

from robench.data.base import Splits
from robench.errors import RobenchError, system_words
from robench.networks.base import Network
from robench.networks.modules.module import Module
from robench.networks.weights import load_state
from robench.store.seal import PICKLES, tensors_digest
from robench.trainers.base import History, Progress, Trainer
from robench.workspace.cards import Card, ModelCard
from robench.workspace.plugins import Located, Setting, beside, load


class GivenWeights(Trainer):
    """Weights from a safetensors file, as they are."""

    weights: Setting
    """The file, beside the card or by its whole path; keys as in the module's state_dict()."""
    trains: ClassVar[bool] = False

    @classmethod
    def fields(cls) -> type[BaseModel]:
        """The one field: there is no loop to set."""
        return _FIELDS

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("weights")
        if not isinstance(name, str):
            return dict(settings)
        where = f"{card.file}: weights = {name!r}"
        path, kind = beside(name, card, where), _kind(card)
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode):  # a device may never end
                raise RobenchError("is not a file")
            digest = _digest(kind.weights_in, path, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError as error:
            raise RobenchError(f"{where}: {system_words(error)}{kind.absent}") from None
        except (OSError, RobenchError) as error:
            raise RobenchError(f"{where}: {system_words(error)}") from None
        read: Callable[[], Any] = partial(safetensors.torch.load_file, path)
        if kind.weights_in is not Module.weights_in:
            read = partial(_read, kind, path)
        return {**settings, "weights": Located(f"tensors@{digest}", read)}

    def fit(
        self, network: Network, data: Splits, rng: torch.Generator, progress: Progress
    ) -> History:
        """Put the weights into the network. Raises RobenchError where they do not fit."""
        if not isinstance(self.weights, Located):
            raise RobenchError(f"weights = {self.weights!r}: is only found beside a card")
        state: Mapping[str, Tensor] = self.weights.make()
        inner = network.module if isinstance(network, Module) else network
        odd = [name for name, value in state.items() if value.is_complex()]
        if odd:
            raise RobenchError(f"the weights do not fit the network: {odd[0]} is complex")
        try:
            load_state(inner, network.named(state) if isinstance(network, Module) else state)
        except RuntimeError as error:
            first = " ".join(line.strip() for line in str(error).split("\n")[1:3])
            raise RobenchError(f"the weights do not fit the network: {first}") from None
        return []


_FIELDS = create_model(
    "GivenWeights",
    __config__=ConfigDict(extra="forbid", frozen=True),
    weights=(Setting, ...),
)


def _kind(card: Card) -> type[Module]:
    """Who knows how its files of weights are written: the network of a model card."""
    network = load("networks", card.network.name, card) if isinstance(card, ModelCard) else Module
    return network if issubclass(network, Module) else Module


def _read(kind: type[Module], path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load(kind.weights_in(path))


@lru_cache(maxsize=64)
def _digest(weights_in: Callable[[Path], bytes], path: Path, _mtime: int, _size: int) -> str:
    """Of the tensors in a file. Raises RobenchError for one that holds none."""
    data = weights_in(path)
    try:
        safetensors.torch.load(data)
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        if data.startswith(PICKLES):
            raise RobenchError(
                f"is a pickle, and reading one runs the code in it; robench new weights {path} "
                "writes the tensors in it as safetensors, and runs nothing"
            ) from None
        raise RobenchError(f"is not a safetensors file: {error}") from None
    return tensors_digest(data)
