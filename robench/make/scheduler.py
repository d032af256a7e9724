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
from contextlib import closing, suppress
from typing import Any

from robench.errors import RobenchError
from robench.make.attack_batch import AttackBatch
from robench.make.batches import has_batch
from robench.make.identity import Shared
from robench.make.keeping import KeepImages, Task
from robench.make.pool import Failure, Pool, Told, WorkerDied
from robench.make.progress import Terminal
from robench.make.run_state import Run, read_back, read_one
from robench.make.tasks import Evaluate, MakeInputs, Train
from robench.make.workers import Inline, Processes, may_copy
from robench.plugin_code.loading import held_still
from robench.store.leases import LOOK, Leases
from robench.store.store import Damaged
from robench.workspace.plan import Cell, Training

ATTEMPTS = 3
"""How often a task is tried when the process or the machine that runs it dies under it."""


@held_still()
def execute(
    run: Run, listener: Terminal, jobs: int = 0, start: Callable[[Told], Pool] | None = None
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


def _execute(run: Run, listener: Terminal, jobs: int, start: Callable[[Told], Pool] | None) -> None:
    for last in (False, True):  # a second round makes again what was set aside as damaged
        pool = start(listener.told) if start else _pool(run, jobs, listener.told)
        leases = Leases(run.store.files, listener.note)
        scheduler = _Scheduler(run, listener, pool, leases, last)
        with closing(leases), closing(pool):
            scheduler.work()
        if read_back(run, listener.note) and scheduler.sound:
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


def _cell_of(task: Task) -> str:
    """The digest of the cell that a batch is of."""
    return task.evaluation.digest if isinstance(task, AttackBatch) else ""


class _Scheduler:
    """Submits tasks as soon as what they need is there, and no other run is at them."""

    def __init__(
        self, run: Run, listener: Terminal, pool: Pool, leases: Leases, last: bool
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
        self.parted: dict[str, set[str]] = {}
        """Of each cell whose attack is asked about its batches apart, those still to be made."""
        self.unread: deque[str] = deque()
        """Cells that are finished and not read back yet: that is done while others work."""
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
                done = self.pool.wait(self.flying, 0.0 if self.unread else LOOK)
                if not done and self.unread:
                    self.sound &= read_one(self.run, self.unread.popleft(), self.listener.note)
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
            self.pool.wait((), 0.0)  # others may be waiting for what it holds

    def _take(self, task: Task) -> None:
        """Do a task, unless another run does it or has done it."""
        if isinstance(task, AttackBatch):  # its cell is ours
            if has_batch(self.run.store, task.evaluation.digest, task.start):
                self._batch_made(task)
            else:
                self._fly(task)
            return
        if not self.leases.holds(task.digest):
            if not self._is_there(task) and not self.leases.take(task.digest, task.label):
                self.elsewhere.append(task)
                return
            if self._is_there(task):
                self.leases.release(task.digest)
                self._made_elsewhere(task)
                return
        if not self._parts(task):
            self._fly(task)

    def _parts(self, task: Task) -> bool:
        """Whether a cell is left to several workers, batch by batch: where some of them have, or
        will soon have, nothing else to do, so that it is one of the last. Each worker has a task at
        hand beside the one that it is at. The cell is put together once all are made."""
        if not isinstance(task, Evaluate) or task.digest in self.parted:
            return False
        batches = sum(map(len, self.parted.values()))
        workers, others = self.pool.workers, len(self.ready) + len(self.flying) - batches
        if workers < 2 or others >= 2 * workers or len(task.batches) < 2:
            return False
        parts = [AttackBatch(task, start) for start in task.batches]
        self.parted[task.digest] = {part.digest for part in parts}
        self.ready += parts
        return True

    def _batch_made(self, batch: AttackBatch) -> None:
        missing = self.parted[batch.evaluation.digest]
        missing.discard(batch.digest)
        if not missing:
            self.ready.appendleft(batch.evaluation)

    def _batch_done(self, batch: AttackBatch, failure: Failure | None) -> None:
        """One that fails is the end of its cell."""
        cell = batch.evaluation
        if failure is None:
            self._batch_made(batch)
        elif cell.digest not in self.run.failures:
            self.ready = deque(task for task in self.ready if _cell_of(task) != cell.digest)
            self.leases.release(cell.digest)
            self.listener.finished(cell, failure)
            self._failed(cell, failure)

    def _is_there(self, task: Task) -> bool:
        store = self.run.store
        if isinstance(task, Train):
            return store.has("models", task.digest)
        if isinstance(task, MakeInputs):
            return store.has("inputs", task.digest)
        if isinstance(task, KeepImages):
            return store.has("images", task.evaluation.digest)
        return store.has("cells", task.digest)

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
        if isinstance(task, AttackBatch):
            self._batch_done(task, failure)
            return
        self.listener.finished(task, failure)
        if failure is not None:
            self._failed(task, failure)
        else:
            self._made(task)

    def _made(self, task: Task) -> None:
        if isinstance(task, Evaluate):
            self.cells.add(task.digest)
            self.unread.append(task.digest)
        self._over(task)

    def _over(self, task: Task) -> None:
        self._release(task.training if isinstance(task, Train) else task.digest)

    def _failed(self, task: Task, failure: Failure) -> None:
        self.run.store.write_failure(
            task.digest,
            {"task": task.label, "error": failure.short, "traceback": failure.traceback},
        )
        self.run.failures[task.digest] = failure.short
        if isinstance(task, Train):
            self.run.lost[task.training] = failure.short
        self._over(task)

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
        """Submit what the cell needs next."""
        if self._waits(cell):
            return
        try:
            self._submit_next(cell)
        except Damaged as damaged:  # since a moment ago
            self.listener.note(str(damaged))
            self.sound = False
        else:
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
        for training in cell.trainings:
            if training in run.weights:
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
            and not run.store.has("inputs", inputs.digest)
            and inputs.digest not in run.failures
        ):
            self._need_inputs(cell, inputs)  # they were made while they were used
            return
        if name in self.cells or name in self.submitted or name in run.failures:
            self.listener.found("failed" if name in run.failures else "cell")
            self.unread.append(name)
            return
        if inputs is None or run.streams(cell) or run.store.has("inputs", inputs.digest):
            self._submit(run.evaluation(cell, cell_identity, inputs))
        else:
            self._need_inputs(cell, inputs)

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
