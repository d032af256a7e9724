"""The same work on Ray: the same bits, and what a dying node takes with it is done again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_runs import Ears, carry_out, outcomes

from robench.cli import _with_ray_address
from robench.errors import RobenchError
from robench.make.cluster import Cluster
from robench.make.run_state import Run, open_run
from robench.make.scheduler import ATTEMPTS, execute
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]
CORES = 2  # of each simulated node
HEAD = {
    "num_cpus": CORES,
    "include_dashboard": False,
    "object_store_memory": 10**8,
    # Ray's workers give way to all else (nice 15): on a busy machine an import takes minutes.
    "_system_config": {"worker_niceness": 0},
}

SLOW_ATTACK = """
import time
from pathlib import Path
import ray
import torch
from robench import Attack

class Slow(Attack):
    number: int = 0
    log: str
    nodes: int = 1
    def perturb(self, target, x, y, rng):
        log = Path(self.log)
        for word in ("begin", "end") if log.exists() else ():
            with log.open("a") as file:
                file.write(f"{word} {self.number} {ray.get_runtime_context().get_node_id()}\\n")
            time.sleep(2.0 if word == "begin" else 0)
            while len({line.split()[2] for line in log.read_text().splitlines()}) < self.nodes:
                time.sleep(0.05)
        return target.ball.project(x + 0.2 * torch.rand(x.shape, generator=rng) - 0.1, x)
"""


def slow_attacks(small: Workspace, write: Write, tasks: int, images: int, nodes: int = 1) -> Path:
    """A report of so many attacks, each of which logs its beginning and its end; the log. None ends
    before so many nodes are at work."""
    log = small.root.parent / f"{small.root.name}.txt"  # in the workspace it would be declared
    log.touch()
    write("attacks/slow.py", SLOW_ATTACK)
    for number in range(tasks):
        write(
            f"attacks/slow{number}.toml",
            f'attack = {{ name = "./slow.py:Slow", number = {number}, log = "{log}", '
            f"nodes = {nodes} }}\n"
            'access = "white-box"\neps = 0.1\n',
        )
    write(
        "reports/small.toml",
        f'title = "t"\nmodels = ["small"]\nattacks = ["slow*"]\nimages = {images}\n'
        "diagnostics = false\n",
    )
    return log


def test_ray_takes_an_address_or_none() -> None:
    for words, meant in (
        (["run", "--ray"], ["run", "--ray=here"]),
        (["run", "--ray", "quickstart"], ["run", "--ray=here", "quickstart"]),
        (["run", "--ray", "-j", "2"], ["run", "--ray=here", "-j", "2"]),
        (["run", "--ray", "auto"], ["run", "--ray", "auto"]),
        (["run", "x", "--ray", "10.0.0.1:6379"], ["run", "x", "--ray", "10.0.0.1:6379"]),
    ):
        assert _with_ray_address(words) == meant


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RobenchError, match=r"--ray: .*; pip install 'robench\[ray\]'"):
        Cluster("auto")


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[Any]]:
    """The Ray cluster that the tests share, if there is one: its workers import torch."""
    made: list[Any] = []
    yield made
    for cluster in made:
        end(cluster)


def started() -> Any:
    """A Ray cluster of one node, CORES cores, in processes of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(initialize_head=True, head_node_args=HEAD)
    connect(made)
    return made


def end(cluster: Any, lost: bool = False) -> None:
    """A driver that waits for an answer of the cluster leaves when there is none to come."""
    import ray

    if lost:
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    ray.shutdown()
    cluster.shutdown()


def connect(cluster: Any) -> None:
    import ray

    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level="error",
        # What is defined here is imported there.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )


@pytest.fixture
def nodes(clusters: list[Any]) -> Iterator[Any]:
    """The cluster; nodes that a test adds are gone after it. Where a driver has lost its view of
    the cluster, the next test gets another."""
    if not clusters:
        clusters.append(started())
    (cluster,) = clusters
    yield cluster
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node)
    if not is_as_before():
        end(clusters.pop(), lost=True)


def is_as_before() -> bool:
    """Whether the driver sees CORES cores within a minute. It may see nothing for good, or wait
    for ever for an answer."""
    import ray

    def look() -> None:
        while not leave.is_set() and ray.cluster_resources().get("CPU") != CORES:
            time.sleep(0.05)

    leave = threading.Event()
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(60)
    leave.set()
    return not looking.is_alive()


def on_ray(workspace: Workspace) -> tuple[Run, Ears]:
    cluster = Cluster("auto")
    run = open_run(make_plan(workspace, "small"), Store(workspace.root / ".robench"), "cpu")
    ears = Ears()
    execute(run, ears, start=lambda told: cluster.pool(told, "cpu"))
    return run, ears


@pytest.mark.slow
def test_inline_processes_and_ray_give_the_same_bits(
    nodes: Any, small: Workspace, write: Write
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/small.toml", text + "seeds = [0, 1]\n")
    write("models/broken.toml", text.replace("lr = 1e-2", 'lr = 1e30, optimizer = "sgd"'))
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('["small"]', '["small", "broken"]'),
    )
    here, ears = carry_out(small)
    digests, failed = outcomes_of(here), set(ears.failed)
    for name, way in (
        ("processes", lambda: carry_out(small, jobs=2)),
        ("ray", lambda: on_ray(small)),
    ):
        (small.root / ".robench").rename(small.root / f"before-{name}")
        run, ears = way()
        assert outcomes_of(run) == digests, name
        assert set(ears.failed) == failed == {"train broken seed 0"}
    _, again = on_ray(small)
    assert again.done == []


def outcomes_of(run: Run) -> dict[str, str]:
    return {
        cell.label: run.store.read_cell(name).digest
        for cell, name in run.digests.items()
        if run.store.has("cells", name)
    }


@pytest.mark.rows(0)
@pytest.mark.slow
def test_a_node_that_dies_costs_the_tasks_that_it_held_and_nothing_else(
    nodes: Any, small: Workspace, write: Write
) -> None:
    """A second node is killed once work is under way on it. Every task logs its beginning and its
    end, so that what is done twice can be counted."""
    doomed = nodes.add_node(num_cpus=CORES, object_store_memory=10**8)
    nodes.wait_for_nodes()
    tasks = 24
    log = slow_attacks(small, write, tasks, images=40, nodes=2)

    def lines(word: str, where: str = "") -> Counter[str]:
        found = (line.split() for line in log.read_text().splitlines())
        return Counter(n for said, n, node in found if said == word and where in node)

    def kill_in_the_middle() -> None:
        held, done = lambda word: lines(word, doomed.node_id).total(), lambda: lines("end").total()
        while done() < 2 * CORES or held("end") < 1 or held("begin") == held("end"):
            if over.wait(0.05):
                return
        nodes.remove_node(doomed, allow_graceful=False)

    over = threading.Event()
    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    run, ears = on_ray(open_workspace(small.root))
    over.set()
    killer.join()
    assert not ears.failed
    assert len(outcomes(run)) == tasks + 1
    again = {number: times for number, times in lines("begin").items() if times > 1}
    print(f"{tasks} tasks, begun twice: {len(again)}")
    assert set(lines("end")) == {str(number) for number in range(tasks)}
    assert 0 < len(again) <= CORES, "only what the dead node held is done twice"
    assert all(times == 2 for times in again.values())
    assert max(Counter(ears.done).values()) == 1
    log.unlink()
    (small.root / ".robench").rename(small.root / "on-ray")
    assert outcomes(carry_out(open_workspace(small.root), jobs=2)[0]) == {
        cell.label: Store(small.root / "on-ray").read_cell(name).digest
        for cell, name in run.digests.items()
    }


DIES = """
import os
import signal
from pathlib import Path
from robench import Attack

class Dies(Attack):
    log: str
    always: bool = False
    def perturb(self, target, x, y, rng):
        log = Path(self.log)
        begun = log.read_text().count("begin") if log.exists() else 0
        with log.open("a") as file:
            file.write("begin\\n")
        if self.always or not begun:
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


@pytest.mark.rows(0)
@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_own_task_and_no_other(
    nodes: Any, small: Workspace, write: Write
) -> None:
    write("attacks/dies.py", DIES)
    yes = {"once": "false", "always": "true"}
    beside = small.root.parent  # what is read in the workspace would have to be declared
    logs = {name: beside / f"{small.root.name}-{name}.txt" for name in yes}
    for name, log in logs.items():
        write(
            f"attacks/{name}.toml",
            f'attack = {{ name = "./dies.py:Dies", log = "{log}", always = {yes[name]} }}\n'
            'access = "white-box"\neps = 0.1\n',
        )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["once", "always", "fgsm"]\nimages = 20\n'
        "diagnostics = false\n",
    )
    run, ears = on_ray(open_workspace(small.root))
    assert {name: log.read_text().count("begin") for name, log in logs.items()} == {
        "once": 2,
        "always": ATTEMPTS,
    }
    (why,) = ears.failed.values()
    assert set(ears.failed) == {"small seed 0 x always"}
    assert "its worker on Ray died" in why.short
    assert f"tried {ATTEMPTS} times" in why.message
    assert set(outcomes_of(run)) == {f"small seed 0 x {name}" for name in ("clean", "once", "fgsm")}


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.parametrize("what", ["its records", "all of it"])
def test_a_head_that_is_killed_is_one_error_and_nothing_is_lost(
    small: Workspace, write: Write, what: str
) -> None:
    """The driver is a process of its own: Ray may end it."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(initialize_head=True, head_node_args=HEAD)
    log = slow_attacks(small, write, 24, images=20)
    driver = subprocess.Popen(
        [sys.executable, "-m", "robench", "run", "small", "--ray", made.address],
        cwd=small.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while log.read_text().count("end") < 3:
            assert driver.poll() is None
            time.sleep(0.1)
        if what == "its records":
            made.head_node.kill_gcs_server(check_alive=False)
        else:
            made.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        _, said = driver.communicate(timeout=300)
    finally:
        driver.kill()
        made.shutdown()
    assert driver.returncode == 2, said
    assert said.count("error") == 1, said
    assert "is gone" in said
    assert "run the same command to continue" in said
    assert "Traceback" not in said
    store = Store(small.root / ".robench")
    finished = {name: store.read_cell(name).digest for name in store.cells()}
    assert 0 < len(finished) < 25
    log.unlink()
    _, ears = carry_out(open_workspace(small.root))
    assert len(ears.done) == 25 - len(finished)
    assert {name: store.read_cell(name).digest for name in finished} == finished


@pytest.mark.rows(0)
@pytest.mark.slow
def test_tasks_share_a_gpu_as_they_are_told_to(nodes: Any) -> None:
    nodes.add_node(num_cpus=4, num_gpus=1, object_store_memory=10**8)
    nodes.wait_for_nodes()
    assert Cluster("auto", gpu_share=0.25).tasks_at_once("cuda") == 4
    assert Cluster("auto", gpu_share=1.0).tasks_at_once("cuda") == 1
    assert Cluster("auto").tasks_at_once("cpu") == CORES + 4
    assert Cluster("auto").has_gpu
    pool = Cluster("auto", gpu_share=0.25).pool(lambda *said: None, "cuda")
    seen = pool.submit(Sees())
    wait_for(pool, [seen], 120)
    pool.close()
    seen = seen.result(timeout=0)
    assert seen.message == "0", "the device that Ray gave to the task"


@pytest.mark.rows(0)
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_as_many_tasks_as_share_a_gpu_run_at_once_and_no_more(
    nodes: Any, tmp_path: Path, share: float
) -> None:
    """The GPU is a number that a node of this machine says; each task waits until as many have
    begun as may, so that fewer would wait for ever."""
    nodes.add_node(num_cpus=6, num_gpus=1, object_store_memory=10**8)
    nodes.wait_for_nodes()
    at_once = round(1 / share)
    log = tmp_path / "log.txt"
    log.touch()
    pool = Cluster("auto", gpu_share=share).pool(lambda *said: None, "cuda")
    futures = [pool.submit(Meets(str(log), number, at_once)) for number in range(2 * at_once)]
    wait_for(pool, futures, 180)
    assert [future.result(timeout=0) for future in futures] == [None] * len(futures)
    pool.close()
    running, most = 0, 0
    for line in log.read_text().splitlines():
        running += 1 if line == "begin" else -1
        most = max(most, running)
    assert (running, most) == (0, at_once)


def wait_for(pool: Any, futures: list[Any], seconds: float) -> None:
    until, flying = time.monotonic() + seconds, set(futures)
    while flying and time.monotonic() < until:
        flying -= pool.wait(flying, 1.0)


@dataclass(frozen=True)
class Meets:
    """A task that ends once so many of its like have begun: its own group of that many."""

    log: str
    number: int
    at_once: int
    digest, group, time_limit = "", "meets", None

    @property
    def label(self) -> str:
        return f"meets {self.number}"

    def run(self, tell: Any) -> None:
        log = Path(self.log)

        def note(word: str) -> int:
            with log.open("a") as file:
                file.write(f"{word}\n")
            return log.read_text().count("begin")

        place = note("begin")
        wanted = self.at_once * -(-place // self.at_once)
        while log.read_text().count("begin") < wanted:
            time.sleep(0.02)
        note("end")


class Sees:
    """A task that fails with the GPUs it sees."""

    label, digest, group, time_limit = "sees", "", "sees", None

    def run(self, tell: Any) -> None:
        import os

        raise RobenchError(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


COUNTED = '''
"""A store in a folder that many machines see; whoever reads a file is written down."""

import os

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


class Counted(LocalFileSystem):
    protocol = ("counted",)

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(str(path).removeprefix("counted://"))

    def cat_file(self, path, *args, **kwargs):
        with open("LOG", "a") as file:
            file.write(f"{os.getpid()} {path}\\n")
        return super().cat_file(path, *args, **kwargs)

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        return AbstractFileSystem.pipe_file(self, path, value)
'''
REGISTERED = 'import fsspec\nfsspec.register_implementation("counted", "counted_files.Counted")\n'
DRIVER = """
import sys
from pathlib import Path
from small_runs import Ears
from robench.make.cluster import Cluster
from robench.make.scheduler import execute
from robench.workspace.plan import make_plan
from robench.make.run_state import open_run
from robench.store.store import Store
from robench.workspace.folders import open_workspace

workspace = open_workspace(Path(sys.argv[1]))
cluster = Cluster(sys.argv[2])
run = open_run(make_plan(workspace, "small"), Store(sys.argv[3]), "cpu")
ears = Ears()
execute(run, ears, start=lambda told: cluster.pool(told, "cpu"))
assert not ears.failed, ears.failed
print(len(ears.done))
cluster.close()
"""


@pytest.mark.rows(0)
@pytest.mark.slow
def test_weights_and_shared_inputs_are_sent_to_every_node_once(
    nodes: Any, small: Workspace, write: Write, tmp_path: Path
) -> None:
    """Whatever number of nodes there is, of workers there and of cells that need them: no worker
    reads them, and the run does once (weights twice: it looks at their digest before)."""
    write("models/other.toml", (small.root / "models/small.toml").read_text().replace("16", "8"))
    write("corruptions/c.toml", 'corruption = { name = "imagenet-c", kinds = ["contrast"] }\n'
          "severities = [1, 2]\n")  # fmt: skip
    write(
        "attacks/moved.toml",
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "small"\neps = 0.1\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small", "other"]\nattacks = ["fgsm", "noise", "moved"]\n'
        'corruptions = ["c"]\nimages = 20\ndiagnostics = false\n',
    )
    library, log, root = tmp_path / "library", tmp_path / "reads.txt", tmp_path / "store"
    library.mkdir()
    (library / "counted_files.py").write_text(COUNTED.replace("LOG", str(log)))
    (library / "sitecustomize.py").write_text(REGISTERED)
    nodes.add_node(num_cpus=CORES, object_store_memory=10**8)
    nodes.wait_for_nodes()
    path = os.pathsep.join([str(library), str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(small.root), nodes.address, f"counted://{root}"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert driver.returncode == 0, driver.stderr
    assert driver.stdout == "17\n", "2 trainings, 3 shared inputs, 2 x 6 cells"
    read = [line.split() for line in log.read_text().splitlines()]
    shared = [(process, name) for process, name in read if name.endswith(".safetensors")]
    assert {process for process, _ in shared} == {read[0][0]}, "of all processes only the run"
    times = Counter(name for _, name in shared)
    assert {Path(name).parent.name: number for name, number in times.items()} == {
        "models": 2,
        "inputs": 1,
    }
    assert len(times) == 5
