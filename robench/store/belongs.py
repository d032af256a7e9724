"""What belongs to which cell: the identity behind a digest, put together from what a manifest says.

A manifest names models, threats and cells; a cell is named by the digest of its identity. Putting
the identity together again and taking its digest shows that the rows under that digest are those of
this model under this threat, on these images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robench.digest import Identity, Written, canonical, digest


def rest_of(identity: Identity, model: Written, threat: Written) -> Identity | None:
    """What an identity holds beside the two parts of `model_part` and `threat_part`; None where its
    own are others."""
    if any(
        canonical(identity[name]) != canonical(part)
        for name, part in (("model", model), ("threat", threat))
    ):
        return None
    return {key: value for key, value in identity.items() if key not in ("model", "threat")}


def model_part(model: Mapping[str, Any], seed: Mapping[str, Any]) -> Written:
    """How a trained model stands in the identities of its cells."""
    return Written(
        weights=seed.get("weights"),
        network=model["fields"]["network"],
        inference_noise=model["card"].get("inference_noise", False),
    )


def threat_part(threat: Mapping[str, Any], inputs: str | None = None) -> Written:
    """How a threat stands in the identities of its cells, or the inputs that they share."""
    if inputs is not None:
        return Written(inputs=inputs)
    return Written({"kind": "clean"} if threat["kind"] == "clean" else threat.get("fields", {}))


def misplaced(
    identity: Identity,
    model: Mapping[str, Any],
    seed: Mapping[str, Any],
    threat: Mapping[str, Any],
    report: Mapping[str, Any],
    inputs: str | None,
) -> str | None:
    """What in the identity of an outcome is not what a manifest says of its cell; None: nothing."""
    said = {
        "model": model_part(model, seed),
        "threat": threat_part(threat, inputs),
        "slice": [0, report["images"]],
        "seed": report.get("seed", identity.get("seed")),
        "fingerprint": model["fields"]["dataset"].get("fingerprint", identity.get("fingerprint")),
    }
    shares = threat["kind"] == "corruption" or threat.get("surrogate") is not None
    if inputs is None and shares and "inputs" in identity.get("threat", {}):
        del said["threat"]  # of before they were listed
    return next((key for key, value in said.items() if identity.get(key) != value), None)


def misnamed(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Which models, inputs and cells of a manifest have a digest that is not that of their
    identity, in words. Manifests of before identities were listed say nothing of their cells."""
    if "identities" not in manifest:
        return
    schema = manifest["identity_schema"]
    threats = {threat["name"]: threat for threat in manifest["threats"]}
    rest = {key: Written(part) for key, part in manifest["identities"].items()}
    for name, identity in manifest["inputs"].items():
        if digest(identity, schema) != name:
            yield f"inputs {name[:12]}"
    places = {}
    for model in manifest["models"]:
        for seed in model["seeds"]:
            places[model["name"], seed["seed"]] = model, model_part(model, seed)
            said = {"what": "model", **model["fields"], "seed": seed["seed"]}
            if seed["status"] == "done" and digest(said, schema) != seed["digest"]:
                yield f"model {model['name']} seed {seed['seed']}"
    for cell in manifest["cells"]:
        if cell["status"] != "done" or cell.get("identity") is None:
            continue
        where = f"cell {cell['model']} seed {cell['seed']} x {cell['threat']}"
        model, part = places[cell["model"], cell["seed"]]
        threat, inputs = threats[cell["threat"]], cell.get("inputs")
        made = {**rest[cell["identity"]], "model": part, "threat": threat_part(threat, inputs)}
        fits = digest(made, schema) == cell["digest"]
        fits = fits and made.get("slice") == [0, manifest["report"]["images"]]
        if inputs is not None:
            fits = fits and _made_for(manifest["inputs"][inputs], threat, places)
        if not fits:
            yield where


def _made_for(
    inputs: Mapping[str, Any],
    threat: Mapping[str, Any],
    places: Mapping[tuple[str, int], tuple[Mapping[str, Any], Written]],
) -> bool:
    """Whether shared inputs are those of a threat, and were crafted on its surrogate."""
    used = inputs.get("surrogate")
    known = [part for (name, _), (_, part) in places.items() if name == threat.get("surrogate")]
    return inputs.get("threat") == threat.get("fields") and (not known or used in known)
