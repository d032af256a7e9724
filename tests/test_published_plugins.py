"""Plugins in a package of its own, as anybody may publish one: installed, listed, checked, run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import robench

from robench.errors import RobenchError
from robench.plan import make_plan
from robench.workspace import Workspace

Write = Callable[[str, str], Path]
PACKAGE = Path(__file__).parent / "plugin_package"
NAMES = {
    "networks": "example-linear",
    "trainers": "example-smoothing",
    "attacks": "example-brightest",
    "corruptions": "example-dimming",
    "datasets": "example-bars",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed by pip without any network, in a folder of its own."""
    for needed in ("hatchling", "pip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed} (extra 'test') to build the package")
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    command = [sys.executable, "-m", "pip", "install", *options, str(target), str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def path(installed: Path) -> str:
    """PYTHONPATH with the package on it."""
    own = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join([str(installed), *own])


@pytest.fixture
def using(small: Workspace, write: Write) -> Workspace:
    """A workspace whose cards name every plugin of the package."""
    write(
        "models/bars.toml",
        'dataset = "example-bars"\nnetwork = { name = "example-linear", bias = false }\n'
        'trainer = { name = "example-smoothing", smoothing = 0.2, epochs = 3 }\n',
    )
    write(
        "attacks/brightest.toml", 'attack = "example-brightest"\naccess = "white-box"\neps = 0.1\n'
    )
    write("corruptions/dim.toml", 'corruption = "example-dimming"\nseverities = [1, 5]\n')
    write(
        "reports/bars.toml",
        'title = "Bars"\nmodels = ["bars"]\nattacks = ["brightest"]\ncorruptions = ["dim"]\n'
        "images = 40\ndiagnostics = false\n",
    )
    return small


@pytest.mark.parametrize("what", ["networks", "trainers", "datasets"])
def test_installed_plugins_are_listed_without_being_imported(
    path: str, tmp_path: Path, what: str
) -> None:
    done = robench("list", what, cwd=tmp_path, PYTHONPATH=path)
    row = next(line for line in done.stdout.splitlines() if line.startswith(NAMES[what]))
    assert row.removeprefix(NAMES[what]).strip(), "its docstring's first line is shown"
    assert "was imported" not in done.stderr


def test_a_report_of_installed_plugins_runs_in_worker_processes(
    using: Workspace, path: str
) -> None:
    done = robench("run", "bars", "-w", str(using.root), "--jobs", "2", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    manifest = (using.root / "reports/bars/manifest.json").read_text()
    assert '"plugin": "robench-example:example-smoothing"' in manifest


def test_installed_plugins_pass_the_check(using: Workspace, path: str) -> None:
    done = robench("check", cwd=using.root, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in NAMES.values():
        assert f" {name}: " in done.stdout


def test_two_packages_with_one_name_are_an_error_that_names_both(
    using: Workspace, path: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    metadata = other / "rival-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 2.0\n")
    (metadata / "entry_points.txt").write_text(
        "[robench.attacks]\nexample-brightest = rival:Other\n"
    )
    both = os.pathsep.join([path, str(other)])
    done = robench("run", "bars", "-w", str(using.root), PYTHONPATH=both)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "attacks: two plugins are named 'example-brightest'" in done.stderr
    assert "robench_example.harm.threats:Brightest (package robench-example)" in done.stderr
    assert "rival:Other (package rival)" in done.stderr


def test_without_the_package_its_names_are_not_known(using: Workspace) -> None:
    with pytest.raises(RobenchError, match="dim.toml: corruption 'example-dimming' is not known"):
        make_plan(using, "bars")
