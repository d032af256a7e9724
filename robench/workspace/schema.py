"""JSON Schemas of cards, so that editors complete and check them."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from robench.workspace import plugins
from robench.workspace.cards import Card
from robench.workspace.folders import CARD_TYPES, Folder
from robench.workspace.plugins import Kind

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OF_SPECS = {key: kind for kind, key in plugins.SPECS.items()}


def schema(folder: Folder) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the cards of a folder.

    Of a plugin it knows the name; its settings are checked by `robench check`.
    """
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
