"""The one noisy layer: v = op(x) + sigma * eps, eps ~ N(0, 1) independent per output element.

Where the noise comes from is not the layer's business: a `NoiseSource` is handed to the whole
network for the length of a `with` block. Outside such a block there is no noise. Sampling at test
time and the likelihood-ratio estimator (which also has to remember what it drew) are two such
sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robench.networks.standard_noise import NoiseStream
from robench.networks.torch_state import swapped

Series = Tensor | Sequence[Tensor]
"""One tensor for each time step, in a list or stacked along the first dimension."""


class NoiseSource:
    """What a noisy layer asks for its value. Subclasses override `inject`."""

    @property
    def generators(self) -> list[torch.Generator]:
        """All that it draws numbers from."""
        return []

    def drive(self, layer: NoisyLayer, *inputs: Any) -> Tensor:
        """op(*inputs), without noise; of most layers there is one input."""
        driven: Tensor = layer.op(*inputs)
        return driven

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        """The drive with noise added."""
        return drive

    def fired(self, layer: NoisyLayer, potential: Tensor, threshold: float) -> None:
        """Told that of the layer's last value the network sees no more than whether `potential`,
        to which it was added as it is, is above the threshold."""

    def over_time(self, layer: NoisyLayer, inputs: Series, steps: int) -> Series:
        """The noisy value at each of so many time steps, in their order.

        Args:
            inputs: one for each step, or a single one that drives all of them.
        """
        values: list[Tensor] = []
        for step in range(steps):
            if step < len(inputs):
                drive = self.drive(layer, inputs[step])
            values.append(self.inject(layer, drive))
        return values


def drives(layer: NoisyLayer, inputs: Series) -> Tensor:
    """op of every step's input as one product, stacked."""
    x = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
    driven: Tensor = layer.op(x.flatten(0, 1))
    return driven.view(*x.shape[:2], *driven.shape[1:])


class Silence(NoiseSource):
    """No noise."""

    def over_time(self, layer: NoisyLayer, inputs: Series, steps: int) -> Series:
        return drives(layer, inputs)


SILENCE = Silence()


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
        return (self.source or SILENCE).drive(self, x)

    def inject(self, drive: Tensor) -> Tensor:
        """The drive with fresh noise, or as it is where no noise is on."""
        return (self.source or SILENCE).inject(self, drive)

    def fired(self, potential: Tensor, threshold: float) -> None:
        """Say that of the last value nothing but a spike is seen; see NoiseSource.fired."""
        (self.source or SILENCE).fired(self, potential, threshold)

    def over_time(self, inputs: Series, steps: int) -> Series:
        """The noisy value at each time step; see NoiseSource.over_time."""
        return (self.source or SILENCE).over_time(self, inputs, steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.inject(self.drive(x))


class GaussianNoise(NoiseSource):
    """Fresh noise at every call; gradients flow through to inputs, weights and sigma (pathwise)."""

    def __init__(self, generator: torch.Generator) -> None:
        self._stream = NoiseStream.from_generator(generator)
        self._images: int | None = None
        self._copies = 1

    @property
    def generators(self) -> list[torch.Generator]:
        return [self._stream.generator]

    def copied(self, images: int, copies: int) -> AbstractContextManager[None]:
        """Inside the block, a batch of so many images leaves its first noisy layer as so many
        noisy copies, rows ordered (copy, image): what comes before is computed once for all. For
        networks that share their input (Network.shares_input)."""
        return swapped([self], _images=images, _copies=copies)

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        return self._noisy(layer, drive[None], 1)[0]

    def over_time(self, layer: NoisyLayer, inputs: Series, steps: int) -> Series:
        # All steps in one go: one product, one draw, one addition.
        return self._noisy(layer, drives(layer, inputs), steps)

    def _noisy(self, layer: NoisyLayer, drive: Tensor, steps: int) -> Tensor:
        """(steps, copies x rows, ...). drive: (steps or 1, rows, ...)."""
        copies = self._copies if drive.shape[1] == self._images else 1
        eps = self._eps((steps, copies, *drive.shape[1:]), drive.dtype)
        sigma = layer.sigma
        if torch.is_grad_enabled() and (drive.requires_grad or sigma.requires_grad):
            noisy = torch.addcmul(drive[:, None], sigma, eps)
        else:
            noisy = torch.addcmul(drive[:, None], sigma, eps, out=eps)
        return noisy.flatten(1, 2)

    def _eps(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._stream.normal(shape, dtype)


class LaplaceNoise(GaussianNoise):
    """The same with Laplace noise, whose scale is sigma: the variant of the published GLR
    scripts."""

    def _eps(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        eps = torch.empty(shape, dtype=dtype, device=self._stream.generator.device)
        self._stream.fill(eps, "laplace", quasi=False)
        return eps


InUse = bool | Literal["laplace"]
"""Whether noise is on, and which where it is not Gaussian."""


def noise_in_use(said: InUse, generator: torch.Generator) -> NoiseSource | None:
    """What a card's `inference_noise` means; None: no noise."""
    if not said:
        return None
    return LaplaceNoise(generator) if said == "laplace" else GaussianNoise(generator)


def noisy_layers(network: nn.Module) -> list[NoisyLayer]:
    """The noisy layers in the order in which the network declares them."""
    return [module for module in network.modules() if isinstance(module, NoisyLayer)]


def repeated(values: Tensor, like: Tensor) -> Tensor:
    """`values`, a row for each image, as a row for each noisy copy in `like`."""
    return values.repeat(len(like) // len(values), *[1] * (values.dim() - 1))


def noise_source(network: nn.Module) -> NoiseSource | None:
    """What the noisy layers of `network` draw from as things stand; None: there is no noise."""
    return next((layer.source for layer in noisy_layers(network)), None)


def noise(network: nn.Module, source: NoiseSource | None) -> AbstractContextManager[None]:
    """Let all noisy layers of `network` draw from `source` inside the block."""
    return swapped(noisy_layers(network), source=source)
