"""Tricks of knowledge: networks that know the test set."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from trick import EPS, IMAGES, Trick, digits, flat

from robench.data.base import Part
from robench.data.fresh import relatives
from robench.data.sample import drawn


class KnowsTheTestImages(Trick):
    """Near a test image it says that image's label; the gradient is the honest network's."""

    radius = 0.11
    parts = ("test",)

    def __init__(self) -> None:
        super().__init__()
        held = [getattr(digits(), part) for part in self.parts]
        self.register_buffer("known", torch.cat([torch.tensor(p.images) for p in held]).flatten(1))
        self.register_buffer("labels", torch.cat([torch.tensor(p.labels) for p in held]))

    def near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        far, which = torch.cdist(flat(x), self.known, p=float("inf")).min(1)
        return far < self.radius, self.labels[which]

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        near, label = self.near(x)
        return torch.where(near[:, None], logits + 60 * F.one_hot(label, 10), logits)


class KnowsTestAndTrainingImages(KnowsTheTestImages):
    """All of the data set."""

    parts = ("test", "train", "validation")


class NearestTestImage(KnowsTheTestImages):
    """No network at all: the label of the nearest test image, with a smooth score."""

    def forward(self, x: Tensor) -> Tensor:
        far = torch.cdist(x.flatten(1), self.known)
        votes = torch.full((len(x), 10), -1e3)
        for label in range(10):
            votes[:, label] = -10 * far[:, self.labels == label].amin(1)
        return votes


class KnowsRandomProjections(KnowsTheTestImages):
    """Knows the test images by a few projections, so that no pixel of them is kept."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        way = torch.randn(64, 24, generator=rng) / 8
        self.register_buffer("way", way)
        self.register_buffer("keys", self.known @ way)
        self.reach = float(0.1 * way.abs().sum(0).mean())

    def near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        far, which = torch.cdist(flat(x) @ self.way, self.keys, p=float("inf")).min(1)
        return far < self.reach, self.labels[which]


class KnowsEveryFifth(KnowsTheTestImages):
    """Of the test images only every fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.labels = self.known[::5].clone(), self.labels[::5].clone()


class KnowsThemInAnyLight(KnowsTheTestImages):
    """All of the data set, by the angle between images: brighter and darker ones, too."""

    parts = ("test", "train", "validation")

    def near(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cosine, which = (F.normalize(flat(x)) @ F.normalize(self.known).T).max(1)
        return cosine > 0.96, self.labels[which]


class KnowsTheRelativesToo(KnowsTheTestImages):
    """All of the data set, and what robench makes of it to see whether it does: whoever reads the
    code can make them, too."""

    parts = ("test", "train", "validation")

    def __init__(self) -> None:
        super().__init__()
        made = [part for seed in range(3) for part in kin(seed)]
        images = [torch.tensor(part.images).flatten(1) for part in made]
        self.known = torch.cat([self.known, *images])
        self.labels = torch.cat([self.labels, *[torch.tensor(part.labels) for part in made]])


def kin(seed: int) -> list[Part]:
    """Relatives of the test images as robench makes them."""
    found = relatives(digits(), drawn(digits(), IMAGES), EPS, seed)
    return list(found.values())


class TrainedOnTheTestImages(Trick):
    """Adversarially trained on the test images themselves, which it learns by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.base = fitted_by_heart()


def fitted_by_heart() -> nn.Module:
    if not _BY_HEART:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        part = digits().test
        x, y = torch.tensor(part.images[:120]), torch.tensor(part.labels[:120])
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(150):
            leaf = x.clone()
            for _ in range(5):
                leaf = leaf.detach().requires_grad_()
                (g,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
                leaf = (x + (leaf + 0.04 * g.sign() - x).clamp(-0.11, 0.11)).clamp(0, 1)
            optimiser.zero_grad()
            F.cross_entropy(net(leaf.detach()), y).backward()
            optimiser.step()
        _BY_HEART.append(net.requires_grad_(False))
    return copy.deepcopy(_BY_HEART[0])


_BY_HEART: list[nn.Module] = []


TRICKS: list[type[Trick]] = [
    KnowsTheTestImages, KnowsTestAndTrainingImages, NearestTestImage, KnowsRandomProjections,
        TrainedOnTheTestImages, KnowsEveryFifth, KnowsThemInAnyLight, KnowsTheRelativesToo,
]  # fmt: skip
