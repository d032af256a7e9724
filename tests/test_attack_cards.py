"""The reference workspace's attack cards: each fits its attack, and protocols are as published."""

from __future__ import annotations

import pytest

from robench.attacks.base import Attack
from robench.make.scoring import RANK
from robench.workspace import plugins
from robench.workspace.folders import Workspace, reference_root

CARDS = Workspace(root=reference_root(), output=reference_root())
NAMES = CARDS.names("attacks")


def built(name: str) -> Attack:
    card = CARDS.card("attacks", name)
    attack: Attack = plugins.build("attacks", card.attack, card)
    return attack


@pytest.mark.parametrize("name", NAMES)
def test_every_card_fits_its_attack(name: str) -> None:
    card, attack = CARDS.card("attacks", name), built(name)
    access = "white-box" if card.access == "transfer" else card.access
    assert RANK[attack.needs] <= RANK[access]
    assert card.norm in attack.norms
    assert card.description


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "mim", "nattack", "dim", "tim"])
def test_nits_protocol_is_the_published_one(name: str) -> None:
    card, attack = CARDS.card("attacks", f"nit/{name}"), built(f"nit/{name}")
    assert (card.norm, card.eps) == ("linf", 0.1)
    if name == "nattack":
        assert (vars(attack)["iterations"], vars(attack)["population"]) == (50, 100)
        return
    assert vars(attack)["keep"] == "last"
    if name != "fgsm":
        assert (vars(attack)["steps"], vars(attack)["step_size"]) == (15, 0.01)
    if name in ("mim", "dim", "tim"):
        assert vars(attack)["momentum"] == 0.9


def test_the_strong_protocol_covers_what_masked_gradients_hide() -> None:
    strong = [built(name) for name in NAMES if name.startswith("strong/")]
    settings = [vars(attack) for attack in strong]
    assert any(s.get("surrogate") == "sweep" for s in settings)
    assert any(s.get("eot", 1) >= 10 for s in settings)
    assert {s.get("loss") for s in settings} >= {"cross-entropy", "margin"}
    assert {s.get("schedule") for s in settings} >= {"fixed", "apgd"}
    assert any(s.get("targets") for s in settings)
    assert {attack.needs for attack in strong} >= {"white-box", "score"}
    assert any(isinstance(CARDS.card("attacks", name).eps, tuple) for name in NAMES)
    assert any(CARDS.card("attacks", name).role == "floor" for name in NAMES)


def test_the_readme_names_every_built_in_attack() -> None:
    readme = (reference_root() / "attacks" / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in plugins.BUILT_IN["attacks"])
