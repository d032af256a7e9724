"""Any torch module as a network: one that a factory makes (also what handed.py copies)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network, lent
from robench.networks.modules.kept_state import KeptState, remembers
from robench.networks.modules.over_time import (
    Encoding,
    Reading,
    Readout,
    encoded,
    first_tensor,
    output_potential,
    read,
    series_of,
    shown,
)
from robench.networks.modules.spiking import Spiking, carries_state, freshened
from robench.networks.noise import noise
from robench.networks.operations import counted
from robench.networks.torch_state import numpy_and_python_seeded, torch_seeded
from robench.workspace import plugins
from robench.workspace.cards import Card
from robench.workspace.plugins import Located, Setting

LOOKED, VALUES = 8, 2**18
"""Images by which kept state is looked for; of large ones as many as have VALUES numbers, but at
least two."""
LEAST = 1e-12
"""Probabilities below it count as this much, so that their logarithm is finite."""
Outputs = Literal["logits", "probabilities", "logit", "probability"]


class Module(Network):
    """Any torch module, by a factory: "package.module:name" or "./file.py:name"."""

    later: ClassVar[tuple[str, ...]] = ("steps", "encoding", "readout", "channels_last")
    shares_input: ClassVar[bool] = False
    absent: ClassVar[str] = ""
    """What is said where a file of weights is not there, beside that."""

    factory: Setting
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
    steps: int | None = Field(default=None, ge=1)
    """Time steps that a spiking module is shown, one by one or, where its neurons expect that, all
    at once as (steps, n, c, h, w). None: it sees an image once and keeps the time itself."""
    encoding: Encoding = "direct"
    """What it sees at each of them. direct: the image; poisson: spikes with the pixels as rates;
    events: channels are time x 2 polarities, and it sees (n, 2, h, w)."""
    readout: Readout = "rate"
    """How outputs (steps, n, classes) are read. rate: their mean; last: the last ones; membrane:
    the last potential of the output neurons."""
    channels_last: bool = False
    """Whether convolutions compute with the channels of a pixel side by side in memory, which takes
    less time where they are large; sums are rounded in another order."""

    @classmethod
    def located(cls, settings: Mapping[str, Any], card: Card) -> dict[str, Any]:
        name = settings.get("factory")
        if not isinstance(name, str):
            return dict(settings)
        make, code = plugins.locate(name, card)
        if not callable(make):
            raise RobenchError(f"{card.file}: factory = {name!r}: {make!r} makes no module")
        called = name if "/" not in name else name.rpartition(":")[2]
        text = f"{called}@{code.digest}"
        return {**settings, "factory": Located(text, make)}

    def build(self) -> None:
        if not isinstance(self.factory, Located):
            raise RobenchError(f"factory {self.factory!r}: is only found beside a card")
        make, who = self.factory.make, f"factory {self.factory.text.partition('@')[0]!r}"
        try:
            with torch.device("cpu"):  # it may read weights, which have no place on "meta"
                made = make(**self.arguments)
        except (Exception, SystemExit) as error:  # whatever a stranger's factory raises
            raise RobenchError(f"{who}: {type(error).__name__}: {error}") from error
        if not isinstance(made, nn.Module):
            raise RobenchError(f"{who}: made {type(made).__name__}, not a torch.nn.Module")
        freshened(made)
        if self.channels_last:
            cast("Any", made).to(memory_format=torch.channels_last)
        self.module = made
        self._spiking = Spiking(made)
        self._keeps: list[str] | None = None
        self._reading: Reading | None = None
        if self.steps is None and self.encoding != "direct":
            raise RobenchError(
                f"network 'module': encoding = {self.encoding!r}: say how many steps, as in "
                "steps = 8"
            )
        kinds = {w.dtype for w in made.parameters() if w.is_floating_point()}
        self._kind = kinds.pop() if len(kinds) == 1 else torch.float32
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = getattr(self, name) or (default,)
            if len(values) not in (1, self.input_shape[0]):
                raise RobenchError(
                    f"network 'module': {name} = {list(values)}: the images have "
                    f"{self.input_shape[0]} channels"
                )
            self._hold(name, values)

    def _hold(self, name: str, values: tuple[float, ...]) -> None:
        pixels = torch.tensor(values).view(1, -1, 1, 1)
        self.register_buffer(f"_{name}", pixels, persistent=False)

    def unless_said(self, name: str, values: tuple[float, ...]) -> None:
        """A library's `mean` or `std` of the channels, where the card says none."""
        if not getattr(self, name):
            setattr(self, name, values)
            self._hold(name, values)

    @staticmethod
    def weights_in(path: Path) -> bytes:
        """A file of weights as safetensors."""
        return path.read_bytes()

    def named(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a file under the names that they have in the module. Raises RuntimeError, as
        torch does, where they do not fit."""
        return state

    def known_from(self, other: Network) -> None:
        super().known_from(other)
        if isinstance(other, Module):
            self._keeps = other._keeps

    @property
    def random_input(self) -> bool:
        return self.stochastic or self.encoding == "poisson"

    def notes(self, images: Tensor) -> tuple[str, ...]:
        try:
            kept = self._kept(images.to(self._kind))
        except Exception:  # it will say so where it is asked
            return ()
        if not kept:
            return ()
        several = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        modules = {place for place, _ in self.module.named_modules()}
        where = "modules " if modules.issuperset(kept) else ""
        return (
            f"The network keeps its state from one call to the next ({where}{', '.join(kept[:3])}"
            f"{several}): it is reset before every question.",
        )

    def activity(self, x: Tensor) -> dict[str, float]:
        if not self._spiking.neurons:
            return {}
        if self._keeps is None:
            self._keeps = self._kept(_few(x))
        steps = [0] * len(self._spiking.neurons)
        fired = [0.0] * len(self._spiking.neurons)
        with torch.no_grad(), counted(self.module) as operations:

            def count() -> None:
                for place, neuron in enumerate(self._spiking.neurons):
                    for spikes in neuron.spikes:
                        steps[place] += spikes.numel()
                        fired[place] += float((spikes != 0).sum())

            self._asked(self.standardised(x), count)
        rates = {
            f"spike_rate_{place + 1}": count / steps[place]
            for place, count in enumerate(fired)
            if steps[place]
        }
        return {**rates, **operations.for_each(len(x))}

    def forward(self, x: Tensor) -> Tensor:
        logits = self._asked(x, None)
        self._reading = None  # which would hold a graph
        return logits

    def readings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and where the outputs are spikes, the last potential of the output neurons:
        in its place where it decides the prediction, else lending its gradient to the logits."""
        logits = self._asked(self.standardised(x), None)
        reading, self._reading = self._reading, None
        if reading is None or reading.potential is None or self.outputs != "logits":
            return logits, logits
        potential = reading.potential.to(logits.dtype)
        return logits, potential if reading.decides else lent(logits, potential)

    @property
    def lends(self) -> bool:
        return bool(self._spiking.neurons)

    def ties(self, logits: Tensor) -> Tensor:
        top = logits.topk(2, dim=1).values
        gap = top[:, 0] - top[:, 1]
        return gap < 1e-3 if self._breaks_ties else gap == 0

    _breaks_ties = False

    def _asked(self, x: Tensor, look: Callable[[], None] | None) -> Tensor:
        """Logits; nothing of what the module held before or holds afterwards is in them.

        Args:
            look: called once the module has answered, while its neurons' spikes are kept.
        """
        if self.mean or self.std:
            x = (x - self.get_buffer("_mean")) / self.get_buffer("_std")
        x = x.to(self._kind)  # a module in half precision, or double, wants such images
        if self._keeps is None:
            self._keeps = self._kept(_few(x))
        state = KeptState(self.module) if self._keeps or self._spiking.neurons else None
        try:
            with self._spiking.asked(len(x), keeps=look is not None):
                answer = self._read(self._drawn(x) if self.stochastic else self._shown(x), len(x))
                if look is not None:
                    look()
        finally:
            if state is not None:
                state.put_back()
        return self._logits(answer, x)

    def _kept(self, x: Tensor) -> list[str]:
        """What the module keeps from one call to the next that changes its answers."""

        mine = self.generator

        def ask() -> Tensor:
            self.generator = torch.Generator(x.device).manual_seed(0)
            with self._spiking.asked(len(x)):
                answer = first_tensor(self._shown(x.clone()))  # it may write into it
            return answer if isinstance(answer, Tensor) else torch.zeros(0)

        try:
            with noise(self.module, None):
                return remembers(self.module, ask)
        finally:
            self.generator = mine

    def _shown(self, x: Tensor) -> Any:
        if self.steps is None:
            return self.module(x)
        inputs = encoded(x, self.steps, self.encoding, self.generator)
        return shown(self.module, self._spiking, inputs)

    def _read(self, answer: Any, rows: int) -> Tensor:
        """One output for each image, whatever the module answers at its time steps."""
        self._reading = None
        over_time = bool(self._spiking.neurons) or self.steps is not None
        chosen = self._part(answer) if self.output is not None or not over_time else answer
        series = series_of(chosen, rows)
        if series is None:
            if over_time and self.output is None:
                held = self.steps is not None or carries_state(self.module)
                chosen = self._part(first_tensor(chosen) if held else chosen)
            self._lend(chosen)
            return chosen
        self._reading = read(*series, self.readout, self._spiking)
        self._breaks_ties = self._reading.tied
        return self._reading.logits

    def _lend(self, output: Tensor) -> None:
        """Where the module answers with what its last neurons put out, their potential may lend its
        gradient."""
        potential = output_potential(output, self._spiking) if output.dim() == 2 else None
        if potential is not None:
            self._reading = Reading(output, potential, False, False)

    def _logits(self, answer: Tensor, x: Tensor) -> Tensor:
        self._check_kind(answer)
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
        return answer

    def _check_kind(self, answer: Tensor) -> None:
        """Raises RobenchError where it is not what `outputs` says."""
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

    def _drawn(self, x: Tensor) -> Any:
        """What the module answers when it draws from global states, seeded from ours."""
        source = self.generator or torch.Generator(x.device).manual_seed(0)
        seed = int(torch.randint(2**62, (), generator=source, device=x.device))
        with torch_seeded(seed, x.device), numpy_and_python_seeded(seed % 2**32):
            return self._shown(x)


def _few(x: Tensor) -> Tensor:
    return x[: max(2, min(LOOKED, VALUES // max(1, x[0].numel())))] if len(x) else x


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
