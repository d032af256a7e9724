"""The manifest of a run: all that a page needs beside the cells' rows, as plain JSON.

Keys: `report` (its card), `threat_set` (digest: rows are comparable only where it is equal),
`models` (card, every field, and per seed digest, weights, training curves, cost), `threats`,
`cells` (digest, status, cost, digest of the rows), `environments` (hardware and versions, by short
key), `command`, `finished` (when the last piece of it was made). Beside them what shows that a
digest is the right one (belongs.py): a cell's `identity` names the entry in `identities` that holds
what its identity says beside model and threat, and its `inputs` the shared inputs that it was
given, whose own identity is in `inputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from robench.data.loading import load_splits
from robench.data.sample import drawn
from robench.data.sample import said as sampled
from robench.digest import SCHEMA as IDENTITY_SCHEMA
from robench.digest import Written, digest
from robench.make import identity
from robench.make.run_state import Run
from robench.store.belongs import model_part, rest_of, threat_part
from robench.store.store import Damaged
from robench.workspace.cards import ModelCard, ReportCard
from robench.workspace.plan import Threat, Training

SCHEMA = 2
"""Of the manifest. Those of schema 1 had no seal."""


def describe(run: Run, command: str) -> dict[str, Any]:
    """The manifest of a run: all that a page needs beside the cells' rows (see store.write_run)."""
    environments: dict[str, Any] = {}
    finished = [""]

    def environment(provenance: dict[str, Any]) -> str:
        finished.append(str(provenance.get("finished", "")))
        key = digest(provenance["environment"])[:8]
        environments[key] = provenance["environment"]
        return key

    models = list[dict[str, Any]]()
    for card in run.plan.models:
        resolved = run.resolved.get(card.name) or identity.resolve_model(
            card, run.plan.sources.get(card.name)
        )
        seeds = [
            _describe_seed(run, Training(card, seed), resolved, environment) for seed in card.seeds
        ]
        models.append(
            {
                "name": card.name,
                "card": card.says(),
                "fields": resolved.fields,
                "stochastic": resolved.stochastic,
                "jumps": resolved.jumps,
                "seeds": seeds,
                **({"notes": list(resolved.notes)} if resolved.notes else {}),
                **_sample(card, run.plan.report),
            }
        )
    cells, identities, inputs = [], dict[str, Any](), dict[str, Any]()
    threats = {threat: _describe_threat(threat) for threat in run.plan.threats}
    parts: dict[Any, Written] = {threat: threat_part(row) for threat, row in threats.items()}
    for model, card in zip(models, run.plan.models, strict=True):
        for seed in model["seeds"]:
            parts[Training(card, seed["seed"])] = model_part(model, seed)
    kept = run.store.images()
    for cell in run.plan.cells:
        name = run.digests.get(cell)
        why = run.lost.get(cell) if name is None else run.failures.get(name)
        # A model that is gone since, and could not be made again, has no numbers.
        gone = [training for training in cell.trainings if training not in run.weights]
        done = name is not None and name in run.outcomes and not gone
        why = why or next((run.lost[training] for training in gone if training in run.lost), None)
        row: dict[str, Any] = {
            "model": cell.training.card.name,
            "seed": cell.training.seed,
            "threat": cell.threat.name,
            "digest": name,
            "status": "done" if done else "failed" if why else "missing",
            "error": why,
        }
        if name is not None and done:
            noted = run.outcomes.provenance[name]
            row["outcome"] = run.outcomes.digests[name]
            row["seconds"] = noted["seconds"]
            row["environment"] = environment(noted)
            if name in kept and (images := _images(run, name)):
                row["images"] = images
            identified, shared = run.identity_of(cell)
            if shared is not None:
                row["inputs"] = shared.digest
                inputs[shared.digest] = shared.identity
            threat = shared.named if shared is not None else parts[cell.threat]
            rest = rest_of(identified, parts[cell.training], threat)
            if rest is not None:
                row["identity"] = digest(rest)[:8]
                identities[row["identity"]] = rest
        cells.append(row)
    report = run.plan.report
    return {
        "schema": SCHEMA,
        "robench": version("robench"),
        "command": command,
        **({"finished": max(finished)} if any(finished) else {}),
        "report": {"name": report.name, **report.model_dump(mode="json")},
        "threat_set": identity.threat_set(run.plan.threats, report),
        "models": models,
        "threats": list(threats.values()),
        "cells": cells,
        "identity_schema": IDENTITY_SCHEMA,
        "identities": identities,
        "inputs": inputs,
        "environments": environments,
    }


def _images(run: Run, cell: str) -> str | None:
    """Digest of the adversarial images of a finished cell; None where the store does not hold
    those of its outcome."""
    said = run.outcomes.provenance[cell].get("images")
    if said is not None:
        return str(said)
    with suppress(Damaged, FileNotFoundError):  # kept later than the outcome was written
        about = run.store.read_images(cell)[1]
        if about["outcome"] == run.outcomes.digests[cell]:
            return str(about["tensors"])
    return None


def _sample(card: ModelCard, report: ReportCard) -> dict[str, Any]:
    """What is to be said of the test images that a model meets: how many of how many they are, and
    how they were drawn."""
    splits, images = load_splits(card), report.images
    sample = {"images": images, "of": len(splits.test), **sampled(splits, images)}
    if splits.graph is not None:
        sample["items"] = "nodes"
    if report.labels == "predicted":  # of what classes images are is not asked
        return {"sample": sample}
    seen = set(drawn(splits, images).labels.tolist())
    absent = [name for label, name in enumerate(splits.classes) if label not in seen]
    return {"sample": sample, **({"absent": absent} if absent and sampled(splits, images) else {})}


def _describe_seed(
    run: Run,
    training: Training,
    resolved: identity.ResolvedModel,
    environment: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    name = resolved.digest(training.seed)
    why = run.lost.get(training) or run.failures.get(name)
    row: dict[str, Any] = {
        "seed": training.seed,
        "digest": name,
        "parameters": resolved.parameters,
        "weights": None,
        "status": "failed" if why else "missing",
        "error": why,
    }
    if why is None and run.store.has("models", name):
        _, metadata = run.store.read_model(name)
        row |= {
            "status": "done",
            "weights": metadata["tensors"],
            "history": metadata["history"],
            "seconds": metadata["provenance"]["seconds"],
            "environment": environment(metadata["provenance"]),
        }
    return row


def _describe_threat(threat: Threat) -> dict[str, Any]:
    row: dict[str, Any] = {"name": threat.name, "kind": threat.kind}
    if threat.card is None:
        return row
    row |= {
        "card": threat.card.name,
        "description": threat.card.description,
        "paper": threat.card.paper,
        "fields": identity.threat_fields(threat),
    }
    if threat.kind == "corruption":
        return row | {"corruption": threat.corruption, "severity": threat.severity}
    card = threat.attack
    return row | {
        "eps": threat.eps,
        "access": card.access,
        "norm": card.norm,
        "role": card.role,
        "surrogate": card.surrogate,
        **({"meets": card.meets} if card.meets != "all" else {}),
        **({"goal": card.goal, "aim": card.aim} if card.goal == "targeted" else {}),
    }
