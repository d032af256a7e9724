"""JSON Schemas of cards, so that editors complete and check them."""

from __future__ import annotations

from typing import Any

from robench.workspace import plugins
from robench.workspace.folders import CARD_TYPES, Folder
from robench.workspace.plugins import Kind

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(folder: Folder) -> dict[str, Any]:
    """The JSON Schema (2020-12) of the cards of a folder.

    Of a plugin it knows the name; its settings are checked by `robench check`.
    """
    card = CARD_TYPES[folder]
    made = card.model_json_schema()
    properties = made["properties"]
    for key in ("name", "root"):  # they come from where the file lies
        properties.pop(key, None)
        made["required"] = [name for name in made.get("required", []) if name != key]
    for key, about in properties.items():
        about.pop("title", None)
        if "description" in about:
            about["description"] = " ".join(about["description"].split())
        if key in plugins.KIND_OF:
            properties[key] = _spec(plugins.KIND_OF[key], about.get("description", ""))
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
