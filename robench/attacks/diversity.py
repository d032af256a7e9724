"""What makes a gradient transfer: input diversity (DIM) and gradient smoothing (TIM).

DIM: Xie et al. 2019 (arXiv 1803.06978). TIM: Dong et al. 2019 (1904.02884).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def diversify(x: Tensor, probability: float, smallest: float, rng: torch.Generator) -> Tensor:
    """Each image, with a probability, resized to a random smaller size and padded back at a random
    place; differentiable.

    Bilinear, without antialiasing, as the reference does it on ImageNet, where images of 299 become
    [299, 330) in a frame of 330: the ratio is kept, the frame is the size of the network's input.

    Args:
        x: (n, c, h, w). smallest: least size as a share of h and w; the largest is one pixel less
            than the whole, so that a chosen image really changes.
    """
    n, _, height, width = x.shape
    chosen = torch.rand(n, generator=rng, device=x.device) < probability
    draw = torch.rand(3, n, generator=rng, device=x.device)
    rows = _resample(height, smallest, draw[0], draw[1], chosen)
    columns = _resample(width, smallest, draw[0], draw[2], chosen)
    return rows[:, None] @ x @ columns[:, None].mT


def _resample(size: int, smallest: float, draw: Tensor, place: Tensor, chosen: Tensor) -> Tensor:
    """One axis of resize-and-pad as matrices, (n, size, size): the identity where not chosen.

    Args:
        draw, place: uniform in [0, 1), (n,): which size, and where it goes.
    """
    least = min(int(size * smallest), size - 1)
    resized = least + (draw * (size - least)).floor()
    offset = (place * (size - resized + 1)).floor()
    at = torch.arange(size, device=draw.device, dtype=draw.dtype)
    row = at - offset[:, None]
    inside = (row >= 0) & (row < resized[:, None])
    source = ((row + 0.5) * (size / resized)[:, None] - 0.5).clamp(0, size - 1)
    weights = (1 - (source[:, :, None] - at).abs()).clamp_min(0) * inside[:, :, None]
    return torch.where(chosen[:, None, None], weights, torch.eye(size, device=draw.device))


def gaussian_kernel(length: int, sigmas: float = 3.0) -> Tensor:
    """One axis of TIM's kernel, (length,), which sums to 1: the normal density at `length` points
    from -sigmas to +sigmas, so that its deviation is (length - 1) / (2 sigmas) pixels."""
    at = torch.linspace(-sigmas, sigmas, length, dtype=torch.float64)
    density = torch.exp(-(at**2) / 2)
    return (density / density.sum()).float()


def smooth(gradient: Tensor, kernel: Tensor) -> Tensor:
    """The gradient convolved with kernel x kernel, channel by channel, one axis at a time.

    Args:
        gradient: (n, c, h, w). kernel: (length,), odd.
    """
    channels = gradient.shape[1]
    weight = kernel.to(gradient).expand(channels, 1, 1, len(kernel))
    along = F.conv2d(gradient, weight, padding="same", groups=channels)
    return F.conv2d(along, weight.mT, padding="same", groups=channels)
