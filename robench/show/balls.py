"""What an attacker may reach around an image, by name, and which balls surely lie in which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

WITHIN = ("l1", "l2", "linf")
"""Norms whose balls of one radius lie in one another, in this order."""


class Ball(NamedTuple):
    """A norm and a radius. part: what of an item may change."""

    norm: str
    eps: float
    part: str = "features"

    @classmethod
    def of(cls, threat: Mapping[str, Any]) -> Ball:
        part = threat.get("fields", {}).get("part", "features")
        return cls(str(threat["norm"]), float(threat["eps"]), str(part))

    def holds(self, other: Ball) -> bool:
        """Whether the other ball surely lies in this one, around every image."""
        if self.part != other.part or other.eps > self.eps:
            return False
        known = self.norm in WITHIN and other.norm in WITHIN
        return self.norm == other.norm or (
            known and WITHIN.index(other.norm) <= WITHIN.index(self.norm)
        )

    def __str__(self) -> str:
        of = "" if self.part == "features" else f"-{self.part}"
        return f"{self.norm}-{self.eps:g}{of}"


def largest(balls: Iterable[Ball]) -> set[Ball]:
    """Those that lie in no other."""
    every = set(balls)
    return {
        ball for ball in every if not any(other != ball and other.holds(ball) for other in every)
    }
