"""Networks of RobustBench's model zoo, by name, and their files as its load_model() leaves them.

Croce et al. 2021, arXiv 2010.09670. The zoo's networks take images in [0, 1] and normalise them
inside.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors.torch
from pydantic import Field
from torch import Tensor, nn

from robench.errors import RobenchError, nearest
from robench.networks.modules.checkpoint import is_pickle, tensors_of
from robench.networks.modules.library import factory_of
from robench.networks.modules.module import Module
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting

ZOO = "robustbench.model_zoo:model_dicts"
BROUGHT = ("mu", "sigma", "mean", "std", "num_batches_tracked")
"""Buffers that the zoo's networks bring with them and old files do not have."""
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


class RobustBench(Module):
    """Any network of RobustBench's zoo, untrained: `model` as on its leaderboard. Weights come, by
    trainer `given`, from the file that the library's load_model() has left, such as
    "models/cifar10/Linf/Carmon2019Unlabeled.pt" (read with torch's `weights_only`), or from a
    safetensors file.
    """

    model: str = Field(min_length=1)
    """Its name, such as "Carmon2019Unlabeled"."""
    zoo: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    """The data set that it was trained on, as the zoo calls it."""
    threat_model: Literal["Linf", "L2", "corruptions"] = "Linf"
    """What it was trained to withstand, as the zoo calls it."""
    factory: Setting = ZOO
    absent: ClassVar[str] = (
        " (robench downloads nothing: robustbench.load_model(NAME, model_dir = 'models', dataset = "
        "..., threat_model = ...) puts it there)"
    )

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        with _as_released():
            found, text = factory_of("robustbench", ZOO, settings, card)
        if not isinstance(settings.get("model"), str):
            return {**settings, "factory": Located(text, partial(dict))}
        zoo, threat_model = (
            settings.get(key, getattr(cls, key)) for key in ("zoo", "threat_model")
        )
        make = partial(_made, found, settings["model"], zoo, threat_model, str(card.file))
        return {**settings, "factory": Located(text, make)}

    @staticmethod
    def weights_in(path: Path) -> bytes:
        """A file as safetensors: one that is, or a checkpoint of torch, of which nothing but
        tensors, and containers of them, is read."""
        if not is_pickle(path):
            return Module.weights_in(path)
        return safetensors.torch.save(tensors_of(path)[0])

    def named(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a file under the network's names: without prefixes, as the release of timm at
        hand has them, with the normalisation that the network brings itself, and without what it
        has no place for, as long as each of its own weights is there."""
        own, weights = self.module.state_dict(), dict(self.module.named_parameters())
        brought = {
            name: value
            for name, value in own.items()
            if name.split(".")[-1] in BROUGHT and name not in weights
        }
        for names in (state, _converted(self.module, state)):
            found = {**brought, **{_name(name, own): value for name, value in names.items()}}
            fits = {name: value for name, value in found.items() if name in own}
            if len(fits) == len(own):
                return fits
        return found


def _converted(module: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A file of an older timm (of a Swin transformer, for example), where the network is one of
    timm's: as timm itself converts it."""
    for part in module.modules():
        home = sys.modules.get(type(part).__module__)
        convert = getattr(home, "checkpoint_filter_fn", None)
        if home is None or convert is None or not home.__name__.startswith("timm.models."):
            continue
        try:
            converted: Mapping[str, Tensor] = convert({_bare(k): v for k, v in state.items()}, part)
        except Exception:  # it is no such file
            return state
        return converted
    return state


@contextmanager
def _as_released() -> Iterator[None]:
    """Lets RobustBench's releases be imported: they require pyautoattack and import `autoattack`,
    which is the same from its authors' repository."""
    library = ZOO.partition(".")[0]
    alias = dict[str, Any]()
    if library not in sys.modules and not find_spec("autoattack") and find_spec("pyautoattack"):
        alias = {
            f"autoattack{part}": import_module(f"pyautoattack{part}") for part in ("", ".state")
        }
    sys.modules.update(alias)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
            yield
    finally:
        for name in alias:
            del sys.modules[name]


def _name(name: str, own: Mapping[str, Any]) -> str:
    """Which of the network's names one of a file stands for; itself where it is none of them. Files
    have the prefix of DataParallel, and `model.` where the network does not, or the other way."""
    short = _bare(name)
    tried = (name, name.removeprefix("module."), short, f"model.{short}")
    return next((one for one in tried if one in own), name)


def _bare(name: str) -> str:
    return name.removeprefix("module.").removeprefix("model.")


def _made(zoo: Any, model: str, dataset: str, threat_model: str, where: str) -> nn.Module:
    """The network that the zoo makes; nothing is downloaded."""
    enums = sys.modules[f"{ZOO.partition(':')[0]}.enums"]
    entries = zoo[enums.BenchmarkDataset(dataset)][enums.ThreatModel(threat_model)]
    place = f"{where}: model = {model!r}"
    if model not in entries:
        raise RobenchError(
            f"{place}: is not in the zoo for {dataset} and {threat_model}; "
            f"{nearest(model, entries)}"
        )
    timm = sys.modules["timm"]  # which the zoo imports
    named = f"{model.lower().replace('-', '_')}_{dataset}_{threat_model.lower()}"
    made: nn.Module
    if timm.is_model(named):  # the zoo registers some there, and would have their weights fetched
        made = timm.create_model(named, num_classes=CLASSES[dataset], pretrained=False)
        return made
    files = entries[model].get("gdrive_id")
    if not files:
        raise RobenchError(
            f"{place}: the zoo takes it from another library, and its weights from the net; say "
            "network = 'timm' or 'module'"
        )
    if not isinstance(files, str):
        raise RobenchError(f"{place}: is several networks with a file each: not supported")
    made = entries[model]["model"]()
    return made
