"""FAB and l1-APGD against what is known exactly: projections by linear and quadratic programs, and
smallest perturbations of linear networks."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
import torch
from linear_truth import Linear
from scipy.optimize import linprog, minimize
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.fab import FAB
from robench.attacks.gradient import APGD, PGD
from robench.attacks.planes import onto_plane
from robench.attacks.sparse import project_l1
from robench.attacks.target import WhiteBoxTarget
from robench.checks.trial import attempt, reference
from robench.errors import RobenchError

SHAPE = (1, 3, 4)
PIXELS = math.prod(SHAPE)


def distance(x: np.ndarray, w: np.ndarray, b: float, norm: str) -> float:
    """To {z in the box: w z + b >= 0} from a point where it is negative; inf where that is
    empty."""
    d = len(x)
    if norm == "l2":
        bounds = [(0.0, 1.0)] * d
        found = minimize(
            lambda z: ((z - x) ** 2).sum(), np.clip(x + w, 0, 1), jac=lambda z: 2 * (z - x),
            bounds=bounds, constraints=[{"type": "ineq", "fun": lambda z: w @ z + b}],
            method="SLSQP", options={"maxiter": 500, "ftol": 1e-14},
        )  # fmt: skip
        return float(np.sqrt(found.fun)) if found.success else math.inf
    # z = x + u - v with u, v >= 0; of linf all of them at most t, of l1 their sum.
    box = [(0.0, 1 - value) for value in x] + [(0.0, value) for value in x]
    plane, limit = np.concatenate([-w, w]), w @ x + b
    if norm == "l1":
        found = linprog(np.ones(2 * d), A_ub=[plane], b_ub=[limit], bounds=box, method="highs")
    else:
        rows = np.hstack([np.eye(2 * d), -np.ones((2 * d, 1))])
        found = linprog(
            np.append(np.zeros(2 * d), 1.0), A_ub=np.vstack([np.append(plane, 0.0), rows]),
            b_ub=np.append(limit, np.zeros(2 * d)), bounds=[*box, (0.0, None)], method="highs",
        )  # fmt: skip
    return float(found.fun) if found.status == 0 else math.inf


def linear(seed: int, images: int = 8) -> tuple[Linear, Tensor, Tensor]:
    """A linear network of four classes, and images that it gets right."""
    rng = np.random.default_rng(seed)
    network = Linear(rng.normal(size=(4, PIXELS)), rng.normal(size=4) / 2, SHAPE)
    x = torch.tensor(rng.random((images, *SHAPE)), dtype=torch.float32)
    # Some pixels stand at an edge, where half the ways are shut.
    x[:, :, 0] = x[:, :, 0].round()
    return network.eval().requires_grad_(False), x, network(x).argmax(1)


def smallest(network: Linear, x: Tensor, y: Tensor, norm: str) -> list[float]:
    """Exact distances to another class, image by image."""
    weights, bias = network.first
    found = []
    for image, label in zip(x.flatten(1).double().numpy(), y.tolist(), strict=True):
        others = [j for j in range(4) if j != label]
        found.append(
            min(
                distance(image, weights[j] - weights[label], bias[j] - bias[label], norm)
                for j in others
            )
        )
    return found


def crafted(
    attack: Attack, network: Linear, x: Tensor, y: Tensor, norm: str, eps: float
) -> tuple[Tensor, WhiteBoxTarget]:
    target = WhiteBoxTarget(network, Ball(norm, eps), len(x))
    return attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0)), target


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_point_of_a_plane_in_the_box_is_that_of_a_program(norm: str) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.random((24, PIXELS)), rng.normal(size=(24, PIXELS))
    x[:, :3] = x[:, :3].round()
    w[:8, :5] = 0  # pixels that the plane does not depend on
    b = -(w * x).sum(1) - rng.random(24) * 2
    b[8:16] = -(w * x).sum(1)[8:16] + rng.random(8)  # from the other side
    points = onto_plane(torch.tensor(x), torch.tensor(w), torch.tensor(b), norm).numpy()
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    for k in range(24):
        sign = 1.0 if w[k] @ x[k] + b[k] < 0 else -1.0
        expected = distance(x[k], sign * w[k], sign * b[k], norm)
        assert (points[k] >= 0).all()
        assert (points[k] <= 1).all()
        if math.isinf(expected):
            assert sign * (w[k] @ points[k] + b[k]) < 0, "the plane misses the box"
            continue
        assert abs(w[k] @ points[k] + b[k]) < 1e-9
        assert np.linalg.norm(points[k] - x[k], order) == pytest.approx(expected, abs=1e-5)


def test_a_plane_that_misses_the_box_gives_the_corner_next_to_it() -> None:
    x, w = torch.full((1, 4), 0.5), torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    for norm in ("linf", "l2", "l1"):
        z = onto_plane(x, w, torch.tensor([-50.0]), norm)
        assert torch.equal(z, torch.tensor([[1.0, 0.0, 0.5, 1.0]]))


@pytest.mark.parametrize("targets", [0, 9])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fab_finds_the_smallest_perturbation_of_a_linear_network(norm: str, targets: int) -> None:
    network, x, y = linear(3)
    attack = FAB(steps=30, targets=targets, smallest=True)
    x_adv, target = crafted(attack, network, x, y, norm, 1e3)
    assert bool((network(x_adv).argmax(1) != y).all())
    found = target.ball.distance(x_adv, x)
    exact = torch.tensor(smallest(network, x, y, norm), dtype=torch.float32)
    assert bool((found >= exact * (1 - 1e-4)).all()), "nothing is nearer than the nearest"
    assert bool((found <= exact * 1.02).all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_in_a_ball_fab_breaks_what_can_be_broken_in_it(norm: str) -> None:
    network, x, y = linear(4, images=12)
    exact = torch.tensor(smallest(network, x, y, norm), dtype=torch.float32)
    eps = float(exact.sort().values[5:7].mean())
    x_adv, target = crafted(FAB(steps=30), network, x, y, norm, eps)
    assert torch.equal(network(x_adv).argmax(1) != y, exact < eps)
    assert bool((target.ball.distance(x_adv, x) <= eps * (1 + 1e-5)).all())


def test_fab_costs_its_passes_and_images_leave_it_when_they_are_broken() -> None:
    network, x, y = linear(3)
    # One pass judges the clean images, one step is a pass with its gradient, and one to judge it.
    _, near = crafted(FAB(steps=7, targets=0), network, x, y, "linf", 1e-6)
    assert near.gradients == 3 * 7 * len(x)
    assert near.queries == (1 + 7 * (3 + 1) + 3) * len(x)
    _, far = crafted(FAB(steps=7, targets=0), network, x, y, "linf", 1.0)
    assert far.gradients < near.gradients


def test_fab_goes_to_the_class_that_is_aimed_at() -> None:
    network, x, _ = reference()
    aim = network(x).topk(3, 1).indices[:, 2]
    trial = attempt(FAB(steps=20), "white-box", "l2", 6.0, towards=aim)
    assert float((network(trial.x_adv).argmax(1) == aim).float().mean()) > 0.9


def test_restarts_of_fab_find_no_larger_perturbations() -> None:
    one = attempt(FAB(steps=5, targets=2), "white-box", "linf", 0.08)
    several = attempt(FAB(steps=5, targets=2, restarts=3), "white-box", "linf", 0.08)
    assert several.success >= one.success


@pytest.mark.rows(0)
def test_the_projection_onto_the_l1_ball_in_the_box_is_that_of_a_program() -> None:
    rng = np.random.default_rng(5)
    x = rng.random((12, *SHAPE))
    x[:, :, 0] = x[:, :, 0].round()
    u = x + rng.normal(size=x.shape) * 0.8
    u[0] = x[0] + 1e-3  # inside: nothing to do but to clip
    for eps in (0.3, 1.5, 100.0):
        made = project_l1(torch.tensor(u), torch.tensor(x), eps).numpy()
        again = project_l1(torch.tensor(made), torch.tensor(x), eps).numpy()
        assert np.allclose(made, again, atol=1e-7)
        for k in range(len(x)):
            clean, wanted = x[k].ravel(), u[k].ravel()
            assert np.abs(made[k].ravel() - clean).sum() <= eps + 1e-6

            def apart(z: np.ndarray, to: np.ndarray = wanted) -> float:
                return float(((z - to) ** 2).sum())

            # z = clean + p - q, p, q >= 0: what is smooth for a program.
            box = [(0.0, 1 - value) for value in clean] + [(0.0, value) for value in clean]
            best = minimize(
                lambda pq, c=clean, f=apart: f(c + pq[:PIXELS] - pq[PIXELS:]),
                np.zeros(2 * PIXELS), bounds=box,
                constraints=[{"type": "ineq", "fun": lambda pq, e=eps: e - pq.sum()}],
                method="SLSQP", options={"maxiter": 300, "ftol": 1e-13},
            )  # fmt: skip
            assert apart(made[k].ravel()) == pytest.approx(best.fun, abs=1e-5)


def test_l1_apgd_reaches_the_largest_lead_of_a_linear_network() -> None:
    network, x, y = linear(6)
    weights, bias = network.first
    eps = 0.5
    x_adv, target = crafted(
        APGD(steps=100, loss="margin", targets=3, keep="last"), network, x, y, "l1", eps
    )
    assert bool((target.ball.distance(x_adv, x) <= eps * (1 + 1e-5)).all())
    reached = network(x_adv).scatter(1, y[:, None], -torch.inf).amax(1) - network(x_adv).gather(
        1, y[:, None]
    ).squeeze(1)
    for k, image in enumerate(x.flatten(1).double().numpy()):
        label, best = int(y[k]), -math.inf
        for j in (j for j in range(4) if j != label):
            w = weights[j] - weights[label]
            gain = linprog(
                np.concatenate([-w, w]), A_ub=[np.ones(2 * PIXELS)], b_ub=[eps],
                bounds=[(0, 1 - v) for v in image] + [(0, v) for v in image], method="highs",
            )  # fmt: skip
            best = max(best, w @ image + bias[j] - bias[label] - gain.fun)
        start = float(network(x[k : k + 1]).scatter(1, y[k : k + 1, None], -torch.inf).amax())
        start -= float(network(x[k : k + 1])[0, label])
        assert float(reached[k]) <= best + 1e-4
        assert float(reached[k]) - start >= 0.98 * (best - start)


def test_in_l1_only_apgd_knows_how_to_move() -> None:
    with pytest.raises(RobenchError, match='in l1 it is "apgd"'):
        attempt(APGD(steps=2, schedule="fixed"), "white-box", "l1", 3.0)
    assert "l1" not in PGD.norms


@pytest.mark.rows(1)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.45), ("l1", 2.0)])
@pytest.mark.skipif(
    importlib.util.find_spec("pyautoattack") is None, reason="needs the extra autoattack"
)
def test_fab_and_l1_apgd_leave_as_few_images_as_the_authors(norm: str, eps: float) -> None:
    """The members of AutoAttack on the reference network; images left, of 60."""
    from robench.attacks.libraries.autoattack import AutoAttack

    def left(attack: Attack) -> int:
        return round(60 * (1 - attempt(attack, "white-box", norm, eps).success))

    peers: dict[str, Any] = {"fab-t": FAB(steps=100)}
    if norm == "l1":
        peers["apgd-ce"] = APGD(steps=100, restarts=5)
    for member, ours in peers.items():
        assert left(ours) <= left(AutoAttack(members=(member,))) + 1
