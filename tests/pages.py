"""Pages that tests share, and what a browser would make of one."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    quick_models,
    quick_threats,
)

from robench.show.report.folder import write_report
from robench.show.results import Results

FILES = [
    "accuracies.csv",
    "cells.parquet",
    "index.html",
    "leaderboard.csv",
    "leaderboard.json",
    "leaderboard.tex",
    "manifest.json",
]


CLAIM = {
    "text": "NIT withstands FGSM better than STBP",
    "model": "synthetic/snn-nit",
    "than": "synthetic/snn-stbp",
    "threat": "fgsm",
    "published": [0.814, 0.426],
    "strong": "worst case",
    "control": None,
}


@contextmanager
def no_plots() -> Iterator[None]:
    """Pages that are made in the block have no plots: drawing them is most of what a page costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robench.show.report.page.plots", lambda *asked: [])
        yield


@pytest.fixture(scope="module")
def quick() -> Results:
    return _quick()


@cache  # the modules of a process share it, and the folder
def _quick() -> Results:
    return Synthetic(quick_models(), quick_threats(), claims=[CLAIM]).results()


@pytest.fixture(scope="module")
def small() -> Results:
    """One model, two threats: quickly drawn."""
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
    return Synthetic([SyntheticModel("synthetic/a")], threats, images=20).results()


@pytest.fixture(scope="module")
def folder(quick: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not _FOLDER:
        _FOLDER.append(write_report(quick, tmp_path_factory.mktemp("report")).parent)
    return _FOLDER[0]


_FOLDER: list[Path] = []


class Outline(HTMLParser):
    """What a browser would make of a page: its elements, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "data", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def embedded_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/zlib;base64" id="data">(.*?)</script>', page)
    assert found
    return dict(json.loads(zlib.decompress(base64.b64decode(found[1], validate=True))))
