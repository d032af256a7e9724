"""Nothing stale: an identity covers the code and the files that a plugin can reach."""

from __future__ import annotations

import importlib
import linecache
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import data_files
import numpy as np
import pytest
import safetensors.numpy
import torch
from small_runs import Ears, carry_out

import robench
from robench.data.digits import Digits
from robench.data.mnist import MNIST, FashionMNIST, _content
from robench.errors import RobenchError
from robench.make import provenance
from robench.make.describe import describe
from robench.make.identity import resolve_model, threat_fields
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.networks.modules.answers import named_by_answers, questions
from robench.networks.modules.handed import handed_over
from robench.plugin_code import loading, reach
from robench.plugin_code.reach import code_of
from robench.show.report.folder import write_report
from robench.show.results import load_results
from robench.store.store import Store
from robench.workspace.folders import FOLDERS, Workspace, open_workspace
from robench.workspace.plan import make_plan

MODEL = """
dataset = "digits"
network = {{ name = "{network}", hidden = [16] }}
trainer = {{ name = "{trainer}", epochs = 1, lr = 1e-2 }}
"""
REPORT = """
title = "t"
models = ["small"]
attacks = ["fgsm"]
images = 20
diagnostics = false
"""
TRAINER = """
import torch
from robench.trainers.bp import BP

class Own(BP):
    def loss(self, network, x, y, rng):
        return super().loss(network, x, y, rng) * SIGMA
"""


@pytest.mark.parametrize(("readout", "lends"), [("last", False), ("rate", True)])
def test_what_a_network_lends_to_gradients_is_in_its_identity(
    write: Any, tmp_path: Path, readout: str, lends: bool
) -> None:
    spec = MODEL.format(network="snn", trainer="stbp").replace(
        "[16]", f'[16], readout = "{readout}"'
    )
    write("models/small.toml", spec)
    resolved = resolve_model(open_workspace(tmp_path).card("models", "small"))
    assert ("lends" in resolved.fields["network"]) == lends


@pytest.fixture
def put(tmp_path: Path) -> Callable[[dict[str, str]], Workspace]:
    """A workspace with a model trained by ./own.py:Own, and files beside its card."""

    def make(files: dict[str, str]) -> Workspace:
        for folder in FOLDERS:
            (tmp_path / folder).mkdir(exist_ok=True)
        standing = {
            "models/small.toml": MODEL.format(network="mlp", trainer="./own.py:Own"),
            "reports/small.toml": REPORT,
        }
        for name, text in {**standing, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return open_workspace(tmp_path)

    return make


def digest(workspace: Workspace) -> str:
    return resolve_model(workspace.card("models", "small")).digest(0)


WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "the file itself": ("SIGMA = 1.0" + TRAINER, {"models/own.py": "SIGMA = 2.0" + TRAINER}),
    "a relative import": (
        "from .helpers import SIGMA" + TRAINER,
        {"models/helpers.py": "SIGMA = 2.0"},
    ),
    "a module imported from its package": (
        "from . import helpers" + TRAINER.replace("SIGMA", "helpers.SIGMA"),
        {"models/helpers.py": "SIGMA = 2.0"},
    ),
    "a helper's helper": (
        "from .other import SIGMA" + TRAINER,
        {"models/helpers.py": "SIGMA = 2.0"},
    ),
    "a folder of helpers": (
        "from .parts.deep import SIGMA" + TRAINER,
        {"models/parts/deep.py": "SIGMA = 2.0"},
    ),
    "the __init__ of a folder": (
        "from .parts import ONE as SIGMA" + TRAINER,
        {"models/parts/__init__.py": "ONE = 2.0"},
    ),
    "a helper in another folder": (
        "from ..attacks.helpers import SIGMA" + TRAINER,
        {"attacks/helpers.py": "SIGMA = 2.0"},
    ),
    "sys.path": (
        "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\n"
        "from helpers_on_path import SIGMA" + TRAINER,
        {"models/helpers_on_path.py": "SIGMA = 2.0"},
    ),
    "an import inside a function": (
        TRAINER.replace("        return", "        from .helpers import SIGMA\n        return"),
        {"models/helpers.py": "SIGMA = 2.0"},
    ),
    "import_module": (
        "import importlib\nSIGMA = importlib.import_module('.helpers', __package__).SIGMA"
        + TRAINER,
        {"models/helpers.py": "SIGMA = 2.0"},
    ),
    "a base class in a sibling file": (
        "from .base import Base\nclass Own(Base): pass",
        {"models/base.py": ("SIGMA = 2.0" + TRAINER).replace("Own", "Base")},
    ),
    "a class that is re-exported from a sibling": (
        "from .base import Base as Own",
        {"models/base.py": ("SIGMA = 2.0" + TRAINER).replace("Own", "Base")},
    ),
    "a data file that it names": (
        "import pathlib\nSIGMA = float((pathlib.Path(__file__).parent / 'sigma.txt').read_text())"
        + TRAINER
        + "    files = ['sigma.txt']\n",
        {"models/sigma.txt": "2.0"},
    ),
    "a data file that its base names": (
        "from .named import Base\nclass Own(Base): pass",
        {"models/sigma.txt": "2.0"},
    ),
}
"""How code reaches what determines numbers, and the files that then change."""
BESIDE = {
    "models/helpers.py": "SIGMA = 1.0",
    "models/other.py": "from .helpers import SIGMA",
    "models/parts/__init__.py": "ONE = 1.0",
    "models/parts/deep.py": "SIGMA = 1.0",
    "models/helpers_on_path.py": "SIGMA = 1.0",
    "attacks/helpers.py": "SIGMA = 1.0",
    "models/base.py": ("SIGMA = 1.0" + TRAINER).replace("Own", "Base"),
    "models/sigma.txt": "1.0",
    "models/named.py": (
        "import pathlib\nSIGMA = float((pathlib.Path(__file__).parent / 'sigma.txt').read_text())"
        + TRAINER.replace("Own", "Base")
        + "    files = ['sigma.txt']\n"
    ),
    "models/bystander.py": "SIGMA = 7.0",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_code_reaches_is_part_of_its_identity(
    put: Callable[[dict[str, str]], Workspace], way: str
) -> None:
    code, changed = WAYS[way]
    before = digest(put({"models/own.py": code, **BESIDE}))
    assert digest(put({"models/bystander.py": "SIGMA = 8.0"})) == before, "nobody imports it"
    assert digest(put(changed)) != before


@pytest.mark.parametrize("way", ["a relative import", "sys.path", "a base class in a sibling file"])
def test_changed_helpers_are_run_anew(put: Callable[[dict[str, str]], Workspace], way: str) -> None:
    code, changed = WAYS[way]
    run, _ = carry_out(put({"models/own.py": code, **BESIDE}))
    again, ears = carry_out(put(changed))
    assert ears.kept == 0
    assert list(run.weights.values()) != list(again.weights.values()), "the new code was run"


def test_a_file_that_reaches_nothing_else_counts_by_its_bytes(tmp_path: Path) -> None:
    from robench.digest import digest_bytes

    alone = tmp_path / "alone.py"
    alone.write_text("import os, torch\nfrom robench import Trainer\n")
    assert code_of(alone, tmp_path).digest == digest_bytes(alone.read_bytes())


# -- what is not in the workspace ------------------------------------------------------------------


def library(place: Path, version: str = "1.0", body: str = "SIGMA = 1.0") -> None:
    """An installed distribution `oddlib`, where packages are installed."""
    (place / "oddlib").mkdir(parents=True, exist_ok=True)
    (place / "oddlib/__init__.py").write_text(body + TRAINER)
    for old in place.glob("oddlib-*"):
        (old / "METADATA").unlink()
        old.rmdir()
    info = place / f"oddlib-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: oddlib\nVersion: {version}\n")


def as_if_anew(place: Path) -> None:
    """Forget all that this process knows of the library, as a new one would."""
    for path in [path for path in loading._read if path.is_relative_to(place)]:
        del loading._read[path], loading._signatures[path]
    for name in [name for name in sys.modules if name.startswith(("oddlib", "robench_workspace."))]:
        del sys.modules[name]
    reach._imports.cache_clear()
    reach.distribution.cache_clear()
    importlib.invalidate_caches()


REACHED = {
    "a class of a library, re-exported": "from oddlib import Own",
    "a base class of a library": "import oddlib\nclass Own(oddlib.Own): pass",
    "a number of a library": "from oddlib import SIGMA" + TRAINER,
}


@pytest.mark.parametrize("what", REACHED)
def test_an_installed_library_counts_by_its_version(
    put: Callable[[dict[str, str]], Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    place = tmp_path / "env/site-packages"
    library(place)
    workspace = put({"models/own.py": REACHED[what]})
    monkeypatch.syspath_prepend(place)
    before = digest(workspace)
    as_if_anew(place)
    assert digest(workspace) == before
    library(place, "1.1")
    as_if_anew(place)
    assert digest(workspace) != before
    as_if_anew(place)


def test_two_builds_that_say_the_same_version_are_told_apart(
    put: Callable[[dict[str, str]], Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "env/site-packages"
    library(place)
    workspace = put({"models/own.py": REACHED["a base class of a library"]})
    monkeypatch.syspath_prepend(place)
    record = place / "oddlib-1.0.dist-info/RECORD"
    found = []
    for code, rest in (("a", "1"), ("a", "2"), ("b", "2")):
        record.write_text(f"oddlib/__init__.py,sha256={code},9\nbin/odd,sha256={rest},9\n")
        as_if_anew(place)
        found.append(digest(workspace))
    as_if_anew(place)
    assert found[0] == found[1], "what an installer writes itself is no code"
    assert found[1] != found[2]


@pytest.mark.parametrize("what", REACHED)
def test_people_s_own_code_elsewhere_counts_by_its_bytes(
    put: Callable[[dict[str, str]], Workspace],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    place = tmp_path_factory.mktemp("editable")
    library(place)
    workspace = put({"models/own.py": REACHED[what]})
    monkeypatch.syspath_prepend(place)
    before = digest(workspace)
    as_if_anew(place)
    assert digest(workspace) == before
    library(place, body="SIGMA = 2.0")
    as_if_anew(place)
    assert digest(workspace) != before
    as_if_anew(place)


BY_COMPILED_CODE = {
    "tensors": (
        "import safetensors.numpy as st\n"
        "SIGMA = float(st.load_file(f'{pathlib.Path(__file__).parent}/s.safetensors')['s'][0])",
        "s.safetensors",
        lambda value: safetensors.numpy.save({"s": np.array([value])}),
    ),
    "a picture": (
        "import cv2\n"
        "SIGMA = float(cv2.imread(str(pathlib.Path(__file__).parent / 's.png')).mean())",
        "s.png",
        lambda value: cv2.imencode(".png", np.full((2, 2, 3), value, np.uint8))[1].tobytes(),
    ),
}
"""What reads a file that no audit hook hears of, its name, and its content."""


@pytest.mark.parametrize("what", BY_COMPILED_CODE)
def test_files_that_compiled_code_opens_count_where_their_names_stand_in_the_code(
    put: Callable[[dict[str, str]], Workspace], what: str
) -> None:
    code, name, content = BY_COMPILED_CODE[what]
    workspace = put({"models/own.py": "import pathlib\n" + code + TRAINER})
    found = []
    for value in (1.0, 1.0, 2.0):
        (workspace.root / "models" / name).write_bytes(content(value))
        found.append(digest(workspace))
    assert found[0] == found[1]
    assert found[1] != found[2]


# -- files that nobody has named -------------------------------------------------------------------

READS: dict[str, tuple[str, str]] = {
    "when it is imported": (
        "import pathlib\nSIGMA = float((pathlib.Path(__file__).parent / 'sigma.txt').read_text())"
        + TRAINER,
        r"models/small.toml: './own.py:Own' reads models/sigma.txt when it is imported",
    ),
    "when it is built": (
        "import pathlib\nSIGMA = 1.0" + TRAINER + "    def __init__(self, **settings):\n"
        "        super().__init__(**settings)\n"
        "        open(pathlib.Path(__file__).parent / 'sigma.txt').close()\n",
        r"'./own.py:Own' \(models/small.toml\), while it is built, reads models/sigma.txt",
    ),
    "when it trains": (
        "import os\nSIGMA = 1.0" + TRAINER + "    def after_step(self, network):\n"
        "        os.close(os.open(os.path.dirname(__file__) + '/sigma.txt', os.O_RDONLY))\n",
        r"'./own.py:Own' \(models/small.toml\) reads models/sigma.txt",
    ),
    "a module by its path": (
        "import importlib.util as find, pathlib\n"
        "helpers = pathlib.Path(__file__).parent / 'helpers.py'\n"
        "odd = find.module_from_spec(spec := find.spec_from_file_location('odd', helpers))\n"
        "spec.loader.exec_module(odd)\nSIGMA = odd.SIGMA" + TRAINER,
        r"'./own.py:Own' reads models/helpers.py when it is imported",
    ),
    "code by exec": (
        "import pathlib\nexec((pathlib.Path(__file__).parent / 'helpers.py').read_text())"
        + TRAINER,
        r"'./own.py:Own' reads models/helpers.py when it is imported",
    ),
}


@pytest.mark.parametrize("when", READS)
def test_reading_a_file_that_no_identity_covers_is_refused(
    put: Callable[[dict[str, str]], Workspace], when: str
) -> None:
    code, said = READS[when]
    workspace = put({"models/own.py": code, **BESIDE})
    with pytest.raises(RobenchError, match=said) as caught:  # at once, or when it runs
        raise RobenchError(carry_out(workspace)[1].failed["train small seed 0"].short)
    assert "files = ['table.npy']" in str(caught.value)


def test_a_look_at_the_lines_of_a_stack_reads_no_file_of_the_plugin_s(tmp_path: Path) -> None:
    """torch.manual_seed does so: whoever stands below in the stack is not what a plugin reads."""
    caller = tmp_path / "caller.py"
    caller.write_text("def call(act):\n    return act()\n")
    loading.watch(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(caller.read_text(), str(caller), "exec"), names)
    linecache.clearcache()
    for act, expected in ((traceback.format_stack, set()), (caller.read_text, {caller})):
        noticed = loading.Noticed()
        noticed.start()
        said = names["call"](act)
        assert noticed.stop() == expected
        assert "return act()" in "".join(said)


# -- edited while a run goes on --------------------------------------------------------------------


class Edits(Ears):
    """Edits a file when the first result is there."""

    def __init__(self, file: Path, text: str) -> None:
        super().__init__()
        self.edit: Callable[[], Any] | None = lambda: file.write_text(text)

    def finished(self, task: Any, failure: Any) -> None:
        super().finished(task, failure)
        if self.edit is not None:
            self.edit()
            self.edit = None


@pytest.mark.rows(1)
@pytest.mark.parametrize("changed", ["models/own.py", "models/helpers.py"])
def test_code_that_is_edited_during_a_run_is_used_as_it_was_hashed(
    put: Callable[[dict[str, str]], Workspace], changed: str
) -> None:
    texts = {
        "models/own.py": "from .helpers import SIGN\nfrom robench.networks.mlp import MLP\n"
        "class Own(MLP):\n    def forward(self, x):\n        return SIGN * super().forward(x)\n",
        "models/helpers.py": "SIGN = 1.0\n",
    }
    files = {**texts, "models/small.toml": MODEL.format(network="./own.py:Own", trainer="bp")}
    other = texts[changed].replace("SIGN *", "-SIGN *").replace("1.0", "-1.0")

    def clean(ears: Ears, root: Path) -> dict[str, float]:
        run = open_run(make_plan(open_workspace(root), "small"), Store(root / ".robench"), "cpu")
        execute(run, ears, 1)
        return {
            cell.threat.name: run.store.read_cell(name).rows["correct"].to_pylist()
            for cell, name in run.digests.items()
            if run.store.has("cells", name)
        }

    workspace = put(files)
    found = clean(Edits(workspace.root / changed, other), workspace.root)
    (workspace.root / changed).write_text(texts[changed])
    (workspace.root / ".robench").rename(workspace.root / "first")
    assert clean(Ears(), workspace.root) == found, "as hashed, not as edited"
    (workspace.root / changed).write_text(other)
    ears = Ears()
    clean(ears, workspace.root)
    assert ears.kept == 0, "what was edited is another model"


def test_a_process_that_reads_other_bytes_refuses(
    put: Callable[[dict[str, str]], Workspace],
) -> None:
    """Workers read the file for themselves: it is edited between planning and the first task."""
    workspace = put({"models/own.py": "SIGMA = 1.0" + TRAINER})
    store = Store(workspace.root / ".robench")
    run, ears = open_run(make_plan(workspace, "small"), store, "cpu"), Ears()
    (workspace.root / "models/own.py").write_text("SIGMA = 2.0" + TRAINER)
    execute(run, ears, 2)
    assert ears.failed["train small seed 0"].short == (
        "trainer './own.py:Own' (models/small.toml): its code or a file that it names is not what "
        "it was when the run began; run again"
    )


def test_a_data_file_that_changes_during_a_run_is_refused(
    put: Callable[[dict[str, str]], Workspace],
) -> None:
    code, _ = WAYS["a data file that it names"]
    workspace = put({"models/own.py": code, "models/sigma.txt": "1.0"})
    store = Store(workspace.root / ".robench")
    run, ears = open_run(make_plan(workspace, "small"), store, "cpu"), Ears()
    with loading.held_still():
        (workspace.root / "models/sigma.txt").write_text("2.0")
        execute(run, ears, 1)
    assert "its code or a file that it names" in ears.failed["train small seed 0"].short


def test_attacks_count_by_what_they_reach(put: Callable[[dict[str, str]], Workspace]) -> None:
    files = {
        "attacks/odd.py": "from .helpers import SIGMA\n"
        "from robench.attacks.noise import Noise as Odd",
        "attacks/odd.toml": 'attack = "./odd.py:Odd"\naccess = "white-box"\neps = 0.1\n',
        "models/small.toml": MODEL.format(network="mlp", trainer="bp"),
        "reports/small.toml": REPORT.replace("fgsm", "odd"),
    }

    def fields(workspace: Workspace) -> Any:
        return [threat_fields(threat) for threat in make_plan(workspace, "small").threats]

    before = fields(put({**files, **BESIDE}))
    assert fields(put({"attacks/helpers.py": "SIGMA = 2.0"})) != before


# -- modules in memory -----------------------------------------------------------------------------

SIGN = 1.0


class Global(torch.nn.Linear):
    """Answers by a global of its file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SIGN * super().forward(x.flatten(1))


class Called(torch.nn.Linear):
    """Answers by a function that it holds, or by that of a class."""

    act: Any = staticmethod(lambda x: x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.act(super().forward(x.flatten(1)))
        return answer


def closing(over: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: over * x


def by_closure(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    module.act = closing(sign)


def by_default(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    module.act = lambda x, sign=sign: sign * x


def by_partial(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    module.act = partial(torch.mul, sign)


def by_hook(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    module.register_forward_hook(lambda m, i, o: sign * o)


def by_pre_hook(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    module.register_forward_pre_hook(lambda m, i: (i[0] if sign > 0 else 1 - i[0],))


def by_global(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "SIGN", sign)


def by_class(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Called, "act", staticmethod(lambda x: sign * x))


def by_gradient(module: torch.nn.Module, sign: float, patch: pytest.MonkeyPatch) -> None:
    """The same answers: only what an attack sees is another."""
    module.register_full_backward_hook(lambda m, given, wanted: (sign * given[0],))


IN_MEMORY = {
    "a closure": (Called, by_closure),
    "a default": (Called, by_default),
    "a partial": (Called, by_partial),
    "a forward hook": (Called, by_hook),
    "a hook before": (Called, by_pre_hook),
    "a global": (Global, by_global),
    "its class": (Called, by_class),
    "a backward hook": (Called, by_gradient),
}


@pytest.mark.parametrize("way", IN_MEMORY)
def test_a_module_in_memory_is_named_by_what_it_answers(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, change = IN_MEMORY[way]
    images, weights = questions(Digits().load()), kind(64, 10).state_dict()

    def named(sign: float) -> str:
        module = kind(64, 10)
        module.load_state_dict(weights)
        change(module, sign, monkeypatch)
        return named_by_answers(handed_over(module)[0], images).text

    assert named(1.0) != named(-1.0)


def test_evaluate_sees_that_a_module_has_changed_in_memory(
    put: Callable[[dict[str, str]], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = 'title = "t"\nmodels = ["digits/mlp-bp"]\nattacks = ["fgsm"]\ndiagnostics = false\n'
    root = put({"models/own.py": "SIGMA = 1.0" + TRAINER, "reports/plain.toml": plain}).root
    asked = {"workspace": root, "report": "plain", "images": 40, "progress": False}
    data = Digits().load().train
    module = Global(64, 10)
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    good = float(robench.evaluate(module, "digits", **asked).to_pandas()["clean"].iloc[0])
    monkeypatch.setattr(sys.modules[__name__], "SIGN", -1.0)
    bad = float(robench.evaluate(module, "digits", **asked).to_pandas()["clean"].iloc[0])
    assert good > 0.8
    assert bad < 0.1


def test_a_worker_in_which_a_module_answers_otherwise_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = questions(Digits().load())
    source = named_by_answers(handed_over(Global(64, 10))[0], images)
    assert isinstance(source.make(), Global)
    elsewhere = pickle.loads(pickle.dumps(source))
    elsewhere.make.sure.clear()  # as in another process
    assert isinstance(elsewhere.make(), Global)
    elsewhere.make.sure.clear()
    monkeypatch.setattr(sys.modules[__name__], "SIGN", -1.0)  # where the file was imported anew
    with pytest.raises(RobenchError, match="answers otherwise in a worker process"):
        elsewhere.make()


# -- data and provenance ---------------------------------------------------------------------------


def test_data_under_the_publisher_s_file_names_that_are_not_the_publisher_s_are_said(
    put: Callable[[dict[str, str]], Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    data_files.mnist(tmp_path / "data")
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path / "data"))
    model = MODEL.format(network="mlp", trainer="bp").replace('"digits"', '"mnist"')
    report = REPORT.replace("images = 20", "images = 5")
    workspace = put({"models/small.toml": model, "reports/small.toml": report})
    run, _ = carry_out(workspace)
    said = "mnist: not the publisher's data: train-images-idx3-ubyte.gz, "
    manifest = describe(run, "")
    assert manifest["models"][0]["notes"][0].startswith(said)
    run.store.write_run("small", manifest)
    page = write_report(load_results(run.store, "small"), tmp_path / "page").read_text()
    assert "mnist: not the publisher&#39;s data: train-images" in page


def test_only_the_file_whose_content_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(10, dtype=np.uint8)
    monkeypatch.setattr(MNIST, "contents", dict.fromkeys(MNIST.contents, _content(labels)))
    arrays = dict.fromkeys(MNIST.contents, labels)
    assert MNIST()._notes(arrays) == ()
    arrays["t10k-labels-idx1-ubyte.gz"] = labels[::-1]
    assert MNIST()._notes(arrays) == ("mnist: not the publisher's data: t10k-labels-idx1-ubyte.gz",)


@pytest.mark.data
def test_the_publisher_s_data_is_taken_for_it() -> None:
    assert MNIST().load().notes == FashionMNIST().load().notes == ()


def test_provenance_has_the_commit_and_whether_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*asked: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *asked],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    package = tmp_path / "robench" / "make"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("one")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    head = git("rev-parse", "--short=12", "HEAD")
    assert provenance.commit.__wrapped__() == {"commit": head, "tree": "as committed"}
    (package / "provenance.py").write_text("two")
    assert provenance.commit.__wrapped__() == {"commit": head, "tree": "changed"}
