"""JSON Schemas: every card that comes with robench is valid by them, and what is wrong is not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command_line import robench_here

from robench.show.report.schema import leaderboard_schema
from robench.workspace.folders import FOLDERS, reference_root
from robench.workspace.schema import schema

CARDS = [
    (folder, path)
    for folder in FOLDERS
    for path in sorted((reference_root() / folder).rglob("*.toml"))
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_card_that_comes_along_is_valid(folder: Any) -> None:
    described = schema(folder)
    jsonschema.Draft202012Validator.check_schema(described)
    for its_folder, path in CARDS:
        if its_folder == folder:
            jsonschema.validate(tomllib.loads(path.read_text()), described)


@pytest.mark.parametrize(
    ("folder", "card"),
    [
        ("models", {"network": "mlp", "trainer": "bp"}),
        ("models", {"datset": "digits", "network": "mlp", "trainer": "bp"}),
        ("attacks", {"attack": "pgd", "access": "psychic", "eps": 0.1}),
        ("attacks", {"attack": {"steps": 3}, "access": "white-box", "eps": 0.1}),
        ("reports", {"title": "x", "models": []}),
    ],
)
def test_what_a_card_may_not_say_is_not_valid(folder: Any, card: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(card, schema(folder))


def test_fields_are_described_in_the_words_of_the_card_types() -> None:
    properties = schema("attacks")["properties"]
    assert "Radius of the norm ball" in properties["eps"]["description"]
    assert "pgd" in properties["attack"]["anyOf"][0]["examples"]
    assert "root" not in properties


def test_the_command_line_prints_it(tmp_path: Path) -> None:
    done = robench_here("schema", "models", cwd=tmp_path)
    assert json.loads(done.stdout) == json.loads(json.dumps(schema("models")))
    done = robench_here("schema", "leaderboard", cwd=tmp_path)
    assert json.loads(done.stdout) == json.loads(json.dumps(leaderboard_schema()))


def test_a_published_leaderboard_is_valid() -> None:
    described = leaderboard_schema()
    pages = sorted((reference_root() / "reports").glob("*/leaderboard.json"))
    for page in pages or pytest.skip("no report is published here"):
        jsonschema.validate(json.loads(page.read_text()), described)
