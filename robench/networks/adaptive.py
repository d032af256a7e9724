"""Surrogate derivatives that an attack adapts to the network under it, image by image.

How wide a stand-in for a jump's derivative should be depends on how far a neuron is from its jump,
which differs between neurons by orders of magnitude. In two of them every neuron has a width of its
own, from its distances so far (ASSG, arXiv 2512.22522):

- `adaptive`: arctan of alpha = a / scale, a = 2 tan(pi A) / pi; ASSG's.
- `one-sided`: 1 / (A scale + |u - at|) on the side of the jump that the loss wants left, 0 on the
  other. A step that has jumped the right way is won: pulling it further spends the budget for
  nothing. What is left pulls on those that are nearly won (iteratively reweighted l1, Candes et
  al. 2008, arXiv 0711.1612).

scale = M + 1.5 D; M is the running mean of |u - at| over the gradients of a run, D that of
||u - at| - M|, for every image, neuron and time step. Draws of a noisy network share them.

Two more are as others published them, to be compared with:

- `pdsg` (arXiv 2503.03272): a Gaussian of deviation s around at + s / 2, s = A times the deviation
  of the potentials of an image's layer over the steps so far (the paper's is over a batch, so that
  what becomes of an image would hang on its neighbours). Where a network takes its steps one at a
  time, s is of that step.
- `rate` (RGA: Bu et al., CVPR 2023): neither through the potentials nor through time. A neuron's
  rate is taken for a function of its mean current c, in units of its threshold, of slope A on
  [0, 1 - k], (1 - A (1 - k)) / (1 + k) on [1 - k, 2] and 0 elsewhere, k its decay (lif.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robench.errors import RobenchError

SHARES = {"adaptive": 0.45, "one-sided": 0.1, "pdsg": 1.0, "rate": 0.2}
"""The names that cards use, each with the A it has where none is written."""
BELOW = {"adaptive": 0.5, "rate": 1.0}
"""What A must be below, where it must."""
DECAY = 0.9
DEVIATIONS = 1.5


def share_of(text: str) -> tuple[str, float]:
    """`adaptive` or `one-sided:0.1` as name and A. Raises ValueError for an A that cannot be."""
    name = text.partition(":")[0]
    return name, parameter_of(text, SHARES[name], BELOW.get(name, math.inf))


def parameter_of(text: str, default: float, below: float = math.inf) -> float:
    """Of `name` or `name:parameter`. Raises ValueError for one that is not in (0, below)."""
    written = text.partition(":")[2]
    try:
        value = float(written) if written else default
    except ValueError:
        raise ValueError(f"surrogate {text!r}: {written!r} is not a number") from None
    if not 0 < value < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        raise ValueError(f"surrogate {text!r}: the parameter must be positive{limit}")
    return value


class AdaptiveSurrogate:
    """The derivatives of one run of an attack.

    Args:
        text: as in cards.
        images: rows that the run begins with.
    """

    def __init__(self, text: str, images: int) -> None:
        self.name, self.share = share_of(text)
        self.images = images
        self._places: list[Place] = []
        self._taken = 0

    def begin(self) -> None:
        """A pass through the network begins."""
        self._taken = 0

    def here(self) -> Place:
        """The derivative for the next step that the network takes in this pass."""
        if self._taken == len(self._places):
            self._places.append(Place(self))
        self._taken += 1
        return self._places[self._taken - 1]

    def keep(self, rows: Tensor) -> None:
        """Drop all images but those in `rows`."""
        self.images = len(rows)
        for place in self._places:
            place.keep(rows)


class Place:
    """Where in a network a step is taken, with what is known of the distances there."""

    def __init__(self, run: AdaptiveSurrogate) -> None:
        self.run = run
        self.one_sided = run.name == "one-sided"
        self.of_rates = run.name == "rate"
        self._axis = 0
        self._mean: Tensor | None = None
        self._spread = torch.empty(0)

    def derivative(self, u: Tensor, at: float = 0.0, axis: int = 0) -> Tensor:
        """Of 1{u > at}, at every u, for either direction of the pull.

        Args:
            axis: the dimension of u along which the rows lie, ordered (copy, image).
        """
        if self.of_rates:
            raise RobenchError(
                'attack: surrogate = "rate" is of the mean currents of leaky neurons over time; the'
                ' network has steps without: choose another, as "one-sided"'
            )
        if self.run.name == "pdsg":
            return _by_deviation(u, at, axis, self.run.share)
        away = torch.unflatten(u - at, axis, (-1, self.run.images))
        size = away.abs()
        scale = self._scale(size, axis)
        if self.one_sided:
            slope = size.add_(scale, alpha=self.run.share).reciprocal_()
        else:
            alpha = 2 * math.tan(math.pi * self.run.share) / math.pi / scale
            slope = away.mul_(alpha).mul_(math.pi / 2).square_().add_(1).reciprocal_()
            slope.mul_(alpha / 2)
        return slope.flatten(axis, axis + 1)

    def slope(self, current: Tensor, decay: float) -> Tensor:
        """Of a neuron's rate by its mean current, in units of its threshold."""
        low, high = self.run.share, (1 - self.run.share * (1 - decay)) / (1 + decay)
        beyond = current > 1 - decay
        slope = torch.where(beyond, high, low)
        return slope.mul_((current >= 0) & (current <= 2))

    def _scale(self, size: Tensor, axis: int) -> Tensor:
        """M + 1.5 D, after these distances, broadcast over the copies."""
        self._axis, now = axis, size.mean(axis)
        self._mean = now if self._mean is None else self._mean.lerp(now, 1 - DECAY)
        off = (size - self._mean.unsqueeze(axis)).abs_().mean(axis)
        self._spread = off if len(self._spread) == 0 else self._spread.lerp(off, 1 - DECAY)
        scale = torch.add(self._mean, self._spread, alpha=DEVIATIONS).add_(1e-4)
        return scale.unsqueeze(axis)

    def keep(self, rows: Tensor) -> None:
        if self._mean is not None:
            self._mean = self._mean.index_select(self._axis, rows)
            self._spread = self._spread.index_select(self._axis, rows)


def _by_deviation(u: Tensor, at: float, axis: int, width: float) -> Tensor:
    """PDSG's derivative at every u, whose rows lie along `axis`, after time where that is 1."""
    steps = u[None] if axis == 0 else u
    values = steps.flatten(2)  # steps, rows, neurons
    count = values.shape[2] * torch.arange(1, len(values) + 1, device=u.device)[:, None]
    mean = values.sum(2).cumsum(0) / count
    square = values.square().sum(2).cumsum(0) / count - mean.square()
    deviation = (square.clamp_min(0) * count / (count - 1).clamp_min(1)).sqrt()
    deviation = torch.where(deviation == 0, 1.0, deviation).mul_(width)
    s = deviation.reshape(*deviation.shape, *[1] * (steps.dim() - 2))
    slope = torch.exp(-0.5 * ((steps - at) / s - 0.5).square()).div_(s * math.sqrt(2 * math.pi))
    return slope.view_as(u)
