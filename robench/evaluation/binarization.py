"""Can an attack find what is surely there? The binarization test of Zimmermann, Brendel, Tramer and
Carlini (NeurIPS 2022, "Increasing Confidence in Adversarial Robustness Evaluations").

Around each image the network's last layer is replaced by a linear classifier of two classes, which
tells points well inside the ball from planted points on its surface, by the network's own features.
So every image has adversarial examples, and an attack that is strong enough for this network finds
nearly all of them, whatever the network itself withstands. One that does not has too little reach:
its number for the network says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import PGD
from robench.attacks.target import NoGradient
from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.make.scoring import ACCESS, in_use
from robench.networks.base import Network
from robench.networks.modules.handed import handed_over
from robench.networks.modules.module import Module

ENOUGH = 0.95
"""Share of planted examples that an attack should find."""


@dataclass(frozen=True)
class Binarization:
    """What became of the planted examples."""

    images: int
    """Images whose features could tell the planted points from the others."""
    found: int
    """Of which the attack found an adversarial point."""
    by_chance: float
    """Share that as many random points of the surface find as the attack asked questions."""

    @property
    def share(self) -> float:
        return self.found / self.images if self.images else 0.0

    @property
    def passed(self) -> bool:
        """Whether the attack may be trusted with this network."""
        return self.images > 0 and self.share >= ENOUGH

    def __str__(self) -> str:
        ending = "" if self.passed else ": it is too weak for this network"
        return (
            f"the attack finds {self.found} of {self.images} planted examples, chance finds "
            f"{100 * self.by_chance:.0f}%{ending}"
        )


def binarization_test(
    module: nn.Module,
    images: Any,
    *,
    eps: float,
    attack: Attack | None = None,
    inner: int = 200,
    planted: int = 1,
    reach: float = 0.5,
    stochastic: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Binarization:
    """Plant adversarial examples and let an attack look for them, in linf.

    Args:
        module: images (n, c, h, w), float32 in [0, 1] -> logits. It is copied.
        images: clean images, (n, c, h, w), a tensor or an array.
        eps: radius.
        attack: None: PGD, 50 steps, on the margin.
        inner: points inside that are to be told from `planted` points on the surface.
        reach: share of the ball in which the former lie.
        stochastic: whether two answers to one image may differ.
        settings: what else the network `module` is told of how the module answers (`outputs`,
            `mean`, ...).

    Raises RobenchError where images have the wrong shape.
    """
    x = torch.as_tensor(images, dtype=torch.float32)
    if x.dim() != 4 or not 0 < eps < 1:
        raise RobenchError("binarization_test: images are (n, c, h, w), and 0 < eps < 1")
    attack = attack or PGD(steps=50, loss="margin", restarts=2)
    channels, height, width = x.shape[1:]
    factory, _ = handed_over(module)
    told: dict[str, Any] = {"factory": factory, "stochastic": stochastic, **(settings or {})}
    # How many classes there are is what it answers; the network says so itself from then on.
    with torch.no_grad():
        classes = Module((channels, height, width), 2, **told).eval()(x[:1]).shape[1]
    network = Module((channels, height, width), classes, **told).eval()
    tried = found = 0
    lucky: list[float] = []
    for number, image in enumerate(x):
        rng = torch.Generator().manual_seed(derived_seed(seed, "binarization", number))
        two = _Binarised(network, image[None], eps, inner, planted, reach, rng)
        if not two.separates:
            continue
        tried += 1
        target = ACCESS[attack.needs](two, Ball("linf", eps), 1)
        label = torch.zeros(1, dtype=torch.long)
        with in_use(two, False, seed, x.device):
            try:
                x_adv = attack.perturb(target, image[None], label, rng)
            except NoGradient:
                x_adv = image[None]
            x_adv = target.project(x_adv, image[None])
            with torch.no_grad():
                found += int(two(x_adv).argmax(1)[0] == 1)
                asked = max(1, min(1000, target.queries))
                points = _surface(image[None], eps, asked, rng)
                lucky.append(float((two(points).argmax(1) == 1).any()))
    return Binarization(tried, found, sum(lucky) / tried if tried else 0.0)


class _Binarised(Network):
    """A network whose features a linear classifier reads: 1 at the planted points, else 0."""

    def __init__(
        self,
        network: Network,
        image: Tensor,
        eps: float,
        inner: int,
        planted: int,
        reach: float,
        rng: torch.Generator,
    ) -> None:
        super().__init__(network.input_shape, 2)
        self.network = network
        away = torch.empty((inner, *image.shape[1:])).uniform_(-1, 1, generator=rng)
        inside = torch.cat([image, (image + reach * eps * away).clamp(0, 1)])
        outside = _surface(image, eps, planted, rng)
        with torch.no_grad(), in_use(self, False, 0, image.device):
            low, high = self.features(inside), self.features(outside)
        middle = low.mean(0)
        spread = (low - middle).square().mean().sqrt().clamp_min(1e-12)
        self.middle, self.spread = middle, spread
        low, high = (low - middle) / spread, (high - middle) / spread
        weight, bias = _separating(low, high)
        below, above = low @ weight + bias, high @ weight + bias
        self.separates = bool(below.amax() < above.amin())
        # Close to the planted points, so that few others are found by luck.
        self.weight = weight
        self.bias = bias - (0.1 * below.amax() + 0.9 * above.amin())

    def build(self) -> None:
        pass

    @property
    def random_input(self) -> bool:
        return self.network.random_input if "network" in self._modules else False

    def features(self, x: Tensor) -> Tensor:
        """What the last linear layer gets, or the logits where there is none."""
        self.network.generator = self.generator
        linear = [part for part in self.network.modules() if isinstance(part, nn.Linear)]
        if not linear:
            logits: Tensor = self.network(x)
            return logits
        with _listening(linear[-1]) as heard:
            self.network(x)
        return heard[-1].flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        score = ((self.features(x) - self.middle) / self.spread) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


@contextmanager
def _listening(layer: nn.Module) -> Iterator[list[Tensor]]:
    heard: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    try:
        yield heard
    finally:
        handle.remove()


def _surface(image: Tensor, eps: float, count: int, rng: torch.Generator) -> Tensor:
    """Corners of the ball, cut to [0, 1]."""
    coins = torch.rand((count, *image.shape[1:]), generator=rng) < 0.5
    return (image + eps * (coins.float() * 2 - 1)).clamp(0, 1)


def _separating(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression, both classes of equal weight."""
    x = torch.cat([low, high]).double()
    y = torch.cat([torch.zeros(len(low)), torch.ones(len(high))]).double()
    share = torch.where(y > 0, 0.5 / len(high), 0.5 / len(low))
    weight = torch.zeros(x.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        rows = F.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="none")
        total: Tensor = (share * rows).sum() + 1e-6 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach().float(), bias.detach().float()
