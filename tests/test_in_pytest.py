"""`robench.parametrize_with_checks`: plugin authors' own pytest has a case for each check."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import robench
from robench.attacks.gradient import FGSM, PGD
from robench.checks.in_pytest import REST
from robench.corruptions.glr_mnist import GLRMnist
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.fc import FC
from robench.networks.mlp import MLP
from robench.trainers.bp import BP

BUILT_IN = [FGSM, PGD(steps=2), GLRMnist, Digits(), partial(MLP, hidden=(8,)), BP(epochs=2)]
CASES = robench.parametrize_with_checks(BUILT_IN)


@CASES
def test_built_in_plugins_pass(plugin: Any, check: Any) -> None:
    check(plugin)


@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: str(plugin)[:12])
def test_every_check_that_a_kind_has_is_a_case(plugin: Any) -> None:
    """What is found of a plugin that passes has a case of its own."""
    checks = [case.values[1] for case in CASES.args[1] if case.values[0] is plugin]
    found = {finding.check for finding in checks[0]._tried()}
    assert found <= {check.name for check in checks} - {REST}


def test_attacks_are_tried_in_the_norm_that_their_author_says() -> None:
    case = robench.parametrize_with_checks([FGSM], norm="l3").args[1][0]
    with pytest.raises(AssertionError, match="norm 'l3' is not one of"):
        case.values[1](FGSM)


AUTHORS = '''
import torch
from robench import Attack, Trainer, parametrize_with_checks

class Greedy(Attack):
    """Leaves its ball."""
    needs = "white-box"
    def perturb(self, target, x, y, rng):
        return (x + 2 * target.eps * target.gradient(x, y).gradient.sign()).clamp(0, 1)

class Broken(Trainer):
    """Cannot be built."""
    def __init__(self, **settings):
        raise KeyError("no such thing")

@parametrize_with_checks([Greedy, Broken])
def test_contract(plugin, check):
    check(plugin)
'''


@pytest.mark.rows(0)
def test_wrong_plugins_fail_by_the_name_of_the_check(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(AUTHORS)
    place = str(Path(robench.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": place, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    failed = {line.split("[")[1].split("]")[0] for line in lines if line.startswith("FAILED")}
    assert failed == {"Greedy-budget", "Greedy-noisy", "Broken-runs"}, done.stdout
    assert "budget: it leaves the linf ball" in done.stdout
    assert "builds: raises KeyError" in done.stdout
    assert "not reached: builds fails" in done.stdout


@pytest.mark.parametrize(
    ("plugin", "said"),
    [(FC((1, 8, 8), 10), "give the class"), (dict, "no plugin of robench"), (3, "no plugin")],
)
def test_what_is_no_plugin_is_said(plugin: Any, said: str) -> None:
    with pytest.raises(RobenchError, match=said):
        robench.parametrize_with_checks([plugin])
