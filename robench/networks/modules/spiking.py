"""Spiking neurons of snntorch, spikingjelly and norse inside a torch module: recognised by their
classes, given a step of ours, watched while they fire, and fresh before every question.

None of the libraries is imported here: a module that has their neurons has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robench.networks.adaptive import Place
from robench.networks.surrogate import Step, Surrogate, parse_surrogate, unwon

Library = Literal["snntorch", "spikingjelly", "norse"]
OWN = Surrogate("own", 1.0)
"""The derivative that the neuron's library gives its spike."""
PROBES, STEPS = (-1e4, -5.0, 5.0, 1e4), (0.0, 0.0, 1.0, 1.0)
"""What a function that is a step answers to; one of several levels, or of none, is left alone."""
UNMATCHED = "fast-sigmoid:0.25"
"""What stands in for derivatives that adapt where a neuron's numbers are not told by image."""


class ForeignStep(Step):
    """The step of a neuron of another library: its own function forwards, backwards that too or
    what the attacker chose."""

    def __init__(self, original: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.surrogate = OWN
        self.through_reset = True
        self.held = [original]  # a module in it would be one of ours
        self.rows = 0
        """Images of the question that is being asked."""
        self.seen: Tensor | None = None
        """Distances from the threshold, the last that were asked about."""

    def forward(self, u: Tensor) -> Tensor:
        self.seen = u
        if self.surrogate is OWN or not (torch.is_grad_enabled() and u.requires_grad):
            return self.held[0](u)
        with torch.no_grad():
            value = self.held[0](u.detach())
        stepped: Tensor = _Through.apply(u, value, self.surrogate.here(), self.rows)  # type: ignore[no-untyped-call]
        return stepped


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, value: Tensor, surrogate: Surrogate | Place, rows: int
    ) -> Tensor:
        ctx.save_for_backward(u, value)
        ctx.surrogate, ctx.rows = surrogate, rows
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        u, value = ctx.saved_tensors
        passed = _derivative(ctx.surrogate, u, ctx.rows).mul_(grad)
        if ctx.surrogate.one_sided:
            passed.mul_(unwon(grad, value > 0))
        return passed, None, None, None


def _derivative(chosen: Surrogate | Place, u: Tensor, rows: int) -> Tensor:
    """At every u, whose images lie along its first dimension, after time along its second, or each
    in one piece along its second; u itself stays as it is."""
    if isinstance(chosen, Surrogate) or u.shape[0] == rows:
        return chosen.derivative(u)
    if u.dim() >= 2:
        if u.shape[1] == rows:
            return chosen.derivative(u, axis=1)
        if u.shape[1] % max(rows, 1) == 0 and u.dim() == 2 and u.shape[0] % rows:
            return chosen.derivative(torch.unflatten(u, 1, (rows, -1)), axis=1).flatten(1)
        if u.shape[0] % rows == 0:
            return chosen.derivative(u)
    return parse_surrogate(UNMATCHED).derivative(u)


@dataclass(eq=False)
class Neuron:
    """A spiking layer of another library, with the step that was put into it."""

    module: nn.Module
    library: Library
    step: ForeignStep
    spikes: list[Tensor] = field(default_factory=list)
    """What it has put out in this question, call by call, where that is kept."""
    reset: tuple[str, Any] | None = None
    """While gradients stop at its reset: the attribute that is changed, and what it was."""


def library_of(module: nn.Module) -> Library | None:
    """Whose neuron a module is; None: nobody's, or one without a step."""
    classes = {(one.__module__.partition(".")[0], one.__name__) for one in type(module).__mro__}
    if ("snntorch", "SpikingNeuron") in classes or any(
        home == "snntorch" and hasattr(module, "spike_grad") for home, _ in classes
    ):
        return "snntorch"
    if ("spikingjelly", "MemoryModule") in classes and hasattr(module, "surrogate_function"):
        return "spikingjelly"
    cells = {"SNNCell", "SNNRecurrentCell", "SNN", "SNNRecurrent"}
    if any(home == "norse" and name in cells for home, name in classes):
        return "norse" if _norse_method(module) is not None else None
    return None


def carries_state(module: nn.Module) -> bool:
    """Whether a call takes and returns the state, (x, state) -> (answer, state), as norse's do."""
    return any(one.__module__.partition(".")[0] == "norse" for one in type(module).__mro__)


def _norse_method(module: nn.Module) -> tuple[str, Any] | None:
    """How a cell of norse names its surrogate derivative."""
    held: Any = getattr(module, "p", None)
    for inner in (held, getattr(held, "lif", None), getattr(held, "lif_adex", None)):
        if inner is not None and hasattr(inner, "method"):
            return inner.method, getattr(inner, "alpha", 0.0)
    return None


def freshened(module: nn.Module) -> None:
    """Let the neurons forget whatever they hold, as if they had just been made."""
    for part in module.modules():
        library = library_of(part)
        if library == "snntorch":
            for name in vars(part)["_non_persistent_buffers_set"]:
                buffer = vars(part)["_buffers"][name]
                if isinstance(buffer, Tensor):
                    vars(part)["_buffers"][name] = torch.zeros(0, device=buffer.device)
            vars(part).pop("reset", None)
        elif any(
            (one.__module__.partition(".")[0], one.__name__) == ("spikingjelly", "MemoryModule")
            for one in type(part).__mro__
        ):
            part.reset()  # type: ignore[operator]


class Spiking:
    """The spiking neurons of a module, once they have steps of ours."""

    def __init__(self, module: nn.Module) -> None:
        self.neurons: list[Neuron] = []
        self.keeps = False
        """Whether what the neurons put out is kept until the question is answered."""
        self.last: Neuron | None = None
        """The neuron that has fired last in this question."""
        self._asked: list[Neuron] = []
        for part in list(module.modules()):
            library = library_of(part)
            step = None if library is None else _with_step(part, library)
            if library is not None and step is not None:
                neuron = Neuron(part, library, step)
                self.neurons.append(neuron)
                part.register_forward_pre_hook(partial(self._begins, neuron))
                part.register_forward_hook(partial(self._fired, neuron))

    @property
    def multi_step(self) -> bool:
        """Whether the neurons expect all time steps at once, along the first dimension."""
        modes = [getattr(neuron.module, "step_mode", "s") for neuron in self.neurons]
        timed = any(type(n.module).__mro__[0].__name__.endswith("Cell") for n in self.neurons)
        norse = any(n.library == "norse" for n in self.neurons)
        return "m" in modes or (norse and not timed)

    @contextmanager
    def asked(self, rows: int, keeps: bool = False) -> Iterator[None]:
        """A question about so many images."""
        self.keeps, self.last = keeps, None
        for neuron in self.neurons:
            neuron.step.rows, neuron.spikes = rows, []
        try:
            with self._norse():
                yield
        finally:
            for neuron in self.neurons:
                neuron.step.seen = None
                neuron.spikes = []
            self.last = None

    def _begins(self, neuron: Neuron, part: Any, inputs: Any) -> None:
        self._asked.append(neuron)
        if neuron.step.through_reset:
            return
        if neuron.library == "spikingjelly" and hasattr(part, "detach_reset"):
            neuron.reset = "detach_reset", part.detach_reset
            part.detach_reset = True
        elif neuron.library == "norse" and hasattr(part.p, "reset_method"):
            neuron.reset = "p", part.p
            part.p = part.p._replace(reset_method=partial(_reset_stopped, part.p.reset_method))

    def _fired(self, neuron: Neuron, part: nn.Module, inputs: Any, answer: Any) -> None:
        with suppress(IndexError):
            self._asked.pop()
        if neuron.reset is not None:
            setattr(part, *neuron.reset)
            neuron.reset = None
        spikes = answer[0] if isinstance(answer, tuple) else answer
        self.last = neuron
        if not isinstance(spikes, Tensor):
            return
        if self.keeps:
            neuron.spikes.append(spikes)
        else:
            neuron.spikes = [spikes]

    @contextmanager
    def _norse(self) -> Iterator[None]:
        """Cells of norse name their derivative and call a function by it: here they meet their
        step."""
        if not any(neuron.library == "norse" for neuron in self.neurons):
            yield
            return
        home: Any = sys.modules["norse.torch.functional.threshold"]
        original = home.threshold

        def threshold(x: Tensor, method: str, alpha: Any) -> Tensor:
            if not self._asked:
                stepped: Tensor = original(x, method, alpha)
                return stepped
            step = self._asked[-1].step
            step.held[0] = partial(original, method=method, alpha=alpha)
            answer: Tensor = step(x)
            return answer

        users = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("norse.torch.functional")
            and vars(module).get("threshold") is original
        ]
        for module in users:
            module.threshold = threshold  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self._asked.clear()
            for module in users:
                module.threshold = original  # type: ignore[attr-defined]


def _reset_stopped(reset: Callable[..., Tensor], z: Tensor, *others: Any) -> Tensor:
    return reset(z.detach(), *others)


def _with_step(part: nn.Module, library: Library) -> ForeignStep | None:
    """Put a step into a neuron; None where what it has is no step."""
    if library == "norse":
        step = ForeignStep(torch.nn.Identity())
        part.add_module("robench_step", step)
        return step
    where = "spike_grad" if library == "snntorch" else "surrogate_function"
    original = getattr(part, where, None)
    if original is None or not _is_step(original):
        return None
    step = ForeignStep(original)
    if where in vars(part):
        del vars(part)[where]
    setattr(part, where, step)
    return step


def _is_step(function: Any) -> bool:
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
            answer = function(torch.tensor(PROBES))
        return bool(torch.equal(answer.detach().float(), torch.tensor(STEPS)))
    except Exception:  # whatever a stranger's function raises
        return False
