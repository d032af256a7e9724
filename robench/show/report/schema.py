"""JSON Schema of leaderboard.json, for programs that read it."""

from __future__ import annotations

from typing import Any

from robench.show.leaderboard import FIXED, SUFFIXES, SUMMARY, VOTES


def leaderboard_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report's leaderboard.json."""
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
        "$schema": "https://json-schema.org/draft/2020-12/schema",
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
