"""Which iterate of each image an attack keeps, and which images are broken and may leave it.

On a network without noise an image is broken when it is misclassified. On a noisy one it is broken
when a test by fresh draws has settled it (sequential.py); one lucky draw proves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.attacks.losses import mean_output
from robench.attacks.target import ScoreTarget

ROUNDING = 1e-5
"""Least margin of a broken image: so little that other batch sizes cannot undo it by rounding."""


def judge(
    target: ScoreTarget, x: Tensor, y: Tensor, draws: int, index: Tensor, vote: bool = False
) -> tuple[Tensor, Tensor]:
    """Share of fresh draws that misclassify each image, and the mean margin, (n,) each; with `vote`
    the margin of their mean output. Of a targeted threat y are the classes aimed at, and a share is
    of the draws that answer them."""
    if not target.stochastic:
        gap = target.gap(target.logits(x, index), y)
        return (gap > 0).to(gap.dtype), gap
    return judged(target, target.answers(x, draws, index), y, vote)


def judged(
    target: ScoreTarget, drawn: Tensor, y: Tensor, vote: bool = False
) -> tuple[Tensor, Tensor]:
    """The same of draws that were asked for already, (draws, n, classes)."""
    gaps = target.gap(drawn, y)
    # A mean may multiply by 1 / count, which does not make 1 of every count of ones.
    share = (gaps > 0).sum(0) / len(drawn)
    return share, target.gap(mean_output(drawn), y) if vote else gaps.sum(0) / len(drawn)


def rank(gap: Tensor, share: Tensor | None = None) -> Tensor:
    """What iterates are compared by, (n,): the margin; with noise, the share of draws fooled first
    (it is what is scored), then the margin. Where the network answers NaN: less than anything."""
    if share is not None:
        # The squashed margin lies in (0, 1e-3): less than one draw in a thousand.
        gap = share + (gap / (1 + gap.abs()) + 1) * 5e-4
    return torch.where(gap.isnan(), -torch.inf, gap)


def aims(target: ScoreTarget, x: Tensor, y: Tensor, targets: int) -> list[Tensor | None]:
    """The classes to run towards, (n,) each: so many likeliest wrong ones. [None]: away from the
    right one, without `targets`, or to where the threat aims."""
    if not targets or target.aim is not None:
        return [None]
    return list(target.rivals(x, y, targets))


class Best:
    """The best images found so far for a batch, over all runs of an attack.

    Args:
        x: the clean images; they are not written into.
    """

    def __init__(self, x: Tensor) -> None:
        self.images = x.clone()
        self.rank = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    @property
    def entered(self) -> bool:
        """Whether a run has been entered yet."""
        return bool((self.rank > -torch.inf).any())

    def standing(self) -> Tensor:
        """Rows of the images that are not broken yet."""
        return torch.nonzero(~self.broken)[:, 0]

    def enter(self, rows: Tensor, x_adv: Tensor, ranks: Tensor) -> None:
        """Let images of a run compete with earlier ones. rows: which of the batch they are."""
        better = torch.nonzero(ranks > self.rank.index_select(0, rows))[:, 0]
        rows = rows.index_select(0, better)
        self.images.index_copy_(0, rows, x_adv.index_select(0, better))
        self.rank.index_copy_(0, rows, ranks.index_select(0, better))


class BestIterates:
    """The best iterate of each image of a noisy network within one run."""

    def __init__(self, start: Tensor) -> None:
        self.images = start.clone()
        self.rank = torch.full((len(start),), -torch.inf, device=start.device)

    def note(self, x_adv: Tensor, ranks: Tensor, closed: Tensor) -> None:
        """Compare an iterate with those before it. closed: images that are done with, (n,)."""
        higher = torch.nonzero((ranks >= self.rank) & ~closed)[:, 0]
        self.images.index_copy_(0, higher, x_adv.index_select(0, higher))
        self.rank.index_copy_(0, higher, ranks.index_select(0, higher))

    def keep(self, rows: Tensor) -> None:
        """Drop all images but those in `rows`."""
        self.images = self.images.index_select(0, rows)
        self.rank = self.rank.index_select(0, rows)
