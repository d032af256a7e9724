"""Targeted threats: the class aimed at, what is reached, and how it is counted. Right values come
from linear programs, from loops over images, and from predicting kept images by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_truth import Linear, lead
from numpy.typing import NDArray
from pages import embedded_data
from small_runs import carry_out, outcomes, small_workspace
from torch import nn

import robench
from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.goal import Goal, among
from robench.attacks.gradient import APGD, BIM, DIM, FGSM, MIM, PGD, TIM
from robench.attacks.lbfgs import LBFGS
from robench.attacks.libraries import art as art_adapter
from robench.attacks.libraries import foolbox as foolbox_adapter
from robench.attacks.libraries.art import ART
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.losses import accuracy, cross_entropy, dlr, margin
from robench.attacks.nattack import NAttack
from robench.attacks.noise import Noise
from robench.attacks.spikes import Spikes
from robench.attacks.square import Square
from robench.attacks.standard import Standard
from robench.attacks.target import WhiteBoxTarget
from robench.checks.trial import TARGETS, reference
from robench.data.base import Part
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.goals import NONE, Towards, aims, check_goal
from robench.make.identity import threat_fields
from robench.make.run_state import Run
from robench.make.scoring import attack_slice, score_slice
from robench.show.diagnostics.verdicts import diagnose
from robench.show.leaderboard import leaderboard
from robench.show.results import Results, load_results
from robench.workspace.cards import AttackCard
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import Threat

pytestmark = pytest.mark.usefixtures("without_plots")

Write = Callable[[str, str], Path]
CPU = torch.device("cpu")
EPS = 0.15


def card(aim: Any = "likeliest", **settings: Any) -> AttackCard:
    values = {"attack": "pgd", "access": "white-box", "eps": EPS, "goal": "targeted", "aim": aim}
    return AttackCard(**{**values, **settings}, name="mine", root=Path())


# -- which class -----------------------------------------------------------------------------------


@given(st.integers(2, 6), st.integers(0, 10**6))
def test_aims_are_those_that_a_loop_over_images_finds(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(7, classes)), rng.integers(classes, size=7)
    wrong = [[c for c in range(classes) if c != label] for label in labels]
    best = [max(w, key=lambda c, row=row: row[c]) for w, row in zip(wrong, logits, strict=True)]
    worst = [min(w, key=lambda c, row=row: row[c]) for w, row in zip(wrong, logits, strict=True)]
    assert aims(card("likeliest"), logits, labels)[0].tolist() == best
    assert aims(card("least-likely"), logits, labels)[0].tolist() == worst
    each = np.stack(aims(card("each"), logits, labels))
    assert each.shape == (classes - 1, 7)
    assert [sorted(column) for column in each.T.tolist()] == wrong
    (fixed,) = aims(card(1), logits, labels)
    assert fixed.tolist() == [NONE if label == 1 else 1 for label in labels]


@given(st.integers(2, 6), st.integers(0, 10**6))
def test_a_gap_is_positive_where_the_goal_is_reached_also_among_the_first_k(
    classes: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, classes, generator=rng)
    y = torch.randint(classes, (5,), generator=rng)
    for k in range(1, classes):
        order = [sorted(range(classes), key=lambda c, r=r: -r[c])[:k] for r in logits.tolist()]
        inside = [label in first for label, first in zip(y.tolist(), order, strict=True)]
        assert among(logits, y, k).tolist() == inside
        away, towards = Goal(top_k=k), Goal(aim=y, top_k=k)
        assert (away.gap(logits, y) > 0).tolist() == [not one for one in inside]
        assert (towards.gap(logits, y) > 0).tolist() == inside
        assert torch.equal(towards.gap(torch.stack([logits, -logits]), y)[0],
                           towards.gap(logits, y))  # fmt: skip


@pytest.mark.parametrize("loss", [cross_entropy, margin, accuracy, dlr])
def test_towards_a_class_the_loss_is_the_other_way_round(loss: Any) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    aim = torch.tensor([0, 1, 2, 3, 4, 0])
    assert torch.equal(Goal(aim=aim).loss(loss)(logits, aim), -loss(logits, aim))
    assert Goal().loss(loss) is loss


# -- what is reached, against linear programs ------------------------------------------------------

PIXELS, CLASSES = 4, 4


def linear() -> tuple[Linear, Part, dict[int, NDArray[np.float64]]]:
    """A network, images, and of every class its largest lead in the ball, (images,)."""
    rng = np.random.default_rng(5)
    weights, bias = rng.normal(size=(CLASSES, PIXELS)) * 2, rng.normal(size=CLASSES) * 0.3
    images = rng.random((40, 1, 2, 2)).astype(np.float32)
    labels = np.arange(40) % CLASSES
    leads = {
        aim: np.array(
            [
                lead(weights, bias, x.ravel().astype(float), aim,
                     [c for c in range(CLASSES) if c != aim], EPS)
                for x in images
            ]
        )
        for aim in range(CLASSES)
    }  # fmt: skip
    return Linear(weights, bias, (1, 2, 2)), Part(images, labels), leads


EXACT: list[Attack] = [
    APGD(steps=60, loss="margin"),
    PGD(steps=60, restarts=3, loss="margin"),
    Spikes(),
    Standard(),
    NAttack(iterations=60, population=60, space="image", sigma=0.3, lr=0.2, reward="margin"),
    Square(queries=400),
]
"""Attacks that find what there is on a linear network."""
OTHERS: list[Attack] = [FGSM(), BIM(), MIM(), DIM(), TIM(smoothing=1), PGD(loss="dlr"),
                        LBFGS(), PGD(loss="accuracy", schedule="sa-pgd")]  # fmt: skip
CLEAR = 0.05
"""A lead that no rounding and no coarse step of a search hides."""


def reached(network: Linear, part: Part, attack: Attack, aim: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the framework counts each image as reached."""
    made = card(0, access=attack.needs)
    settings: dict[str, Any] = {"noisy": False, "seed": 0, "batch_size": 16, "device": CPU}
    run = attack_slice(network, attack, made, EPS, part, aims=aim, **settings)

    def score(images: NDArray[Any], labels: NDArray[Any], seed: int) -> Any:
        return score_slice(network, images, Part(images, labels), draws=1, **settings)

    _, columns = Towards([run], [aim]).scored(score, part.labels, 0)
    shares = columns["reached"].to_pylist()
    assert [len(one) for one in shares] == [int(one != NONE) for one in aim]
    assert float(np.abs(run.images - part.images).max()) <= EPS + 1e-6
    said = network(torch.from_numpy(run.images)).argmax(1).numpy()
    hand = [[float(s == a)] if a != NONE else [] for s, a in zip(said, aim, strict=True)]
    assert shares == hand
    still = aim == NONE
    assert np.array_equal(run.images[still], part.images[still])
    assert not run.queries[still].any()
    return np.array([bool(one and one[0]) for one in shares])


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `standard`, which has no settings: what nothing reaches is asked about to the end."""
    monkeypatch.setattr("robench.attacks.standard.QUERIES", 300)


@pytest.mark.rows(2)
@pytest.mark.parametrize("attack", EXACT, ids=lambda attack: type(attack).__name__)
def test_strong_attacks_reach_the_classes_that_a_linear_program_reaches(attack: Attack) -> None:
    network, part, leads = linear()
    for aim in range(CLASSES):
        wanted = np.where(part.labels == aim, NONE, aim)
        found, has = reached(network, part, attack, wanted), part.labels != aim
        assert not (found & (leads[aim] < -1e-5)).any()
        assert found[has & (leads[aim] > CLEAR)].all()


@pytest.mark.rows(3)
@pytest.mark.parametrize("attack", OTHERS, ids=lambda a: f"{type(a).__name__}")
def test_no_attack_reaches_what_a_linear_program_does_not(attack: Attack) -> None:
    network, part, leads = linear()
    logits = network(torch.from_numpy(part.images)).detach().numpy()
    clean = logits.argmax(1)
    total, before = 0, 0
    for aim in range(CLASSES):
        wanted = np.where(part.labels == aim, NONE, aim)
        found = reached(network, part, attack, wanted)
        assert not (found & (leads[aim] < -1e-5)).any()
        total, before = total + int(found.sum()), before + int((clean == wanted).sum())
    assert total > before + 5  # and it does reach some


def test_the_hard_classes_are_reached_less_often_than_the_likely_ones() -> None:
    network, part, leads = linear()
    logits = network(torch.from_numpy(part.images)).detach().numpy()
    rates = {}
    for which in ("likeliest", "least-likely"):
        (aim,) = aims(card(which), logits, part.labels)
        truth = np.array([leads[a][i] > 0 for i, a in enumerate(aim)])
        clear = np.array([abs(leads[a][i]) > CLEAR for i, a in enumerate(aim)])
        found = reached(network, part, APGD(steps=60, loss="margin"), aim)
        assert np.array_equal(found[clear], truth[clear])
        rates[which] = found.mean()
    assert rates["likeliest"] > rates["least-likely"] + 0.2


# -- every attack of ours, on a trained network ----------------------------------------------------

OURS: list[Attack] = [
    FGSM(keep="best"), BIM(), PGD(), MIM(), DIM(), TIM(smoothing=3), APGD(steps=20), Spikes(),
    Standard(), Square(queries=300), NAttack(iterations=30, population=40, space="image"),
    LBFGS(iterations=10, search_steps=5),
]  # fmt: skip


@pytest.mark.parametrize("attack", OURS, ids=lambda attack: type(attack).__name__)
def test_every_gradient_and_score_attack_goes_where_it_is_told(attack: Attack) -> None:
    network, x, y = reference()
    x, y = x[:30], y[:30]
    clean = network(x).argmax(1)
    aim = network(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    norm = attack.norms[0]
    budget = Ball(norm, {"linf": 0.2, "l2": 2.0}[norm])
    target = TARGETS[attack.needs](network, budget, 30, goal=Goal(aim))
    found = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    there = network(found).argmax(1) == aim
    assert attack.targeted
    assert bool((budget.distance(found, x) <= budget.eps + 1e-6).all())
    assert int(there.sum()) >= int((clean == aim).sum()) + 8
    other = (aim + 1 + (aim + 1 == y).long()) % 10  # told otherwise, it goes elsewhere
    target = TARGETS[attack.needs](network, budget, 30, goal=Goal(other))
    again = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    assert int((network(again).argmax(1) == other).sum()) > int(
        (network(found).argmax(1) == other).sum()
    )


def test_an_untargeted_attack_is_as_it_was() -> None:
    network, x, y = reference()
    ball = Ball("linf", 0.1)
    for attack in (PGD(), APGD(steps=5), Square(queries=30)):
        images = []
        for goal in (None, Goal()):
            target = WhiteBoxTarget(network, ball, len(x), goal=goal)
            rng = torch.Generator().manual_seed(1)
            images.append(attack.perturb(target, x.clone(), y.clone(), rng))
        assert torch.equal(*images)


# -- libraries -------------------------------------------------------------------------------------

QUICK: dict[str, dict[str, Any]] = {
    "CarliniL2Method": {"max_iter": 10, "binary_search_steps": 3, "initial_const": 1.0},
    "HopSkipJump": {"max_iter": 2, "max_eval": 100, "init_eval": 20},
    "EADAttack": {"steps": 60, "binary_search_steps": 4, "initial_const": 1.0},
    "GenAttack": {"steps": 20},
    "HopSkipJumpAttack": {"steps": 2, "max_gradient_eval_steps": 50},
    "L2CarliniWagnerAttack": {"steps": 20, "binary_search_steps": 3},
    "BoundaryAttack": {"steps": 100},
    "SaliencyMapMethod": {"gamma": 1.0},
    "L2BrendelBethgeAttack": {"steps": 20},
}
BUDGET = {"linf": 0.25, "l2": 2.0, "l1": 12.0, "l0": 20.0}


def by_library(make: Any, name: str) -> tuple[int, int, int]:
    """Images (of 20) that answer their aim before, after, and that left the ball."""
    attack = make(attack=name, **QUICK.get(name, {}))
    network, x, y = reference()
    x, y = x[:20], y[:20]
    aim = network(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    norm = attack.norms[0]
    ball = Ball(norm, BUDGET.get(norm, 1.0))
    target = TARGETS[attack.needs](network, ball, 20, goal=Goal(aim))
    found = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    far = int((ball.distance(found, x) > ball.eps * (1 + 1e-5) + 1e-6).sum())
    return (
        int((network(x).argmax(1) == aim).sum()),
        int((network(found).argmax(1) == aim).sum()),
        far,
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((Foolbox, name) for name in ("LinfPGD", "LinfBasicIterativeAttack", "L2PGD",
          "L2CarliniWagnerAttack", "EADAttack", "GenAttack", "DDNAttack", "LInfFMNAttack",
          "L2AdamPGD", "LinfAdamBasicIterativeAttack")),
        *((ART, name) for name in ("FastGradientMethod", "BasicIterativeMethod",
          "ProjectedGradientDescent", "MomentumIterativeMethod", "CarliniL2Method",
          "SaliencyMapMethod", "AutoProjectedGradientDescent", "HopSkipJump")),
    ],
)  # fmt: skip
def test_library_attacks_go_where_they_are_told(make: Any, name: str) -> None:
    before, after, far = by_library(make, name)
    assert far == 0
    assert after >= before + 3


def test_what_foolbox_can_aim_is_what_it_says_it_can() -> None:
    """Every attack of foolbox is tried with a class to go to: the adapter knows which refuse."""
    wrong = {}
    for name in foolbox_adapter._attacks():
        try:
            attack = Foolbox(attack=name, **QUICK.get(name, {}))
            by_library(Foolbox, name)
            takes = True
        except (RobenchError, ValueError) as error:
            text = str(error).lower()
            if any(part in text for part in ("numba", "no module named", "has no attribute")):
                continue
            takes = not ("criterion" in text or "unsupported" in text)
        takes = takes and "DeepFool" not in name  # which goes to the nearest class all the same
        if takes != attack.targeted:
            wrong[name] = (takes, attack.targeted)
    assert not wrong


def test_what_art_can_aim_is_what_has_a_parameter_for_it() -> None:
    for name, cls in art_adapter._attacks().items():
        try:
            attack = ART(attack=name)
        except (RobenchError, ValueError):
            continue
        takes = "targeted" in cls.__init__.__code__.co_varnames or name == "SaliencyMapMethod"
        takes = takes and name != "SignOPTAttack"  # which asks for an image of the class, too
        assert attack.targeted == takes, name


# -- through a run ---------------------------------------------------------------------------------

MINE = """
attack = {{ name = "pgd", steps = 10 }}
access = "white-box"
eps = 0.15
goal = "targeted"
aim = {aim}
"""


def aimed_workspace(root: Path) -> Workspace:
    small_workspace(root)
    for name, aim in (
        ("to-3", "3"), ("likely", '"likeliest"'), ("unlikely", '"least-likely"'), ("each", '"each"')
    ):  # fmt: skip
        (root / f"attacks/{name}.toml").write_text(MINE.format(aim=aim))
    text = (root / "models/small.toml").read_text()
    noisy = text.replace("hidden = [16]", "hidden = [16], sigma = 0.3")
    (root / "models/noisy.toml").write_text(noisy + "inference_noise = true\n")
    (root / "models/source.toml").write_text(text.replace("[16]", "[8]"))
    moved = MINE.format(aim="3").replace("white-box", "transfer") + 'surrogate = "source"\n'
    (root / "attacks/moved.toml").write_text(moved)
    (root / "reports/small.toml").write_text(
        'title = "t"\nmodels = ["small", "noisy"]\nattacks = ["fgsm", "to-3", "likely", '
        '"unlikely", "each", "moved"]\nimages = 40\ndraws = 8\ndiagnostics = false\n'
    )
    return open_workspace(root)


@pytest.fixture
def aimed(tmp_path: Path) -> Workspace:
    return aimed_workspace(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Results]:
    """The workspace's report, run in this process, and what a page knows of it."""
    run, ears = carry_out(aimed_workspace(tmp_path_factory.mktemp("aimed")))
    assert not ears.failed
    run.store.write_run("small", describe(run, "robench run small"))
    return run, load_results(run.store, "small")


def test_success_stands_beside_the_accuracy_and_is_what_the_rows_say(
    finished: tuple[Run, Results],
) -> None:
    _, results = finished
    table = leaderboard(results)
    for model in results.models:
        row = table[table["model"] == model["name"]].iloc[0]
        for name in ("to-3", "likely", "unlikely", "each", "moved"):
            rows = results.table(model["name"], 0, name).to_pylist()
            shares = []
            for one in rows:
                label, said = one["label"], one["predictions"]
                if name in ("to-3", "moved"):
                    assert one["aims"] == ([] if label == 3 else [3])
                elif name == "each":
                    assert sorted(one["aims"]) == [c for c in range(10) if c != label]
                else:
                    assert len(one["aims"]) == 1
                    assert one["aims"][0] != label
                if name != "each" and one["aims"]:
                    assert one["reached"] == [np.float32(np.mean(np.array(said) == one["aims"]))]
                if one["aims"]:
                    shares.append(np.mean(one["reached"]))
                else:
                    assert one["distance"] == 0
            assert row[f"success:{name}"] == pytest.approx(np.mean(shares), abs=1e-6)
            assert row[f"success:{name}_low"] <= row[f"success:{name}"]
        assert "success:fgsm" not in table
        assert row["average_attacks"] == pytest.approx(row["fgsm"])  # the others are left out
        assert row["worst_case"] <= row[["fgsm", "to-3", "likely", "each"]].min() + (
            0.03 if model["stochastic"] else 1e-9
        )
        assert row["success:likely"] > row["success:unlikely"]
        assert row["success:each"] < row["success:likely"]


def test_of_each_class_in_turn_the_image_that_is_right_least_often_is_the_outcome(
    finished: tuple[Run, Results],
) -> None:
    _, results = finished
    rows = {
        name: results.table("small", 0, name).to_pylist() for name in ("each", "likely", "clean")
    }
    for each, likely, clean in zip(*rows.values(), strict=True):
        # An image that one of the nine has taken for something else is broken.
        assert (each["correct"] == 0) == (max(each["reached"]) == 1 or each["correct"] == 0)
        if max(each["reached"]) == 1:
            assert each["correct"] == 0
        assert each["queries"] > likely["queries"] - 1e-6
        assert clean.get("aims") is None
    assert sum(r["correct"] for r in rows["each"]) <= sum(r["correct"] for r in rows["likely"])


def test_targeted_cells_do_not_depend_on_processes(
    aimed: Workspace, finished: tuple[Run, Results]
) -> None:
    assert outcomes(carry_out(aimed, jobs=2)[0]) == outcomes(finished[0])


def test_the_page_and_its_files_say_it(finished: tuple[Run, Results], tmp_path: Path) -> None:
    from robench.show.report.folder import write_report
    from robench.show.results import load_published

    _, results = finished
    page = write_report(results, tmp_path / "page").read_text()
    assert "Success of targeted attacks" in page
    assert "towards class 3" in page
    assert '"success": [' in json.dumps(embedded_data(page))
    table = pd.read_csv(tmp_path / "page/leaderboard.csv")
    assert table["success:to-3"].between(0, 1).all()
    rows = json.loads((tmp_path / "page/leaderboard.json").read_text())["rows"]
    assert all(0 <= row["success:each"] <= 1 for row in rows)
    again = load_published(tmp_path / "page")
    assert leaderboard(again)["success:to-3"].tolist() == pytest.approx(
        leaderboard(results)["success:to-3"].tolist()
    )


def test_no_verdict_is_about_attacks_that_go_towards_a_class(
    finished: tuple[Run, Results],
) -> None:
    _, results = finished
    for verdict in diagnose(results).values():
        for finding in [*verdict["alarms"], *verdict.get("checks", [])]:
            said = json.dumps(finding)
            assert not any(name in said for name in ('"to-3"', '"each"', '"unlikely"', '"moved"'))


def test_an_identity_holds_the_goal_and_only_where_there_is_one() -> None:
    plain = AttackCard(attack="fgsm", access="white-box", eps=0.1, name="m", root=Path())
    assert not {"goal", "aim"} & set(threat_fields(Threat("m", "attack", plain, eps=0.1)))
    fields = [threat_fields(Threat("m", "attack", card(aim), eps=0.1)) for aim in (1, 2, "each")]
    assert [one["aim"] for one in fields] == [1, 2, "each"]


# -- bad values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"aim": "nearest"}, "say a class by its number .from 0., or one of likeliest"),
        ({"aim": -1}, "say a class by its number"),
        ({"aim": 1.5}, "say a class by its number"),
        ({"aim": True}, "say a class by its number"),
        ({"goal": "aimed"}, "goal = 'aimed': must be one of"),
        ({"goal": "untargeted", "aim": 3}, "aim goes with goal"),
        ({"access": "weights", "role": "proof"}, "a proof is about every class"),
        ({"access": "transfer", "surrogate": "x", "aim": "each"}, "each.* needs the model itself"),
    ],
)
def test_a_bad_goal_is_one_error_that_says_what_to_do(
    write: Write, changed: dict[str, Any], message: str
) -> None:
    values: dict[str, Any] = {"attack": "pgd", "access": "white-box", "eps": 0.1,
                              "goal": "targeted"} | changed  # fmt: skip
    path = write("attacks/bad.toml", "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items()))
    workspace = open_workspace(path.parents[1])
    with pytest.raises(RobenchError, match=rf"attacks/bad.toml: .*{message}"):
        workspace.card("attacks", "bad")


@pytest.mark.parametrize(
    ("attack", "name", "message"),
    [
        (Noise(), "noise", "attack 'noise' goes towards no class"),
        (Foolbox(attack="L2DeepFoolAttack"), "foolbox", "L2DeepFoolAttack goes towards no class"),
        (ART(attack="NewtonFool"), "art", "NewtonFool goes towards no class"),
        (PGD(targets=3), "pgd", "both say which class is run towards; drop one"),
        (LBFGS(goal="random"), "lbfgs", "both say which class is run towards; drop one"),
        (PGD(), "pgd", "aim = 12: the data has the classes 0 to 9"),
    ],
)
def test_an_attack_that_cannot_says_so(attack: Attack, name: str, message: str) -> None:
    made = card(12, attack=name)
    with pytest.raises(RobenchError, match=message):
        check_goal(attack, made, 10)


def test_before_any_work_starts(aimed: Workspace, write: Write) -> None:
    write("attacks/to-3.toml", MINE.format(aim="10"))
    with pytest.raises(
        RobenchError, match=r"attacks/to-3.toml: aim = 10: the data has the classes"
    ):
        carry_out(open_workspace(aimed.root))
    assert not (aimed.root / ".robench/models").exists()


# -- in Python -------------------------------------------------------------------------------------


def test_evaluate_with_a_goal_counts_what_is_reached(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 4
    shared: dict[str, Any] = {
        **no_diagnostics,
        "store": tmp_path,
        "keep_images": True,
    }
    result = robench.evaluate(
        network, (x, y), attacks=["pgd"], eps=0.2, goal="targeted", aim=2, **shared
    )
    said = network(torch.from_numpy(result.images("pgd"))).argmax(1)
    assert result.success("pgd") == pytest.approx(float((said == 2)[y != 2].float().mean()))
    assert "success of pgd, towards class 2:" in str(result)
    mapping = {"name": "pgd", "goal": "targeted", "aim": "least-likely", "eps": 0.2}
    other = robench.evaluate(network, (x, y), attacks=[mapping, "fgsm"], **shared)
    assert other.success("pgd") < 1
    with pytest.raises(RobenchError, match="'fgsm' is no targeted attack"):
        other.success("fgsm")
    with pytest.raises(RobenchError, match="none of the attacks asked for goes towards a class"):
        robench.evaluate(network, (x, y), attacks=["noise"], goal="targeted", **shared)
    with pytest.raises(RobenchError, match="say goal = 'targeted' where you say an aim"):
        robench.evaluate(network, (x, y), attacks=["pgd"], aim=2, **shared)
    with pytest.raises(RobenchError, match="aim = 7: the data has the classes 0 to 3"):
        robench.evaluate(network, (x, y), attacks=["pgd"], goal="targeted", aim=7, **shared)
    own = robench.evaluate(
        network, (x, y), attacks=[{"name": "lbfgs", "goal": "runner-up", "eps": 2.0}], **shared
    )
    assert own.results.attacks[0]["fields"]["attack"]["goal"] == "runner-up"
