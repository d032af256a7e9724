"""The nearest point of a hyperplane inside [0, 1], in linf, l2 and l1, image by image.

    min ||z - x||_p   subject to   <w, z> + b = 0,   0 <= z <= 1

After Croce & Hein 2020 (arXiv 1907.02044, section 2.2): along the way each pixel moves towards the
plane until it meets an edge, so that the way gone is piecewise linear in one number, which sorting
finds exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def onto_plane(x: Tensor, w: Tensor, b: Tensor, norm: str) -> Tensor:
    """The nearest point of the plane in the box; where the plane misses the box, the corner of the
    box next to it.

    Args:
        x: points in [0, 1], (n, d). w: normals, (n, d). b: offsets, (n,).
        norm: `linf`, `l2` or `l1`.
    """
    value = (w * x).sum(1) + b
    up = (w < 0) == (value > 0)[:, None]  # which way a pixel goes
    room = torch.where(up, 1 - x, x).clamp_min(0)
    moved = _moves(w.abs(), room, value.abs(), norm)
    return (x + torch.where(up, moved, -moved)).clamp(0, 1)


def _moves(weight: Tensor, room: Tensor, needed: Tensor, norm: str) -> Tensor:
    """How far each pixel moves, (n, d), within its room, so that their weighted sum is `needed`."""
    if norm == "l1":
        return _fewest(weight, room, needed)
    tiny = torch.finfo(weight.dtype).tiny
    # Pixels move at a pace until they meet an edge: at time `until`.
    pace = torch.ones_like(weight) if norm == "linf" else weight
    until = torch.where(weight > 0, room / pace.clamp_min(tiny), torch.inf)
    gain = torch.where(weight > 0, weight * pace, 0)  # of a pixel that moves, per time
    ends, order = until.sort(dim=1)
    gains = gain.gather(1, order)
    rest = gains.flip(1).cumsum(1).flip(1)  # gain of those that still move before each end
    done = torch.where(gains > 0, gains * ends.nan_to_num(0, 0, 0), 0).cumsum(1)
    before = torch.cat([torch.zeros_like(done[:, :1]), done[:, :-1]], dim=1)
    time = (needed[:, None] - before) / rest.clamp_min(tiny)
    # The first end that comes after the time at which enough is gained, were none to stop before.
    there = (time <= ends) & (rest > 0)
    first = there.to(torch.uint8).argmax(1, keepdim=True)
    chosen = torch.where(there.any(1, keepdim=True), time.gather(1, first), torch.inf)
    return torch.minimum(pace * torch.minimum(chosen, until).nan_to_num(0, 0, 0), room)


def _fewest(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    """l1: the pixels that gain most for each unit go to the edge, the last one part of the way."""
    sorted_, order = weight.sort(dim=1, descending=True)
    whole = sorted_ * room.gather(1, order)
    before = torch.cat([torch.zeros_like(whole[:, :1]), whole.cumsum(1)[:, :-1]], dim=1)
    share = (needed[:, None] - before) / sorted_.clamp_min(torch.finfo(weight.dtype).tiny)
    moved = torch.minimum(share.clamp_min(0), room.gather(1, order))
    moved = torch.where(sorted_ > 0, moved, 0)
    return torch.zeros_like(room).scatter(1, order, moved)
