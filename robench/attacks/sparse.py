"""How APGD moves in l1: sparse steps, and the exact projection onto an l1 ball cut with [0, 1].

Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers"
(arXiv 2103.01208), Algorithm 1 and section 3. A ball that is cut by the box is another set than
the ball: clipping after projecting wastes most of the budget.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robench.attacks.steps import LookingBack, Region, per_image

SHARE = 0.2
"""Share of the pixels that move in the first steps."""
PERIOD = 0.04
"""Share of all steps after which sparsity and length are looked at again."""
FEWER = 1.5
"""What both are divided by: next as many pixels move as the best iterate has changed, over it."""
SETTLED = 0.95
"""Least ratio of changed pixels to those before at which sparsity has settled: then steps become
shorter; else they begin anew at full length, from the best iterate."""
SHORTEST = 10.0
"""The shortest step is the radius over this."""


def project_l1(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point, in l2, of the l1 ball of radius eps around x, cut with [0, 1].

    z - x = sign(u - x) min(max(|u - x| - t, 0), room), where room is the way to the edge of the box
    and t the least number that is not negative for which the ball is kept: piecewise linear in t,
    so that sorting finds it.

    Args:
        x_adv: the points u, like x. x: (n, c, h, w) in [0, 1].
    """
    way = (x_adv - x).flatten(1)
    clean = x.flatten(1)
    size = way.abs()
    room = torch.where(way > 0, 1 - clean, clean).clamp_min(0)
    over = torch.minimum(size, room).sum(1) > eps
    # sum_i min(max(size - t, 0), room) = sum of (size - t)+ minus sum of (size - room - t)+
    ends = torch.cat([size, (size - room).clamp_min(0)], dim=1)
    signs = torch.cat([torch.ones_like(size), -torch.ones_like(size)], dim=1)
    ends, order = ends.sort(dim=1, descending=True)
    signs = signs.gather(1, order).double()
    count, total = signs.cumsum(1), (signs * ends).cumsum(1)
    here = total - ends * count  # the size that is left at t = each end
    # Of ends in descending order the first at which enough is left: t lies at it or above.
    first = (here >= eps).to(torch.uint8).argmax(1, keepdim=True)
    before = (first - 1).clamp_min(0)
    slope = count.gather(1, before).clamp_min(1)
    least = ((total.gather(1, before) - eps) / slope).to(size.dtype)
    t = torch.where(over[:, None], least, 0)
    moved = torch.minimum((size - t.clamp_min(0)).clamp_min(0), room)
    return (x + (moved * way.sign()).view_as(x)).clamp(0, 1)


class SparseSteps(LookingBack):
    """l1-APGD: each step moves the pixels whose gradient is largest, all by as much, then projects;
    how many they are, and how far, follows the best iterate."""

    def __init__(self, eps: float, steps: int) -> None:
        super().__init__()
        self.eps = eps
        self.period = max(int(PERIOD * steps), 1)

    def advance(self, x_adv: Tensor, gradient: Tensor, loss: Tensor, region: Region) -> Tensor:
        """The next iterate; see steps.Steps."""
        pixels = x_adv[0].numel()
        if not self.state:
            self.state = {
                "length": torch.full_like(loss, self.eps),
                "moving": torch.full_like(loss, SHARE * pixels),
                "changed": torch.full_like(loss, float(pixels)),
                "best": torch.full_like(loss, -torch.inf),
                "x_best": x_adv,
                "gradient_best": gradient,
            }
        self.note(x_adv, gradient, loss)
        if self.step and self.step % self.period == 0:
            x_adv, gradient = self._look(x_adv, gradient, region)
        self.step += 1
        way = self._way(x_adv, gradient) * per_image(self.state["length"], x_adv)
        return project_l1(x_adv + way, region.x, self.eps)

    def _look(self, x_adv: Tensor, gradient: Tensor, region: Region) -> tuple[Tensor, Tensor]:
        s = self.state
        changed = (s["x_best"] != region.x).flatten(1).sum(1).to(s["length"].dtype)
        sparser = changed < SETTLED * s["changed"]
        shorter = (s["length"] / FEWER).clamp_min(self.eps / SHORTEST)
        s["length"] = torch.where(sparser, self.eps, shorter)
        s["moving"], s["changed"] = changed / FEWER, changed
        return self.back(sparser, x_adv, gradient)

    def _way(self, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """Signs of the gradient at the pixels where it is largest, of l1 norm one."""
        flat = gradient.flatten(1)
        # What stands at the edge that the gradient points to cannot move.
        stuck = ((x_adv <= 0) & (gradient < 0)) | ((x_adv >= 1) & (gradient > 0))
        size = flat.abs().masked_fill(stuck.flatten(1), 0)
        count = self.state["moving"].round().clamp(1, flat.shape[1]).long()
        ranked = size.sort(dim=1, descending=True).values
        least = ranked.gather(1, count[:, None] - 1)
        chosen = (size >= least) & (size > 0)
        signs = torch.where(chosen, flat.sign(), 0)
        return (signs / chosen.sum(1, keepdim=True).clamp_min(1)).view_as(x_adv)
