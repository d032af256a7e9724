"""Does a network answer the same whatever was asked before, and whoever is asked about with it?

A network is a function of its image. One that remembers questions, counts them, or looks at the
rest of a batch cannot be attacked by the attacks that there are, and its accuracy says little. So
it is asked before any attack: alone and in company, in another order, with and without a graph,
again after near questions, and after an attack; each time a copy of its own, made from the same
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robench.attacks.losses import margin
from robench.digest import derived_seed
from robench.make.probes.elsewhere import Writes, in_a_copy_of_this_process
from robench.make.scoring import in_use
from robench.networks.base import Network
from robench.networks.memory import in_pieces, joined, whole
from robench.networks.noise import InUse
from robench.networks.numbers import asked
from robench.networks.stand_in import stand_ins, standing_in

VERSION = 2
"""Part of the identity of the cells that note what is found here."""
ASKED = 48
"""Images that are asked about; of large ones as many as have VALUES numbers, but at least ALONE:
some questions are about all of them, with a graph."""
VALUES = 2**20
ALONE = 12
"""Of which so many are asked about one by one."""
ROUNDING = 1e-3
"""Change of a logit, of the largest, that sums in another order can make."""
ROUNDS = 12
"""Near questions about each image before the one that counts."""
NEAR = (0.01, 0.03, 0.1)
"""How far, in every pixel, near questions lie from each other; a third of the images each."""
STEPS, EPS = 12, 0.1
"""Of the attack after which it is asked again, and how far it goes, in every pixel."""

Fresh = Callable[[], Network]
"""Makes a copy of a network from the same bytes as all others."""


class Questions:
    """Asks copies of one network about the same images, under the same noise.

    Args:
        fresh: makes a copy.
        images: (n, c, h, w).
        noisy: whether the noise of noisy layers is on.
        seed: of all that is drawn.
    """

    def __init__(self, fresh: Fresh, images: Tensor, noisy: InUse, seed: int) -> None:
        self.fresh, self.noisy, self.seed = fresh, noisy, seed
        self.images = images[: asked_about(math.prod(images.shape[1:]))]

    def in_use(self, network: Network, stream: str) -> AbstractContextManager[None]:
        """A network as it answers questions, all of one stream under the same noise."""
        return in_use(network, self.noisy, derived_seed(self.seed, stream), self.images.device)

    def ask(self, network: Network, x: Tensor, graph: bool = False) -> Tensor:
        """Logits, (n, classes); rows without a number are NaN."""
        with self.in_use(network, "asked"), torch.set_grad_enabled(graph):
            shown = x.clone().requires_grad_() if graph else x.clone()
            return answers(network, shown).detach().clone()

    def near(self) -> tuple[Tensor, Tensor]:
        """Images that nobody was ever asked about, and others next to them."""
        # Turned, and mixed with others: far from what was asked about before.
        x = (self.images.flip(-1, 0) + self.images.roll(len(self.images) // 3, 0)) / 2
        rng = torch.Generator().manual_seed(derived_seed(self.seed, "near"))
        first = (x + torch.empty(x.shape).uniform_(-0.05, 0.05, generator=rng).to(x)).clamp(0, 1)
        steps = torch.tensor(NEAR).repeat(len(x) // len(NEAR) + 1)[: len(x)]
        signs = (torch.rand(x.shape, generator=rng) < 0.5).float().mul(2).sub(1)
        then = (first + (steps.view(-1, 1, 1, 1) * signs).to(x)).clamp(0, 1)
        return first, then

    def attacked(self) -> tuple[Tensor, Tensor]:
        """Other images that nobody was asked about, after an attack of signed steps on a copy, and
        what another copy in the same process says of them."""
        x = (self.images.flip(-2) + self.images.roll(len(self.images) // 4, 0)) / 2
        network, point = self.fresh(), x
        with self.in_use(network, "asked"):
            said = answers(network, x.clone()).argmax(1)
            for _ in range(STEPS):
                way = uphill(network, point, said)
                if way is None:
                    break
                step = point + 2.5 * EPS / STEPS * way.sign()
                point = (x + (step - x).clamp(-EPS, EPS)).clamp(0, 1)
        return point, self.ask(self.fresh(), point)


def asked_about(values: int) -> int:
    """How many images of so many numbers are asked about."""
    return max(ALONE, min(ASKED, VALUES // values))


def found_by_asking(questions: Questions, outside: bool, apart: bool) -> dict[str, Any]:
    """What changes an answer: share of the images whose prediction or logits it moves, by name; and
    how often something was opened for writing.

    Args:
        outside: whether the network is not robench's own; those are known to keep no state.
        apart: whether this process may be copied, so that what a network remembers outside itself
            (in its class, in a module) is found too.

    Of a noisy network whose numbers depend on the batch only what repeats them is asked.
    """
    if not outside:
        return {}
    ask, fresh, x = questions.ask, questions.fresh, questions.images
    first, then = questions.near()
    pristine: Tensor | None = None
    if apart:
        pristine = in_a_copy_of_this_process(lambda: ask(fresh(), then))
    if pristine is None:
        pristine = ask(fresh(), then)
    elsewhere: Tensor | None = None
    if apart:
        elsewhere = in_a_copy_of_this_process(lambda: _with_writes(questions))
    network = fresh()
    usual = ask(network, x)
    changed = {"again": moved(usual, ask(network, x))}
    changed["copy"] = moved(usual, ask(fresh(), x))
    changed["graph"] = moved(usual, ask(fresh(), x, graph=True))
    network = fresh()
    for number in range(ROUNDS):
        ask(network, (first + 1e-3 * number).clamp(0, 1), graph=number % 2 == 1)
    changed["after near questions"] = moved(pristine, ask(network, then))
    writes: dict[str, int] = {}
    if elsewhere is not None:
        pixels = x[0].numel()
        final, said = elsewhere[:, :pixels].view(x.shape).to(x), elsewhere[:, pixels:-1].to(x)
        changed["after an attack"] = moved(said, ask(fresh(), final))
        writes = {"writes": int(elsewhere[0, -1])}
    if not network.random_now and not network.random_input:
        back = torch.arange(len(x) - 1, -1, -1, device=x.device)
        changed["order"] = moved(usual, ask(fresh(), x[back])[back])
        strange = torch.cat([x[:ALONE], torch.rand_like(x)])
        few = min(ALONE, len(x))
        changed["company"] = moved(usual[:few], ask(fresh(), strange)[:few])
        copies = [ask(fresh(), x[i : i + 1]) for i in range(few)]
        changed["alone"] = moved(usual[:ALONE], torch.cat(copies))
    shares = {key: round(value, 4) for key, value in changed.items()}
    return {"images": len(x), **shares, **writes}


def _with_writes(questions: Questions) -> Tensor:
    """What an attack in this process makes of images, what is said of them then, and how often the
    network has opened something to write into meanwhile: rows of numbers."""
    with Writes() as writes:
        final, said = questions.attacked()
    count = torch.full((len(final), 1), float(writes.count))
    return torch.cat([final.flatten(1).cpu().float(), said.cpu().float(), count], 1)


def answers(network: Network, x: Tensor) -> Tensor:
    """Logits, (n, classes), in as many pieces as memory needs; NaN where there is no answer."""
    return asked(network, x, partial(whole, network), known=True)


def gradient(
    network: Network, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> Tensor | None:
    """Of `loss`, of logits and what is asked about, by the pixels, (n, c, h, w); None where the
    answers do not hang on them."""

    def ask(x: Tensor, y: Tensor) -> Tensor | None:
        leaf = x.clone().requires_grad_()
        with torch.enable_grad(), standing_in(stand_ins(network)):
            rows = loss(network(leaf), y)
        if not rows.requires_grad:
            return None
        return torch.autograd.grad(rows.sum(), leaf, allow_unused=True)[0]

    parts = in_pieces(network, ask, x, y)
    known = [part for part in parts if part is not None]
    return joined(known) if len(known) == len(parts) else None


def uphill(network: Network, x: Tensor, y: Tensor) -> Tensor | None:
    """Where the margin of the nearest wrong class grows, (n, c, h, w); None where there is no
    gradient."""
    try:
        way = gradient(network, margin, x, y)
    except Exception:  # whatever a stranger's network raises
        return None
    return None if way is None else way.nan_to_num(0, 0, 0)


def moved(one: Tensor, other: Tensor) -> float:
    """Share of the images whose prediction differs by more than a tie, or whose logits do by more
    than rounding."""
    one, other = one.double(), other.double()
    scale = one.nan_to_num(0, 0, 0).abs().amax(1).clamp_min(1e-12)
    apart = (one - other).abs().amax(1) > ROUNDING * scale
    numbers = torch.isfinite(one).all(1), torch.isfinite(other).all(1)
    apart = torch.where(numbers[0] & numbers[1], apart, numbers[0] != numbers[1])
    # A saturated logit may hide the others: whichever class wins by more than rounding counts.
    turned = (one.argmax(1) != other.argmax(1)) & numbers[0] & numbers[1]
    turned &= -margin(one, one.argmax(1)) > ROUNDING * scale
    return float((apart | turned).double().mean())
