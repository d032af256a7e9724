"""Any torch module as a network: one that a factory makes, or one handed over in Python."""

from __future__ import annotations

import copy
import inspect
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import safetensors.torch
import torch
from pydantic import Field, InstanceOf
from torch import Tensor, nn

from robench import plugins
from robench.cards import Card
from robench.digest import canonical, digest_bytes
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.plugins import Source

LEAST = 1e-12
"""Probabilities below it count as this much, so that their logarithm is finite."""


class Module(Network):
    """Any torch module, by a factory: "package.module:name" or "./file.py:name"."""

    factory: InstanceOf[str]
    """What makes the module: a function or class; a file lies beside the card. It counts by the
    source of its file."""
    arguments: dict[str, Any] = Field(default={})
    """Keywords that the factory gets."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """What the module answers; attacks see the logarithm of probabilities."""
    mean: tuple[float, ...] = ()
    """One for each channel, taken from images in [0, 1] before the module sees them."""
    std: tuple[float, ...] = ()
    """One for each channel, by which images are then divided."""
    stochastic: bool = False
    """Whether two answers to one image may differ. Its draws are then seeded, and averaged over."""

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("factory")
        if not isinstance(name, str) or isinstance(name, Source):
            return dict(settings)
        make, code = plugins.locate(name, card)
        if not callable(make):
            raise RobenchError(f"{card.file}: factory = {name!r}: {make!r} makes no module")
        called = name if "/" not in name else name.rpartition(":")[2]
        text = f"{called}@{code.digest}"
        return {**settings, "factory": Source.of(text, make)}

    def build(self) -> None:
        who = f"factory {self.factory.partition('@')[0]!r}"
        make = getattr(self.factory, "make", None)
        if make is None:
            raise RobenchError(f"{who}: is only found beside a card")
        try:
            with torch.device("cpu"):  # it may read weights, which have no place on "meta"
                made = make(**self.arguments)
        except (Exception, SystemExit) as error:  # whatever a stranger's factory raises
            raise RobenchError(f"{who}: {type(error).__name__}: {error}") from error
        if not isinstance(made, nn.Module):
            raise RobenchError(f"{who}: made {type(made).__name__}, not a torch.nn.Module")
        self.module = made
        kinds = {w.dtype for w in made.parameters() if w.is_floating_point()}
        self._kind = kinds.pop() if len(kinds) == 1 else torch.float32
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = getattr(self, name) or (default,)
            if len(values) not in (1, self.input_shape[0]):
                raise RobenchError(
                    f"network 'module': {name} = {list(values)}: the images have "
                    f"{self.input_shape[0]} channels"
                )
            pixels = torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(f"_{name}", pixels, persistent=False)

    @property
    def random_input(self) -> bool:
        return self.stochastic

    def forward(self, x: Tensor) -> Tensor:
        if self.mean or self.std:
            x = (x - self.get_buffer("_mean")) / self.get_buffer("_std")
        x = x.to(
            self._kind
        )  # a module that computes in half precision, or double, wants such images
        answer: Tensor = self._drawn(x) if self.stochastic else self.module(x)
        return answer.clamp_min(LEAST).log() if self.outputs == "probabilities" else answer

    def _drawn(self, x: Tensor) -> Tensor:
        """What the module answers when it draws from torch's global state, seeded from ours."""
        source = self.generator or torch.Generator(x.device).manual_seed(0)
        seed = int(torch.randint(2**62, (), generator=source, device=x.device))
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(seed)
            answer: Tensor = self.module(x)
        return answer


def handed_over(module: nn.Module) -> tuple[Source, Source]:
    """A module that is in memory, as a factory and as weights.

    It is copied now and at every use, and known by its weights, its attributes and the source of
    its code. Code whose source cannot be read (a notebook's), and attributes that are no plain
    values, count as different in every session. Raises RobenchError for a module that cannot be
    copied.
    """
    try:
        kept = copy.deepcopy(module)
    except Exception as error:
        raise RobenchError(f"{type(module).__name__}: cannot be copied: {error}") from error
    parts = [
        [name, _code(type(part)), {key: _described(item) for key, item in _attributes(part)}]
        for name, part in module.named_modules(remove_duplicate=False)
    ]
    text = f"{type(module).__name__}@{digest_bytes(canonical(parts).encode(), _tensors(module))}"
    return Source.of(text, partial(copy.deepcopy, kept)), Source.of(text, kept.state_dict)


def _tensors(module: nn.Module) -> bytes:
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return safetensors.torch.save({name: _plain(value) for name, value in named.items()})


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in memory of its own."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _attributes(part: nn.Module) -> list[tuple[str, Any]]:
    """What a module holds beside its weights and parts; `training` is off in use."""
    known = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
    return sorted((key, item) for key, item in vars(part).items() if key not in known)


def _described(value: Any) -> Any:
    """A plain value that says what `value` is; unlike any other where that cannot be said."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(canonical(_described(item)) for item in value)
    if isinstance(value, Tensor):
        return digest_bytes(safetensors.torch.save({"value": _plain(value)}))
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    return _code(value) if inspect.isroutine(value) or inspect.isclass(value) else _unknown(value)


def _code(thing: Any) -> str:
    """Name of a class or function, with the sources of the files that it and its bases lie in;
    torch's count by name, as versions of libraries are no part of an identity."""
    found = []
    for item in thing.__mro__ if inspect.isclass(thing) else (thing,):
        name = f"{item.__module__}.{item.__qualname__}"
        if name.partition(".")[0] not in ("torch", "builtins"):
            try:
                file = inspect.getsourcefile(item)
            except (TypeError, OSError):
                file = None
            there = file is not None and Path(file).is_file()
            name += f"@{digest_bytes(Path(file).read_bytes()) if there else _unknown(item)}"  # type: ignore[arg-type]
        found.append(name)
    return " ".join(found)


_SEEN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _unknown(thing: Any) -> str:
    """A text of its own for a thing that only this session knows."""
    try:
        return _SEEN.setdefault(thing, uuid.uuid4().hex)
    except TypeError:  # neither hashed nor weakly referenced
        return uuid.uuid4().hex
