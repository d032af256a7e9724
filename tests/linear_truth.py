"""What can be reached on linear networks, by linear programming: nothing that robench computes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog

from robench.networks.base import Network


class Linear(Network):
    """logits = W x + b."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, shape: tuple[int, int, int]) -> None:
        self.first = weights, bias
        super().__init__(shape, len(bias))

    def build(self) -> None:
        weights, bias = self.first
        self.weights = torch.nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.bias = torch.nn.Parameter(torch.as_tensor(bias, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weights.T + self.bias


def lead(
    weights: np.ndarray, bias: np.ndarray, x: np.ndarray, aim: int, others: list[int], eps: float
) -> float:
    """The largest lead of class `aim` over the likeliest of `others` at a point of the linf ball
    around x (flat) and of [0, 1]: max t with (w_aim - w_j) z + b_aim - b_j >= t for all j."""
    pixels = len(x)
    rows = [np.append(-(weights[aim] - weights[j]), 1.0) for j in others]
    limits = [bias[aim] - bias[j] for j in others]
    box = [(max(0.0, v - eps), min(1.0, v + eps)) for v in x]
    found = linprog(
        np.append(np.zeros(pixels), -1.0),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        bounds=[*box, (None, None)],
        method="highs",
    )
    assert found.status == 0
    return float(-found.fun)
