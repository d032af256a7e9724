"""How far a plan has come: what of it the store holds, under which digests, and what is still to be
done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from robench.data.loading import load_splits
from robench.digest import Identity, digest
from robench.errors import RobenchError
from robench.make import identity
from robench.make.goals import check_goal
from robench.make.identity import Shared
from robench.make.tasks import Evaluate, MakeInputs, Train
from robench.store import columns
from robench.store.outcomes import Outcomes
from robench.store.store import Damaged, Store
from robench.workspace import plugins
from robench.workspace.cards import ModelCard
from robench.workspace.plan import Cell, Plan, Training


@dataclass
class Run:
    """How far a plan has come."""

    plan: Plan
    store: Store
    device: str
    resolved: dict[str, identity.ResolvedModel]
    keep_images: bool = False
    """Whether what attacks make of the images is kept, which changes no identity."""
    weights: dict[Training, str] = field(default_factory=dict)
    digests: dict[Cell, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Digest -> why."""
    lost: dict[Training | Cell, str] = field(default_factory=dict)
    """Models that could not be trained, and cells that so have no digest -> why."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    """What the store holds of the plan, as read back at the end."""

    def __post_init__(self) -> None:
        self._identities = identity.Identities(self.plan.report, self.resolved)
        self._models: dict[Training, str] = {}
        self._wrong: dict[str, list[int]] = {}

    def model_digest(self, training: Training) -> str:
        if training not in self._models:
            resolved = self.resolved[training.card.name]
            self._models[training] = resolved.digest(training.seed)
        return self._models[training]

    def weights_of(self, training: Training) -> str | None:
        """Digest of the stored weights; None when they are still to be made."""
        if training not in self.weights:
            name = self.model_digest(training)
            if not self.store.has("models", name):
                return None
            self.weights[training] = self.store.read_model(name)[1]["tensors"]
        return self.weights[training]

    def identify(self, cell: Cell) -> tuple[Identity, Shared | None]:
        """The identity of a cell, and the shared inputs it needs, if any.

        The weights of its model and of its surrogate must be there, and whatever a proof is to be
        handed. Raises Damaged where an outcome of that is.
        """
        identified, inputs = self.identity_of(cell)
        self.digests[cell] = digest(identified)
        return identified, inputs

    def identity_of(self, cell: Cell) -> tuple[Identity, Shared | None]:
        """What `identify` finds, without remembering it."""
        surrogate = self.weights[cell.surrogate] if cell.surrogate else None
        inputs = self._identities.inputs(cell, surrogate)
        broken = self.broken(cell)
        return self._identities.cell(cell, self.weights[cell.training], inputs, broken), inputs

    def trained(self) -> set[Training]:
        """Those whose weights are there, and not damaged."""
        there = set[Training]()
        for training in self.plan.trainings:
            with suppress(Damaged):
                if self.weights_of(training):
                    there.add(training)
        return there

    def broken(self, cell: Cell) -> dict[int, str] | None:
        """Of a proof about a model without noise, the images that the store knows to be broken in a
        ball no larger -> the first threat that did; None: nothing is handed to this cell."""
        before = self.plan.handed.get(cell)
        if before is None or self.resolved[cell.training.card.name].stochastic:
            return None
        broken_by: dict[int, str] = {}
        for other in before:
            if all(map(self.weights_of, other.trainings)):
                name = self.digests.get(other) or digest(self.identity_of(other)[0])
                for image in self._wrongly_answered(name):
                    broken_by.setdefault(image, other.threat.name)
        return broken_by

    def _wrongly_answered(self, name: str) -> list[int]:
        """The images that a finished cell of a model without noise has broken; none where it is not
        finished."""
        if name not in self._wrong:
            try:
                correct = columns.values(self.store.read_cell(name).rows.column("correct"))
            except FileNotFoundError:
                return []
            self._wrong[name] = np.flatnonzero(correct < 1).tolist()
        return self._wrong[name]

    def training_of(self, training: Training) -> Train:
        """The task that trains a model."""
        resolved = self.resolved[training.card.name]
        name, said = self.model_digest(training), resolved.identity(training.seed)
        source = self.plan.source(training)
        named = None if source is None else self.model_digest(source)
        return Train(training, name, said, self.store.url, self.device, named)

    def evaluation(self, cell: Cell, identified: Identity, inputs: Shared | None) -> Evaluate:
        """The task that evaluates a cell."""
        return Evaluate(
            cell,
            self.plan.report,
            self.digests[cell],
            identified,
            self.store.url,
            self.device,
            model=self.model_digest(cell.training),
            inputs=inputs.digest if inputs else None,
            source=self.inputs_of(cell, inputs) if inputs and self.streams(cell) else None,
            broken=self.broken(cell),
            keep=self.keep_images,
        )

    def streams(self, cell: Cell) -> bool:
        """Whether the shared inputs of a cell are made while they are used, and not kept."""
        corruption = cell.threat.kind == "corruption"
        return corruption and not (cell.threat.corruption_card.keep or self.keep_images)

    def inputs_of(self, cell: Cell, inputs: Shared) -> MakeInputs:
        """The task that makes the shared inputs of a cell."""
        return MakeInputs(
            cell,
            self.plan.report,
            inputs.digest,
            inputs.identity,
            self.store.url,
            self.device,
            self.model_digest(cell.surrogate) if cell.surrogate else None,
        )


def open_run(plan: Plan, store: Store, device: str, keep_images: bool = False) -> Run:
    """Check every card of the plan against its plugins before any work starts.

    Raises RobenchError naming card, key and value.
    """
    torch.set_num_threads(1)  # bits must not depend on the machine's cores; processes use those
    torch.backends.cudnn.deterministic = True
    cards: dict[str, ModelCard] = {t.card.name: t.card for t in plan.trainings}
    resolved = {
        name: identity.resolve_model(card, plan.sources.get(name)) for name, card in cards.items()
    }
    plan = plan.where({name for name, model in resolved.items() if model.stochastic})
    for threat in plan.threats:
        identity.threat_fields(threat)
    if resolved:
        _check_goals(plan, min(model.classes for model in resolved.values()))
    fewest = min((len(load_splits(card).test) for card in cards.values()), default=0)
    if plan.cells and plan.report.images > fewest:
        raise RobenchError(
            f"{plan.report.file}: images = {plan.report.images}: the smallest test split has "
            f"{fewest}"
        )
    return Run(plan, store, device, resolved, keep_images)


def _check_goals(plan: Plan, classes: int) -> None:
    """Raises RobenchError for what cannot be aimed at, or tells no answer from another.

    Args:
        classes: of the data set that has fewest.
    """
    if plan.report.top_k >= classes:
        raise RobenchError(
            f"{plan.report.file}: top_k = {plan.report.top_k}: with {classes} classes every answer "
            "would be right; say less"
        )
    for threat in plan.threats:
        if threat.kind == "attack" and threat.attack.goal == "targeted":
            card = threat.attack
            check_goal(plugins.build("attacks", card.attack, card), card, classes)


def choose_device(named: str | None) -> str:
    """The device that the user named, else CUDA where there is one.

    Raises RobenchError when there is no such device.
    """
    if named is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=named)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise RobenchError(f"--device {named}: cannot be used: {reason}") from None
    return named


def read_back(run: Run, note: Callable[[str], None]) -> bool:
    """Read every finished cell that is not read yet; False where one was damaged and had to be set
    aside."""
    sound = [read_one(run, name, note) for name in run.digests.values()]
    return all(sound)


def read_one(run: Run, name: str, note: Callable[[str], None]) -> bool:
    """Read a cell, if it is finished; False where it was damaged and had to be set aside."""
    if name in run.outcomes or name in run.failures:
        return True
    try:
        run.outcomes.add(name, run.store.read_cell(name))
    except Damaged as damaged:
        note(str(damaged))
        return False
    except FileNotFoundError:  # its inputs failed
        pass
    return True


def with_the_rest(run: Run, plan: Plan, note: Callable[[str], None]) -> Run:
    """A run over all of `plan`, of which `run` was a part: beside what that made or missed, what
    the store holds."""
    whole = open_run(plan, run.store, run.device)
    whole.failures, whole.lost, whole.outcomes = run.failures, run.lost, run.outcomes
    known = run.store.cells()
    trained = whole.trained()
    for cell in plan.cells:
        with suppress(Damaged):  # it counts as missing
            if trained.issuperset(cell.trainings):
                whole.identify(cell)
    whole.digests = {
        cell: name for cell, name in whole.digests.items() if name in known or cell in run.digests
    }
    read_back(whole, note)
    return whole


def survey(run: Run) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """Models and cells by state (done, missing, failed), and what went wrong; makes nothing."""
    models = {"done": 0, "missing": 0, "failed": 0}
    cells = dict(models)
    failures: list[str] = []

    def count(states: dict[str, int], done: bool, *names: str | None) -> None:
        """One more model or cell; `names`: its own, then that of the inputs it needs."""
        noted = [run.store.read_failure(name) for name in names if name] if not done else []
        reasons = [f"{one['task']}: {one['error']}" for one in noted if one]
        states["done" if done else "failed" if reasons else "missing"] += 1
        failures.extend(reasons)

    trained = run.trained()
    for training in run.plan.trainings:
        count(models, training in trained, run.model_digest(training))
    finished = run.store.cells()
    for cell in run.plan.cells:
        name = inputs = None
        if trained.issuperset(cell.trainings):
            _, shared = run.identify(cell)
            name, inputs = run.digests[cell], shared.digest if shared else None
        count(cells, name in finished, name, inputs)
    return models, cells, tuple(dict.fromkeys(failures))
