"""What a manifest must look like for a page to be made of it: asked of what strangers publish.

manifest.py writes them. Keys beyond these may be there; a page shows them or leaves them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError

from robench.cards import explain
from robench.errors import RobenchError

Number = Annotated[float, Field(ge=-(10**300), le=10**300)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Named(_Shape):
    name: str


class _Card(_Shape):
    dataset: _Named
    network: _Named
    trainer: _Named
    published: dict[str, Number] = {}


class _Fields(_Shape):
    dataset: dict[str, Any]
    network: dict[str, Any]
    trainer: dict[str, Any]


class _Seed(_Shape):
    seed: Count
    status: str
    error: str | None = None
    weights: str | None = None
    digest: str | None = None
    parameters: Count | None = None
    history: list[dict[str, float | None]] | None = None
    seconds: Number | None = None
    environment: str | None = None


class _Sample(_Shape):
    images: Count
    of: Count
    order: str | None = None
    seed: Count | None = None


class _Model(_Named):
    card: _Card
    fields: _Fields
    stochastic: bool = False
    jumps: bool = False
    notes: list[str] = []
    sample: _Sample | str | None = None
    """A word in manifests of before samples were of all data sets."""
    seeds: list[_Seed] = Field(min_length=1)


class _Clean(_Named):
    kind: Literal["clean"]


class _Attack(_Named):
    kind: Literal["attack"]
    card: str
    eps: Annotated[float, Field(ge=0)]
    access: str
    norm: str
    role: str
    surrogate: str | None = None
    meets: str = "all"
    goal: str = "untargeted"
    aim: int | str | None = None
    description: str = ""
    fields: dict[str, Any]


class _Corruption(_Named):
    kind: Literal["corruption"]
    card: str
    corruption: str
    severity: Annotated[int, Field(ge=1, le=5)]


class _Seconds(_Shape):
    median: Number
    max: Number


class _Proof(_Shape):
    images: Count
    open: dict[str, str]
    seconds: _Seconds


class _Cell(_Shape):
    model: str
    seed: Count
    threat: str
    digest: str | None
    status: str
    error: str | None = None
    outcome: str | None = None
    identity: str | None = None
    inputs: str | None = None
    images: str | None = None
    seconds: Number | None = None
    environment: str | None = None
    inference_ms: Number | None = None
    activity: dict[str, Number] | None = None
    input_shape: list[Count] | None = None
    loss_trace: list[float | None] | None = None
    loss_runs: list[Count] | None = None
    proof: _Proof | None = None
    rows: str | None = None
    means: dict[str, Number] = {}


class _Claim(_Shape):
    text: str
    model: str
    than: str
    threat: str
    published: Annotated[tuple[Number, Number], Field(strict=False)] | None = None
    control: str | None = None
    strong: str


class _Report(_Named):
    title: str
    description: str = ""
    paper: str = ""
    images: Count
    draws: Count
    vote: Count | None = None
    top_k: Annotated[int, Field(ge=1)] = 1
    labels: str = "true"
    baselines: list[str] = []
    claims: list[_Claim] = []


class _Manifest(_Shape):
    robench: str
    command: str
    threat_set: str
    report: _Report
    models: list[_Model]
    threats: list[Annotated[_Clean | _Attack | _Corruption, Discriminator("kind")]]
    cells: list[_Cell]
    environments: dict[str, dict[str, Any]]
    identity_schema: Count | None = None
    identities: dict[str, dict[str, Any]] | None = None
    inputs: dict[str, dict[str, Any]] | None = None
    unsealed: bool = False


def check_shape(manifest: dict[str, Any], where: str) -> None:
    """Raises RobenchError, naming `where`, key and value, for what no page can be made of."""
    try:
        found = _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise RobenchError(f"{where}: {explain(error, set())}") from None
    _check_unique("models", [model.name for model in found.models], where)
    _check_unique("threats", [threat.name for threat in found.threats], where)
    threats, identities = {threat.name for threat in found.threats}, found.identities or {}
    models = {(model.name, seed.seed) for model in found.models for seed in model.seeds}
    for cell in found.cells:
        if (cell.model, cell.seed) not in models or cell.threat not in threats:
            what = f"{cell.model!r} seed {cell.seed} x {cell.threat!r}"
            raise RobenchError(f"{where}: cells: {what}: no such model or threat")
        if cell.identity is not None and cell.identity not in identities:
            raise RobenchError(f"{where}: cells: identity = {cell.identity!r}: not in identities")
        if cell.inputs is not None and cell.inputs not in (found.inputs or {}):
            raise RobenchError(f"{where}: cells: inputs = {cell.inputs!r}: not in inputs")
    if (found.identities is None) != (found.identity_schema is None) or (
        (found.identities is None) != (found.inputs is None)
    ):
        raise RobenchError(f"{where}: identities, identity_schema and inputs go together")
    for model in found.models:
        _check_unique(f"seeds of {model.name!r}", [seed.seed for seed in model.seeds], where)


def _check_unique(what: str, names: Sequence[object], where: str) -> None:
    if len(set(names)) < len(names):
        raise RobenchError(f"{where}: {what}: one of them is listed twice")
