"""Data under a publisher's file names is held against the publisher's hashes; pages say so."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import data_files
import numpy as np
import pytest
from command_line import robench_here
from scipy.io import savemat
from small_runs import carry_out

from robench.data import planetoid, tiny_imagenet
from robench.data.cifar import CIFAR10, CIFAR100, NAMES
from robench.data.publisher import odd_files
from robench.data.svhn import SVHN
from robench.errors import RobenchError
from robench.workspace.folders import open_workspace

Write = Callable[[str, str], Path]


def _cifar10(root: Path) -> Path:
    data_files.cifar10(root)
    return root / CIFAR10.folder


def _cifar100(root: Path) -> Path:
    folder = root / CIFAR100.folder
    folder.mkdir(parents=True)
    for name in CIFAR100.hashes:
        np.zeros((4, 2 + 3072), np.uint8).tofile(folder / name)
    (folder / NAMES).write_text("\n".join(f"c{n}" for n in range(100)))
    return folder


def _svhn(root: Path) -> Path:
    folder = root / "svhn"
    folder.mkdir(parents=True)
    for name in SVHN.hashes:
        savemat(folder / name, {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((4, 1), int)})
    return folder


class Known(NamedTuple):
    """A data set with hashes of its files."""

    dataset: type[CIFAR10] | type[SVHN]
    make: Callable[[Path], Path]
    last: str


KNOWN = {
    "cifar10": Known(CIFAR10, _cifar10, "test_batch.bin"),
    "cifar100": Known(CIFAR100, _cifar100, "test.bin"),
    "svhn": Known(SVHN, _svhn, "test_32x32.mat"),
}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def hashes(folder: Path, like: Mapping[str, str]) -> dict[str, str]:
    """Of the files that are there, by the kinds of hash that `like` has."""
    kinds = {name: said.partition(":")[0] for name, said in like.items()}
    return {
        name: f"{kind}:{hashlib.new(kind, (folder / name).read_bytes()).hexdigest()}"
        for name, kind in kinds.items()
    }


@pytest.mark.parametrize("name", KNOWN)
def test_files_that_are_not_the_publisher_s_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    known = KNOWN[name]
    folder = known.make(root)
    every = ", ".join(known.dataset.hashes)
    assert known.dataset().load().notes == (f"{name}: not the publisher's data: {every}",)
    monkeypatch.setattr(known.dataset, "hashes", hashes(folder, known.dataset.hashes))
    assert known.dataset().load().notes == ()
    if known.last.endswith(".bin"):  # the label of one test image, and nothing else
        content = bytearray((folder / known.last).read_bytes())
        content[0 if name == "cifar10" else 1] ^= 1
        (folder / known.last).write_bytes(content)
    else:
        savemat(folder / known.last, {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": [[1, 1, 1, 2]]})
    assert known.dataset().load().notes == (f"{name}: not the publisher's data: {known.last}",)


def test_hashes_cover_every_file_that_is_read() -> None:
    train = {f"data_batch_{number}.bin" for number in range(1, 6)}
    assert set(CIFAR10.hashes) == {*train, "test_batch.bin"}
    assert set(CIFAR100.hashes) == {"train.bin", "test.bin"}
    for kind in (planetoid.Cora, planetoid.CiteSeer):
        assert set(kind.hashes) == set(planetoid.PARTS)


def test_a_citation_network_that_is_not_the_authors_is_named(root: Path) -> None:
    files = {f"ind.cora.{part}": root / part for part in planetoid.PARTS}
    root.mkdir()
    for path in files.values():
        path.write_bytes(path.name.encode())
    real = hashes(root, planetoid.Cora.hashes)
    known = {f"ind.cora.{part}": said for part, said in real.items()}
    assert odd_files("cora", files, known) == ()
    (root / "ty").write_bytes(b"other")
    assert odd_files("cora", files, known) == ("cora: not the publisher's data: ind.cora.ty",)
    (root / "ty").unlink()
    with pytest.raises(RobenchError, match="ty: cannot be read"):
        odd_files("cora", files, known)


@pytest.mark.data
def test_what_the_authors_published_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert planetoid.Cora().load().notes == planetoid.CiteSeer().load().notes == ()


def test_of_tiny_imagenet_only_the_archive_can_be_compared_and_that_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_files.tiny_imagenet(root)
    (said,) = tiny_imagenet.TinyImageNet(classes=3).load().notes
    assert "not held against the publisher's data" in said
    archive = root / f"{tiny_imagenet.FOLDER}.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(f"{folder.name}/", b"")
        for path in sorted(folder.rglob("*")):
            made.write(path, str(path.relative_to(root)))
    folder.rename(root.parent / "unpacked")
    (said,) = tiny_imagenet.TinyImageNet(classes=3).load().notes
    assert said == f"tiny-imagenet: not the publisher's data: {archive.name}"
    real = hashes(root, {archive.name: tiny_imagenet.HASH})[archive.name]
    monkeypatch.setattr(tiny_imagenet, "HASH", real)
    assert tiny_imagenet.TinyImageNet(classes=3).load().notes == ()


def test_run_and_verify_say_so_too(root: Path, write: Write) -> None:
    root.mkdir()
    data_files.mnist(root)
    write(
        "models/small.toml",
        'dataset = "mnist"\nnetwork = { name = "mlp", hidden = [4] }\n'
        'trainer = { name = "bp", epochs = 1 }\n',
    )
    path = write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = []\nimages = 5\ndiagnostics = false\n',
    )
    carry_out(open_workspace(path.parents[1]))
    done = robench_here("run", "small", "-w", str(path.parents[1]), "--jobs", "0")
    assert "note: mnist: not the publisher's data: train-images" in done.stderr
    done = robench_here("verify", "small", "-w", str(path.parents[1]), "--cells", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("note: mnist: not the publisher's data: train-images")
    assert "same bits" in done.stdout
