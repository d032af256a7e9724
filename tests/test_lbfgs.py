"""The L-BFGS attack: its minimiser, its search over c, its goals."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.lbfgs import LBFGS, _Point, _Problem, two_loop, unlikely
from robench.attacks.target import WhiteBoxTarget
from robench.checks.trial import attempt, reference
from robench.networks.base import Network


def few() -> tuple[Network, Tensor, Tensor]:
    network, x, y = reference()
    return network, x[:20], y[:20]


def white_box() -> WhiteBoxTarget:
    network, x, _ = few()
    return WhiteBoxTarget(network, Ball("l2", math.inf), len(x))


def attacked(**settings: Any) -> tuple[Tensor, Tensor]:
    """Images and the norms of their perturbations."""
    _, x, y = few()
    target = white_box()
    found = LBFGS(**settings).perturb(target, x, y, torch.Generator().manual_seed(0))
    return found, target.ball.distance(found, x)


def test_every_image_is_misclassified_by_a_small_perturbation() -> None:
    network, x, y = few()
    found, size = attacked()
    assert bool((network(found).argmax(1) != y).all())
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float(size.median()) < 1.0
    assert bool((size[network(x).argmax(1) != y] == 0).all())


def test_more_steps_of_the_search_find_smaller_perturbations() -> None:
    assert float(attacked(search_steps=9)[1].mean()) < (float(attacked(search_steps=4)[1].mean()))


def test_targeted_goals_reach_their_class() -> None:
    network, x, y = few()
    wrong = network(x).scatter(1, y[:, None], -torch.inf)
    found, near = attacked(goal="runner-up")
    assert float((network(found).argmax(1) == wrong.argmax(1)).float().mean()) > 0.95
    least = network(x).scatter(1, y[:, None], torch.inf).argmin(1)
    found, far = attacked(goal="least-likely")
    assert float((network(found).argmax(1) == least).float().mean()) > 0.95
    assert float(far.mean()) > float(near.mean())


def test_confidence_asks_for_a_margin() -> None:
    network, _, y = few()
    found, size = attacked(confidence=1.0)
    logits = network(found)
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    assert float((wrong - logits.gather(1, y[:, None])[:, 0]).min()) >= 1.0 - 1e-4
    assert float(size.mean()) > float(attacked()[1].mean())


def test_a_finite_budget_is_kept() -> None:
    assert float(attempt(LBFGS(search_steps=3), "white-box", "linf", 0.05).distance.max()) <= 0.0501


def scipy_minimum(row: int, c: float) -> float:
    """What L-BFGS-B finds for one image: same objective, same box, same start."""
    network, x, y = reference()
    clean, label = x[row].flatten().double(), y[row : row + 1]

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(z, dtype=torch.float32, requires_grad=True)
        loss = -unlikely(network(leaf.view(1, 1, 8, 8)), label, None).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        shift = z - clean.numpy()
        value = c * float((shift**2).sum()) + float(loss.detach())
        return value, 2 * c * shift + gradient.double().numpy()

    box = [(0.0, 1.0)] * 64
    found = minimize(objective, clean.numpy(), jac=True, method="L-BFGS-B", bounds=box)
    return float(found.fun)


class Watched(_Problem):
    """Remembers the lowest value of each image."""

    lowest = torch.full((12,), torch.inf)

    def evaluate(self, z: Tensor, c: Tensor, rows: Tensor) -> _Point:
        point = super().evaluate(z, c, rows)
        self.lowest[rows] = torch.minimum(self.lowest[rows], point.value)
        return point


@pytest.mark.rows(1)
@pytest.mark.parametrize("c", [0.05, 0.5])
def test_the_minimiser_is_as_good_as_scipys(c: float) -> None:
    """The objective is not convex, so that single images may end in another valley."""
    _, x, y = reference()
    problem = Watched(LBFGS(iterations=100), white_box(), x[:12], y[:12], None)
    problem.lowest = torch.full((12,), torch.inf)
    problem.minimise(torch.full((12,), c))
    ours, theirs = problem.lowest.numpy(), np.array([scipy_minimum(row, c) for row in range(12)])
    assert np.median(np.abs(ours - theirs) / theirs) < 0.01
    assert ours.mean() < 1.02 * theirs.mean()


def test_two_loops_apply_the_inverse_of_a_quadratic() -> None:
    """With d pairs of exact steps on a quadratic in d dimensions, L-BFGS knows the Hessian."""
    hessian = torch.diag(torch.tensor([1.0, 2.0, 5.0]))
    steps = torch.eye(3)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque()
    for step in steps:
        change = hessian @ step
        pairs.append((step[None], change[None], 1 / (step @ change)[None]))
    gradient = torch.tensor([[3.0, -4.0, 10.0]])
    torch.testing.assert_close(two_loop(gradient, pairs), torch.tensor([[3.0, -2.0, 2.0]]))
