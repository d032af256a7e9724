"""What a manifest is: its parts, as readers have them and as they are asked for of strangers.

describe.py makes them. Keys beyond these may be there; a page shows them or leaves them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from robench.errors import RobenchError, explain
from robench.store.store import Kind

Number = Annotated[float, Field(ge=-(10**300), le=10**300)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


@with_config(ConfigDict(strict=True, extra="allow"))
class _Part(TypedDict):
    """What all parts have in common: values are of the very types that are said here."""


class Named(_Part):
    """What goes by a name."""

    name: str


class Card(_Part):
    """A model card."""

    dataset: Named
    network: Named
    trainer: Named
    published: NotRequired[dict[str, Number]]


class Fields(_Part):
    """Every field of a model's plugins."""

    dataset: dict[str, Any]
    network: dict[str, Any]
    trainer: dict[str, Any]


class Seed(_Part):
    """A training."""

    seed: Count
    status: str
    error: NotRequired[str | None]
    weights: NotRequired[str | None]
    digest: NotRequired[str | None]
    parameters: NotRequired[Count | None]
    history: NotRequired[list[dict[str, float | None]] | None]
    seconds: NotRequired[Number | None]
    environment: NotRequired[str | None]


class Sample(_Part):
    images: Count
    of: Count
    order: NotRequired[str | None]
    seed: NotRequired[Count | None]


class Model(Named):
    """A model of the report, with all its seeds."""

    card: Card
    fields: Fields
    stochastic: NotRequired[bool]
    jumps: NotRequired[bool]
    notes: NotRequired[list[str]]
    absent: NotRequired[list[Any] | None]
    """Classes that are not among the test images."""
    sample: NotRequired[Sample | str | None]
    """A word in manifests of before samples were of all data sets."""
    seeds: Annotated[list[Seed], Field(min_length=1)]


class Threat(_Part):
    """What is done to the input, with its strength; keys that its kind has are in REQUIRED."""

    name: str
    kind: Literal["clean", "attack", "corruption"]
    card: NotRequired[str]
    eps: NotRequired[Annotated[float, Field(ge=0)]]
    access: NotRequired[str]
    norm: NotRequired[str]
    role: NotRequired[str]
    surrogate: NotRequired[str | None]
    meets: NotRequired[str]
    goal: NotRequired[str]
    aim: NotRequired[int | str | None]
    description: NotRequired[str]
    fields: NotRequired[dict[str, Any]]
    corruption: NotRequired[str]
    severity: NotRequired[Annotated[int, Field(ge=1, le=5)]]


class Seconds(_Part):
    median: Number
    max: Number


class Proof(_Part):
    images: Count
    open: dict[str, str]
    seconds: Seconds


class Cell(_Part):
    model: str
    seed: Count
    threat: str
    digest: str | None
    status: str
    error: NotRequired[str | None]
    outcome: NotRequired[str | None]
    identity: NotRequired[str | None]
    inputs: NotRequired[str | None]
    images: NotRequired[str | None]
    seconds: NotRequired[Number | None]
    environment: NotRequired[str | None]
    inference_ms: NotRequired[Number | None]
    activity: NotRequired[dict[str, Number] | None]
    input_shape: NotRequired[list[Count] | None]
    loss_trace: NotRequired[list[float | None] | None]
    loss_runs: NotRequired[list[Count] | None]
    proof: NotRequired[Proof | None]
    rows: NotRequired[str | None]
    means: NotRequired[dict[str, Number]]


class Claim(_Part):
    text: str
    model: str
    than: str
    threat: str
    published: NotRequired[Annotated[tuple[Number, Number], Field(strict=False)] | None]
    control: NotRequired[str | None]
    strong: str


class Report(Named):
    title: str
    description: NotRequired[str]
    paper: NotRequired[str]
    images: Count
    draws: Count
    vote: NotRequired[Count | None]
    top_k: NotRequired[Annotated[int, Field(ge=1)]]
    labels: NotRequired[str]
    baselines: NotRequired[list[str]]
    claims: NotRequired[list[Claim]]


class Manifest(_Part):
    robench: str
    command: str
    threat_set: str
    report: Report
    models: list[Model]
    threats: list[Threat]
    cells: list[Cell]
    environments: dict[str, dict[str, Any]]
    identity_schema: NotRequired[Count | None]
    identities: NotRequired[dict[str, dict[str, Any]] | None]
    inputs: NotRequired[dict[str, dict[str, Any]] | None]
    unsealed: NotRequired[bool]


MANIFEST = TypeAdapter(Manifest)
REQUIRED = {
    "clean": (),
    "attack": ("card", "eps", "access", "norm", "role", "fields"),
    "corruption": ("card", "corruption", "severity"),
}
"""Of a threat of each kind: the keys that are there."""


def done(manifest: Mapping[str, Any]) -> dict[Kind, dict[str, str | None]]:
    """What a manifest says is done: digests, by kind -> digest of the weights, rows or images."""
    cells = [cell for cell in manifest["cells"] if cell["status"] == "done"]
    every = [seed for model in manifest["models"] for seed in model["seeds"]]
    seeds = [seed for seed in every if seed["status"] == "done"]
    return {
        "models": {seed["digest"]: seed.get("weights") for seed in seeds},
        "inputs": {cell["inputs"]: None for cell in cells if cell.get("inputs")},
        "cells": {cell["digest"]: cell.get("outcome") for cell in cells},
        "images": {cell["digest"]: cell["images"] for cell in cells if cell.get("images")},
    }


def history_of(seed: Seed) -> list[dict[str, float]]:
    """One row for each epoch; none where nothing was trained, or not yet."""
    return cast("list[dict[str, float]]", seed.get("history") or [])


def check_shape(manifest: dict[str, Any], where: str) -> None:
    """Raises RobenchError, naming `where`, key and value, for what no page can be made of."""
    try:
        checked = MANIFEST.validate_python(manifest)
    except ValidationError as error:
        raise RobenchError(f"{where}: {explain(error, set())}") from None
    for place, threat in enumerate(checked["threats"]):
        for key in REQUIRED[threat["kind"]]:
            if key not in threat:
                raise RobenchError(f"{where}: threats.{place}.{key}: this key is required")
    _check_unique("models", [model["name"] for model in checked["models"]], where)
    _check_unique("threats", [threat["name"] for threat in checked["threats"]], where)
    threats = {threat["name"] for threat in checked["threats"]}
    models = {
        (model["name"], seed["seed"]) for model in checked["models"] for seed in model["seeds"]
    }
    identities, inputs = checked.get("identities"), checked.get("inputs")
    for cell in checked["cells"]:
        if (cell["model"], cell["seed"]) not in models or cell["threat"] not in threats:
            what = f"{cell['model']!r} seed {cell['seed']} x {cell['threat']!r}"
            raise RobenchError(f"{where}: cells: {what}: no such model or threat")
        for key, known in (("identity", identities), ("inputs", inputs)):
            named, of = cell.get(key), "identities" if key == "identity" else key
            if named is not None and named not in (known or {}):
                raise RobenchError(f"{where}: cells: {key} = {named!r}: not in {of}")
    if len({checked.get(key) is None for key in ("identities", "identity_schema", "inputs")}) > 1:
        raise RobenchError(f"{where}: identities, identity_schema and inputs go together")
    for model in checked["models"]:
        _check_unique(f"seeds of {model['name']!r}", [one["seed"] for one in model["seeds"]], where)


def _check_unique(what: str, names: Sequence[object], where: str) -> None:
    if len(set(names)) < len(names):
        raise RobenchError(f"{where}: {what}: one of them is listed twice")
