"""How an image becomes what a spiking network sees at its time steps, and how its answers at those
become one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.modules.spiking import Spiking, carries_state

Encoding = Literal["direct", "poisson", "events"]
Readout = Literal["rate", "last", "membrane"]
POLARITIES = 2


def bernoulli(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """1{x > U(0, 1)}: pixels as rates. Its derivative is that of the expected input
    (straight-through), so that averages over draws are gradients of what is expected."""
    spikes = (x > torch.rand(x.shape, generator=generator, device=x.device)).to(x.dtype)
    return x + (spikes - x).detach() if x.requires_grad else spikes


def by_time(x: Tensor, steps: int) -> Tensor:
    """Events (n, steps x 2, h, w), time before polarity, as (steps, n, 2, h, w). Raises
    RobenchError where the channels are not so many."""
    if x.shape[1] != POLARITIES * steps:
        raise RobenchError(
            f"encoding = 'events': {x.shape[1]} channels are not {steps} time steps of "
            f"{POLARITIES} polarities; set steps"
        )
    return torch.unflatten(x, 1, (steps, POLARITIES)).movedim(1, 0)


def encoded(
    x: Tensor, steps: int, encoding: Encoding, generator: torch.Generator | None
) -> list[Tensor]:
    """What the network sees at each time step. x: (n, c, h, w)."""
    if encoding == "events":
        return list(by_time(x, steps))
    if encoding == "poisson":
        return [bernoulli(x, generator) for _ in range(steps)]
    return [x] * steps


def shown(module: nn.Module, spiking: Spiking, inputs: list[Tensor]) -> Any:
    """What a module answers to so many time steps: shown all at once, along the first dimension,
    where its neurons expect that, else one by one; then its answers lie along it."""
    if spiking.multi_step:
        return module(torch.stack(inputs))
    if carries_state(module):
        state, parts = None, []
        for x in inputs:
            answer, state = module(x, state)
            parts.append(answer)
        return torch.stack(parts)
    answers = [module(x) for x in inputs]
    if all(isinstance(answer, Tensor) for answer in answers):
        return torch.stack(answers)
    if all(isinstance(answer, (tuple, list)) for answer in answers):
        kept = [
            torch.stack(parts)
            for parts in zip(*answers, strict=True)
            if all(isinstance(part, Tensor) for part in parts)
        ]
        return tuple(kept)
    return answers


def series_of(answer: Any, rows: int) -> tuple[Tensor, Tensor | None] | None:
    """Outputs at every time step, (steps, n, classes), and potentials like them where the answer
    holds both; None: it is no such series."""

    def is_series(part: Any) -> bool:
        return isinstance(part, Tensor) and part.dim() == 3 and part.shape[1] == rows

    if is_series(answer):
        return answer, None
    if isinstance(answer, (tuple, list)) and answer and is_series(answer[0]):
        outputs = answer[0]
        others = [one for one in answer[1:] if is_series(one) and one.shape == outputs.shape]
        return outputs, others[0] if others else None
    return None


class Reading(NamedTuple):
    """What a series of outputs says."""

    logits: Tensor
    potential: Tensor | None
    """That of the output neurons, which decides the logits or may lend them its gradient; None:
    they are potentials, or nobody knows it."""
    decides: bool
    """Whether the argmax of the potential is the prediction."""
    tied: bool
    """Whether a tie-break below 1/1000 was added."""


def read(outputs: Tensor, membrane: Tensor | None, readout: Readout, spiking: Spiking) -> Reading:
    """One row of logits for each image.

    Where the outputs are the spikes of the last neurons, they tie often: sigmoid(u - Vth) / 1000 is
    added, without a gradient, as the network `snn` does.
    """
    potential = output_potential(outputs[-1], spiking)
    if readout == "membrane":
        held = membrane[-1] if membrane is not None else potential
        return Reading(outputs[-1] if held is None else held, None, True, False)
    logits = outputs[-1] if readout == "last" else outputs.mean(0)
    if potential is None:
        return Reading(logits, None, False, False)
    logits = logits + torch.sigmoid(potential.detach()) / 1000
    return Reading(logits, potential, readout == "last", True)


def output_potential(output: Tensor, spiking: Spiking) -> Tensor | None:
    """u - Vth of the neurons whose spikes are the output, (n, classes); None: it is something
    else."""
    last = spiking.last
    if last is None or not last.spikes or last.step.seen is None:
        return None
    spikes, seen = last.spikes[-1], last.step.seen
    if spikes.dim() == output.dim() + 1:
        spikes = spikes[-1]
    if seen.shape != output.shape or spikes.shape != output.shape:
        return None
    return seen if torch.equal(spikes.detach(), output.detach()) else None


def first_tensor(answer: Any) -> Any:
    """The outputs, where a module answers (outputs, potentials) or (outputs, state)."""
    if isinstance(answer, (tuple, list)) and answer and isinstance(answer[0], Tensor):
        return answer[0]
    return answer
