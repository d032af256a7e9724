"""A report card -> the models to train and the cells to evaluate. Pure: no torch, no store."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from robench.errors import RobenchError, nearest
from robench.workspace import plugins
from robench.workspace.cards import AttackCard, CorruptionCard, ModelCard, ReportCard, Spec
from robench.workspace.folders import Workspace

CLEAN = "clean"
WORST_CASE = "worst case"  # what claims call it
DIAGNOSTICS = "diagnostics/*"


@dataclass(frozen=True)
class Threat:
    """What is done to the input, with its strength. `name` is what tables call it."""

    name: str
    kind: Literal["clean", "attack", "corruption"]
    card: AttackCard | CorruptionCard | None = None
    eps: float | None = None
    corruption: str = ""
    severity: int = 0

    def __hash__(self) -> int:
        return hash(self.name)  # as a card's: asked for very often; equality looks at all there is

    @property
    def attack(self) -> AttackCard:
        """The card of an attack."""
        assert isinstance(self.card, AttackCard)
        return self.card

    @property
    def corruption_card(self) -> CorruptionCard:
        """The card of a corruption."""
        assert isinstance(self.card, CorruptionCard)
        return self.card


@dataclass(frozen=True)
class Training:
    """One seed of one model card."""

    card: ModelCard
    seed: int

    def __hash__(self) -> int:
        return hash((self.card.name, self.seed))

    @property
    def label(self) -> str:
        return f"{self.card.name} seed {self.seed}"


@dataclass(frozen=True)
class Cell:
    """One model seed x one threat x one slice of test data: the unit of work and of caching."""

    training: Training
    threat: Threat
    start: int
    stop: int
    surrogate: Training | None = None

    def __hash__(self) -> int:
        training = self.training
        return hash((training.card.name, training.seed, self.threat.name, self.start))

    @property
    def label(self) -> str:
        return f"{self.training.label} x {self.threat.name}"

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Of its model and, where there is one, of the surrogate that examples are crafted on."""
        return (self.training,) if self.surrogate is None else (self.training, self.surrogate)


@dataclass(frozen=True)
class Plan:
    """All that a report asks for."""

    report: ReportCard
    models: tuple[ModelCard, ...]
    threats: tuple[Threat, ...]
    trainings: tuple[Training, ...]
    """The models' seeds, then surrogates, and what gives its noise levels, that are not among
    them."""
    cells: tuple[Cell, ...]
    handed: Mapping[Cell, tuple[Cell, ...]] = field(default_factory=dict)
    """Of each proof, the cells in which its images may have been broken already, inside a ball no
    larger than its own: those are done first, whether they are planned here or not."""
    sources: Mapping[str, ModelCard] = field(default_factory=dict)
    """By name of a model, the one whose noise levels it has: that one is trained first."""

    def source(self, training: Training) -> Training | None:
        """The training whose noise levels a training has."""
        card = self.sources.get(training.card.name)
        return None if card is None else Training(card, training.seed)

    def where(self, noisy: Collection[str]) -> Plan:
        """What is left where only these models, by name, answer differently from draw to draw."""

        def met(threat: Threat, *models: str) -> bool:
            everybody = threat.kind != "attack" or threat.attack.meets == "all"
            return everybody or any(model in noisy for model in models)

        return replace(
            self,
            threats=tuple(t for t in self.threats if met(t, *(m.name for m in self.models))),
            cells=tuple(c for c in self.cells if met(c.threat, c.training.card.name)),
        )


def make_plan(workspace: Workspace, report: str, only: Sequence[str] = ()) -> Plan:
    """The plan of a report card.

    Args:
        only: patterns; cells are planned only where the model's or the threat's name matches one.

    Raises RobenchError for unknown cards, patterns that match nothing, transfer between data sets.
    """
    card = workspace.card("reports", report)
    models = tuple(
        workspace.card("models", name)
        for name in workspace.select("models", card.models, card.file)
    )
    threats = _threats(workspace, card, models)
    trainings = [Training(model, seed) for model in models for seed in model.seeds]
    cells: list[Cell] = []
    handed: dict[Cell, tuple[Cell, ...]] = {}
    for training in list(trainings):
        every = [
            Cell(training, threat, 0, card.images, _surrogate(workspace, training, threat))
            for threat in sorted(threats, key=_after)
        ]
        for cell in every:
            if not _wanted(training.card.name, cell.threat.name, only):
                continue
            if cell.surrogate is not None and cell.surrogate not in trainings:
                trainings.append(cell.surrogate)
            cells.append(cell)
            if _proves(cell.threat):
                handed[cell] = tuple(c for c in every if _within(c.threat, cell.threat))
    if only:
        if not cells:
            known = [*(m.name for m in models), *(t.name for t in threats)]
            raise RobenchError(
                f"--only {' '.join(only)}: matches no model or threat of {report}; "
                f"{nearest(only[0], known)}"
            )
        used = {training for cell in cells for training in cell.trainings}
        trainings = [training for training in trainings if training in used]
    sources = {
        model.name: _source(workspace, model)
        for model in (*models, *(t.card for t in trainings))
        if model.sigma_of is not None
    }
    for training in list(trainings):
        if training.card.name in sources:
            source = Training(sources[training.card.name], training.seed)
            if source not in trainings:
                trainings.append(source)
    return Plan(card, models, threats, tuple(trainings), tuple(cells), handed, sources)


def _source(workspace: Workspace, control: ModelCard) -> ModelCard:
    """The model whose noise levels a control has."""
    where = f"{control.file}: sigma_of = {control.sigma_of!r}"
    try:
        source = workspace.card("models", str(control.sigma_of))
    except RobenchError as error:
        raise RobenchError(f"{control.file}: sigma_of: {error}") from None
    if source.sigma_of is not None:
        raise RobenchError(f"{where}: that one has its noise of {source.sigma_of!r}; name it here")
    missing = sorted(set(control.seeds) - set(source.seeds))
    if missing:
        raise RobenchError(f"{where}: is not trained with seed {missing[0]}, as this one is")
    return source


def _wanted(model: str, threat: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(name, p) for p in only for name in (model, threat))


def _proves(threat: Threat) -> bool:
    return threat.kind == "attack" and threat.attack.access == "weights"


def _looks_nearer(threat: Threat) -> bool:
    return threat.kind == "attack" and threat.attack.nearest is not None


def _after(threat: Threat) -> tuple[bool, float, bool]:
    """Proofs come after everything else, those in small balls first."""
    after = _proves(threat)
    return after, (threat.eps or 0.0) if after else 0.0, _looks_nearer(threat)


def _within(threat: Threat, proof: Threat) -> bool:
    """Whether what breaks an image under `threat` lies in the proof's ball. Of two proofs in one
    ball neither waits for the other, but the one that looks for the nearest wrong image does; what
    looks nearer has nothing to tell that others have not."""
    if threat.kind != "attack":
        return threat.kind == "clean"
    if _looks_nearer(threat):
        return False
    same = (threat.attack.norm, threat.attack.part) == (proof.attack.norm, proof.attack.part)
    eps, most = threat.eps or 0.0, proof.eps or 0.0
    return same and (eps < most or (eps == most and (_looks_nearer(proof) or not _proves(threat))))


def _threats(
    workspace: Workspace, report: ReportCard, models: Sequence[ModelCard]
) -> tuple[Threat, ...]:
    threats = [Threat(CLEAN, "clean")]
    for name in workspace.select("attacks", report.attacks, report.file):
        attack = workspace.card("attacks", name)
        if isinstance(attack.eps, tuple):
            threats += [Threat(f"{name}@{eps:g}", "attack", attack, eps=eps) for eps in attack.eps]
        else:
            threats.append(Threat(name, "attack", attack, eps=attack.eps))
    threats += _transfers(workspace, report, models)
    if report.diagnostics:
        threats += _diagnostics(workspace, report, threats)
    for name in workspace.select("corruptions", report.corruptions, report.file):
        corruption = workspace.card("corruptions", name)
        fields = plugins.resolve("corruptions", corruption.corruption, corruption)
        threats += [
            Threat(f"{name}/{kind}/{severity}", "corruption", corruption, None, kind, severity)
            for kind in fields["kinds"]
            for severity in corruption.severities
        ]
    named: dict[str, Threat] = {}
    for threat in threats:
        other = named.setdefault(threat.name, threat)
        if other is not threat:
            files = [t.card.file if t.card else "clean images" for t in (other, threat)]
            raise RobenchError(
                f"{report.file}: two threats are named {threat.name!r}: {' and '.join(files)}; "
                "rename a card"
            )
    if WORST_CASE in named:
        raise RobenchError(
            f"{report.file}: no threat can be named {WORST_CASE!r}, for that is over all attacks; "
            "rename the card"
        )
    return tuple(threats)


def _transfers(
    workspace: Workspace, report: ReportCard, models: Sequence[ModelCard]
) -> list[Threat]:
    """One threat for each attack of the transfer matrix and each model as its surrogate."""
    threats: list[Threat] = []
    for name in workspace.select("attacks", report.transfer, report.file):
        card = workspace.card("attacks", name)
        if card.access != "white-box" or isinstance(card.eps, tuple):
            raise RobenchError(
                f"{report.file}: transfer = {name!r}: examples of a transfer matrix are made by a "
                "white-box attack with one eps"
            )
        if card.aim == "each":
            raise RobenchError(
                f'{report.file}: transfer = {name!r}: aim = "each" needs the model itself; name a '
                "class, or say likeliest or least-likely"
            )
        for model in models:
            update = {"access": "transfer", "surrogate": model.name, "role": "diagnostic"}
            transferred = card.model_copy(update=update)
            threats.append(Threat(f"{name} from {model.name}", "attack", transferred, eps=card.eps))
    return threats


def _diagnostics(workspace: Workspace, report: ReportCard, named: Sequence[Threat]) -> list[Threat]:
    """The cards in attacks/diagnostics/ at the radii of the report's attacks in the same norm: what
    breaks an image is compared within one ball. A curve keeps its own radii beside them. What the
    report's own attacks answer already is left out.
    """
    attacks = [threat for threat in named if threat.kind == "attack"]
    added: list[Threat] = []
    for name in workspace.select("attacks", [DIAGNOSTICS], report.file) if attacks else ():
        card = workspace.card("attacks", name)
        own = card.eps if isinstance(card.eps, tuple) else ()
        radii = {
            eps
            for threat in attacks
            if threat.attack.role in ("attack", "proof") and threat.attack.norm == card.norm
            if (eps := threat.eps or 0.0) and math.isfinite(eps)
        }
        if not radii or name in {threat.attack.name for threat in attacks}:
            continue
        several = bool(own) or len(radii) > 1
        added += [
            Threat(f"{name}@{eps:g}" if several else name, "attack", card, eps=eps)
            for eps in sorted({*radii, *own})
            if not any(_covers(threat, card, eps) for threat in attacks)
        ]
    return added


def _covers(threat: Threat, card: AttackCard, eps: float) -> bool:
    """Whether an attack of the report's own answers what a diagnostic asks: it is the same one, the
    same search with more queries, or a curve by the same loop, of no fewer steps, that reaches as
    far; that one may go through other derivatives."""
    other = threat.attack
    same = (other.access, other.norm, other.part, other.goal, other.aim, other.attack.name) == (
        card.access, card.norm, card.part, card.goal, card.aim, card.attack.name
    )  # fmt: skip
    if not same:
        return False
    if isinstance(card.eps, tuple):
        reaches = isinstance(other.eps, tuple) and max(other.eps) >= max(card.eps)
        return reaches and _more(other.attack, card.attack, "steps", {"eot", "surrogate"})
    return threat.eps == eps and _more(other.attack, card.attack, "queries", set())


def _more(other: Spec, asked: Spec, effort: str, beside: set[str]) -> bool:
    """Whether the settings are the same but for no less of `effort`, and for those `beside`."""
    ours, theirs = other.settings, asked.settings
    spent, wanted = ours.get(effort), theirs.get(effort)
    more = isinstance(spent, int) and isinstance(wanted, int) and spent > wanted
    rest = {*ours, *theirs} - {effort, *beside}
    return (more or spent == wanted) and all(ours.get(key) == theirs.get(key) for key in rest)


def _surrogate(workspace: Workspace, victim: Training, threat: Threat) -> Training | None:
    """What a transfer attack's examples are crafted on: the surrogate card's first seed."""
    if threat.kind != "attack" or threat.attack.surrogate is None:
        return None
    try:
        card = workspace.card("models", threat.attack.surrogate)
    except RobenchError as error:
        raise RobenchError(f"{threat.attack.file}: surrogate: {error}") from None
    if card.dataset != victim.card.dataset:
        raise RobenchError(
            f"{threat.attack.file}: surrogate = {card.name!r} is trained on "
            f"{card.dataset.model_dump()}, but {victim.card.name} on "
            f"{victim.card.dataset.model_dump()}; transfer needs one data set"
        )
    return Training(card, card.seeds[0])
