"""Where tasks run when a Ray cluster runs them: on this machine's cores or on many machines.

Each task is one Ray task. Workers write their results straight into the store, so every node has to
see the store (a shared folder, or an fsspec URL) and the workspace under the same path, and has to
have robench installed. What many tasks read of it, weights and shared inputs, Ray brings to every
node once (sent.py). When a node dies, the tasks that it held are tried again elsewhere.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any

from robench.errors import RobenchError, system_words
from robench.make.pool import Failure, Told, WorkerDied, perform, prepare_worker, worn
from robench.make.sent import SHARE, Sent, at_hand
from robench.plugin_code import loading

HERE = "here"
"""The address that starts a cluster of this machine alone."""
HEAD, SILENT = 2.0, 20.0
"""Seconds that the cluster's head has to answer, and of silence until it counts as gone."""
LISTEN, LOOK = 0.5, 5.0
"""Seconds between two looks at what workers say, and at how large the cluster is."""


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
        if self._own:
            leaving = threading.Thread(target=self._ray.shutdown, daemon=True)
            leaving.start()
            leaving.join(timeout=self.patience)


def _of_all(nodes: list[dict[str, float]], what: str) -> float:
    """How much of a resource nodes have together."""
    return sum(node.get(what, 0.0) for node in nodes)


class OnRay:
    """A Pool (pool.py) whose workers are those of a Ray cluster."""

    def __init__(
        self, cluster: Cluster, told: Told, device: str, resources: dict[str, float]
    ) -> None:
        ray = cluster._ray
        self._cluster, self._device, self._ray = cluster, device, ray
        # Ray itself retries nothing: scheduler.py does, so that attempts are counted in one place.
        self._work = ray.remote(max_retries=0, **resources)(_work)
        self._messages = ray.remote(num_cpus=0, scheduling_strategy=_beside_the_driver(ray))(
            _Messages
        ).remote()
        self._told = told
        self._refs: dict[Future[Any], Any] = {}
        self._room = cluster.room()
        self._sent: Sent | None = None
        self._looked, self._slots = time.monotonic(), 2 * cluster.tasks_at_once(device)
        self._closed = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def slots(self) -> int:
        """Twice what the cluster runs at once: the next task is at hand when one is done."""
        return self._slots

    def submit(self, task: Any) -> Future[Any]:
        reads = getattr(task, "reads", [])
        if self._sent is None and reads:
            self._sent = Sent(self._ray, task.store, self._room)
        sent = self._sent.references(reads) if self._sent else {}
        work = self._work.options(name=task.label[:80])
        reference = work.remote(task, self._messages, [*sent], *sent.values())
        inner, future = reference.future(), Future[Any]()
        self._refs[future] = reference
        inner.add_done_callback(lambda done: self._done(future, done, reads))
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
        """Those that are done, once one is, or after so many seconds. Raises RobenchError when the
        cluster's head is gone."""
        done = wait(futures, seconds, FIRST_COMPLETED).done
        if not done:
            self._cluster.check_head()
        return done

    def _done(self, future: Future[Any], done: Future[Any], reads: list[str]) -> None:
        from ray.exceptions import RayTaskError

        if self._refs.pop(future, None) is None or self._closed.is_set():
            return
        error = done.exception()
        if error is None:
            found = done.result()
            if found is not None and found.damaged and self._sent is not None:  # made anew now
                self._sent.forget(reads)
            future.set_result(found)
        elif isinstance(error, RayTaskError):  # it never got as far as robench's own code
            text = str(error).strip().split("\n")[-1]
            future.set_result(Failure(type(error).__name__, text, str(error)))
        else:
            reason = str(error).strip().split("\n")[0]
            future.set_exception(WorkerDied(f"its worker on Ray died: {reason}"))

    def _listen(self) -> None:
        while not self._closed.wait(LISTEN):
            with suppress(Exception):  # whatever becomes of the messages, the work goes on
                for message in self._ray.get(self._messages.take.remote(), timeout=10):
                    self._told(*message)
                if time.monotonic() - self._looked > LOOK:  # here: without a head it never returns
                    self._looked = time.monotonic()
                    self._slots = 2 * self._cluster.tasks_at_once(self._device)

    def close(self) -> None:
        """With a limit: a cluster whose head is gone answers nothing."""
        self._closed.set()
        closing = threading.Thread(target=self._leave, daemon=True)
        closing.start()
        closing.join(timeout=self._cluster.patience)
        self._listener.join(timeout=2 * LISTEN)

    def _leave(self) -> None:
        for reference in list(self._refs.values()):
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        with suppress(Exception):
            self._ray.kill(self._messages)


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


class _Messages:
    """An actor that keeps what workers say until the driver asks for it: the latest of each."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float, str]] = {}

    def note(self, label: str, done: float, text: str) -> None:
        self._said[label] = (label, done, text)

    def take(self) -> list[tuple[str, float, str]]:
        said, self._said = list(self._said.values()), {}
        return said


def _work(task: Any, messages: Any, names: list[str], *sent: Any) -> Failure | None:
    """What a Ray worker does. `names`: of the files of the store whose bytes it was sent."""
    if worn():
        os._exit(1)  # the task is tried again in another
    prepare_worker()
    loading.refresh()  # this process may have run another's tasks before

    def tell(label: str, done: float, text: str) -> None:
        messages.note.remote(label, done, text)

    tell(task.label, 0.0, "")
    if not names:
        return perform(task, tell, every=LISTEN)
    with at_hand(task.store, dict(zip(names, sent, strict=True))):
        return perform(task, tell, every=LISTEN)
