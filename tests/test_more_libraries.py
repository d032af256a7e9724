"""Attack libraries that robench has no adapter for, from a folder of plugins: torchattacks and
adv-lib. Peers for these checks only: `pip install --no-deps torchattacks adv-lib`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.target import WhiteBoxTarget
from robench.checks.cards import check
from robench.checks.trial import reference
from robench.workspace import plugins
from robench.workspace.folders import open_workspace
from robench.workspace.plan import make_plan

pytest.importorskip("torchattacks", reason="torchattacks is not installed")
pytest.importorskip("adv_lib", reason="adv-lib is not installed")
WORKSPACE = open_workspace(Path(__file__).parent / "more_libraries")


@pytest.mark.rows(1)
@pytest.mark.parametrize("name", ["torchattacks-pgd", "strongest/adv-lib-fmn"])
def test_their_contract_holds(name: str) -> None:
    assert [one for one in check(WORKSPACE, name) if not one.passed] == []


def test_their_strongest_attacks_are_planned_beside_those_of_the_published_report() -> None:
    """AutoAttack and two APGD-T cost minutes to check; their cards are those that are run."""
    names = {threat.name for threat in make_plan(WORKSPACE, "attack-truth-libraries").threats}
    for card in ("torchattacks-autoattack", "torchattacks-apgd-t", "adv-lib-apgd-t", "adv-lib-fmn"):
        assert {f"strongest/{card}@{eps}" for eps in ("0.02", "0.05", "0.1")} <= names
    assert {"truth/spikes@0.1", "proof/exact-radii@0.1"} <= names


@pytest.mark.parametrize(
    ("name", "rival"),
    [
        ("torchattacks-pgd", "pgd"),
        ("strongest/torchattacks-apgd-t", "apgd"),
        ("strongest/adv-lib-apgd-t", "apgd"),
        ("strongest/adv-lib-fmn", "apgd"),
    ],
)
def test_they_break_what_our_own_loop_breaks_nearly(name: str, rival: str) -> None:
    card = WORKSPACE.card("attacks", name)
    network, x, y = reference()

    def left(attack: Attack) -> float:
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        made = attack.perturb(target, x, y, torch.Generator().manual_seed(0))
        assert float((made - x).abs().max()) <= 0.1 + 1e-6
        assert target.record.most("queries") > 0
        return float((network(made).argmax(1) == y).float().mean())

    theirs = left(plugins.build("attacks", card.attack, card))
    ours = left(plugins.load("attacks", rival)(steps=40))
    clean = float((network(x).argmax(1) == y).float().mean())
    assert theirs < clean - 0.1
    assert abs(theirs - ours) <= 0.1
