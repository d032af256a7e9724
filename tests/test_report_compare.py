"""Two models compared in a real browser: the numbers against another computation of them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_a_browser import HOSTILE, Show, browser, pytestmark, show, window
from pages import no_plots
from scipy import stats
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    quick_models,
    quick_threats,
)

from robench.show.leaderboard import leaderboard
from robench.show.report.answers import answers
from robench.show.report.folder import write_report
from robench.show.results import Results

__all__ = ["browser", "pytestmark", "show", "window"]  # fixtures, and marks that hold here

SCRIPT = (files("robench.show.report") / "assets/compare.js").read_text("utf-8")
ONE, OTHER, SEEDS = "synthetic/mlp-glr", "synthetic/snn-nit", "synthetic/seeds, many"


@pytest.fixture(scope="module")
def results() -> Results:
    models = [
        *quick_models(),
        SyntheticModel(SEEDS, seeds=(0, 1, 2), clean=0.9),
        SyntheticModel("synthetic/elsewhere", dataset={"name": "synthetic-clothes"}),
    ]
    return Synthetic(models, quick_threats()).results()


@pytest.fixture(scope="module")
def file(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with no_plots():
        return write_report(results, tmp_path_factory.mktemp("compared"))


def by_hand(results: Results, one: str, other: str, threat: str) -> dict[str, Any]:
    """Difference, its interval and the images that only one gets: with scipy, from the rows."""
    models = {model["name"]: model for model in results.models}
    found = [
        results.worst_case(models[name])
        if threat == "worst case"
        else results.correct(models[name], threat)
        for name in (one, other)
    ]
    first, second = (array for array in found if array is not None)
    differences = first.mean(axis=0) - second.mean(axis=0)
    terms = [(stats.sem(differences) ** 2, len(differences) - 1)]
    for model in (first, second):
        if len(model) > 1:
            terms.append((stats.sem(model.mean(axis=1)) ** 2, len(model) - 1))
    variance = sum(term for term, _ in terms)
    freedom = variance**2 / sum(term**2 / free for term, free in terms)
    low, high = stats.t.interval(0.95, freedom, differences.mean(), np.sqrt(variance))
    gets = [model.mean(axis=0) > 0.5 for model in (first, second)]
    return {
        "numbers": [100 * differences.mean(), 100 * low, 100 * high],
        "first": np.flatnonzero(gets[0] & ~gets[1]).tolist(),
        "second": np.flatnonzero(gets[1] & ~gets[0]).tolist(),
    }


def shown(page: Any, threat: str) -> dict[str, Any]:
    line = page.locator("#model table.compared tbody tr").filter(
        has=page.locator("th", has_text=re.compile(rf"^{re.escape(threat)}$"))
    )
    cells = line.locator("td").all_inner_texts()
    numbers = re.findall(r"[+−]?\d+\.\d", cells[0])
    details = page.locator("#model details.images", has_text=f"Images under {threat}:")
    lists = details.locator("p").evaluate_all("all => all.map((one) => one.lastChild.data)")
    return {
        "numbers": [float(number.replace("−", "-")) for number in numbers],
        "counts": [int(cell) for cell in cells[3:5]],
        "lists": [[int(n) for n in re.findall(r"\d+", text.split(" and ")[0])] for text in lists],
    }


@pytest.mark.rows(1)
@pytest.mark.parametrize("pair", [(ONE, "synthetic/mlp-bp"), (ONE, OTHER), (SEEDS, OTHER)])
def test_differences_and_images_are_what_scipy_makes_of_the_rows(
    show: Show,
    results: Results,
    file: Path,
    pair: tuple[str, str],
) -> None:
    """Two without noise, one with, and one of three seeds whose name holds a comma."""
    page = show(file).open(f"#compare={','.join(pair)}")
    for threat in ("worst case", "clean", "fgsm", "random-sign"):
        expected, said = by_hand(results, *pair, threat), shown(page, threat)
        assert said["numbers"] == pytest.approx(expected["numbers"], abs=0.0501), threat
        assert said["counts"] == [len(expected["first"]), len(expected["second"])]
        assert said["lists"] == [expected["first"][:60], expected["second"][:60]]


def test_quantiles_of_students_t_are_those_of_scipy(browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_script_tag(content=re.findall(r"^function quantile.*?^}", SCRIPT, re.M | re.S)[0])
    for freedom in (1.0, 1.5, 2.0, 3.7, 10.0, 99.0, 199.0, 201.0, 5000.0):
        made = page.evaluate(f"quantile({freedom})")
        assert made == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3), freedom
    context.close()


def test_two_models_are_chosen_above_the_table_and_both_cards_stand_side_by_side(
    show: Show,
    file: Path,
) -> None:
    tab = show(file)
    page = tab.open()
    first, second = page.locator("#pair select").all()
    first.select_option(ONE)
    assert "synthetic/elsewhere" not in second.locator("option").all_inner_texts()
    second.select_option(OTHER)
    page.locator("#model table.compared").wait_for()
    assert tab.fragment() == f"#compare={ONE},{OTHER}"
    cards = page.locator("#model table.cards")
    assert cards.locator("thead th").all_inner_texts() == ["setting", ONE, OTHER]
    trainer = cards.locator("tr.differs", has_text="trainer.name").locator("td")
    assert trainer.all_inner_texts() == ['"glr"', '"nit"']
    page.keyboard.press("Escape")
    page.wait_for_function("!document.getElementById('model').open")
    assert tab.fragment() == ""
    page.reload()
    assert not page.locator("#model").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_comparison_fits_on_a_phone_and_unlike_data_are_not_compared(
    show: Show,
    file: Path,
    scheme: str,
) -> None:
    tab = show(file, scheme, width=390)
    page = tab.open(f"#compare={ONE},{OTHER}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.getElementById('model').scrollWidth") <= 390
    page = tab.open(f"#compare={ONE},synthetic/elsewhere")
    assert page.locator("#model table.compared").count() == 0
    assert "different data sets" in page.inner_text("#model")
    assert page.locator("#model table.cards").count() == 1


@pytest.mark.usefixtures("undrawn")
def test_hostile_names_are_text_in_a_comparison(show: Show, tmp_path: Path) -> None:
    models = [
        SyntheticModel(HOSTILE, trainer=HOSTILE, network=HOSTILE, description=HOSTILE),
        SyntheticModel("x," * 5_000),
    ]
    made = Synthetic(models, [clean_threat(), attack_threat(HOSTILE, 0.1, 0.3)]).results()
    page = show(write_report(made, tmp_path)).open()
    first, second = page.locator("#pair select").all()
    first.select_option(HOSTILE)
    second.select_option(index=1)
    page.locator("#model table.compared").wait_for()
    assert HOSTILE[:20] in page.inner_text("#model h2")
    assert page.locator("#model img").count() == 0
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_threats_without_room_are_left_out_and_counted(results: Results) -> None:
    table = leaderboard(results)
    whole = answers(results, table)
    few = answers(results, table, room=5_000)
    assert 0 < len(few["of"]) < len(whole["of"])
    assert few["of"] == whole["of"][: len(few["of"])]
    assert few["left_out"] == len(whole["of"]) - len(few["of"])
    assert [label for _, _, label in whole["of"][:3]] == ["worst case", "clean", "fgsm"]
