"""Draws of standard noise, Gaussian or Laplace, at random or from scrambled Sobol points."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

Distribution = Literal["gaussian", "laplace"]


def fill(eps: Tensor, distribution: Distribution, quasi: bool, generator: torch.Generator) -> None:
    """Fill eps, (draws, images, ...), dense in memory, with noise of scale 1.

    With `quasi` the draws of one image are Sobol points through the inverse distribution function.
    """
    flat = eps.as_strided((eps.numel(),), (1,))  # in memory order, which is many times faster
    if distribution == "gaussian" and not quasi:
        flat.normal_(generator=generator)
        return
    if quasi:
        _sobol(eps, generator)
    else:
        flat.uniform_(generator=generator)
    flat.clamp_(1e-7, 1 - 1e-7)
    if distribution == "gaussian":
        torch.special.ndtri(flat, out=flat)
    else:
        half = flat - 0.5
        flat.copy_(-half.sign() * torch.log1p(-2 * half.abs()))


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
