"""The pages of a site in the order of its index: which stand before and after one of them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robench.store.files import read_regular

PAGE = "index.html"
"""A page's file, and a site's index."""
MARK = "robench-pages"
"""Name of the <meta> element by which an index says which pages it has."""


@dataclass(frozen=True)
class Neighbour:
    """Another page of the site. name: its folder."""

    name: str
    title: str


@dataclass(frozen=True)
class Around:
    """What stands before and after a page; None: it is the first, or the last."""

    before: Neighbour | None
    after: Neighbour | None


def neighbours(pages: Sequence[Neighbour], name: str) -> Around | None:
    """Of the page of that name; None where it is not among them."""
    places = [place for place, page in enumerate(pages) if page.name == name]
    if not places:
        return None
    at = places[0]
    return Around(pages[at - 1] if at else None, pages[at + 1] if at + 1 < len(pages) else None)


def around(folder: Path) -> Around | None:
    """What the index beside the folder says of its neighbours; None where there is none, or where
    it does not know the folder."""
    try:
        head = read_regular(folder.parent / PAGE)[:200_000].decode("utf-8", "replace")
        listed = re.search(rf'<meta name="{MARK}" content="([^"]*)">', head)
        said = json.loads(html.unescape(listed[1])) if listed else []
        pages = [Neighbour(str(page), str(title)) for page, title in said]
    except (OSError, ValueError, TypeError):
        return None
    return neighbours(pages, folder.name)
