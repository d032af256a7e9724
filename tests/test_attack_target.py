"""What a target offers, counts and refuses; the ball around the images; the noise floor."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.losses import cross_entropy, margin
from robench.attacks.noise import Noise
from robench.attacks.target import BudgetExceeded, ScoreTarget, WhiteBoxTarget
from robench.checks.trial import attempt, reference
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, NoisyLayer, noise
from robench.networks.surrogate import Step


def white_box(images: int = 60, **limits: Any) -> WhiteBoxTarget:
    return WhiteBoxTarget(reference()[0], Ball("linf", 0.1), images, **limits)


# -- the ball --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["linf", "l2", "l1"]), st.floats(0, 3), st.integers(0, 2**31))
def test_projected_images_are_inside_and_stay_where_they_are(
    norm: str, eps: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 5, 5, generator=rng)
    far = x + 2 * torch.randn(4, 1, 5, 5, generator=rng)
    ball = Ball(norm, eps)
    near = ball.project(far, x)
    assert float(ball.distance(near, x).max()) <= eps * (1 + 1e-5) + 1e-6
    assert 0 <= float(near.min()) <= float(near.max()) <= 1
    torch.testing.assert_close(ball.project(near, x), near, rtol=1e-5, atol=1e-6)


def test_distances_are_the_norms_of_the_perturbation() -> None:
    x = torch.zeros(1, 1, 1, 4)
    moved = torch.tensor([[[[0.3, 0.0, 0.4, 0.0]]]])
    expected = {"linf": 0.4, "l2": 0.5, "l1": 0.7, "l0": 2.0, "none": 0.5}
    for norm, distance in expected.items():
        assert float(Ball(norm, 1.0).distance(moved, x)) == pytest.approx(distance)


# -- questions and their price ---------------------------------------------------------------------


def test_a_gradient_is_that_of_autograd() -> None:
    network, x, y = reference()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropy(network(leaf), y).sum(), leaf)
    answer = white_box().gradient(x, y)
    torch.testing.assert_close(answer.gradient, expected)
    torch.testing.assert_close(answer.logits, network(x))
    torch.testing.assert_close(answer.margin, margin(network(x), y))
    assert torch.equal(answer.fooled, (network(x).argmax(1) != y).float())


class Replay(GaussianNoise):
    """Noise drawn before: of each layer so many draws, (draws, images, features)."""

    def __init__(self, eps: dict[int, Tensor], draw: int) -> None:
        self.eps, self.draw = eps, draw

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        return drive + layer.sigma * self.eps[drive.shape[1]][self.draw]


@pytest.mark.parametrize("rows", [1, 130, 4096])
def test_draws_of_a_noisy_network_are_averaged(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many goes as the rows held at a time ask for."""
    monkeypatch.setattr("robench.attacks.target.COPIED_ROWS", rows)
    network, x, y = reference()
    rng = torch.Generator().manual_seed(3)
    drawn: dict[int, list[Tensor]] = {}
    inject = GaussianNoise.inject

    def remembered(source: GaussianNoise, layer: NoisyLayer, drive: Tensor) -> Tensor:
        noisy = inject(source, layer, drive)
        whole = drive.detach().repeat(len(noisy) // len(drive), 1)
        eps = ((noisy.detach() - whole) / layer.sigma).split(len(x))
        drawn.setdefault(drive.shape[1], []).extend(eps)
        return noisy

    monkeypatch.setattr(GaussianNoise, "inject", remembered)
    with noise(network, GaussianNoise(rng)):
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        together = target.gradient(x, y, draws=5)
    assert target.stochastic
    assert (target.queries, target.gradients) == (5 * len(x), 5 * len(x))
    monkeypatch.undo()
    eps = {width: torch.stack(parts) for width, parts in drawn.items()}
    single = []
    for draw in range(5):
        with noise(network, Replay(eps, draw)):
            single.append(WhiteBoxTarget(network, Ball("linf", 0.1), len(x)).gradient(x, y))
    assert not torch.equal(single[0].logits, single[1].logits)
    for part, parts in zip(together, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(list(parts)).mean(0), rtol=1e-4, atol=1e-5)


def test_a_surrogate_lasts_for_one_question() -> None:
    class Stepped(Network):
        def build(self) -> None:
            self.step = Step("rectangle:0.5")

        def forward(self, x: Tensor) -> Tensor:
            return self.step(x.flatten(1) - 0.5)

    network = Stepped((1, 1, 2), 2)
    target = WhiteBoxTarget(network, Ball("linf", 1.0), 1)
    x, y = torch.tensor([[[[0.5, 0.9]]]]), torch.zeros(1, dtype=torch.long)
    wide = target.gradient(x, y, margin, surrogate="rectangle:2").gradient
    own = target.gradient(x, y, margin).gradient
    assert wide.flatten().tolist() == [-0.25, 0.25]
    assert own.flatten().tolist() == [-1.0, 1.0]


def test_questions_are_counted_for_the_image_they_are_about() -> None:
    _, x, y = reference()
    target = white_box()
    target.logits(x)
    target.logits(x[[5, 5, 5]], torch.tensor([5, 5, 5]))
    target.gradient(x[:2], y[:2], index=torch.tensor([0, 1]))
    counts = target.counts()
    queries, gradients = counts["queries"], counts["gradients"]
    assert queries is not None
    assert gradients is not None
    assert queries[[0, 1, 2, 5]].tolist() == [2, 2, 1, 4]
    assert gradients[:3].tolist() == [1, 1, 0]
    assert (target.queries, target.gradients) == (65, 2)


def test_rows_that_are_not_attributed_are_counted_evenly() -> None:
    _, x, _ = reference()
    target = white_box()
    target.logits(x[:30])
    queries = target.counts()["queries"]
    assert queries is not None
    assert np.allclose(queries, 0.5)
    assert target.queries == 30


def test_max_queries_holds_for_every_single_image() -> None:
    _, x, _ = reference()
    target = white_box(max_queries=3)
    assert target.affords(3)
    target.labels(x[[0, 0, 0]], torch.zeros(3, dtype=torch.long))
    assert not target.affords(1)
    with pytest.raises(BudgetExceeded, match="max_queries = 3"):
        target.labels(x[:1], torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("ask", ["labels", "logits", "gradient", "module"])
def test_after_the_deadline_every_question_is_refused(ask: str) -> None:
    _, x, y = reference()
    target = white_box(deadline=time.monotonic() - 1)
    questions = {
        "labels": lambda: target.labels(x),
        "logits": lambda: target.logits(x),
        "gradient": lambda: target.gradient(x, y),
        "module": lambda: target.module()(x),
    }
    with pytest.raises(BudgetExceeded, match="time_limit"):
        questions[ask]()


def test_the_deadline_stops_a_librarys_attack_too() -> None:
    _, x, y = reference()
    target = white_box(deadline=time.monotonic() - 1)
    with pytest.raises(BudgetExceeded, match="time_limit"):
        Foolbox(attack="LinfPGD").perturb(target, x, y, torch.Generator())


def test_a_librarys_gradients_are_counted_and_their_zeros_noted() -> None:
    network, x, y = reference()
    target = white_box()
    Foolbox(attack="LinfPGD", steps=3).perturb(target, x, y, torch.Generator())
    counts = target.counts()
    assert counts["gradients"] is not None
    right = (network(x).argmax(1) == y).tolist()  # the others are left alone
    assert counts["gradients"].tolist() == [3 if is_right else 0 for is_right in right]
    assert counts["zero_gradient"] is not None
    assert not counts["zero_gradient"].any()
    black = ScoreTarget(network, Ball("linf", 0.1), len(x))
    black.module()(x)
    assert black.counts()["zero_gradient"] is None


# -- the floor -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mean"), [("sign", 0.1), ("uniform", 0.05)])
def test_noise_has_the_size_of_the_budget_and_asks_nothing(kind: Any, mean: float) -> None:
    _, x, _ = reference()
    trial = attempt(Noise(kind=kind), "decision", "linf", 0.1)
    shift = (trial.x_adv - x)[(x > 0.1) & (x < 0.9)]
    assert float(shift.abs().mean()) == pytest.approx(mean, rel=0.1)
    assert trial.queries == 0


def test_l2_noise_is_a_direction_of_full_length() -> None:
    trial = attempt(Noise(), "decision", "l2", 0.5)
    assert float(trial.distance.max()) <= 0.5 + 1e-5
    assert float(trial.distance.mean()) > 0.3  # some of it is cut off at 0 and 1


def test_noise_without_a_size_is_refused() -> None:
    with pytest.raises(Exception, match="needs a finite budget"):
        attempt(Noise(), "decision", "linf", math.inf)


def test_what_a_network_answers_with_is_left_alone_over_draws() -> None:
    """A network may answer with a view of its input, a loss with a view of the logits."""

    class Echo(Network):
        random_input = True  # type: ignore[assignment]

        def build(self) -> None: ...

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :10]

    network = Echo((1, 4, 4), 10)
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    target = WhiteBoxTarget(network, Ball("linf", 0.1), 3)
    answer = target.gradient(x, y, lambda logits, y: logits[:, 0], draws=4)
    assert (x == 0.5).all()
    torch.testing.assert_close(answer.logits, torch.full((3, 10), 0.5))
    torch.testing.assert_close(answer.loss, torch.full((3,), 0.5))


def test_several_rows_about_one_image_are_all_remembered() -> None:
    network, x, _ = reference()
    x, answers = x[:2], network(x[:2]).argmax(1)
    target = WhiteBoxTarget(network, Ball("linf", 0.1), 2)
    wrong = (answers[0] + 1) % network.classes
    index = torch.tensor([0, 0, 1])
    target.gradient(x[index], torch.stack([wrong, *answers]), index=index)
    counts = target.counts()
    assert counts["fooled_on_the_way"] is not None
    assert list(counts["fooled_on_the_way"]) == [True, False]
    assert counts["gradients"] is not None
    assert list(counts["gradients"]) == [2, 1]
