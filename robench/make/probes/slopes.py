"""Does a network's gradient tell how its answers change? Held against differences.

A gradient may be cut, swapped, rescaled or made up (custom backward passes, detached noise, hooks),
and an attack that follows it finds nothing. Along a direction d the derivative g.d of an honest
network agrees with (L(x + hd) - L(x - hd)) / 2h, where both sides draw the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robench.attacks.target import NO_GRADIENT
from robench.digest import derived_seed
from robench.make.probes.asking import Questions, answers, gradient
from robench.networks.base import Network

DIRECTIONS = 24
"""Random sign directions for each image."""
LENGTHS = (0.01, 0.03)
"""h, in pixels: the better of the two counts."""
IMAGES = 24
"""Images, half of them moved by up to AWAY in every pixel: attacks ask there, too."""
AWAY = 0.05
AGREES = 0.9
"""Least correlation of an honest gradient; honest networks reach .999."""
FLAT = 1e-5
"""Spread of differences, relative to the largest logit, below which there is only rounding."""

Loss = Callable[[Tensor, Tensor], Tensor]


def slopes(questions: Questions) -> dict[str, Any]:
    """How far gradients and differences agree.

    images: that could be looked at; disagree: share of them whose correlation over the directions
    is below AGREES at every h and for one of the losses; median: of the correlations; still: share
    of all images whose answers do not change at all, whatever the gradient promises;
    repeats: whether two copies draw the same noise; error: why there is no gradient.
    """
    count = min(IMAGES, len(questions.images))
    x = questions.images[:count].clone()
    rng = torch.Generator().manual_seed(derived_seed(questions.seed, "slopes"))
    moved = torch.empty(x.shape).uniform_(-AWAY, AWAY, generator=rng).to(x)
    x[count // 2 :] = (x + moved)[count // 2 :]
    # Away from the edges of [0, 1], so that both sides are images.
    x = x.clamp(max(LENGTHS), 1 - max(LENGTHS))
    # A byte a pixel: of large images the directions are more than all else together.
    coins = [torch.rand(x.shape, generator=rng) < 0.5 for _ in range(DIRECTIONS)]

    def directions() -> Iterator[Tensor]:
        return (coin.float().mul(2).sub(1).to(x) for coin in coins)

    # One copy answers all where it repeats itself; else each question gets one from the same bytes.
    one = questions.fresh()
    first, again = _outputs(questions, one, x), _outputs(questions, one, x)
    same = _alike(first, again)
    if not same and not _alike(first, _outputs(questions, questions.fresh(), x)):
        return {"images": 0, "repeats": False}

    def answering() -> Network:
        return one if same else questions.fresh()

    sides = {
        h: [  # a batch for each direction, so that all draw the same noise
            torch.stack([_outputs(questions, answering(), x + way * d) for d in directions()])
            for way in (h, -h)
        ]
        for h in LENGTHS
    }
    worst = torch.ones(count)
    known = torch.zeros(count, dtype=torch.bool)
    still = torch.zeros(count, dtype=torch.bool)
    pair = first.nan_to_num(-1e9, 1e9, -1e9).topk(2, dim=1).indices
    for loss in (_margin, _cross_entropy):
        try:
            network = answering()
            with questions.in_use(network, "slope"):
                grad = gradient(network, loss, x, pair)
        except Exception as error:  # whatever a stranger's network raises
            return {"images": 0, "repeats": True, "error": f"{type(error).__name__}: {error}"}
        if grad is None:
            return {"images": 0, "repeats": True, "error": NO_GRADIENT}
        known_grad = grad.nan_to_num(0, 0, 0)
        slope = torch.stack([(d * known_grad).flatten(1).sum(1) for d in directions()])
        correlation, usable = _correlations(slope, sides, pair, loss, first)
        if loss is _margin:
            still = _promised(slope, first) & _unmoved(sides)
        worst = torch.where(usable, torch.minimum(worst, correlation), worst)
        known |= usable
    share = round(float(still.float().mean()), 4)
    if not bool(known.any()):
        return {"images": 0, "repeats": True, "still": share}
    return {
        "images": int(known.sum()),
        "repeats": True,
        "still": share,
        "disagree": round(float((worst[known] < AGREES).float().mean()), 4),
        "median": round(float(worst[known].median()), 4),
    }


def _outputs(questions: Questions, network: Network, x: Tensor) -> Tensor:
    with torch.no_grad(), questions.in_use(network, "slope"):
        return answers(network, x).clone()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Up to rounding."""
    scale = one.nan_to_num(0, 0, 0).abs().amax().clamp_min(1e-12)
    return bool(((one - other).abs().nan_to_num(0) <= 1e-4 * scale).all())


def _margin(logits: Tensor, pair: Tensor) -> Tensor:
    """Between the two classes of `pair`, (n, 2), which stay the same: it does not saturate."""
    both = logits.gather(-1, pair.expand(*logits.shape[:-1], 2))
    return both[..., 1] - both[..., 0]


def _cross_entropy(logits: Tensor, pair: Tensor) -> Tensor:
    """Of the likelier class."""
    where = pair[:, :1].expand(*logits.shape[:-1], 1)
    return -logits.log_softmax(-1).gather(-1, where).squeeze(-1)


def _correlations(
    slope: Tensor, sides: Mapping[float, Sequence[Tensor]], pair: Tensor, loss: Loss, first: Tensor
) -> tuple[Tensor, Tensor]:
    """Of each image, (n,): the correlation over its directions at the better h, and whether the
    loss changes by more than rounding.

    Args:
        slope: g.d, (directions, n).
        sides: h -> the logits on both sides, (directions, n, classes) each.
    """
    best = torch.full((len(pair),), -1.0)
    usable = torch.zeros(len(pair), dtype=torch.bool)
    scale = first.nan_to_num(0, 0, 0).abs().amax(1).clamp_min(1e-12)
    for h, (up, down) in sides.items():
        change = (loss(up, pair) - loss(down, pair)) / (2 * h)
        enough = (change.std(0) * 2 * h > FLAT * scale) & torch.isfinite(change).all(0)
        a, b = slope - slope.mean(0), change - change.mean(0)
        size = (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-30)
        together = ((a * b).sum(0) / size).cpu().float()
        best = torch.where(enough.cpu(), torch.maximum(best, together), best)
        usable |= enough.cpu()
    return best, usable


def _promised(slope: Tensor, first: Tensor) -> Tensor:
    """Images, (n,), whose gradient promises much more than rounding along some direction."""
    scale = first.nan_to_num(0, 0, 0).abs().amax(1).clamp_min(1e-12)
    return (slope.abs().amax(0) * 2 * max(LENGTHS) > 1e3 * FLAT * scale).cpu()


def _unmoved(sides: Mapping[float, Sequence[Tensor]]) -> Tensor:
    """Images, (n,), that get the same bits on both sides of every direction at every h."""
    same = [(up == down).all(-1).all(0) for up, down in sides.values()]
    return torch.stack(same).all(0).cpu()
