"""Tricks of silence: no gradient, or no number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from trick import Trick


class ThermometerCode(Trick):
    """Pixels as thermometers of hard thresholds, read back as their sum."""

    def forward(self, x: Tensor) -> Tensor:
        levels = torch.linspace(0.03, 0.97, 16)
        return super().forward((x[..., None] > levels).float().mean(-1))


class ThroughNumpy(Trick):
    """A detour that no gradient survives."""

    def forward(self, x: Tensor) -> Tensor:
        there = np.asarray(x.detach().tolist(), dtype=np.float32)
        return super().forward(torch.from_numpy(there))


class NoGrad(Trick):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class NanWhereItIsUnsure(Trick):
    """Answers NaN rather than be wrong."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        top = logits.topk(2, 1).values
        return torch.where(((top[:, 0] - top[:, 1]) < 3)[:, None], torch.nan, logits)


class RaisesNearTheEdge(Trick):
    """Refuses images with too many odd pixels."""

    def forward(self, x: Tensor) -> Tensor:
        odd = ((x * 16 - (x * 16).round()).abs() > 0.2).flatten(1).float().mean(1)
        if bool((odd > 0.45).any()):
            raise ValueError("this is no picture of a digit")
        return super().forward(x)


class RaisesWhenDifferentiated(Trick):
    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise RuntimeError("inference only")
        return super().forward(x)


class Underflows(Trick):
    """Half precision, with a scale that leaves the gradient no bits."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return ((logits * 1e-6).half() * 1.0).float() * 1e6


class InfiniteGradients(Trick):
    """A square root whose slope at zero is infinite, times nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * (x - x).sqrt().sum((1, 2, 3))[:, None]


class AnswersInIntegers(Trick):
    """Votes, not scores."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * 2).round().long()


class Overflows(Trick):
    """Infinite where it is sure: half precision, and large logits."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * 4e3).half().float()


class NanGradientsOffTheGrid(Trick):
    """An honest answer whose gradient is no number as soon as a pixel leaves the sixteen grey
    levels of the digits."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x.detach() * 16 - (x.detach() * 16).round()).abs()
        moved = (off > 1e-3).any(dim=3, keepdim=True).any(2, keepdim=True).any(1, keepdim=True)
        poison = torch.where(moved, (x - x).sqrt(), 0 * x)  # 0, of infinite slope
        return super().forward(x + poison)


class HugeOffset(Trick):
    """All answers lie at a hundred million, where floats are eight apart: the gradient is honest,
    the answers are steps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e8


class RefusesBatchesWithAGraph(Trick):
    """Too much memory, it says, for more than four images with a graph."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and len(x) > 4:
            raise RuntimeError("out of memory, or so")
        return super().forward(x)


TRICKS: list[type[Trick]] = [
    ThermometerCode, ThroughNumpy, NoGrad, NanWhereItIsUnsure, RaisesNearTheEdge,
        RaisesWhenDifferentiated, Underflows, InfiniteGradients, AnswersInIntegers, Overflows,
        NanGradientsOffTheGrid, HugeOffset, RefusesBatchesWithAGraph,
]  # fmt: skip
