"""Attacks against the truth: what is counted, and the plot with its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from proofs_by_hand import proven
from synthetic import Synthetic, attack_threat, clean_threat, quick_models

from robench.show.report.folder import write_report
from robench.show.report.plots.recall import recalls
from robench.show.results import Results

THREATS = [
    clean_threat(),
    attack_threat("weak", 0.1, 0.4, card="truth/weak"),
    attack_threat("strong", 0.1, 0.9, card="truth/strong"),
]


@pytest.fixture(scope="module")
def plain() -> Results:
    return Synthetic(quick_models(), THREATS).results()


@pytest.fixture(scope="module")
def known(plain: Results) -> Results:
    return proven(plain, (0.1,), open_within=0.0)


def test_found_of_breakable_is_counted_over_the_models_without_noise(known: Results) -> None:
    silent = [model for model in known.models if not model["stochastic"]]
    assert 0 < len(silent) < len(known.models)
    breakable, found = 0, 0
    for model in silent:
        names = ("clean", "weak", "strong", "exact")
        clean, weak, strong, exact = (known.correct(model, name) for name in names)
        assert clean is not None
        assert weak is not None
        assert strong is not None
        assert exact is not None
        broken = (clean == 1) & (np.minimum(np.minimum(weak, strong), exact) == 0)
        breakable += int(broken.sum())
        found += int((broken & (weak == 0)).sum())
    by_card = {one.card: one for one in recalls(known, known.models)}
    assert by_card["truth/weak"].found == found
    assert by_card["truth/weak"].breakable == by_card["truth/strong"].breakable == breakable
    assert 0 < found < by_card["truth/strong"].found <= breakable


def test_the_attack_that_finds_most_comes_first(known: Results) -> None:
    assert [one.card for one in recalls(known, known.models)] == ["truth/strong", "truth/weak"]


def test_the_page_shows_it_where_truth_is_known_and_only_there(
    plain: Results, known: Results, tmp_path: Path
) -> None:
    title = "What attacks find of what can be broken"
    assert title in write_report(known, tmp_path / "known").read_text()
    assert title not in write_report(plain, tmp_path / "plain").read_text()
