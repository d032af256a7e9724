"""Cards with their plugins' fields written out -> identities of models, inputs and cells.

digest.py says what belongs into an identity and what does not, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import torch

from robench import plugins
from robench.attacks.base import Attack
from robench.cards import ModelCard, ReportCard
from robench.corruptions.base import Corruption
from robench.data.base import Splits
from robench.digest import Identity, canonical, digest
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.surrogate import Step
from robench.plan import Cell, Threat
from robench.trainers.base import Trainer


@dataclass(frozen=True)
class _Wanted:
    fields: str
    card: ModelCard = field(compare=False)


@lru_cache(maxsize=2)
def _load_splits(wanted: _Wanted) -> Splits:
    splits: Splits = plugins.build("datasets", wanted.card.dataset, wanted.card).load()
    return splits


def load_splits(card: ModelCard) -> Splits:
    """The data set of a model card, kept in memory for the next card that names the same one."""
    fields = canonical(plugins.resolve("datasets", card.dataset, card))
    return _load_splits(_Wanted(fields, card))


@dataclass(frozen=True)
class ResolvedModel:
    """What a model card comes to: every field of its plugins, and facts read off the network."""

    card: ModelCard
    dataset: dict[str, Any]
    network: dict[str, Any]
    trainer: dict[str, Any]
    stochastic: bool
    """Whether two calls on the same image may differ."""
    jumps: bool
    """Whether there are steps or spikes in the network, whose derivative is a surrogate."""
    parameters: int

    def identity(self, seed: int) -> Identity:
        return {
            "what": "model",
            "dataset": self.dataset,
            "network": self.network,
            "trainer": self.trainer,
            "seed": seed,
        }

    def digest(self, seed: int) -> str:
        return digest(self.identity(seed))


def resolve_model(card: ModelCard) -> ResolvedModel:
    """Check a model card against its plugins and write out every field.

    Raises RobenchError naming card, key and value.
    """
    dataset = plugins.resolve("datasets", card.dataset, card)
    trainer = plugins.resolve("trainers", card.trainer, card)
    learning = cast("type[Trainer]", plugins.load("trainers", card.trainer.name, card))
    if len(card.seeds) > 1 and not learning.trains:
        raise RobenchError(
            f"{card.file}: seeds = {list(card.seeds)}: trainer {card.trainer.name!r} trains "
            "nothing, so that all would be the same; write one card for each file of weights"
        )
    network = plugins.resolve("networks", card.network, card)
    splits = load_splits(card)
    with torch.device("meta"):
        built: Network = plugins.build(
            "networks",
            card.network,
            card,
            input_shape=splits.input_shape,
            classes=len(splits.classes),
            graph=splits.graph,
        )
    return ResolvedModel(
        card=card,
        dataset={**dataset, "fingerprint": splits.fingerprint},
        network=network,
        trainer=trainer,
        stochastic=built.random_input or (card.inference_noise and built.noisy),
        jumps=any(isinstance(module, Step) for module in built.modules()),
        parameters=sum(p.numel() for p in built.parameters()),
    )


def threat_fields(threat: Threat) -> dict[str, Any]:
    """All that determines what a threat does, without the models it meets."""
    if threat.card is None:
        return {"kind": "clean"}
    if threat.kind == "corruption":
        corrupts = threat.corruption_card
        fields = plugins.resolve("corruptions", corrupts.corruption, corrupts)
        plugin = plugins.load("corruptions", corrupts.corruption.name, corrupts)
        aside = cast("type[Corruption]", plugin).not_identity
        return {
            "kind": "corruption",
            "corruption": {k: v for k, v in fields.items() if k not in aside},
            "name": threat.corruption,
            "severity": threat.severity,
        }
    card = threat.attack
    return {
        "kind": "attack",
        "attack": plugins.resolve("attacks", card.attack, card),
        "access": card.access,
        "norm": card.norm,
        "eps": threat.eps,
        "max_queries": card.max_queries,
        # Left out where it is all that an image has, so that identities are as before there was it.
        **({"part": card.part} if card.part != "features" else {}),
    }


def batch_matters(threat: Threat, stochastic: bool) -> bool:
    """Whether results depend on how images are batched: where numbers are drawn per batch."""
    if stochastic or threat.kind != "attack":
        return stochastic
    attack = plugins.load("attacks", threat.attack.attack.name, threat.card)
    return not issubclass(attack, Attack) or attack.randomised


def inputs_identity(
    cell: Cell,
    model: ResolvedModel,
    surrogate: tuple[ResolvedModel, str] | None,
    report: ReportCard,
) -> Identity | None:
    """Of the perturbed images that do not depend on the model under test; None: there are none.

    Args:
        surrogate: the model that examples are crafted on, and its weights' digest.
    """
    if cell.threat.kind == "corruption" or surrogate is not None:
        identity: Identity = {
            "what": "inputs",
            "fingerprint": model.dataset["fingerprint"],
            "threat": threat_fields(cell.threat),
            "slice": [cell.start, cell.stop],
            "seed": report.seed,
        }
        if cell.threat.kind == "corruption":
            identity["origin"] = _origin(cell)
        if surrogate is not None:
            resolved, weights = surrogate
            identity["surrogate"] = _use(resolved, weights)
            if batch_matters(cell.threat, resolved.stochastic):
                identity["batch_size"] = report.batch_size
        return identity
    return None


def _origin(cell: Cell) -> dict[str, Any]:
    """Whether corrupted images are generated or given, and of given ones their hash."""
    threat, card = cell.threat, cell.threat.corruption_card
    corruption: Corruption = plugins.build("corruptions", card.corruption, card)
    return corruption.origin(threat.corruption, threat.severity, cell.start, cell.stop)


def cell_identity(
    cell: Cell, model: ResolvedModel, weights: str, inputs: str | None, report: ReportCard
) -> Identity:
    """Of one cell. `inputs`: digest of the perturbed images when they are shared."""
    identity: Identity = {
        "what": "cell",
        "model": _use(model, weights),
        "fingerprint": model.dataset["fingerprint"],
        "threat": {"inputs": inputs} if inputs else threat_fields(cell.threat),
        "slice": [cell.start, cell.stop],
        "seed": report.seed,
        # A model that says it is deterministic is asked twice on clean images, to see whether it
        # is.
        "draws": report.draws if model.stochastic else 2 if cell.threat.kind == "clean" else 1,
    }
    if model.stochastic or (inputs is None and batch_matters(cell.threat, model.stochastic)):
        identity["batch_size"] = report.batch_size
    return identity


def _use(model: ResolvedModel, weights: str) -> dict[str, Any]:
    """A trained network as it answers: how it was trained is in its weights already."""
    return {
        "weights": weights,
        "network": model.network,
        "inference_noise": model.card.inference_noise,
    }


def threat_set(threats: tuple[Threat, ...], report: ReportCard) -> str:
    """Digest of the threats that a report's models meet: rows are comparable only where it is
    equal."""
    return digest(
        {
            "what": "threats",
            "threats": [
                {**threat_fields(t), "surrogate": getattr(t.card, "surrogate", None)}
                for t in threats
            ],
            "images": report.images,
            "draws": report.draws,
            "seed": report.seed,
        }
    )
