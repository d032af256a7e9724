"""One attack tried out on a small network, with a watch on what really goes through it.

The network is trained here, in a moment, on scikit-learn's digits: nothing is downloaded. This is
the bench on which attacks.py checks attacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.goal import Goal
from robench.data.digits import Digits
from robench.make.scoring import ACCESS, RANK
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, noise
from robench.networks.torch_state import torch_seeded
from robench.plugin_code.guard import guarded

TARGETS = {needs: ACCESS[needs] for needs in RANK}
"""By what an attack may need."""


@dataclass
class Seen:
    """What really went through the network, whatever the attack's target was told."""

    rows: int = 0
    graphs: int = 0
    """Answers that came with a graph back to the images."""
    differentiated: int = 0


@dataclass(frozen=True)
class Attacked:
    """One run of an attack on the reference images."""

    x_adv: Tensor
    distance: Tensor
    wrong: Tensor
    """Share of draws that misclassify each image, (n,)."""
    queries: int
    gradients: int
    seen: Seen

    @property
    def success(self) -> float:
        return float(self.wrong.mean())


@lru_cache(maxsize=1)
def reference() -> tuple[MLP, Tensor, Tensor]:
    """A network 64-32-10 at about 95% on the digits, with 60 test images and labels."""
    data = Digits().load()
    x, y = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    with torch_seeded(0):
        network = MLP((1, 8, 8), 10, hidden=(32,), sigma=0.3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    network.eval().requires_grad_(False)
    return network, torch.from_numpy(data.test.images[:60]), torch.from_numpy(data.test.labels[:60])


def attempt(
    attack: Attack,
    access: str,
    norm: str,
    eps: float,
    batch: int = 60,
    noisy: bool = False,
    towards: Tensor | None = None,
) -> Attacked:
    """Run an attack on the reference network; the same arguments draw the same numbers.

    Args:
        towards: the class that each image is to be taken for, (60,); None: any wrong one.

    Raises RobenchError where the attack changes what is not its own.
    """
    network, images, labels = reference()
    network = deepcopy(network)  # whatever becomes of it
    who = f"attack {type(attack).__name__}"
    seen, queries, gradients = Seen(), 0, 0
    made: list[Tensor] = []
    source = GaussianNoise(torch.Generator().manual_seed(2)) if noisy else None
    with noise(network, source):
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):  # type: ignore[no-untyped-call]
            rng = torch.Generator().manual_seed(1 + len(made))
            done = sum(map(len, made))
            goal = None if towards is None else Goal(towards[done : done + len(x)])
            target = TARGETS[access](network, Ball(norm, eps), len(x), goal=goal)
            with _watched(network, seen), guarded(who, None, network):
                made.append(attack.perturb(target, x.clone(), y.clone(), rng))
            queries, gradients = queries + target.queries, gradients + target.gradients
        x_adv = torch.cat(made)
        with torch.no_grad():
            wrong = torch.stack([network(x_adv).argmax(1) != labels for _ in range(8)])
    distance = Ball(norm, eps).distance(x_adv, images)
    return Attacked(x_adv, distance, wrong.float().mean(0), queries, gradients, seen)


@contextmanager
def _watched(network: nn.Module, seen: Seen) -> Iterator[None]:
    def differentiated(grad: Tensor) -> None:
        seen.differentiated += len(grad)

    def answered(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.rows += len(inputs[0])
        if output.requires_grad:
            seen.graphs += 1
            output.register_hook(differentiated)  # type: ignore[no-untyped-call]

    hook = network.register_forward_hook(answered)
    try:
        yield
    finally:
        hook.remove()
