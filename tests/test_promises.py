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


def unheld(rows: list[tuple[str, str]], code: dict[str, str]) -> list[str]:
    """What rows name and no file of tests has."""
    there = {
        name for text in code.values() for name in re.findall(r"^ *def (test_\w+)\(", text, re.M)
    }
    missing = []
    for promise, holds in rows:
        named = [name for name in re.findall(r"`([^`]+)`", holds) if "=" not in name]  # how it runs
        missing += [name for name in named if name.removeprefix("tests/") not in there | {*code}]
        missing += [] if named else [promise]
    return missing


def files_of_tests() -> dict[str, str]:
    return {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_promise_is_held_by_a_test_that_is_there() -> None:
    found = promises()
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("\n## What robench promises\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) - section.count("| --- |") - section.count("| promise |") == len(found) >= 30
    assert unheld(found, files_of_tests()) == []


def test_a_test_that_is_renamed_is_noticed() -> None:
    code = files_of_tests()
    name = re.findall(r"`(test_\w+)`", promises()[0][1])[0]
    file = next(file for file, text in code.items() if f"def {name}(" in text)
    code[file] = code[file].replace(f"def {name}(", f"def {name}_now(")
    assert unheld(promises(), code) == [name]
    assert unheld([("nothing breaks", "")], code) == ["nothing breaks"]
