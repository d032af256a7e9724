"""Plugins: built-in names, files of a workspace, declared fields."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.cards import Spec
from robench.workspace.folders import Workspace

Write = Callable[[str, str], Path]

DEFENSE = '''
import torch
from robench import Trainer

class Noisy(Trainer):
    """Cross-entropy on inputs with Gaussian noise."""
    version = 3
    sigma: float = 0.1
    def loss(self, network, x, y, rng):
        noisy = x + self.sigma * torch.randn(x.shape, generator=rng)
        return torch.nn.functional.cross_entropy(network(noisy), y)
'''


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_built_in_name_loads_and_has_a_summary(kind: plugins.Kind) -> None:
    for name in plugins.names(kind):
        assert plugins.load(kind, name).__doc__
        assert (
            plugins.summary(kind, name) == (plugins.load(kind, name).__doc__ or "").split("\n")[0]
        )


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(RobenchError, match="trainer 'nitt' is not known; did you mean nit"):
        plugins.load("trainers", "nitt")


def test_declared_fields_are_the_keys_of_a_card(small: Workspace) -> None:
    card = small.card("models", "small")
    fields = plugins.resolve("trainers", Spec(name="bp", epochs=7), card)
    assert fields["epochs"] == 7
    assert fields["lr"] == 1e-3
    assert fields["plugin"] == "bp"


def test_an_unknown_key_names_card_key_and_allowed_keys(small: Workspace) -> None:
    card = small.card("models", "small")
    with pytest.raises(RobenchError, match="models/small.toml: trainer 'bp': epoch: .*epochs"):
        plugins.resolve("trainers", Spec(name="bp", epoch=7), card)


def test_a_value_out_of_range_names_key_and_value(small: Workspace) -> None:
    card = small.card("models", "small")
    with pytest.raises(RobenchError, match="epochs = 0"):
        plugins.resolve("trainers", Spec(name="bp", epochs=0), card)


def test_a_file_of_the_workspace_is_a_plugin(small: Workspace, write: Write) -> None:
    write("models/mine.py", DEFENSE)
    card = small.card("models", "small")
    fields = plugins.resolve("trainers", Spec(name="./mine.py:Noisy", sigma=0.2), card)
    assert fields["sigma"] == 0.2
    assert fields["version"] == 3


def test_a_file_plugin_counts_by_its_source(small: Workspace, write: Write) -> None:
    card = small.card("models", "small")
    write("models/first.py", DEFENSE)
    write("models/second.py", DEFENSE)
    write("models/third.py", DEFENSE + "# changed\n")
    first, second, third = (
        plugins.resolve("trainers", Spec(name=f"./{name}.py:Noisy"), card)["plugin"]
        for name in ("first", "second", "third")
    )
    assert first == second != third


def test_classes_of_a_file_plugin_pickle(small: Workspace, write: Write) -> None:
    write("models/mine.py", DEFENSE)
    made = plugins.build(
        "trainers", Spec(name="./mine.py:Noisy", sigma=0.3), small.card("models", "small")
    )
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert again.sigma == 0.3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./absent.py:Noisy", "no such file"),
        ("./mine.py:Noise", "has no class or function 'Noise'; did you mean Noisy"),
        ("./mine.py", "say which class"),
        ("../../outside.py:Noisy", "outside the workspace"),
        ("./broken.py:Noisy", "cannot be imported: SyntaxError"),
        ("./mine.py:torch", "is not a subclass"),
    ],
)
def test_a_bad_file_plugin_is_one_clear_error(
    small: Workspace, write: Write, name: str, said: str
) -> None:
    write("models/mine.py", DEFENSE)
    write("models/broken.py", "def (")
    (small.root.parent / "outside.py").write_text(DEFENSE)
    with pytest.raises(RobenchError, match=said):
        plugins.load("trainers", name, small.card("models", "small"))


@pytest.mark.parametrize(
    "verb", [["--help"], ["list", "models"], ["list", "trainers"], ["list", "attacks"]]
)
def test_help_and_listing_import_nothing_heavy(verb: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['robench', *{verb!r}]\n"
        "from robench.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'foolbox', 'art', 'pandas', 'imagecorruptions', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_entry_points_that_take_a_built_in_name_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib.metadata import EntryPoint

    rival = EntryPoint("bp", "elsewhere:BP", "robench.trainers")
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [rival] if group == rival.group else []
    )
    plugins._installed.cache_clear()
    try:
        with pytest.raises(RobenchError, match="two plugins are named 'bp'.*elsewhere:BP"):
            plugins.names("trainers")
    finally:
        plugins._installed.cache_clear()


def test_the_public_names_are_there() -> None:
    robench = importlib.import_module("robench")
    for name in robench.__all__:
        assert getattr(robench, name).__name__ == name
