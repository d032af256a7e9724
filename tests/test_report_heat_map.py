"""What makes plots readable: contrast, one colour for each model, what doubtful ones look like."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib import colormaps
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat

from robench.show.leaderboard import CLEAN, leaderboard
from robench.show.report.plots.by_eps import with_worst_by_eps, worst_column
from robench.show.report.plots.comparisons import contrast
from robench.show.report.plots.plots import plots
from robench.show.report.text import paper_link, portable

THREATS = [
    clean_threat(),
    attack_threat("fgsm", 0.1, 0.3),
    attack_threat("curve@0.1", 0.1, 0.5, role="curve"),
    attack_threat("curve@0.2", 0.2, 0.6, role="curve"),
]
MODELS = [SyntheticModel(f"synthetic/{name}") for name in "abc"]


@pytest.mark.parametrize("share", range(0, 101, 5))
def test_black_or_white_stands_out_on_every_tone_of_the_heat_map(share: int) -> None:
    colour = colormaps["cividis"](share / 100)
    assert max(contrast(colour, 0.0), contrast(colour, 1.0)) >= 4.5


def test_over_eps_stands_the_per_image_worst_of_all_attacks_up_to_there() -> None:
    made = Synthetic(MODELS, THREATS).results()
    table = with_worst_by_eps(made, leaderboard(made))
    near, far = (table[worst_column("linf", eps)] for eps in (0.1, 0.2))
    assert (near <= table[["fgsm", "curve@0.1", CLEAN]].min(axis=1) + 1e-12).all()
    assert (far <= near).all()


def test_a_doubtful_model_is_dashed_and_says_so() -> None:
    made = Synthetic(MODELS, THREATS).results()
    verdicts: Any = {"synthetic/b": {"verdict": "doubtful", "alarms": [], "findings": []}}
    drawn = {plot.title: plot for plot in plots(made, leaderboard(made), verdicts)}
    by_eps = drawn["Accuracy against the strength of the attack"].svg
    assert "b (doubtful)" in by_eps
    assert "stroke-dasharray" in by_eps
    assert "a (doubtful)" not in by_eps


def test_a_command_is_shown_without_paths_of_a_machine() -> None:
    said = portable("robench run nit-mlp --workspace /home/me/x --jobs 1 --store /tmp/s")
    assert said == "robench run nit-mlp --jobs 1"
    assert portable("robench run quickstart --store s3://bucket/x").endswith("s3://bucket/x")


def test_a_paper_is_linked_by_its_doi_or_arxiv_number() -> None:
    assert paper_link("Jiang et al. (arXiv 2305.08960)") == "https://arxiv.org/abs/2305.08960"
    assert paper_link("doi 10.1000/xyz-12.") == "https://doi.org/10.1000/xyz-12"
    assert paper_link("javascript:alert(1)") == paper_link("A paper") == ""
