"""The leaderboard: what is averaged, what is not, and who is ranked against whom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
    quick_models,
    quick_threats,
)

from robench.errors import RobenchError
from robench.show.leaderboard import leaderboard
from robench.show.report.folder import write_report
from robench.show.report.tables import as_json, as_latex
from robench.show.results import Results, load_published, load_results
from robench.show.statistics import wilson
from robench.store.store import Store


@pytest.fixture(scope="module")
def quick() -> Results:
    return Synthetic(quick_models(), quick_threats()).results()


def correct_of(results: Results, model: str, threat: str) -> np.ndarray:
    record = next(m for m in results.models if m["name"] == model)
    found = results.correct(record, threat)
    assert found is not None
    return found


def row_of(results: Results, model: str) -> dict[str, object]:
    table = leaderboard(results)
    return table[table["model"] == model].iloc[0].to_dict()


def test_worst_case_counts_an_image_only_if_it_survives_clean_and_every_attack(
    quick: Results,
) -> None:
    names = ["clean", *(t["name"] for t in quick.attacks)]
    survived = np.min([correct_of(quick, "synthetic/mlp-bp", name) for name in names], axis=0)
    row = row_of(quick, "synthetic/mlp-bp")
    assert row["worst_case"] == pytest.approx(survived.mean())
    assert row["worst_case"] < min(row[name] for name in names)  # type: ignore[type-var]


def test_noise_floors_and_curves_are_shown_but_stay_out_of_worst_case_and_average(
    quick: Results,
) -> None:
    row = row_of(quick, "synthetic/mlp-bp")
    attacks = [row[t["name"]] for t in quick.attacks]
    assert "random-sign" not in {t["name"] for t in quick.attacks}
    assert row["random-sign"] > 0  # type: ignore[operator]
    assert row["curve@0.2"] < row["worst_case"]  # type: ignore[operator]
    assert row["average_attacks"] == pytest.approx(np.mean(attacks))  # type: ignore[arg-type]


def test_corruptions_are_averaged_over_severities_first_and_then_over_kinds() -> None:
    threats = [
        clean_threat(),
        corruption_threat("fog", 1, 0.1),
        corruption_threat("fog", 5, 0.5),
        corruption_threat("contrast", 3, 0.2),
    ]
    results = Synthetic([SyntheticModel("synthetic/a")], threats).results()
    row = row_of(results, "synthetic/a")
    fog = (row["imagenet-c/fog/1"] + row["imagenet-c/fog/5"]) / 2  # type: ignore[operator]
    assert row["imagenet-c/fog"] == pytest.approx(fog)
    assert row["average_corruptions"] == pytest.approx((fog + row["imagenet-c/contrast"]) / 2)  # type: ignore[operator]


def test_one_seed_has_wilson_intervals_and_no_sd(quick: Results) -> None:
    row = row_of(quick, "synthetic/mlp-bp")
    low, high = wilson(np.array([row["clean"]]), 200)
    assert (row["clean_low"], row["clean_high"]) == (low[0], high[0])
    assert np.isnan(row["clean_sd"])  # type: ignore[arg-type]


def test_several_seeds_have_their_mean_and_sd(quick: Results) -> None:
    row = row_of(quick, "synthetic/snn-stbp")
    by_seed = correct_of(quick, "synthetic/snn-stbp", "fgsm").mean(axis=1)
    assert row["fgsm"] == pytest.approx(by_seed.mean())
    assert row["fgsm_sd"] == pytest.approx(by_seed.std(ddof=1))
    assert row["fgsm_low"] < row["fgsm"] < row["fgsm_high"]  # type: ignore[operator]


def test_averages_over_threats_do_not_pretend_that_images_are_fresh() -> None:
    """Ten severities on the same images are hardly surer than one: bootstrap by image."""
    threats = [clean_threat(), *(corruption_threat("fog", s, 0.3) for s in range(1, 6))]
    results = Synthetic([SyntheticModel("synthetic/a")], threats, images=100).results()
    row = row_of(results, "synthetic/a")
    width = row["imagenet-c/fog_high"] - row["imagenet-c/fog_low"]  # type: ignore[operator]
    one = row["imagenet-c/fog/1_high"] - row["imagenet-c/fog/1_low"]  # type: ignore[operator]
    assert width > 0.75 * one


def test_a_noisy_model_is_scored_by_its_expected_accuracy(quick: Results) -> None:
    correct = correct_of(quick, "synthetic/snn-nit", "fgsm")
    assert set(np.unique(correct)) - {0.0, 1.0}
    assert row_of(quick, "synthetic/snn-nit")["fgsm"] == pytest.approx(correct.mean())


def test_a_row_with_a_failed_cell_is_shown_but_not_ranked() -> None:
    models = [
        SyntheticModel("synthetic/whole"),
        SyntheticModel("synthetic/broken", failed=((0, "fgsm"),)),
    ]
    threats = [
        clean_threat(),
        attack_threat("fgsm", 0.1, 0.3),
        attack_threat("pgd", 0.1, 0.5),
        corruption_threat("fog", 1, 0.1),
    ]
    table = leaderboard(Synthetic(models, threats).results()).set_index("model")
    broken = table.loc["synthetic/broken"]
    assert not broken["complete"]
    assert broken["rank"] is np.nan or str(broken["rank"]) == "<NA>"
    assert np.isnan(broken["worst_case"])
    assert np.isnan(broken["average_attacks"])
    assert broken["pgd"] > 0
    assert broken["average_corruptions"] > 0
    assert table.loc["synthetic/whole", "rank"] == 1
    assert list(table.index) == ["synthetic/whole", "synthetic/broken"]


def test_a_number_that_one_seed_lacks_is_not_averaged_over_the_others() -> None:
    model = SyntheticModel("synthetic/a", seeds=(0, 1, 2), failed=((1, "fgsm"),))
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
    row = row_of(Synthetic([model], threats).results(), "synthetic/a")
    assert np.isnan(row["fgsm"])  # type: ignore[arg-type]
    assert row["clean"] > 0  # type: ignore[operator]


def test_models_on_different_data_are_not_ranked_against_each_other() -> None:
    models = [
        SyntheticModel("synthetic/a", clean=0.95),
        SyntheticModel("synthetic/b", clean=0.3),
        SyntheticModel("synthetic/c", clean=0.5, dataset={"name": "synthetic-digits", "size": 14}),
    ]
    table = leaderboard(Synthetic(models, [clean_threat()]).results()).set_index("model")
    assert table["rank"].to_dict() == {"synthetic/a": 1, "synthetic/b": 2, "synthetic/c": 1}
    assert table.loc["synthetic/c", "dataset"] == "synthetic-digits (size = 14)"


def test_models_that_cannot_be_told_apart_share_a_rank_and_others_do_not() -> None:
    models = [
        SyntheticModel("synthetic/first", clean=0.9),
        SyntheticModel("synthetic/second", clean=0.89),
        SyntheticModel("synthetic/last", clean=0.4),
    ]
    table = leaderboard(Synthetic(models, [clean_threat()], images=300).results())
    assert table.set_index("model")["rank"].to_dict() == {
        "synthetic/first": 1,
        "synthetic/second": 1,
        "synthetic/last": 3,
    }


def test_without_attacks_there_is_no_worst_case() -> None:
    results = Synthetic([SyntheticModel("synthetic/a")], [clean_threat()]).results()
    row = row_of(results, "synthetic/a")
    assert np.isnan([row[f"worst_case{end}"] for end in ("", "_low", "_high")]).all()
    assert np.isnan(row["average_attacks"])  # type: ignore[arg-type]
    assert row["rank"] == 1  # by clean accuracy, as the page says
    latex = as_latex(results, leaderboard(results))
    assert "no attacks: ranked by clean accuracy" in latex
    assert r" & -- \\" in latex
    document = json.loads(as_json(results, leaderboard(results)))
    assert document["rows"][0]["worst_case"] is None


def test_a_threat_named_like_a_column_gets_a_column_of_its_own() -> None:
    threats = [clean_threat(), attack_threat("rank", 0.1, 0.3)]
    row = row_of(Synthetic([SyntheticModel("synthetic/a")], threats).results(), "synthetic/a")
    assert row["rank"] == 1
    assert 0 < row["threat:rank"] < 1  # type: ignore[operator]


def test_models_with_equal_weights_share_their_cells(tmp_path: Path) -> None:
    made = Synthetic(
        [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b")], [clean_threat()]
    )
    first, second = made.manifest["cells"]
    second["digest"], second["outcome"] = first["digest"], first["outcome"]
    a, b = made.manifest["models"]
    b["seeds"][0]["weights"] = a["seeds"][0]["weights"]
    loaded = load_results(made.write(Store(tmp_path)), "synthetic")
    assert [cell["input_shape"] for cell in loaded.manifest["cells"]] == [[1, 8, 8]] * 2
    assert leaderboard(loaded)["clean"].nunique() == 1


def test_the_same_results_give_the_same_table(quick: Results) -> None:
    assert leaderboard(quick).equals(leaderboard(quick))


def test_seeds_on_different_images_are_refused() -> None:
    made = Synthetic([SyntheticModel("synthetic/a", seeds=(0, 1))], [clean_threat()])
    digest = made.manifest["cells"][1]["digest"]
    rows = made.outcomes[digest].rows
    shifted = rows.set_column(0, "image", pa.array(np.arange(len(rows), dtype=np.int32) + 1))
    results = made.results()
    with pytest.raises(RobenchError, match="different images"):
        leaderboard(Results(results.manifest, {**results.rows, digest: shifted}))


# -- loading --------------------------------------------------------------------------------


@pytest.fixture
def small() -> Synthetic:
    threats = [clean_threat(), attack_threat("fgsm", 0.1, 0.3), corruption_threat("fog", 1, 0.1)]
    models = [SyntheticModel("synthetic/a"), SyntheticModel("synthetic/b", noisy=True)]
    return Synthetic(models, threats, images=40)


def test_a_report_that_was_never_run_says_how_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match="robench run quickstart"):
        load_results(Store(tmp_path), "quickstart")


def test_results_from_the_store_are_those_that_were_written(
    small: Synthetic, tmp_path: Path
) -> None:
    loaded = load_results(small.write(Store(tmp_path)), "synthetic")
    assert loaded.manifest == small.results().manifest
    assert leaderboard(loaded).equals(leaderboard(small.results()))


def test_a_damaged_cell_becomes_a_missing_one_that_is_named(
    small: Synthetic, tmp_path: Path
) -> None:
    store = small.write(Store(tmp_path))
    cell = small.manifest["cells"][1]
    file = tmp_path / "cells" / cell["digest"][:2] / f"{cell['digest']}.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    loaded = load_results(store, "synthetic")
    [failure] = loaded.failures()
    assert (failure["model"], failure["of"], failure["status"]) == (
        "synthetic/a",
        "fgsm",
        "missing",
    )
    assert "damaged" in failure["error"]
    assert not loaded.complete(loaded.models[0])
    assert loaded.complete(loaded.models[1])


def test_a_cell_that_is_gone_becomes_a_missing_one(small: Synthetic, tmp_path: Path) -> None:
    store = small.write(Store(tmp_path))
    cell = small.manifest["cells"][0]["digest"]
    (tmp_path / "cells" / cell[:2] / f"{cell}.parquet").unlink()
    [failure] = load_results(store, "synthetic").failures()
    assert "gone" in failure["error"]


def test_failures_of_one_cause_are_said_once(small: Synthetic) -> None:
    results = small.results()
    for cell in results.manifest["cells"][:3]:
        cell.update(status="failed", error="training diverged")
    results.manifest["models"][0]["seeds"][0].update(status="failed", error="training diverged")
    [failure] = results.failures()
    assert failure["of"] == "training, clean, fgsm, imagenet-c/fog/1"


@pytest.mark.usefixtures("undrawn")
def test_a_published_folder_holds_every_answer_that_the_store_held(
    small: Synthetic, tmp_path: Path
) -> None:
    write_report(small.results(), tmp_path)
    loaded = load_published(tmp_path)
    left_out = {"loss", "input", "distance", "queries", "gradients", "tie"}
    for ours, theirs in zip(loaded.models, small.manifest["models"], strict=True):
        assert {**ours, "seeds": 0} == {**theirs, "seeds": 0}
    assert list(loaded.rows) == list(small.results().rows)
    for digest, rows in small.results().rows.items():
        kept = [name for name in loaded.rows[digest].column_names if name not in left_out]
        assert {*kept} == {*rows.column_names} - left_out
        assert loaded.rows[digest].select(kept).equals(rows.select(kept))
    assert leaderboard(loaded).equals(leaderboard(small.results()))


@pytest.mark.usefixtures("undrawn")
def test_rows_that_a_published_folder_lacks_are_missing_cells(
    small: Synthetic, tmp_path: Path
) -> None:
    whole = small.results()
    write_report(Results(whole.manifest, dict(list(whole.rows.items())[1:])), tmp_path)
    [failure] = load_published(tmp_path).failures()
    assert (failure["model"], failure["of"]) == ("synthetic/a", "clean")


def test_a_folder_that_is_not_a_published_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match=r"manifest\.json: no such file"):
        load_published(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RobenchError, match="not a published report"):
        load_published(tmp_path)


def test_a_manifest_of_another_schema_is_refused(small: Synthetic, tmp_path: Path) -> None:
    store = small.write(Store(tmp_path))
    store.write_run("synthetic", {**small.manifest, "schema": 99})
    with pytest.raises(RobenchError, match="schema 99"):
        load_results(store, "synthetic")
