"""Runs: what is missing is made, what is there is kept, one failure stops nothing else."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from small_runs import Ears, carry_out, outcomes

from robench.errors import RobenchError
from robench.make import trained
from robench.make.describe import describe
from robench.make.run_state import open_run, survey
from robench.make.scheduler import execute
from robench.make.workers import Inline
from robench.networks.base import Network
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]


def test_a_run_trains_then_evaluates_and_a_second_one_does_nothing(small: Workspace) -> None:
    run, ears = carry_out(small)
    assert ears.done == [
        "train small seed 0",
        *(f"small seed 0 x {t}" for t in ("clean", "fgsm", "noise")),
    ]
    again, ears = carry_out(small)
    assert ears.done == []
    assert ears.kept == 4
    assert outcomes(again) == outcomes(run)


def test_results_do_not_depend_on_the_number_of_processes(
    small: Workspace, tmp_path_factory: pytest.TempPathFactory, write: Write
) -> None:
    write("models/small.toml", (small.root / "models/small.toml").read_text() + "seeds = [0, 1]\n")
    here = outcomes(carry_out(small)[0])
    (small.root / ".robench").rename(small.root / "before")
    assert outcomes(carry_out(small, jobs=2)[0]) == here


def test_what_is_finished_is_read_back_while_others_work(small: Workspace) -> None:
    run = open_run(make_plan(small, "small"), Store(small.root / ".robench"), "cpu")
    ears, unread = Ears(), list[int]()

    class OthersWork(Inline):
        """A pool of which nothing is done yet when it is only looked at."""

        slots = 2

        def wait(self, futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
            if not seconds:
                return set()
            cells = [label for label in ears.done if not label.startswith("train")]
            unread.append(len(cells) - len(run.outcomes.digests))
            return super().wait(list(futures)[:1], seconds)

    execute(run, ears, start=OthersWork)
    assert len(ears.done) == 4
    assert unread == [0] * 4


def test_only_what_matches_is_done(small: Workspace) -> None:
    _, ears = carry_out(small, only=("fgsm",))
    assert ears.done == ["train small seed 0", "small seed 0 x fgsm"]
    with pytest.raises(RobenchError, match="--only zzz: matches no model or threat"):
        make_plan(small, "small", ("zzz",))


BROKEN = """
from robench import Attack

class Broken(Attack):
    norms = ("linf",)
    def perturb(self, target, x, y, rng):
        raise ValueError("I am broken")
"""


def test_a_failing_cell_does_not_stop_the_run_and_is_tried_again(
    small: Workspace, write: Write
) -> None:
    write("attacks/broken.py", BROKEN)
    write("attacks/broken.toml", 'attack = "./broken.py:Broken"\naccess = "white-box"\neps = 0.1\n')
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('"fgsm"', '"broken"'),
    )
    run, ears = carry_out(small)
    assert list(ears.failed) == ["small seed 0 x broken"]
    assert "small seed 0 x noise" in ears.done
    manifest = describe(run, "robench run small")
    states = {cell["threat"]: (cell["status"], cell["error"]) for cell in manifest["cells"]}
    assert states["broken"] == ("failed", "ValueError: I am broken (broken.py:7 in perturb)")
    assert states["noise"][0] == "done"
    models, cells, failures = survey(run)
    assert (models["done"], cells["done"], cells["failed"]) == (1, 2, 1)
    assert "I am broken" in failures[0]

    write("attacks/broken.py", BROKEN.replace('raise ValueError("I am broken")', "return x"))
    for module in [name for name in sys.modules if name.endswith("attacks.broken")]:
        del sys.modules[module]
    _, ears = carry_out(small)
    assert ears.done == ["small seed 0 x broken"]


def test_a_model_that_cannot_be_trained_fails_its_cells_only(
    small: Workspace, write: Write
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/worse.toml", text.replace("lr = 1e-2", 'lr = 1e30, optimizer = "sgd"'))
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('["small"]', '["worse", "small"]'),
    )
    run, ears = carry_out(small)
    assert "diverged" in ears.failed["train worse seed 0"].short
    cells = {(c["model"], c["threat"]): c for c in describe(run, "")["cells"]}
    assert "could not be trained" in cells["worse", "fgsm"]["error"]
    assert cells["small", "fgsm"]["status"] == "done"


def test_a_damaged_cell_is_set_aside_and_made_again(small: Workspace) -> None:
    run, _ = carry_out(small)
    before = outcomes(run)
    path = next((small.root / ".robench" / "cells").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-30])
    again, ears = carry_out(small)
    assert len(ears.done) == 1
    assert "set aside" in ears.notes[0]
    assert outcomes(again) == before


def test_damaged_weights_are_trained_again_to_the_same_bits(small: Workspace) -> None:
    run, _ = carry_out(small)
    path = next((small.root / ".robench" / "models").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:100])
    again, ears = carry_out(small)
    assert ears.done == ["train small seed 0"]
    assert again.weights == run.weights


def test_two_cards_with_the_same_training_train_once(small: Workspace, write: Write) -> None:
    write(
        "models/twin.toml",
        (small.root / "models/small.toml").read_text() + "inference_noise = true\n",
    )
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('["small"]', '["small", "twin"]'),
    )
    for jobs in (1, 2):
        _, ears = carry_out(small, jobs=jobs)
        assert sum(label.startswith("train") for label in ears.done) == 1
        assert "twin seed 0 x fgsm" in ears.done
        (small.root / ".robench").rename(small.root / f"before{jobs}")


def test_transfer_crafts_once_on_the_surrogate_and_scores_on_every_victim(
    small: Workspace, write: Write
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/source.toml", text.replace("[16]", "[8]"))
    write("models/other.toml", text.replace("[16]", "[12]"))
    write(
        "attacks/moved.toml",
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\neps = 0.1\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small", "other"]\nattacks = ["moved"]\nimages = 40\n',
    )
    run, ears = carry_out(small)
    assert ears.done.count("make moved") == 1
    rows = [
        run.store.read_cell(run.digests[cell]).rows
        for cell in run.plan.cells
        if cell.threat.name == "moved"
    ]
    assert rows[0]["input"].equals(rows[1]["input"])
    assert not rows[0]["predictions"].equals(rows[1]["predictions"])
    assert rows[0]["gradients"].to_pylist()[0] == 1.0


def test_a_transfer_matrix_makes_examples_on_every_model_and_scores_them_on_all(
    small: Workspace, write: Write
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/other.toml", text.replace("[16]", "[12]"))
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small", "other"]\ntransfer = ["fgsm"]\nimages = 40\n'
        "diagnostics = false\n",
    )
    run, ears = carry_out(small)
    crossed = [f"fgsm from {model}" for model in ("other", "small")]
    assert sorted(threat.name for threat in run.plan.threats) == ["clean", *crossed]
    assert [ears.done.count(f"make {name}") for name in crossed] == [1, 1]
    used = {cell.surrogate.card.name for cell in run.plan.cells if cell.surrogate}
    assert used == {"small", "other"}
    assert all(threat.attack.role == "diagnostic" for threat in run.plan.threats[1:])


@pytest.mark.parametrize(
    "card",
    [
        'attack = "square"\naccess = "score"\neps = 0.1\n',
        'attack = "fgsm"\naccess = "white-box"\neps = [0.1, 0.2]\n',
    ],
)
def test_a_transfer_matrix_is_made_by_a_white_box_attack_with_one_eps(
    card: str, small: Workspace, write: Write
) -> None:
    write("attacks/odd.toml", card)
    write("reports/small.toml", 'title = "t"\nmodels = ["small"]\ntransfer = ["odd"]\n')
    with pytest.raises(RobenchError, match=r"reports/small.toml: transfer = 'odd'"):
        make_plan(small, "small")


def test_transfer_between_data_sets_is_refused(small: Workspace, write: Write) -> None:
    write(
        "attacks/moved.toml",
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\neps = 0.1\n',
    )
    text = (small.root / "models/small.toml").read_text()
    write("models/source.toml", text.replace('"digits"', '{ name = "digits", split = "7:3" }'))
    write(
        "reports/small.toml", 'title = "t"\nmodels = ["small"]\nattacks = ["moved"]\nimages = 40\n'
    )
    with pytest.raises(RobenchError, match="transfer needs one data set"):
        make_plan(small, "small")


def test_more_images_than_the_test_split_holds_are_refused(small: Workspace, write: Write) -> None:
    write(
        "reports/small.toml", (small.root / "reports/small.toml").read_text().replace("40", "99999")
    )
    with pytest.raises(RobenchError, match="images = 99999: the smallest test split has 540"):
        carry_out(small)


def test_a_noisy_model_is_drawn_several_times_and_a_still_one_once(
    small: Workspace, write: Write
) -> None:
    write(
        "models/twin.toml",
        (small.root / "models/small.toml").read_text() + "inference_noise = true\n",
    )
    write(
        "reports/small.toml",
        (small.root / "reports/small.toml").read_text().replace('["small"]', '["small", "twin"]'),
    )
    run, _ = carry_out(small)
    draws = {
        (cell.training.card.name, cell.threat.name): len(
            run.store.read_cell(name).rows["predictions"][0]
        )
        for cell, name in run.digests.items()
    }
    assert draws["small", "fgsm"] == 1
    assert draws["twin", "fgsm"] == draws["twin", "clean"] == 2
    assert draws["small", "clean"] == 2, "whether it is deterministic is looked at once"


WAITS = """
import time
from pathlib import Path
from robench import Attack

class Waits(Attack):
    def perturb(self, target, x, y, rng):
        while not Path(__file__).with_name("go").exists():
            time.sleep(0.02)
        return x
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_run_continues_to_the_same_outcomes(
    small: Workspace, write: Write
) -> None:
    """Killed with a cell finished, and unable to finish them all: one attack waits for a file."""
    write(
        "models/small.toml", (small.root / "models/small.toml").read_text() + "seeds = [0, 1, 2]\n"
    )
    write("attacks/waits.py", WAITS)
    write("attacks/waits.toml", 'attack = "./waits.py:Waits"\naccess = "white-box"\neps = 0.1\n')
    report = (small.root / "reports/small.toml").read_text()
    write("reports/small.toml", report.replace('"noise"', '"noise", "waits"'))
    gate = small.root / "attacks/go"
    gate.touch()
    whole = outcomes(carry_out(open_workspace(small.root))[0])
    gate.unlink()
    (small.root / ".robench").rename(small.root / "before")
    copied = multiprocessing.get_context("fork")  # a process that has imported everything already

    def finished() -> dict[str, int]:
        cells = (small.root / ".robench").rglob("*.parquet")
        return {path.name: path.stat().st_mtime_ns for path in cells}

    marks: list[dict[str, int]] = []
    for wanted in (1, 4):
        asked = {"workspace": open_workspace(small.root), "jobs": 2}
        process = copied.Process(target=carry_out, kwargs=asked)
        process.start()
        while len(finished()) < wanted and process.is_alive():
            time.sleep(0.05)
        assert process.is_alive(), "it was in the middle of things"
        process.kill()
        process.join()
        marks.append(finished())
        assert wanted <= len(marks[-1]) < len(whole)
    gate.touch()
    assert outcomes(carry_out(open_workspace(small.root))[0]) == whole
    after = finished()
    for mark in marks:
        assert mark.items() <= after.items(), "a finished cell was made again"


def test_edges_of_items_that_have_none_are_refused(small: Workspace, write: Write) -> None:
    write(
        "attacks/rewire.toml",
        'attack = "flips"\naccess = "white-box"\nnorm = "l0"\neps = 2\npart = "edges"\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["rewire"]\nimages = 4\ndiagnostics = false\n',
    )
    _, ears = carry_out(small)
    (why,) = ears.failed.values()
    assert 'part = "edges": items of this data set are no nodes of a graph' in str(why)


STOPPED_ONCE = """
from robench import Trainer

class StoppedOnce(Trainer):
    def fit(self, network, data, rng, progress):
        self.scratch.mkdir(parents=True, exist_ok=True)
        kept = self.scratch / "half.txt"
        if not kept.exists():
            kept.write_text("half of it")
            raise ValueError("stopped half way")
        return [{"epoch": 1, "loss": 0.5, "found": float(len(kept.read_text()))}]
"""


def test_a_stopped_training_finds_its_scratch_again_and_leaves_none(
    small: Workspace, write: Write
) -> None:
    write("models/stopped.py", STOPPED_ONCE)
    write(
        "models/small.toml",
        'dataset = "digits"\nnetwork = "mlp"\ntrainer = "./stopped.py:StoppedOnce"\n',
    )
    _, ears = carry_out(small)
    assert ears.failed
    run, ears = carry_out(small)
    assert not ears.failed
    _, metadata = run.store.read_model(run.resolved["small"].digest(0))
    assert metadata["history"][0]["found"] == len("half of it")
    assert not list((small.root / ".robench" / "scratch").iterdir())


def test_a_process_keeps_the_networks_it_used_last(
    small: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/small.toml", text + "seeds = [0, 1]\n")
    run, _ = carry_out(open_workspace(small.root))

    def loaded() -> list[Network]:
        return [
            trained.trained_network(t, run.model_digest(t), run.weights[t], run.store.url, "cpu")
            for t in run.plan.trainings
        ]

    before = loaded()
    assert all(a is b for a, b in zip(before, loaded(), strict=True))
    monkeypatch.setattr(trained, "KEPT", 0)
    trained._kept.clear()
    assert not any(a is b for a, b in zip(loaded(), loaded(), strict=True)), "one at a time"
