"""No name can break the page, the index of a site or a table: whatever it holds, it is text."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from pages import Outline, embedded_data
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, corruption_threat

from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.payload import embedded
from robench.show.report.site import write_site
from robench.show.results import Results

HOSTILE = "<script>window.pwned=1</script>\"'&amp;{{7*7}}</script><!--$x_1$\\" + "å" * 10_000


@pytest.fixture(scope="module")
def hostile() -> Results:
    model = SyntheticModel(
        f"synthetic/{HOSTILE}",
        trainer=HOSTILE,
        network=HOSTILE,
        dataset={"name": HOSTILE},
        description=HOSTILE,
        published={HOSTILE: 0.5},
    )
    threats = [
        clean_threat(),
        attack_threat(HOSTILE, 0.1, 0.3, description=HOSTILE, surrogate=HOSTILE),
        attack_threat(f"{HOSTILE}@2", 0.2, 0.3, card=HOSTILE),
        attack_threat(f"{HOSTILE}@3", 0.1, 0.3, card=HOSTILE),
        corruption_threat(HOSTILE, 1, 0.1),
    ]
    failing = SyntheticModel(f"{HOSTILE}2", failed=((0, HOSTILE),))
    twin = SyntheticModel(f"{HOSTILE}3", trainer=f"{HOSTILE}3")
    made = Synthetic([model, failing, twin], threats, title=HOSTILE, description=HOSTILE)
    for cell in made.manifest["cells"]:
        if cell["status"] == "failed":
            cell["error"] = HOSTILE
    return made.results()


@pytest.fixture(scope="module")
def hostile_folder(hostile: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(hostile, tmp_path_factory.mktemp("hostile")).parent


def test_hostile_names_add_no_element_and_no_handler(hostile_folder: Path) -> None:
    text = (hostile_folder / "index.html").read_text()
    outline = Outline(text)
    assert outline.tags.count("script") == 2
    assert outline.handlers == []
    assert "49" not in "".join(re.findall(r"<h1>.*?</h1>", text))
    assert embedded_data(text)["models"][0]["name"].endswith("å" * 100)
    assert len(text.encode()) < 5_000_000


@pytest.mark.usefixtures("undrawn")
def test_hostile_names_do_nothing_to_the_index_of_a_site(hostile: Results, tmp_path: Path) -> None:
    index = write_site({"<b>'\"": hostile, "plain": hostile}, tmp_path)
    text = index.read_text()
    outline = Outline(text)
    assert {"img", "b"}.isdisjoint(outline.tags)
    assert outline.tags.count("script") == 1  # our own, which the page's policy knows by its hash
    assert outline.handlers == []
    assert len(text) < 100_000, "names of any length are cut"
    pages = [link for link in outline.links if not link.startswith(("#", "data:"))]
    for link in pages:
        assert (tmp_path / unquote(link.split("#")[0])).is_file()
    assert len({link.split("#")[0] for link in pages}) == 2


def test_hostile_names_leave_csv_json_and_latex_readable(
    hostile: Results, hostile_folder: Path
) -> None:
    expected = list(leaderboard(hostile)["model"])
    assert list(pd.read_csv(hostile_folder / "leaderboard.csv")["model"]) == expected
    document = json.loads((hostile_folder / "leaderboard.json").read_text())
    assert [row["model"] for row in document["rows"]] == expected
    latex = (hostile_folder / "leaderboard.tex").read_text()
    assert r"\$x\_1\$\textbackslash{}" in latex
    assert r"\{\{7*7\}\}" in latex


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_a_name_that_a_spreadsheet_would_compute_is_text(sign: str, tmp_path: Path) -> None:
    name = f'{sign}HYPERLINK("http://x")'
    threats = [clean_threat(), attack_threat(name, 0.1, 0.3)]
    model = SyntheticModel(name, trainer=name, dataset={"name": name})
    results = Synthetic([model], threats, images=20).results()
    write_report(results, tmp_path)
    csv = pd.read_csv(tmp_path / "leaderboard.csv")
    assert csv.loc[0, ["model", "trainer", "dataset"]].tolist() == [f"'{name}"] * 3
    assert not [head for head in csv.columns if head.startswith(sign)]
    (row,) = json.loads((tmp_path / "leaderboard.json").read_text())["rows"]
    assert row["model"] == name


def test_embedded_data_cannot_end_its_script_element() -> None:
    said = {"name": "</script><script>alert(1)</script><!-- \u2028"}
    text = embedded(said)
    assert re.fullmatch("[A-Za-z0-9+/=]+", text)
    assert json.loads(zlib.decompress(base64.b64decode(text))) == said


@pytest.mark.usefixtures("undrawn")
def test_a_plugin_of_a_workspace_is_called_by_its_class(tmp_path: Path) -> None:
    model = SyntheticModel("models/a", network="./plane.py:Plane", dataset={"name": "./d.py:Data"})
    text = write_report(Synthetic([model], [clean_threat()]).results(), tmp_path).read_text()
    row = text[text.index("<tr data-i=") :]
    row = row[: row.index("</tr>")]
    assert "Plane" in row
    assert "./plane.py" not in row
    assert embedded_data(text)["models"][0]["network"] == "./plane.py:Plane"
