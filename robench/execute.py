"""Runs planned work: in this process or in several, whatever is missing and nothing else.

A run is resumed by running it again: what the store holds is not made twice. A task that fails is
recorded and the rest goes on. The order of tasks changes no result.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from robench import identity, plugins
from robench.cards import ModelCard
from robench.digest import Identity, digest
from robench.errors import RobenchError
from robench.goals import check_goal
from robench.identity import Shared
from robench.keeping import KeepImages
from robench.leases import LOOK, Leases
from robench.loading import held_still
from robench.outcomes import Outcomes
from robench.plan import Cell, Plan, Training
from robench.pool import Failure, Inline, Pool, Told, WorkerDied
from robench.store import Damaged, Store
from robench.tasks import Evaluate, MakeInputs, Task, Train
from robench.workers import Processes, may_copy

ATTEMPTS = 3
"""How often a task is tried when the process or the machine that runs it dies under it."""


class Listener(Protocol):
    """Who is told how a run goes (progress.py shows it in a terminal)."""

    def begin(self, models: int, cells: int) -> None: ...
    def queued(self, task: Task) -> None: ...
    def told(self, label: str, done: float, text: str) -> None: ...
    def finished(self, task: Task, failure: Failure | None) -> None: ...
    def found(self, what: str) -> None: ...
    def elsewhere(self, task: Task) -> None:
        """What was queued is done: by another run."""
        ...

    def note(self, text: str) -> None: ...


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
            if not self.store.has_model(name):
                return None
            self.weights[training] = self.store.read_model(name)[1]["tensors"]
        return self.weights[training]

    def identify(self, cell: Cell) -> tuple[Identity, Shared | None]:
        """The identity of a cell, and the shared inputs it needs, if any.

        The weights of its model and of its surrogate must be there, and whatever a proof is to be
        handed. Raises Damaged where an outcome of that is.
        """
        found, inputs = self.identity_of(cell)
        self.digests[cell] = digest(found)
        return found, inputs

    def identity_of(self, cell: Cell) -> tuple[Identity, Shared | None]:
        """What `identify` finds, without remembering it."""
        surrogate = self.weights[cell.surrogate] if cell.surrogate else None
        inputs = self._identities.inputs(cell, surrogate)
        broken = self.broken(cell)
        return self._identities.cell(cell, self.weights[cell.training], inputs, broken), inputs

    def broken(self, cell: Cell) -> dict[int, str] | None:
        """Of a proof about a model without noise, the images that the store knows to be broken in a
        ball no larger -> the first threat that did; None: nothing is handed to this cell."""
        before = self.plan.handed.get(cell)
        if before is None or self._identities.stochastic(cell.training):
            return None
        found: dict[int, str] = {}
        for other in before:
            if all(self.weights_of(t) for t in (other.training, other.surrogate) if t is not None):
                name = self.digests.get(other) or digest(self.identity_of(other)[0])
                for image in self._wrongly_answered(name):
                    found.setdefault(image, other.threat.name)
        return found

    def _wrongly_answered(self, name: str) -> list[int]:
        """The images that a finished cell of a model without noise has broken; none where it is not
        finished."""
        if name not in self._wrong:
            try:
                correct = self.store.read_cell(name).rows.column("correct").to_numpy()
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
    sources = plan.sources
    resolved = {
        name: identity.resolve_model(card, sources.get(name)) for name, card in cards.items()
    }
    plan = plan.where({name for name, model in resolved.items() if model.stochastic})
    for threat in plan.threats:
        identity.threat_fields(threat)
    if resolved:
        _check_goals(plan, min(model.classes for model in resolved.values()))
    fewest = min((len(identity.load_splits(card).test) for card in cards.values()), default=0)
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


@held_still()
def execute(
    run: Run, listener: Listener, jobs: int = 0, start: Callable[[Told], Pool] | None = None
) -> None:
    """Make what is missing of a run: train, make shared inputs, evaluate.

    Args:
        jobs: worker processes; 0: this process, where nothing that hangs can be ended.
        start: makes the pool that the tasks go to instead, such as one on a Ray cluster.

    Failures are recorded in the store and in `run`; KeyboardInterrupt stops the workers and passes
    on.
    """
    ours = not gc.get_freeze_count()  # whoever has frozen what they have keeps it so
    if ours:
        gc.freeze()  # the modules that are there by now stay: no use in looking at them again
    try:
        _execute(run, listener, jobs, start)
    finally:
        if ours:
            gc.unfreeze()


def _execute(run: Run, listener: Listener, jobs: int, start: Callable[[Told], Pool] | None) -> None:
    for last in (False, True):  # a second round makes again what was set aside as damaged
        pool = start(listener.told) if start else _pool(run, jobs, listener.told)
        leases = Leases(run.store.files, listener.note)
        scheduler = _Scheduler(run, listener, pool, leases, last)
        try:
            scheduler.work()
        finally:
            try:
                pool.close()
            finally:
                leases.close()
        if _read_back(run, listener) and scheduler.sound:
            return
        run.weights.clear()


def _pool(run: Run, jobs: int, told: Told) -> Pool:
    """One worker is one that this process is copied to: it costs next to nothing. Where that cannot
    be, the work of one is done here."""
    copy = run.store.files.local and may_copy(run.device)
    if jobs == 0 or (jobs == 1 and not copy):
        return Inline(told, renew=run.store.files.shared)
    if not run.store.files.shared:
        raise RobenchError(
            f"--store {run.store.url}: lives in one process: --jobs {jobs} would lose what they "
            "make; say --jobs 1, or choose a folder"
        )
    return Processes(jobs, told, copy)


def _read_back(run: Run, listener: Listener) -> bool:
    """Read every finished cell once; False where one was damaged and had to be set aside."""
    sound = True
    for name in run.digests.values():
        if name in run.outcomes or name in run.failures:
            continue
        try:
            run.outcomes.add(name, run.store.read_cell(name))
        except Damaged as damaged:
            listener.note(str(damaged))
            sound = False
        except FileNotFoundError:
            continue  # its inputs failed
    return sound


class _Scheduler:
    """Submits tasks as soon as what they need is there, and no other run is at them."""

    def __init__(
        self, run: Run, listener: Listener, pool: Pool, leases: Leases, last: bool
    ) -> None:
        self.run, self.listener, self.pool, self.last = run, listener, pool, last
        self.leases = leases
        self.ready: deque[Task] = deque()
        self.flying: dict[Future[Any], Task] = {}
        self.elsewhere: deque[Task] = deque()
        """What other runs are at: looked at again every LOOK seconds."""
        self.looked, self.told = 0.0, False
        self.submitted: set[str] = set()
        """Digests of tasks that are ready, in flight or over."""
        self.attempts: dict[str, int] = defaultdict(int)
        self.waiting: dict[Training | Cell | str, list[Cell | Training]] = defaultdict(list)
        """Cells by what they wait for: a model (not yet trained), inputs (not yet made), or cells
        that a proof is handed: not yet known by their digests, or not yet evaluated. Models by the
        digest of the one whose noise levels they have."""
        self.planned = set(run.plan.cells)
        self.cells = run.store.cells()
        self.images = run.store.images() if run.keep_images else set()
        """Cells whose adversarial images are kept."""
        self.sound = True
        """False once a task met something damaged in the store, which has been set aside."""

    def work(self) -> None:
        plan = self.run.plan
        self.listener.begin(len(plan.trainings), len(plan.cells))
        for cell in plan.cells:
            self.waiting[cell.training].append(cell)
        for training in plan.trainings:
            self._need_model(training)
        while self.ready or self.flying or self.elsewhere:
            # Few at a time: waiting costs as much as there is in flight.
            while self.ready and len(self.flying) < self.pool.slots:
                self._take(self.ready.popleft())
            if self.flying:
                done = self.pool.wait(self.flying, LOOK)
                for future in [future for future in self.flying if future in done]:
                    self._done(self.flying.pop(future), future)
            elif not self.ready:
                self._wait_for_others()
            if time.monotonic() - self.looked > LOOK:
                self.looked = time.monotonic()
                self.ready += self.elsewhere
                self.elsewhere.clear()

    def _wait_for_others(self) -> None:
        if self.elsewhere:
            task = self.elsewhere[0]
            if not self.told:
                self.listener.note(f"{task.label}: {self.leases.holder(task.digest)} is at it")
                self.told = True
            time.sleep(LOOK)

    def _take(self, task: Task) -> None:
        """Do a task, unless another run does it or has done it."""
        if not self.leases.holds(task.digest):
            if not self._is_there(task) and not self.leases.take(task.digest, task.label):
                self.elsewhere.append(task)
                return
            if self._is_there(task):
                self.leases.release(task.digest)
                self._made_elsewhere(task)
                return
        self._fly(task)

    def _is_there(self, task: Task) -> bool:
        store = self.run.store
        if isinstance(task, Train):
            return store.has_model(task.digest)
        if isinstance(task, MakeInputs):
            return store.has_inputs(task.digest)
        if isinstance(task, KeepImages):
            return store.has_images(task.evaluation.digest)
        return store.has_cell(task.digest)

    def _made_elsewhere(self, task: Task) -> None:
        self.listener.elsewhere(task)
        if isinstance(task, Evaluate) and task.keeps and not self._is_there(KeepImages(task)):
            self._submit(KeepImages(task))  # the other did not keep them
        self._made(task)

    def _submit(self, task: Task) -> None:
        self.submitted.add(task.digest)
        self.listener.queued(task)
        self.ready.append(task)

    def _fly(self, task: Task) -> None:
        self.attempts[task.digest] += 1
        self.flying[self.pool.submit(task)] = task

    def _done(self, task: Task, future: Future[Any]) -> None:
        try:
            failure = future.result()
        except WorkerDied as died:
            if self.attempts[task.digest] < ATTEMPTS:
                self.ready.append(task)
                return
            failure = Failure("WorkerDied", f"{died}; tried {ATTEMPTS} times", "")
        self.leases.release(task.digest)
        if failure is not None and failure.damaged and not self.last:
            self.listener.note(failure.message)  # the second round makes it again
            self.sound = False
            return
        self.listener.finished(task, failure)
        if failure is not None:
            self._failed(task, failure)
        else:
            self._made(task)

    def _made(self, task: Task) -> None:
        if isinstance(task, Train):
            self._release(task.training)
        elif isinstance(task, MakeInputs):
            self._release(task.digest)
        elif isinstance(task, Evaluate):
            self.cells.add(task.digest)
            self._release(task.digest)

    def _failed(self, task: Task, failure: Failure) -> None:
        self.run.store.write_failure(
            task.digest,
            {"task": task.label, "error": failure.short, "traceback": failure.traceback},
        )
        self.run.failures[task.digest] = failure.short
        key: Training | str = task.digest
        if isinstance(task, Train):
            key = task.training
            self.run.lost[key] = failure.short
        self._release(key)

    def _need_model(self, training: Training) -> None:
        try:
            known = self.run.weights_of(training)
        except Damaged as damaged:
            self.listener.note(str(damaged))
            known = None
        if known is not None:
            self.listener.found("model")
            self._release(training)
            return
        name = self.run.model_digest(training)
        if name in self.run.failures:  # in the first round
            self._release(training)
            return
        if name in self.submitted:
            self.waiting[name] += self.waiting.pop(training, [])  # the same work under another card
            return
        if self._waits_for_its_noise(training):
            return
        self._submit(self.run.training_of(training))

    def _waits_for_its_noise(self, training: Training) -> bool:
        """Whether a model has its noise levels of one that is still to be trained, or will never
        be: then it is looked at again when that one is there, or is lost too."""
        source = self.run.plan.source(training)
        with suppress(Damaged):  # that one is made again
            if source is None or self.run.weights_of(source) is not None:
                return False
        assert source is not None
        name = self.run.model_digest(source)
        why = self.run.lost.get(source) or self.run.failures.get(name)
        if why is None:
            self.waiting[name].append(training)
        else:
            said = f"{source.label}, whose noise it has, could not be trained: {why}"
            self.run.lost[training] = said
            self.listener.found("failed")
            self._release(training)
        return True

    def _release(self, key: Training | Cell | str) -> None:
        """Whatever `key` names is there, or will never be: look again at the cells that waited."""
        released = self.waiting.pop(key, [])
        if isinstance(key, Training):
            released += self.waiting.pop(self.run.model_digest(key), [])
        for item in released:
            if isinstance(item, Training):
                self._need_model(item)
            else:
                self._need_cell(item)

    def _need_cell(self, cell: Cell) -> None:
        try:
            self._look_at(cell)
        except Damaged as damaged:  # since a moment ago
            self.listener.note(str(damaged))
            self.sound = False

    def _look_at(self, cell: Cell) -> None:
        """Submit what the cell needs next; Damaged when its weights are."""
        if self._waits(cell):
            return
        self._submit_next(cell)
        if cell in self.run.digests or cell in self.run.lost:
            self._release(cell)

    def _waits(self, proof: Cell) -> bool:
        """Whether a cell that a proof is handed is still to be done: then it waits for the first
        such one, and is looked at again."""
        run = self.run
        for cell in run.plan.handed.get(proof, ()):
            name = run.digests.get(cell)
            over = name in self.cells or name in run.failures or cell in run.lost
            if cell in self.planned and not over:
                self.waiting[name or cell].append(proof)
                return True
        return False

    def _submit_next(self, cell: Cell) -> None:
        run = self.run
        for training in (cell.training, cell.surrogate):
            if training is None or training in run.weights:
                continue
            why = run.lost.get(training) or run.failures.get(run.model_digest(training))
            if why is not None:
                run.lost[cell] = f"{training.label} could not be trained: {why}"
                self.listener.found("failed")
                return
            if run.weights_of(training) is None:
                self.waiting[training].append(cell)
                return
        cell_identity, inputs = run.identify(cell)
        name = run.digests[cell]
        if run.keep_images and name in self.cells and name not in self.images:
            again = KeepImages(run.evaluation(cell, cell_identity, inputs))
            done = again.digest in self.submitted or again.digest in run.failures
            if again.evaluation.attacks and name not in self.submitted and not done:
                self._submit(again)
                return
        if (
            inputs is not None
            and run.keep_images
            and name in self.cells
            and not run.store.has_inputs(inputs.digest)
            and inputs.digest not in run.failures
        ):
            self._need_inputs(cell, inputs)  # they were made while they were used
            return
        if name in self.cells or name in self.submitted or name in run.failures:
            self.listener.found("failed" if name in run.failures else "cell")
            return
        if inputs is not None and not run.streams(cell) and not run.store.has_inputs(inputs.digest):
            self._need_inputs(cell, inputs)
            return
        self._submit(run.evaluation(cell, cell_identity, inputs))

    def _need_inputs(self, cell: Cell, inputs: Shared) -> None:
        name = inputs.digest
        if name in self.run.failures:
            self.run.failures[self.run.digests[cell]] = (
                f"its inputs could not be made: {self.run.failures[name]}"
            )
            self.listener.found("failed")
            self._release(self.run.digests[cell])
            return
        if name not in self.waiting:
            self._submit(self.run.inputs_of(cell, inputs))
        self.waiting[name].append(cell)


def with_the_rest(run: Run, plan: Plan, listener: Listener) -> Run:
    """A run over all of `plan`, of which `run` was a part: beside what that made or missed, what
    the store holds."""
    whole = open_run(plan, run.store, run.device)
    whole.failures, whole.lost, whole.outcomes = run.failures, run.lost, run.outcomes
    known = run.store.cells()
    for training in plan.trainings:
        with suppress(Damaged):  # it counts as missing
            whole.weights_of(training)
    for cell in plan.cells:
        models = [t for t in (cell.training, cell.surrogate) if t is not None]
        with suppress(Damaged):
            if all(training in whole.weights for training in models):
                whole.identify(cell)
    whole.digests = {
        cell: name for cell, name in whole.digests.items() if name in known or cell in run.digests
    }
    _read_back(whole, listener)
    return whole


def survey(run: Run) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """Models and cells by state (done, missing, failed), and what went wrong; makes nothing."""
    models = {"done": 0, "missing": 0, "failed": 0}
    cells = dict(models)
    failures: list[str] = []

    def count(states: dict[str, int], done: bool, *names: str | None) -> None:
        """One more model or cell; `names`: its own, then that of the inputs it needs."""
        found = [run.store.read_failure(name) for name in names if name] if not done else []
        reasons = [f"{one['task']}: {one['error']}" for one in found if one]
        states["done" if done else "failed" if reasons else "missing"] += 1
        failures.extend(reasons)

    known = set[Training]()
    for training in run.plan.trainings:
        with suppress(Damaged):  # it counts as missing
            if run.weights_of(training) is not None:
                known.add(training)
        count(models, training in known, run.model_digest(training))
    finished = run.store.cells()
    for cell in run.plan.cells:
        name = inputs = None
        if cell.training in known and (cell.surrogate is None or cell.surrogate in known):
            _, shared = run.identify(cell)
            name, inputs = run.digests[cell], shared.digest if shared else None
        count(cells, name in finished, name, inputs)
    return models, cells, tuple(dict.fromkeys(failures))
