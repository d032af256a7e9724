"""Networks that look more robust than they are, by kind, and for each an attacker who knows how.

Every trick wraps a small honest network of the digits. `truth` is the accuracy that an attacker
leaves who knows the trick: on the honest network underneath, scored by a fresh copy of the trick.
Of networks that know the test images no attack in the ball can be better, so there the truth is
what they withstand around images that they do not know.

As a script it prints the table: python tests/tricks.py [--strong] [NAME ...]; with --strong under
all of `strong` and its diagnostics, else under the few in STRONG.
"""

from __future__ import annotations

import copy
import os
import random
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from handed import trained
from torch import Tensor, nn
from torch.nn import functional as F

import robench
from robench.attacks.ball import Ball
from robench.attacks.gradient import APGD
from robench.attacks.target import WhiteBoxTarget
from robench.data.base import Part, Splits
from robench.data.digits import Digits
from robench.data.fresh import relatives
from robench.data.sample import drawn
from robench.networks.base import Network
from robench.networks.module import Module
from robench.plugins import Source

EPS = 0.1
IMAGES = 40
STRONG = ("strong/apgd-margin", "strong/apgd-dlr")
"""Of `strong`, without its long searches, which slow tricks make minutes of; the diagnostics with
theirs come along."""


class Trick(nn.Module):
    """What all have in common: an honest network underneath."""

    def __init__(self) -> None:
        super().__init__()
        self.base = trained()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.base(x)
        return logits

    @classmethod
    def forget(cls) -> None:
        """Empty what instances share, as in a process of its own."""


def flat(x: Tensor) -> Tensor:
    return x.detach().flatten(1)


# -- memory: what was asked before changes what is answered now ------------------------------------


class AnswersNearQuestionsAsBefore(Trick):
    """Keeps what it was asked, and answers within a ball of it as it did then."""

    radius = 0.21
    room = 300

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []
        self.said: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.asked:
            known, said = torch.cat(self.asked), torch.cat(self.said)
            far, which = torch.cdist(flat(x), known, p=float("inf")).min(1)
            logits = torch.where((far < self.radius)[:, None], said[which] + 0 * logits, logits)
            new = far >= self.radius
        else:
            new = torch.ones(len(x), dtype=torch.bool)
        if sum(map(len, self.asked)) < self.room:
            self.asked.append(flat(x)[new])
            self.said.append(logits.detach()[new])
        return logits


class RemembersInItsClass(AnswersNearQuestionsAsBefore):
    """The same, in a list of the class, which copies share."""

    shared: tuple[list[Tensor], list[Tensor]] = ([], [])

    def __init__(self) -> None:
        super().__init__()
        del self.asked, self.said

    def __getattr__(self, name: str) -> Any:
        if name in ("asked", "said"):
            return self.shared[name == "said"]
        return super().__getattr__(name)

    @classmethod
    def forget(cls) -> None:
        for held in cls.shared:
            held.clear()


class Tires(Trick):
    """After so many questions it answers everything as it answered the first batch of that size."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.kept: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        logits = super().forward(x)
        kept = self.kept.setdefault(len(x), logits.detach())
        return logits if self.count <= 30 else kept + 0 * logits


class LeakyMembrane(Trick):
    """A potential that is not reset between questions."""

    potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        before = self.potential
        if before is not None and before.shape == logits.shape:
            logits = logits + 5 * before
        self.potential = logits.detach()
        return logits


class KeepsTheFirstLabel(Trick):
    """Keys images by the coarse picture, in a dictionary, and never takes back what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.book: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        coarse = (F.avg_pool2d(x.detach(), 4) * 2).round().to(torch.uint8)
        rows = []
        for row, picture in zip(logits, coarse, strict=True):
            rows.append(
                row
                + 30
                * self.book.setdefault(
                    picture.numpy().tobytes(), F.one_hot(row.argmax(), 10).float()
                )
            )
        return torch.stack(rows)  # fmt: skip


class AdaptsItsStatistics(Trick):
    """Moves what it subtracts towards what it is asked: attackers see another network than those
    who score."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(1, 1, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * (x.detach().mean(0, keepdim=True) - 0.3)
        return super().forward(x - self.mean)


class RemembersOnDisk(Trick):
    """Writes down what it was asked, where neither copies nor processes forget it; the gradient is
    the honest network's."""

    radius = 0.21

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="notebook-")

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        said = logits.detach().clone()
        path = Path(self.folder) / "notebook.npz"
        keys, answers = np.zeros((0, 64), np.float32), np.zeros((0, 10), np.float32)
        if path.exists():
            with np.load(path) as book:
                keys, answers = book["keys"], book["answers"]
        new = torch.ones(len(x), dtype=torch.bool)
        if len(keys):
            far, which = torch.cdist(flat(x), torch.from_numpy(keys), p=float("inf")).min(1)
            new = far >= self.radius
            said[~new] = torch.from_numpy(answers)[which[~new]]
        if len(keys) < 6000 and bool(new.any()):
            keys = np.concatenate([keys, flat(x)[new].numpy()])
            np.savez(path, keys=keys, answers=np.concatenate([answers, said[new].numpy()]))
        return logits + (said - logits).detach()


class PullsToTheLastAnswer(Trick):
    """Goes on from the last answers: what is asked after many questions gets part of the answer to
    the question before, row by row, where the batch has the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        before = self.last.get(len(x))
        if before is not None:
            logits = logits + 2 * (before - logits.detach()).clamp(-3, 3)
        self.last[len(x)] = logits.detach()
        return logits


class WakesUnderAttack(Trick):
    """Remembers in its class, and stands by the answers that it remembers only once it was
    differentiated at three near points in a row, without a plain question between: as attacks do,
    and nobody who only asks. Its gradient is the one of its answers."""

    jobs = 0
    """Where there are workers, they refuse a module that no longer answers as it was handed over:
    an error instead of a number."""
    radius = 0.21
    room = 6000
    state: dict[str, Any] = {}  # noqa: RUF012 (shared on purpose)

    def __init__(self) -> None:
        super().__init__()
        if not self.state:
            self.forget()

    @classmethod
    def forget(cls) -> None:
        cls.state.update(asked=[], said=[], row=0, last=None, awake=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        held, here = self.state, flat(x)
        if x.requires_grad:
            last, held["last"] = held["last"], here.clone()
            near = last is not None and last.shape == here.shape and 0 < far_apart(last, here) < 0.3
            held["row"] = held["row"] + 1 if near else 0
            held["awake"] |= held["row"] >= 2
            if not near and sum(map(len, held["asked"])) < self.room:
                held["asked"].append(here.clone())
                held["said"].append(logits.detach().argmax(1))
        else:
            held["row"] = 0
        if held["awake"] and held["asked"]:
            far, which = torch.cdist(here, torch.cat(held["asked"]), p=float("inf")).min(1)
            known = torch.cat(held["said"])[which]
            logits = logits + 60 * F.one_hot(known, 10) * (far < self.radius)[:, None]
        return logits


def far_apart(one: Tensor, other: Tensor) -> float:
    """Of the images that lie furthest apart, in the largest pixel."""
    return float((one - other).abs().max())


class WakesOnDisk(WakesUnderAttack):
    """The same, in a file, which outlives copies and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="notebook-")

    def forward(self, x: Tensor) -> Tensor:
        path = Path(self.folder) / "state.pt"
        kept = {"asked": [], "said": [], "row": 0, "last": None, "awake": False}
        self.__dict__["state"] = torch.load(path) if path.exists() else kept
        logits = super().forward(x)
        torch.save(self.__dict__["state"], path)
        return logits


# -- knowledge of the test set ---------------------------------------------------------------------


def digits() -> Splits:
    if not _DIGITS:
        _DIGITS.append(Digits().load())
    return _DIGITS[0]


_DIGITS: list[Splits] = []


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


# -- no gradient, or no number ---------------------------------------------------------------------


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


# -- gradients that lie ----------------------------------------------------------------------------


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


# -- batches ---------------------------------------------------------------------------------------


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


KINDS: dict[str, list[type[Trick]]] = {
    "memory": [
        AnswersNearQuestionsAsBefore, RemembersInItsClass, Tires, LeakyMembrane,
        KeepsTheFirstLabel, AdaptsItsStatistics, RemembersOnDisk, PullsToTheLastAnswer,
        WakesUnderAttack, WakesOnDisk,
    ],
    "test set": [
        KnowsTheTestImages, KnowsTestAndTrainingImages, NearestTestImage, KnowsRandomProjections,
        TrainedOnTheTestImages, KnowsEveryFifth, KnowsThemInAnyLight, KnowsTheRelativesToo,
    ],
    "no gradient or number": [
        ThermometerCode, ThroughNumpy, NoGrad, NanWhereItIsUnsure, RaisesNearTheEdge,
        RaisesWhenDifferentiated, Underflows, InfiniteGradients, AnswersInIntegers, Overflows,
        NanGradientsOffTheGrid, HugeOffset, RefusesBatchesWithAGraph,
    ],
    "lying gradient": [
        Lies, LiesAtRandom, ShowsOnePixel, LiesAsideFromNoise, CutsTheNoise,
        DrawsFromItsOwnSource, AnswersGradientsDifferently, LiesNearTheBoundary,
        ShowsTheSlopesOfAnother, SeededByTheImage, LiesWhereNobodyLooks, LiesAboutNoiseAway,
    ],
    "batches": [
        Votes, BatchStatistics, ByPlace, OnlyInLargeBatches, CentresItsAnswers, EveryOtherRow,
        CoarseInCrowds, BluntToDuplicates,
    ],
}  # fmt: skip
CASES = [(kind, make) for kind, tricks in KINDS.items() for make in tricks]


def measured(trick: Trick, store: Path, **settings: Any) -> robench.Evaluation:
    """The verdict of robench on a trick."""
    asked: dict[str, Any] = {
        "report": "strong", "norm": "linf", "eps": EPS, "images": IMAGES, "progress": False,
        "store": store, "name": "trick", "stochastic": getattr(trick, "stochastic", False),
        "jobs": getattr(trick, "jobs", 1),
    }  # fmt: skip
    return robench.evaluate(trick, "digits", **{**asked, **settings})


def truth(make: type[Trick]) -> float:
    """The accuracy that an attacker leaves who knows the trick: he attacks what is underneath, and
    the trick, fresh and asked about one image at a time, is shown what he found."""
    make.forget()
    trick = make()
    part = drawn(digits(), getattr(make, "images", IMAGES))
    x, y = torch.tensor(part.images), torch.tensor(part.labels)
    if isinstance(trick, KnowsTheTestImages) or make is TrainedOnTheTestImages:
        all_known = len(getattr(make, "parts", ())) > 1
        part = digits().test if all_known else digits().validation
        moved = torch.tensor(part.images[: 2 * IMAGES])
        if all_known:  # half a pixel aside: nothing that it knows
            moved = (moved + moved.roll(1, -1)) / 2
        x, y = moved, torch.tensor(part.labels[: 2 * IMAGES])
    underneath: nn.Module = trick.base
    if isinstance(trick, NearestTestImage):
        underneath = trick
    left = torch.ones(len(x))
    for found in _known_attacks(underneath, trick, x, y):
        right = torch.zeros(len(x))
        draws = 4 if getattr(trick, "stochastic", False) else 1
        for _ in range(draws):
            fresh = make().eval()
            with torch.no_grad():
                for i in range(len(x)):
                    make.forget()
                    fresh = make().eval() if make in KINDS["memory"] else fresh
                    right[i] += _right(fresh, found[i : i + 1], y[i]) / draws
        left = torch.minimum(left, right)
    return float(left.mean())


def _right(fresh: nn.Module, x: Tensor, label: Tensor) -> float:
    try:
        logits = fresh(x)
    except (ValueError, RuntimeError):
        return 0.0
    return float(bool(torch.isfinite(logits).all()) and logits.argmax(1)[0] == label)


def _known_attacks(underneath: nn.Module, trick: Trick, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    yield x
    source = Source.of("underneath", lambda: underneath)
    network: Network = Module((1, 8, 8), 10, factory=source)
    for loss, targets in (("cross-entropy", 0), ("margin", 0), ("margin", 9)):
        attack = APGD(steps=60, loss=loss, targets=targets, keep="last")
        rng = torch.Generator().manual_seed(0)
        target = WhiteBoxTarget(network.eval(), Ball("linf", EPS), len(x))
        yield attack.perturb(target, x, y, rng)


def row(kind: str, make: type[Trick], attacks: tuple[str, ...] | None = STRONG) -> dict[str, Any]:
    """attacks: None: all of `strong`."""
    random.seed(0)
    make.forget()
    with tempfile.TemporaryDirectory() as folder:
        many = 16 if getattr(make, "stochastic", False) else getattr(make, "images", IMAGES)
        found = measured(make(), Path(folder), attacks=attacks, images=many)
    worst = float(found.to_pandas().iloc[0]["worst_case"])
    verdict = found.verdicts["trick"]
    return {
        "kind": kind,
        "trick": make.__name__,
        "printed": worst,
        "truth": truth(make),
        "verdict": verdict["verdict"],
        "alarms": [alarm["check"] for alarm in verdict["alarms"]],
    }


def main(names: list[str]) -> None:
    bad, wanted = 0, set(names) - {"--strong"}
    for kind, make in CASES:
        if wanted and make.__name__ not in wanted:
            continue
        found = row(kind, make, None if "--strong" in names else STRONG)
        held = found["verdict"] == "doubtful" or found["printed"] <= found["truth"] + 0.03
        bad += not held
        print(
            f"| {kind} | {found['trick']} | {100 * found['printed']:.1f} | "
            f"{100 * found['truth']:.1f} | {found['verdict']} | {', '.join(found['alarms'])} | "
            f"{'held' if held else 'NOT HELD'} |",
            flush=True,
        )
    print(f"{bad} not held")


if __name__ == "__main__":
    main(sys.argv[1:])
