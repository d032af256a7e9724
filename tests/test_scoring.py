"""One cell: the framework keeps the score and enforces the threat model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from robench.attacks.base import Attack
from robench.attacks.target import BudgetExceeded
from robench.data.base import Part
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.scoring import DISPLAYED, attack_slice, score_slice, with_costs
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.trainers.bp import BP
from robench.workspace.cards import AttackCard

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def part() -> Part:
    test = Digits().load().test
    return Part(test.images[:60], test.labels[:60])


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    made = MLP((1, 8, 8), 10, hidden=[32])
    rng = torch.Generator().manual_seed(0)
    BP(epochs=15, lr=1e-2).fit(made, Digits().load(), rng, lambda done, text: None)
    return made.eval()


def card(access: str = "white-box", norm: str = "linf", **settings: Any) -> AttackCard:
    return AttackCard(
        attack={"name": "mine"},
        access=access,
        norm=norm,
        eps=0.1,
        name="mine",
        root=Path(),
        **settings,
    )


def run(network: Network, attack: Attack, part: Part, made: AttackCard, **changed: Any) -> Any:
    settings = {"noisy": False, "seed": 0, "batch_size": 60, "device": CPU} | changed
    return attack_slice(network, attack, made, 0.1, part, **settings)


def score(network: Network, images: np.ndarray, part: Part, **changed: Any) -> Any:
    settings = {"noisy": False, "draws": 1, "seed": 0, "batch_size": 60, "device": CPU} | changed
    return score_slice(network, images, part, **settings)[0]


class Wanted(Attack):
    """Returns what a test wants."""

    randomised: ClassVar[bool] = False

    def perturb(self, target: Any, x: torch.Tensor, y: torch.Tensor, rng: Any) -> torch.Tensor:
        return self.answer(target, x, y)

    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x


class LeavesBall(Wanted):
    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + 2 * target.eps).clamp(0, 1)


class LeavesRange(Wanted):
    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x - target.eps


class Nan(Wanted):
    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * torch.nan


class WrongShape(Wanted):
    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[:3]


class Greedy(Wanted):
    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for _ in range(10):
            target.logits(x)
        return x


class EditsItsInput(Wanted):
    """Moves the images it was given in place, so that the distance would look like nothing."""

    def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y.zero_()
        return x.fill_(0.5)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (LeavesBall, "left its linf ball: distance 0.2 > 0.1"),
        (LeavesRange, r"left the range \[0, 1\]"),
        (Nan, "NaN"),
        (WrongShape, "returned"),
        (EditsItsInput, "left its linf ball"),
    ],
)
def test_an_attack_that_breaks_its_budget_is_refused_by_name(
    network: Network, part: Part, attack: type[Wanted], said: str
) -> None:
    with pytest.raises(BudgetExceeded, match=said) as caught:
        run(network, attack(), part, card())
    assert "'mine'" in str(caught.value)


TO_THE_LEFT: dict[str, Any] = {
    "part": slice(0, 4), "noisy": False, "seed": 0, "batch_size": 60, "device": CPU
}  # fmt: skip


def test_an_attack_that_changes_more_than_its_part_is_refused(network: Network, part: Part) -> None:
    class Everywhere(Wanted):
        def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + 0.05).clamp(0, 1)

    with pytest.raises(BudgetExceeded, match='changed more than the part = "features"'):
        attack_slice(network, Everywhere(), card(), 0.1, part, **TO_THE_LEFT)


def test_projection_holds_still_what_is_not_in_the_part(network: Network, part: Part) -> None:
    class Projected(Wanted):
        def answer(self, target: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return target.project(x + 0.05, x)

    made = attack_slice(network, Projected(), card(), 0.1, part, **TO_THE_LEFT)
    moved = made.images != part.images
    assert moved[..., :4].any()
    assert not moved[..., 4:].any()


def test_an_attack_that_asks_too_much_is_stopped(network: Network, part: Part) -> None:
    with pytest.raises(BudgetExceeded, match="max_queries = 5"):
        run(network, Greedy(), part, card(max_queries=5))
    assert run(network, Greedy(), part, card(max_queries=10)).queries.tolist() == [10.0] * 60


def test_access_that_is_too_little_for_an_attack_is_refused(network: Network, part: Part) -> None:
    with pytest.raises(RobenchError, match='access = "score".*needs white-box'):
        run(network, Wanted(), part, card(access="score"))


def test_a_norm_that_the_attack_does_not_know_is_refused(network: Network, part: Part) -> None:
    with pytest.raises(RobenchError, match='norm = "l1".*linf'):
        run(network, Wanted(), part, card(norm="l1"))


def test_a_row_per_image_says_what_was_predicted(network: Network, part: Part) -> None:
    rows = with_costs(score(network, part.images, part), None)
    assert len(rows) == 60
    assert rows["label"].to_pylist() == part.labels.tolist()
    expected = network(torch.from_numpy(part.images)).argmax(1).tolist()
    assert [row[0] for row in rows["predictions"].to_pylist()] == expected
    right = [float(a == b) for a, b in zip(expected, part.labels, strict=True)]
    assert rows["correct"].to_pylist() == right
    assert sum(value is not None for value in rows["input"].to_pylist()) == DISPLAYED
    assert rows["distance"].null_count == 60


def test_a_noisy_model_is_scored_by_several_fresh_draws(network: Network, part: Part) -> None:
    rows = score(network, part.images, part, noisy=True, draws=4)
    predictions = rows["predictions"].to_pylist()
    assert {len(row) for row in predictions} == {4}
    assert any(len(set(row)) > 1 for row in predictions)
    shares = [
        float(np.mean([p == y for p in row]))
        for row, y in zip(predictions, part.labels, strict=True)
    ]
    assert rows["correct"].to_pylist() == pytest.approx(shares)


def test_scores_do_not_depend_on_the_batch_size(network: Network, part: Part) -> None:
    whole = score(network, part.images, part)
    parts = score(network, part.images, part, batch_size=7)
    for name in ("predictions", "correct", "tie"):
        assert whole[name].equals(parts[name])


def test_a_network_with_the_wrong_answer_is_refused(part: Part) -> None:
    class Odd(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, :5]

    with pytest.raises(RobenchError, match=r"answers \(60, 5\) where logits \(60, 10\)"):
        score(Odd((1, 8, 8), 10), part.images, part)


def test_a_network_with_nan_weights_is_refused(part: Part) -> None:
    broken = MLP((1, 8, 8), 10)
    with torch.no_grad():
        broken.layers[0].op.weight.fill_(torch.nan)
    with pytest.raises(RobenchError, match="NaN or infinite logits"):
        score(broken, part.images, part)


def test_an_answer_is_timed_per_image_and_draw(network: Network, part: Part) -> None:
    settings = {"noisy": False, "draws": 3, "seed": 0, "batch_size": 30, "device": CPU}
    milliseconds = score_slice(network, part.images, part, **settings)[1]["inference_ms"]
    assert 0 < milliseconds < 100


def test_outputs_that_are_probabilities_are_noticed(network: Network, part: Part) -> None:
    class Softmax(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).softmax(1)

    settings = {"noisy": False, "draws": 1, "seed": 0, "batch_size": 60, "device": CPU}
    seen = [
        score_slice(made, part.images, part, **settings)[1]["probabilities"]
        for made in (network, Softmax((1, 8, 8), 10))
    ]
    assert seen == [False, True]


def test_a_network_that_answers_differently_when_asked_again_is_noticed(
    network: Network, part: Part
) -> None:
    settings = {"seed": 0, "batch_size": 60, "device": CPU}

    def seen(noisy: bool, draws: int) -> float | None:
        found = score_slice(network, part.images, part, noisy=noisy, draws=draws, **settings)[1]
        return found["between_draws"]  # type: ignore[no-any-return]

    assert seen(noisy=False, draws=2) == 0
    assert seen(noisy=True, draws=2) > 0.01
    assert seen(noisy=True, draws=1) is None
