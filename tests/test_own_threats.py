"""`robench.evaluate`: the threat as an argument, and what people do with the result."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import robench
from robench.attacks.gradient import PGD
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.show.report.text import radius
from robench.workspace.folders import Workspace

mpl.use("Agg")


class Bright(robench.Attack):
    """Every pixel up by eps: an attack that lives in a test."""

    share: float = Field(default=1.0, ge=0, le=1)
    needs = "decision"

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return target.project(x + self.share * target.eps, x)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = Digits().load().test
    return torch.from_numpy(data.images[:60]), torch.from_numpy(data.labels[:60])


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """64-10, trained for a moment."""
    data = Digits().load().train
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module


@pytest.fixture
def quietly(small: Workspace) -> dict[str, Any]:
    return {"workspace": small.root, "report": "small", "progress": False}


def radii(result: robench.Evaluation) -> dict[str, float]:
    return {t["name"]: float(t["eps"]) for t in result.results.threats if t["kind"] == "attack"}


def test_norm_and_eps_are_arguments(
    digits: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    result = robench.evaluate(net, digits, attacks=["fgsm", "pgd"], eps=8 / 255, **quietly)
    found = radii(result)
    assert found["fgsm"] == found["pgd"] == pytest.approx(8 / 255)
    assert result.threat == "L∞ ≤ 8/255"
    assert "L∞ ≤ 8/255" in str(result)
    assert "L∞ ≤ 8/255" in result.to_markdown()
    assert "L∞ ≤ 8/255" in result._repr_html_()
    two = robench.evaluate(net, digits, attacks=["pgd"], norm="l2", eps=0.5, **quietly)
    assert two.threat == "L2 ≤ 0.5"


def test_several_radii_are_a_headline_and_a_curve(
    digits: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    result = robench.evaluate(net, digits, attacks=["pgd"], eps=[0.1, 0.02, 0.3], **quietly)
    assert [t["name"] for t in result.results.attacks if t["card"] == "pgd"] == ["pgd"]
    assert radii(result)["pgd"] == 0.1
    curve = [t["eps"] for t in result.results.curves if t["card"] == "pgd-curve"]
    assert curve == [0.02, 0.1, 0.3]
    cells = [result.results.cell(result.name, 0, name) for name in ("pgd", "pgd-curve@0.1")]
    assert len({cell["digest"] for cell in cells if cell}) == 1, "the same work is done once"
    lines = result.plot("eps").get_lines()
    assert any(len(line.get_xdata()) == 4 for line in lines), "three radii and the clean accuracy"


def test_the_usual_radius_follows_the_images_and_is_said(
    digits: tuple[Tensor, Tensor],
    net: nn.Module,
    quietly: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = digits
    grey = robench.evaluate(net, (x, y), attacks=["pgd"], **quietly)
    assert radii(grey)["pgd"] == 0.1
    colour = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    aloud = {**quietly, "progress": True}
    three = x.expand(-1, 3, 8, 8)
    assert radii(robench.evaluate(colour, (three, y), attacks=["pgd"], **aloud))["pgd"] == 8 / 255
    assert "threat: linf, eps = 8/255" in capsys.readouterr().err


def test_a_radius_of_eight_is_refused_with_what_is_meant(
    digits: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    said = r"eps = 8 in linf: pixels are in \[0, 1\].*8/255 = 0.03137"
    with pytest.raises(RobenchError, match=said):
        robench.evaluate(net, digits, attacks=["pgd"], eps=8, **quietly)


def test_attacks_are_names_settings_or_instances(
    digits: tuple[Tensor, Tensor], net: nn.Module, quietly: dict[str, Any]
) -> None:
    wanted = ["fgsm", {"name": "pgd", "steps": 3}, PGD(steps=5), Bright(share=0.5)]
    result = robench.evaluate(net, digits, attacks=wanted, eps=0.05, **quietly)
    named = {t["name"]: t["fields"]["attack"] for t in result.results.attacks if "fields" in t}
    assert named["pgd"]["steps"] == 3
    assert named["PGD"]["steps"] == 5
    assert named["Bright"]["share"] == 0.5
    moved = result.results.table(result.name, 0, "Bright")
    assert moved is not None
    assert np.allclose(moved["distance"].to_numpy().max(), 0.025, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"attacks": [3]}, "give names of cards"),
        ({"attacks": [{"steps": 3}]}, "'name' says which attack"),
        ({"attacks": [{"name": "pdg"}]}, "did you mean"),
        ({"attacks": ["pgd"], "eps": "much"}, "a radius, as in 8/255"),
        ({"attacks": ["pgd"], "eps": -1}, "at least 0"),
        ({"attacks": ["fgsm"], "norm": "l0", "eps": 3}, "none of the attacks asked for works"),
        ({"attacks": ["pgd"], "norm": "l2"}, "no usual radius"),
        ({"report": "stong"}, "did you mean strong"),
        ({"attacks": ["pgd"], "images": 0}, "images = 0: at least 1"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(
    digits: tuple[Tensor, Tensor],
    net: nn.Module,
    quietly: dict[str, Any],
    asked: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(RobenchError, match=said):
        robench.evaluate(net, digits, **quietly | asked)


@pytest.mark.parametrize(
    ("eps", "shown"),
    [(8 / 255, "8/255"), (0.1, "0.1"), (0.2, "0.2"), (1.5 / 255, "0.00588235"), ("inf", "∞")],
)
def test_a_radius_is_written_as_the_field_writes_it(eps: float | str, shown: str) -> None:
    assert radius(eps) == shown


@pytest.fixture(scope="module")
def result(
    digits: tuple[Tensor, Tensor], net: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> robench.Evaluation:
    store = tmp_path_factory.mktemp("store")
    kinds = ["imagenet-c-quick"]
    return robench.evaluate(
        net, digits, attacks=["fgsm", "pgd"], corruptions=kinds, store=store, progress=False
    )


def test_the_numbers_are_at_hand(result: robench.Evaluation) -> None:
    frame = result.per_image
    assert list(frame.columns) == ["image", "label", "threat", "correct"]
    clean = frame[frame["threat"] == "clean"]["correct"]
    assert result.clean == clean.mean()
    low, high = result.interval
    assert low < result.worst_case < high
    assert result.worst_case <= result.clean


def test_a_test_suite_asserts_robustness(result: robench.Evaluation) -> None:
    result.assert_robust(clean=0.5, worst_case=0.0)
    low, _ = result.interval
    said = r"worst_case is .*low end of its 95% interval; at least"
    with pytest.raises(AssertionError, match=said):
        result.assert_robust(worst_case=low + 0.01)
    result.assert_robust(worst_case=result.worst_case, below="value")
    with pytest.raises(RobenchError, match="did you mean worst_case"):
        result.assert_robust(worst_cas=0.1)


@pytest.mark.parametrize("what", ["threats", "severity", "examples"])
def test_results_are_drawn_on_axes(result: robench.Evaluation, what: Any) -> None:
    axes = result.plot(what)
    assert "Sequential" in axes.get_title()
    assert result.plot(what, ax=axes) is axes


def test_a_plot_that_cannot_be_drawn_says_what_to_ask_for(result: robench.Evaluation) -> None:
    with pytest.raises(RobenchError, match="did you mean threats"):
        result.plot("threat")  # type: ignore[arg-type]


def test_two_results_are_compared_image_by_image(
    result: robench.Evaluation, digits: tuple[Tensor, Tensor], quietly: dict[str, Any]
) -> None:
    quietly["report"] = "strong"  # with diagnostics, as `result` has them
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    untrained = robench.evaluate(
        other, digits, attacks=["fgsm", "pgd"], name="other", **quietly | {"report": "strong"}
    )
    table = result.compare(untrained).set_index("threat")
    clean = table.loc["clean"]
    assert clean["difference"] == pytest.approx(result.clean - untrained.clean)
    assert clean["low"] < clean["difference"] < clean["high"]
    assert clean["only_ours"] - clean["only_theirs"] == round(60 * clean["difference"])
    assert clean["p"] < 0.001
    assert list(table.index[:2]) == ["worst case", "clean"]
    assert table.loc["worst case", "ours"] == pytest.approx(result.worst_case)
    same = result.compare(result).set_index("threat").loc["clean"]
    assert same["difference"] == 0
    assert same["p"] == 1
    fewer = robench.evaluate(
        other, digits, attacks=["fgsm"], images=30, **quietly | {"report": "strong"}
    )
    with pytest.raises(RobenchError, match="met different images"):
        result.compare(fewer)


def test_markdown_holds_what_a_pull_request_wants(result: robench.Evaluation) -> None:
    text = result.to_markdown()
    assert "| worst case over attacks |" in text
    assert f"{100 * result.worst_case:.1f}%" in text
    assert result.verdicts[result.name]["verdict"] in text
