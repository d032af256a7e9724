"""Any torch module with noise after its layers, so that the likelihood-ratio family can train it.

Nothing of the module is rewritten: a layer's `forward` is asked through a `NoisePoint`, which is
found by `noisy_layers` as any noisy layer is. Where no noise is on it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from robench.errors import RobenchError
from robench.networks.noise import NoisyLayer

M = TypeVar("M", bound=nn.Module)

WHOLE = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNCellBase,
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)
"""Modules that are one layer, whatever they are made of."""
CHILD = "robench_noise"


def noisy(module: M, sigma: float = 0.1, learned: bool = False) -> M:
    """Let noise enter after every layer of a module, in place; returns the module.

    Layers are linear ones, convolutions, recurrent cells and networks (of which all outputs get
    noise), attention, norms, and modules that hold weights themselves and no modules with weights.
    Weights that do not learn have no noise. Batch norms see the noisy copies of a batch together,
    which the estimate neglects: other norms are exact.

    Args:
        module: answers (n, ...) for n images; its layers see images, or time and then images as
            torch's recurrent networks do, along their first dimension.
        sigma: standard deviation of every layer's noise; one for each layer.
        learned: whether they are parameters.

    Raises RobenchError for weights that belong to no layer, and where there are none at all.
    """
    found = list({id(layer): layer for layer in _layers(module, "")}.values())
    if not found:
        raise RobenchError(f"noisy: {type(module).__name__} has no layer whose weights learn")
    for layer in found:
        if CHILD not in layer._modules:
            point = NoisePoint(layer, sigma, learned)
            layer.add_module(CHILD, point)
            object.__setattr__(layer, "forward", point.forward)
    return module


def _layers(module: nn.Module, where: str) -> Iterator[nn.Module]:
    if isinstance(module, NoisyLayer):
        return
    if isinstance(module, WHOLE) or CHILD in module._modules:
        if any(weight.requires_grad for weight in module.parameters()):
            yield module
        return
    own = [name for name, weight in module._parameters.items() if _learns(weight)]
    inner = [found for name, child in module.named_children() for found in _layers(child, name)]
    if own and inner:
        raise RobenchError(
            f"noisy: {type(module).__name__} holds {own[0]!r} beside modules with weights: give it "
            f"a module of its own, or freeze it ({own[0]}.requires_grad_(False))"
        )
    yield from [module] if own else inner


def _learns(weight: Tensor | None) -> bool:
    return weight is not None and weight.requires_grad


class _Op:
    """What a layer computes, from a list of inputs to one tensor with a row for each image."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.patched = vars(layer).get("forward")  # by somebody before us

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.patched
        return forward(*args, **kwargs) if forward else type(self.layer).forward(
            self.layer, *args, **kwargs
        )  # fmt: skip

    def parameters(self) -> Iterator[nn.Parameter]:
        """The layer's own."""
        for name, weight in self.layer.named_parameters():
            if not name.startswith(f"{CHILD}."):
                yield weight

    def packed(self, args: Any, kwargs: Any) -> list[Any]:
        inputs, self.call = pytree.tree_flatten((args, kwargs))
        return inputs

    def __call__(self, *inputs: Any) -> Tensor:
        args, kwargs = pytree.tree_unflatten(inputs, self.call)
        self.outputs, self.answer = pytree.tree_flatten(self.forward(*args, **kwargs))
        self.rows = [
            (place, self._dimension(place))
            for place, output in enumerate(self.outputs)
            if isinstance(output, Tensor) and (place == 0 or not self._attends)
        ]
        if self.rows == [(0, 0)]:
            first: Tensor = self.outputs[0]
            return first
        parts = [self.outputs[place].movedim(rows, 0) for place, rows in self.rows]
        self.shapes = [part.shape for part in parts]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def unpacked(self, noisy: Tensor) -> Any:
        """The layer's answer with `noisy` in place of what was computed."""
        if self.rows == [(0, 0)]:
            parts = [noisy]
        else:
            sizes = [shape[1:].numel() for shape in self.shapes]
            parts = [
                part.reshape(shape).movedim(0, rows)
                for part, shape, (_, rows) in zip(
                    torch.split(noisy, sizes, dim=1), self.shapes, self.rows, strict=True
                )
            ]
        outputs, self.outputs = self.outputs, []  # which would hold a graph
        for (place, _), part in zip(self.rows, parts, strict=True):
            outputs[place] = part
        return pytree.tree_unflatten(outputs, self.answer)

    @property
    def _attends(self) -> bool:
        return isinstance(self.layer, nn.MultiheadAttention)

    def _dimension(self, place: int) -> int:
        """Along which an output has its images."""
        if isinstance(self.layer, nn.RNNBase) or self._attends:
            return 0 if self.layer.batch_first and place == 0 else 1
        return 0


class NoisePoint(NoisyLayer):
    """Noise after one layer of a module. It is a part of that layer, and `op` is the layer."""

    op: Any

    def __init__(self, layer: nn.Module, sigma: float, learned: bool) -> None:
        super().__init__(nn.Identity(), (1,), sigma, learned)
        del self.op
        self.op = _Op(layer)  # no module: a layer is no part of its own part

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield from self.op.parameters()
        yield from super().parameters(recurse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.source is None:
            return self.op.forward(*args, **kwargs)
        drive = self.source.drive(self, *self.op.packed(args, kwargs))
        return self.op.unpacked(self.source.inject(self, drive))
