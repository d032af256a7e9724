"""The wheel: installed outside the checkout, it holds the reference workspace and runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import robench

from robench.workspace.folders import FOLDERS, reference_root

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel of this checkout is installed, built without any network."""
    for needed in ("hatchling", "pip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed} (extra 'test') to build the wheel")
    built, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "-w", str(built), str(CHECKOUT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("robench-*.whl")
    install = [*pip, "install", *offline, "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_and_the_checkout_hold_the_same_cards(installed: Path) -> None:
    assert reference_root() == CHECKOUT, "this test is about the checkout"
    inside = installed / "robench" / "reference"

    def cards(root: Path) -> dict[str, bytes]:
        paths = (path for folder in FOLDERS for path in (root / folder).rglob("*.toml"))
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}

    assert cards(inside) == cards(CHECKOUT)
    assert all((inside / folder / "README.md").is_file() for folder in FOLDERS)
    published = [path for path in (inside / "reports").iterdir() if path.is_dir()]
    assert published == [], "published pages are not part of the wheel"


def test_the_wheel_lists_what_the_checkout_lists(installed: Path, tmp_path: Path) -> None:
    ours = robench("list", "models", cwd=tmp_path, PYTHONPATH=str(CHECKOUT))
    theirs = robench("list", "models", cwd=tmp_path, PYTHONPATH=str(installed))
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout == ours.stdout


def test_the_wheel_begins_and_plans_a_workspace(installed: Path, tmp_path: Path) -> None:
    for words in (
        ["new", "workspace", "mine"],
        ["new", "attack", "my-attack", "-w", "mine"],
        ["plan", "my-attack", "-w", "mine"],
    ):
        done = robench(*words, cwd=tmp_path, PYTHONPATH=str(installed))
        assert done.returncode == 0, done.stderr
    assert "my-attack: white-box, linf eps 0.1" in done.stdout
    where = [sys.executable, "-c", "import robench; print(robench.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(installed)), "it was the wheel all along"


@pytest.mark.release
def test_the_wheel_runs_the_quickstart_beside_the_current_folder(
    installed: Path, tmp_path: Path
) -> None:
    done = robench("run", cwd=tmp_path, timeout=3600, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    page = tmp_path / "reports" / "quickstart" / "index.html"
    assert f"page: {page}" in done.stdout
    assert page.stat().st_size > 100_000
