"""Gradients that lie, and that lie about noise."""

from __future__ import annotations

import os
import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from trick import Trick, digits


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: str) -> Tensor:
        ctx.how = how
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.how == "reversed":
            return -grad, None
        if ctx.how == "random":
            rng = torch.Generator().manual_seed(1)
            return torch.randn(grad.shape, generator=rng) * grad.abs().mean(), None
        if ctx.how == "one pixel":
            kept = torch.zeros_like(grad)
            kept[..., 0, 0] = grad.sum((1, 2, 3))[:, None]
            return kept, None
        return grad.flip(-1), None


class Lies(Trick):
    how = "reversed"

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.base(_Backwards.apply(x, self.how))
        return logits


class LiesAtRandom(Lies):
    how = "random"


class ShowsOnePixel(Lies):
    how = "one pixel"


class LiesAsideFromNoise(Trick):
    """A declared noisy network, whose gradient knows nothing of the signal that noise is added to:
    it is that of a blind network."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.blind = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        noisy = (x + 0.1 * torch.randn_like(x)).detach()
        return super().forward(noisy) + 0.01 * self.blind(x.flatten(1))


class CutsTheNoise(LiesAsideFromNoise):
    """Noise that grows where the image does, which the gradient is not told."""

    def forward(self, x: Tensor) -> Tensor:
        noise = 0.3 * torch.randn_like(x) * (1 + 3 * x.detach())
        hidden = self.base.hidden(x + noise)
        kept = hidden.detach() + 0.02 * self.blind(x.flatten(1)).sum(1, keepdim=True)
        logits: Tensor = self.base.second(kept)
        return logits


class DrawsFromItsOwnSource(Trick):
    """Noise that no seed reaches."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(int.from_bytes(os.urandom(6), "big"))
        return super().forward(x + 0.15 * torch.randn(x.shape, generator=rng))


class SeededByTheImage(Trick):
    """Noise whose seed is the image itself: asked twice it answers the same, and every step of an
    attack lands in other noise."""

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for picture in x.detach():
            seed = zlib.crc32(picture.numpy().tobytes())
            rng = torch.Generator().manual_seed(seed)
            rows.append(0.2 * torch.randn(picture.shape, generator=rng))
        return super().forward(x + torch.stack(rows))


class LiesWhereNobodyLooks(Trick):
    """The gradient is honest near clean images, whose corners are black, and leads back where a
    corner is brighter than questions about gradients go."""

    def forward(self, x: Tensor) -> Tensor:
        away = x.detach()[..., :, 0].amax((1, 2)) > 0.085
        back = self.base(_Backwards.apply(x, "reversed"))
        return torch.where(away[:, None], back, super().forward(x))


class LiesAboutNoiseAway(LiesAsideFromNoise):
    """A declared noisy network whose gradient is honest near clean images, and that of a blind
    network where a corner is brighter than that."""

    def forward(self, x: Tensor) -> Tensor:
        noisy = x + 0.1 * torch.randn_like(x)
        away = (x.detach()[..., :, 0].amax((1, 2)) > 0.085)[:, None]
        blind = self.base(noisy.detach()) + 0.01 * self.blind(x.flatten(1))
        return torch.where(away, blind, self.base(noisy))


class AnswersGradientsDifferently(Trick):
    """With a graph it is another network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.decoy = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            logits: Tensor = self.decoy(x)
            return logits
        return super().forward(x)


class LiesNearTheBoundary(Trick):
    """Honest where it is sure; where two classes are close, the gradient leads back."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        top = logits.detach().topk(2, 1).values
        close = ((top[:, 0] - top[:, 1]) < 4).float()[:, None]
        back: Tensor = self.base(_Backwards.apply(x, "reversed"))
        shown = (1 - close) * logits + close * back
        return shown + (logits - shown).detach()


class ShowsTheSlopesOfAnother(Trick):
    """Its own answers, with the gradient of a network that was fitted to the same labels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        part = digits().validation
        x, y = torch.tensor(part.images), torch.tensor(part.labels)
        self.other = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 200), nn.Tanh(), nn.Linear(200, 10)
        )  # fmt: skip
        optimiser = torch.optim.Adam(self.other.parameters(), lr=1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(self.other(x), y).backward()
            optimiser.step()
        self.other.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        shown: Tensor = self.other(x)
        return shown + (super().forward(x) - shown).detach()


TRICKS: list[type[Trick]] = [
    Lies, LiesAtRandom, ShowsOnePixel, LiesAsideFromNoise, CutsTheNoise,
        DrawsFromItsOwnSource, AnswersGradientsDifferently, LiesNearTheBoundary,
        ShowsTheSlopesOfAnother, SeededByTheImage, LiesWhereNobodyLooks, LiesAboutNoiseAway,
]  # fmt: skip
