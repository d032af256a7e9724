"""Where tasks run when a Ray cluster runs them: on this machine's cores or on many machines.

A worker is a Ray actor with a core of its own, which does task after task. Workers write results
straight into the store, so every node has to see the store (a shared folder, or an fsspec URL) and
the workspace under the same path, and has to have robench installed. What many tasks read of it,
weights and shared inputs, Ray brings to every node once (sent.py). When a node dies, the tasks that
it held are tried again elsewhere.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from robench.errors import RobenchError, system_words
from robench.make.pool import Failure, Told, WorkerDied
from robench.make.ray_worker import LISTEN, Messages, Worker
from robench.make.sent import SHARE, Sent

HERE = "here"
"""The address that starts a cluster of this machine alone."""
HEAD, SILENT = 2.0, 20.0
"""Seconds that the cluster's head has to answer, and of silence until it counts as gone."""
LOOK = 5.0
"""Seconds between two looks at how large the cluster is."""
HANDFUL, MOST = 0.25, 8
"""Seconds of work, and tasks, that are handed over at a time, at most."""
LATE = 1.0
"""Seconds without an answer of a worker after which what waits for it is done by others."""
IDLE = 10.0
"""Seconds that a worker with nothing to do keeps its core."""
LATEST = 0.2
"""How much a task counts in what tasks took of late."""

_Flight = tuple[Any, Future[Any]]
"""A task, and what is to come of it."""


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: as ray.init takes it ("auto", "10.0.0.1:6379", "ray://..."); "here": this machine.
        cores: cores used of this machine; with another address the cluster says how many.
        gpu_share: share of a GPU that one task takes, when the device is CUDA.

    Raises RobenchError when Ray is not installed or does not answer.
    """

    def __init__(self, address: str, cores: int | None = None, gpu_share: float = 1.0) -> None:
        try:
            import ray
        except ImportError as error:
            raise RobenchError(f"--ray: {error}; pip install 'robench[ray]'") from None
        self._ray: Any = ray
        self._gpu_share = gpu_share
        self._own = not ray.is_initialized()
        if self._own:
            passed = ("ROBENCH_DATA", "PYTHONPATH")
            env = {name: os.environ[name] for name in passed if name in os.environ}
            settings: dict[str, Any] = {
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", **env}},
                "log_to_driver": False,
                "logging_level": "error",
            }
            where: dict[str, Any] = {"num_cpus": cores} if address == HERE else {"address": address}
            if address == HERE:
                where["include_dashboard"] = False
            try:
                ray.init(**where, **settings)
            except Exception as error:  # Ray fails in many types of its own
                reason = str(error).strip().split("\n")[0]
                raise RobenchError(f"--ray {address}: cannot be reached: {reason}") from None

        self._nodes: list[dict[str, float]] = []
        self._asking: threading.Thread | None = None
        self.idle: dict[str, list[Any]] = {}
        """By device: workers that are there, and that no pool has in use."""
        self._head = _address_of_head(ray)
        self._answered = time.monotonic()
        self.patience = SILENT
        """Seconds that the cluster gets to answer when it is left."""

    @property
    def has_gpu(self) -> bool:
        return _of_all(self._seen(), "GPU") >= self._gpu_share

    def tasks_at_once(self, device: str) -> int:
        """How many tasks the cluster runs at once, as large as it is now."""
        nodes = self._seen()
        tasks = _of_all(nodes, "CPU")
        if device.startswith("cuda"):
            tasks = min(tasks, _of_all(nodes, "GPU") / self._gpu_share)
        return max(1, int(tasks))

    def room(self) -> float:
        """Bytes that may be sent to the nodes at a time; 0: there is one node, which reads the
        store."""
        nodes = self._seen()
        if len(nodes) < 2:
            return 0.0
        return SHARE * float(min(node.get("object_store_memory", 0) for node in nodes))

    def _seen(self) -> list[dict[str, float]]:
        """What each node has, as it last said: Ray says nothing at all of a cluster that it has
        lost sight of, or is never done with asking."""
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, daemon=True)
            self._asking.start()
        self._asking.join(HEAD if self._nodes else SILENT)
        return self._nodes

    def _ask(self) -> None:
        with suppress(Exception):  # without a head: check_head says so
            found = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._nodes = found or self._nodes

    @cached_property
    def messages(self) -> Any:
        """What keeps what workers say: one process for all pools, as long as anybody holds it."""
        strategy = _beside_the_driver(self._ray)
        return self._ray.remote(num_cpus=0, scheduling_strategy=strategy)(Messages).remote()

    def pool(self, told: Told, device: str) -> OnRay:
        """A pool for one run."""
        gpus = self._gpu_share if device.startswith("cuda") else 0
        return OnRay(self, told, device, {"num_cpus": 1, "num_gpus": gpus})

    def check_head(self) -> None:
        """Raises RobenchError when nobody has answered where the head was for SILENT seconds. Ray
        itself would wait for a minute, and then end the process."""
        if not self._head:
            return
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD).close()
            self._answered = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._answered > SILENT:
                self.patience = HEAD
                raise RobenchError(
                    f"--ray: the head of the cluster at {self._head} is gone: "
                    f"{system_words(error)}; what is finished is kept: run the same command to "
                    "continue"
                ) from None

    def close(self) -> None:
        """Leave the cluster; one that was started here ends. Without a head it may not answer."""
        leaving = threading.Thread(target=self._leave, daemon=True)
        leaving.start()
        leaving.join(timeout=self.patience)

    def _leave(self) -> None:
        workers = [actor for actors in self.idle.values() for actor in actors]
        self.idle.clear()
        if self._own:
            self._ray.shutdown()
            return
        for actor in workers:  # Ray ends those that nobody holds, which takes until Python looks
            with suppress(Exception):
                self._ray.kill(actor)


def _of_all(nodes: list[dict[str, float]], what: str) -> float:
    """How much of a resource nodes have together."""
    return sum(node.get(what, 0.0) for node in nodes)


@dataclass(eq=False)
class _Call:
    """What a worker is asked for, and what comes of it."""

    worker: _Worker
    flights: list[_Flight]
    """A handful; none: the worker says that it is there, or others do it by now."""
    reads: list[str]
    name: str
    made: Future[Any]


@dataclass(eq=False)
class _Worker:
    actor: Any
    known: bool
    """Whether it did its work in a pool before this one."""
    calls: deque[_Call] = field(default_factory=deque)
    """In the order in which it does them."""
    there: bool = False
    """Whether it has answered: until then the cluster may have no room for it."""
    since: float = field(default_factory=time.monotonic)
    """When it last answered, or had nothing to do before it was asked."""

    @property
    def late(self) -> bool:
        return bool(self.calls) and time.monotonic() - self.since > LATE


class OnRay:
    """A Pool (pool.py) whose workers are those of a Ray cluster: actors, which keep their core, and
    are sent one call after the other. Ray's own tasks ask for a core every half second anew, and
    where there are several nodes one of them stays without for seconds.

    What Ray and its driver do for a call takes milliseconds. Where tasks are short, they are handed
    over several at a time: a handful, of which a worker does what it can in HANDFUL seconds
    (ray_worker.py), while the next is on its way. Each is saved when it is done, as ever.

    Everything but listening happens in the thread that calls.
    """

    def __init__(
        self, cluster: Cluster, told: Told, device: str, resources: dict[str, float]
    ) -> None:
        ray = cluster._ray
        self._cluster, self._device, self._ray = cluster, device, ray
        # Ray itself retries nothing: scheduler.py does, so that attempts are counted in one place.
        options = {"max_restarts": 0, "max_task_retries": 0, **resources}
        self._actor = ray.remote(**options)(Worker)
        self._messages = cluster.messages
        self._told = told
        self._waiting: deque[_Flight] = deque()
        """What is not handed over yet."""
        self._workers: list[_Worker] = []
        self._name, self._calls = uuid.uuid4().hex, count()
        self._news: SimpleQueue[_Call] = SimpleQueue()
        """Calls that are over, and have not been looked at."""
        self._over: set[Future[Any]] = set()
        """What is done, and has not been waited for."""
        self._alone: set[Future[Any]] = set()
        """Of handfuls of which nothing came: each is handed over by itself."""
        self._seconds = inf
        """What tasks took of late, on average."""
        self._room = cluster.room()
        self._sent: Sent | None = None
        self._looked, self.workers = time.monotonic(), cluster.tasks_at_once(device)
        self._idle = cluster.idle.setdefault(device, [])
        while self._idle:
            self._add(self._idle.pop(), known=True)
        self._closed = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def slots(self) -> int:
        """Twice what the cluster runs at once: the next task is at hand when one is done. Of short
        tasks twice as many handfuls, too."""
        return 2 * self.workers * (1 + 2 * min(MOST, int(HANDFUL / self._seconds)))

    def submit(self, task: Any) -> Future[Any]:
        future = Future[Any]()
        self._waiting.append((task, future))
        self._hand_out()
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Those that are done, once one is, or after so many seconds. Raises RobenchError when the
        cluster's head is gone."""
        until = time.monotonic() + seconds
        self._hear_all()
        self._take_back()
        self._let_go()
        self._hand_out()
        with suppress(Empty):
            while not self._over and (left := until - time.monotonic()) > 0:
                self._hear(self._news.get(timeout=left))
        self._hear_all()
        done, self._over = self._over, set()
        if not done and seconds:
            self._cluster.check_head()
        return done

    # -- workers -----------------------------------------------------------------------------------

    def _add(self, actor: Any, known: bool = False) -> None:
        worker = _Worker(actor, known)
        self._workers.append(worker)
        self._call(worker, actor.prepare.remote())

    def _call(
        self,
        worker: _Worker,
        reference: Any,
        flights: Sequence[_Flight] = (),
        reads: Sequence[str] = (),
        name: str = "",
    ) -> None:
        call = _Call(worker, [*flights], [*reads], name, reference.future())
        if not worker.calls:
            worker.since = time.monotonic()
        worker.calls.append(call)
        call.made.add_done_callback(lambda _: self._news.put(call))

    def _drop(self, worker: _Worker, error: BaseException | None = None) -> None:
        """It is worn or, with an error, dead: then it died of the first thing that it was asked for
        and did not do. What came after that was not begun."""
        self._workers.remove(worker)
        with suppress(Exception):
            self._ray.kill(worker.actor)
        for call in worker.calls:
            if call.made.done() and call.made.exception() is None:
                self._made(call, call.made.result())
            elif error is not None:
                self._lost(call, error)
                error = None
            else:
                self._waiting.extendleft(reversed(call.flights))

    def _let_go(self) -> None:
        """Leave cores to others that nothing has been done on for a while."""
        for worker in [] if self._waiting else list(self._workers):
            asked = any(call.flights for call in worker.calls)
            if not asked and time.monotonic() - worker.since > IDLE:
                self._drop(worker)

    def _take_back(self) -> None:
        """What waits behind a task that takes its time."""
        for worker in self._workers:
            last = worker.calls[-1] if len(worker.calls) > 1 else None
            if last is not None and last.flights and worker.late:
                self._messages.leave.remote(last.name)
                self._waiting.extendleft(reversed(last.flights))
                last.flights.clear()  # it may be done all the same: its answer is waited for

    # -- what they are sent, and what comes of it --------------------------------------------------

    def _hand_out(self) -> None:
        """As much as keeps everybody at work until there is an answer. Behind a task that takes its
        time nothing waits: another might have time for it."""
        at_hand = 2 if self._seconds < HANDFUL else 1
        while self._waiting:
            free = [
                worker
                for worker in self._workers
                if worker.there and len(worker.calls) < (1 if worker.late else at_hand)
            ]
            if not free:
                break
            self._hand_over(min(free, key=lambda worker: len(worker.calls)))
        # More than there is room for: they begin as soon as nodes join, or others leave some.
        coming = sum(not worker.there for worker in self._workers)
        while coming < len(self._waiting) and len(self._workers) < 2 * self.workers:
            self._add(self._actor.remote())
            coming += 1

    def _handful(self) -> list[_Flight]:
        """The next of what waits: a fair share, so that nobody has to wait for another's."""
        share = min(MOST, len(self._waiting) // (2 * self.workers))
        taken = [self._waiting.popleft()]
        while len(taken) < share and not self._alone & {taken[0][1], self._waiting[0][1]}:
            taken.append(self._waiting.popleft())
        return taken

    def _hand_over(self, worker: _Worker) -> None:
        flights = self._handful()
        tasks = [task for task, _ in flights]
        reads = list({name: None for task in tasks for name in getattr(task, "reads", [])})
        if self._sent is None and reads:
            self._sent = Sent(self._ray, tasks[0].store, self._room)
        sent = self._sent.references(reads) if self._sent else {}
        work = worker.actor.work.options(name=tasks[0].label[:80])
        name = f"{self._name} {next(self._calls)}"
        made = work.remote(tasks, HANDFUL, self._messages, sent, name)
        self._call(worker, made, flights, reads, name)

    def _hear_all(self) -> None:
        with suppress(Empty):
            while True:
                self._hear(self._news.get_nowait())

    def _hear(self, call: _Call) -> None:
        """And see that its worker has something to do again."""
        worker, error = call.worker, call.made.exception()
        if call not in worker.calls or worker not in self._workers:
            return
        if error is not None and not (call.flights and _is_of_the_task(error)):
            # Of one that died since the last pool no task has to be the end.
            self._drop(worker, None if worker.known and not worker.there else error)
        else:
            worker.calls.remove(call)
            worker.there, worker.since = True, time.monotonic()
            if error is not None:
                self._lost(call, error)
            elif not self._made(call, call.made.result()):
                self._drop(worker)
        self._hand_out()

    def _made(self, call: _Call, found: list[tuple[Failure | None, float]]) -> bool:
        """Tell what came of a handful; what there was no time for waits again. False: the worker
        does nothing any more."""
        for (task, future), (failure, seconds) in zip(call.flights, found, strict=False):
            last = self._seconds if self._seconds < inf else seconds
            self._seconds = last + (seconds - last) * LATEST
            self._told(task.label, 1.0, "", seconds)
            if failure is not None and failure.damaged and self._sent is not None:
                self._sent.forget(call.reads)  # made anew now
            future.set_result(failure)
            self._over.add(future)
        self._waiting.extendleft(reversed(call.flights[len(found) :]))
        return bool(found) or not call.flights

    def _lost(self, call: _Call, error: BaseException) -> None:
        """Nothing came of it. A worker that never answered took one of the tasks that wait for it
        with it, so that there is an end to that."""
        flights = call.flights
        if not call.worker.there and self._waiting:
            flights = [self._waiting.popleft()]
        if len(flights) > 1:  # nobody knows at which of them
            self._alone |= {future for _, future in flights}
            self._waiting.extendleft(reversed(flights))
            return
        for _, future in flights:
            if _is_of_the_task(error):  # it never got as far as robench's own code
                text = str(error).strip().split("\n")[-1]
                future.set_result(Failure(type(error).__name__, text, str(error)))
            else:
                future.set_exception(WorkerDied(f"its worker on Ray died: {_why(error)}"))
            self._over.add(future)

    def _listen(self) -> None:
        while not self._closed.wait(LISTEN):
            with suppress(Exception):  # whatever becomes of the messages, the work goes on
                for message in self._ray.get(self._messages.take.remote(), timeout=10):
                    self._told(*message)
                if time.monotonic() - self._looked > LOOK:  # here: without a head it never returns
                    self._looked = time.monotonic()
                    self.workers = self._cluster.tasks_at_once(self._device)

    def close(self) -> None:
        """Whoever is at work ends; the others are at hand for the next pool. With a limit: a
        cluster whose head is gone answers nothing."""
        self._closed.set()
        self._idle += [worker.actor for worker in self._workers if not worker.calls]
        busy = [worker.actor for worker in self._workers if worker.calls]
        closing = threading.Thread(target=self._end, args=[busy], daemon=True)
        closing.start()
        closing.join(timeout=self._cluster.patience)
        self._listener.join(timeout=2 * LISTEN)

    def _end(self, actors: list[Any]) -> None:
        for actor in actors:
            with suppress(Exception):
                self._ray.kill(actor)


def _is_of_the_task(error: BaseException) -> bool:
    """Whether it was raised while the worker lived on."""
    from ray.exceptions import RayTaskError

    return isinstance(error, RayTaskError)


def _why(error: BaseException) -> str:
    """What Ray says of a death, in a line. Its first line is the same for all actors; where one
    could not even begin, the last says what was raised."""
    from ray.exceptions import RayActorError

    said = str(error).split("\n")
    lines = [line for line in said if line.strip() and not line.startswith("\t")] or [""]
    if isinstance(error, RayActorError):
        lines = lines[-1:] if error.actor_init_failed else lines[1:] or lines
    return lines[0].strip()


def _address_of_head(ray: Any) -> str:
    """host:port; empty where this process is none of the cluster's (ray://)."""
    with suppress(Exception):
        return str(ray.get_runtime_context().gcs_address)
    return ""


def _beside_the_driver(ray: Any) -> Any:
    """Where it lives as long as the driver does, if that is one of the cluster's nodes."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node, soft=True)
