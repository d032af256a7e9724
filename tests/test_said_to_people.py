"""What the terminal says of a run: what was trained and what only read, what failed and where."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import safetensors.torch
from command_line import robench, robench_here
from torch import nn

from robench.store.store import Store
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]

BOOM = """
from robench import Trainer

class Boom(Trainer):
    steps: int = 0

    def loss(self, network, x, y, rng):
        type(self).steps += 1
        if type(self).steps == 3:
            raise ValueError("r.py:boom: [bold]no[/bold]")
        return network(x).square().mean()
"""
OWN_LOOP = """
from robench import Trainer

class OwnLoop(Trainer):
    def fit(self, network, data, rng, progress):
        return [{"loss": 1.0}, {"loss": 0.5}]
"""


def test_a_failing_trainer_says_file_line_epoch_and_step(small: Workspace, write: Write) -> None:
    write("models/boom.py", BOOM)
    write("models/small.toml", 'dataset = "digits"\nnetwork = "mlp"\ntrainer = "./boom.py:Boom"\n')
    done = robench_here("run", "small", "--jobs", "1", cwd=small.root)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "r.py:boom: [bold]no[/bold]" in said, "neither emoji nor markup"
    assert "boom.py:10 in loss, epoch 1, step 3" in said
    assert "Traceback" not in said
    assert "0 kept, 3 without outcome" in said, "what failed is not counted as kept"
    whole = robench_here("--debug", "run", "small", "--jobs", "1", cwd=small.root)
    assert "Traceback" in whole.stderr
    assert "raise ValueError" in whole.stderr


def test_weights_that_are_read_are_not_counted_as_trained(small: Workspace, write: Write) -> None:
    factory = 'network = { name = "module", factory = "./flat.py:make" }\n'
    made = "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"
    flat = f"from torch import nn\n\ndef make():\n    return {made}\n"
    write("models/flat.py", flat)
    state = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()
    safetensors.torch.save_file(state, small.root / "models/w.safetensors")
    trainer = 'trainer = { name = "given", weights = "w.safetensors" }\n'
    write("models/small.toml", 'dataset = "digits"\n' + factory + trainer)
    done = robench_here("run", "small", "--jobs", "1", cwd=small.root)
    assert "models: 0 trained, 1 given, 0 kept" in done.stderr


def test_a_loop_of_ones_own_has_its_cost_measured(small: Workspace, write: Write) -> None:
    write("models/own.py", OWN_LOOP)
    text = 'dataset = "digits"\nnetwork = "mlp"\ntrainer = "./own.py:OwnLoop"\n'
    write("models/small.toml", text)
    assert robench_here("run", "small", "--jobs", "1", cwd=small.root).returncode == 0
    manifest = Store(small.root / ".robench").read_run("small")
    assert manifest is not None
    rows = manifest["models"][0]["seeds"][0]["history"]
    assert [row["loss"] for row in rows] == [1.0, 0.5]
    assert all(row["seconds"] >= 0 for row in rows)
    measured = os.access("/proc/self/clear_refs", os.W_OK)  # else a peak cannot be forgotten
    assert all(("added_memory_mb" in row) == measured for row in rows)


def test_bare_robench_is_its_help(tmp_path: Path) -> None:
    done = robench(cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "Usage: robench" in done.stdout + done.stderr


def has_a_worker(pid: int) -> bool:
    with suppress(psutil.Error):  # a child that ends while it is looked at
        return any("robench" in child.cmdline() for child in psutil.Process(pid).children())
    return False


def test_ctrl_c_says_how_to_go_on(small: Workspace, write: Write) -> None:
    card = (small.root / "models/small.toml").read_text()
    write("models/small.toml", card.replace("3", "300000"))
    run = subprocess.Popen(
        [sys.executable, "-m", "robench", "run", "small", "--jobs", "1"],
        cwd=small.root,
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
        # As from a terminal: what runs in a shell's background ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Until its worker is at work: while it imports, Python itself may swallow an interrupt.
    while not has_a_worker(run.pid):
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "interrupted; what is finished is kept: run the same command to continue" in said


def test_the_shell_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Typer would look which shell the tests were started from, and there may be none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = robench("--show-completion", "bash", cwd=tmp_path)
    assert "_ROBENCH_COMPLETE" in done.stdout or "complete" in done.stdout
