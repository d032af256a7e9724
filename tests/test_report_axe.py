"""Every page held against the rules of axe-core: contrast, names, keyboard; light, dark, phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_a_browser import Show, browser, pytestmark, show, window
from pages import CLAIM
from proofs_by_hand import proven
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    quick_models,
    quick_threats,
)

from robench.show.report.site import write_site
from robench.workspace.folders import reference_root

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
__all__ = ["browser", "pytestmark", "show", "window"]

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390)]
BARE = "* { background-image: none !important } "
"""Bars of cells lie below their text; axe would not tell, and leave those cells out."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with whatever a page may have, one without attacks, and their index."""
    models = [
        *quick_models(),
        SyntheticModel("synthetic/broken", clean=0.99, failed=((0, "fgsm"),)),
        SyntheticModel("synthetic/chance", clean=0.1),
    ]
    transfer = [
        attack_threat(f"pgd from {name}", 0.1, 0.3, access="transfer", surrogate=name)
        for name in ("synthetic/mlp-bp", "synthetic/mlp-glr")
    ]
    full = Synthetic(models, [*quick_threats(), *transfer], claims=[CLAIM]).results()
    clean = Synthetic([SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b")],
                      [clean_threat()]).results()  # fmt: skip
    folder = tmp_path_factory.mktemp("site")
    write_site({"full": proven(full), "clean": clean}, folder)
    return folder


def violations(show: Show, file: Path, fragment: str, scheme: str, width: int) -> list[str]:
    page = show(file, scheme, width).open(fragment)
    page.add_style_tag(content=BARE)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    found = axe.Axe().run(page).response["violations"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    return [
        f"{one['id']}: {one['help']}: {' '.join(map(str, node['target']))}: {node['html'][:200]}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.rows(7)
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize(
    "where",
    [
        "index.html",
        "clean/index.html",
        "full/index.html",
        "full/index.html#model=synthetic/mlp-bp",
        "full/index.html#model=synthetic/snn-nit",
        "full/index.html#compare=synthetic/mlp-bp,synthetic/mlp-glr",
    ],
)
def test_axe_finds_nothing(show: Show, site: Path, where: str, scheme: str, width: int) -> None:
    name, _, fragment = where.partition("#")
    assert violations(show, site / name, fragment and f"#{fragment}", scheme, width) == []


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_axe_finds_nothing_on_the_performance_page(show: Show, scheme: str, width: int) -> None:
    page = reference_root() / "reports" / "performance" / "index.html"
    assert violations(show, page, "", scheme, width) == []


def test_axe_would_find_pale_text(show: Show, site: Path, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    pale = (site / "clean" / "index.html").read_text().replace("--soft: #66625b", "--soft: #ccc")
    (tmp_path / "index.html").write_text(pale)
    found = violations(show, tmp_path / "index.html", "", "light", 1280)
    assert found
    assert all(one.startswith("color-contrast") for one in found)
