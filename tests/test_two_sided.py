"""Both ends of a number: what is proved, broken and open of each image, ball by ball, and what
happens where a proof and an attack contradict each other.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outcomes import Outcomes
from proofs_by_hand import changed, proven
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat

from robench.errors import RobenchError
from robench.show import two_sided
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.tables import as_csv, as_json, as_latex
from robench.show.results import Results, load_published
from robench.show.two_sided import Ball, ends

pytestmark = pytest.mark.usefixtures("without_plots")


def proved(images: int, count: int) -> np.ndarray:
    """The first so many images."""
    return (np.arange(images) < count).astype(np.float32)


def states(made: Outcomes, ball: Ball | None = None) -> str:
    """One letter for each image of the first seed."""
    results = made.results()
    found = ends(results, results.models[0], ball)
    assert found is not None
    return "".join(found.states[0])


# -- what becomes of an image ------------------------------------------------------------------


def test_an_image_is_broken_by_any_attack_proved_by_a_proof_and_else_open() -> None:
    made = Outcomes(images=5).clean(0.8).attack("pgd", 0.6)
    made.attack("exact", 0.8, role="proof", proved=proved(5, 2))
    assert states(made) == "ppobb"


def test_a_point_that_the_proof_found_breaks_the_image_and_counts_in_the_worst_case() -> None:
    made = Outcomes(images=5).clean().attack("pgd", 0.8)
    made.attack("exact", 0.6, role="proof", proved=proved(5, 3))
    results = made.results()
    assert states(made) == "pppbb"
    found = ends(results, results.models[0])
    assert found is not None
    assert found.survived.mean() == pytest.approx(0.6)
    assert found.open == 0


def test_a_proof_holds_in_smaller_balls_and_an_attack_breaks_in_larger_ones() -> None:
    made = Outcomes(images=6).clean().attack("pgd", 0.5, eps=0.05)
    made.attack("far", 1.0, eps=0.1)
    made.attack("exact@0.1", 1.0, eps=0.1, role="proof", proved=proved(6, 1))
    made.attack("exact@0.05", 1.0, eps=0.05, role="proof", proved=proved(6, 0))
    assert states(made, Ball("linf", 0.1)) == "poobbb"
    assert states(made, Ball("linf", 0.05)) == "poobbb"


def test_an_attack_of_a_larger_ball_says_nothing_of_a_smaller_one() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 0.25, eps=0.2)
    made.attack("exact", 1.0, eps=0.1, role="proof", proved=proved(4, 3))
    assert states(made, Ball("linf", 0.1)) == "pppo"


def test_attacks_that_stand_in_curves_and_mere_noise_break_images_too() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 1.0)
    made.attack("curve@0.1", 0.75, role="curve").attack("noise", 0.5, role="floor")
    made.attack("exact", 1.0, role="proof", proved=proved(4, 1))
    assert states(made) == "pobb"


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        (Ball("linf", 0.1), Ball("linf", 0.1), True),
        (Ball("linf", 0.1), Ball("linf", 0.2), False),
        (Ball("linf", 0.1), Ball("l2", 0.1), True),
        (Ball("l2", 0.1), Ball("l1", 0.05), True),
        (Ball("l2", 1.0), Ball("linf", 0.1), False),  # not without the number of pixels
        (Ball("linf", 1.0), Ball("l0", 1.0), False),
        (Ball("l0", 3, "edges"), Ball("l0", 2), False),
    ],
)
def test_a_ball_holds_another_only_where_that_is_certain(
    outer: Ball, inner: Ball, holds: bool
) -> None:
    assert outer.holds(inner) is holds


def test_without_a_proof_of_every_ball_the_worst_case_has_one_end_but_the_ball_has_two() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 1.0).attack("far", 0.5, norm="l2", eps=2.0)
    made.attack("exact", 1.0, role="proof", proved=proved(4, 3))
    results = made.results()
    assert ends(results, results.models[0]) is None
    assert states(made, Ball("linf", 0.1)) == "pppo"
    assert two_sided.several(results) == [Ball("linf", 0.1)]


def test_a_proof_that_lacks_an_outcome_or_does_not_apply_proves_nothing_of_the_model() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 1.0).attack("exact", 1.0, role="proof")
    results = made.results()
    assert ends(results, results.models[0]) is None
    made = Outcomes(images=4).clean().attack("pgd", 1.0)
    made.attack("exact", 1.0, role="proof", proved=proved(4, 4))
    results = made.results()
    results.manifest["cells"][-1]["status"] = "failed"
    assert ends(results, results.models[0]) is None


def noted(made: Outcomes, images: int, *why: str) -> Results:
    """With what the last proof noted of itself."""
    results = made.results()
    results.manifest["cells"][-1]["proof"] = {
        "images": images,
        "open": {str(image): text for image, text in enumerate(why)},
        "seconds": {"median": 0.5, "p95": 1.0, "max": 2.0},
    }
    return results


def test_a_proof_that_does_not_know_such_networks_proves_nothing_of_them() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 0.5)
    made.attack("exact", 1.0, role="proof", proved=proved(4, 0))
    for images, why, both in (
        (0, ["it draws numbers"] * 2, False),
        (2, ["out of time"] * 2, True),
        (0, [], True),  # attacks broke them all
    ):
        results = noted(made, images, *why)
        assert (ends(results, results.models[0]) is not None) is both


def test_a_row_without_a_proof_is_open() -> None:
    made = Outcomes(images=4).clean().attack("pgd", 1.0)
    made.attack("exact", 1.0, role="proof", proved=proved(4, 2))
    results = changed(made.results(), "exact 0", proved=[1, None, None, 0])
    found = ends(results, results.models[0])
    assert found is not None
    assert "".join(found.states[0]) == "pooo"


def test_of_a_noisy_model_the_parts_are_shares_of_its_answers() -> None:
    right = np.zeros((1, 2, 4), bool)
    right[0, 0, :3] = right[0, 1, :1] = True
    made = Outcomes(images=2, stochastic=True).clean(right).attack("pgd", right)
    made.attack("certificate", 1.0, role="proof", proved=[0.5, 0.0])
    results = made.results()
    found = ends(results, results.models[0])
    assert found is not None
    assert found.proved.mean() == pytest.approx(0.25)
    assert found.survived.mean() == pytest.approx(0.5)
    assert found.open == pytest.approx(0.25)


# -- contradictions ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["attack", "diagnostic", "curve", "floor", "proof"])
def test_a_proof_that_any_attack_in_its_ball_refutes_is_an_error_that_names_both(role: str) -> None:
    made = Outcomes(images=4, seeds=2).clean().attack("pgd", 1.0)
    made.attack("other", 0.5, eps=0.05, role=role, proved=proved(4, 0) if role == "proof" else None)
    made.attack("exact", 1.0, role="proof", proved=proved(4, 3))
    with pytest.raises(RobenchError) as raised:
        two_sided.check(made.results())
    said = str(raised.value)
    assert "mine, seed 0, image 2: proved by exact (cell exact 0)" in said
    assert "broken by other (cell other 0)" in said
    assert "so for 1 more" in said  # of the other seed


def test_an_image_that_is_wrong_clean_cannot_be_proved() -> None:
    made = Outcomes(images=4).clean(0.5).attack("pgd", 0.5)
    made.attack("exact", 0.5, role="proof", proved=proved(4, 3))
    with pytest.raises(RobenchError, match="image 2: proved by exact .* broken by clean"):
        two_sided.check(made.results())


def test_what_is_broken_outside_the_ball_contradicts_nothing() -> None:
    made = (
        Outcomes(images=4).clean().attack("pgd", 0.0, eps=0.2).attack("l2", 0.0, norm="l2", eps=1)
    )
    made.attack("exact", 1.0, role="proof", proved=proved(4, 4))
    two_sided.check(made.results())


def test_bad_luck_does_not_contradict_a_certificate_but_what_luck_cannot_do_does() -> None:
    right = np.ones((1, 2, 16), bool)
    right[0, 0, :5] = False
    made = Outcomes(images=2, stochastic=True).clean().attack("pgd", right)
    made.attack("certificate", 1.0, role="proof", proved=[0.8, 0.8])
    two_sided.check(made.results())
    made = Outcomes(images=2, stochastic=True).clean().attack("pgd", ~right)
    made.attack("certificate", 1.0, role="proof", proved=[0.8, 0.8])
    with pytest.raises(RobenchError, match="image 1: proved by certificate"):
        two_sided.check(made.results())


def test_a_certified_vote_is_no_certified_share() -> None:
    """The majority of answers is right: that says one half of their share, and no more."""
    right = np.zeros((1, 2, 16), bool)
    right[0, :, :11] = True
    made = Outcomes(images=2, stochastic=True).clean().attack("pgd", right)
    made.attack("certificate", 1.0, role="proof", proved=[1.0, 0.0], bounds="vote")
    results = made.results()
    two_sided.check(results)
    found = ends(results, results.models[0])
    assert found is not None
    assert found.proved.tolist() == [[0.5, 0.0]]
    right = np.zeros((1, 2, 64), bool)
    made = Outcomes(images=2, stochastic=True).clean().attack("pgd", right)
    made.attack("certificate", 1.0, role="proof", proved=[1.0, 0.0], bounds="vote")
    with pytest.raises(RobenchError, match="image 0: proved by certificate"):
        two_sided.check(made.results())


def test_a_contradiction_stops_the_leaderboard_and_the_page(tmp_path: Path) -> None:
    results = report()
    cell = results.cell("synthetic/a", 0, "pgd")
    proof = results.cell("synthetic/a", 0, "exact@0.1")
    assert cell
    assert proof
    image = int(np.argmax(results.rows[proof["digest"]].column("proved").to_numpy()))
    right = results.rows[cell["digest"]].column("correct").to_numpy().copy()
    right[image] = 0
    wrong = changed(results, cell["digest"], correct=right)
    for fails in (lambda: leaderboard(wrong), lambda: write_report(wrong, tmp_path)):
        with pytest.raises(RobenchError) as raised:
            fails()
        said = str(raised.value)
        for part in ("synthetic/a", "seed 0", f"image {image}:", "exact@", "pgd", cell["digest"]):
            assert part in said
    assert not (tmp_path / "index.html").exists()


# -- the leaderboard ---------------------------------------------------------------------------


def report(open_within: float = 0.2, **more: object) -> Results:
    threats = [
        clean_threat(),
        attack_threat("pgd", 0.1, 0.3),
        attack_threat("curve@0.05", 0.05, 0.15, role="curve"),
        attack_threat("curve@0.2", 0.2, 0.8, role="curve"),
    ]
    models = [
        SyntheticModel("synthetic/a", seeds=(0, 1)),
        SyntheticModel("synthetic/noisy", trainer="nit", noisy=True),
    ]
    return proven(Synthetic(models, threats).results(), open_within=open_within, **more)  # type: ignore[arg-type]


def test_the_table_has_both_ends_their_intervals_and_what_is_open_between_them() -> None:
    row = leaderboard(report()).set_index("model").loc["synthetic/a"]
    assert 0 < row["proved_low"] < row["proved"] < row["proved_high"] < 1
    assert row["proved"] < row["worst_case"]
    assert row["open"] == pytest.approx(row["worst_case"] - row["proved"])
    for ball in ("linf-0.02", "linf-0.05", "linf-0.1"):
        assert row[f"proved@{ball}_low"] < row[f"proved@{ball}"] <= row[f"attacked@{ball}"]
    assert row["proved@linf-0.02"] > row["proved@linf-0.05"] > row["proved@linf-0.1"]
    assert row["proved@linf-0.1"] == row["proved"]
    assert row["attacked@linf-0.1"] == row["worst_case"]


def test_models_are_ranked_by_the_attacked_end() -> None:
    first, second = (row for _, row in leaderboard(report()).iterrows())
    assert first["worst_case"] > second["worst_case"]
    assert first["proved"] < second["proved"]


def test_a_report_without_proofs_has_none_of_these_columns() -> None:
    made = Synthetic([SyntheticModel("synthetic/a")], [clean_threat()]).results()
    assert not [name for name in leaderboard(made) if two_sided.taken(name.split("_")[0])]


def test_one_ball_that_is_that_of_the_worst_case_is_not_told_twice() -> None:
    made = report(radii=(0.1,))
    assert "proved" in leaderboard(made)
    assert not [name for name in leaderboard(made) if "@linf" in name]


def test_a_threat_called_as_one_of_these_columns_gets_a_column_of_its_own() -> None:
    threats = [clean_threat(), attack_threat("proved", 0.1, 0.3), attack_threat("open@1", 0.1, 0.3)]
    made = proven(Synthetic([SyntheticModel("synthetic/a")], threats).results(), (0.1,))
    row = leaderboard(made).iloc[0]
    assert row["threat:proved"] > row["proved"]
    assert row["threat:open@1_low"] < row["threat:open@1"]


def test_all_files_carry_both_ends() -> None:
    made = report()
    table = leaderboard(made)
    head = as_csv(table).split("\n")[0].split(",")
    for name in ("proved", "proved_low", "proved_high", "open", "open@linf-0.05"):
        assert name in head
    row = next(r for r in json.loads(as_json(made, table))["rows"] if r["model"] == "synthetic/a")
    assert row["proved_low"] < row["proved"] < row["proved_high"]
    assert row["open"] == pytest.approx(row["worst_case"] - row["proved"], abs=1e-5)
    text = as_latex(made, table)
    assert f" & {100 * row['proved']:.1f} & " in text


def test_a_published_folder_keeps_what_is_proved(tmp_path: Path) -> None:
    made = report()
    write_report(made, tmp_path)
    assert leaderboard(load_published(tmp_path)).equals(leaderboard(made))


def test_a_published_proof_outside_zero_and_one_is_refused(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    table = pq.read_table(tmp_path / "cells.parquet")
    place = table.column_names.index("proved")
    for values, said in (
        (pa.array([-0.5] * len(table), pa.float32()), "column proved is not in"),
        (pa.array(["yes"] * len(table)), "column proved is string, not float"),
    ):
        pq.write_table(table.set_column(place, "proved", values), tmp_path / "cells.parquet")
        with pytest.raises(RobenchError, match=said):
            load_published(tmp_path)
