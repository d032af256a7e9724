"""Names of any text, typed or in a card: nothing outside the workspace is opened or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from hostile import (
    A_CARD,
    CARDS,
    MAY_APPEAR,
    card_text,
    looked_at,
    snapshot,
    watch,
    works_or_says,
    write_cards,
)
from hypothesis import given
from hypothesis import strategies as st

from robench.checks import cards as check
from robench.make.verify import verify
from robench.show.published import find_results
from robench.show.report import folder as report
from robench.store.store import Store
from robench.workspace import listing
from robench.workspace.folders import FOLDERS, Workspace, open_workspace
from robench.workspace.new import new_plugin, new_workspace
from robench.workspace.plan import make_plan

alone, workspace = hostile.alone, hostile.workspace  # fixtures

NASTY = (
    *("../secret", "../../secret", "a/../../../secret", "./../../secret", "OUTSIDE/secret"),
    *("/etc/passwd", "out/secret", "linked", "loop", "loop/loop", "~", "~/secret", "~nobody/x"),
    *(".", "..", "", "/", "//", "a//b", "a/", ".hidden", "a\0b", "a\nb", "a\\b", "..\\secret"),
    *("con", "nul.toml", "COM1", " a ", "x" * 300, "x" * 5000, "a/" * 3000, "\udcff", "\ud800"),
    *("\u202eabc", "*", "?", "[a", "**", "-", "--help", "small.toml", "models/small", "memory://x"),
)
ANY_NAME = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(), max_size=20),
    st.text("./\\~ab\0", max_size=12),
    st.sampled_from(NASTY).map(lambda name: f"{name}.toml"),
)
SECRET = "import pathlib\npathlib.Path('ran').touch()\nclass Thing: pass\ndef make(): pass\n"


@pytest.fixture
def surrounded(workspace: Workspace, alone: Path) -> Iterator[Workspace]:
    """The workspace, with files beside it that it may not reach, and links to them within."""
    net = (workspace.root / "models/net.safetensors").read_bytes()
    for folder in (alone, alone / "home", alone / "here", alone / "data"):
        for suffix, content in (("toml", b""), ("py", SECRET.encode()), ("safetensors", net)):
            (folder / f"secret.{suffix}").write_bytes(content)
    for folder in FOLDERS:
        (workspace.root / folder / "out").symlink_to(alone)
        (workspace.root / folder / "loop").symlink_to("loop")
        for suffix in ("toml", "py", "safetensors"):
            (workspace.root / f"{folder}/linked.{suffix}").symlink_to(alone / f"secret.{suffix}")
    before = snapshot(alone, "work", *MAY_APPEAR)
    yield workspace
    assert snapshot(alone, "work", *MAY_APPEAR) == before
    for folder in FOLDERS:
        for link in (workspace.root / folder).iterdir():
            if link.is_symlink():
                link.unlink()
    for folder in (alone, alone / "home", alone / "here", alone / "data"):
        for suffix in ("toml", "py", "safetensors"):
            (folder / f"secret.{suffix}").unlink()


def left_alone(workspace: Workspace) -> None:
    """Nothing beside the workspace was opened since the watch began, and nothing in it changed."""
    around, root = workspace.root.parent, workspace.root
    touched = [Path(path).resolve() for path in (*watch.read, *watch.written)]
    assert not [p for p in touched if p.is_relative_to(around) and not p.is_relative_to(root)]
    expected = {"__pycache__", ".robench", "proc"}  # proc: where the peak of memory is asked for
    assert not [path for path in map(Path, watch.written) if not expected & {*path.parts}]


def by_name(workspace: Workspace, name: str) -> list[Callable[[], Any]]:
    """All that looks a card or a report up by a name that a user types."""
    store = Store(workspace.root / ".robench")
    return [
        lambda: make_plan(workspace, name),
        lambda: make_plan(workspace, "all", [name]),
        lambda: find_results(workspace, store, name),
        lambda: list(verify(workspace, name, store, 1)),
        lambda: list(listing.details(workspace, name)),
        lambda: list(check.check(workspace, name)),
        lambda: open_workspace(Path(name)),
        *(lambda folder=folder: workspace.card(folder, name) for folder in FOLDERS),
    ]


@given(data=st.data(), name=ANY_NAME)
def test_no_name_that_is_typed_leads_out_of_the_workspace(
    surrounded: Workspace, data: st.DataObject, name: str
) -> None:
    name = name.replace("OUTSIDE", str(surrounded.root.parent))
    act = data.draw(st.sampled_from(by_name(surrounded, name)))
    with watch():
        works_or_says(act)
    left_alone(surrounded)


@given(data=st.data(), name=ANY_NAME)
def test_no_name_in_a_card_leads_out_of_the_workspace(
    surrounded: Workspace, data: st.DataObject, name: str
) -> None:
    write_cards(surrounded.root)
    name = name.replace("OUTSIDE", str(surrounded.root.parent))
    name = name.encode(errors="replace").decode()  # TOML has no other
    card, change = data.draw(
        st.sampled_from(
            [
                *(("reports/all", {key: [name]}) for key in LISTS),
                ("attacks/moved", {"surrogate": name}),
                *(("models/small", {key: name}) for key in KEYS.values()),
                *(("models/small", {key: f"{name}.py:Thing"}) for key in KEYS.values()),
                ("attacks/near", {"attack": f"./{name}.py:Thing"}),
                ("corruptions/noisy", {"corruption": f"{name}:Thing"}),
                ("models/given", {"network": {"name": "module", "factory": f"{name}.py:make"}}),
                ("models/given", {"network": {"name": "module", "factory": f"{name}:make"}}),
                ("models/given", {"trainer": {"name": "given", "weights": f"{name}"}}),
                ("models/given", {"trainer": {"name": "given", "weights": f"{name}.safetensors"}}),
                (
                    "corruptions/noisy",
                    {"corruption": {"name": "given", "kinds": ["a"], "path": name}},
                ),
                (
                    "corruptions/noisy",
                    {"corruption": {"name": "given", "kinds": [name], "path": "C"}},
                ),
            ]
        )
    )
    (surrounded.root / f"{card}.toml").write_text(card_text({**CARDS[card], **change}))
    with watch():
        works_or_says(lambda: looked_at(surrounded), A_CARD)
    whole_path = "weights" in str(change) and Path(name).is_absolute()
    if not whole_path:  # the one thing that a card may name from anywhere
        left_alone(surrounded)


KEYS = {"networks": "network", "trainers": "trainer", "datasets": "dataset"}
LISTS = ("models", "attacks", "corruptions", "transfer", "baselines")


@given(kind=st.sampled_from(["model", "attack", "corruption"]), name=ANY_NAME)
def test_what_is_new_lies_in_the_workspace(surrounded: Workspace, kind: str, name: str) -> None:
    made = works_or_says(lambda: new_plugin(surrounded, kind, name), "^new |exists already")
    for path in made or ():
        assert path.resolve().parent in (surrounded.root / f"{kind}s", surrounded.root / "reports")
        path.unlink()


def stays(name: str) -> bool:
    """Whether a folder of this name lies where one stands, as far as that can be seen."""
    return not name.startswith(("/", "~")) and ".." not in Path(name).parts


@given(name=ANY_NAME.filter(stays))
def test_a_new_workspace_is_made_where_its_name_says(alone: Path, name: str) -> None:
    made = works_or_says(lambda: new_workspace(Path(name)))
    assert all(path.resolve().is_relative_to(alone / "here") for path in made or ())


@given(name=ANY_NAME.filter(stays))
def test_a_page_goes_where_it_is_asked_to(alone: Path, name: str) -> None:
    before = snapshot(alone, "here")
    works_or_says(lambda: report._write(Path(name) / "index.html", b""), "cannot be written")
    assert snapshot(alone, "here") == before
