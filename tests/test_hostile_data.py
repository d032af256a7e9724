"""Files of data sets that are damaged, missing, another's or bombs: what loads is images and labels
that the rest may rely on, or one error names the file.
"""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from damaged_files import HOW, damage
from data_files import cifar10, mnist, tiny_imagenet
from hostile import NUMBERS, TEXTS, files_in, nested, png_header, put, works_or_says
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from robench.data.base import Dataset, Splits
from robench.data.cifar import CIFAR10
from robench.data.mnist import MNIST
from robench.data.planetoid import Cora
from robench.data.tiny_imagenet import TinyImageNet

alone = hostile.alone  # a fixture

CORA = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def cora(folder: Path) -> None:
    """A graph of 510 nodes in 7 classes: 7 to train on, 500 to validate, 3 to test."""
    rng = np.random.default_rng(0)
    words = (rng.random((510, 6)) < 0.4).astype(np.float32)
    classes = np.eye(7, dtype=np.int32)[np.arange(510) % 7]
    raw = folder / "planetoid/Cora/raw"
    raw.mkdir(parents=True)
    parts = {
        "x": csr_matrix(words[:7]),
        "y": classes[:7],
        "allx": csr_matrix(words[:507]),
        "ally": classes[:507],
        "tx": csr_matrix(words[507:]),
        "ty": classes[507:],
        "graph": defaultdict(list, {node: [(node + 1) % 510] for node in range(510)}),
    }
    for name, part in parts.items():
        (raw / f"ind.cora.{name}").write_bytes(pickle.dumps(part, protocol=4))
    (raw / "ind.cora.test.index").write_text("509\n508\n507\n")


SETS: dict[str, tuple[Callable[[Path], Any], Dataset]] = {
    "mnist": (mnist, MNIST()),
    "mnist, small": (mnist, MNIST(resize=14)),
    "mnist, by ratio": (mnist, MNIST(split="6:1:3")),
    "cifar10": (cifar10, CIFAR10()),
    "tiny-imagenet": (tiny_imagenet, TinyImageNet(classes=3)),
    "tiny-imagenet, grey": (tiny_imagenet, TinyImageNet(classes=3, grey=True, side=48)),
    "cora": (cora, Cora()),
    "cora, by ratio": (cora, Cora(split="6:1:3")),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of every set, small but whole."""
    made = {}
    for name, (build, _) in SETS.items():
        folder = tmp_path_factory.mktemp("set")
        build(folder)
        made[name] = files_in(folder)
    return made


def sound(splits: Splits) -> None:
    """What comes out is images and labels that the rest may rely on."""
    shape = splits.train.images.shape[1:]
    for part in (splits.train, splits.validation, splits.test):
        assert part.images.dtype == np.float32
        assert part.images.shape == (len(part.labels), *shape)
        assert np.isfinite(part.images).all()
        assert ((part.images >= 0) & (part.images <= 1)).all()
        assert part.labels.dtype == np.int64
        assert ((part.labels >= 0) & (part.labels < len(splits.classes))).all()
    assert len(splits.fingerprint) == 64


def loaded(dataset: Dataset) -> None:
    splits = works_or_says(dataset.load, "/data/|data set|dataset")
    if splits is not None:
        sound(splits)


@pytest.mark.parametrize("name", SETS)
def test_the_sets_as_they_are_load(alone: Path, pristine: Any, name: str) -> None:
    put(alone / "data", pristine[name])
    sound(SETS[name][1].load())


@given(data=st.data(), name=st.sampled_from(sorted(SETS)), how=HOW, value=st.integers(0, 255))
def test_a_damaged_file_of_data_is_read_or_named(
    alone: Path, pristine: Any, data: st.DataObject, name: str, how: str, value: int
) -> None:
    files = dict(pristine[name])
    file = data.draw(st.sampled_from(sorted(files)))
    content = gzip.decompress(files[file]) if file.endswith(".gz") else files[file]
    early = st.integers(0, min(200, len(content)))  # where headers are
    where = data.draw(st.one_of(early, st.integers(0, len(content))))
    inside = file.endswith(".gz") and data.draw(st.booleans())
    if inside:
        files[file] = gzip.compress(damage(content, how, where, value), 1)
    else:
        files[file] = damage(files[file], how, where, value)
    put(alone / "data", files)
    loaded(SETS[name][1])


@given(data=st.data(), name=st.sampled_from(sorted(SETS)))
def test_a_file_of_data_that_is_missing_moved_or_another_is_named(
    alone: Path, pristine: Any, data: st.DataObject, name: str
) -> None:
    files = dict(pristine[name])
    file, other = (data.draw(st.sampled_from(sorted(files))) for _ in range(2))
    match data.draw(st.sampled_from(["missing", "another's", "a folder", "text", "lines"])):
        case "missing":
            del files[file]
        case "another's":
            files[file] = files[other]
        case "a folder":
            del files[file]
            files[f"{file}/inside"] = b""
        case "text":
            files[file] = data.draw(TEXTS).encode()
        case _:
            lines = [data.draw(st.one_of(TEXTS, NUMBERS.map(repr))) for _ in range(3)]
            files[file] = "\n".join("\t".join(lines) for _ in range(2)).encode()
    put(alone / "data", files)
    loaded(SETS[name][1])


@given(data=st.data(), dimensions=st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_an_idx_header_may_say_anything(
    alone: Path, pristine: Any, data: st.DataObject, dimensions: list[int]
) -> None:
    files = dict(pristine["mnist"])
    file = data.draw(st.sampled_from(sorted(files)))
    header = bytes([0, 0, 8, len(dimensions)]) + np.array(dimensions, ">u4").tobytes()
    files[file] = gzip.compress(header + data.draw(st.binary(max_size=30)))
    put(alone / "data", files)
    loaded(MNIST())


ARRAYS = st.one_of(
    st.sampled_from(
        [
            np.zeros((3, 7)), np.zeros((507, 7), np.int32), np.full((3, 7), np.nan), np.zeros(5),
            np.zeros((0, 7)), np.array([[{}]], object), np.array(["a"]), np.zeros((3, 7), complex),
            np.full((3, 7), 1e300), np.full((507, 6), -1, np.int8), np.zeros((2,) * 9),
        ]
    ),
    st.builds(
        lambda shape, indices: with_shape(csr_matrix(np.eye(3)), shape, indices),
        st.tuples(st.integers(-1, 2**62), st.integers(-1, 2**62)),
        st.sampled_from([None, [0, 1, -1], [0, 1, 2**40], [0], [0.5, 1, 2]]),
    ),
    nested(TEXTS, NUMBERS, st.booleans(), st.none()),
    st.dictionaries(st.integers(-2, 2**70), st.lists(st.integers(-2, 600), max_size=3), max_size=3),
)  # fmt: skip


def with_shape(matrix: Any, shape: tuple[int, int], indices: list[Any] | None) -> Any:
    matrix.__dict__["_shape"] = shape
    if indices is not None:
        matrix.indices = np.array(indices)
    return matrix


@given(part=st.sampled_from(CORA[:-1]), value=ARRAYS, protocol=st.integers(0, 4))
def test_a_pickle_of_any_array_is_taken_or_refused(
    alone: Path, pristine: Any, part: str, value: Any, protocol: int
) -> None:
    file = f"planetoid/Cora/raw/ind.cora.{part}"
    put(alone / "data", {**pristine["cora"], file: pickle.dumps(value, protocol=protocol)})
    loaded(Cora())
    loaded(Cora(split="6:1:3"))


@given(numbers=st.lists(st.one_of(st.integers(-3, 600), NUMBERS, TEXTS), max_size=4))
def test_the_index_of_test_nodes_may_say_anything(
    alone: Path, pristine: Any, numbers: list[Any]
) -> None:
    text = "\n".join(map(str, numbers))
    put(
        alone / "data",
        {**pristine["cora"], "planetoid/Cora/raw/ind.cora.test.index": text.encode()},
    )
    loaded(Cora())


def zeros(n: int) -> bytes:
    """A gzip file of n zero megabytes, quickly."""
    return gzip.compress(bytes(2**20)) * n


PICTURE = "tiny-imagenet-200/val/images/val_0.JPEG"
BOMBS: dict[str, tuple[str, str, bytes]] = {
    "gzip": ("mnist", "mnist/train-images-idx3-ubyte.gz", zeros(8000)),
    "idx": (
        "mnist",
        "mnist/train-labels-idx1-ubyte.gz",
        gzip.compress(b"\0\0\x08\x02" + 8 * b"\xff") + zeros(8000),
    ),
    "picture": ("tiny-imagenet", PICTURE, png_header(10**5, 10**5)),
    "large picture": ("tiny-imagenet", PICTURE, png_header(13_000, 13_000)),
    "pickle that asks for memory": (
        "cora", "planetoid/Cora/raw/ind.cora.x", b"\x80\x02Nr\xff\xff\xff\x3f."
    ),
    "pickle of uninitialised memory": (
        "cora",
        "planetoid/Cora/raw/ind.cora.ty",
        b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x40K\x07\x86\x85R.",
    ),
    "nested pickle": ("cora", "planetoid/Cora/raw/ind.cora.y", b"(" * 10**5 + b"l" * 10**5 + b"."),
    "index": ("cora", "planetoid/Cora/raw/ind.cora.test.index", b"1000000000000\n3"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(alone: Path, pristine: Any, bomb: str) -> None:
    name, file, content = BOMBS[bomb]
    put(alone / "data", {**pristine[name], file: content})
    assert works_or_says(SETS[name][1].load, Path(file).name) is None


def test_a_zip_file_that_is_a_bomb_is_refused(alone: Path, pristine: Any) -> None:
    with zipfile.ZipFile(alone / "data/tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in pristine["tiny-imagenet"].items():
            made.writestr(name, bytes(2**25) if name.endswith("wnids.txt") else content)
    assert works_or_says(TinyImageNet(classes=3).load, "wnids.txt") is None
