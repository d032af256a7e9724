"""The index of a site: what each page found, by subject; which pages stand beside one another."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pages import Outline, embedded_data, no_plots
from proofs_by_hand import proven
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, quick_models

from robench.errors import RobenchError
from robench.show.report.citation import bibtex, measured_on
from robench.show.report.folder import write_report
from robench.show.report.site import write_site
from robench.show.report.text import linked, of_items
from robench.show.results import Results

CLAIM = {
    "text": "GLR withstands more",
    "model": "synthetic/mlp-glr",
    "than": "synthetic/mlp-bp",
    "threat": "fgsm",
    "published": [0.8, 0.4],
    "strong": "worst case",
    "control": None,
}


@pytest.fixture(scope="module")
def results() -> Results:
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
    made = Synthetic(quick_models()[:2], threats, images=40, claims=[CLAIM]).results()
    return replace(made, manifest={**made.manifest, "finished": "2026-03-04T05:06:07+00:00"})


@pytest.fixture(scope="module")
def site(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    beside = tmp_path_factory.mktemp("beside")
    (beside / "speed").mkdir()
    about = {"title": "How fast", "subject": "Performance", "headline": ["Twice as fast."]}
    (beside / "speed" / "about.json").write_text(json.dumps(about))
    (beside / "speed" / "index.html").write_text("<p>fast</p>")
    folder = tmp_path_factory.mktemp("site")
    reports = {"b": results, "a": results, "c": proven(results, (0.1,), open_within=0)}
    subjects = {"a": "Zebras", "b": "Digits", "c": ""}
    with no_plots():
        write_site(reports, folder, subjects=subjects, beside=beside)
    return folder


def test_pages_stand_by_subject_with_what_they_found(site: Path) -> None:
    text = (site / "index.html").read_text()
    subjects = re.findall(r'<h2 id="s\d+">([^<]*)</h2>', text)
    assert subjects == ["Digits", "Performance", "synthetic-digits", "Zebras"]
    found = json.loads((site / "a" / "leaderboard.json").read_text())
    assert found["headline"]
    for sentence in found["headline"]:
        assert text.count(sentence) >= 2  # of a and of b
    assert "Twice as fast." in text
    assert text.count("GLR withstands more") == 3
    assert text.count('<time datetime="2026-03-04">') == 3
    assert re.search(r'<span class="badge good">\d settled</span>', text)


def test_verdicts_and_claims_on_the_index_are_those_of_the_report(site: Path) -> None:
    text = (site / "index.html").read_text()
    found = json.loads((site / "b" / "leaderboard.json").read_text())
    one = text[text.index('href="b/index.html"') : text.index("</article>")]
    for verdict in {row["verdict"] for row in found["rows"]}:
        models = sum(row["verdict"] == verdict for row in found["rows"])
        assert f"{models} {verdict}</span>" in one
    assert [claim["text"] for claim in found["claims"]] == ["GLR withstands more"]
    assert f">{found['claims'][0]['verdict']}</span>" in one


def test_each_page_links_to_the_index_and_to_its_neighbours(site: Path) -> None:
    def linked_from(name: str) -> dict[str, str]:
        text = (site / name / "index.html").read_text()
        assert "../index.html" in Outline(text).links
        return dict(re.findall(r'<a rel="(prev|next)" href="\.\./([^"/]*)/index\.html">', text))

    assert linked_from("b") == {"next": "speed"}
    assert linked_from("c") == {"prev": "speed", "next": "a"}
    assert linked_from("a") == {"prev": "c"}
    assert (site / "speed" / "index.html").read_text() == "<p>fast</p>"


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_is_made_anew_in_a_site_is_the_one_that_the_site_has(
    site: Path, results: Results, tmp_path: Path
) -> None:
    before = (site / "b" / "index.html").read_bytes()
    (site / "b" / "index.html").unlink()
    assert write_report(results, site / "b").read_bytes() == before
    alone = write_report(results, tmp_path / "alone").read_text()
    assert "../index.html" not in Outline(alone).links


def test_a_page_that_does_not_say_what_it_is_is_an_error(results: Results, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "about.json").write_text('{"title": "only"}')
    with pytest.raises(RobenchError, match=r"about\.json: says no title, subject and headline"):
        write_site({"a": results}, tmp_path / "site", beside=tmp_path)


def test_the_date_is_that_of_the_last_piece_and_stands_in_the_citation(
    site: Path, results: Results
) -> None:
    assert measured_on(results.manifest) == "2026-03-04"
    assert measured_on({}) == ""
    assert measured_on({"finished": "<b>2026"}) == ""
    entry = bibtex(results.manifest)
    assert "  year = {2026},\n  month = mar," in entry
    text = (site / "a" / "index.html").read_text()
    assert '<time datetime="2026-03-04">' in text
    assert 'id="bibtex"' in text
    assert json.loads((site / "a" / "leaderboard.json").read_text())["finished"] == "2026-03-04"


def test_whatever_a_title_holds_its_citation_is_an_entry_of_bibtex(results: Results) -> None:
    report = {**results.manifest["report"], "name": "a b}", "title": "50% {of\n\\x $ & _"}
    entry = bibtex({**results.manifest, "report": report})
    assert entry.startswith("@misc{robench-a-b-,")
    title = re.search(r"title = \{\{(.*)\}\},", entry)
    assert title
    assert re.sub(r"\\([&%$#_{}]|text\w+\{\})", "", title[1]) == "50 of x   "


def test_the_number_of_a_paper_is_a_link_to_it() -> None:
    assert 'href="https://arxiv.org/abs/2302.10802"' in linked("NIT (arXiv 2302.10802)")
    assert 'href="https://openreview.net/forum?id=r1lgvNr324"' in linked("x OpenReview r1lgvNr324")
    assert linked("<b>") == "&lt;b&gt;"
    assert str(linked('<i>" 10.1000/x1')).startswith("&lt;i&gt;&#34; <a href=")


def test_nodes_of_a_graph_are_called_nodes(tmp_path: Path) -> None:
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/image-b", clean=0.8)]
    names = ("edges", "words")
    threats = [
        clean_threat(),
        *(attack_threat(name, 2, 0.3, fields={"part": name}) for name in names),
    ]
    made = Synthetic(models, threats, images=40).results()
    assert made.items == "nodes"
    text = write_report(made, tmp_path).read_text()
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    assert re.findall(r"(?<![\w-])images?(?![\w-])", shown) == []
    assert "Test nodes" in shown
    assert "image-<wbr>b" in text, "names stay as they are"
    assert embedded_data(text)["items"] == "nodes"
    assert of_items("Each image of 5 images; nattack-image", "nodes") == (
        "Each node of 5 nodes; nattack-image"
    )


def test_a_sample_of_nodes_says_so(results: Results) -> None:
    models = [{**model, "sample": {"images": 4, "of": 5, "items": "nodes"}}
              for model in results.models]  # fmt: skip
    assert replace(results, manifest={**results.manifest, "models": models}).items == "nodes"
    assert results.items == "images"


def test_no_place_on_a_machine_is_published(results: Results, tmp_path: Path) -> None:
    command = "robench run x --workspace /home/me/w --store=/tmp/s --jobs 1"
    made = replace(results, manifest={**results.manifest, "command": command})
    folder = write_report(made, tmp_path / "x").parent
    for file in folder.iterdir():
        assert b"/home/me" not in file.read_bytes(), file.name
    assert json.loads((folder / "manifest.json").read_text())["command"] == "robench run x --jobs 1"
