"""Cards, names, data, weights and reports from strangers: it works, or one clear error is raised.

Nothing else: no other exception, no hang, no memory of terabytes, and no file read or written
where none should be. The rule itself is in hostile.py.
"""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hostile import (
    JSON,
    NUMBERS,
    ODDLY_WRITTEN,
    TEXTS,
    TOML,
    card_text,
    changed,
    nested,
    snapshot,
    watch,
    works_or_says,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
)
from test_data import cifar10, mnist, tiny_imagenet
from test_given import cifar_c, tiny_c
from test_modules import FACTORY
from test_report import Outline
from test_store_survives import HOW, damage

from robench import check, listing, plugins, report
from robench.corruptions.given import Given
from robench.data.base import Dataset, Splits
from robench.data.cifar10 import CIFAR10
from robench.data.mnist import MNIST
from robench.data.planetoid import Cora
from robench.data.tiny_imagenet import TinyImageNet
from robench.execute import Run, open_run, survey
from robench.identity import resolve_model
from robench.networks.base import check_finite
from robench.new import new_plugin, new_workspace
from robench.plan import make_plan
from robench.published import find_results
from robench.report import write_report
from robench.results import Results, load_published
from robench.store import Store
from robench.verify import verify
from robench.workspace import FOLDERS, Workspace, open_workspace


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, no data but what a test puts there, and a home and a place to stand in that are
    watched."""

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    for name in ("data", "home", "here", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


# -- cards -----------------------------------------------------------------------------------------

DIGITS = {"name": "digits", "split": "6:1:3", "split_seed": 0}
CARDS: dict[str, dict[str, Any]] = {
    "models/small": {
        "description": "small",
        "dataset": DIGITS,
        "network": {"name": "mlp", "hidden": [8], "activation": "relu"},
        "trainer": {"name": "bp", "epochs": 1, "lr": 0.01},
        "seeds": [0, 1],
        "inference_noise": False,
        "published": {"clean": 0.9},
    },
    "models/given": {
        "dataset": DIGITS,
        "network": {
            "name": "module",
            "factory": "./net.py:make",
            "arguments": {"hidden": 20},
            "mean": [0.1],
        },
        "trainer": {"name": "given", "weights": "net.safetensors"},
    },
    "models/spiking": {
        "dataset": DIGITS,
        "network": {"name": "snn", "hidden": [8]},
        "trainer": {"name": "nit", "epochs": 1},
    },
    "attacks/near": {
        "attack": {"name": "pgd", "steps": 2},
        "access": "white-box",
        "eps": [0.1, 0.2],
    },
    "attacks/moved": {
        "attack": "fgsm",
        "access": "transfer",
        "surrogate": "small",
        "norm": "linf",
        "eps": 0.1,
        "max_queries": 10,
        "time_limit": 1.5,
        "role": "attack",
    },
    "corruptions/noisy": {
        "corruption": {"name": "imagenet-c", "kinds": ["fog", "contrast"]},
        "severities": [1, 5],
    },
    "reports/all": {
        "title": "All",
        "models": ["small", "given", "spiking"],
        "attacks": ["near", "moved", "noise"],
        "transfer": ["fgsm"],
        "corruptions": ["noisy"],
        "images": 20,
        "draws": 2,
        "batch_size": 10,
        "seed": 0,
        "diagnostics": True,
        "baselines": ["small"],
        "claims": [
            {
                "text": "t",
                "model": "small",
                "than": "given",
                "threat": "clean",
                "published": [0.5, 0.4],
                "control": "spiking",
            }
        ],
    },
}
CARD_VALUES = st.one_of(
    TOML,
    ODDLY_WRITTEN,
    st.sampled_from([name for card in CARDS for name in (card, card.split("/")[1], "../" + card)]),
    st.sampled_from([name for kind in plugins.KINDS for name in plugins.BUILT_IN[kind]]),
    st.sampled_from(["./net.py:make", "./net.py:number", "builtins:int", "sys:exit", "math:pi"]),
)
A_CARD = r"(models|attacks|corruptions|reports)/"
"""What errors about cards name: the file of one."""


MAY_APPEAR = ("work/.robench", "work/models/__pycache__", "home/.art")
"""The store, what Python compiles, and what the library ART notes when it is imported."""


@pytest.fixture
def workspace(alone: Path) -> Iterator[Workspace]:
    """A workspace with a card of every kind, and files of code and weights beside them; what lies
    around it stays as it was."""
    root = alone / "work"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "models/net.py").write_text(FACTORY)
    weights = {"1.weight": (20, 64), "1.bias": (20,), "3.weight": (10, 20), "3.bias": (10,)}
    tensors = {name: torch.zeros(shape) for name, shape in weights.items()}
    safetensors.torch.save_file(tensors, root / "models/net.safetensors")
    write_cards(root)
    before = snapshot(alone, *MAY_APPEAR)
    yield open_workspace(root)
    write_cards(root)
    assert snapshot(alone, *MAY_APPEAR) == before


def write_cards(root: Path) -> None:
    for name, card in CARDS.items():
        (root / f"{name}.toml").write_text(card_text(card))


def looked_at(workspace: Workspace, report: str = "all") -> Run:
    """All that is done with cards before the work starts."""
    for folder in FOLDERS:
        for name in workspace.names(folder):
            check._card(workspace, folder, name)
    run = open_run(make_plan(workspace, report), Store(workspace.root / ".robench"), "cpu")
    survey(run)
    run.weights = {training: training.label for training in run.plan.trainings}  # as if trained
    for cell in run.plan.cells:
        run.identify(cell)
    return run


def test_the_cards_as_they_are_can_be_planned(workspace: Workspace) -> None:
    assert len(looked_at(workspace).plan.cells) > 20


A_FILE = st.sampled_from(sorted(CARDS))


@given(name=A_FILE, how=HOW, where=st.integers(0, 2**20), value=st.integers(0, 255))
def test_a_damaged_card_is_read_or_named(
    workspace: Workspace, name: str, how: str, where: int, value: int
) -> None:
    write_cards(workspace.root)
    file = workspace.root / f"{name}.toml"
    file.write_bytes(damage(file.read_bytes(), how, where, value))
    works_or_says(lambda: looked_at(workspace), A_CARD)


@given(data=st.data(), name=A_FILE)
def test_a_card_with_other_keys_and_values_is_read_or_named(
    workspace: Workspace, data: st.DataObject, name: str
) -> None:
    write_cards(workspace.root)
    card = data.draw(changed(CARDS[name], CARD_VALUES))
    (workspace.root / f"{name}.toml").write_text(card_text(card), encoding="utf-8")
    works_or_says(lambda: looked_at(workspace), A_CARD)


@given(name=A_FILE, content=st.one_of(st.binary(max_size=50), st.text(max_size=50)))
def test_any_content_of_a_card_is_read_or_named(
    workspace: Workspace, name: str, content: bytes | str
) -> None:
    write_cards(workspace.root)
    written = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    (workspace.root / f"{name}.toml").write_bytes(written)
    works_or_says(lambda: looked_at(workspace), A_CARD)


KEYS = {"networks": "network", "trainers": "trainer", "datasets": "dataset"}


@given(data=st.data())
def test_any_setting_of_any_plugin_is_taken_or_named(
    workspace: Workspace, data: st.DataObject
) -> None:
    write_cards(workspace.root)
    kind = data.draw(st.sampled_from(plugins.KINDS))
    plugin = data.draw(st.sampled_from(sorted(plugins.BUILT_IN[kind])))
    fields = sorted(plugins.load(kind, plugin).fields().model_fields)
    keys = st.one_of(st.sampled_from(fields), TEXTS) if fields else TEXTS
    spec = {"name": plugin, **data.draw(st.dictionaries(keys, CARD_VALUES, max_size=3))}
    name = {"attacks": "attacks/near", "corruptions": "corruptions/noisy"}.get(kind, "models/small")
    card = {**CARDS[name], check.SPECS[kind]: spec}
    (workspace.root / f"{name}.toml").write_text(card_text(card), encoding="utf-8")
    works_or_says(lambda: looked_at(workspace), A_CARD)


# -- names -----------------------------------------------------------------------------------------

NASTY = (
    *("../secret", "../../secret", "a/../../../secret", "./../../secret", "OUTSIDE/secret"),
    *("/etc/passwd", "out/secret", "linked", "loop", "loop/loop", "~", "~/secret", "~nobody/x"),
    *(".", "..", "", "/", "//", "a//b", "a/", ".hidden", "a\0b", "a\nb", "a\\b", "..\\secret"),
    *("con", "nul.toml", "COM1", " a ", "x" * 300, "x" * 5000, "a/" * 3000, "\udcff", "\ud800"),
    *("\u202eabc", "*", "?", "[a", "**", "-", "--help", "small.toml", "models/small", "memory://x"),
)
ANY_NAME = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(), max_size=20),
    st.text("./\\~ab\0", max_size=12),
    st.sampled_from(NASTY).map(lambda name: f"{name}.toml"),
)
SECRET = "import pathlib\npathlib.Path('ran').touch()\nclass Thing: pass\ndef make(): pass\n"


@pytest.fixture
def surrounded(workspace: Workspace, alone: Path) -> Iterator[Workspace]:
    """The workspace, with files beside it that it may not reach, and links to them within."""
    net = (workspace.root / "models/net.safetensors").read_bytes()
    for folder in (alone, alone / "home", alone / "here", alone / "data"):
        for suffix, content in (("toml", b""), ("py", SECRET.encode()), ("safetensors", net)):
            (folder / f"secret.{suffix}").write_bytes(content)
    for folder in FOLDERS:
        (workspace.root / folder / "out").symlink_to(alone)
        (workspace.root / folder / "loop").symlink_to("loop")
        for suffix in ("toml", "py", "safetensors"):
            (workspace.root / f"{folder}/linked.{suffix}").symlink_to(alone / f"secret.{suffix}")
    before = snapshot(alone, "work", *MAY_APPEAR)
    yield workspace
    assert snapshot(alone, "work", *MAY_APPEAR) == before
    for folder in FOLDERS:
        for link in (workspace.root / folder).iterdir():
            if link.is_symlink():
                link.unlink()
    for folder in (alone, alone / "home", alone / "here", alone / "data"):
        for suffix in ("toml", "py", "safetensors"):
            (folder / f"secret.{suffix}").unlink()


def left_alone(workspace: Workspace) -> None:
    """Nothing beside the workspace was opened since the watch began, and nothing in it changed."""
    around, root = workspace.root.parent, workspace.root
    touched = [Path(path).resolve() for path in (*watch.read, *watch.written)]
    assert not [p for p in touched if p.is_relative_to(around) and not p.is_relative_to(root)]
    expected = {"__pycache__", ".robench", "proc"}  # proc: where the peak of memory is asked for
    assert not [path for path in map(Path, watch.written) if not expected & {*path.parts}]


def by_name(workspace: Workspace, name: str) -> list[Callable[[], Any]]:
    """All that looks a card or a report up by a name that a user types."""
    store = Store(workspace.root / ".robench")
    return [
        lambda: make_plan(workspace, name),
        lambda: make_plan(workspace, "all", [name]),
        lambda: find_results(workspace, store, name),
        lambda: list(verify(workspace, name, store, 1)),
        lambda: list(listing.details(workspace, name)),
        lambda: list(check.check(workspace, name)),
        lambda: open_workspace(Path(name)),
        *(lambda folder=folder: workspace.card(folder, name) for folder in FOLDERS),
    ]


@given(data=st.data(), name=ANY_NAME)
def test_no_name_that_is_typed_leads_out_of_the_workspace(
    surrounded: Workspace, data: st.DataObject, name: str
) -> None:
    name = name.replace("OUTSIDE", str(surrounded.root.parent))
    act = data.draw(st.sampled_from(by_name(surrounded, name)))
    with watch():
        works_or_says(act)
    left_alone(surrounded)


@given(data=st.data(), name=ANY_NAME)
def test_no_name_in_a_card_leads_out_of_the_workspace(
    surrounded: Workspace, data: st.DataObject, name: str
) -> None:
    write_cards(surrounded.root)
    name = name.replace("OUTSIDE", str(surrounded.root.parent))
    name = name.encode(errors="replace").decode()  # TOML has no other
    card, change = data.draw(
        st.sampled_from(
            [
                *(("reports/all", {key: [name]}) for key in LISTS),
                ("attacks/moved", {"surrogate": name}),
                *(("models/small", {key: name}) for key in KEYS.values()),
                *(("models/small", {key: f"{name}.py:Thing"}) for key in KEYS.values()),
                ("attacks/near", {"attack": f"./{name}.py:Thing"}),
                ("corruptions/noisy", {"corruption": f"{name}:Thing"}),
                ("models/given", {"network": {"name": "module", "factory": f"{name}.py:make"}}),
                ("models/given", {"network": {"name": "module", "factory": f"{name}:make"}}),
                ("models/given", {"trainer": {"name": "given", "weights": f"{name}"}}),
                ("models/given", {"trainer": {"name": "given", "weights": f"{name}.safetensors"}}),
                (
                    "corruptions/noisy",
                    {"corruption": {"name": "given", "kinds": ["a"], "path": name}},
                ),
                (
                    "corruptions/noisy",
                    {"corruption": {"name": "given", "kinds": [name], "path": "C"}},
                ),
            ]
        )
    )
    (surrounded.root / f"{card}.toml").write_text(card_text({**CARDS[card], **change}))
    with watch():
        works_or_says(lambda: looked_at(surrounded), A_CARD)
    whole_path = "weights" in str(change) and Path(name).is_absolute()
    if not whole_path:  # the one thing that a card may name from anywhere
        left_alone(surrounded)


LISTS = ("models", "attacks", "corruptions", "transfer", "baselines")


@given(kind=st.sampled_from(["model", "attack", "corruption"]), name=ANY_NAME)
def test_what_is_new_lies_in_the_workspace(surrounded: Workspace, kind: str, name: str) -> None:
    made = works_or_says(lambda: new_plugin(surrounded, kind, name), "^new |exists already")
    for path in made or ():
        assert path.resolve().parent in (surrounded.root / f"{kind}s", surrounded.root / "reports")
        path.unlink()


def stays(name: str) -> bool:
    """Whether a folder of this name lies where one stands, as far as that can be seen."""
    return not name.startswith(("/", "~")) and ".." not in Path(name).parts


@given(name=ANY_NAME.filter(stays))
def test_a_new_workspace_is_made_where_its_name_says(alone: Path, name: str) -> None:
    made = works_or_says(lambda: new_workspace(Path(name)))
    assert all(path.resolve().is_relative_to(alone / "here") for path in made or ())


@given(name=ANY_NAME.filter(stays))
def test_a_page_goes_where_it_is_asked_to(alone: Path, name: str) -> None:
    before = snapshot(alone, "here")
    works_or_says(lambda: report._write(Path(name) / "index.html", b""), "cannot be written")
    assert snapshot(alone, "here") == before


# -- data sets -------------------------------------------------------------------------------------

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


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    """`files` and nothing else."""
    shutil.rmtree(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


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


def png_header(width: int, height: int) -> bytes:
    """A picture of any size that holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


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


# -- weights ---------------------------------------------------------------------------------------


def weights_taken(workspace: Workspace, content: bytes) -> None:
    """A card names weights: they are refused, or loaded and answer with numbers."""
    (workspace.root / "models/net.safetensors").write_bytes(content)
    card = workspace.card("models", "given")

    def act() -> None:
        resolve_model(card)
        trainer = plugins.build("trainers", card.trainer, card)
        network = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
        trainer.fit(network, None, torch.Generator(), None)
        with torch.no_grad():
            check_finite("logits", network(torch.zeros(1, 1, 8, 8)))

    works_or_says(act, "weights|models/given.toml|the network answers")


@pytest.fixture
def tensors(workspace: Workspace) -> Iterator[bytes]:
    """The weights of the card `given`, as they should be."""
    file = workspace.root / "models/net.safetensors"
    content = file.read_bytes()
    yield content
    file.write_bytes(content)


@given(data=st.data(), how=HOW, value=st.integers(0, 255))
def test_damaged_weights_are_taken_or_refused(
    workspace: Workspace, tensors: bytes, data: st.DataObject, how: str, value: int
) -> None:
    where = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(tensors))))
    weights_taken(workspace, damage(tensors, how, where, value))


TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)


@given(
    data=st.data(),
    name=st.sampled_from(["1.weight", "1.bias", "3.weight", "3.bias", "4.bias"]),
    fill=NUMBERS.filter(lambda number: abs(number) < 2**60 or number != number),
    kind=st.sampled_from(TYPES),
    shape=st.lists(st.integers(0, 70), max_size=3),
)
def test_weights_of_any_type_shape_and_value_are_taken_or_refused(
    workspace: Workspace,
    tensors: bytes,
    data: st.DataObject,
    name: str,
    fill: Any,
    kind: torch.dtype,
    shape: list[int],
) -> None:  # fmt: skip
    state = safetensors.torch.load(tensors)
    shape = list(state[name].shape) if name in state and data.draw(st.booleans()) else shape
    value = torch.full(shape, float(fill), dtype=torch.float64)
    state[name] = value.to(kind)
    try:
        content = safetensors.torch.save(state)
    except KeyError:  # early releases write no complex numbers
        assume(False)
    weights_taken(workspace, content)


HEADERS = {"1.weight": {"dtype": "F32", "shape": [20, 64], "data_offsets": [0, 5120]}}


@given(header=st.one_of(changed(HEADERS, JSON), JSON), size=st.none() | st.integers(0, 2**64 - 1))
def test_a_header_of_weights_may_say_anything(
    workspace: Workspace, tensors: bytes, header: Any, size: int | None
) -> None:
    said = json.dumps(header).encode()
    length = len(said) if size is None else size
    weights_taken(workspace, length.to_bytes(8, "little") + said + bytes(5120))


@pytest.mark.parametrize("content", [b"\x80\x02}.", b"PK\x03\x04", gzip.compress(b"x"), b""])
def test_weights_that_are_something_else_are_refused_saying_why(
    workspace: Workspace, tensors: bytes, content: bytes
) -> None:
    (workspace.root / "models/net.safetensors").write_bytes(content)
    card = workspace.card("models", "given")
    why = r"net.safetensors': is (a pickle, and reading one runs the code|not a safetensors file)"
    assert works_or_says(lambda: resolve_model(card), why) is None


# -- corrupted sets --------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[Callable[[Path], Any], Given, int]] = {
    "npy": (cifar_c, Given(path="C", kinds=["fog"]), 3),
    "folders": (tiny_c, Given(path="T", kinds=["fog"], layout="folders"), 2),
}


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    made = {}
    for name, (build, *_) in LAYOUTS.items():
        folder = tmp_path_factory.mktemp("corrupted")
        build(folder)
        made[name] = files_in(folder)
    return made


def given_taken(layout: str) -> None:
    _, corruption, severity = LAYOUTS[layout]
    part = works_or_says(lambda: corruption.given("fog", severity, 1, 4), "C|T")
    if part is not None:
        assert part.images.dtype == np.float32
        assert part.images.shape[0] == 3 == len(part.labels)
        assert ((part.images >= 0) & (part.images <= 1)).all()
        assert part.labels.dtype == np.int64
    works_or_says(lambda: corruption.origin("fog", severity, 1, 4), "C|T")


@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), how=HOW, value=st.integers(0, 255))
def test_a_damaged_corrupted_set_is_read_or_named(
    alone: Path, corrupted: Any, data: st.DataObject, layout: str, how: str, value: int
) -> None:
    files = dict(corrupted[layout])
    file = data.draw(st.sampled_from(sorted(files)))
    where = data.draw(st.one_of(st.integers(0, 130), st.integers(0, len(files[file]))))
    put(alone / "data", {**files, file: damage(files[file], how, where, value)})
    given_taken(layout)


DTYPES = st.sampled_from(
    ["|u1", "<i8", "<f4", "|O", "|S3", "<M8[s]", "|V0", ">c16", "x", "<U99999999"]
)


@given(
    file=st.sampled_from(["C/fog.npy", "C/labels.npy"]),
    dtype=st.one_of(DTYPES, TEXTS),
    shape=st.one_of(
        st.sampled_from(
            ["(20, 32, 32, 3)", "(4,)", "(0, 32, 32, 3)", "(2**62, 2**62)", "()", "None"]
        ),
        st.tuples(st.integers(-2, 2**70), st.integers(0, 40)).map(repr),
        TEXTS,
    ),
    body=st.one_of(st.binary(max_size=20), st.integers(0, 70_000).map(bytes)),
)
def test_an_npy_header_may_say_anything(
    alone: Path, corrupted: Any, file: str, dtype: str, shape: str, body: bytes
) -> None:
    said = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said) % 2**16)
    put(alone / "data", {**corrupted["npy"], file: start + said + body})
    given_taken("npy")


@pytest.mark.parametrize("side", [13_000, 10**5])
def test_a_picture_of_a_corrupted_set_that_is_a_bomb_is_refused(
    alone: Path, corrupted: Any, side: int
) -> None:
    bomb = png_header(side, side)
    put(alone / "data", dict.fromkeys(corrupted["folders"], bomb))
    corruption = LAYOUTS["folders"][1]
    assert works_or_says(lambda: corruption.given("fog", 2, 0, 2), r"val_\d.png") is None


# -- published reports -----------------------------------------------------------------------------

MARK = "<script>alert(1)</script><img src=x onerror=alert(1)>"
PAGE_VALUES = st.one_of(JSON, st.just(MARK), st.sampled_from(["clean", "done", "attack", "curve"]))


@pytest.fixture(scope="module")
def page() -> Results:
    """A report with all that a page may show, of few images."""
    threats = [
        clean_threat(),
        attack_threat("fgsm", 0.1, 0.3),
        attack_threat("random-sign", 0.1, 0.1, role="floor"),
        attack_threat("curve@0.1", 0.1, 0.3, role="curve"),
        attack_threat("curve@0.2", 0.2, 0.5, role="curve"),
        attack_threat("moved", 0.1, 0.2, access="transfer", surrogate="a/one"),
        corruption_threat("fog", 1, 0.1),
        corruption_threat("fog", 2, 0.2),
    ]
    models = [
        SyntheticModel("a/one", published={"clean": 0.9}, failed=((0, "moved"),)),
        SyntheticModel("a/two", trainer="nit", network="snn", noisy=True, seeds=(0, 1)),
    ]
    claim = {"text": "t", "model": "a/one", "than": "a/two", "threat": "fgsm", "control": None}
    claims = [{**claim, "published": [0.8, 0.4], "strong": "worst case"}]
    return Synthetic(models, threats, images=12, claims=claims, baselines=["a/two"]).results()


@pytest.fixture(scope="module")
def published(page: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The two files that a page is made of, and what is beside them."""
    return files_in(write_report(page, tmp_path_factory.mktemp("published")).parent)


def rebuilt(alone: Path, files: dict[str, bytes]) -> None:
    """The folder is read and its page built: one error, or a page on which no text is code."""
    put(alone / "data", files)
    made = works_or_says(
        lambda: write_report(load_published(alone / "data"), alone / "made"), "/data|/made"
    )
    if made is not None:
        outline = Outline(made.read_text())
        assert outline.tags.count("script") == 2
        assert outline.handlers == []
        assert not [link for link in outline.links if link.startswith("javascript")]
        shutil.rmtree(alone / "made")


def test_the_report_as_it_is_can_be_rebuilt(alone: Path, published: dict[str, bytes]) -> None:
    put(alone / "data", published)
    made = write_report(load_published(alone / "data"), alone / "made")
    assert made.read_bytes() == published["index.html"]


@given(
    name=st.sampled_from(["manifest.json", "cells.parquet"]),
    how=HOW,
    data=st.data(),
    value=st.integers(0, 255),
)
def test_a_damaged_report_is_rebuilt_or_named(
    alone: Path, published: dict[str, bytes], name: str, how: str, data: st.DataObject, value: int
) -> None:
    size = len(published[name])
    where = data.draw(st.one_of(st.integers(0, size), st.integers(max(0, size - 2000), size)))
    rebuilt(alone, {**published, name: damage(published[name], how, where, value)})


@given(data=st.data())
def test_a_manifest_may_say_anything(
    alone: Path, published: dict[str, bytes], data: st.DataObject
) -> None:
    manifest = data.draw(changed(json.loads(published["manifest.json"]), PAGE_VALUES))
    rebuilt(alone, {**published, "manifest.json": json.dumps(manifest).encode()})


@given(manifest=JSON)
def test_a_manifest_that_is_something_else_is_named(
    alone: Path, published: dict[str, bytes], manifest: Any
) -> None:
    rebuilt(alone, {**published, "manifest.json": json.dumps(manifest).encode()})


@settings(max_examples=settings.default.max_examples // 3)  # most are drawn, a page each
@given(data=st.data())
def test_rows_may_hold_anything(
    alone: Path, published: dict[str, bytes], data: st.DataObject
) -> None:
    table = pq.read_table(pa.BufferReader(published["cells.parquet"]))
    for _ in range(data.draw(st.integers(1, 2))):
        table = data.draw(with_other_column(table))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    rebuilt(alone, {**published, "cells.parquet": sink.getvalue().to_pybytes()})


@st.composite
def with_other_column(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """A column is dropped, or holds something else in all or in some of its rows."""
    name = draw(st.sampled_from(table.column_names))
    place, rows = table.column_names.index(name), len(table)
    match draw(st.sampled_from(["dropped", "nulls", "other", "some", "cut"])):
        case "dropped":
            return table.drop_columns([name])
        case "nulls":
            return table.set_column(place, name, pa.nulls(rows, table.schema.field(name).type))
        case "other":
            other = draw(
                st.sampled_from([0, -1, 2**40, 0.5, float("nan"), "x", b"x", [1], [], None])
            )
            return table.set_column(place, name, pa.array([other] * rows))
        case "some":
            values = table.column(name).to_pylist()
            values[draw(st.integers(0, rows - 1))] = draw(
                st.sampled_from(
                    [None, values[-1], [] if isinstance(values[0], list) else values[0]]
                )
            )
            return table.set_column(place, name, pa.array(values, table.schema.field(name).type))
        case _:
            return table.slice(draw(st.integers(0, rows)), draw(st.integers(0, rows)))
