"""Convolutional network whose every layer can carry noise.

Blocks of convolution, noise, activation and pooling, then fully connected layers as in mlp.py:
v_l = W_l * x_l + b_l + sigma eps,  x_{l+1} = pool(phi(v_l));  the logits are the last v. With a
shortcut, x_{l+1} = pool(phi(v_l + x_l)). Noise may also enter after the pooling, in a quarter of
the elements: v_l = pool(W_l * x_l + b_l) + sigma eps,  x_{l+1} = phi(v_l). Without noise that is
the same network where the largest of 2x2 pixels is taken and phi never falls: then they commute.
Its fields say the usual small networks:

    ResNet-5 (LR, arXiv 2305.08960)   channels = [8, 16, 32, 32], halvings = [1, 2, 3],
                                      shortcuts = [4], hidden = []
    VGG-8                             channels = [64, 64, 128, 128, 256, 256],
                                      halvings = [2, 4, 6], hidden = [512]
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.mlp import (
    JUMP_AT_ZERO,
    Activation,
    activated,
    activation,
    full_layers,
    through,
)
from robench.networks.noise import NoisyLayer, repeated


class CNN(Network):
    """Small convolutional network: convolutions, some halving the image, then full layers."""

    later: ClassVar[tuple[str, ...]] = ("noise",)
    recordable = True

    channels: tuple[int, ...] = Field(default=(16, 32, 64), min_length=1)
    """Output channels of the convolutions."""
    halvings: tuple[int, ...] | None = None
    """The convolutions, counted from 1, after which the image is halved; None: all."""
    shortcuts: tuple[int, ...] = ()
    """The convolutions, counted from 1, to whose output their input is added."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the fully connected layers before the logits."""
    kernel: Literal[1, 3, 5, 7] = 3
    pool: Literal["max", "average"] = "max"
    """How the image is halved: over 2x2 pixels."""
    norm: Literal["none", "layer"] = "none"
    """layer: each convolution's output is normalised, image by image, with a learned scale and
    shift for each channel, before noise enters."""
    noise: Literal["convolution", "halving"] = "convolution"
    """Where noise enters a convolution that halves the image: before the halving or after it, in
    four times fewer elements."""
    activation: Activation = "relu"
    sigma: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False
    sigma_per: Literal["channel", "neuron"] = "channel"
    """Whether the neurons of a channel share their sigma."""
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for the threshold's, for attacks and for bp."""

    def build(self) -> None:
        before, height, width = self.input_shape
        count = len(self.channels)
        halved = range(1, count + 1) if self.halvings is None else self.halvings
        self._check("halvings", halved)
        self._check("shortcuts", self.shortcuts)
        if min(height, width) >> len(halved) == 0:
            key = "channels" if self.halvings is None else "halvings"
            raise RobenchError(
                f"network cnn: {key} = {list(getattr(self, key))}: {len(halved)} halvings leave "
                f"nothing of a {height}x{width} image; list fewer"
            )
        self.halve = nn.MaxPool2d(2) if self.pool == "max" else nn.AvgPool2d(2)
        self.pools, self.adds = [], []
        blocks = []
        for place, after in enumerate(self.channels, start=1):
            if place in self.shortcuts and before != after:
                raise RobenchError(
                    f"network cnn: shortcuts = {list(self.shortcuts)}: convolution {place} makes "
                    f"{after} channels of {before}; a shortcut needs as many"
                )
            op: nn.Module = nn.Conv2d(before, after, self.kernel, padding=self.kernel // 2)
            if self.norm == "layer":
                op = nn.Sequential(op, nn.GroupNorm(1, after))
            inside = place in halved and self.noise == "halving"
            if inside and place in self.shortcuts:
                raise RobenchError(
                    f"network cnn: shortcuts = {list(self.shortcuts)}: convolution {place} halves "
                    'the image; with noise = "halving" its input cannot be added'
                )
            noisy_height, noisy_width = height, width
            if place in halved:
                height, width = height // 2, width // 2
            if inside:
                op, noisy_height, noisy_width = nn.Sequential(op, self.halve), height, width
            channel = self.sigma_per == "channel"
            shape = (after, 1, 1) if channel else (after, noisy_height, noisy_width)
            blocks.append(NoisyLayer(op, shape, self.sigma, self.learned_sigma))
            before = after
            self.pools.append(place in halved and not inside)
            self.adds.append(place in self.shortcuts)
        self.convolutions = nn.ModuleList(blocks)
        widths = [before * height * width, *self.hidden, self.classes]
        self.layers = full_layers(widths, nn.Linear, self.sigma, self.learned_sigma)
        self.phi = activation(self.activation, self.surrogate)

    def _check(self, key: str, places: tuple[int, ...] | range) -> None:
        if not set(places) <= set(range(1, len(self.channels) + 1)):
            raise RobenchError(
                f"network cnn: {key} = {list(places)}: convolutions are counted from 1 to "
                f"{len(self.channels)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        jumps = self.activation in JUMP_AT_ZERO
        for convolution, pool, add in zip(self.convolutions, self.pools, self.adds, strict=True):
            v = convolution(x)
            x = activated(convolution, v + repeated(x, v) if add else v, self.phi, jumps)
            x = self.halve(x) if pool else x
        return through(self.layers, self.phi, x.flatten(1), jumps)
