"""`robench fsck` and `robench verify --train`: a store is checked, and nothing in it changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from command_line import robench_here
from hostile import snapshot
from small_runs import carry_out

from robench.digest import canonical, digest
from robench.errors import RobenchError
from robench.make.describe import describe
from robench.make.verify import verify_training
from robench.store.fsck import check_store
from robench.store.seal import sealed, tensors_digest
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace

Write = Callable[[str, str], Path]


@pytest.fixture
def finished(small: Workspace, write: Write) -> Workspace:
    """A model and a surrogate that is in no report itself; shared inputs; a finished report."""
    text = (small.root / "models/small.toml").read_text()
    write("models/source.toml", text.replace("[16]", "[8]"))
    write(
        "attacks/moved.toml",
        'attack = "fgsm"\naccess = "transfer"\nsurrogate = "source"\neps = 0.1\n',
    )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["fgsm", "moved"]\nimages = 20\n'
        "diagnostics = false\n",
    )
    workspace = open_workspace(small.root)
    run, _ = carry_out(workspace)
    run.store.write_run("small", describe(run, "robench run small"))
    return workspace


def files(workspace: Workspace, pattern: str) -> list[Path]:
    return sorted((workspace.root / ".robench").glob(pattern))


def test_a_store_as_it_was_written_is_sound_and_all_of_it_is_needed(finished: Workspace) -> None:
    before = snapshot(finished.root)
    found = check_store(Store(finished.root / ".robench"))
    assert dict(found.sound) == {"models": 2, "inputs": 1, "cells": 3}
    assert (found.reports, found.damaged, dict(found.missing)) == (1, {}, {})
    assert not found.unreachable
    assert snapshot(finished.root) == before


def test_what_no_report_needs_is_counted_with_its_size(finished: Workspace, write: Write) -> None:
    text = (finished.root / "reports/small.toml").read_text()
    write("reports/small.toml", text.replace('"fgsm", "moved"', '"fgsm"'))
    run, _ = carry_out(open_workspace(finished.root))
    run.store.write_run("small", describe(run, ""))
    found = check_store(run.store)
    assert {kind: len(names) for kind, names in found.unreachable.items()} == {
        "models": 1,
        "inputs": 1,
        "cells": 1,
    }
    for names in found.unreachable.values():
        for name, size in names.items():
            assert (finished.root / ".robench" / name).stat().st_size == size > 0
    assert any("no report needs: 1 cells, " in line for line in found.lines())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 32] = bytes(byte ^ 4 for byte in data[middle : middle + 32])
    path.write_bytes(data)


def other_bytes(path: Path) -> None:
    path.write_bytes(b"")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {"flipped": flip, "emptied": other_bytes, "a pipe": pipe}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("where", ["models/*", "inputs/*", "cells/*/*", "runs/*"])
def test_what_is_damaged_is_named_and_left_where_it_is(
    finished: Workspace, where: str, how: str
) -> None:
    file = files(finished, where)[0]
    DAMAGE[how](file)
    found = check_store(Store(finished.root / ".robench"))
    assert list(found.damaged) == [str(file.relative_to(finished.root / ".robench"))]
    assert not found.missing
    assert os.path.lexists(file)


@pytest.mark.parametrize("where", ["models/*", "inputs/*", "cells/*/*"])
def test_what_a_report_needs_and_is_gone_is_said(finished: Workspace, where: str) -> None:
    run, _ = carry_out(finished)
    needed = run.store.read_run("small")
    gone = next(path for path in files(finished, where) if path.stem in json.dumps(needed))
    gone.unlink()
    found = check_store(run.store)
    assert found.missing["small"] == [f"{where.split('/')[0]}/{gone.stem}"]


def test_a_file_under_anothers_name_is_damaged(finished: Workspace) -> None:
    one, other = files(finished, "cells/*/*")[:2]
    shutil.copy(one, other)
    assert len(check_store(Store(finished.root / ".robench")).damaged) == 1


def test_what_was_written_under_an_earlier_schema_is_whole(finished: Workspace) -> None:
    path = files(finished, "models/*")[0]
    state = {name: value + 1 for name, value in safetensors.torch.load_file(path).items()}
    identity = {"what": "model", "old": True}
    said = {"identity": identity, "tensors": tensors_digest(safetensors.torch.save(state))}
    old = path.with_name(f"{digest(identity, 2)}.safetensors")
    old.write_bytes(safetensors.torch.save(state, {"robench": canonical(sealed(said))}))
    found = check_store(Store(finished.root / ".robench"))
    assert not found.damaged
    assert list(found.unreachable["models"]) == [f"models/{old.name}"]


def test_what_killed_runs_and_failures_left_is_listed_apart(finished: Workspace) -> None:
    root = finished.root / ".robench"
    (root / "cells/aa").mkdir(exist_ok=True)
    (root / "cells/aa/x.parquet.1234.tmp").write_bytes(bytes(100))
    (root / "damaged").mkdir()
    (root / "damaged/x.parquet.1").write_bytes(bytes(50))
    Store(root).write_failure("f", {"task": "t", "error": "e"})
    found = check_store(Store(root))
    assert not found.damaged
    sizes = {what: sum(names.values()) for what, names in found.left.items()}
    assert sizes["written half by a run that was killed"] == 100
    assert sizes["set aside as damaged"] == 50
    assert "of work that failed" in sizes


def test_on_the_command_line_a_damaged_store_gives_exit_code_1(finished: Workspace) -> None:
    words = ("fsck", "-w", str(finished.root))
    good = robench_here(*words)
    assert good.returncode == 0, good.stderr
    assert "sound: 2 models, 1 inputs, 3 cells, 1 reports; damaged: 0 files" in good.stdout
    flip(files(finished, "cells/*/*")[0])
    bad = robench_here(*words)
    assert bad.returncode == 1
    assert "damaged: cells/" in bad.stdout


def test_models_are_trained_again_to_the_same_weights_and_others_are_noticed(
    finished: Workspace,
) -> None:
    store = Store(finished.root / ".robench")
    before = snapshot(finished.root)
    assert [found.same for found in verify_training(finished, "small", store, 5)] == [True, True]
    assert snapshot(finished.root) == before
    path = files(finished, "models/*")[0]
    metadata = store.read_model(path.stem)[1]
    state = {name: value + 1 for name, value in safetensors.torch.load_file(path).items()}
    metadata["tensors"] = tensors_digest(safetensors.torch.save(state))
    path.write_bytes(safetensors.torch.save(state, {"robench": canonical(sealed(metadata))}))
    found = list(verify_training(finished, "small", store, 5))
    assert [one.digest for one in found if not one.same] == [path.stem]


def test_retraining_needs_models(small: Workspace) -> None:
    with pytest.raises(RobenchError, match="no trained models"):
        list(verify_training(small, "small", Store(small.root / ".robench"), 1))
