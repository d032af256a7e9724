"""The one noisy layer: v = op(x) + sigma * eps, eps ~ N(0, 1) independent per output element.

Where the noise comes from is not the layer's business: a `NoiseSource` is handed to the whole
network for the length of a `with` block. Outside such a block there is no noise. Sampling at test
time and the likelihood-ratio estimator (which also has to remember what it drew) are two such
sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn


class NoiseSource(Protocol):
    """What a noisy layer asks for its value."""

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        """op(x), without noise."""
        ...

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        """The drive with noise added."""
        ...


class NoisyLayer(nn.Module):
    """An op whose output carries Gaussian noise of learnable or fixed strength.

    Args:
        op: any module, for example Linear or Conv2d.
        shape: shape of sigma, broadcast against one output of `op` without its batch dimension:
            (features,) for Linear, (channels, 1, 1) for Conv2d.
        sigma: initial standard deviation.
        learned: whether sigma is a parameter.
    """

    def __init__(
        self, op: nn.Module, shape: tuple[int, ...], sigma: float = 1.0, learned: bool = False
    ) -> None:
        super().__init__()
        self.op = op
        self.sigma: Tensor
        value = torch.full(shape, float(sigma))
        if learned:
            self.register_parameter("sigma", nn.Parameter(value))
        else:
            self.register_buffer("sigma", value)
        self.source: NoiseSource | None = None

    def drive(self, x: Tensor) -> Tensor:
        """op(x); when the same x drives several time steps, compute it once and `inject` each
        time."""
        if self.source is None:
            driven: Tensor = self.op(x)
            return driven
        return self.source.drive(self, x)

    def inject(self, drive: Tensor) -> Tensor:
        """The drive with fresh noise, or as it is where no noise is on."""
        return drive if self.source is None else self.source.inject(self, drive)

    def forward(self, x: Tensor) -> Tensor:
        return self.inject(self.drive(x))


class GaussianNoise:
    """Fresh noise at every call; gradients flow through to inputs, weights and sigma (pathwise)."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self._images: int | None = None
        self._copies = 1

    @contextmanager
    def copied(self, images: int, copies: int) -> Iterator[None]:
        """Inside the block, a batch of so many images leaves its first noisy layer as so many
        noisy copies, rows ordered (copy, image): what comes before is computed once for all. For
        networks that share their input (Network.shares_input)."""
        self._images, self._copies = images, copies
        try:
            yield
        finally:
            self._images, self._copies = None, 1

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        driven: Tensor = layer.op(x)
        return driven

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        copies = self._copies if len(drive) == self._images else 1
        eps = torch.randn(
            copies, *drive.shape, generator=self.generator, device=drive.device, dtype=drive.dtype
        )
        return (drive + layer.sigma * eps).flatten(0, 1)


def noisy_layers(network: nn.Module) -> list[NoisyLayer]:
    """The noisy layers in the order in which the network declares them."""
    return [module for module in network.modules() if isinstance(module, NoisyLayer)]


def repeated(values: Tensor, like: Tensor) -> Tensor:
    """`values`, a row for each image, as a row for each noisy copy in `like`."""
    return values.repeat(len(like) // len(values), *[1] * (values.dim() - 1))


@contextmanager
def noise(network: nn.Module, source: NoiseSource | None) -> Iterator[None]:
    """Let all noisy layers of `network` draw from `source` inside the block."""
    layers = noisy_layers(network)
    before = [layer.source for layer in layers]
    try:
        for layer in layers:
            layer.source = source
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.source = old
