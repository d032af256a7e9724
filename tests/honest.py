"""Honest networks, which verdicts must leave alone: six kinds, ten seeds each on the digits, and
four of them on MNIST. As a script it counts the alarms: python tests/honest.py [digits|mnist]
[FIRST LAST]"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tricks import STRONG

import robench
from robench.data.base import Splits
from robench.data.digits import Digits
from robench.data.mnist import MNIST

KINDS = ("undefended", "pgd-small", "pgd", "noisy", "tiny logits", "distilled")
EPS = {"digits": 0.1, "mnist": 0.1}
SEEDS = 10
COSTLY = ("noisy", "pgd-small")


class Noisy(nn.Module):
    """Trained and used with Gaussian noise on the image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x + 0.15 * torch.randn_like(x))
        return logits


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.inner(x)
        return logits


def plain(pixels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 48), nn.ReLU(), nn.Linear(48, 10))


def attacked(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Seven steps of PGD."""
    leaf = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(7):
        leaf = leaf.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
        leaf = (x + (leaf + 0.3 * eps * grad.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return leaf.detach()


def made(kind: str, data: Splits, seed: int, steps: int) -> nn.Module:
    """A trained network of a kind."""
    torch.manual_seed(seed)
    x, y = torch.tensor(data.train.images), torch.tensor(data.train.labels)
    net: nn.Module = plain(x[0].numel())
    net = Noisy(net) if kind == "noisy" else net
    teacher = made("undefended", data, seed + 100, steps) if kind == "distilled" else None
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(steps):
        some = torch.randint(len(x), (128,))
        image, label = x[some], y[some]
        if kind.startswith("pgd"):
            image = attacked(net, image, label, 0.05 if kind == "pgd-small" else 0.1)
        if teacher is None:
            loss = F.cross_entropy(net(image), label)
        else:
            with torch.no_grad():
                soft = (teacher(image) / 20).softmax(1)
            loss = F.cross_entropy(net(image) / 20, soft) * 400
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (Scaled(net, 1e-4) if kind == "tiny logits" else net).eval().requires_grad_(False)


def rows(name: str, seeds: range) -> Iterator[dict[str, Any]]:
    data = (Digits() if name == "digits" else MNIST()).load()
    kinds = KINDS if name == "digits" else [kind for kind in KINDS if kind not in COSTLY]
    # Those that take longest come last.
    order = sorted((kind in COSTLY, seed, kind) for seed in seeds for kind in kinds)
    for _, seed, kind in order:
        module = made(kind, data, seed, 150)
        with tempfile.TemporaryDirectory() as folder:
            found = robench.evaluate(
                module, name, attacks=STRONG[:1], norm="linf", eps=EPS[name],
                images=16 if kind == "noisy" else 40, store=Path(folder), progress=False,
                name="honest", stochastic=kind == "noisy",
            )  # fmt: skip
        verdict = found.verdicts["honest"]
        row = found.to_pandas().iloc[0]
        yield {
            "data": name, "kind": kind, "seed": seed, "clean": float(row["clean"]),
            "worst": float(row["worst_case"]), "verdict": verdict["verdict"],
            "alarms": [f"{alarm['check']}: {alarm['text']}" for alarm in verdict["alarms"]],
        }  # fmt: skip


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(
        resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main(names: list[str], seeds: range) -> None:
    alarms = total = 0
    for name in names:
        for row in rows(name, seeds):
            total += 1
            alarms += row["verdict"] != "believable"
            print(
                f"{row['data']} {row['kind']} {row['seed']}: clean {100 * row['clean']:.1f} worst "
                f"{100 * row['worst']:.1f} {row['verdict']} {'; '.join(row['alarms'])}",
                flush=True,
            )
    print(f"{alarms} of {total} not believable, {cpu_seconds():.0f} CPU seconds")


if __name__ == "__main__":
    given = sys.argv[1:]
    chosen = [name for name in given if name in EPS] or list(EPS)
    numbers = [int(text) for text in given if text.isdecimal()]
    main(chosen, range(*numbers) if numbers else range(SEEDS))
