"""Feedback alignment: backpropagation whose W^T is a fixed random B (Lillicrap et al. 2016; BF
paper, Eq. 5).

    delta_l = (B_{l+1} delta_{l+1}) * sigma'(z_l)        in place of W_{l+1}^T

The weights' own gradient, delta_l x_{l-1}^T, is untouched. Linear and convolutional layers have a
B; it is drawn once, with the spread of the layer's first weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy

Feedback = Mapping[nn.Module, nn.Module]
"""Layer -> the layer with weights B that carries its errors back."""


class FeedbackAlignment(Trainer):
    """Backpropagation through fixed random weights."""

    feedback: Literal["random", "transpose"] = "random"
    """transpose: B follows W^T, which is backpropagation: for comparison."""

    def start_epoch(self, network: Network, epoch: int) -> bool:
        if epoch == 0:
            self._feedback: Feedback | None = None
        return False

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if self._feedback is None or self.feedback == "transpose":
            self._feedback = make_feedback(network, rng if self.feedback == "random" else None)
        with through(network, self._feedback):
            return cross_entropy(network(x), y)


def make_feedback(network: Network, rng: torch.Generator | None) -> Feedback:
    """Layers with weights B: drawn from `rng`, or (None) those of the network itself."""
    feedback: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            carrier = copy.deepcopy(module).requires_grad_(False)
            if rng is not None:
                spread = float(carrier.weight.std())
                carrier.weight.normal_(0, spread, generator=rng)
            feedback[module] = carrier
    if not feedback:
        raise RobenchError(
            f"trainer feedback-alignment: network {type(network).__name__} has neither linear nor "
            "convolutional layers; use mlp, cnn, rnn or snn"
        )
    return feedback


@contextmanager
def through(network: Network, feedback: Feedback) -> Iterator[None]:
    """Let errors flow back through the weights in `feedback` inside the block.

    A layer computes on an input that is cut off; what its input is told comes through
    B(x) - B(x), which adds nothing to the value.
    """
    inputs: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        inputs[module] = given[0]
        return (given[0].detach(),)

    def after(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        x = inputs.pop(module)
        if not x.requires_grad:
            return out
        carried: Tensor = feedback[module](x)
        return out + (carried - carried.detach())

    with ExitStack() as hooks:
        for module in feedback:
            hooks.enter_context(module.register_forward_pre_hook(before))
            hooks.enter_context(module.register_forward_hook(after))
        yield
