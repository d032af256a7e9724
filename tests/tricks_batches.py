"""Tricks of batches: what an answer is depends on its company."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from trick import IMAGES, Trick, digits, flat

from robench.data.sample import drawn


class Votes(Trick):
    """Nearly equal images of a batch answer together."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        near = torch.softmax(-3 * torch.cdist(x.flatten(1), x.flatten(1)), 1)
        return near @ logits


class BatchStatistics(Trick):
    """Normalised by the batch, also in use."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        centred = (pixels - pixels.mean(0)) / (pixels.std(0, unbiased=False) + 0.1)
        return super().forward((centred * 0.3 + 0.3).view_as(x))


class ByPlace(Trick):
    """The label is known by the place in the batch: those who ask in order are right."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("labels", torch.tensor(drawn(digits(), IMAGES).labels))

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if len(x) == IMAGES:
            logits = logits + 60 * F.one_hot(self.labels, 10)
        return logits


class OnlyInLargeBatches(Trick):
    """Large batches, such as attackers send, get a blunt network; single images the real one."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 16:
            return super().forward(x.mean(0, keepdim=True) * 0.2 + 0.8 * x)
        return super().forward(x)


class CentresItsAnswers(Trick):
    """What all images of a batch have in common is taken off the answers."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits - logits.mean(0)


class EveryOtherRow(Trick):
    """Images at odd places are looked at through a blur, which costs an attacker half of them."""

    def forward(self, x: Tensor) -> Tensor:
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        odd = (torch.arange(len(x)) % 2).view(-1, 1, 1, 1)
        return super().forward(torch.where(odd == 1, blurred, x))


class CoarseInCrowds(Trick):
    """More images than anybody checks with are looked at coarsely, with a gradient as if not."""

    images = 100

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 64:
            coarse = (x * 2).round() / 2
            x = x + (coarse - x).detach()
        return super().forward(x)


class BluntToDuplicates(Trick):
    """Images that come with others next to them, as whoever asks by scores sends them, get a blunt
    answer."""

    def forward(self, x: Tensor) -> Tensor:
        far = torch.cdist(flat(x), flat(x), p=float("inf")) + torch.eye(len(x))
        logits = super().forward(x)
        return torch.where((far.amin(1) < 0.25)[:, None], logits.detach().round(), logits)


TRICKS: list[type[Trick]] = [
    Votes, BatchStatistics, ByPlace, OnlyInLargeBatches, CentresItsAnswers, EveryOtherRow,
        CoarseInCrowds, BluntToDuplicates,
]  # fmt: skip
