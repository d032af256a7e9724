"""Short tasks on Ray are handed over several at a time, and long ones are not held up by that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from robench.make import cluster, ray_worker
from robench.make.cluster import HANDFUL, MOST, OnRay
from robench.make.pool import WorkerDied

WORKERS = 2


@dataclass(frozen=True)
class Work:
    """A task that counts how often it is done, and may take its time by a clock of its own."""

    label: str
    done: list[str] = field(default_factory=list, hash=False)
    spend: Callable[[], None] = lambda: None
    store = ""

    def run(self, tell: Any) -> None:
        self.spend()
        self.done.append(self.label)


class Said:
    """What workers say, as it is said."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.note = self.take = self.leave = self

    def remote(self, *said: Any) -> list[Any]:
        self.labels += said[:1]
        return []


class FakeActor:
    """A worker: those for whom there is room answer at once, others never."""

    def __init__(self, ray: FakeRay) -> None:
        self._ray, self.work = ray, self
        self.prepare = type("Prepare", (), {"remote": self._prepare})()

    def _prepare(self) -> Any:
        future: Future[Any] = Future()
        there = self._ray.there
        if self._ray.ill:
            future.set_exception(self._ray.ill.pop())
            return reference_to(future)
        if self not in there and len(there) < WORKERS:
            there.append(self)
        if self in there:
            future.set_result([])
        return reference_to(future)

    def options(self, name: str) -> FakeActor:
        return self

    def remote(self, *given: Any) -> Any:
        future: Future[Any] = Future()
        self._ray.handed.append((future, given))
        return reference_to(future)


def reference_to(future: Future[Any]) -> Any:
    reference = type("Reference", (), {})()
    reference.future = lambda: future
    return reference


class FakeRay:
    """Ray, as far as a pool asks for it: what is handed over stays until it is carried out."""

    def __init__(self) -> None:
        self.handed: list[tuple[Future[Any], tuple[Any, ...]]] = []
        self.there: list[FakeActor] = []
        self.ill: list[BaseException] = []
        """What comes of the next workers that are asked whether they are there."""

    def remote(self, **resources: Any) -> Any:
        return lambda worker: type("Worker", (), {"remote": lambda: FakeActor(self)})

    def kill(self, actor: Any) -> None:
        if actor in self.there:
            self.there.remove(actor)

    def get(self, what: Any, timeout: float) -> list[Any]:
        return []

    def carry_out(self) -> list[int]:
        """Everything that is handed over; sizes of what that was."""
        handed, self.handed = self.handed, []
        for future, given in handed:
            future.set_result(ray_worker.work(*given[:4]))
        return [len(given[0]) for _, given in handed]


class FakeCluster:
    patience = 1.0

    def __init__(self) -> None:
        self._ray, self.messages = FakeRay(), Said()
        self.idle: dict[str, list[Any]] = {}

    def tasks_at_once(self, device: str) -> int:
        return WORKERS

    def room(self) -> float:
        return 0.0

    def check_head(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time a worker thinks it is; a task of half a second adds that."""
    now = [100.0]
    monkeypatch.setattr("robench.make.ray_worker.time.monotonic", lambda: now[0])
    monkeypatch.setattr(cluster.threading.Thread, "start", lambda self: None)
    monkeypatch.setattr(cluster.threading.Thread, "join", lambda self, timeout=None: None)
    return now


def all_done(pool: OnRay, ray: FakeRay, tasks: list[Work]) -> list[int]:
    """Hand over all, as a scheduler does; sizes of what was handed over at a time."""
    ready, flying, sizes = list(tasks), set[Future[Any]](), list[int]()
    while ready or flying:
        while ready and len(flying) < pool.slots:
            flying.add(pool.submit(ready.pop(0)))
        flying -= pool.wait(flying, 0.0)
        sizes += ray.carry_out()
    return sizes


def taking(now: list[float], seconds: float) -> Callable[[], None]:
    def spend() -> None:
        now[0] += seconds

    return spend


def test_short_tasks_go_several_at_a_time_and_each_is_done_once(clock: list[float]) -> None:
    made, done = FakeCluster(), list[str]()
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    tasks = [Work(f"t{n}", done, taking(clock, 0.01)) for n in range(400)]
    sizes = all_done(pool, made._ray, tasks)
    assert sorted(done) == sorted(task.label for task in tasks)
    assert sum(sizes) == 400
    assert max(sizes) == MOST
    assert len(sizes) < 400 / 4
    assert sizes[-WORKERS:] == [1] * WORKERS, "at the end nobody waits for another's"


def test_long_tasks_go_one_by_one_and_no_more_than_are_worked_at(clock: list[float]) -> None:
    made, done = FakeCluster(), list[str]()
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    sizes = all_done(pool, made._ray, [Work(f"t{n}", done, taking(clock, 1.0)) for n in range(40)])
    assert sizes == [1] * 40
    assert pool.slots == 2 * WORKERS


def test_a_worker_gives_back_what_it_has_no_time_for(clock: list[float]) -> None:
    done: list[str] = []
    tasks = [Work(f"t{n}", done, taking(clock, 0.6 * HANDFUL)) for n in range(5)]
    made = ray_worker.work(tasks, HANDFUL, Said(), [])
    assert done == ["t0", "t1"]
    assert [failure for failure, _ in made] == [None, None]
    assert [seconds for _, seconds in made] == pytest.approx([0.6 * HANDFUL] * 2)


def test_long_tasks_behind_short_ones_are_given_back_and_done(clock: list[float]) -> None:
    made, done = FakeCluster(), list[str]()
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    tasks = [Work(f"s{n}", done, taking(clock, 0.01)) for n in range(100)]
    tasks += [Work(f"l{n}", done, taking(clock, 5.0)) for n in range(30)]
    all_done(pool, made._ray, tasks)
    assert sorted(done) == sorted(task.label for task in tasks)


def test_what_waits_behind_a_task_that_takes_its_time_is_done_by_others(
    clock: list[float],
) -> None:
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    flying = {pool.submit(Work(f"s{n}", done, taking(clock, 0.01))) for n in range(100)}
    for _ in range(3):
        flying -= pool.wait(flying, 0.0)
        ray.carry_out()
    flying -= pool.wait(flying, 0.0)
    busy = ray.handed.pop(0)  # nobody hears of it for long
    clock[0] += 2 * cluster.LATE
    held, later = {task.label for task in busy[1][0]}, list[Any]()
    while flying and len(done) < 100 - len(held):
        flying -= pool.wait(flying, 0.0)
        later += [pair for pair in ray.handed if pair[1][4] in made.messages.labels]
        ray.handed = [pair for pair in ray.handed if pair not in later]
        ray.carry_out()
    assert sorted(done) == sorted({f"s{n}" for n in range(100)} - held)
    ray.handed = [busy]
    ray.carry_out()
    assert not flying - pool.wait(flying, 0.0)
    assert later
    for answer, _ in later:  # of what was begun all the same its worker has died
        answer.set_exception(RuntimeError("died"))
    assert not pool.wait((), 0.0)
    assert not ray.there


def test_workers_with_nothing_to_do_leave_their_cores_and_others_come_for_what_is_new(
    clock: list[float],
) -> None:
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    all_done(pool, ray, [Work(f"s{n}", done, taking(clock, 0.01)) for n in range(20)])
    assert len(ray.there) == WORKERS
    clock[0] += cluster.IDLE + 1
    assert not pool.wait((), 0.0)
    assert not ray.there
    all_done(pool, ray, [Work(f"t{n}", done, taking(clock, 0.01)) for n in range(20)])
    assert len(done) == 40


def test_the_next_pool_has_the_workers_of_the_last_and_none_that_was_at_work(
    clock: list[float],
) -> None:
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    all_done(pool, ray, [Work(f"s{n}", done, taking(clock, 0.01)) for n in range(20)])
    idle = list(ray.there)
    pool.close()
    assert made.idle == {"cpu": idle}
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    for n in range(20):
        pool.submit(Work(f"t{n}", done, taking(clock, 0.01)))
    pool.wait((), 0.0)
    assert ray.there == idle
    assert ray.handed
    pool.close()
    assert made.idle == {"cpu": []}


def test_workers_that_died_between_two_pools_cost_no_task_an_attempt(clock: list[float]) -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed")
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    all_done(pool, ray, [Work(f"s{n}", done, taking(clock, 0.01)) for n in range(20)])
    pool.close()
    ray.ill = [exceptions.ActorDiedError() for _ in ray.there]
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    future = pool.submit(Work("t", done, taking(clock, 0.01)))
    while not future.done():
        pool.wait([future], 0.0)
        ray.carry_out()
    assert future.result() is None


def test_a_worker_that_could_not_be_prepared_is_given_nothing_more(clock: list[float]) -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed")
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    ray.ill = [exceptions.RayTaskError("prepare", "no cv2", ImportError("no cv2"))]
    futures = [pool.submit(Work(f"t{n}", done, taking(clock, 0.01))) for n in range(4)]
    ill = pool._workers[0]
    while not all(future.done() for future in futures):
        pool.wait(futures, 0.0)
        ray.carry_out()
    assert ill not in pool._workers
    failed = [failure for future in futures if (failure := future.result()) is not None]
    assert [failure.message for failure in failed] == ["no cv2"]
    assert len(done) == 3


def test_a_death_is_told_by_what_ray_knows_of_it() -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed")
    context = pytest.importorskip("ray.core.generated.common_pb2").ActorDiedErrorContext
    cause = context(pid=7, actor_id=bytes(16), error_message="Its node has died.\nNode: n")
    unknown = exceptions.RayTaskError("__init__", "at\nImportError: no robench\n", ImportError())
    assert cluster._why(exceptions.ActorDiedError(cause)) == "Its node has died."
    assert cluster._why(exceptions.ActorDiedError(unknown)) == "ImportError: no robench"
    assert cluster._why(exceptions.ActorDiedError()) == exceptions.ActorDiedError.BASE_ERROR_MSG
    assert cluster._why(RuntimeError("one\nother")) == "one"


def test_workers_end_with_the_connection_to_a_cluster_that_goes_on() -> None:
    ended = list[str]()
    left: Any = object.__new__(cluster.Cluster)
    left._own, left.patience, left.idle = False, 10.0, {"cpu": ["one", "other"], "cuda": ["third"]}
    left._ray = type("Ray", (), {"kill": ended.append})
    left.close()
    assert ended == ["one", "other", "third"]


def test_nothing_goes_on_in_a_process_that_is_worn(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(ray_worker, "worn", lambda: "a patch" if done else None)
    assert len(ray_worker.work([Work(f"t{n}", done) for n in range(3)], 1.0, Said(), [])) == 1
    assert done == ["t0"]


def test_workers_that_are_worn_are_replaced_and_no_task_counts_as_tried(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = FakeCluster(), list[str]()
    pool, ray = OnRay(made, lambda *said: None, "cpu", {}), made._ray  # type: ignore[arg-type]
    futures = {pool.submit(Work(f"t{n}", done, taking(clock, 0.01))) for n in range(20)}
    pool.wait(futures, 0.0)
    before = list(ray.there)
    assert len(ray.handed) == WORKERS
    with monkeypatch.context() as patched:
        patched.setattr(ray_worker, "worn", lambda: "a patch")
        ray.carry_out()
    assert not done
    flying = set(futures)
    while flying:
        flying -= pool.wait(flying, 0.0)
        ray.carry_out()
    assert not set(before) & set(ray.there)
    assert sorted(done) == sorted(f"t{n}" for n in range(20))
    assert [future.result() for future in futures] == [None] * 20


def test_of_a_handful_that_dies_each_task_is_tried_by_itself(clock: list[float]) -> None:
    """The one that ends its worker is an attempt of its own, those beside it are not."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    made, done = FakeCluster(), list[str]()
    pool = OnRay(made, lambda *said: None, "cpu", {})  # type: ignore[arg-type]
    flying = {pool.submit(Work(f"t{n}", done, taking(clock, 0.01))) for n in range(40)}
    made._ray.carry_out()
    flying -= pool.wait(flying, 0.0)
    dying = [given for given in made._ray.handed if len(given[1][0]) > 1]
    assert dying
    lost = {task.label for _, given in dying for task in given[0]}
    made._ray.handed = [given for given in made._ray.handed if given not in dying]
    for future, _ in dying:
        future.set_exception(RuntimeError("the worker died"))
    died = 0
    while flying:
        over = pool.wait(flying, 0.0)
        died += sum(isinstance(future.exception(), WorkerDied) for future in over)
        flying -= over
        again = [given for given in made._ray.handed if {t.label for t in given[1][0]} & lost]
        assert all(len(given[0]) == 1 for _, given in again)
        for pair in again[: 1 - died]:
            pair[0].set_exception(RuntimeError("the worker died"))
            made._ray.handed.remove(pair)
        made._ray.carry_out()
    assert died == 1
