"""Attack libraries that robench has no adapter for, from a folder of plugins: torchattacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robench import plugins
from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.conformance import check_attack
from robench.attacks.target import WhiteBoxTarget
from robench.attacks.trial import reference
from robench.check import check
from robench.workspace import open_workspace

pytest.importorskip("torchattacks", reason="torchattacks is not installed")
WORKSPACE = open_workspace(Path(__file__).parent / "more_libraries")


def test_its_card_and_its_contract_hold() -> None:
    assert [one for one in check(WORKSPACE) if not one.passed] == []
    card = WORKSPACE.card("attacks", "torchattacks-pgd")
    findings = check_attack(lambda **more: plugins.build("attacks", card.attack, card, **more))
    assert [finding for finding in findings if not finding.passed] == []


def test_it_breaks_what_our_own_loop_breaks_nearly() -> None:
    card = WORKSPACE.card("attacks", "torchattacks-pgd")
    network, x, y = reference()

    def left(attack: Attack) -> float:
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        made = attack.perturb(target, x, y, torch.Generator().manual_seed(0))
        assert float((made - x).abs().max()) <= 0.1 + 1e-6
        assert target.record.most("queries") > 0
        return float((network(made).argmax(1) == y).float().mean())

    theirs = left(plugins.build("attacks", card.attack, card))
    ours = left(plugins.load("attacks", "pgd")(steps=40))
    clean = float((network(x).argmax(1) == y).float().mean())
    assert theirs < clean - 0.1
    assert abs(theirs - ours) <= 0.1
