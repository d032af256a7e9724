"""Noisy models beside silent ones in one report: who meets what, and what the page says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_runs import carry_out

from robench.errors import RobenchError
from robench.make.describe import describe
from robench.show.report.folder import write_report
from robench.show.results import load_published, load_results
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]
NOISY = """
dataset = "digits"
network = { name = "mlp", hidden = [16], sigma = SIGMA }
trainer = { name = "bp", epochs = 3, lr = 1e-2 }
inference_noise = true
"""
REPORT = """
title = "Noisy and silent"
models = ["small", "noisy"]
attacks = ["pgd", "for-noisy-1", "for-noisy-4"]
images = 40
draws = 8
vote = 3
diagnostics = false
"""
CARD = """
attack = { name = "pgd", steps = 3, eot = EOT, objective = "vote" }
access = "white-box"
eps = 0.1
role = "diagnostic"
meets = "noisy"
"""


@pytest.fixture
def both(small: Workspace, write: Write) -> Workspace:
    write("models/noisy.toml", NOISY.replace("SIGMA", "1.0"))
    write("reports/small.toml", REPORT)
    for eot in ("1", "4"):
        write(f"attacks/for-noisy-{eot}.toml", CARD.replace("EOT", eot))
    return small


def test_only_noisy_models_meet_what_is_meant_for_them(both: Workspace, tmp_path: Path) -> None:
    run, _ = carry_out(both)
    met = [(cell.training.card.name, cell.threat.name) for cell in run.plan.cells]
    assert met == [
        ("small", "clean"), ("small", "pgd"),
        ("noisy", "clean"), ("noisy", "pgd"), ("noisy", "for-noisy-1"), ("noisy", "for-noisy-4"),
    ]  # fmt: skip
    run.store.write_run("small", describe(run, "robench run small"))
    results = load_results(run.store, "small")
    assert all(results.complete(model) for model in results.models)
    assert not results.failures()
    page = write_report(results, tmp_path / "page").read_text("utf-8")
    assert "asks the model 3 times" in " ".join(page.split())
    assert "Accuracy against the draws per gradient" in page
    table = pd.read_csv(tmp_path / "page" / "leaderboard.csv").set_index("model")
    assert table.loc["small", "worst_case_vote"] == table.loc["small", "worst_case"]
    assert pd.isna(table.loc["small", "for-noisy-1"])
    for key in ("worst_case_vote", "clean_vote"):
        low, value, high = (table.loc["noisy", key + end] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high + 1e-9
        assert low < high
    rows = json.loads((tmp_path / "page" / "leaderboard.json").read_text())["rows"]
    assert all("worst_case_vote_low" in row for row in rows)
    # A column of a paper has no room for the vote: it is in the tables above.
    assert "vote" not in (tmp_path / "page" / "leaderboard.tex").read_text()
    again = load_published(tmp_path / "page")
    assert again.voters == 3


def test_a_report_without_noisy_models_is_as_it_was(both: Workspace, write: Write) -> None:
    """Not even its threat set, which says what its rows may be compared with, changes."""
    write("reports/small.toml", REPORT.replace('"small", "noisy"', '"small"'))
    run, _ = carry_out(both)
    assert [threat.name for threat in run.plan.threats] == ["clean", "pgd"]
    found = describe(run, "robench run small")["threat_set"]
    write("reports/small.toml", REPORT.replace('"small", "noisy"', '"small"').replace(
        ', "for-noisy-1", "for-noisy-4"', ""
    ))  # fmt: skip
    assert describe(carry_out(both)[0], "")["threat_set"] == found


def test_noise_of_size_zero_gives_the_number_of_the_silent_model(
    both: Workspace, write: Write
) -> None:
    """The same weights, drawn eight times, count as they do when they are asked once."""
    found = {}
    for noise in ("true", "false"):
        text = NOISY.replace("SIGMA", "1e-9").replace("true", noise)
        write("models/noisy.toml", text)
        run, _ = carry_out(both)
        run.store.write_run("small", describe(run, "robench run small"))
        results = load_results(run.store, "small")
        model = next(model for model in results.models if model["name"] == "noisy")
        assert model["stochastic"] is (noise == "true")
        found[noise] = results.worst_case(model, results.threats[:2])
        if noise == "true":
            assert (results.worst_case(model) == results.worst_vote(model)).all()
    assert found["true"].mean() == pytest.approx(found["false"].mean(), abs=0.05)


def test_a_vote_leaves_half_of_the_draws_to_choose(both: Workspace, write: Write) -> None:
    write("reports/small.toml", REPORT.replace("vote = 3", "vote = 5"))
    with pytest.raises(RobenchError, match="vote = 5 is more than half of draws = 8"):
        both.card("reports", "small")
