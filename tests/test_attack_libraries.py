"""Attacks of foolbox, ART and AutoAttack by name: parameters, access, silence."""

from __future__ import annotations

import importlib.util
import math
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import BIM, FGSM
from robench.attacks.libraries import art as art_adapter
from robench.attacks.libraries import foolbox as foolbox_adapter
from robench.attacks.libraries.adapter import standing
from robench.attacks.libraries.art import ART
from robench.attacks.libraries.autoattack import AutoAttack
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.target import DecisionTarget, ScoreTarget, WhiteBoxTarget
from robench.checks.trial import TARGETS, attempt, reference
from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.cards import AttackCard, Spec

needs_autoattack = pytest.mark.skipif(
    importlib.util.find_spec("pyautoattack") is None,
    reason="needs the extra 'autoattack' (pyautoattack)",
)


def card(**settings: Any) -> AttackCard:
    return AttackCard(attack=settings, access="white-box", eps=0.1, name="mine", root=Path())


def fields(**settings: Any) -> dict[str, Any]:
    made = card(**settings)
    return plugins.resolve("attacks", Spec(**settings), made)


# -- parameters ------------------------------------------------------------------------------------


def test_a_librarys_parameters_are_written_out_with_their_defaults() -> None:
    found = fields(name="foolbox", attack="LinfPGD", steps=15)
    assert found["steps"] == 15
    assert found["random_start"] is True
    found = fields(name="art", attack="SquareAttack")
    assert (found["max_iter"], found["p_init"]) == (100, 0.8)
    assert "eps" not in found  # the card's, not the attack's


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "foolbox", "attack": "LinfPGB"}, "attack = 'LinfPGB'.*did you mean LinfPGD"),
        ({"name": "foolbox", "attack": "LinfPGD", "stepz": 3}, "stepz: unknown.*mean steps"),
        ({"name": "foolbox", "attack": "LinfPGD", "steps": "x"}, "steps = 'x': must be a whole"),
        ({"name": "foolbox", "attack": "LinfPGD", "epsilon": 0.1}, "epsilon: unknown key"),
        ({"name": "foolbox"}, "attack: this key is required"),
        ({"name": "foolbox", "attack": "DatasetAttack"}, ".*no such attack"),
        ({"name": "art", "attack": "SquareAtack"}, ".*did you mean SquareAttack"),
        ({"name": "art", "attack": "SquareAttack", "max_itr": 3}, "max_itr: unknown.*max_iter"),
        ({"name": "art", "attack": "SquareAttack", "eps": 0.3}, "eps: unknown key"),
        ({"name": "art", "attack": "AdversarialPatch"}, ".*no such attack for images"),
    ],
)  # fmt: skip
def test_wrong_settings_are_answered_with_card_key_and_near_names(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(
        RobenchError, match=f"attacks/mine.toml: attack '{settings['name']}': {message}"
    ):
        fields(**settings)


def test_an_attack_whose_own_dependency_is_missing_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foolbox_adapter, "find_spec", lambda name: None)
    with pytest.raises(RobenchError, match="needs the package numba"):
        fields(name="foolbox", attack="L2BrendelBethgeAttack")


def test_listing_attacks_imports_neither_library() -> None:
    code = (
        "import sys; from robench.workspace import plugins; plugins.names('attacks'); "
        "[plugins.summary('attacks', n) for n in plugins.names('attacks')]; "
        "assert not {'torch', 'foolbox', 'art'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- access and norms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "needs", "norms"),
    [
        (Foolbox(attack="LinfPGD"), "white-box", ("linf",)),
        (Foolbox(attack="L2CarliniWagnerAttack"), "white-box", ("l2",)),
        (Foolbox(attack="HopSkipJumpAttack"), "decision", ("l2",)),
        (Foolbox(attack="HopSkipJumpAttack", constraint="linf"), "decision", ("linf",)),
        (Foolbox(attack="BoundaryAttack"), "decision", ("l2",)),
        (Foolbox(attack="GenAttack"), "score", ("linf",)),
        (Foolbox(attack="EADAttack"), "white-box", ("l1",)),
        (Foolbox(attack="L0FMNAttack"), "white-box", ("l0",)),
        (Foolbox(attack="SpatialAttack"), "decision", ("none",)),
        (Foolbox(attack="SaltAndPepperNoiseAttack"), "decision", ("l2",)),
        (Foolbox(attack="InversionAttack"), "decision", ("linf", "l2", "l1", "l0")),
        (ART(attack="SquareAttack"), "score", ("linf", "l2", "l1")),
        (ART(attack="HopSkipJump"), "decision", ("linf", "l2", "l1")),
        (ART(attack="DeepFool"), "white-box", ("l2",)),
    ],
)
def test_adapters_know_what_an_attack_needs(attack: Attack, needs: str, norms: Any) -> None:
    assert (attack.needs, attack.norms) == (needs, norms)


QUICK: list[Attack] = [
    Foolbox(attack="LinfBasicIterativeAttack", steps=5),
    Foolbox(attack="L2CarliniWagnerAttack", steps=20, binary_search_steps=3, initial_const=1.0),
    Foolbox(attack="L2DeepFoolAttack"),
    Foolbox(attack="HopSkipJumpAttack", steps=2, max_gradient_eval_steps=50),
    Foolbox(attack="BoundaryAttack", steps=200),
    Foolbox(attack="GenAttack", steps=20),
    Foolbox(attack="EADAttack", steps=20, binary_search_steps=3),
    Foolbox(attack="L2AdditiveGaussianNoiseAttack"),
    ART(attack="MomentumIterativeMethod", eps_step=0.02, max_iter=10),
    ART(attack="SquareAttack", max_iter=100),
    ART(attack="CarliniL2Method", max_iter=5, binary_search_steps=3, initial_const=1.0),
    ART(attack="DeepFool", max_iter=20),
    ART(attack="HopSkipJump", max_iter=2, max_eval=100, init_eval=20),
    ART(attack="FastGradientMethod"),
]
EPS = {"linf": 0.2, "l2": 1.5, "l1": 8.0}


@pytest.mark.parametrize("attack", QUICK, ids=lambda attack: attack.attack)
def test_library_attacks_run_with_the_access_they_need_and_keep_their_budget(
    attack: Attack,
) -> None:
    norm = attack.norms[0]
    trial = attempt(attack, attack.needs, norm, EPS[norm])
    network, x, y = reference()
    clean = float((network(x).argmax(1) != y).float().mean())
    assert float(trial.distance.max()) <= EPS[norm] * (1 + 1e-5) + 1e-6
    assert 0 <= float(trial.x_adv.min()) <= float(trial.x_adv.max()) <= 1
    assert trial.success >= clean
    assert trial.x_adv.dtype == torch.float32
    assert (trial.seen.rows, trial.seen.differentiated) == (trial.queries, trial.gradients)
    if attack.needs != "white-box":
        assert trial.seen.graphs == 0


@pytest.mark.parametrize("library", [Foolbox(attack="LinfPGD"), ART(attack="DeepFool")])
def test_a_gradient_attack_on_a_score_target_gives_up_in_words(library: Attack) -> None:
    with pytest.raises(RobenchError, match=r"attack (foolbox|art): \w+ gave up"):
        attempt(library, "score", library.norms[0], 1.0)


def test_a_decision_target_shows_libraries_labels_only() -> None:
    network, x, _ = reference()
    target = DecisionTarget(network, Ball("l2", 1.0), len(x))
    answers = target.module()(x.double())
    assert set(answers.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(answers.argmax(1), network(x).argmax(1))
    assert not answers.requires_grad


def test_minimal_attacks_work_without_a_limit_and_bounded_ones_say_they_need_one() -> None:
    network, _, y = reference()
    found = attempt(Foolbox(attack="L2DeepFoolAttack"), "white-box", "l2", math.inf).x_adv
    assert bool((network(found).argmax(1) != y).all())
    with pytest.raises(RobenchError, match="L2PGD needs a finite eps"):
        attempt(Foolbox(attack="L2PGD"), "white-box", "l2", math.inf)


# -- the right labels ------------------------------------------------------------------------------

SHORT: dict[str, dict[str, Any]] = {
    "BoundaryAttack": {"max_iter": 10},
    "BrendelBethgeAttack": {"steps": 20},
    "CarliniLInfMethod": {"max_iter": 1},
    "ElasticNet": {"max_iter": 5},
    "HopSkipJump": {"max_iter": 2, "max_eval": 100, "init_eval": 20},
    "PixelAttack": {"max_iter": 1, "th": 3},
    "SignOPTAttack": {"max_iter": 5, "num_trial": 20, "k": 20},
    "ThresholdAttack": {"max_iter": 1, "th": 3},
    "ZooAttack": {"max_iter": 1},
    "SimBA": {"max_iter": 100},
    "CarliniL0Method": {"max_iter": 3},
    "foolbox BoundaryAttack": {"steps": 200},
    "EADAttack": {"steps": 20, "binary_search_steps": 3},
    "GenAttack": {"steps": 20},
    "HopSkipJumpAttack": {"steps": 2, "max_gradient_eval_steps": 50},
    "L2CarliniWagnerAttack": {"steps": 20, "binary_search_steps": 3},
    "VirtualAdversarialAttack": {"steps": 20},
}
"""Settings without which an attack takes long; each says the same with its own."""
LACKING = ("no module named", "numba", "no attribute 'arange'")
"""Undeclared packages (cma, multiprocess, numba), and a method that foolbox's L0FMN misspells."""


def partly_wrong() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """The reference network on 20 images, a fifth of which it gets wrong: each of these is labelled
    with the class that is likeliest beside the one it answers, so that a step heals it."""
    network, images, _ = reference()
    x = images[:20]
    logits = network(x)
    second = logits.scatter(1, logits.argmax(1)[:, None], -torch.inf).argmax(1)
    labels = torch.where(torch.arange(len(x)) % 5 == 0, second, logits.argmax(1))
    return network, x, labels


def left(attack: Attack) -> tuple[float, int]:
    """Accuracy under an attack, and how many images it has healed."""
    network, x, y = partly_wrong()
    norm = attack.norms[0]
    target = TARGETS[attack.needs](network, Ball(norm, EPS.get(norm, 6.0)), len(x))
    found = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    right = network(found).argmax(1) == y
    return float(right.float().mean()), int((right & (network(x).argmax(1) != y)).sum())


@pytest.mark.rows(1)
@pytest.mark.parametrize("library", ["foolbox", "art"])
def test_no_attack_of_either_library_leaves_more_than_was_right(library: str) -> None:
    adapter = {"foolbox": foolbox_adapter, "art": art_adapter}[library]
    make = {"foolbox": Foolbox, "art": ART}[library]
    above, lacking = {}, []
    for name in adapter._attacks():
        try:
            short = SHORT.get(f"{library} {name}", SHORT.get(name, {}))
            accuracy, healed = left(make(attack=name, **short))
        except (RobenchError, ValueError) as error:
            lacking.append(name)
            if not any(text in str(error).lower() for text in LACKING):
                raise
            continue
        if accuracy > 0.8 + 1e-6 or healed:
            above[name] = (accuracy, healed)
    assert not above
    assert len(lacking) <= 5  # of some sixty, or thirty


def test_jsma_gets_a_wrong_class_to_go_to() -> None:
    accuracy, healed = left(ART(attack="SaliencyMapMethod", gamma=1.0))
    assert healed == 0
    assert accuracy < 0.3  # handed the right classes it left 1.0


def test_images_that_are_wrong_already_cost_one_question_and_stay() -> None:
    network, x, y = partly_wrong()
    target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
    attack = Foolbox(attack="LinfBasicIterativeAttack", steps=3)
    found = attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(1))
    wrong = network(x).argmax(1) != y
    assert torch.equal(found[wrong], x[wrong])
    assert bool((found[~wrong] != x[~wrong]).flatten(1).any(1).all())
    counts = target.counts()
    assert counts["queries"] is not None
    assert counts["gradients"] is not None
    assert set(counts["queries"][wrong.numpy()]) == {1.0}
    assert set(counts["gradients"][wrong.numpy()]) == {0.0}
    assert set(counts["gradients"][~wrong.numpy()]) == {3.0}


def test_an_image_of_a_noisy_network_is_wrong_already_where_every_draw_is() -> None:
    network, x, y = partly_wrong()

    class Sometimes(DecisionTarget):
        def labels(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
            answers = super().labels(x, index)
            assert index is not None
            self.asked = getattr(self, "asked", 0) + 1
            return torch.where((index == 1) & (self.asked < 10), (answers + 1) % 10, answers)

    target = Sometimes(network, Ball("l2", 1.0), len(x))
    target.stochastic = True
    rows = standing(target, x, y)
    assert bool(rows[1])
    assert int(rows.sum()) == 16
    assert target.asked == 32


# -- manners ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [Foolbox(attack="LinfPGD", steps=2), ART(attack="BoundaryAttack", max_iter=2)],
    ids=["foolbox", "art"],
)
def test_libraries_neither_talk_nor_leave_traces_in_global_random_states(
    attack: Attack, capfd: pytest.CaptureFixture[str]
) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index, union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attempt(attack, attack.needs, attack.norms[0], 0.1, batch=60)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]
    assert states[2] == random.getstate()


def test_libraries_compute_no_gradient_of_the_weights() -> None:
    network, x, y = reference()
    network.requires_grad_(True)
    try:
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        for attack in (
            Foolbox(attack="LinfPGD", steps=2),
            ART(attack="FastGradientMethod"),
            FGSM(),
        ):
            attack.perturb(target, x.clone(), y, torch.Generator())
        assert all(p.grad is None for p in network.parameters())
        assert all(p.requires_grad for p in network.parameters())
    finally:
        network.requires_grad_(False)


@needs_autoattack
def test_autoattack_is_as_strong_as_the_best_of_our_own() -> None:
    attack = AutoAttack(members=("apgd-ce", "apgd-t"))
    best = max(attempt(BIM(steps=50), "white-box", "linf", 0.05).success, 0)
    assert attempt(attack, "white-box", "linf", 0.05).success >= best


def test_autoattack_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(RobenchError, match=r"pip install 'robench\[autoattack\]'"):
        attempt(AutoAttack(), "white-box", "linf", 0.1)


# -- agreement on a small network (the large comparison is in test_attack_crosschecks.py) ----------


def test_fgsm_and_bim_agree_with_foolbox_and_art_pixel_by_pixel() -> None:
    network, x, y = reference()
    right = network(x).argmax(1) == y  # they leave the others as they are
    pairs = [
        (FGSM(), Foolbox(attack="LinfFastGradientAttack"), ART(attack="FastGradientMethod")),
        (
            BIM(steps=10, step_size=0.02, keep="last"),
            Foolbox(attack="LinfBasicIterativeAttack", steps=10, abs_stepsize=0.02),
            ART(attack="BasicIterativeMethod", max_iter=10, eps_step=0.02),
        ),
    ]
    for ours, *theirs in pairs:
        expected = attempt(ours, "white-box", "linf", 0.1).x_adv
        for library in theirs:
            found = attempt(library, "white-box", "linf", 0.1).x_adv
            differ = (found - expected)[right].abs().gt(1e-5)
            # One pixel in a thousand has a gradient within rounding, whose sign is anybody's.
            assert float(differ.float().mean()) < 0.01


def test_targets_offer_no_more_than_their_access() -> None:
    network, x, _ = reference()
    ball = Ball("linf", 0.1)
    assert not hasattr(ScoreTarget(network, ball, len(x)), "gradient")
    assert not hasattr(DecisionTarget(network, ball, len(x)), "logits")
    with torch.enable_grad():
        logits = ScoreTarget(network, ball, len(x)).logits(x.clone().requires_grad_())
    assert not logits.requires_grad
    assert set(TARGETS) == {"white-box", "score", "decision", "weights"}


def test_what_a_library_attack_met_on_its_way_is_unknown_and_not_nothing() -> None:
    network, x, y = reference()
    target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
    Foolbox(attack="LinfBasicIterativeAttack", steps=2).perturb(
        target, x, y, torch.Generator().manual_seed(0)
    )
    counts = target.counts()
    assert counts["zero_gradient"] is not None
    assert counts["fooled_on_the_way"] is None
