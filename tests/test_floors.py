"""Imports go one way: the contracts of pyproject.toml hold, and fail where something goes
upward."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the code and of its contracts."""
    shutil.copytree(
        ROOT / "robench", tmp_path / "robench", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken(house: Path) -> tuple[str, set[str]]:
    """What the linter says, and the contracts that it calls broken."""
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
    )
    lines = [line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if "BROKEN" in line]
    assert bool(lines) == bool(done.returncode), done.stdout + done.stderr
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    return done.stdout, set(lines)


def test_all_contracts_hold(house: Path) -> None:
    said, contracts = broken(house)
    assert contracts == set(), said
    assert "3 kept" in said


FLOORS, PAGE, CIRCLES = (
    "One-way floors",
    "A page is made without torch and without plugins",
    "No circles",
)


@pytest.mark.parametrize(
    ("file", "planted", "contracts"),
    [
        ("store/seal.py", "from robench.make.scheduler import execute", {FLOORS, PAGE, CIRCLES}),
        ("errors.py", "def f():\n    from robench import cli", {FLOORS, PAGE, CIRCLES}),
        ("make/describe.py", "import robench.show.leaderboard", {FLOORS}),
        ("show/claims.py", "import torch", {PAGE}),
        ("show/results.py", "from robench.show.report import page", {CIRCLES}),
        ("networks/losses.py", "from robench.networks import memory", set()),
    ],
)
def test_what_goes_upward_or_round_is_noticed(
    house: Path, file: str, planted: str, contracts: set[str]
) -> None:
    path = house / "robench" / file
    path.write_text(path.read_text("utf-8") + "\n" + planted + "\n", encoding="utf-8")
    said, found = broken(house)
    assert found == contracts, said
