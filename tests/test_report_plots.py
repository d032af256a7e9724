"""What plots show and what they do not: labels as they are, apart, and short where that is safe."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.transforms import Bbox
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, quick_threats

from robench.show.leaderboard import leaderboard
from robench.show.report.plots.drawing import Plot, at_radius, tones
from robench.show.report.plots.figure import figure, spaced, style, svg
from robench.show.report.plots.plots import common_folder, plots
from robench.show.report.plots.scatter import extent, write_names


def test_numbers_on_an_axis_are_not_cut() -> None:
    with style():
        drawn = figure(3, 2)
        axes = drawn.subplots()
        axes.plot([0, 1 / 3], [0, 1 / 7])
        axes.set_xticks([0.12345], ["0.12345"])
        text = svg(drawn, "x", "a title")
    assert ">0.12345<" in text
    assert not re.search(r'd="[^"]*\d\.\d{3}', text), "coordinates are rounded"


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["nit/mnist/a", "nit/mnist/b"], "nit/mnist/"),
        (["nit/mnist/a", "nit/fashion/a"], "nit/"),
        (["nit/a", "nit-s/a"], ""),
        (["nit/a", "nit"], ""),
        (["nit/mnist/a"], ""),
        ([], ""),
    ],
)
def test_a_folder_that_all_models_share_is_left_out_of_labels(
    names: list[str], folder: str
) -> None:
    assert common_folder(names) == folder


def test_ticks_that_would_touch_are_left_out_and_the_last_stays() -> None:
    assert spaced([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 1], 0.1) == [0, 0.1, 0.2, 0.3, 1]
    assert spaced([0, 0.95, 1], 0.1) == [0, 1]
    assert spaced([], 0.1) == []


def test_names_of_points_hide_neither_each_other_nor_a_point() -> None:
    drawn = figure(6, 4)
    axes = drawn.subplots()
    points = {f"model-{i}": (0.5 + 0.004 * i, 0.5 + 0.003 * i) for i in range(8)}
    axes.scatter(*zip(*points.values(), strict=True))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    write_names(drawn, axes, points)
    assert [text.get_text() for text in axes.texts] == list(reversed(points))
    boxes = [extent(text) for text in axes.texts]
    for one, other in combinations(boxes, 2):
        assert Bbox.intersection(one, other) is None
    at = [axes.transData.transform(point) for point in points.values()]
    assert not any(box.contains(*where) for box in boxes for where in at)


def made(models: list[SyntheticModel], threats: list[dict[str, Any]]) -> dict[str, Plot]:
    results = Synthetic(models, threats, images=20).results()
    return {plot.title: plot for plot in plots(results, leaderboard(results))}


def test_cost_is_drawn_in_passes_and_in_time() -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b", slope=0.8)]
    threats = [clean_threat(), *(attack_threat(name, 0.1, 0.3) for name in ("fgsm", "pgd"))]
    plot = made(models, threats)["What an attack costs against what it leaves"]
    assert "forward and backward passes per image" in plot.svg
    assert "milliseconds per image" in plot.svg
    assert plot.head[-3:] == ["queries", "gradients", "ms per image"]
    assert plot.body[0][-1] == "75"  # 1.5 s for 20 images


def test_the_cost_plot_names_every_attack_however_many_there_are() -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b", slope=0.8)]
    names = [f"attack-{i}" for i in range(25)]
    threats = [clean_threat(), *(attack_threat(name, 0.1, 0.3) for name in names)]
    plot = made(models, threats)["What an attack costs against what it leaves"]
    assert all(f">{name}<" in plot.svg for name in names)


def test_a_radius_in_the_name_of_a_threat_is_written_as_the_field_does() -> None:
    assert at_radius("pgd@0.0313725") == "pgd@8/255"
    assert at_radius("pgd@0.1") == "pgd@0.1"
    assert at_radius("noise@1e-05") == "noise@1e-05"
    assert at_radius("a@b") == "a@b"


def test_data_sets_have_plots_apart_and_a_model_one_colour_in_each() -> None:
    models = [
        SyntheticModel(f"synthetic/{data}/m{i}", dataset={"name": data}, clean=0.9 - 0.01 * i)
        for data in ("one", "two")
        for i in range(7)
    ]
    results = Synthetic(models, quick_threats(["fog"]), images=20).results()
    found = plots(results, leaderboard(results))
    assert [plot.dataset for plot in found] == sorted(plot.dataset for plot in found)
    assert {plot.dataset for plot in found} == {"one", "two"}
    wanted = "Accuracy against the strength of the attack"
    lines = [plot.svg for plot in found if plot.title.startswith(wanted)]
    colours = [set(re.findall(r"stroke: (#[0-9a-f]{6}); stroke-width: 1\.4", svg)) for svg in lines]
    assert len(colours[0]) == 7, "no two of seven models share a colour"
    assert colours[0] == colours[1]


def test_baselines_and_controls_are_drawn_however_many_are_better() -> None:
    models = [SyntheticModel(f"synthetic/m{i}", trainer="x", clean=0.9) for i in range(9)]
    behind = [SyntheticModel(f"synthetic/base{i}", clean=0.5) for i in range(2)]
    control = SyntheticModel("synthetic/control", trainer="y", clean=0.4)
    claim = {"text": "x", "model": "synthetic/m0", "than": "synthetic/base0", "threat": "fgsm",
             "published": [0.9, 0.1], "strong": "worst case", "control": control.name}  # fmt: skip
    results = Synthetic([*models, *behind, control], quick_threats(["fog"]), images=20,
                        claims=[claim]).results()  # fmt: skip
    found = {plot.title: plot for plot in plots(results, leaderboard(results))}
    shown = {line[2] for line in found["Accuracy against the strength of the attack"].body}
    assert shown >= {"synthetic/base0", "synthetic/base1", "synthetic/control"}
    assert len(shown) == 8


def test_plots_name_models_without_their_folder_and_tables_in_full() -> None:
    models = [SyntheticModel("synthetic/mlp-a"), SyntheticModel("synthetic/mlp-b", slope=0.8)]
    threats = [
        *quick_threats(["fog"]),
        *(
            attack_threat(f"from {name}", 0.1, 0.3, access="transfer", surrogate=name)
            for name in ("synthetic/mlp-a", "synthetic/mlp-b")
        ),
    ]
    for title, plot in made(models, threats).items():
        assert "synthetic/" not in re.sub(r'aria-label="[^"]*"', "", plot.svg), title
        assert any("synthetic/mlp-b" in cell for line in plot.body for cell in line), title


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_tones_are_seen_on_light_and_on_dark_pages(count: int) -> None:
    """A contrast of 3, which WCAG 2.1 asks of what is no text, with both papers of page.css."""
    css = (files("robench.show.report") / "assets/page.css").read_text("utf-8")
    screen = css[: css.index("@media print")]
    papers = [np.array(to_rgb(one)) for one in re.findall(r"--paper: (#\w+)", screen)]
    assert len(papers) == 2
    made = tones(count)
    assert len({tuple(tone) for tone in made}) == count
    for paper in papers:
        for tone in made:
            low, high = sorted((luminance(paper), luminance(np.array(tone))))
            assert (high + 0.05) / (low + 0.05) > 2.95


def luminance(colour: np.ndarray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
