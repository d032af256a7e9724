"""Cards: what they may say, and what is said to the one who writes something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robench.errors import RobenchError
from robench.workspace.cards import AttackCard, ModelCard, read_card
from robench.workspace.folders import FOLDERS, open_workspace, reference_root

Write = Callable[[str, str], Path]
GOOD = 'attack = { name = "pgd", steps = 3 }\naccess = "white-box"\neps = 0.1\n'


def read_attack(path: Path) -> AttackCard:
    return read_card(AttackCard, path, path.parent.parent, path.stem)


def test_a_card_keeps_the_settings_of_its_plugin(write: Write) -> None:
    card = read_attack(write("attacks/a.toml", GOOD))
    assert card.attack.name == "pgd"
    assert card.attack.settings == {"steps": 3}
    assert card.norm == "linf"


def test_a_bare_name_is_a_plugin_without_settings(write: Write) -> None:
    text = 'dataset = "digits"\nnetwork = "mlp"\ntrainer = "bp"\n'
    path = write("models/m.toml", text)
    card = read_card(ModelCard, path, path.parent.parent, "m")
    assert card.dataset.name == "digits"
    assert card.dataset.settings == {}


def test_a_card_cannot_be_changed(write: Write) -> None:
    card = read_attack(write("attacks/a.toml", GOOD))
    with pytest.raises(ValueError, match="frozen"):
        card.eps = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "epz = 1\n", r"attacks/a.toml: epz: unknown key; did you mean eps"),
        (GOOD.replace("0.1", "-1"), r"attacks/a.toml: eps.*-1"),
        (GOOD.replace("white-box", "psychic"), r"attacks/a.toml: access = 'psychic'"),
        ('access = "score"\neps = 0.1\n', r"attacks/a.toml: attack: this key is required"),
        (GOOD.replace("white-box", "transfer"), r"transfer.*surrogate"),
        ("eps = \n", r"attacks/a.toml: not valid TOML"),
        (GOOD + 'name = "x"\n', r"attacks/a.toml: name: a card is named by its file"),
        (GOOD.replace("0.1", "[]"), "eps"),
        (GOOD.replace("eps", "epsi"), "epsi: unknown key; did you mean eps"),
        (GOOD.replace("0.1", "8"), r"eps = 8 in linf: pixels are in \[0, 1\].*8/255 = 0.03137"),
        (GOOD + "epz = 1\nmax_queries = 0\n", "max_queries = 0: must be at least 1; epz: unknown"),
        (GOOD + 'role = "hero"\n', "role = 'hero': must be one of 'attack', "),
        (GOOD + "time_limit = []\n", r"time_limit = \[\]: must be a number"),
        (GOOD + "description = 3\n", "description = 3: must be a text"),
    ],
)
def test_a_bad_card_is_one_clear_error(write: Write, text: str, said: str) -> None:
    with pytest.raises(RobenchError, match=said) as caught:
        read_attack(write("attacks/a.toml", text))
    assert "\n" not in str(caught.value)


def test_seeds_may_not_repeat(write: Write) -> None:
    text = 'dataset = "digits"\nnetwork = "mlp"\ntrainer = "bp"\nseeds = [1, 1]\n'
    path = write("models/m.toml", text)
    with pytest.raises(RobenchError, match="seeds.*twice"):
        read_card(ModelCard, path, path.parent.parent, "m")


def test_every_card_of_the_reference_workspace_is_valid() -> None:
    workspace = open_workspace(reference_root())
    for folder in FOLDERS:
        for name in workspace.names(folder):
            assert workspace.card(folder, name).name == name
    assert "quickstart" in workspace.names("reports")


def test_a_key_that_is_misspelt_is_not_also_missing(write: Write) -> None:
    path = write("models/m.toml", 'datset = "digits"\nnetwork = "mlp"\ntrainer = "bp"\n')
    with pytest.raises(RobenchError) as caught:
        read_card(ModelCard, path, path.parent.parent, "m")
    assert "datset: unknown key; did you mean dataset" in str(caught.value)
    assert "required" not in str(caught.value)


def test_settings_of_models_are_refused_in_plain_words(write: Write) -> None:
    path = write("models/m.toml", 'dataset = "digits"\nnetwork = 3\ntrainer = "bp"\nseeds = 1\n')
    with pytest.raises(
        RobenchError, match="network = 3: must be a table.*seeds = 1: must be a list"
    ):
        read_card(ModelCard, path, path.parent.parent, "m")
