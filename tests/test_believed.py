"""What is not as it was written is not believed: manifests, rows, pages, and digests that are
another's."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from damaged_files import damage
from small_runs import carry_out

from robench.errors import RobenchError
from robench.make.describe import describe
from robench.show.packed.manifest_text import opened
from robench.show.packed.pack import unpacked
from robench.show.published import find_results
from robench.show.report.folder import write_report
from robench.show.results import Results, load_published, load_results
from robench.store.seal import rows_digest, rows_match, sealed
from robench.store.store import Damaged, Store
from robench.workspace.folders import Workspace, open_workspace, reference_root

pytestmark = pytest.mark.usefixtures("without_plots")

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two models under an attack, a corruption and a transfer: a finished run with its page."""
    root = tmp_path_factory.mktemp("finished")
    for name in ("models", "attacks", "corruptions", "reports"):
        (root / name).mkdir()
    for name, hidden in (("a", 8), ("b", 12)):
        (root / f"models/{name}.toml").write_text(
            f'dataset = "digits"\nnetwork = {{ name = "mlp", hidden = [{hidden}] }}\n'
            'trainer = { name = "bp", epochs = 1, lr = 1e-2 }\n'
        )
    (root / "attacks/moved.toml").write_text(
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "a"\neps = 0.1\n'
    )
    (root / "corruptions/c.toml").write_text(
        'corruption = { name = "imagenet-c", kinds = ["contrast"] }\nseverities = [1]\n'
    )
    (root / "reports/small.toml").write_text(
        'title = "t"\nmodels = ["a", "b"]\nattacks = ["fgsm", "moved"]\ncorruptions = ["c"]\n'
        "images = 20\ndiagnostics = false\n"
    )
    workspace = open_workspace(root)
    run, ears = carry_out(workspace)
    assert not ears.failed
    run.store.write_run("small", describe(run, "robench run small"))
    write_report(load_results(run.store, "small"), root / "reports/small")
    return workspace


@pytest.fixture
def store(finished: Workspace, tmp_path: Path) -> Store:
    """A copy of its store."""
    return Store(shutil.copytree(finished.root / ".robench", tmp_path / ".robench"))


@pytest.fixture
def folder(finished: Workspace, tmp_path: Path) -> Path:
    """A copy of what was published."""
    return Path(shutil.copytree(finished.root / "reports/small", tmp_path / "published"))


def cells_of(results: Results) -> dict[tuple[str, str], str]:
    return {(c["model"], c["threat"]): c["status"] for c in results.manifest["cells"]}


def test_a_finished_run_and_what_was_published_of_it_are_believed(
    store: Store, folder: Path
) -> None:
    for results in (load_results(store, "small"), load_published(folder)):
        assert set(cells_of(results).values()) == {"done"}
        assert len(results.rows) == 8
        assert all(cell["identity"] for cell in results.manifest["cells"])
        assert "unsealed" not in results.manifest


# -- bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(5))
def test_no_flipped_bit_of_a_run_manifest_is_believed(store: Store, part: int) -> None:
    file = Path(store.url) / "runs/small.json"
    good, whole = file.read_bytes(), store.read_run("small")
    rng, refused = random.Random(part), 0
    for _ in range(100):
        bad = damage(good, "flipped", rng.randrange(len(good)), 1 << rng.randrange(8))
        file.write_bytes(bad)
        try:
            found = store.read_run("small")
        except Damaged:
            refused += 1
            continue
        assert found == whole, "a change that says nothing else, such as of a space"
    assert refused > 50


@pytest.mark.parametrize("name", ["manifest.json", "cells.parquet"])
@pytest.mark.parametrize("part", range(2))
def test_no_flipped_bit_of_what_is_published_is_believed(
    folder: Path, name: str, part: int
) -> None:
    good, whole = (folder / name).read_bytes(), load_published(folder)
    rng = random.Random(part)
    for _ in range(50):
        bad = damage(good, "flipped", rng.randrange(len(good)), 1 << rng.randrange(8))
        (folder / name).write_bytes(bad)
        try:
            found = load_published(folder)
        except RobenchError:
            continue
        assert found.manifest == whole.manifest
        assert all(rows_match(found.rows[key], rows_digest(whole.rows[key])) for key in whole.rows)


# -- claims that were swapped, by somebody who seals again -----------------------------------------


OF_OUTCOMES = {"digest", "outcome", "rows"}


def cell(manifest: Manifest, model: str, threat: str) -> dict[str, Any]:
    return next(c for c in manifest["cells"] if (c["model"], c["threat"]) == (model, threat))


def swap_models(manifest: Manifest) -> None:
    for threat in ("clean", "fgsm"):
        a, b = cell(manifest, "a", threat), cell(manifest, "b", threat)
        for key in OF_OUTCOMES & a.keys():
            a[key], b[key] = b[key], a[key]


def swap_weights(manifest: Manifest) -> None:
    a, b = (model["seeds"][0] for model in manifest["models"])
    a["weights"], b["weights"] = b["weights"], a["weights"]


def swap_names(manifest: Manifest) -> None:
    a, b = manifest["models"]
    for key in ("fields", "card"):
        a[key], b[key] = b[key], a[key]


def clean_as_attack(manifest: Manifest) -> None:
    clean = cell(manifest, "a", "clean")
    cell(manifest, "a", "fgsm").update({key: clean[key] for key in OF_OUTCOMES & clean.keys()})


def clean_as_attack_by_digest_alone(manifest: Manifest) -> None:
    cell(manifest, "a", "fgsm")["digest"] = cell(manifest, "a", "clean")["digest"]


def corrupted_as_transfer(manifest: Manifest) -> None:
    other = cell(manifest, "a", "c/contrast/1")
    keys = (OF_OUTCOMES | {"inputs"}) & other.keys()
    cell(manifest, "a", "moved").update({key: other[key] for key in keys})


def another_surrogate(manifest: Manifest) -> None:
    next(t for t in manifest["threats"] if t["name"] == "moved")["surrogate"] = "b"


def another_eps(manifest: Manifest) -> None:
    next(t for t in manifest["threats"] if t["name"] == "fgsm")["fields"]["eps"] = 0.5


def fewer_images(manifest: Manifest) -> None:
    manifest["report"]["images"] = 10


def another_training(manifest: Manifest) -> None:
    manifest["models"][0]["fields"]["trainer"]["epochs"] = 100


def another_outcome(manifest: Manifest) -> None:
    other = cell(manifest, "b", "clean")
    said = {key: other[key] for key in OF_OUTCOMES - {"digest"} if key in other}
    cell(manifest, "a", "clean").update(said)


SWAPS = [
    *(swap_models, swap_weights, swap_names, clean_as_attack, clean_as_attack_by_digest_alone),
    *(corrupted_as_transfer, another_surrogate, another_eps, fewer_images),
]


@pytest.mark.parametrize("again", [True, False], ids=["sealed again", "not sealed again"])
@pytest.mark.parametrize("change", SWAPS, ids=lambda change: change.__name__)
def test_a_run_manifest_that_names_others_is_refused(
    store: Store, change: Callable[[Manifest], None], again: bool
) -> None:
    file = Path(store.url) / "runs/small.json"
    manifest = json.loads(file.read_text())
    seal = manifest.pop("seal")
    change(manifest)
    file.write_text(json.dumps(sealed(manifest) if again else {**manifest, "seal": seal}))
    said = "its digest is not its own.*run small" if again else "not match its seal; set aside"
    with pytest.raises(RobenchError, match=said):
        load_results(store, "small")


@pytest.mark.parametrize("change", SWAPS, ids=lambda change: change.__name__)
def test_outcomes_in_a_manifest_of_before_have_to_be_those_of_their_cells(
    store: Store, change: Callable[[Manifest], None]
) -> None:
    file = Path(store.url) / "runs/small.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(of_before(manifest)))
    refused = [c for c in load_results(store, "small").manifest["cells"] if c["error"]]
    assert bool(refused) or change in (corrupted_as_transfer, another_surrogate)
    assert all("its outcome" in c["error"] and "run again" in c["error"] for c in refused)


@pytest.mark.parametrize("again", [True, False], ids=["sealed again", "not sealed again"])
@pytest.mark.parametrize(
    "change", [*SWAPS, another_training, another_outcome], ids=lambda change: change.__name__
)
def test_a_published_manifest_that_names_others_is_refused(
    folder: Path, change: Callable[[Manifest], None], again: bool
) -> None:
    manifest = opened(json.loads((folder / "manifest.json").read_text()))
    seal = manifest.pop("seal")
    manifest = unpacked(manifest)
    change(manifest)
    said = sealed(manifest) if again else {**manifest, "seal": seal}
    (folder / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(RobenchError, match=r"anew|seal|rows where there can be"):
        load_published(folder)


# -- rows ------------------------------------------------------------------------------------------


def put_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


ROWS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "every image correct": lambda t: put_column(
        t, "correct", pa.array([1.0] * len(t), pa.float32())
    ),
    "labels moved": lambda t: put_column(t, "label", t["label"].combine_chunks()[::-1]),
    "shares that the answers do not give": lambda t: put_column(
        t, "correct", pc.fill_null(t["correct"], pa.scalar(1e-3, pa.float32()))
    ),
    "images numbered anew": lambda t: put_column(
        t, "image", pc.add(t["image"], pa.scalar(1, pa.int32()))
    ),
    "shares as integers": lambda t: put_column(
        t, "correct", pa.array([1] * len(t), pa.int32())
    ),
    "a right draw wrong and a wrong one right": lambda t: put_column(
        t, "right", pa.array([bytes(255 - byte for byte in one) for one in t["right"].to_pylist()])
    ),
    "other wrong answers": lambda t: put_column(
        t, "wrong", pa.array([one and bytes(byte ^ 1 for byte in one)
                              for one in t["wrong"].to_pylist()])
    ),
    "a column renamed": lambda t: t.rename_columns(
        ["other" if name == "zero_gradient" else name for name in t.column_names]
    ),
    "a column more": lambda t: t.append_column("more", pa.array([1] * len(t))),
    "a column less": lambda t: t.drop_columns(["zero_gradient"]),
    "a row less": lambda t: t.slice(0, len(t) - 1),
    "two cells exchanged": lambda t: put_column(
        t, "cell", pa.concat_arrays([t["cell"].combine_chunks().dictionary_decode()[20:40],
                                     t["cell"].combine_chunks().dictionary_decode()[:20],
                                     t["cell"].combine_chunks().dictionary_decode()[40:]])
        .dictionary_encode()
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", ROWS)
def test_published_rows_that_are_not_those_of_the_manifest_are_refused(
    folder: Path, change: str
) -> None:
    table = pq.read_table(folder / "cells.parquet")
    pq.write_table(ROWS[change](table), folder / "cells.parquet")
    with pytest.raises(RobenchError, match=r"are not those that manifest.json lists|column"):
        load_published(folder)


def test_the_digest_of_rows_covers_types_and_nulls_but_not_columns_without_values() -> None:
    rows = pa.table({"a": pa.array([1, 2], pa.int32())})
    assert rows_digest(rows) != rows_digest(pa.table({"a": pa.array([1, 2], pa.float32())}))
    same_bytes = pa.table({"a": pa.array(rows["a"].to_numpy().view("float32"))})
    assert rows_digest(rows) != rows_digest(same_bytes)
    assert rows_digest(rows) != rows_digest(pa.table({"b": rows["a"]}))
    assert rows_digest(rows) != rows_digest(pa.table({"a": pa.array([1, None], pa.int32())}))
    more = rows.append_column("n", pa.nulls(2, pa.float32()))
    assert rows_digest(rows) == rows_digest(more)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_unread(folder: Path) -> None:
    table = pq.read_table(folder / "cells.parquet")
    first = table.slice(0, 1)
    many = pa.array([bytes(20_000_000)])
    large = pa.concat_tables([put_column(first, "wrong", many)] * 20)
    pq.write_table(large, folder / "cells.parquet", compression="zstd", use_dictionary=False)
    assert (folder / "cells.parquet").stat().st_size < 3e6
    before = pa.total_allocated_bytes()
    with pytest.raises(RobenchError, match="rows that unpack to .* bytes, more than"):
        load_published(folder)
    assert pa.total_allocated_bytes() - before < 2**26


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["index.html", "manifest.json", "cells.parquet", "leaderboard.csv", "leaderboard.json",
             "leaderboard.tex"]
)  # fmt: skip
def test_an_edited_file_of_a_report_counts_as_not_current(
    finished: Workspace, folder: Path, name: str
) -> None:
    results = load_published(folder)
    good = (folder / name).read_bytes()
    place = good.rfind(b"1")
    (folder / name).write_bytes(good[:place] + b"7" + good[place + 1 :])
    write_report(results, folder)
    assert (folder / name).read_bytes() == good


# -- of before there were seals --------------------------------------------------------------------


def of_before(manifest: Manifest) -> Manifest:
    for key in ("seal", "identities", "identity_schema", "inputs"):
        del manifest[key]
    for entry in manifest["cells"]:
        for key in ("identity", "inputs"):
            entry.pop(key, None)
    return {**manifest, "schema": 1}


def without_seal(folder: Path, store: Store) -> None:
    """The folder as it was published once: the manifest as the store has it, and rows whole."""
    manifest = json.loads((Path(store.url) / "runs/small.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(of_before(manifest)))
    rows = load_results(store, "small").rows
    names = pa.array(sorted(rows)).dictionary_encode()
    cells = [
        rows[name.as_py()].append_column("cell", pa.DictionaryArray.from_arrays(
            pa.array([number] * len(rows[name.as_py()]), pa.int32()), names.dictionary))
        for number, name in enumerate(names.dictionary)
    ]  # fmt: skip
    table = pa.concat_tables(cells, promote_options="default")
    pq.write_table(table, folder / "cells.parquet")


def test_a_folder_of_before_is_read_and_its_page_says_so_also_after_it_is_sealed(
    folder: Path, store: Store
) -> None:
    assert "It is sealed" in (folder / "index.html").read_text()
    without_seal(folder, store)
    page = write_report(load_published(folder), folder)
    assert "<strong>not sealed</strong>" in page.read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["seal"]
    before = page.read_bytes()
    assert write_report(load_published(folder), folder).read_bytes() == before


def test_rows_of_a_folder_of_before_still_have_to_be_those_that_it_lists(
    folder: Path, store: Store
) -> None:
    without_seal(folder, store)
    load_published(folder)
    table = pq.read_table(folder / "cells.parquet")
    pq.write_table(ROWS["every image correct"](table), folder / "cells.parquet")
    with pytest.raises(RobenchError, match=r"a seed 0 x clean are not those that manifest.json"):
        load_published(folder)


def test_another_outcome_than_the_run_left_is_missing(store: Store) -> None:
    file = Path(store.url) / "runs/small.json"
    manifest = json.loads(file.read_text())
    del manifest["seal"]
    another_outcome(manifest)
    file.write_text(json.dumps(sealed(manifest)))
    states = cells_of(load_results(store, "small"))
    assert [key for key, state in states.items() if state != "done"] == [("a", "clean")]


def test_dropping_the_seal_does_not_make_a_manifest_one_of_before(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["seal"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RobenchError, match="it has no seal"):
        load_published(folder)


PUBLISHED = sorted(p.parent.name for p in (reference_root() / "reports").glob("*/manifest.json"))


@pytest.mark.rows(6)
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_this_repository_published_fits_its_digests(name: str) -> None:
    assert load_published(reference_root() / "reports" / name).rows


# -- a damaged manifest is said, not passed over ---------------------------------------------------


def test_a_damaged_run_manifest_is_one_error_that_says_what_to_do(
    finished: Workspace, store: Store
) -> None:
    file = Path(store.url) / "runs/small.json"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RobenchError, match="set aside as .*; make it again with: robench run"):
        find_results(finished, store, "small")


def test_swapping_leaves_the_good_manifest_as_it_was(finished: Workspace) -> None:
    """The changes above are changes."""
    manifest = json.loads((finished.root / ".robench/runs/small.json").read_text())
    for change in [*SWAPS, another_training]:
        other = copy.deepcopy(manifest)
        change(other)
        assert other != manifest
