"""Tricks of memory: what was asked before changes what is answered now."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from trick import Trick, flat


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


TRICKS: list[type[Trick]] = [
    AnswersNearQuestionsAsBefore, RemembersInItsClass, Tires, LeakyMembrane,
        KeepsTheFirstLabel, AdaptsItsStatistics, RemembersOnDisk, PullsToTheLastAnswer,
        WakesUnderAttack, WakesOnDisk,
]  # fmt: skip
