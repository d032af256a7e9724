"""`robench new`: what it writes works as it is, and nothing that is there is overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import robench_here
from PIL import Image
from small_runs import reported

from robench.checks.cards import check
from robench.data.loading import load_splits
from robench.errors import RobenchError
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.new import new_notebook, new_plugin, new_workspace

SHORT = """
dataset = "digits"
network = "mlp"
trainer = { name = "bp", epochs = 1 }
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace as `robench new workspace` leaves it."""
    new_workspace(tmp_path / "mine")
    return open_workspace(tmp_path / "mine")


@pytest.mark.rows(1)
@pytest.mark.parametrize("kind", ["model", "attack", "corruption", "dataset", "network"])
def test_what_is_new_passes_the_check_and_runs(workspace: Workspace, kind: str) -> None:
    new_plugin(workspace, kind, "my-first-one")
    assert [found for found in check(workspace) if not found.passed] == []
    report = workspace.root / "reports/my-first-one.toml"
    short = report.read_text().replace("200", "20").replace("digits/mlp-bp", "short")
    short = short.replace('["imagenet-c-quick"]', "[]")
    report.write_text(short + "diagnostics = false\n")
    (workspace.root / "models/short.toml").write_text(SHORT)
    done = reported(workspace, "my-first-one", store=Store(workspace.root / ".robench"))
    assert done.incomplete == 0
    assert "my-first-one" in done.page.read_text()


def test_a_new_workspace_has_a_report_that_can_be_planned(workspace: Workspace) -> None:
    done = robench_here("plan", "first", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    assert "digits/mlp-bp: 3 seeds" in done.stdout
    assert (workspace.root / ".gitignore").read_text().splitlines()[-1] == ".robench/"


def test_the_command_line_says_what_it_wrote_and_what_comes_next(workspace: Workspace) -> None:
    done = robench_here("new", "model", "my-defense", cwd=workspace.root / "models")
    assert done.returncode == 0, done.stderr
    assert f"wrote {workspace.root}/models/my_defense.py" in done.stdout
    assert "next: robench check models/my-defense && robench run my-defense" in done.stdout


@pytest.mark.parametrize(
    "name", ["", "../up", "/tmp/x", "a/b", "My", "2fast", "a b", "x.py", "a\0", "class", "é", "-a"]
)
def test_a_name_that_is_none_writes_nothing(workspace: Workspace, name: str) -> None:
    before = sorted(workspace.root.parent.rglob("*"))
    with pytest.raises(RobenchError, match="new model"):
        new_plugin(workspace, "model", name)
    assert sorted(workspace.root.parent.rglob("*")) == before


def test_nothing_is_overwritten(workspace: Workspace) -> None:
    new_plugin(workspace, "attack", "mine")
    for kind in ("attack", "model"):  # a model would share the report's name
        with pytest.raises(RobenchError, match="there is a card"):
            new_plugin(workspace, kind, "mine")
    (workspace.root / "models" / "other.py").write_text("# precious")
    with pytest.raises(RobenchError, match="other.py: exists already; nothing was written"):
        new_plugin(workspace, "model", "other")
    assert not (workspace.root / "models/other.toml").exists()
    with pytest.raises(RobenchError, match="exists already"):
        new_workspace(workspace.root)


def test_names_of_the_reference_workspace_are_taken(workspace: Workspace) -> None:
    with pytest.raises(RobenchError, match="there is a card attacks/pgd already"):
        new_plugin(workspace, "attack", "pgd")


def test_workspaces_do_not_nest(workspace: Workspace) -> None:
    with pytest.raises(RobenchError, match="lies inside the workspace"):
        new_workspace(workspace.root / "models" / "inner")


def test_a_plugin_needs_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match="no workspace in .*robench new workspace FOLDER"):
        new_plugin(open_workspace(start=tmp_path), "model", "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_new_data_set_reads_the_pictures_beside_it(workspace: Workspace) -> None:
    new_plugin(workspace, "dataset", "my-pictures")
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        folder = workspace.root / "models/my_pictures" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    splits = load_splits(workspace.card("models", "my-pictures"))
    assert splits.classes == ("cats", "dogs")
    assert splits.input_shape == (3, 16, 16)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 40


@pytest.mark.rows(0)
def test_a_new_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks run where nbclient is installed")
    nbclient = pytest.importorskip("nbclient", reason="notebooks run where nbclient is installed")
    pytest.importorskip("ipykernel", reason="notebooks run where ipykernel is installed")
    (path,) = new_notebook(tmp_path / "mine")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert any("worst case" in output.get("data", {}).get("text/html", "") for output in shown)
    said = "".join(output.get("text", "") for output in shown)
    assert "ipywidgets" not in said


def test_a_notebook_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    new_notebook(tmp_path / "mine")
    with pytest.raises(RobenchError, match="exists already"):
        new_notebook(tmp_path / "mine.ipynb")
