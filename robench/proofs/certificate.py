"""What injected noise proves: a lower bound of being right at every point of the ball.

Noise of the first layer, v = W x + sigma eps, hides a perturbation d in part: all that follows sees
d only as a shift of normal numbers, s = sqrt(T) ||diag(1 / sigma) W d||_2 for T independent draws
over time. So an event of probability p at x has at least Phi(Phi^-1(p) - s) at x + d (Neyman and
Pearson; Cohen et al. 2019, arXiv 1902.02918; Lecuyer et al. 2018, arXiv 1802.03471).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.stats import beta, norm
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.target import WeightsTarget
from robench.networks.base import Network
from robench.networks.fc import FC
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, NoisyLayer, noise_source
from robench.networks.snn import SNN
from robench.proofs.reading import Unreadable, input_scale
from robench.proofs.units import Floats

AT_ONCE = 50
"""Draws that are asked for in one go."""


class NoiseCertificate(Attack):
    """Certifies by the Gaussian noise of the first layer alone; it perturbs nothing."""

    needs: ClassVar[str] = "weights"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    paper: ClassVar[str] = "Cohen et al. 2019, arXiv 1902.02918"

    draws: int = Field(default=1000, ge=1)
    """Fresh draws at the clean image, from which its probability is bounded."""
    confidence: float = Field(default=0.999, gt=0.5, lt=1)
    """With which each image's probability is at least the bound (Clopper and Pearson)."""
    bounds: Literal["expected", "vote"] = "expected"
    """expected: the probability of a right answer; vote: whether the majority of many is right."""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        assert isinstance(target, WeightsTarget)
        eps = self.finite_eps(target)
        try:
            matrix, steps = first_layer(target.network)
        except Unreadable as why:
            for image in range(len(x)):
                target.left_open(image, str(why))
            return x
        right = torch.zeros(len(x), dtype=torch.long, device=x.device)
        left = self.draws
        while left:
            draws = min(left, AT_ONCE)
            right += (target.answers(x, draws).argmax(2) == y).sum(0)
            left -= draws
        low, high = (b.flatten(1).double().cpu().numpy() for b in target.ball.bounds(x))
        clean = x.flatten(1).double().cpu().numpy()
        reach = np.maximum(high - clean, clean - low)
        for image, count in enumerate(right.tolist()):
            if not count:
                continue
            p = beta.ppf(1 - self.confidence, count, self.draws - count + 1)
            shift = math.sqrt(steps) * largest_shift(matrix, reach[image], target.norm, eps)
            at_least = float(norm.cdf(norm.ppf(p) - shift))
            if self.bounds == "vote":
                at_least = float(at_least > 0.5)
            if at_least > 0:
                target.proved(image, at_least)
        return x


def first_layer(network: Network) -> tuple[Floats, int]:
    """diag(1 / sigma) W of the pixels, (units, pixels), and the draws of its noise in one answer.

    Raises Unreadable where no Gaussian noise is in use there, or something random comes before it.
    """
    if type(noise_source(network)) is not GaussianNoise:
        raise Unreadable("no Gaussian noise in use: its certificate needs inference_noise = true")
    if type(network) not in (MLP, FC, SNN) or network.random_input:
        raise Unreadable(f"no certificate for the noise of {type(network).__name__}")
    layer = next(module for module in network.modules() if isinstance(module, NoisyLayer))
    if not isinstance(layer.op, torch.nn.Linear):
        raise Unreadable("no certificate for noise behind a convolution")
    sigma = layer.sigma.detach().double().abs().cpu().numpy()
    if not (sigma > 0).all():
        raise Unreadable("a unit of the first layer has no noise")
    weight = input_scale(network) * layer.op.weight.detach().double().cpu().numpy()
    return weight / sigma[:, None], network.steps if isinstance(network, SNN) else 1


def largest_shift(matrix: Floats, reach: Floats, norm_: str, eps: float) -> float:
    """At least the largest ||matrix d||_2 over the ball. reach: how far each pixel can go."""
    if norm_ == "l1":
        return eps * float(np.linalg.norm(matrix, axis=0).max())
    spectral = eps * float(np.linalg.norm(matrix, 2))
    if norm_ == "l2":
        return spectral
    reached = matrix * reach
    rows = float(np.linalg.norm(np.abs(reached).sum(1)))
    gram = float(np.linalg.eigvalsh(reached @ reached.T)[-1]) * len(reach)
    return min(rows, math.sqrt(max(gram, 0.0)) * (1 + 1e-9))
