"""Plots of how models learn: what they show is what the training curves hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
from synthetic import Synthetic, SyntheticModel, quick_threats

from robench.show.leaderboard import leaderboard
from robench.show.report.payload import curves
from robench.show.report.plots.drawing import Plot
from robench.show.report.plots.plots import plots
from robench.show.results import Results


def drawn(*changes: dict[str, Any]) -> dict[str, Plot]:
    """The plots of models whose manifest entries are changed so, by title."""
    models = [SyntheticModel(f"synthetic/{place}") for place in range(len(changes))]
    made = Synthetic(models, quick_threats(())).results()
    for model, change in zip(made.manifest["models"], changes, strict=True):
        model["fields"]["trainer"] |= change.get("trainer", {})
        model["fields"]["network"] |= change.get("network", {})
        for epoch, row in enumerate(model["seeds"][0]["history"]):
            row |= change["history"](epoch) if "history" in change else {}
    results: Results = made
    return {plot.title: plot for plot in plots(results, leaderboard(results))}


COSINES = {
    "history": lambda epoch: {
        "cosine/1@10": 0.1 + 0.1 * (epoch % 2),
        "cosine/1@100": 0.5,
        "cosine seconds/10": 0.2,
        "cosine seconds/100": 2.0,
    }
}


def test_cosines_are_averaged_over_epochs_and_stand_beside_their_seconds() -> None:
    plot = drawn(COSINES)["Cosine of the LR gradient with the BP gradient"]
    assert plot.body == [
        ["synthetic/0", "1", "10", "0.2", "0.15"],
        ["synthetic/0", "1", "100", "2", "0.5"],
    ]


def test_what_has_plots_of_its_own_is_no_training_curve() -> None:
    made = drawn(COSINES)
    assert not any("cosine" in column for column in made["Training curves"].head)
    assert list(curves([{"epoch": 1, "loss": 2.0, "cosine/1@10": 0.1}])) == ["epoch", "loss"]


def test_the_implied_learning_rate_is_alpha_g_over_the_derivative() -> None:
    trainer = {"plugin": "bfunction", "lr": 0.1, "functions": ["gaussian:1"]}
    plot = drawn({"trainer": trainer, "network": {"activation": "sigmoid"}})[
        "B-functions and the learning rates they imply"
    ]
    for _, _, z, g, beta in plot.body:
        s = 1 / (1 + math.exp(-float(z)))
        expected = math.exp(-0.5 * float(z) ** 2)
        assert float(g) == pytest.approx(expected, rel=1e-3)
        assert float(beta) == pytest.approx(0.1 * expected / (s * (1 - s)), rel=1e-3)


def test_where_relu_has_no_slope_no_rate_is_made_up() -> None:
    trainer = {"plugin": "bfunction", "lr": 0.1, "functions": ["constant:1"]}
    plot = drawn({"trainer": trainer, "network": {"activation": "relu"}})[
        "B-functions and the learning rates they imply"
    ]
    assert {row[4] for row in plot.body if float(row[2]) < 0} == {"–"}
    assert {row[4] for row in plot.body if float(row[2]) > 0} == {"0.1"}


def test_a_learned_b_function_is_drawn_from_what_training_found() -> None:
    found = {"b-function/w1": 2.0, "b-function/b1": 0.0, "b-function/w2": 1.0, "b-function/b2": 0.5}
    found |= {"area/learned": 0.25, "area/own": 0.5}
    plot = drawn(
        {
            "trainer": {"plugin": "learned-bfunction", "lr": 0.1},
            "network": {"activation": "relu"},
            "history": lambda epoch: found if epoch == 0 else {},
        }
    )["B-functions and the learning rates they imply"]
    assert plot.body[0][1] == "network:2,0,1,0.5"
    assert "0.2500, with the activation's own derivative 0.5000; lower in 1 of 1" in plot.caption
    at_zero = next(row for row in plot.body if row[2] == "0")
    assert float(at_zero[3]) == pytest.approx(1.0)


def test_ways_of_the_weights_keep_their_distances_in_two_dimensions() -> None:
    def straight(step: float) -> dict[str, Any]:
        return {"history": lambda epoch: {"weight/0": step * epoch, "weight/1": 0.0}}

    plot = drawn(straight(1.0), straight(-1.0))["Ways through weight space"]
    ends = [row for row in plot.body if row[1] == "12"]
    far = math.dist([float(v) for v in ends[0][2:]], [float(v) for v in ends[1][2:]])
    assert far == pytest.approx(22, rel=1e-3)


def test_models_without_any_of_this_get_none_of_these_plots() -> None:
    titles = set(drawn({}))
    assert not any(word in title for title in titles for word in ("Cosine", "B-func", "Ways"))
