"""A dear cell on several workers: batch by batch, with the bits that it has in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from small_runs import Ears, carry_out, outcomes

from robench.make import scheduler
from robench.make.attack_batch import AttackBatch
from robench.make.batches import read_batches
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.make.tasks import Evaluate
from robench.store.store import Store
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]
REPORT = """
title = "A cell of three batches"
models = ["{model}"]
attacks = ["one"]
images = 40
batch_size = 15
draws = 2
diagnostics = false
"""
CARD = """
attack = {attack}
access = "{access}"
norm = "{norm}"
eps = 0.1
{more}
"""
STARTS = [0, 15, 30]


def cell_of(
    small: Workspace,
    write: Write,
    attack: str = '{ name = "pgd", steps = 5 }',
    access: str = "white-box",
    norm: str = "linf",
    more: str = "",
    model: str = "small",
) -> Evaluate:
    """The task that evaluates the attack's cell of a report whose model is trained."""
    write("attacks/one.toml", CARD.format(attack=attack, access=access, norm=norm, more=more))
    write("reports/parted.toml", REPORT.format(model=model))
    carry_out(small, "parted", only=("clean",))
    run = open_run(make_plan(small, "parted"), Store(small.root / ".robench"), "cpu")
    for training in run.plan.trainings:
        run.weights_of(training)
    (cell,) = (cell for cell in run.plan.cells if cell.threat.name == "one")
    return run.evaluation(cell, *run.identify(cell))


def nothing(done: float, text: str) -> None:
    pass


ATTACKS = [
    ('{ name = "fgsm" }', "white-box", "linf", ""),
    ('{ name = "pgd", steps = 5, restarts = 2 }', "white-box", "linf", ""),
    ('{ name = "apgd", steps = 8, loss = "margin", targets = 2 }', "white-box", "l2", ""),
    ('{ name = "dim", steps = 4, precision = "bfloat16" }', "white-box", "linf", ""),
    ('{ name = "square", queries = 30 }', "score", "linf", ""),
    ('{ name = "nattack", iterations = 3, population = 8 }', "score", "linf", ""),
    ('{ name = "fab", steps = 5 }', "white-box", "linf", ""),
    ('{ name = "foolbox", attack = "LinfPGD", steps = 3 }', "white-box", "linf", ""),
    ('{ name = "exact", seconds = 1 }', "weights", "linf", 'role = "proof"'),
]


@pytest.mark.parametrize(("attack", "access", "norm", "more"), ATTACKS)
def test_batches_that_are_attacked_apart_give_the_bits_of_one_piece(
    small: Workspace, write: Write, attack: str, access: str, norm: str, more: str
) -> None:
    task = cell_of(small, write, attack, access, norm, more)
    whole = task.evaluate()
    assert list(task.batches) == STARTS
    for start in reversed(STARTS):
        AttackBatch(task, start).run(nothing)
    store = Store(task.store)
    assert list(read_batches(store, task.digest, STARTS)) == STARTS
    task.run(nothing)
    made = store.read_cell(task.digest)
    assert made.digest == whole.digest
    for what in ("loss_trace", "loss_runs"):
        assert made.provenance[what] == whole.provenance[what]
    assert not list((small.root / ".robench/batches").iterdir())


def test_noisy_models_keep_their_draws(small: Workspace, write: Write) -> None:
    write(
        "models/noisy.toml",
        'dataset = "digits"\nnetwork = { name = "mlp", hidden = [16], sigma = 0.3 }\n'
        'trainer = { name = "bp", epochs = 1 }\ninference_noise = true\n',
    )
    task = cell_of(small, write, '{ name = "pgd", steps = 4, eot = 3 }', model="noisy")
    whole = task.evaluate()
    assert task.identity["draws"] == 2
    for start in STARTS:
        AttackBatch(task, start).run(nothing)
    task.run(nothing)
    assert Store(task.store).read_cell(task.digest).digest == whole.digest


def test_batches_of_a_run_that_was_stopped_are_not_made_again(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robench.attacks.gradient import PGD

    task = cell_of(small, write)
    AttackBatch(task, 15).run(nothing)
    asked: list[int] = []
    plain = PGD.perturb

    def perturb(self: PGD, target: Any, x: Any, *more: Any) -> Any:
        asked.append(len(x))
        return plain(self, target, x, *more)

    monkeypatch.setattr(PGD, "perturb", perturb)
    task.run(nothing)
    assert asked == [15, 10]


def test_a_damaged_batch_is_made_again(small: Workspace, write: Write) -> None:
    task = cell_of(small, write)
    whole = task.evaluate()
    AttackBatch(task, 15).run(nothing)
    (file,) = (small.root / ".robench/batches").iterdir()
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    task.run(nothing)
    assert Store(task.store).read_cell(task.digest).digest == whole.digest


def test_what_looks_at_the_whole_slice_is_not_parted(small: Workspace, write: Write) -> None:
    goal = 'goal = "targeted"\naim = 3'
    assert not len(cell_of(small, write, more=goal).batches)
    near = "nearest = { halvings = 2, images = 4 }"
    assert not len(cell_of(small, write, more=near).batches)


def test_what_a_strangers_attack_is_left_with_is_looked_at_in_one_piece(
    small: Workspace, write: Write
) -> None:
    write(
        "attacks/still.py",
        "from robench import Attack\n\n\nclass Still(Attack):\n"
        "    def perturb(self, target, x, y, rng):\n        return x\n",
    )
    assert not len(cell_of(small, write, '{ name = "./still.py:Still" }').batches)


@pytest.fixture
def flown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of tasks that were handed to workers."""
    seen: list[str] = []
    plain = scheduler._Scheduler._fly

    def fly(self: Any, task: Any) -> None:
        seen.append(type(task).__name__)
        plain(self, task)

    monkeypatch.setattr(scheduler._Scheduler, "_fly", fly)
    return seen


@pytest.mark.parametrize("jobs", [2, 3])
def test_idle_workers_share_a_cell_and_its_bits_stay(
    small: Workspace, write: Write, flown: list[str], jobs: int
) -> None:
    alone = cell_of(small, write).evaluate().digest
    flown.clear()
    run, ears = carry_out(small, "parted", jobs=jobs)
    assert flown.count("AttackBatch") == len(STARTS)
    assert ears.done.count("small seed 0 x one") == 1
    assert outcomes(run)["small seed 0 x one"] == alone


def test_the_last_cell_is_shared_though_others_are_still_at_work(
    small: Workspace, write: Write, flown: list[str]
) -> None:
    """Two workers have two tasks each in hand when it is looked at."""
    alone = cell_of(small, write).evaluate().digest
    text = (small.root / "reports/parted.toml").read_text()
    write("reports/parted.toml", text.replace('["one"]', '["before*", "one"]'))
    for number in range(3):
        goal = f'goal = "targeted"\naim = {number}'  # which nobody parts
        write(f"attacks/before{number}.toml", CARD.format(
            attack='"fgsm"', access="white-box", norm="linf", more=goal,
        ))  # fmt: skip
    flown.clear()
    run, ears = carry_out(small, "parted", jobs=2)
    assert flown[:4] == ["Evaluate"] * 3 + ["AttackBatch"]
    assert not ears.failed
    assert outcomes(run)["small seed 0 x one"] == alone


def test_images_are_kept_of_a_parted_cell_too(
    small: Workspace, write: Write, flown: list[str]
) -> None:
    cell_of(small, write)
    flown.clear()
    run, _ = carry_out(small, "parted", jobs=2, keep_images=True)
    assert "AttackBatch" in flown
    (name,) = (name for cell, name in run.digests.items() if cell.threat.name == "one")
    payload, about = run.store.read_images(name)
    assert about["outcome"] == run.store.read_cell(name).digest
    images = safetensors.numpy.load(payload)["images"]
    assert len(images) == 40


def test_one_worker_parts_nothing(small: Workspace, write: Write, flown: list[str]) -> None:
    cell_of(small, write)
    flown.clear()
    carry_out(small, "parted", jobs=1)
    carry_out(small, "parted", jobs=0)
    assert "AttackBatch" not in flown


def test_a_batch_that_fails_is_one_failure_of_its_cell(small: Workspace, write: Write) -> None:
    write("attacks/one.toml", CARD.format(
        attack='{ name = "pgd", keep = "last" }', access="white-box", norm="linf",
        more="max_queries = 5",
    ))  # fmt: skip
    write("reports/parted.toml", REPORT.format(model="small"))
    run, ears = carry_out(small, "parted", jobs=2)
    (label,) = ears.failed
    assert label == "small seed 0 x one"
    assert "max_queries = 5" in ears.failed[label].message
    assert [cell.threat.name for cell in run.digests if run.digests[cell] in run.failures] == [
        "one"
    ]


def test_a_second_run_finds_a_parted_cell_done(small: Workspace, write: Write) -> None:
    cell_of(small, write)
    carry_out(small, "parted", jobs=2)
    run = open_run(make_plan(small, "parted"), Store(small.root / ".robench"), "cpu")
    ears = Ears()
    execute(replace(run), ears, 2)
    assert not ears.done
    assert ears.kept == len(run.plan.cells) + len(run.plan.trainings)
