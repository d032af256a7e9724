"""Workspaces: found upwards, named, or the reference one; names and patterns of cards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from robench.errors import RobenchError
from robench.workspace.folders import Workspace, open_workspace, reference_root

Write = Callable[[str, str], Path]


def test_the_workspace_is_found_from_a_folder_inside_it(small: Workspace) -> None:
    inside = small.root / "models" / "deep"
    inside.mkdir()
    assert open_workspace(start=inside).root == small.root


def test_without_a_workspace_the_reference_one_is_used_and_output_stays_here(
    tmp_path: Path,
) -> None:
    workspace = open_workspace(start=tmp_path)
    assert workspace.root == reference_root()
    assert workspace.output == tmp_path


def test_a_named_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(RobenchError, match="lacks attacks, corruptions, reports"):
        open_workspace(tmp_path)


def test_cards_that_a_workspace_lacks_come_from_the_reference_workspace(small: Workspace) -> None:
    assert small.card("attacks", "pgd").root == reference_root()
    assert small.card("models", "small").root == small.root


def test_own_cards_hide_the_reference_workspaces(small: Workspace, write: Write) -> None:
    write("attacks/pgd.toml", 'attack = "pgd"\naccess = "white-box"\neps = 0.3\n')
    assert small.card("attacks", "pgd").eps == 0.3


def test_patterns_select_cards_in_the_order_given_and_once(small: Workspace, write: Write) -> None:
    for name in ("b/one", "b/two", "a"):
        write(f"models/{name}.toml", (small.root / "models/small.toml").read_text())
    assert small.select("models", ["b/*", "a", "b/one"], "r") == ["b/one", "b/two", "a"]


def test_a_pattern_without_a_match_names_its_asker_and_what_is_near(small: Workspace) -> None:
    with pytest.raises(RobenchError, match=r"reports/x.toml: models = 'smal'.*small"):
        small.select("models", ["smal"], "reports/x.toml")


def test_an_unknown_card_is_answered_with_near_names(small: Workspace) -> None:
    with pytest.raises(RobenchError, match="did you mean small"):
        small.card("models", "smal")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "small\0", "..", "", "x" * 300])
def test_names_cannot_leave_their_folder(small: Workspace, name: str) -> None:
    (small.root.parent / "outside.toml").write_text("")
    with pytest.raises(RobenchError, match="no card named"):
        small.card("models", name)


def test_a_link_out_of_the_workspace_is_no_card(
    small: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.toml"
    outside.write_text((small.root / "models/small.toml").read_text())
    (small.root / "models" / "linked.toml").symlink_to(outside)
    assert "linked" not in small.names("models")


def test_cards_are_files_and_links_within_the_workspace(
    small: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models = small.root / "models"
    for place in (
        "mine/a.b.toml",
        "x.toml/inner.toml",
        ".hidden.toml",
        ".off/c.toml",
        "mine/d.txt",
    ):
        (models / place).parent.mkdir(exist_ok=True)
        (models / place).write_text("")
    (models / "linked.toml").symlink_to(models / "mine/a.b.toml")
    (models / "nowhere.toml").symlink_to(models / "absent.toml")
    (models / "again").symlink_to(models / "mine")  # a folder: what lies in it is not found twice
    os.mkfifo(models / "pipe.toml")
    assert small.names("models") == ["linked", "mine/a.b", "small", "x.toml/inner"]
    elsewhere = models.rename(tmp_path_factory.mktemp("outside") / "models")
    models.symlink_to(elsewhere)
    assert small.names("models") == []
