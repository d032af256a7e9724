"""Plugins that misbehave: the cell fails with its reason, the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import safetensors.torch
import torch
from pages import embedded_data
from small_runs import Ears, carry_out, outcomes

from robench.digest import canonical
from robench.make.describe import describe
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.plugin_code import time_limit
from robench.show.report.folder import write_report
from robench.show.results import load_results
from robench.store.seal import sealed, tensors_digest
from robench.store.store import Store
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]

NETWORKS = """
import torch
from robench.networks.mlp import MLP

class WrongShape(MLP):
    def forward(self, x):
        logits = super().forward(x)
        return logits if self.training else logits[:, :3]

class NoTensor(MLP):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, x) if len(x) == 20 else logits

class NanLogits(MLP):
    def forward(self, x):
        logits = super().forward(x)
        return logits if self.training else logits / 0

class NanGradient(MLP):
    def forward(self, x):
        return super().forward(x) + 0 * (x - x).sqrt().sum()

class Exits(MLP):
    def forward(self, x):
        if len(x) == 20:
            raise SystemExit("I leave")
        return super().forward(x)
"""
TRAINERS = """
import torch
from robench import Trainer
from robench.trainers.bp import BP

class LeavesNan(BP):
    def fit(self, network, data, rng, progress):
        history = super().fit(network, data, rng, progress)
        with torch.no_grad():
            next(network.parameters()).fill_(torch.nan)
        return history

class Diverges(BP):
    def loss(self, network, x, y, rng):
        return super().loss(network, x, y, rng) * torch.inf

class NoCurves(Trainer):
    def fit(self, network, data, rng, progress):
        return None

class OddCurves(Trainer):
    def fit(self, network, data, rng, progress):
        return [{"loss": float("nan"), "validation_accuracy": 0.1}, {"loss": 1.0}]

class Unprintable(Trainer):
    def fit(self, network, data, rng, progress):
        class Odd(Exception):
            def __str__(self):
                raise ValueError
        raise Odd

class Surrogates(Trainer):
    def fit(self, network, data, rng, progress):
        raise ValueError("<b>\\udcff</b>")
"""
ATTACKS = """
import os
import time
from robench import Attack

class Sleeps(Attack):
    def perturb(self, target, x, y, rng):
        while True:
            time.sleep(1000)

class Clings(Attack):
    def perturb(self, target, x, y, rng):
        while True:
            try:
                time.sleep(1000)
            except Exception:
                pass

class Deaf(Attack):
    def perturb(self, target, x, y, rng):
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

class Dies(Attack):
    def perturb(self, target, x, y, rng):
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def bad(small: Workspace, write: Write) -> Callable[..., Workspace]:
    """The small workspace with misbehaving plugins: `networks` and `trainers` make a model each,
    `attacks` an attack each."""
    write("models/networks.py", NETWORKS)
    write("models/trainers.py", TRAINERS)
    write("attacks/attacks.py", ATTACKS)

    def make(
        networks: tuple[str, ...] = (),
        trainers: tuple[str, ...] = (),
        attacks: tuple[str, ...] = (),
        seconds: float = 0.2,
    ) -> Workspace:
        good = (small.root / "models/small.toml").read_text()
        for name in networks:
            named = good.replace('"mlp"', f'"./networks.py:{name}"')
            write(f"models/{name.lower()}.toml", named)
        for name in trainers:
            named = good.replace('"bp"', f'"./trainers.py:{name}"')
            write(f"models/{name.lower()}.toml", named)
        for name in attacks:
            write(
                f"attacks/{name.lower()}.toml",
                f'attack = "./attacks.py:{name}"\naccess = "white-box"\neps = 0.1\n'
                f"time_limit = {seconds}\n",
            )
        write(
            "reports/small.toml",
            f'title = "t"\nmodels = {[n.lower() for n in ("small", *networks, *trainers)]}\n'
            f"attacks = {['fgsm', *[n.lower() for n in attacks]]}\nimages = 20\n"
            "diagnostics = false\n",
        )
        return small

    return make


def why(run: Any) -> dict[tuple[str, str], str | None]:
    """(model, threat) -> why there is no outcome; None: there is one."""
    return {(c["model"], c["threat"]): c["error"] for c in describe(run, "")["cells"]}


def test_networks_that_answer_wrongly_fail_their_cells_and_no_others(
    bad: Callable[..., Workspace], tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = bad(networks=("WrongShape", "NoTensor", "NanLogits", "NanGradient", "Exits"))
    run, ears = carry_out(workspace)
    said = why(run)
    assert said["small", "clean"] is said["small", "fgsm"] is None
    for threat in ("clean", "fgsm"):
        assert "answers (20, 3) where logits (20, 10) are" in str(said["wrongshape", threat])
        assert "answers NaN or infinite logits" in str(said["nanlogits", threat])
        assert "SystemExit: I leave" in str(said["exits", threat])
    assert "answers tuple where logits (20, 10) are expected" in str(said["notensor", "clean"])
    assert said["nangradient", "clean"] is None
    assert said["nangradient", "fgsm"] is None, "an attack without gradients stands in"
    assert not any("Traceback" in str(reason) for reason in said.values())

    run.store.write_run("small", describe(run, ""))
    folder = tmp_path_factory.mktemp("page")
    page = write_report(load_results(run.store, "small"), folder).read_text()
    told = page + json.dumps(embedded_data(page))
    for reason in ("where logits (20, 10) are expected", "NaN or infinite gradients", "I leave"):
        assert reason in told
    _, again = carry_out(workspace)
    assert set(again.failed) == set(ears.failed), "what failed is tried again, what is done is not"


def test_trainers_that_fail_say_why_and_no_weights_of_theirs_are_kept(
    bad: Callable[..., Workspace], tmp_path_factory: pytest.TempPathFactory
) -> None:
    failing = ("LeavesNan", "Diverges", "NoCurves", "Unprintable", "Surrogates")
    workspace = bad(trainers=(*failing, "OddCurves"))
    run, ears = carry_out(workspace)
    said = {name: ears.failed[f"train {name.lower()} seed 0"].short for name in failing}
    assert "left NaN or infinite values" in said["LeavesNan"]
    assert "training diverged: loss is inf in epoch 1" in said["Diverges"]
    assert "'./trainers.py:NoCurves': fit returned NoneType, not a list" in said["NoCurves"]
    assert "cannot be printed" in said["Unprintable"]
    assert why(run)["small", "fgsm"] is why(run)["oddcurves", "fgsm"] is None
    assert len(list(Path(run.store.url).glob("models/*"))) == 2

    run.store.write_run("small", describe(run, ""))
    results = load_results(run.store, "small")
    odd = next(model for model in results.models if model["name"] == "oddcurves")
    curves = {"epoch": 1, "validation_accuracy": 0.1}
    assert odd["seeds"][0]["history"][0].items() >= curves.items()
    page = write_report(results, tmp_path_factory.mktemp("page")).read_text()
    assert "training diverged" in page
    assert "<b>" not in page


def test_stored_weights_that_are_nan_are_not_believed(small: Workspace) -> None:
    run, _ = carry_out(small)
    path = next((small.root / ".robench/models").iterdir())
    metadata = run.store.read_model(path.stem)[1]
    state = {name: value * torch.nan for name, value in safetensors.torch.load_file(path).items()}
    metadata["tensors"] = tensors_digest(safetensors.torch.save(state))
    path.write_bytes(safetensors.torch.save(state, {"robench": canonical(sealed(metadata))}))
    _, ears = carry_out(small)
    assert {failure.short for failure in ears.failed.values()} == {
        "the network answers NaN or infinite logits"
    }


@pytest.mark.parametrize("attack", ["Sleeps", "Clings"])
def test_an_attack_that_never_asks_and_never_returns_is_ended(
    bad: Callable[..., Workspace], attack: str
) -> None:
    run, ears = carry_out(bad(attacks=(attack,)))
    said = why(run)
    assert "ran past its time_limit of 0.2 s" in str(said["small", attack.lower()])
    assert said["small", "fgsm"] is None
    assert len(ears.failed) == 1


def test_what_hangs_for_good_or_dies_takes_no_other_cell_with_it(
    bad: Callable[..., Workspace],
) -> None:
    """In worker processes: an attack deaf to every exception, and one that kills its process."""
    workspace = bad(attacks=("Deaf", "Dies"), seconds=0.5)
    run, ears = carry_out(workspace, jobs=2)
    said = why(run)
    ended = "ran past its time_limit of 0.5 s; it had to be ended with its process"
    assert ended in str(said["small", "deaf"])
    assert "its worker process died, signal 9 (out of memory?); tried 3 times" in str(
        said["small", "dies"]
    )
    assert said["small", "clean"] is said["small", "fgsm"] is None
    assert len(ears.failed) == 2


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    import time

    with time_limit.until(time.monotonic() + 0.02):
        pass
    time.sleep(0.05)
    with time_limit.until(None), time_limit.until(float("inf")):
        pass
    with pytest.raises(time_limit.OutOfTime), time_limit.until(time.monotonic() - 1):
        time.sleep(1000)


class Cut:
    """A listener that interrupts after the first result."""

    def __init__(self) -> None:
        self.ears = Ears()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ears, name)

    def finished(self, task: Any, failure: Any) -> None:
        self.ears.finished(task, failure)
        raise KeyboardInterrupt


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_an_interrupted_run_keeps_what_is_finished(small: Workspace, jobs: int) -> None:
    store = Store(small.root / ".robench")
    run, cut = open_run(make_plan(small, "small"), store, "cpu"), Cut()
    with pytest.raises(KeyboardInterrupt):
        execute(run, cut, jobs)
    again, ears = carry_out(small)
    assert len(cut.ears.done) == 1
    assert cut.ears.done[0] not in ears.done
    assert len(outcomes(again)) == 3
