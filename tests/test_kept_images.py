"""Adversarial images as files: they are what was scored, and keeping them changes no number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from command_line import robench_here as command_line
from PIL import Image
from small_runs import Ears, outcomes
from torch import nn

import robench
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.run_state import Run, open_run
from robench.make.scheduler import execute
from robench.make.trained import fresh_network
from robench.show.images import read_images
from robench.show.results import Results, load_results
from robench.store.fsck import check_store
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]


@pytest.fixture
def several(small: Workspace, write: Write) -> Workspace:
    """Attacks of all kinds: one step, restarts, transfer, a curve; a corruption; a noisy model."""
    text = (small.root / "models/small.toml").read_text()
    write("models/source.toml", text.replace("[16]", "[8]"))
    noisy = text.replace("hidden = [16]", "hidden = [16], sigma = 0.3")
    write("models/noisy.toml", noisy + "inference_noise = true\n")
    write("attacks/pgd.toml", 'attack = { name = "pgd", steps = 3, restarts = 2 }\n'
          'access = "white-box"\neps = [0.05, 0.1]\n')  # fmt: skip
    write("attacks/moved.toml", 'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\n'
          "eps = 0.1\n")  # fmt: skip
    write("corruptions/glr.toml", 'corruption = "glr-mnist"\nseverities = [1]\n')
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small", "noisy"]\nattacks = ["fgsm", "noise", "pgd", "moved"]\n'
        'corruptions = ["glr"]\nimages = 20\ndraws = 4\nbatch_size = 8\ndiagnostics = false\n',
    )
    return open_workspace(small.root)


def carry_out(workspace: Workspace, keep: bool, jobs: int = 0) -> tuple[Run, Ears]:
    store = Store(workspace.root / ".robench")
    run, ears = open_run(make_plan(workspace, "small"), store, "cpu", keep), Ears()
    execute(run, ears, jobs)
    run.store.write_run("small", describe(run, "robench run small"))
    return run, ears


def results_of(run: Run) -> Results:
    return load_results(run.store, "small")


def test_kept_images_are_those_that_were_scored(several: Workspace) -> None:
    run, ears = carry_out(several, keep=True)
    assert not ears.failed
    results = results_of(run)
    for cell in run.plan.cells:
        if cell.threat.name == "clean":
            continue
        model, seed, threat = cell.training.card.name, cell.training.seed, cell.threat.name
        kept = read_images(run.store, results, model, seed, threat)
        rows = run.store.read_cell(run.digests[cell]).rows
        assert kept.images.dtype == np.float32
        assert kept.images.shape == (20, 1, 8, 8)
        assert kept.label.tolist() == rows.column("label").to_pylist()
        pictures = [p for p in rows.column("input").to_pylist() if p is not None]
        for image, picture in zip(kept.images, pictures, strict=False):
            assert np.round(image * 255).astype(np.uint8).tobytes() == picture
        if model == "small":  # the network itself, loaded by hand, says the same of them again
            network = fresh_network(cell.training.card, 0)
            weights = run.store.read_model(run.model_digest(cell.training))[0]
            network.load_state_dict(safetensors_torch(weights))
            with torch.no_grad():
                said = network.eval()(torch.from_numpy(kept.images)).argmax(1)
            assert said.tolist() == kept.predictions[:, 0].tolist()
        if threat.startswith(("fgsm", "pgd", "noise", "moved")):
            clean = Digits().load().test.images[kept.image]
            far = np.abs(kept.images - clean).reshape(20, -1).max(1)
            assert np.allclose(far, rows.column("distance").to_numpy(), atol=1e-6)


def safetensors_torch(payload: bytes) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load(payload)


@pytest.mark.parametrize("jobs", [1, 2])
def test_keeping_images_changes_no_identity_and_no_outcome(several: Workspace, jobs: int) -> None:
    plain = outcomes(carry_out(several, keep=False)[0])
    (several.root / ".robench").rename(several.root / "before")
    run, _ = carry_out(several, keep=True, jobs=jobs)
    assert outcomes(run) == plain
    made = {c.label for c in run.plan.cells if c.threat.kind == "attack" and not c.surrogate}
    assert {c.label for c, name in run.digests.items() if name in run.store.images()} == made


def test_of_finished_cells_the_attacks_run_again_and_the_outcome_stays(several: Workspace) -> None:
    first, _ = carry_out(several, keep=False)
    files = {p: p.read_bytes() for p in (several.root / ".robench/cells").rglob("*.parquet")}
    with pytest.raises(RobenchError, match="its images were not kept; run it again with --keep-im"):
        read_images(first.store, results_of(first), "small", 0, "fgsm")
    run, ears = carry_out(several, keep=True)
    assert set(ears.done) == {
        f"images of {cell.label}"
        for cell in run.plan.cells
        if cell.threat.kind == "attack" and cell.surrogate is None
    }
    assert {p: p.read_bytes() for p in files} == files
    straight = {n: run.store.read_images(n)[0] for n in run.store.images()}
    (several.root / ".robench").rename(several.root / "before")
    again, _ = carry_out(several, keep=True)
    for name, payload in straight.items():  # as if they had been kept at once
        fresh = safetensors.numpy.load(again.store.read_images(name)[0])
        for key, values in safetensors.numpy.load(payload).items():
            assert np.array_equal(values, fresh[key])
    assert carry_out(several, keep=True)[1].done == []


def test_a_later_run_without_the_flag_still_lists_them(several: Workspace) -> None:
    carry_out(several, keep=True)
    run, ears = carry_out(several, keep=False)
    assert ears.done == []
    assert read_images(run.store, results_of(run), "small", 0, "fgsm").images.shape[0] == 20


def test_images_that_are_not_the_stored_outcome_s_are_not_kept(several: Workspace) -> None:
    """As on a processor that rounds otherwise: the outcome in the store was made elsewhere."""
    run, _ = carry_out(several, keep=False)
    cell = next(c for c in run.plan.cells if c.label == "small seed 0 x fgsm")
    name = run.digests[cell]
    stored = run.store.read_cell(name)
    moved = np.nextafter(stored.rows.column("distance").to_numpy(), np.float32(1))
    place = stored.rows.column_names.index("distance")
    rows = stored.rows.set_column(place, "distance", pq.read_table.__globals__["pa"].array(moved))
    run.store.files.remove(f"cells/{name[:2]}/{name}.parquet")
    run.store.write_cell(name, type(stored)(rows, stored.identity, stored.provenance))
    again, ears = carry_out(several, keep=True)
    assert list(ears.failed) == ["images of small seed 0 x fgsm"]
    assert "is not to the bit what the store holds" in ears.failed[f"images of {cell.label}"].short
    results = results_of(again)
    assert results.table("small", 0, "fgsm") is not None  # the outcome is there as before
    with pytest.raises(RobenchError, match="were not kept"):
        read_images(again.store, results, "small", 0, "fgsm")


def test_no_flipped_bit_of_kept_images_is_believed(several: Workspace) -> None:
    run, _ = carry_out(several, keep=True)
    results = results_of(run)
    name = next(n for c, n in run.digests.items() if c.label == "small seed 0 x fgsm")
    path = several.root / f".robench/images/{name[:2]}/{name}.safetensors"
    whole = path.read_bytes()
    for place in (30, len(whole) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(bytes(broken))
        found = check_store(run.store).damaged
        assert list(found) == [f"images/{name[:2]}/{name}.safetensors"]
        with pytest.raises(RobenchError, match="its images are damaged"):
            read_images(run.store, results, "small", 0, "fgsm")
        assert not path.exists()
        path.write_bytes(whole)
    other = next(n for c, n in run.digests.items() if c.label == "small seed 0 x pgd@0.1")
    path.write_bytes((path.parents[1] / other[:2] / f"{other}.safetensors").read_bytes())
    with pytest.raises(RobenchError, match="does not match its digest"):
        read_images(run.store, results, "small", 0, "fgsm")


def test_fsck_knows_which_images_are_needed(several: Workspace, write: Write) -> None:
    run, _ = carry_out(several, keep=True)
    found = check_store(run.store)
    assert found.sound["images"] == len(run.store.images()) == 8
    assert not found.unreachable
    assert not found.missing
    text = (several.root / "reports/small.toml").read_text()
    write("reports/small.toml", text.replace('"fgsm", ', ""))
    carry_out(open_workspace(several.root), keep=False)
    found = check_store(run.store)
    assert len(found.unreachable["images"]) == 2  # of both models
    needed = sorted(run.store.images() - {Path(n).stem for n in found.unreachable["images"]})
    run.store.files.remove(f"images/{needed[0][:2]}/{needed[0]}.safetensors")
    assert check_store(run.store).missing["small"] == [f"images/{needed[0]}"]


def test_the_command_line_keeps_and_writes_them(several: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    nothing = command_line("images", "small", str(folder), cwd=several.root)
    assert nothing.returncode == 2
    done = command_line("run", "small", "--keep-images", "--jobs", "1", cwd=several.root)
    assert "adversarial images of 8 kept" in " ".join(done.stderr.split())
    wrote = command_line("images", "small", str(folder), "--only", "fgsm", cwd=several.root)
    assert wrote.returncode == 0, wrote.stderr
    assert len(wrote.stdout.split("wrote ")) - 1 == 2
    with np.load(folder / "small/seed-0/fgsm.npz") as arrays:
        assert sorted(arrays) == ["image", "images", "label", "predictions"]
        exact, numbers = arrays["images"], arrays["image"]
    command_line(
        "images", "small", str(folder), "--format", "png", "--only", "fgsm", cwd=several.root
    )
    pictures = {int(p.name[:5]): p for p in (folder / "small/seed-0/fgsm").iterdir()}
    assert len(pictures) == 20
    for image, picture in zip(exact, (pictures[int(n)] for n in numbers), strict=True):
        assert np.abs(np.asarray(Image.open(picture)) / 255 - image[0]).max() <= 0.5 / 255 + 1e-6
    none = command_line("images", "small", str(folder), "--only", "zzz", cwd=several.root)
    assert none.returncode == 2
    assert "no images are kept of that" in " ".join(none.stderr.split())
    listed = json.loads((several.root / ".robench/runs/small.json").read_text())["cells"]
    assert all(len(c["images"]) == 64 for c in listed if c["threat"] == "fgsm")


def test_evaluate_gives_them_back(tmp_path: Path, no_diagnostics: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.rand(24, 1, 4, 4), torch.arange(24) % 3
    arguments = {**no_diagnostics, "attacks": ["pgd"], "eps": 0.2, "store": tmp_path}
    before = robench.evaluate(network, (x, y), **arguments)
    with pytest.raises(RobenchError, match="keep_images=True"):
        before.images("pgd")
    result = robench.evaluate(network, (x, y), keep_images=True, **arguments)
    assert result.per_image.equals(before.per_image)
    found = result.images("pgd")
    with torch.no_grad():
        right = network(torch.from_numpy(found)).argmax(1) == y
    rows = result.per_image[result.per_image["threat"] == "pgd"]
    assert (rows["correct"].to_numpy() == right.numpy()).all()
    assert float(np.abs(found - x.numpy()).max()) <= 0.2 + 1e-6
    with pytest.raises(RobenchError, match="no outcome under 'pdg'"):
        result.images("pdg")
    with pytest.raises(RobenchError, match="clean images are the data set's own"):
        result.images("clean")
