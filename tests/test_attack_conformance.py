"""Every registered attack and a user's own pass the checks; wrong ones are flagged by name."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, BIM, PGD
from robench.attacks.target import ScoreTarget, WhiteBoxTarget
from robench.checks.attacks import Result, check_attack
from robench.workspace import plugins
from robench.workspace.folders import open_workspace

QUICK: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 15},
    "art": {"attack": "SquareAttack", "max_iter": 50},
    "autoattack": {"members": ("apgd-ce",)},
    "fab": {"steps": 8, "targets": 2},
    "foolbox": {"attack": "LinfPGD", "steps": 5},
    "lbfgs": {"search_steps": 3, "iterations": 8},
    "nattack": {"iterations": 8, "population": 40, "space": "image"},
    "square": {"queries": 60},
}
"""Settings that keep the checks quick, and names for the adapters."""


def failed(findings: list[Result]) -> dict[str, str]:
    return {finding.check: finding.detail for finding in findings if not finding.passed}


def short(kind: type[Attack], **settings: Any) -> Attack:
    return kind(**settings | {"steps": 20})  # type: ignore[arg-type]


@pytest.mark.rows(5)
@pytest.mark.parametrize("name", plugins.names("attacks"))
def test_every_registered_attack_conforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What has no settings: the same members, in fewer steps.
    monkeypatch.setattr("robench.attacks.standard.QUERIES", 200)
    monkeypatch.setattr("robench.attacks.standard.APGD", partial(short, APGD))
    monkeypatch.setattr("robench.attacks.spikes.PGD", partial(short, PGD))
    if name == "autoattack" and importlib.util.find_spec("pyautoattack") is None:
        pytest.skip("needs the extra 'autoattack' (pyautoattack)")
    cls = plugins.load("attacks", name)
    assert failed(check_attack(lambda **more: cls(**QUICK.get(name, {}) | more))) == {}  # type: ignore[arg-type, return-value]


@pytest.mark.rows(2)
@pytest.mark.parametrize("name", ["pgd", "mim", "apgd", "nattack", "foolbox", "art"])
def test_attacks_that_know_l2_conform_in_l2(name: str) -> None:
    cls = plugins.load("attacks", name)
    l2 = {"foolbox": {"attack": "L2PGD", "steps": 5}}
    settings = QUICK.get(name, {}) | l2.get(name, {})
    assert failed(check_attack(lambda **more: cls(**settings | more), "l2")) == {}  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", ["apgd", "fab"])
def test_attacks_that_know_l1_conform_in_l1(name: str) -> None:
    cls = plugins.load("attacks", name)
    assert failed(check_attack(lambda **more: cls(**QUICK[name] | more), "l1")) == {}  # type: ignore[arg-type, return-value]


def test_a_plugin_in_a_workspace_conforms() -> None:
    card = open_workspace(Path(__file__).parent / "workspace").card("attacks", "lucky-signs")
    findings = check_attack(lambda **more: plugins.build("attacks", card.attack, card, **more))
    assert failed(findings) == {}
    assert {finding.check for finding in findings} >= {"budget", "counts", "access", "seeds"}


# -- deliberately wrong plugins --------------------------------------------------------------------


class LeavesTheBall(BIM):
    """Forgets that a sum of steps can be larger than eps."""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if target.eps == 0:
            return x
        return (x + 1.5 * (super().perturb(target, x, y, rng) - x)).clamp(0, 1)


class LeavesTheRange(BIM):
    """Forgets that pixels end at 0 and 1."""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return x + target.eps * target.gradient(x, y).gradient.sign()


class Peeks(Attack):
    """Says that it asks for scores, and takes the gradient from behind the target's back."""

    needs: ClassVar[str] = "score"

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        network = next(item for item in vars(target).values() if isinstance(item, torch.nn.Module))
        leaf = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(leaf), y)
        (grad,) = torch.autograd.grad(loss, leaf)
        found: Tensor = target.project(x + target.eps * grad.sign(), x)
        return found


class NoOp(Attack):
    """Returns what it got."""

    needs: ClassVar[str] = "decision"

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return x


class AsksInSecret(Attack):
    """Asks the network itself, so that no query is counted."""

    needs: ClassVar[str] = "score"

    def perturb(self, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.empty_like(x).uniform_(-1, 1, generator=rng).sign()
        found = target.project(x + target.eps * noise, x)
        with torch.no_grad():
            target._hidden(found)
        return found


class SeedsItself(Attack):
    """Draws from torch's global state instead of rng."""

    needs: ClassVar[str] = "decision"

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        found: Tensor = target.project(x + target.eps * torch.randn_like(x).sign(), x)
        return found


class LooksAtItsNeighbours(Attack):
    """Spends one gradient on the whole batch, and calls itself deterministic."""

    randomised: ClassVar[bool] = False

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        shared = target.gradient(x, y).gradient.mean(0, keepdim=True)
        return target.project(x + target.eps * shared.sign(), x)


class Overconfident(Attack):
    """Declares that it needs gradients and asks for none."""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.empty_like(x).uniform_(-1, 1, generator=rng).sign()
        found: Tensor = target.project(x + target.eps * noise, x)
        return found


@pytest.mark.rows(3)
@pytest.mark.parametrize(
    ("cls", "check", "detail"),
    [
        (LeavesTheBall, "budget", "leaves the linf ball: 0.3"),
        (LeavesTheRange, "budget", "leaves [0, 1]"),
        (Peeks, "access", "peeks at gradients"),
        (NoOp, "effect", "a no-op"),
        (AsksInSecret, "counts", "forward and gradient rows (60, 0), counted (0, 0)"),
        (SeedsItself, "seeds", "global state: use rng"),
        (LooksAtItsNeighbours, "batches", "of the images differ"),
        (Overconfident, "access", "works without gradients"),
    ],
)
def test_a_wrong_plugin_is_flagged_by_name(cls: type[Attack], check: str, detail: str) -> None:
    findings = failed(check_attack(cls))
    assert check in findings
    assert detail in findings[check]


def test_an_attack_that_raises_fails_the_checks_it_raises_in() -> None:
    class Broken(Attack):
        """Raises."""

        def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
            raise ZeroDivisionError("by design")

    findings = failed(check_attack(Broken))
    assert "raises ZeroDivisionError: by design" in findings["budget"]


def test_a_norm_that_the_attack_does_not_know_is_a_finding() -> None:
    findings = check_attack(BIM, "l0")
    assert [finding.check for finding in findings] == ["builds"]
    assert "'l0'" in findings[0].detail
