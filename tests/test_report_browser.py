"""The page in a real browser: sorting, filtering, columns, deep links, the view of one model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from in_a_browser import HOSTILE, Show, Tab, browser, pytestmark, show, window
from pages import embedded_data, no_plots
from proofs_by_hand import proven
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
    quick_models,
    quick_threats,
)

from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report

__all__ = ["browser", "pytestmark", "show", "window"]  # fixtures, and marks that hold here


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = [
        *quick_models(),
        SyntheticModel("synthetic/broken", clean=0.99, failed=((0, "fgsm"),)),
        SyntheticModel("synthetic/elsewhere", dataset={"name": "synthetic-clothes"}),
    ]
    results = Synthetic(models, quick_threats()).results()
    return write_report(results, tmp_path_factory.mktemp("page"))


@pytest.fixture
def tab(show: Show, file: Path) -> Tab:
    return show(file)


def test_a_click_on_a_column_sorts_best_first_and_another_turns_it(tab: Tab) -> None:
    tab.open("#dataset=synthetic-digits&q=n")
    for button, order in ((1, -1), (2, 1)):
        tab.page.click("#board thead button[data-sort='1']")
        complete = tab.numbers("1")[:-1] if "synthetic/broken" in tab.models() else tab.numbers("1")
        assert complete == sorted(complete, key=lambda value: order * value), button
    head = tab.page.locator("#board thead th", has=tab.page.locator("button[data-sort='1']"))
    assert head.get_attribute("aria-sort") == "ascending"
    assert tab.page.locator("#board [aria-sort]").count() == 1


def test_sorting_works_from_the_keyboard(tab: Tab) -> None:
    page = tab.open()
    page.locator("#board thead button[data-sort='name']").focus()
    page.keyboard.press("Enter")
    names = tab.models()[:5]
    assert names == sorted(names)


def test_incomplete_rows_stay_below_the_ranked_ones(tab: Tab) -> None:
    page = tab.open("#dataset=synthetic-digits")
    page.click("#board thead button[data-sort='1']")
    assert tab.numbers("1")[-1] == max(tab.numbers("1"))
    assert tab.models()[-1].startswith("synthetic/broken")


def test_data_sets_are_sorted_apart(tab: Tab) -> None:
    page = tab.open()
    page.click("#board thead button[data-sort='1']")
    assert tab.models()[-1].startswith("synthetic/elsewhere")
    assert page.locator("#board tr.group").count() == 2


def test_search_and_trainer_narrow_the_rows_and_say_how_many(tab: Tab) -> None:
    page = tab.open()
    page.fill("[name=q]", "SNN nit")
    assert set(tab.models()) == {"synthetic/snn-nit", "synthetic/snn-nit-s"}
    assert page.inner_text("#count") == "2 of 7 models"
    page.select_option("[name=trainer]", "nit-s")
    assert tab.models() == ["synthetic/snn-nit-s"]
    page.click("#reset")
    assert len(tab.models()) == 7


def test_columns_can_be_chosen(tab: Tab) -> None:
    page = tab.open()
    fgsm = page.locator("#board thead th", has_text="fgsm")
    severity = page.locator("#board thead th", has_text="fog 3")
    assert fgsm.is_visible()
    assert not severity.is_visible()
    page.click("#chooser summary")
    page.get_by_label("fgsm").uncheck()
    page.get_by_label("fog 3").check()
    assert not fgsm.is_visible()
    assert severity.is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#chooser").get_attribute("open") is None


def test_a_link_brings_back_sorting_filter_and_columns(tab: Tab) -> None:
    page = tab.open()
    page.click("#board thead button[data-sort='name']")
    page.click("#board thead button[data-sort='name']")
    page.fill("[name=q]", "snn")
    page.click("#chooser summary")
    page.get_by_label("square").uncheck()
    names, fragment = tab.models(), tab.fragment()
    assert "sort=name" in fragment
    page = tab.open(page.evaluate("location.hash"))
    assert tab.models() == names
    assert page.input_value("[name=q]") == "snn"
    assert not page.locator("#board thead th", has_text="square").is_visible()


def test_an_unknown_fragment_shows_the_whole_board(tab: Tab) -> None:
    tab.open("#sort=nothing&trainer=nobody&model=none&col=absent&dir=sideways")
    assert tab.page.inner_text("#count") == "0 of 7 models"
    tab.page.click("#reset")
    assert len(tab.models()) == 7


def test_a_click_on_a_row_opens_the_model_and_escape_closes_it(tab: Tab) -> None:
    page = tab.open()
    page.click("#board tr.m:has-text('synthetic/mlp-glr') td.headline")
    assert page.inner_text("#model h2") == "synthetic/mlp-glr"
    assert tab.fragment() == "#model=synthetic/mlp-glr"
    page.keyboard.press("Escape")
    page.locator("#model").wait_for(state="hidden")
    page.wait_for_function("location.hash === ''")


def test_the_back_button_closes_the_model(tab: Tab) -> None:
    page = tab.open()
    page.click("#board th.model a >> nth=0")
    page.locator("#model h2").wait_for()
    page.go_back()
    page.locator("#model").wait_for(state="hidden")


def test_a_model_is_reached_from_the_keyboard(tab: Tab) -> None:
    page = tab.open()
    page.locator("#board th.model a").first.focus()
    page.keyboard.press("Enter")
    page.locator("#model h2").wait_for()
    assert page.evaluate("document.activeElement.id") == "model-title"


@pytest.mark.parametrize("where", ["th.model a", "td.headline"])
def test_closing_a_model_brings_the_focus_back_to_its_row(tab: Tab, where: str) -> None:
    page = tab.open()
    page.click(f"#board tr.m:has-text('synthetic/mlp-glr') {where}")
    page.locator("#model h2").wait_for()
    page.keyboard.press("Escape")
    page.locator("#model").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.textContent") == "synthetic/mlp-glr"


def test_the_first_tab_offers_to_skip_to_the_leaderboard_and_shows_itself(tab: Tab) -> None:
    page = tab.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#leaderboard"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_whoever_asked_for_less_motion_gets_none(tab: Tab) -> None:
    page = tab.open()
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(behaviour) == "smooth"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(behaviour) == "auto"


def test_a_column_that_was_not_there_shows_what_the_model_view_says(tab: Tab) -> None:
    page = tab.open("#col=imagenet-c%2Ffog%2F3&col=worst_case")
    columns = [column["key"] for column in embedded_data(page.content())["columns"]]
    column = columns.index("imagenet-c/fog/3")
    shown = dict(zip(tab.models(), tab.numbers(str(column)), strict=True))
    page = tab.open("#model=synthetic/snn-nit")
    line = page.locator("#model details tr", has_text="imagenet-c/fog/3").first
    said = line.locator("td").first.evaluate("cell => parseFloat(cell.firstChild.data)")
    (own,) = [value for name, value in shown.items() if name.endswith("/snn-nit")]
    assert own == said


def test_the_model_view_shows_threats_curves_images_and_published_figures(tab: Tab) -> None:
    page = tab.open("#model=synthetic/snn-nit")
    text = page.inner_text("#model")
    for threat in ("clean", "fgsm", "curve@0.2", "random-sign", "imagenet-c/fog"):
        assert threat in text
    assert "81.4" in text
    assert page.locator("#model .charts svg").count() == 5
    assert page.locator("#model .strips img").count() == 6
    widths = page.locator("#model .strips img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert min(widths) > 0
    assert 'network = { name = "snn", hidden = [50] }' in text


def test_a_model_with_a_missing_cell_opens_too(tab: Tab) -> None:
    page = tab.open("#model=synthetic/broken")
    assert "not ranked" in page.inner_text("#model")


@pytest.fixture
def site(file: Path) -> Iterator[str]:
    """The folder behind a web server on this machine: from a file, browsers show CSV as text."""
    handler = partial(QuietHandler, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are no news."""


def test_the_files_beside_the_page_can_be_downloaded(browser: Any, file: Path, site: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site)
    for name in ("leaderboard.csv", "leaderboard.json", "leaderboard.tex", "cells.parquet"):
        with page.expect_download() as started:
            page.click(f"a[href='{name}']")
        assert Path(started.value.path()).read_bytes() == (file.parent / name).read_bytes()
    context.close()


def test_numbers_of_a_plot_open_below_it(tab: Tab) -> None:
    page = tab.open()
    details = page.locator("details.data").first
    details.locator("summary").click()
    assert "synthetic/mlp-bp" in details.locator("table").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_sideways(show: Show, file: Path, scheme: str, width: int) -> None:
    page = show(file, scheme, width).open("#model=synthetic/snn-nit")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.getElementById('model').scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(show: Show, file: Path, scheme: str) -> None:
    """Contrast of at least 4.5:1 (WCAG AA) for every ink of the page."""
    page = show(file, scheme).open()
    read = """() => {
      const probe = document.body.appendChild(document.createElement("i"));
      return ["--paper", "--ink", "--soft", "--accent", "--good", "--bad", "--open"].map((name) => {
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number);
      });
    }"""
    paper, *inks = (luminance(colour) for colour in page.evaluate(read))
    for ink in inks:
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 4.5


def luminance(colour: list[int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_without_javascript_the_board_is_there(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("#board tr.m").count() == 7
    assert not page.locator("#controls").is_visible()
    context.close()


def test_on_paper_the_board_is_there_and_its_controls_are_not(tab: Tab) -> None:
    page = tab.open()
    page.emulate_media(media="print")
    assert page.locator("#board").is_visible()
    assert not page.locator("#controls").is_visible()


def test_hostile_names_do_nothing(show: Show, tmp_path: Path) -> None:
    model = SyntheticModel(
        HOSTILE, trainer=HOSTILE, network=HOSTILE, dataset={"name": HOSTILE}, description=HOSTILE
    )
    threats = [
        clean_threat(),
        attack_threat(HOSTILE, 0.1, 0.3, description=HOSTILE),
        corruption_threat(HOSTILE, 1, 0.1),
    ]
    results = Synthetic([model, SyntheticModel("x" * 10_000)], threats, title=HOSTILE).results()
    page = show(write_report(results, tmp_path)).open()
    page.click("#board th.model a >> nth=0")
    assert page.inner_text("#model h2") in {HOSTILE, "x" * 299 + "…"}
    page.keyboard.press("Escape")
    page.click("#board th.model a >> nth=1")
    page.locator("#model h2").wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = proven(Synthetic(quick_models(), quick_threats()).results())
    with no_plots():
        return write_report(results, tmp_path_factory.mktemp("proved"))


def test_both_ends_stay_when_columns_are_chosen_and_say_their_intervals(
    show: Show, proved: Path
) -> None:
    page = show(proved).open()
    cell = page.locator("#board tr.m", has_text="synthetic/mlp-bp").locator("td.headline")
    before = cell.evaluate("cell => cell.outerHTML")
    assert cell.inner_text().startswith("proved ")
    page.click("#chooser summary")
    page.get_by_label("Proved", exact=True).check()
    assert cell.evaluate("cell => cell.outerHTML") == before  # made anew, by the script
    assert page.locator("#board thead th", has_text="Proved").first.is_visible()
    page.keyboard.press("Escape")
    cell.hover()
    title = page.locator("#board td.two[title]").get_attribute("title")
    assert re.match(r"proved \d.*\(95%: .*\), attacked \d.*\(95%: ", title or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_view_of_a_model_shows_every_ball_and_every_image(
    show: Show, proved: Path, scheme: str, width: int
) -> None:
    tab = show(proved, scheme, width)
    page = tab.open("#model=synthetic/mlp-glr")
    assert page.locator("#model td.ends").count() == 3
    assert page.locator("#model svg.states").count() == 3
    boxes = "path => path.getAttribute('d').split('M').length - 1"
    squares = (
        page.locator("#model svg.states >> nth=0")
        .locator("path")
        .evaluate_all(f"all => all.map({boxes})")
    )
    assert sum(squares) == 200
    assert page.evaluate("document.getElementById('model').scrollWidth") <= width
    page = tab.open("#model=synthetic/snn-nit")
    assert "Certified by its noise under every perturbation" in page.inner_text("#model")
    assert page.locator("#model svg.states").count() == 0


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Sixty models under sixty threats: a table that counts as large. And its leaderboard."""
    models = [
        SyntheticModel(f"synthetic/m{i}", trainer=f"trainer-{i % 9}", slope=0.7 + 0.01 * i)
        for i in range(60)
    ]
    threats = [
        clean_threat(),
        *(attack_threat(f"attack-{i}", 0.1, 0.2 + 0.05 * i) for i in range(9)),
        *(corruption_threat(f"kind_{i}", s, 0.03 * s) for i in range(10) for s in range(1, 6)),
    ]
    results = Synthetic(models, threats, images=20, distinct=100).results()
    with no_plots(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("robench.show.report.payload._pictures", lambda *asked: [])
        file = write_report(results, tmp_path_factory.mktemp("crowd"), verdicts={})
    return file, leaderboard(results)


NEXT_FRAMES = """() => new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)));
})"""
"""Scrolling is told in the next frame, and answered in the one after."""
ROWS = """() => [...document.querySelectorAll("#board tr.m")].map((row) => {
  const box = row.getBoundingClientRect();
  const frame = document.querySelector("#leaderboard .scroll").getBoundingClientRect();
  const seen = box.bottom > Math.max(0, frame.top) && box.top < Math.min(innerHeight, frame.bottom);
  const numbers = [...row.querySelectorAll("td.n")].map((cell) => parseFloat(cell.firstChild.data));
  return { seen, numbers, name: row.querySelector("a").textContent, high: row.offsetHeight };
})"""


def test_rows_of_a_large_table_are_whole_where_they_are_seen(
    show: Show, crowd: tuple[Path, pd.DataFrame]
) -> None:
    file, table = crowd
    page = show(file, height=700).open()
    page.click("#chooser summary")
    for button in page.locator("[data-columns=all]").all():
        button.click()
    page.keyboard.press("Escape")
    columns = [column["key"] for column in embedded_data(file.read_text())["columns"]]
    expected = {
        row["model"]: [float(f"{100 * row[column]:.1f}") for column in columns]
        for _, row in table.iterrows()
    }
    ways = (
        "document.getElementById('board').scrollIntoView()",
        "document.querySelector('#leaderboard .scroll').scrollTop = 1200",
        "document.querySelector('#board thead button[data-sort=\"3\"]').click()",
        "document.querySelector('#leaderboard .scroll').scrollTop = 1e6",
    )
    for way in ways:
        page.evaluate(way)
        page.evaluate(NEXT_FRAMES)
        rows = page.evaluate(ROWS)
        seen = [row for row in rows if row["seen"]]
        assert len(seen) > 5, way
        assert len({row["high"] for row in rows}) == 1
        for row in seen:
            assert row["numbers"] == expected[row["name"]], way
        assert {row["name"] for row in rows} == set(expected)  # what a reader can search for
    assert min(len(row["numbers"]) for row in rows) == 4  # the summary; the rest comes with a look
    page.click("#reset")
    assert page.evaluate("[...document.querySelector('#board tr.m').cells].length") == 3 + 13


def test_a_large_table_is_whole_on_paper(show: Show, crowd: tuple[Path, pd.DataFrame]) -> None:
    page = show(crowd[0]).open(
        "#col=worst_case&"
        + "&".join(f"col=imagenet-c%2Fkind_{i}%2F{s}" for i in range(10) for s in range(1, 6))
    )
    least = "Math.min(...[...document.querySelectorAll('#board tr.m')].map((r) => r.cells.length))"
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {least}; }})")
    assert page.evaluate(least) < 54
    page.pdf()
    assert page.evaluate("window.printed") == 3 + 1 + 50


def test_a_large_table_sorts_and_filters(show: Show, crowd: tuple[Path, pd.DataFrame]) -> None:
    tab = show(crowd[0])
    shown = "&".join(f"col=attack-{i}" for i in range(9))
    page = tab.open(
        f"#col=worst_case&col=clean&{shown}&"
        + "&".join(f"col=imagenet-c%2Fkind_{i}%2F{s}" for i in range(10) for s in range(1, 6))
    )
    assert page.locator("#leaderboard .scroll.large").count() == 1
    page.click("#board thead button[data-sort='4']")
    seen = [number for number in tab.numbers("4") if number == number]  # rows far off are empty
    assert len(seen) > 5
    assert seen == sorted(seen, reverse=True)
    page.fill("[name=q]", "trainer-3")
    assert page.inner_text("#count") == "7 of 60 models"
