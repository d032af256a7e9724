"""Streams of standard noise: Gaussian or Laplace, at random or from scrambled Sobol points.

Normal numbers are most of what noisy networks cost on a CPU, so that they are made in the fewest
steps there are: 16 random bits choose one of 65,536 equally likely values, the quantiles of the
normal distribution, scaled to variance 1. They reach to 4.3; no moment up to the fourth is off by
more than a thousandth. SFC64's stream is one that numpy promises never to change.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

Distribution = Literal["gaussian", "laplace"]

LEVELS = 2**16


class NoiseStream:
    """Independent standard noise, the same from the same seed on a device of the same kind."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self._bits = np.random.SFC64(seed) if device.type == "cpu" else None

    @classmethod
    def from_generator(cls, generator: torch.Generator) -> NoiseStream:
        """On a CPU, a stream whose seed is the generator's next number. A GPU draws from the
        generator itself: a number that the host has to wait for costs more than all of them."""
        if generator.device.type == "cpu":
            return cls(int(torch.randint(2**62, (), generator=generator)), generator.device)
        stream = cls.__new__(cls)
        stream.generator, stream._bits = generator, None
        return stream

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers of this shape."""
        out = torch.empty(shape, dtype=dtype, device=self.generator.device)
        self._normal_(out.view(-1))
        return out

    def fill(self, eps: Tensor, distribution: Distribution, quasi: bool) -> None:
        """Fill eps, (draws, images, ...), dense in memory, with noise of scale 1.

        With `quasi` the draws of one image are Sobol points through the inverse distribution
        function.
        """
        flat = eps.as_strided((eps.numel(),), (1,))  # in memory order, which is many times faster
        if distribution == "gaussian" and not quasi:
            self._normal_(flat)
            return
        if quasi:
            _sobol(eps, self.generator)
        else:
            flat.uniform_(generator=self.generator)
        flat.clamp_(1e-7, 1 - 1e-7)
        if distribution == "gaussian":
            torch.special.ndtri(flat, out=flat)
        else:
            half = flat - 0.5
            flat.copy_(-half.sign() * torch.log1p(-2 * half.abs()))

    def _normal_(self, flat: Tensor) -> None:
        if self._bits is None:
            flat.normal_(generator=self.generator)
            return
        words = self._bits.random_raw(-(-len(flat) // 4))
        index = torch.from_numpy(words.view(np.uint16)[: len(flat)].astype(np.int32))
        torch.index_select(_quantiles(flat.dtype), 0, index, out=flat)


@lru_cache(maxsize=2)
def _quantiles(dtype: torch.dtype) -> Tensor:
    """The middle of each of 65,536 equal parts of the normal distribution, at variance 1."""
    middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    quantiles: Tensor = torch.special.ndtri(middle)
    return (quantiles / quantiles.square().mean().sqrt()).to(dtype)


def _sobol(points: Tensor, generator: torch.Generator) -> None:
    """Fill (draws, images, ...) with points in [0, 1).

    Every image has the points shifted by numbers of its own and in an order of its own, so that
    neither images nor the noises of different layers go together. torch's sequence stops at 21,201
    dimensions: wider noise is made of several sequences.
    """
    draws, images, device = *points.shape[:2], points.device
    flat = points.view(draws, images, -1)
    for start in range(0, flat.shape[2], SobolEngine.MAXDIM):
        part = flat[:, :, start : start + SobolEngine.MAXDIM]
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        engine = SobolEngine(part.shape[2], scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        shift = torch.rand(part.shape[1:], generator=generator, device=device)
        order = torch.rand(draws, images, generator=generator, device=device).argsort(0)
        part.copy_((engine.draw(draws).to(device)[order] + shift) % 1)
