"""Plugins in a package of its own, as anybody may publish one: installed, listed, checked, run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import robench
from small_runs import reported

from robench.checks.cards import check
from robench.errors import RobenchError
from robench.show.results import load_results
from robench.store.store import Store
from robench.workspace import plugins
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

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
def found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as this process finds installed ones."""
    monkeypatch.syspath_prepend(str(installed))
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()


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


def test_installed_plugins_are_listed_without_being_imported(
    installed: Path, tmp_path: Path
) -> None:
    own = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(installed), *([own] if own else [])])
    done = robench("list", "trainers", cwd=tmp_path, PYTHONPATH=path)
    row = next(line for line in done.stdout.splitlines() if line.startswith("example-smoothing"))
    assert "Cross-entropy on smoothed labels (Szegedy et al. 2016)." in row
    assert "was imported" not in done.stderr


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_a_plugin_of_every_kind_is_known_by_name(found: None, kind: plugins.Kind) -> None:
    assert NAMES[kind] in plugins.names(kind)
    summary = plugins.summary(kind, NAMES[kind])
    assert summary == (plugins.load(kind, NAMES[kind]).__doc__ or "").split("\n")[0]


def test_a_report_of_installed_plugins_runs(using: Workspace, found: None) -> None:
    store = Store(using.root / ".robench")
    done = reported(using, "bars", store=store)
    assert done.incomplete == 0
    trainer = load_results(store, "bars").models[0]["fields"]["trainer"]
    name, _, code = trainer["plugin"].partition("@")
    assert re.fullmatch(r"robench-example==1\.0(#\w{16})?:example-smoothing", name)
    assert trainer["version"] == 2
    assert len(code) == 64, "it lies in no folder of installed packages: its bytes count"


def test_installed_plugins_pass_the_check(using: Workspace, found: None) -> None:
    checked = list(check(using))
    assert [one for one in checked if not one.passed] == []
    tested = {one.what.rpartition(" ")[2] for one in checked if ", " in one.what}
    assert tested == set(NAMES.values())


def test_two_packages_with_one_name_are_an_error_that_names_both(
    using: Workspace,
    found: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    other = tmp_path_factory.mktemp("other")
    metadata = other / "rival-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 2.0\n")
    (metadata / "entry_points.txt").write_text(
        "[robench.attacks]\nexample-brightest = rival:Other\n"
    )
    monkeypatch.syspath_prepend(str(other))
    with pytest.raises(RobenchError, match="two plugins are named 'example-brightest'") as caught:
        plugins.names("attacks")
    assert "robench_example.harm.threats:Brightest (package robench-example)" in str(caught.value)
    assert "rival:Other (package rival)" in str(caught.value)


def test_without_the_package_its_names_are_not_known(using: Workspace) -> None:
    with pytest.raises(RobenchError, match="dim.toml: corruption 'example-dimming' is not known"):
        make_plan(using, "bars")
