"""Isolation: what a plugin does changes nothing that others compute, and fails by its name."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import carry_out, outcomes

import robench
from robench.errors import RobenchError
from robench.plugin_code import guard
from robench.plugin_code.guard import guarded
from robench.workspace.folders import FOLDERS, Workspace, open_workspace

Write = Callable[[str, str], Path]

SETTINGS: dict[str, tuple[str, str]] = {
    "Threads": ("torch.set_num_threads(2)", "the number of torch threads from 1 to 2"),
    "Dtype": ("torch.set_default_dtype(torch.float64)", "torch's default dtype from torch.float32"),
    "Device": ("torch.set_default_device('meta')", "torch's default device"),
    "Autocast": ("torch.autocast('cpu').__enter__()", "autocast"),
    "NoGrad": ("torch.set_grad_enabled(False)", "grad mode from True to False"),
    "Deterministic": ("torch.use_deterministic_algorithms(True)", "torch's flags"),
    "Benchmark": ("torch.backends.cudnn.benchmark = True", "torch's flags"),
    "Precision": ("torch.set_float32_matmul_precision('medium')", "torch's flags"),
    "Parts": ("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", "torch's flags"),
    "Whole": ("torch.backends.fp32_precision = 'tf32'", "torch's flags"),
    "Attention": ("torch.backends.mha.set_fastpath_enabled(False)", "torch's flags"),
    "NoMkldnn": ("torch._C._set_mkldnn_enabled(False)", "torch's flags"),
    "Anomaly": ("torch.set_anomaly_enabled(True)", "torch's anomaly detection"),
    "Denormal": ("torch.set_flush_denormal(True)", "flushing of denormal numbers"),
    "GlobalHook": (
        "torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 0)",
        "hooks on all modules",
    ),
    "Mode": ("Odd().__enter__()", "torch's modes"),
    "Folder": ("os.chdir('/')", "the working folder"),
    "NewVariable": ("os.environ['ODD'] = '1'", "the environment ODD"),
    "NoVariable": ("del os.environ['PATH']", "the environment PATH"),
    "Stderr": ("sys.stderr = None", "standard input, output or error"),
    "Numpy": ("np.seterr(all='raise')", "numpy's handling of errors"),
    "Warnings": ("warnings.simplefilter('error')", "filters of warnings"),
    "Signals": ("signal.signal(signal.SIGALRM, signal.SIG_IGN)", "handlers of signals"),
    "Limits": ("resource.setrlimit(resource.RLIMIT_CPU, (10**6, -1))", "limits of the process"),
    "Umask": ("os.umask(0o777)", "the mask of new files"),
    "Recursion": ("sys.setrecursionlimit(400)", "the recursion limit"),
    "Collection": ("gc.disable()", "garbage collection"),
    "Tracing": ("sys.setprofile(lambda *_: None)", "tracing or profiling"),
}
"""What an attack does to its process, and what its cell's failure names."""
FUNCTIONS: dict[str, tuple[str, str]] = {
    "Relu": ("torch.nn.functional.relu = torch.tanh", "torch.nn.functional.relu"),
    "Argmax": ("torch.Tensor.argmax = lambda s, d: s[:, 0].long()", "torch.Tensor.argmax"),
    "Linear": (
        "torch.nn.Linear.forward = lambda s, x: x",
        "torch.nn.modules.linear.Linear.forward",
    ),
    "Sum": ("np.concatenate = np.stack", "numpy.concatenate"),
    "Open": ("import builtins; builtins.round = abs", "builtins.round"),
    "Clock": ("import time; time.perf_counter = lambda: 0.0", "time.perf_counter"),
    "Rounding": ("scoring.ROUNDING = (9.0, 9.0)", "robench.make.scoring.ROUNDING"),
    "Enforce": ("scoring._enforce = lambda x, *_: x", "robench.make.scoring._enforce"),
    "Project": ("ball.Ball.project = lambda s, a, b: a", "robench.attacks.ball.Ball.project"),
    "Losses": ("losses.LOSSES.clear()", "robench.attacks.losses.LOSSES"),
    "Code": (
        "torch.nn.functional.relu.__code__ = (lambda input, inplace=False: input * 0).__code__",
        "torch.nn.functional.relu",
    ),
    "OwnCode": (
        "ball.Ball.project.__code__ = (lambda self, a, b: a).__code__",
        "robench.attacks.ball.Ball.project",
    ),
    "Wrapped": (
        "scoring.score_slice.__wrapped__.__code__ = (lambda *a, **k: 0).__code__",
        "score_slice",
    ),
    "Defaults": (
        "torch.nn.functional.softmax.__defaults__ = (3, torch.float64)",
        "torch.nn.functional.softmax",
    ),
    "Keywords": (
        "scoring.score_slice.__wrapped__.__kwdefaults__['top_k'] = 9",
        "score_slice",
    ),
    "OtherKeywords": ("scoring.score_slice.__wrapped__.__kwdefaults__ = {}", "score_slice"),
    "Library": ("scipy.ndimage.gaussian_filter = None", "scipy.ndimage.gaussian_filter"),
    "Blur": ("cv2.GaussianBlur = lambda *a, **k: a[0]", "cv2.GaussianBlur"),
    "Method": ("foolbox.attacks.LinfPGD.__call__ = lambda *a: 0", "Attack.__call__"),
    "Tables": ("pyarrow.table = lambda *a, **k: None", "pyarrow.table"),
    "Module": ("sys.modules['foolbox'] = np", "sys.modules['foolbox']"),
    "NoModule": ("del sys.modules['robench.make.scoring']", "sys.modules['robench.make.scoring']"),
    "Finders": ("sys.meta_path.clear()", "sys.meta_path"),
}
"""What it replaces."""
NETWORK: dict[str, tuple[str, str]] = {
    "ZeroesData": ("next(hidden.parameters()).data.zero_()", "layers.0.op.weight"),
    "ZeroesNoGrad": (
        "torch.no_grad()(lambda: [w.zero_() for w in hidden.parameters()])()",
        "layers.0.op.weight",
    ),
    "ZeroesNumpy": ("next(hidden.parameters()).detach().numpy()[:] = 0", "layers.0.op.weight"),
    "Loads": (
        "hidden.load_state_dict({k: v * 0 for k, v in hidden.state_dict().items()})",
        "weight",
    ),
    "Hooks": ("hidden.register_forward_hook(lambda m, i, o: o * 0)", "its layers or hooks"),
    "PreHooks": ("hidden.register_forward_pre_hook(lambda m, i: (i[0] * 0,))", "layers or hooks"),
    "Forward": ("hidden.forward = lambda x: x.flatten(1)[:, :10]", "its layers or hooks"),
    "Class": ("hidden.__class__ = type('Odd', (type(hidden),), {})", "its layers or hooks"),
    "NewLayer": ("hidden.layers[0] = torch.nn.Linear(64, 16)", "its layers or hooks"),
    "NewWeight": (
        "hidden.layers[0].op.weight = torch.nn.Parameter(hidden.layers[0].op.weight * 0)",
        "layers.0.op.weight",
    ),
}
"""What it does to the network that it is shown."""
ATTACKS = {**SETTINGS, **FUNCTIONS, **NETWORK}
HEAD = """
import gc, os, resource, signal, sys, warnings
import cv2
import foolbox
import numpy as np
import pyarrow
import scipy.ndimage
import torch
from torch.overrides import TorchFunctionMode
from robench import Attack
from robench.make import scoring
from robench.attacks import ball, losses

class Odd(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))
"""
ATTACK = """
class {name}(Attack):
    randomised = False
    def perturb(self, target, x, y, rng):
        hidden = target._hidden
        {does}
        return x
"""
CARD = 'attack = "./odd.py:{name}"\naccess = "white-box"\neps = 0.1\n'
MODEL = """
dataset = "digits"
network = {{ name = "{network}", hidden = [16] }}
trainer = {{ name = "{trainer}", epochs = 1, lr = 1e-2 }}
"""
REPORT = """
title = "t"
models = {models}
attacks = {attacks}
corruptions = {corruptions}
images = 20
diagnostics = false
"""
INNOCENT = ("fgsm", "noise")


def workspace(root: Path, files: dict[str, str]) -> Workspace:
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text)
    return open_workspace(root)


def report(
    models: tuple[str, ...] = ("small",),
    attacks: tuple[str, ...] = INNOCENT,
    corruptions: tuple[str, ...] = (),
) -> str:
    return REPORT.format(models=[*models], attacks=[*attacks], corruptions=[*corruptions])


SMALL = MODEL.format(network="mlp", trainer="bp")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of what the small model and the innocent threats give with nobody beside them."""
    files = {"models/small.toml": SMALL, "reports/small.toml": report()}
    return outcomes(carry_out(workspace(tmp_path_factory.mktemp("alone"), files))[0])


# -- attacks ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """One run, in one process, of all odd attacks and then the innocent ones: why cells failed, and
    digests of those that did not."""
    code = HEAD + "".join(
        ATTACK.format(name=name, does=does) for name, (does, _) in ATTACKS.items()
    )
    files = {
        "models/small.toml": SMALL,
        "attacks/odd.py": code,
        "reports/small.toml": report(attacks=(*map(str.lower, ATTACKS), *INNOCENT)),
        **{f"attacks/{name.lower()}.toml": CARD.format(name=name) for name in ATTACKS},
    }
    run, ears = carry_out(workspace(tmp_path_factory.mktemp("odd"), files))
    done = {
        cell.label: run.store.read_cell(name).digest
        for cell, name in run.digests.items()
        if run.store.has("cells", name)
    }
    return {label: failure.short for label, failure in ears.failed.items()}, done


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_changes_what_is_not_its_own_fails_by_name(
    attacked: tuple[dict[str, str], dict[str, str]], name: str
) -> None:
    said = attacked[0][f"small seed 0 x {name.lower()}"]
    assert said.startswith(f"attack './odd.py:{name}' (attacks/{name.lower()}.toml) "), said
    assert ATTACKS[name][1] in said


def test_what_comes_after_such_attacks_is_as_without_them(
    attacked: tuple[dict[str, str], dict[str, str]], alone: dict[str, str]
) -> None:
    assert attacked[1] == alone


def test_an_attack_that_widens_its_ball_is_held_to_the_one_that_its_card_says(
    tmp_path: Path,
) -> None:
    does = "vars(target.ball).update(eps=1.0, norm='none'); x = target.project(1 - x, x)"
    files = {
        "models/small.toml": SMALL,
        "attacks/odd.py": HEAD + ATTACK.format(name="Wide", does=does),
        "attacks/wide.toml": CARD.format(name="Wide"),
        "reports/small.toml": report(attacks=("wide",)),
    }
    _, ears = carry_out(workspace(tmp_path / "w", files))
    assert "left its linf ball" in ears.failed["small seed 0 x wide"].short


def test_global_random_states_are_a_cells_own_and_put_back() -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    wanted = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    drawn = []
    for _ in range(2):
        with guarded("it", 7):
            drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn[0] == drawn[1], "what is drawn depends on the cell, not on what came before"
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == wanted


def test_a_watch_within_another_leaves_what_is_replaced_to_the_outer_one() -> None:
    before = torch.relu

    def meddle() -> None:
        with guarded("inner"):
            torch.relu = torch.tanh
        assert torch.relu is torch.tanh

    for outer in ("one", "another"):
        with pytest.raises(RobenchError, match=rf"{outer} replaces torch\.relu"), guarded(outer):
            meddle()
        assert torch.relu is before


def test_closed_streams_are_opened_again() -> None:
    code = """
        import os, sys, torch
        from robench.plugin_code.guard import guarded
        for act in ("os.close(2)", "sys.stderr.close()", "os.dup2(0, 2)"):
            try:
                with guarded("it"):
                    exec(act)
            except Exception as error:
                print("still here:", error, file=sys.stderr, flush=True)
        os.write(2, b"to the end")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True, check=True
    )
    assert done.stderr.count("still here: it changes standard input, output or error") == 3
    assert done.stderr.endswith("to the end")


def test_importing_a_library_may_add_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_library.py").write_text("import os; os.environ['ODD'] = '1'")
    monkeypatch.syspath_prepend(tmp_path)
    with guarded("it"):
        import odd_library  # noqa: F401 (it is for what it does)
    assert "ODD" not in os.environ


# -- networks --------------------------------------------------------------------------------------

NETWORKS = """
import torch
from robench.networks.mlp import MLP

class Subtracts(MLP):
    def forward(self, x):
        return super().forward(x.sub_(.5) if len(x) == 20 else x)

class Data(MLP):
    def forward(self, x):
        if len(x) == 20:
            x.data.mul_(0)
        return super().forward(x)

class NumpyView(MLP):
    def forward(self, x):
        if len(x) == 20 and not x.requires_grad:
            x.numpy()[:] = 0
        return super().forward(x)

class Threads(MLP):
    def forward(self, x):
        if len(x) == 20:
            torch.set_num_threads(2)
        return super().forward(x)

class Learns(MLP):
    def forward(self, x):
        if len(x) == 20:
            with torch.no_grad():
                self.layers[0].op.weight.mul_(.9)
        return super().forward(x)

class Counts(MLP):
    calls = 0
    def forward(self, x):
        self.calls += len(x) == 20
        logits = super().forward(x)
        return logits * (-1) ** (self.calls > 6)
"""
IN_PLACE = ("Subtracts", "Data", "NumpyView")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """Why cells of odd networks failed, and the digests of all others: the odd ones come first."""
    names = ("Subtracts", "Data", "NumpyView", "Threads", "Learns")
    files = {
        "models/odd.py": NETWORKS,
        "models/small.toml": SMALL,
        **{
            f"models/a-{name.lower()}.toml": MODEL.format(network=f"./odd.py:{name}", trainer="bp")
            for name in names
        },
        "reports/small.toml": report(models=(*(f"a-{n.lower()}" for n in names), "small")),
    }
    run, ears = carry_out(workspace(tmp_path_factory.mktemp("networks"), files))
    done = {
        cell.label: run.store.read_cell(name).digest
        for cell, name in run.digests.items()
        if run.store.has("cells", name)
    }
    return {label: failure.short for label, failure in ears.failed.items()}, done


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("threat", ["clean", "noise"])
def test_a_network_that_changes_its_input_in_place_is_refused(
    networks: tuple[dict[str, str], dict[str, str]], name: str, threat: str
) -> None:
    said = networks[0][f"a-{name.lower()} seed 0 x {threat}"]
    assert said == (
        f"network './odd.py:{name}' (models/a-{name.lower()}.toml) changes its input in place: "
        "x = x.clone() first"
    )


@pytest.mark.parametrize(
    ("name", "what"), [("threads", "the number of torch threads"), ("learns", "op.weight")]
)
def test_a_network_that_changes_the_process_or_itself_is_refused(
    networks: tuple[dict[str, str], dict[str, str]], name: str, what: str
) -> None:
    for threat in ("clean", *INNOCENT):
        assert what in networks[0][f"a-{name} seed 0 x {threat}"]


def test_what_comes_after_such_networks_is_as_without_them(
    networks: tuple[dict[str, str], dict[str, str]], alone: dict[str, str]
) -> None:
    assert networks[1] == alone


def test_what_a_network_remembers_of_a_cell_is_gone_in_the_next(tmp_path: Path) -> None:
    """Else numbers would depend on the order of cells, and so on --jobs."""
    files = {
        "models/odd.py": NETWORKS,
        "models/small.toml": MODEL.format(network="./odd.py:Counts", trainer="bp"),
        "reports/small.toml": report(),
    }
    whole = outcomes(carry_out(workspace(tmp_path / "whole", files))[0])
    for threat in INNOCENT:
        part = workspace(
            tmp_path / threat, {**files, "reports/small.toml": report((*("small",),), (threat,))}
        )
        assert outcomes(carry_out(part, only=(threat,))[0]).items() <= whole.items()


# -- corruptions -----------------------------------------------------------------------------------

CORRUPTIONS = """
import torch
from robench import Corruption

class Darkens(Corruption):
    kinds = ("dark",)
    def corrupt(self, image, kind, severity, rng):
        image *= 0.5
        return image

class Seeds(Corruption):
    kinds = ("odd",)
    def corrupt(self, image, kind, severity, rng):
        torch.set_default_dtype(torch.float64)
        return image / 2
"""
CORRUPTION = 'corruption = {{ name = "./odd.py:{name}" }}\nseverities = [1]\n'


def test_corruptions_that_write_or_meddle_are_refused_and_leave_the_test_set(
    tmp_path: Path, alone: dict[str, str]
) -> None:
    files = {
        "models/small.toml": SMALL,
        "corruptions/odd.py": CORRUPTIONS,
        "corruptions/darkens.toml": CORRUPTION.format(name="Darkens"),
        "corruptions/seeds.toml": CORRUPTION.format(name="Seeds"),
        "reports/small.toml": report(corruptions=("darkens", "seeds")),
    }
    _, ears = carry_out(workspace(tmp_path / "w", files))
    said = [failure.short for failure in ears.failed.values()]
    assert len(said) == 2
    assert re.search(r"Darkens: dark at severity 1 of image \d+: it writes into the", said[0])
    assert "corruption './odd.py:Seeds' (corruptions/seeds.toml) changes torch's default" in said[1]
    again = outcomes(carry_out(open_workspace(tmp_path / "w"), only=(*INNOCENT, "clean"))[0])
    assert again == alone


# -- trainers --------------------------------------------------------------------------------------

TRAINERS = """
import torch
from robench.trainers.bp import BP

class Writes(BP):
    def fit(self, network, data, rng, progress):
        data.{part}[:] = 0
        return super().fit(network, data, rng, progress)

class Views(BP):
    def fit(self, network, data, rng, progress):
        torch.from_numpy(data.{part}).zero_()
        return super().fit(network, data, rng, progress)
"""
ARRAYS = [
    f"{part}.{what}" for part in ("train", "validation", "test") for what in ("images", "labels")
]


@pytest.mark.rows(4)
@pytest.mark.parametrize("name", ["Writes", "Views"])
@pytest.mark.parametrize("part", ARRAYS)
def test_a_trainer_that_writes_into_the_data_set_is_refused(
    tmp_path: Path, alone: dict[str, str], name: str, part: str
) -> None:
    files = {
        "models/odd.py": TRAINERS.format(part=part),
        "models/a.toml": MODEL.format(network="mlp", trainer=f"./odd.py:{name}"),
        "models/small.toml": SMALL,
        "reports/small.toml": report(models=("a", "small")),
    }
    run, ears = carry_out(workspace(tmp_path / "w", files))
    said = ears.failed["train a seed 0"].short
    assert said == (
        f"trainer './odd.py:{name}' (models/a.toml) writes into the data set: copy what is to be "
        "changed"
    )
    assert outcomes(run) == alone


# -- processes -------------------------------------------------------------------------------------

GROWS = """
import os, sys, threading
import numpy as np
from robench import Attack

HELD = []

class Threads(Attack):
    def perturb(self, target, x, y, rng):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return x

class Files(Attack):
    def perturb(self, target, x, y, rng):
        HELD.extend(open("/dev/null") for _ in range(80))
        return x

class Memory(Attack):
    def perturb(self, target, x, y, rng):
        HELD.append(np.ones(150_000_000))
        return x

class Says(Attack):
    def perturb(self, target, x, y, rng):
        raise ValueError(f"process {os.getpid()}")
"""


@pytest.mark.rows(1)
@pytest.mark.parametrize("name", ["Threads", "Files", "Memory"])
def test_a_process_that_a_plugin_has_grown_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(guard, "worn", None)
    monkeypatch.setattr(guard, "_left", {"memory": 0.0, "files": 0})
    attacks = {"grows": name, "says": "Says"}
    files = {
        "models/small.toml": SMALL,
        "attacks/odd.py": GROWS,
        "reports/small.toml": report(attacks=("grows", "says")),
        **{f"attacks/{card}.toml": CARD.format(name=odd) for card, odd in attacks.items()},
    }
    run, ears = carry_out(workspace(tmp_path / "w", files), jobs=1)
    grows = next(name for cell, name in run.digests.items() if cell.threat.name == "grows")
    assert run.store.has("cells", grows)
    said = ears.failed["small seed 0 x says"].short
    assert said.startswith("ValueError: process ")
    assert said != f"ValueError: process {os.getpid()}"


# -- where plugins are found and built -------------------------------------------------------------

PLACES = {
    "import": (
        "import torch\ntorch.set_default_dtype(torch.float64)\n{rest}",
        "odd.py, when it is imported, changes torch's default dtype from torch.float32",
    ),
    "build": (
        "{rest}\n    def build(self):\n        torch.set_num_threads(2)\n        super().build()\n",
        "network './odd.py:Odd' (models/small.toml), while it is built, changes the number of",
    ),
    "construct": (
        "{rest}\n    def __init__(self, *a, **k):\n        super().__init__(*a, **k)\n"
        "        torch.nn.functional.relu = torch.tanh\n",
        "network './odd.py:Odd' (models/small.toml), while it is built, replaces torch.nn.func",
    ),
}
REST = "import torch\nfrom robench.networks.mlp import MLP\nclass Odd(MLP):\n    x = 1"


@pytest.mark.parametrize("place", PLACES)
def test_importing_and_building_a_plugin_changes_nothing_either(tmp_path: Path, place: str) -> None:
    code, said = PLACES[place]
    files = {
        "models/odd.py": code.format(rest=REST),
        "models/small.toml": MODEL.format(network="./odd.py:Odd", trainer="bp"),
        "reports/small.toml": report(),
    }
    here = workspace(tmp_path / "w", files)
    for _ in range(2):
        with pytest.raises(RobenchError) as caught:
            carry_out(here)
        assert said in str(caught.value)
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == 1


DATASETS = """
import torch
from robench.data.digits import Digits

class Odd(Digits):
    def load(self):
        {does}
        return super().load()
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("torch.use_deterministic_algorithms(True)", "torch's flags"),
        ("__import__('os').chdir('/')", "the working folder"),
        ("torch.relu = torch.tanh", "torch.relu"),
    ],
)
def test_a_data_set_that_changes_the_process_is_refused(
    tmp_path: Path, does: str, said: str
) -> None:
    model = SMALL.replace('"digits"', '"./odd.py:Odd"')
    files = {
        "models/odd.py": DATASETS.format(does=does),
        "models/small.toml": model,
        "reports/small.toml": report(),
    }
    named = r"dataset './odd.py:Odd' \(models/small.toml\) "
    with pytest.raises(RobenchError, match=named) as error:
        carry_out(workspace(tmp_path / "w", files))
    assert said in str(error.value)


# -- robench.evaluate ------------------------------------------------------------------------------


class InPlace(torch.nn.Module):
    def __init__(self, answer: torch.nn.Module) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.answer(x if x.requires_grad else x.sub_(0.5))
        return logits


def test_one_module_changes_nothing_for_the_next(
    tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    def clean(module: torch.nn.Module, folder: str) -> list[object]:
        made = robench.evaluate(
            module,
            "digits",
            attacks=["fgsm"],
            images=40,
            store=tmp_path / folder,
            name="answer",
            **no_diagnostics,
        )
        rows = made.results.table("answer", 0, "clean")
        assert rows is not None
        return [rows.column(name).to_pylist() for name in ("predictions", "loss")]

    answer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    before = clean(answer, "a")
    with pytest.raises(RobenchError, match=r"network 'module' .* changes its input in place"):
        clean(InPlace(answer), "b")
    assert clean(answer, "c") == before


@pytest.mark.parametrize(("place", "named"), [("site-packages", False), ("own", True)])
def test_what_an_installed_library_replaces_when_it_is_imported_is_put_back_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, named: bool
) -> None:
    """torch-geometric does so; people's own code is refused."""
    (tmp_path / place).mkdir()
    code = "import torch\ndef odd(*a): raise ValueError\ntorch.select = odd"
    (tmp_path / place / f"patching_{named}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / place)
    before, said = torch.select, ""
    try:
        with guarded("it"):
            __import__(f"patching_{named}")
    except RobenchError as error:
        said = str(error)
    assert torch.select is before
    assert ("it replaces torch.select" in said) == named
