"""Losses that an attacker maximises, one value per image.

Margin: Carlini & Wagner 2017 (arXiv 1608.04644). DLR: Croce & Hein 2020 (2003.01690), Eq. 6 and 7.
Each has a targeted form, which pulls every image towards a class of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.losses import cross_entropy_rows

RowLoss = Callable[..., Tensor]
"""(n, classes) logits and (n,) labels -> (n,) losses that an attacker maximises; those that have a
targeted form take an `aim`, (n,)."""


def cross_entropy(logits: Tensor, y: Tensor, aim: Tensor | None = None) -> Tensor:
    """Cross-entropy per row, or minus that of the class aimed at; saturates where it is sure."""
    if aim is None:
        return cross_entropy_rows(logits, y)
    return -cross_entropy_rows(logits, aim)


def margin(logits: Tensor, y: Tensor, aim: Tensor | None = None, k: int = 1) -> Tensor:
    """Largest wrong logit, or the k-th largest (or the one aimed at), minus the right one; positive
    where the right class is not among the k first. Logits of several draws come as
    (draws, n, classes), their margins as (draws, n)."""
    # Classes first is faster on a CPU; but gradients would lie so, too, and be rounded otherwise.
    axis = -1 if logits.requires_grad else 0
    classes = logits.movedim(-1, axis)
    single = list(classes.shape)
    single[axis] = 1
    where = y.unsqueeze(axis).expand(single)
    right = classes.gather(axis, where).squeeze(axis)
    if aim is None:
        wrong = classes.scatter(axis, where, -torch.inf)
        largest = wrong.amax(axis) if k == 1 else wrong.topk(k, axis).values.select(axis, k - 1)
        return largest - right
    return classes.gather(axis, aim.unsqueeze(axis).expand(single)).squeeze(axis) - right


def dlr(logits: Tensor, y: Tensor, aim: Tensor | None = None) -> Tensor:
    """Difference of logits ratio: the margin in units of the spread of the largest logits, so that
    scaling the logits changes nothing. Needs 3 classes, 4 with an aim."""
    needed = 3 if aim is None else 4
    if logits.shape[1] < needed:
        raise RobenchError(
            f'loss = "dlr" needs at least {needed} classes, there are {logits.shape[1]}; '
            'use loss = "margin"'
        )
    top = logits.topk(needed, dim=1).values
    lowest = top[:, 2] if aim is None else (top[:, 2] + top[:, 3]) / 2
    return margin(logits, y, aim) / (top[:, 0] - lowest + 1e-12)


def mean_output(logits: Tensor) -> Tensor:
    """Of several draws, (draws, n, classes), the logarithm of their mean probabilities, which are
    logits of what a vote says, (n, classes)."""
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


def accuracy(logits: Tensor, y: Tensor, aim: Tensor | None = None, k: int = 1) -> Tensor:
    """Expected error, smoothed: sigmoid(margin / tau), for the draws of a noisy network, (draws, n,
    classes) -> (draws, n). tau is half the deviation of an image's margin over the draws, so that
    what counts are the draws that may tip. Of a single draw, (n, classes), the margin."""
    gap = margin(logits, y, aim, k)
    if gap.dim() == 1:
        return gap
    tau = gap.detach().std(0, keepdim=True).div_(2).clamp_min_(1e-3)
    return torch.sigmoid(gap / tau)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "accuracy": accuracy,
}
