"""Is it told when a network knows its test images, all or some of them, and left alone when not?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trick
import tricks_known
import tricks_numbers
from handed import trained
from outcomes import Outcomes
from scipy.stats import ks_2samp
from torch import nn

from robench.data.base import Splits
from robench.data.fresh import MANY, parts, relatives
from robench.make.probes.ranks import farther, ranks
from robench.networks.base import Network
from robench.networks.modules.module import Module
from robench.show.diagnostics.known import ABOVE, CHANCE, known
from robench.show.diagnostics.subject import Subject
from robench.workspace.plugins import Located

EPS = 0.1


def ranked(module: nn.Module) -> list[dict[str, Any]]:
    def fresh() -> Network:
        network: Network = Module((1, 8, 8), 10, factory=Located("handed", lambda: module))
        return network.eval()

    return ranks(
        fresh, parts(trick.digits(), 0), eps=EPS, noisy=False, seed=0, batch_size=500,
        device=torch.device("cpu"),
    )  # fmt: skip


def test_margins_tell_a_network_that_learnt_some_of_the_test_images_by_heart() -> None:
    told = ranked(tricks_known.fitted_by_heart())
    assert {(one["part"], one["how"]) for one in told} == {
        (part, how) for part in ("training", "validation") for how in ("clean", "attacked")
    }
    assert any(one["above"] >= ABOVE and one["p"] < CHANCE for one in told)
    for one in ranked(trained()):
        assert one["above"] < ABOVE
        assert one["p"] > 0.01


def test_a_network_without_a_gradient_is_ranked_by_its_clean_answers() -> None:
    assert {one["how"] for one in ranked(tricks_numbers.NoGrad())} == {"clean"}


@pytest.mark.parametrize(
    ("above", "p", "verdict"),
    [(0.2, 1e-6, "alarm"), (0.05, 1e-9, "pass"), (0.2, 0.01, "pass")],
)
def test_it_takes_a_large_excess_that_is_no_chance(above: float, p: float, verdict: str) -> None:
    sorts = {"training": {"images": 128, "clean": 0.95, "attacked": 0.5}}
    rank = {
        "part": "validation", "how": "attacked", "images": 900, "others": 500, "above": above,
        "p": p,
    }  # fmt: skip
    made = Outcomes(images=100).clean(0.95).attack("pgd", 0.5, steps=20)
    made.cells[1].update({"relatives": sorts, "ranks": [rank]})
    results = made.results()
    found = known(Subject(results, results.models[0]))
    assert found.verdict == verdict
    assert found.evidence["margins"] == [rank]
    if verdict == "alarm":
        assert "20.0% more of 900" in found.text


def test_what_is_made_of_test_images_lies_outside_their_balls() -> None:
    splits = trick.digits()
    made = relatives(splits, splits.test, EPS, 0)
    known_images = splits.test.images.reshape(len(splits.test), -1)
    for sort in ("moved", "turned", "darker"):
        images = made[sort].images
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        flat = images.reshape(len(images), 1, -1)
        nearest = np.abs(flat - known_images[None, :128]).max(2).min(1)
        assert (nearest > EPS).all(), f"{sort}: an attack of the report stays in another ball"


def test_parts_are_many_and_none_of_the_test_images() -> None:
    splits: Splits = trick.digits()
    found = parts(splits, 0)
    assert set(found) == {"test", "validation", "training"}
    assert len(found["test"]) == len(splits.test)
    assert len(found["training"]) <= MANY
    test = {image.tobytes() for image in splits.test.images}
    assert not test & {image.tobytes() for image in found["training"].images}


@pytest.mark.parametrize(("one", "other"), [(1000, 1000), (50, 128), (128, 20)])
def test_margins_are_compared_as_scipy_does(one: int, other: int) -> None:
    rng = np.random.default_rng(0)
    # Rounded, so that some are alike.
    first, then = rng.normal(0.1, 1, one).round(1), rng.normal(0, 1, other).round(1)
    for a, b in ((first, then), (then, first), (first, first[:other])):
        told = ks_2samp(a, b, alternative="less", method="asymp")
        assert farther(a, b) == pytest.approx((told.statistic, told.pvalue), rel=1e-9)
