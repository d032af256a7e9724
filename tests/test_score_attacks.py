"""Attacks by scores alone: NAttack and Square."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robench.attacks import square
from robench.attacks.ball import Ball
from robench.attacks.nattack import NAttack
from robench.attacks.square import Square
from robench.attacks.target import BudgetExceeded, ScoreTarget
from robench.checks.trial import attempt, reference
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.networks.torch_state import torch_seeded


def target_of(
    network: Network, images: int, eps: float = 0.2, queries: int | None = None
) -> ScoreTarget:
    return ScoreTarget(network, Ball("linf", eps), images, queries)


def algorithm_one(
    network: Network, x: Tensor, y: int, eps: float, iterations: int, population: int, seed: int
) -> Tensor:
    """NAttack for one image as Li et al. write it, with tanh and atanh, draw by draw."""
    rng = torch.Generator().manual_seed(seed)
    sigma, lr = 0.1, 0.02
    mu = 0.001 * torch.randn(x.shape[1:], generator=rng)

    def shown(shift: Tensor) -> Tensor:
        wide = (torch.tanh(torch.atanh((2 * x[0] - 1) * (1 - 1e-6)) + shift) + 1) / 2
        return torch.minimum(torch.maximum(wide, x[0] - eps), x[0] + eps).clamp(0, 1)

    for _ in range(iterations):
        z = torch.randn(population, *x.shape[1:], generator=rng)
        rewards = []
        for draw in z:
            logits = network(shown(mu + sigma * draw)[None])[0]
            others = torch.cat([logits[:y], logits[y + 1 :]])
            rewards.append(-max(0.0, float(logits[y] - others.max())))
        f = torch.tensor(rewards)
        f = (f - f.mean()) / (f.std(correction=0) + 1e-7)
        mu = mu + lr / (population * sigma) * (f.view(-1, 1, 1, 1) * z).sum(0)
        if int(network(shown(mu)[None]).argmax()) != y:
            break
    return shown(mu)


def test_nattack_is_algorithm_one() -> None:
    network, images, labels = reference()
    for row in (0, 3, 5):
        x, y = images[row : row + 1], labels[row : row + 1]
        attack = NAttack(iterations=6, population=20)
        found = attack.perturb(target_of(network, 1), x, y, torch.Generator().manual_seed(row))
        expected = algorithm_one(network, x, int(y), 0.2, 6, 20, row)
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)


def test_in_tanh_space_pixels_at_exactly_zero_or_one_cannot_move() -> None:
    _, x, _ = reference()
    moved = (attempt(NAttack(iterations=5, population=20), "score", "linf", 0.2).x_adv - x).abs()
    assert float(moved[(x == 0) | (x == 1)].max()) < 1e-4
    assert float(moved[(x > 0.2) & (x < 0.8)].mean()) > 1e-3


def test_in_image_space_they_do_and_the_attack_is_stronger() -> None:
    tanh = NAttack(iterations=20, population=40)
    image = NAttack(iterations=20, population=40, space="image", sigma=0.5, lr=0.2, antithetic=True)
    weak, strong = (attempt(a, "score", "linf", 0.2).success for a in (tanh, image))
    assert strong > weak + 0.2


def test_nattack_counts_the_population_and_one_more_per_iteration() -> None:
    network, x, y = reference()
    target = target_of(network, len(x), eps=0.01)
    NAttack(iterations=3, population=10).perturb(target, x, y, torch.Generator())
    queries = target.counts()["queries"]
    assert queries is not None
    assert queries.max() == 33
    assert queries.min() == 11  # misclassified from the start: one iteration shows it


def test_chunks_change_nothing_but_rounding() -> None:
    attacks = [NAttack(iterations=4, population=30, chunk_rows=rows) for rows in (7, 64, 10000)]
    found = [attempt(attack, "score", "linf", 0.2).x_adv for attack in attacks]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-4)


def test_no_more_rows_than_a_chunk_are_asked_at_once() -> None:
    network, x, y = reference()
    asked: list[int] = []
    hook = network.register_forward_hook(lambda _m, inputs, _o: asked.append(len(inputs[0])))
    try:
        NAttack(iterations=2, population=100, chunk_rows=32).perturb(
            target_of(network, 20), x[:20], y[:20], torch.Generator()
        )
    finally:
        hook.remove()
    assert max(asked) == 32


def test_antithetic_pairs_need_an_even_population() -> None:
    with pytest.raises(RobenchError, match="population = 11: antithetic pairs need an even one"):
        attempt(NAttack(population=11, antithetic=True), "score", "linf", 0.1)


@pytest.mark.parametrize("attack", [NAttack(population=10), Square()], ids=["nattack", "square"])
def test_score_attacks_stop_within_max_queries(attack: NAttack | Square) -> None:
    network, x, y = reference()
    target = target_of(network, len(x), eps=0.01, queries=50)
    attack.perturb(target, x, y, torch.Generator())
    counts = target.counts()["queries"]
    assert counts is not None
    assert 40 <= counts.max() <= 50


def test_asking_beyond_max_queries_is_refused() -> None:
    network, x, _ = reference()
    target = target_of(network, len(x), queries=2)
    target.logits(x)
    target.logits(x)
    with pytest.raises(BudgetExceeded, match="max_queries = 2"):
        target.logits(x)


def test_square_starts_from_vertical_stripes_of_full_size() -> None:
    _, x, _ = reference()
    network, _, y = reference()
    found = Square(queries=1).perturb(target_of(network, len(x), 0.1), x, y, torch.Generator())
    shift = found - x
    free = (x >= 0.1) & (x <= 0.9)
    moved = shift[free].abs()
    assert bool(((moved < 1e-6) | ((moved - 0.1).abs() < 1e-6)).all())


def test_squares_shrink_as_published() -> None:
    attack = Square(queries=10000)
    sides = [
        attack._side(step, 28, 28) for step in (1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
    ]
    expected = [round(math.sqrt(0.8 / 2**k * 784)) for k in range(10)]
    assert sides == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)], ids=str)
def test_squares_drawn_ahead_are_those_drawn_one_by_one(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images leave in between, and who draws next finds the generator as if none had been."""
    with torch_seeded(0):
        network = MLP(shape, 10, hidden=(32,)).eval().requires_grad_(False)
    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(1))
    y = network(x).argmax(1)
    found = []
    for ahead in (0, square.AHEAD):
        monkeypatch.setattr(square, "AHEAD", ahead)
        rng, target = torch.Generator().manual_seed(2), target_of(network, len(x), 0.03)
        made = Square(queries=150).perturb(target, x, y, rng)
        found.append((made, rng.get_state(), torch.from_numpy(target.counts()["queries"])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    asked = found[0][2]
    assert asked.min() < 150 < asked.max()


def test_more_queries_make_square_stronger() -> None:
    few, many = (attempt(Square(queries=n), "score", "linf", 0.1).success for n in (5, 150))
    assert many > few


def test_eps_inf_is_refused() -> None:
    with pytest.raises(RobenchError, match="needs a finite budget"):
        attempt(Square(), "score", "linf", math.inf)
