"""By which rule an answer counts as right: among the first k, and against what the network itself
answers. Right values come from sorting logits by hand and from linear programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_truth import Linear, lead
from small_runs import Ears
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import robench
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, FGSM, PGD
from robench.attacks.nattack import NAttack
from robench.attacks.square import Square
from robench.data.base import Part
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.run_state import Run, open_run
from robench.make.scheduler import execute
from robench.make.scoring import attack_slice, score_slice
from robench.make.trained import trained_network
from robench.show.images import read_images
from robench.show.leaderboard import leaderboard
from robench.show.results import Results, load_results
from robench.store.store import Store
from robench.workspace.cards import AttackCard
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {"noisy": False, "seed": 0, "batch_size": 16, "device": CPU}


def first(logits: torch.Tensor, k: int) -> list[list[int]]:
    """The k likeliest classes of each row, of equals the lower ones, sorted by hand."""
    return [sorted(range(len(r)), key=lambda c, r=r: (-r[c], c))[:k] for r in logits.tolist()]


# -- the first k -----------------------------------------------------------------------------------


@given(st.integers(3, 7), st.integers(0, 10**6), st.booleans())
def test_a_label_counts_where_it_is_among_the_first_k(classes: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(classes, 4))
    if tied:  # equal logits: of equals the lower class comes first
        weights[1:] = weights[:1]
    network = Linear(weights, np.zeros(classes), (1, 2, 2))
    part = Part(rng.random((9, 1, 2, 2), dtype=np.float32), rng.integers(classes, size=9))
    logits = network(torch.from_numpy(part.images))
    before = np.zeros(9)
    for k in range(1, classes):
        rows, _ = score_slice(network, part.images, part, draws=1, top_k=k, **SETTINGS)
        correct = rows.column("correct").to_numpy()
        right = [label in one for label, one in zip(part.labels, first(logits, k), strict=True)]
        assert correct.tolist() == right
        assert (correct >= before).all()  # more classes, no fewer right answers
        before = correct


CLASSES, PIXELS, EPS, CLEAR = 4, 4, 0.15, 0.05


@pytest.mark.rows(4)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=60, restarts=5, loss="margin"),
        APGD(steps=60, restarts=3, loss="margin"),
        Square(queries=400),
        NAttack(iterations=60, population=60, space="image", sigma=0.3, lr=0.2, reward="margin"),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks_push_a_label_out_of_the_first_k_where_a_linear_program_can(
    attack: Attack, k: int
) -> None:
    rng = np.random.default_rng(7)
    weights, bias = rng.normal(size=(CLASSES, PIXELS)) * 2, rng.normal(size=CLASSES) * 0.3
    images = rng.random((30, 1, 2, 2)).astype(np.float32)
    network = Linear(weights, bias, (1, 2, 2))
    labels = np.array([one[0] for one in first(network(torch.from_numpy(images)), 1)])
    card = AttackCard(attack="pgd", access=attack.needs, eps=EPS, name="mine", root=Path())
    run = attack_slice(network, attack, card, EPS, Part(images, labels), top_k=k, **SETTINGS)
    rows, _ = score_slice(
        network, run.images, Part(run.images, labels), draws=1, top_k=k, **SETTINGS
    )
    broken = rows.column("correct").to_numpy() == 0
    truth = []
    for x, y in zip(images, labels, strict=True):
        others = [c for c in range(CLASSES) if c != y]
        # All k of some set of classes must lie above the label: the least of their leads over it.
        truth.append(max(_all_above(weights, bias, x.ravel(), y, group)
                         for group in itertools.combinations(others, k)))  # fmt: skip
    above = np.array(truth)
    assert not (broken & (above < -1e-5)).any()
    can = above > CLEAR
    assert broken[can].sum() >= (0.9 if attack.needs == "white-box" else 0.6) * can.sum()
    assert k == 3 or broken.any()


def _all_above(weights: Any, bias: Any, x: Any, y: int, group: tuple[int, ...]) -> float:
    """max over the ball of the least lead over y of the classes in `group`: the lead of -y over
    them, in a network with the signs turned round."""
    return lead(-weights, -bias, x.astype(float), y, list(group), EPS)


def test_an_attack_that_stops_at_the_second_place_would_leave_too_much() -> None:
    """What is measured by the first k must be attacked by the first k."""
    rng = np.random.default_rng(3)
    network = Linear(rng.normal(size=(6, 9)) * 2, np.zeros(6), (1, 3, 3))
    images = rng.random((60, 1, 3, 3), dtype=np.float32)
    labels = network(torch.from_numpy(images)).argmax(1).numpy()
    card = AttackCard(attack="pgd", access="white-box", eps=0.2, name="mine", root=Path())
    left = {}
    for aimed in (1, 2):
        run = attack_slice(
            network, PGD(steps=40, loss="margin"), card, 0.2, Part(images, labels),
            top_k=aimed, **SETTINGS,
        )  # fmt: skip
        said = network(torch.from_numpy(run.images))
        left[aimed] = np.mean([y in one for y, one in zip(labels, first(said, 2), strict=True)])
    assert left[2] < left[1] - 0.1


# -- through a run ---------------------------------------------------------------------------------

REPORT = """
title = "t"
models = ["small", "noisy"]
attacks = ["fgsm", "to-3"]
corruptions = ["glr"]
images = 30
draws = 6
diagnostics = false
"""
TO_3 = 'attack = "bim"\naccess = "white-box"\neps = 0.1\ngoal = "targeted"\naim = 3\n'


@pytest.fixture
def counted(small: Workspace, write: Write) -> Callable[[str], Results]:
    text = (small.root / "models/small.toml").read_text()
    write("models/noisy.toml", text.replace("hidden = [16]", "hidden = [16], sigma = 0.3")
          + "inference_noise = true\n")  # fmt: skip
    write("models/source.toml", text.replace("[16]", "[8]"))
    write("attacks/moved.toml", 'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\n'
          "eps = 0.1\n")  # fmt: skip
    write("attacks/to-3.toml", TO_3)
    write("corruptions/glr.toml", 'corruption = "glr-mnist"\nseverities = [1]\n')

    def run(more: str) -> Results:
        write("reports/small.toml", REPORT + more)
        made, ears = carry_out(open_workspace(small.root))
        assert not ears.failed
        return load_results(made.store, "small")

    return run


def carry_out(workspace: Workspace) -> tuple[Run, Ears]:
    store = Store(workspace.root / ".robench")
    run, ears = open_run(make_plan(workspace, "small"), store, "cpu", True), Ears()
    execute(run, ears)
    run.store.write_run("small", describe(run, "robench run small"))
    return run, ears


def network_of(small: Workspace, name: str = "small") -> Any:
    run = open_run(make_plan(small, "small"), Store(small.root / ".robench"), "cpu")
    training = next(t for t in run.plan.trainings if t.card.name == name)
    weights = run.weights_of(training)
    assert weights is not None
    return trained_network(training, run.model_digest(training), weights, run.store.url, "cpu")


def test_top_k_through_a_run_is_what_sorting_the_logits_says(
    small: Workspace, counted: Callable[[str], Results]
) -> None:
    plain = leaderboard(counted("")).set_index("model")
    results = counted("top_k = 3\n")
    network = network_of(small)
    for threat in ("fgsm", "to-3"):
        kept = read_images(Store(small.root / ".robench"), results, "small", 0, threat)
        three = first(network(torch.from_numpy(kept.images)), 3)
        table = results.table("small", 0, threat)
        assert table is not None
        right = [int(y) in one for y, one in zip(kept.label, three, strict=True)]
        assert table.column("correct").to_numpy().astype(bool).tolist() == right
        if threat == "to-3":
            there = [[float(3 in one)] if y != 3 else []
                     for y, one in zip(kept.label, three, strict=True)]  # fmt: skip
            assert table.column("reached").to_pylist() == there
    table = leaderboard(results).set_index("model")
    for column in ("clean", "fgsm", "average_corruptions", "worst_case"):
        assert (table[column] >= plain[column]).all()
    assert (table["success:to-3"] > plain["success:to-3"]).all()


def test_a_noisy_model_s_draws_count_one_by_one_among_the_first_k(
    counted: Callable[[str], Results],
) -> None:
    results = counted("top_k = 3\n")
    rows = results.table("noisy", 0, "fgsm")
    assert rows is not None
    for row in rows.to_pylist():
        assert row["correct"] == pytest.approx(
            np.mean([said == row["label"] for said in row["predictions"]])
        )
    assert len(set(rows.column("correct").to_pylist())) > 2


def test_identities_hold_the_rule_where_it_is_not_the_usual_one(
    small: Workspace, counted: Callable[[str], Results]
) -> None:
    digests = {}
    for more in ("", "top_k = 1\n", 'labels = "true"\n', "top_k = 2\n", 'labels = "predicted"\n'):
        results = counted(more)
        digests[more] = {c["threat"]: c["digest"] for c in results.manifest["cells"]}
        sets = results.manifest["threat_set"]
        digests[more]["set"] = sets
    assert digests["top_k = 1\n"] == digests[""] == digests['labels = "true"\n']
    kinds = [digests[more] for more in ("", "top_k = 2\n", 'labels = "predicted"\n')]
    for one, other in itertools.combinations(kinds, 2):
        assert all(one[key] != other[key] for key in one)
    inputs = len(list((small.root / ".robench/inputs").glob("*")))
    assert inputs == 4  # corrupted images are the same whoever counts


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("top_k = 10\n", "top_k = 10: with 10 classes every answer would be right; say less"),
        ("top_k = 11\n", "top_k = 11: with 10 classes every answer would be right"),
        ("top_k = 0\n", "top_k = 0: must be at least 1"),
        ("top_k = 1.5\n", "top_k = 1.5: must be a whole number"),
        ('top_k = "five"\n', "top_k = 'five': must be a whole number"),
        ('labels = "own"\n', "labels = 'own': must be one of 'true' or 'predicted'"),
    ],
)
def test_a_bad_rule_is_one_error(small: Workspace, write: Write, line: str, message: str) -> None:
    write("reports/small.toml", (small.root / "reports/small.toml").read_text() + line)
    with pytest.raises(RobenchError, match=f"reports/small.toml: {message}"):
        carry_out(open_workspace(small.root))


# -- the network's own answers ---------------------------------------------------------------------


def test_against_its_own_answers_a_network_is_right_until_it_is_fooled(
    small: Workspace, write: Write, counted: Callable[[str], Results]
) -> None:
    results = counted('labels = "predicted"\n')
    network, test = network_of(small), Digits().load().test
    for threat in ("clean", "fgsm", "to-3", "glr/gaussian/1"):
        rows = results.table("small", 0, threat)
        if rows is None:
            continue
        numbers = rows.column("image").to_numpy()
        own = network(torch.from_numpy(test.images[numbers])).argmax(1).numpy()
        assert rows.column("label").to_numpy().tolist() == own.tolist()
        assert (own != test.labels[numbers]).any()  # not what it ought to have said
        if threat == "clean":
            assert rows.column("correct").to_numpy().all()
            continue
        kept = read_images(Store(small.root / ".robench"), results, "small", 0, threat)
        said = network(torch.from_numpy(kept.images)).argmax(1).numpy()
        assert (rows.column("correct").to_numpy() == (said == own)).all()
    table = leaderboard(results).set_index("model")
    assert table.loc["small", "clean"] == 1
    assert 0.7 < table.loc["noisy", "clean"] <= 1
    assert table.loc["small", "fgsm"] < 1


def test_of_seeds_with_labels_of_their_own_success_is_over_the_images_that_all_may_reach(
    small: Workspace, write: Write, counted: Callable[[str], Results]
) -> None:
    text = (small.root / "models/small.toml").read_text()
    write("models/small.toml", text + "seeds = [0, 1, 2]\n")
    results = counted('labels = "predicted"\n')
    tables = [results.table("small", seed, "to-3") for seed in (0, 1, 2)]
    columns = [table.column("reached").to_pylist() for table in tables if table is not None]
    assert len({sum(map(len, column)) for column in columns}) > 1  # some are 3 to one seed only
    common = [shares for shares in zip(*columns, strict=True) if all(shares)]
    expected = np.mean([[share for (share,) in shares] for shares in common])
    row = leaderboard(results).set_index("model").loc["small"]
    assert row["success:to-3"] == pytest.approx(expected)
    assert row["success:to-3_low"] <= expected <= row["success:to-3_high"]


def test_a_surrogate_is_attacked_against_its_own_answers(
    small: Workspace, write: Write, counted: Callable[[str], Results]
) -> None:
    counted("")
    write("reports/small.toml", REPORT.replace('"fgsm", "to-3"', '"moved"').replace(
        ', "noisy"', "") + 'labels = "predicted"\n')  # fmt: skip
    run, ears = carry_out(open_workspace(small.root))
    assert not ears.failed
    results = load_results(run.store, "small")
    kept = read_images(run.store, results, "small", 0, "moved")
    source = network_of(small, "source")
    clean = torch.from_numpy(Digits().load().test.images[kept.image])
    leaf = clean.clone().requires_grad_()
    loss = nn.functional.cross_entropy(source(leaf), source(clean).argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    expected = (clean + 0.1 * gradient.sign()).clamp(0, 1).numpy()
    assert float((np.abs(expected - kept.images) > 1e-5).mean()) < 0.01  # signs within rounding


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))


SHARED: dict[str, Any] = {"attacks": ["fgsm", "pgd"], "eps": 0.1, "progress": False}


class Alone(Dataset[torch.Tensor]):
    """Images without labels."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.x[number]


def test_images_alone_are_evaluated_against_the_network_s_own_answers(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    module, x = network(), torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    plain = {**no_diagnostics, **SHARED, "store": tmp_path}
    shared = {**plain, "labels": "predicted", "keep_images": True}
    results = [
        robench.evaluate(module, data, **shared)
        for data in (
            x,
            x.numpy(),
            Alone(x),
            TensorDataset(x),
            DataLoader(Alone(x), batch_size=7),
            (x, torch.arange(40) % 5),
        )
    ]
    own = module(x).argmax(1)
    moved = module(torch.from_numpy(results[0].images("pgd"))).argmax(1) != own
    counts = ["clean", *(threat["name"] for threat in results[0].results.attacks)]
    rows = results[0].per_image
    survived = rows[rows["threat"].isin(counts)].groupby("image")["correct"].min()
    for result in results:
        assert result.clean == 1
        assert result.fooling_rate == pytest.approx(1 - survived.mean())
        assert result.fooling_rate >= float(moved.float().mean())
        assert "what a network itself answers" in str(result)
    assert 0 < results[0].fooling_rate < 1
    with pytest.raises(RobenchError, match="against true labels; evaluate with labels='predicted'"):
        robench.evaluate(module, (x, own), **plain).fooling_rate  # noqa: B018
    with pytest.raises(RobenchError, match="dataset is Tensor; give .*labels='predicted' also"):
        robench.evaluate(module, x, store=tmp_path, **SHARED)
    with pytest.raises(RobenchError, match="labels = 'none': 'true' or 'predicted'"):
        robench.evaluate(module, x, store=tmp_path, labels="none", **SHARED)  # type: ignore[arg-type]


def test_evaluate_counts_by_top_k(tmp_path: Path, no_diagnostics: dict[str, Any]) -> None:
    plain = {**no_diagnostics, **SHARED}
    module, x = network(), torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = torch.arange(40) % 5
    result = robench.evaluate(module, (x, y), store=tmp_path, top_k=2, keep_images=True, **plain)
    two = first(module(x), 2)
    assert result.clean == np.mean([int(label) in one for label, one in zip(y, two, strict=True)])
    said = first(module(torch.from_numpy(result.images("fgsm"))), 2)
    rows = result.per_image[result.per_image["threat"] == "fgsm"]
    assert rows["correct"].tolist() == [int(a) in one for a, one in zip(y, said, strict=True)]
    assert "Top-2: a label counts as answered" in str(result)
    page = result.to_html(tmp_path / "page.html").read_text()
    assert "Top-2: a label counts as answered" in page
    with pytest.raises(RobenchError, match="top_k = 5: with 5 classes every answer would be"):
        robench.evaluate(module, (x, y), store=tmp_path, top_k=5, **SHARED)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(RobenchError, match="a whole number, at least 1"):
            robench.evaluate(module, (x, y), store=tmp_path, top_k=wrong, **SHARED)  # type: ignore[arg-type]
        with pytest.raises(RobenchError, match="batch_size = .*: a whole number, at least 1"):
            robench.evaluate(module, (x, y), store=tmp_path, batch_size=wrong, **SHARED)  # type: ignore[arg-type]


def test_the_usual_rule_is_the_one_that_always_was() -> None:
    """An attack by the first answer is bit by bit what it was before there were others."""
    rng = np.random.default_rng(3)
    net = Linear(rng.normal(size=(6, 9)) * 2, np.zeros(6), (1, 3, 3))
    part = Part(rng.random((20, 1, 3, 3), dtype=np.float32), rng.integers(6, size=20))
    card = AttackCard(attack="pgd", access="white-box", eps=0.2, name="mine", root=Path())
    for attack in (FGSM(), PGD(loss="margin")):
        runs = [
            attack_slice(net, attack, card, 0.2, part, **SETTINGS, **more)
            for more in ({}, {"top_k": 1}, {"aims": None})
        ]
        assert all(np.array_equal(run.images, runs[0].images) for run in runs)
