"""What CONTRIBUTING promises: every promise names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def promises() -> list[tuple[str, str]]:
    """Every row of the tables: what is promised, and what holds it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("\n## What robench promises\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return [row for row in rows if row[0] not in ("promise", "---")]


def test_the_page_has_its_parts() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("\n## What robench promises\n")[1].split("\n## ")[0]
    parts = re.findall(r"^### (\w[\w ]*)", section, re.MULTILINE)
    assert parts == [
        *("Durability", "Isolation", "Identity", "Reproducibility", "What is not promised")
    ]
    for part in section.split("\n### ")[1:-1]:
        assert part.count("\n| ") >= 3, part.partition("\n")[0]


def test_every_promise_is_held_by_a_test_that_is_there() -> None:
    found = promises()
    assert len(found) >= 15
    code = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for promise, holds in found:
        named = re.findall(r"`([^`]+)`", holds)
        assert named, promise
        for name in named:
            file, _, function = name.removeprefix("tests/").partition("::")
            there = file in code if file.endswith(".py") else False
            if "=" in name:  # how it is run, and not what
                continue
            wanted = function or ("" if there else name)
            places = [code[file]] if there else list(code.values())
            assert any(f"def {wanted}(" in text for text in places) or (there and not wanted), name
