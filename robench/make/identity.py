"""Cards with their plugins' fields written out -> identities of models, inputs and cells.

digest.py says what belongs into an identity and what does not, and why.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch

from robench.attacks.base import Attack
from robench.attacks.sequential import VERSION as LEAVING
from robench.corruptions.base import Corruption
from robench.data.base import Splits
from robench.data.loading import load_sample, load_splits
from robench.data.sample import BY_CLASS, said
from robench.digest import Identity, Written, canonical, digest, digest_bytes
from robench.errors import RobenchError
from robench.make.probes.asking import VERSION as PROBED
from robench.networks.base import LENDING, Network
from robench.networks.surrogate import Step
from robench.trainers.base import Trainer
from robench.workspace import plugins
from robench.workspace.cards import ModelCard, ReportCard
from robench.workspace.plan import Cell, Threat, Training


def make_network(card: ModelCard, splits: Splits) -> Network:
    """The untrained network of a model card; one from outside gets a copy of the graph, if any."""
    own = plugins.own("networks", card.network)
    network: Network = plugins.build(
        "networks",
        card.network,
        card,
        input_shape=splits.input_shape,
        classes=len(splits.classes),
        graph=splits.graph if own else copy.deepcopy(splits.graph),
    )
    return network


@dataclass(frozen=True)
class ResolvedModel:
    """What a model card comes to: every field of its plugins, and facts read off the network."""

    card: ModelCard
    fields: dict[str, dict[str, Any]]
    """All that determines its weights, beside the seed: of its data set, network and trainer; under
    `sigma_of` those of the model whose noise levels it has."""
    stochastic: bool
    """Whether two calls on the same image may differ."""
    jumps: bool
    """Whether there are steps or spikes in the network, whose derivative is a surrogate."""
    parameters: int
    classes: int
    notes: tuple[str, ...] = ()
    """What pages say of its data."""

    def identity(self, seed: int) -> Identity:
        return {"what": "model", **self.fields, "seed": seed}

    def digest(self, seed: int) -> str:
        return digest(self.identity(seed))


SEEN = 32
"""Test images by which a network is found to be of a kind that its page speaks of."""


def resolve_model(card: ModelCard, source: ModelCard | None = None) -> ResolvedModel:
    """Check a model card against its plugins and write out every field.

    Args:
        source: the model whose noise levels it has.

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
    if trainer.get("distribution") == "laplace" and card.inference_noise is True:
        raise RobenchError(
            f"{card.file}: inference_noise = true: the network is trained with Laplace noise; say "
            'inference_noise = "laplace", so that it is used with the same'
        )
    network = plugins.resolve("networks", card.network, card)
    splits = load_splits(card)
    with torch.device("meta"):
        built = make_network(card, splits)
    fields = {
        "dataset": {**dataset, "fingerprint": splits.fingerprint},
        "network": {**network, "lends": LENDING} if built.lends else network,
        "trainer": trainer,
    }
    if source is not None:
        fields["sigma_of"] = resolve_model(source).fields
    return ResolvedModel(
        card=card,
        fields=fields,
        stochastic=built.random_input or (bool(card.inference_noise) and built.noisy),
        jumps=any(isinstance(module, Step) for module in built.modules()),
        parameters=sum(p.numel() for p in built.parameters()),
        classes=len(splits.classes),
        notes=(*splits.notes, *built.notes(torch.tensor(splits.test.at(slice(SEEN))))),
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
        **({"nearest": card.nearest.model_dump()} if card.nearest is not None else {}),
        **({"goal": card.goal, "aim": card.aim} if card.goal == "targeted" else {}),
    }


@dataclass(frozen=True)
class Shared:
    """Perturbed images that do not depend on the model under test."""

    digest: str
    identity: Identity

    @cached_property
    def named(self) -> Written:
        """What stands for them in a cell's identity."""
        return Written(inputs=self.digest)


class Identities:
    """Identities of a report's cells and of the inputs that they share. Whatever many cells have in
    common is looked up and written out once: there may be hundreds of thousands."""

    def __init__(self, report: ReportCard, resolved: Mapping[str, ResolvedModel]) -> None:
        self._report, self._resolved = report, resolved
        self._threats: dict[Threat, tuple[Written, bool]] = {}
        self._used: dict[tuple[Training, str], Written] = {}
        self._shared: dict[Hashable, Shared] = {}
        self._samples: dict[Hashable, Identity] = {}

    def inputs(self, cell: Cell, surrogate: str | None) -> Shared | None:
        """The shared inputs that a cell needs; None: there are none.

        Args:
            surrogate: digest of the weights that examples are crafted on.
        """
        if cell.threat.kind != "corruption" and cell.surrogate is None:
            return None
        fingerprint = self._resolved[cell.training.card.name].fields["dataset"]["fingerprint"]
        drawn = canonical(self._sample(cell))
        key = (cell.threat, cell.start, cell.stop, cell.surrogate, surrogate, fingerprint, drawn)
        if key not in self._shared:
            identity = self._inputs(cell, surrogate, fingerprint)
            self._shared[key] = Shared(digest(identity), identity)
        return self._shared[key]

    def _inputs(self, cell: Cell, surrogate: str | None, fingerprint: str) -> Identity:
        fields, drawn = self._threat(cell.threat)
        identity: Identity = {
            "what": "inputs",
            "fingerprint": fingerprint,
            "threat": fields,
            "slice": [cell.start, cell.stop],
            "seed": self._report.seed,
            **self._sample(cell),
        }
        if cell.threat.kind == "attack":
            identity |= _counted(self._report)
        if cell.threat.kind == "corruption":
            identity["origin"] = _origin(cell)
        if cell.surrogate is not None and surrogate is not None:
            identity["surrogate"] = self._use(cell.surrogate, surrogate)
            noisy = self._resolved[cell.surrogate.card.name].stochastic
            if drawn or noisy:
                identity["batch_size"] = self._report.batch_size
            if noisy:
                identity["leaving"] = LEAVING
        return identity

    def cell(
        self,
        cell: Cell,
        weights: str,
        inputs: Shared | None,
        broken: Collection[int] | None = None,
    ) -> Identity:
        """Of one cell.

        Args:
            weights: their digest.
            broken: of a proof, the images that it was told need none. They, and not the cells that
                say so, determine its numbers: an attack that breaks nothing new changes no proof.
        """
        model, report = self._resolved[cell.training.card.name], self._report
        fields, drawn = self._threat(cell.threat)
        identity: Identity = {
            "what": "cell",
            "model": self._use(cell.training, weights),
            "fingerprint": model.fields["dataset"]["fingerprint"],
            "threat": inputs.named if inputs else fields,
            "slice": [cell.start, cell.stop],
            "seed": report.seed,
            # A model that says it is deterministic is asked twice on clean images, to see whether
            # it is.
            "draws": report.draws if model.stochastic else 2 if cell.threat.kind == "clean" else 1,
            **self._sample(cell),
        }
        if model.stochastic or (inputs is None and drawn):
            identity["batch_size"] = report.batch_size
        if model.stochastic and inputs is None and cell.threat.kind == "attack":
            identity["leaving"] = LEAVING
        if cell.threat.kind == "clean" and report.diagnostics:
            identity["probed"] = PROBED
        if broken is not None:
            identity["broken"] = sorted(broken)
        return identity | _counted(report)

    def _sample(self, cell: Cell) -> Identity:
        """How the images of a cell were drawn; nothing where they are all that there are."""
        key = (cell.training.card.name, cell.stop)
        if key not in self._samples:
            sample = said(load_splits(cell.training.card), cell.stop)
            self._samples[key] = {"sample": sample} if sample else {}
        return self._samples[key]

    def _threat(self, threat: Threat) -> tuple[Written, bool]:
        """All fields of a threat, and whether it draws numbers for each batch itself."""
        if threat not in self._threats:
            self._threats[threat] = Written(threat_fields(threat)), draws_per_batch(threat)
        return self._threats[threat]

    def _use(self, training: Training, weights: str) -> Written:
        """A trained network as it answers: how it was trained is in its weights already."""
        if (training, weights) not in self._used:
            model = self._resolved[training.card.name]
            self._used[training, weights] = Written(
                weights=weights,
                network=model.fields["network"],
                inference_noise=model.card.inference_noise,
            )
        return self._used[training, weights]


def draws_per_batch(threat: Threat) -> bool:
    """Whether numbers are drawn per batch of images, so that results depend on the batches, also
    where the model is deterministic."""
    if threat.kind != "attack":
        return False
    attack = plugins.load("attacks", threat.attack.attack.name, threat.card)
    return not issubclass(attack, Attack) or attack.randomised


def _origin(cell: Cell) -> dict[str, Any]:
    """Whether corrupted images are generated or given, and of given ones their hash."""
    threat, card = cell.threat, cell.threat.corruption_card
    corruption: Corruption = plugins.build("corruptions", card.corruption, card)
    try:
        numbers = load_sample(cell).numbers
        if numbers is None:
            return corruption.origin(threat.corruption, threat.severity, cell.start, cell.stop)
        origins = [
            corruption.origin(threat.corruption, threat.severity, int(n), int(n) + 1)
            for n in numbers
        ]
        if all(one == origins[0] for one in origins):
            return origins[0]
        return {"source": "given", "fingerprint": digest_bytes(canonical(origins).encode())}
    except RobenchError as error:
        raise RobenchError(f"{card.file}: {error}") from None


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
            "sample": BY_CLASS,
            "draws": report.draws,
            "seed": report.seed,
            **_counted(report),
        }
    )


def _counted(report: ReportCard) -> dict[str, Any]:
    """By which rule an answer counts as right; nothing where it is the usual one, as before there
    were others."""
    said: dict[str, Any] = {"top_k": report.top_k} if report.top_k > 1 else {}
    return said | ({"labels": report.labels} if report.labels != "true" else {})
