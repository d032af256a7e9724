"""JSON Schemas of cards and of leaderboard.json, so that editors complete and check them."""

from __future__ import annotations

import ast
import inspect
from typing import Any, Literal

from robench import plugins
from robench.cards import Card
from robench.leaderboard import FIXED, SUFFIXES, SUMMARY, VOTES
from robench.plugins import Kind
from robench.workspace import CARD_TYPES, Folder

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OF_SPECS = {key: kind for kind, key in plugins.SPECS.items()}
What = Literal["models", "attacks", "corruptions", "reports", "leaderboard"]


def schema(what: What) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the cards of a folder, or of a report's leaderboard.json.

    Of a plugin it knows the name; its settings are checked by `robench check`.
    """
    return _leaderboard() if what == "leaderboard" else _card(what)


def _card(folder: Folder) -> dict[str, Any]:
    card = CARD_TYPES[folder]
    made = card.model_json_schema()
    properties, said = made["properties"], _docstrings(card)
    for key in ("name", "root"):  # they come from where the file lies
        properties.pop(key, None)
        made["required"] = [name for name in made.get("required", []) if name != key]
    for key, about in properties.items():
        about.pop("title", None)
        if key in said:
            about["description"] = said[key]
        if key in OF_SPECS:
            properties[key] = _spec(OF_SPECS[key], about.get("description", ""))
    made.get("$defs", {}).pop("Spec", None)
    return {"$schema": DRAFT, **made, "title": f"robench: a card in {folder}/"}


def _spec(kind: Kind, description: str) -> dict[str, Any]:
    """A plugin by its name, or a table with its name and settings."""
    name = {
        "type": "string",
        "minLength": 1,
        "examples": [*plugins.names(kind), "./my_file.py:MyClass"],
    }
    table = {"type": "object", "properties": {"name": name}, "required": ["name"]}
    return {"description": description or f"One of {kind}, by name.", "anyOf": [name, table]}


def _docstrings(card: type[Card]) -> dict[str, str]:
    """What stands below each field, by its name."""
    found: dict[str, str] = {}
    for base in reversed([base for base in card.__mro__ if issubclass(base, Card)]):
        body = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            text = below.value if isinstance(below, ast.Expr) else None
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value).split())
    return found


def _leaderboard() -> dict[str, Any]:
    accuracy = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    texts = ("model", "trainer", "network", "dataset")
    row: dict[str, Any] = {name: {"type": "string"} for name in texts}
    row |= {name: {"type": "integer"} for name in ("seeds", "images")}
    row["complete"] = {"type": "boolean"}
    row |= {name: {"type": ["integer", "null"]} for name in FIXED if name.startswith("rank")}
    for column in ("proved", "clean", *SUMMARY, *VOTES):
        row |= {column + suffix: accuracy for suffix in SUFFIXES}
    row["open"] = accuracy
    return {
        "$schema": DRAFT,
        "title": "robench: leaderboard.json of a report",
        "description": "Accuracies in [0, 1]; each has _low and _high (95% interval) and _sd "
        "(between seeds). Every threat is a column by its name. proved and open are there where a "
        "report has proofs, worst_case_vote and clean_vote where it has noisy models.",
        "type": "object",
        "required": ["schema", "report", "title", "threat_set", "rows"],
        "properties": {
            "schema": {"type": "integer"},
            "report": {"type": "string"},
            "title": {"type": "string"},
            "threat_set": {"type": "string"},
            "headline": {"type": "array", "items": {"type": "string"}},
            "finished": {
                "type": ["string", "null"],
                "description": "The day on which the last piece of the report was made.",
            },
            "claims": {
                "type": "array",
                "description": "Published claims; strong_verdict is empty where there is none.",
                "items": {
                    "type": "object",
                    "required": ["text", "verdict", "strong_verdict"],
                    "properties": {
                        name: {"type": "string"} for name in ("text", "verdict", "strong_verdict")
                    },
                },
            },
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": list(texts),
                    "properties": row,
                },
            },
        },
    }
