"""How many additions and multiplications a spiking network needs for an image: what its energy is
estimated from.

A spike costs an addition for every neuron that it reaches (a synaptic operation); what is no spike,
such as a pixel, costs a multiplication and an addition for every one. Counted where they happen,
spikes that are not there cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RUNS: tuple[Any, ...] = (F.conv1d, F.conv2d, F.conv3d)


@dataclass
class Operations:
    """Of all images together."""

    additions: float = 0.0
    multiplications: float = 0.0
    layers: set[str] = field(default_factory=set)

    def for_each(self, images: int) -> dict[str, float]:
        """Per image, as activity: synaptic_operations, multiply_accumulates."""
        return {
            "synaptic_operations": self.additions / images,
            "multiply_accumulates": self.multiplications / images,
        }

    def count(self, layer: nn.Module, x: Tensor) -> None:
        """Those of one call of a linear layer or a convolution."""
        active = x != 0
        binary = bool((x[active] == 1).all())
        number = fan_out(layer, active if binary else torch.ones_like(active))
        if binary:
            self.additions += number
        else:
            self.multiplications += number


def fan_out(layer: Any, active: Tensor) -> float:
    """Connections that lead from the active inputs of a layer to its outputs, borders included."""
    if isinstance(layer, nn.Linear):
        return float(active.sum()) * layer.out_features
    convolution = RUNS[len(layer.kernel_size) - 1]
    inputs = layer.in_channels // layer.groups
    kernel = torch.ones(layer.groups, inputs, *layer.kernel_size, device=active.device)
    reached = convolution(
        active.float(), kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return float(reached.double().sum()) * float(layer.out_channels / layer.groups)


@contextmanager
def counted(module: nn.Module) -> Iterator[Operations]:
    """Count what the linear layers and convolutions of a module do inside the block."""
    operations = Operations()

    def hook(layer: Any, inputs: tuple[Any, ...], answer: Any) -> None:
        x = inputs[0].detach()
        if isinstance(layer, CONVOLUTIONS) and x.dim() == len(layer.kernel_size) + 3:
            x = x.flatten(0, 1)
        operations.count(layer, x)

    kinds = (nn.Linear, *CONVOLUTIONS)
    with ExitStack() as hooks:
        for layer in module.modules():
            if isinstance(layer, kinds):
                hooks.enter_context(layer.register_forward_hook(hook))
        yield operations
