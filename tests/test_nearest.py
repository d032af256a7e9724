"""The nearest wrong image: found by halves, beside the truth where a proof knows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from proofs_by_hand import changed
from small_runs import carry_out, small_workspace

from robench.attacks.base import Attack
from robench.attacks.gradient import FGSM
from robench.data.base import Part
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.nearest import look_nearer
from robench.make.scoring import Perturbed, attack_slice
from robench.networks.mlp import MLP
from robench.proofs.exact import Exact
from robench.show.gaps import check, gaps
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.plots.recall import recalls
from robench.show.results import Results, load_published, load_results
from robench.workspace.cards import AttackCard, Nearest, read_card
from robench.workspace.plan import make_plan

EPS, SHAPE = 0.2, (1, 1, 6)
WEIGHTS = np.array([0.5, -1.0, 0.25, 2.0, -0.75, 1.5])


@pytest.fixture(scope="module")
def line() -> MLP:
    """Two classes parted by WEIGHTS (x - 1/2) = 0, by a unit that never switches."""
    made = MLP(SHAPE, 2, hidden=(1,), activation="relu")
    first, last = (layer.op for layer in made.layers)
    with torch.no_grad():
        first.weight[:] = torch.tensor(WEIGHTS[None])
        first.bias[:] = 20.0
        last.weight[:] = torch.tensor([[0.0], [1.0]])
        last.bias[:] = torch.tensor([0.0, -20.0 - WEIGHTS.sum() / 2])
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def part(line: MLP) -> Part:
    x = 0.3 + 0.4 * torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(3))
    labels = line(x).argmax(1).numpy()
    labels[4] = 1 - labels[4]  # wrong already
    return Part(x.numpy(), labels)


def truth(part: Part) -> np.ndarray:
    """How far the other side of the line is, in linf; no ball here reaches the edge of the box."""
    flat = part.images.reshape(len(part), -1).astype(float)
    return np.abs((flat - 0.5) @ WEIGHTS) / np.abs(WEIGHTS).sum()


def look(network: MLP, part: Part, attack: Attack, asked: Nearest, **more: Any) -> Perturbed:
    access = {"access": attack.needs, "nearest": asked.model_dump()}
    card = AttackCard(attack={"name": "it"}, eps=EPS, name="it", root=Path(), **access)

    def within(data: Part, eps: float, broken: Any) -> Perturbed:
        return attack_slice(
            network, attack, card, eps, data, noisy=False, seed=0, batch_size=100,
            device=torch.device("cpu"), broken=broken,
        )  # fmt: skip

    def wrong(images: np.ndarray, data: Part) -> np.ndarray:
        return network(torch.from_numpy(images)).argmax(1).numpy() != data.labels

    return look_nearer(within, wrong, part, EPS, asked, **more)


def test_an_attack_that_goes_straight_gets_as_near_as_its_smallest_step(
    line: MLP, part: Part
) -> None:
    exact, step = truth(part), EPS / 2**5
    made = look(line, part, FGSM(), Nearest(halvings=5, images=12))
    assert made.radius is not None
    assert made.clear is None
    assert made.radius[4] == 0
    others = np.arange(12) != 4
    assert (exact[others] < EPS).all()
    assert (made.radius[others] >= exact[others] - 1e-6).all()
    assert (made.radius[others] <= exact[others] + step + 1e-6).all()
    answers = line(torch.from_numpy(made.images)).argmax(1).numpy()
    assert (answers != part.labels).all()
    assert np.allclose(np.abs(made.images - part.images).max((1, 2, 3)), made.distance, atol=1e-6)


def test_a_proof_holds_the_nearest_from_both_sides(line: MLP, part: Part) -> None:
    exact = truth(part)
    made = look(line, part, Exact(steps=0), Nearest(halvings=7, images=12))
    assert made.radius is not None
    assert made.clear is not None
    assert made.proved is None
    others = np.arange(12) != 4
    assert (made.clear[others] <= exact[others] + 1e-6).all()
    assert (exact[others] <= made.radius[others] + 1e-6).all()
    assert (made.radius - made.clear <= EPS / 2**7 + 1e-6)[others].all()


def test_a_proof_that_leaves_radii_open_comes_as_near_as_it_can_from_both_sides(
    line: MLP, part: Part
) -> None:
    """It proves up to half of the true distance and finds from twice the true one on."""

    class Unsure(Exact):
        def perturb(self, target: Any, x: Any, y: Any, rng: Any) -> Any:
            eps = target.ball.eps
            flat = x.flatten(1).double().numpy() - 0.5
            exact = np.abs(flat @ WEIGHTS) / np.abs(WEIGHTS).sum()
            for image in np.flatnonzero(eps <= exact / 2).tolist():
                target.proved(image)
            way = torch.from_numpy(np.sign(WEIGHTS)).view(1, *SHAPE) * (1 - 2 * y).view(-1, 1, 1, 1)
            finds = torch.from_numpy(eps >= 2 * exact).view(-1, 1, 1, 1)
            return torch.where(finds, target.project(x + eps * way.float(), x), x)

    exact, step = truth(part), EPS / 2**7
    made = look(line, part, Unsure(), Nearest(halvings=7, images=12))
    assert made.radius is not None
    assert made.clear is not None
    others = (np.arange(12) != 4) & (2 * exact < EPS)
    never = (np.arange(12) != 4) & (2 * exact > EPS)
    assert others.any()
    assert never.any()
    assert (made.clear <= exact / 2 + 1e-6).all()
    assert (made.clear > exact / 2 - step - 1e-6)[others | never].all()
    assert (made.radius[others] >= 2 * exact[others] - 1e-6).all()
    assert (made.radius[others] < 2 * exact[others] + step + 1e-6).all()
    assert np.isnan(made.radius[never]).all()
    assert made.radius[4] == 0
    assert made.clear[4] == 0


def test_only_so_many_images_are_looked_at_closely_and_all_are_attacked(
    line: MLP, part: Part
) -> None:
    few = look(line, part, FGSM(), Nearest(halvings=5, images=3))
    all_ = look(line, part, FGSM(), Nearest(halvings=5, images=12))
    assert few.radius is not None
    assert all_.radius is not None
    assert few.radius[:3].tolist() == all_.radius[:3].tolist()
    assert np.isnan(few.radius[3:]).all()
    assert (line(torch.from_numpy(few.images)).argmax(1).numpy() != part.labels).all()
    assert (few.queries[3:] < all_.queries[3:]).any()


def test_an_attack_that_finds_nothing_in_the_whole_ball_has_no_radius(
    line: MLP, part: Part
) -> None:
    class Idle(Attack):
        def perturb(self, target: Any, x: Any, y: Any, rng: Any) -> Any:
            target.labels(x)
            return x

    made = look(line, part, Idle(), Nearest(halvings=5, images=12))
    assert made.radius is not None
    assert np.isnan(np.delete(made.radius, 4)).all()
    assert made.queries.tolist() == [1.0] * 12  # asked in the whole ball, and no more


def test_a_proof_is_not_asked_about_what_others_broke_beyond_the_first(
    line: MLP, part: Part
) -> None:
    broken = dict.fromkeys(range(12), "fgsm")
    made = look(line, part, Exact(steps=0), Nearest(halvings=3, images=2), broken=broken)
    assert made.radius is not None
    assert (made.radius[:2] > 0).all()
    assert (made.images[2:] == part.images[2:]).all()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("eps = [0.1, 0.2]\nnearest = {}", "one finite eps"),
        ("eps = inf\nnearest = {}", "one finite eps"),
        ("eps = 0.1\nnearest = {}\ngoal = 'targeted'", "any wrong class"),
        ("eps = 0.1\nnearest = { halvings = 21 }", "nearest.halvings = 21"),
        ("eps = 0.1\nrole = 'nearest'", "nearest = {"),
        ("eps = 0.1\nrole = 'attack'\nnearest = {}", "nearest = {"),
    ],
)
def test_cards_that_cannot_be_meant_are_refused(tmp_path: Path, said: str, why: str) -> None:
    file = tmp_path / "card.toml"
    file.write_text(f"attack = 'pgd'\naccess = 'white-box'\n{said}\n")
    with pytest.raises(RobenchError, match=why):
        read_card(AttackCard, file, tmp_path, "card")


NEAREST = """
attack = "{attack}"
access = "{access}"
eps = 0.1
nearest = {{ halvings = 4, images = 6 }}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run of a small report with attacks, a proof, and how near they get."""
    workspace = small_workspace(tmp_path_factory.mktemp("nearest"))
    attacks = workspace.root / "attacks"
    plain = "attack = '{}'\naccess = '{}'\neps = 0.1\n"
    (attacks / "fgsm.toml").write_text(plain.format("fgsm", "white-box"))
    (attacks / "pgd.toml").write_text(plain.format("pgd", "white-box"))
    (attacks / "exact.toml").write_text(plain.format("exact", "weights") + "role = 'proof'\n")
    for name in ("fgsm", "pgd", "exact"):
        access = "weights" if name == "exact" else "white-box"
        (attacks / f"near-{name}.toml").write_text(NEAREST.format(attack=name, access=access))
    report = workspace.root / "reports/small.toml"
    text = report.read_text().replace('"fgsm", "noise"', '"*"')
    report.write_text(text)
    run, ears = carry_out(workspace)
    assert not ears.failed, ears.failed
    run.store.write_run("small", describe(run, ""))
    return load_results(run.store, "small")


def test_gaps_are_of_the_images_whose_nearest_is_known(small: Results) -> None:
    found = {gap.card: gap for gap in gaps(small, small.models).values()}
    assert set(found) == {"near-fgsm", "near-pgd"}
    assert found["near-fgsm"].exact == found["near-pgd"].exact
    assert 0 < len(found["near-fgsm"].exact) <= 6
    for gap in found.values():
        assert gap.median >= -gap.step
        assert gap.times >= 1 - gap.step / min(gap.exact)
        assert len(gap.farther) == len(gap.exact)


def test_the_table_holds_them_beside_what_the_attack_finds(small: Results, tmp_path: Path) -> None:
    made = recalls(small, small.models)
    assert {one.card for one in made} == {"fgsm", "pgd"}
    page = write_report(small, tmp_path).read_text()
    assert "median gap" in page
    again = load_published(tmp_path)
    assert gaps(again, again.models) == gaps(small, small.models)


def test_they_are_in_no_average(small: Results) -> None:
    assert not {t["name"] for t in small.averaged} & {t["name"] for t in small.nearest}
    table = leaderboard(small)
    averaged = table[["fgsm", "pgd"]].mean(axis=1)
    assert table["average_attacks"].tolist() == pytest.approx(averaged.tolist())


def test_proofs_wait_for_attacks_and_not_for_what_looks_nearer(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path)
    attacks = workspace.root / "attacks"
    (attacks / "exact.toml").write_text(
        "attack = 'exact'\naccess = 'weights'\neps = 0.1\nrole = 'proof'\n"
    )
    (attacks / "near.toml").write_text(NEAREST.format(attack="fgsm", access="white-box"))
    (attacks / "nearest.toml").write_text(NEAREST.format(attack="exact", access="weights"))
    report = workspace.root / "reports/small.toml"
    report.write_text(report.read_text().replace('"noise"', '"near", "nearest", "exact"'))
    handed = {
        cell.threat.name: {one.threat.name for one in others}
        for cell, others in make_plan(workspace, "small").handed.items()
    }
    assert handed["exact"] == {"clean", "fgsm"}
    assert handed["nearest"] == {"clean", "fgsm", "exact"}


def test_what_lies_nearer_than_a_proof_allows_fails_the_report(small: Results) -> None:
    threat = next(t for t in small.nearest if t["card"] == "near-pgd")
    proof = next(t for t in small.nearest if t["card"] == "near-exact")
    model = small.models[0]
    cell = small.cell(model["name"], 0, threat["name"])
    own = small.cell(model["name"], 0, proof["name"])
    assert cell is not None
    assert own is not None
    clear = small.rows[own["digest"]].column("clear").to_numpy()
    image = int(np.nanargmax(clear))
    radius = small.rows[cell["digest"]].column("radius").to_numpy().copy()
    radius[image] = clear[image] / 2
    check(small)
    planted = changed(small, cell["digest"], radius=[None if math.isnan(r) else r for r in radius])
    with pytest.raises(RobenchError, match=r"near-pgd breaks it at .* near-exact proves"):
        leaderboard(planted)
