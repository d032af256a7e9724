"""Functions that may stand for the derivative of an activation in the backward pass, by name.

The BF paper ("Function changes in the backpropagation equation is equivalent to an implicit
learning rate") replaces sigma'(z) in backpropagation by another g(z) (Eq. 3): where sigma' is not
zero, that is the same as learning with the rate beta(z) = alpha g(z) / sigma'(z) (Eq. 4).

The formulas are written for any array library (`xp`): trainers use them with torch, pages with
numpy. Written `name` or `name:parameter` in cards; `network:w1,b1,w2,b2` is the learned one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robench.errors import nearest

Formula = Callable[[Any, Any, tuple[float, ...]], Any]
"""(xp, z, parameters) -> g(z)."""


def _sigmoid(xp: Any, z: Any) -> Any:
    return 0.5 * (1 + xp.tanh(z / 2))


def _logistic(xp: Any, z: Any, p: tuple[float, ...]) -> Any:
    s = _sigmoid(xp, z / p[0])
    return s * (1 - s) / p[0]


def _network(xp: Any, z: Any, p: tuple[float, ...]) -> Any:
    w1, b1, w2, b2 = p
    return w2 * _sigmoid(xp, w1 * z + b1) + b2


NAMED: dict[str, tuple[Formula, tuple[float, ...]]] = {
    "relu": (lambda xp, z, p: xp.where(z > 0, 1.0, 0.0), ()),
    "leaky-relu": (lambda xp, z, p: xp.where(z > 0, 1.0, p[0]), (0.1,)),
    "sigmoid": (_logistic, (1.0,)),
    "tanh": (lambda xp, z, p: 1 - xp.tanh(z) ** 2, ()),
    "elu": (lambda xp, z, p: xp.where(z > 0, 1.0, xp.exp(xp.where(z > 0, 0.0 * z, z))), ()),
    "softplus": (lambda xp, z, p: _sigmoid(xp, p[0] * z), (1.0,)),
    "gaussian": (lambda xp, z, p: xp.exp(-0.5 * (z / p[0]) ** 2), (1.0,)),
    "arctan": (lambda xp, z, p: 1 / (1 + (p[0] * z) ** 2), (1.0,)),
    "rectangle": (lambda xp, z, p: xp.where(abs(z) < p[0], 1.0, 0.0), (1.0,)),
    "constant": (lambda xp, z, p: 0 * z + p[0], (1.0,)),
    "network": (_network, (5.0, 0.0, 1.0, 0.0)),
}
"""Formulas with the parameters they have where a card names none. relu, sigmoid, tanh and elu are
the derivatives of these activations (sigmoid:2 of one twice as wide), softplus is a smooth step;
network is one hidden sigmoid unit, w2 sigmoid(w1 z + b1) + b2: its default is nearly relu's."""

OWN = "own"
"""The activation's own derivative."""


@dataclass(frozen=True)
class BFunction:
    """A named g with its parameters."""

    name: str
    parameters: tuple[float, ...]

    def __call__(self, xp: Any, z: Any) -> Any:
        """g(z), element by element."""
        return NAMED[self.name][0](xp, z, self.parameters)

    def __str__(self) -> str:
        values = ",".join(f"{value:.6g}" for value in self.parameters)
        return f"{self.name}:{values}" if values else self.name


def parse(text: str) -> BFunction:
    """`sigmoid`, `leaky-relu:0.2`, `network:5,0,1,0`. Raises ValueError saying what there is."""
    name, _, given = text.partition(":")
    if name not in NAMED:
        raise ValueError(f"unknown b-function {name!r}; {nearest(name, NAMED)}")
    defaults = NAMED[name][1]
    try:
        values = tuple(float(part) for part in given.split(",")) if given else defaults
    except ValueError:
        raise ValueError(f"b-function {text!r}: {given!r} are not numbers") from None
    if len(values) != len(defaults) or not all(map(math.isfinite, values)):
        raise ValueError(f"b-function {text!r}: {name} takes {len(defaults)} parameters")
    return BFunction(name, values)
