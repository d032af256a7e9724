"""Any torch module as a network: one that a factory makes (also what handed.py copies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, InstanceOf
from torch import Tensor, nn

from robench import plugins
from robench.cards import Card
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.plugins import Source
from robench.torch_state import numpy_and_python_seeded, torch_seeded

LEAST = 1e-12
"""Probabilities below it count as this much, so that their logarithm is finite."""
Outputs = Literal["logits", "probabilities", "logit", "probability"]


class Module(Network):
    """Any torch module, by a factory: "package.module:name" or "./file.py:name"."""

    factory: InstanceOf[str]
    """What makes the module: a function or class; a file lies beside the card. It counts by the
    source of its file."""
    arguments: dict[str, Any] = Field(default={})
    """Keywords that the factory gets."""
    outputs: Outputs = "logits"
    """What the module answers; attacks see the logarithm of probabilities. logit, probability: one
    number for each image, of class 1 against class 0."""
    output: int | str | None = None
    """Where the module answers a tuple, a dictionary or an object: which part of it, by place, key
    or attribute."""
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
        x = x.to(self._kind)  # a module in half precision, or double, wants such images
        answer = self._part(self._drawn(x) if self.stochastic else self.module(x))
        match self.outputs:
            case "logits":
                return answer
            case "probabilities":
                return answer.float().clamp_min(LEAST).log()
            case "logit":
                one = answer.view(len(x), 1)
                return torch.cat([torch.zeros_like(one), one], dim=1)
            case _:
                one = answer.float().view(len(x), 1)
                return torch.cat([1 - one, one], dim=1).clamp_min(LEAST).log()

    def _part(self, answer: Any) -> Tensor:
        """The tensor that is meant. Raises RobenchError saying what there is to choose from."""
        if self.output is not None:
            try:
                if isinstance(self.output, str) and not isinstance(answer, Mapping):
                    answer = getattr(answer, self.output)
                else:
                    answer = answer[self.output]
            except (AttributeError, LookupError, TypeError):
                raise RobenchError(
                    f"network 'module': output = {self.output!r}: the module answers "
                    f"{_kind_of(answer)}"
                ) from None
        if not isinstance(answer, Tensor):
            raise RobenchError(
                f"network 'module': the module answers {_kind_of(answer)}: say which part are the "
                "logits, as in output = 'logits' or output = 0"
            )
        one = answer.dim() == 1 or (answer.dim() == 2 and answer.shape[1] == 1)
        if one != (self.outputs in ("logit", "probability")):
            shape = tuple(answer.shape)
            raise RobenchError(
                f"network 'module': outputs = {self.outputs!r}: the module answers {shape}"
                + (
                    ": where it is one number for each image, of class 1 against class 0, say "
                    "outputs = 'logit' or 'probability'"
                    if one
                    else ", not one number for each image"
                )
            )
        return answer

    def _drawn(self, x: Tensor) -> Any:
        """What the module answers when it draws from global states, seeded from ours."""
        source = self.generator or torch.Generator(x.device).manual_seed(0)
        seed = int(torch.randint(2**62, (), generator=source, device=x.device))
        with torch_seeded(seed, x.device), numpy_and_python_seeded(seed % 2**32):
            return self.module(x)


def _kind_of(answer: Any) -> str:
    """What an answer is, with the parts that it has."""
    if isinstance(answer, Mapping):
        return f"{type(answer).__name__} with keys {', '.join(map(repr, answer))}"
    if isinstance(answer, (list, tuple)):
        names = getattr(answer, "_fields", ())
        named = f" ({', '.join(names)})" if names else ""
        return f"{type(answer).__name__} of {len(answer)}{named}"
    if isinstance(answer, Tensor):
        return f"a tensor {tuple(answer.shape)}"
    return type(answer).__name__
