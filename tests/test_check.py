"""`robench check`: valid cards and plugins pass, deliberately wrong ones are flagged by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from small_runs import Ears

from robench import cli
from robench.checks.cards import Checked, check, lines
from robench.checks.corruptions import check_corruption
from robench.checks.data import check_dataset
from robench.checks.finding import Result
from robench.checks.networks import check_network
from robench.checks.trainers import check_trainer
from robench.errors import RobenchError
from robench.make.run_state import open_run
from robench.make.scheduler import execute
from robench.make.workers import may_copy
from robench.store.store import Store
from robench.workspace import plugins
from robench.workspace.folders import Workspace, open_workspace, reference_root
from robench.workspace.plan import make_plan

Write = Callable[[str, str], Path]


def failed(findings: Any) -> dict[str, str]:
    return {finding.check: finding.detail for finding in findings if not finding.passed}


def network(name: str, **settings: Any) -> Any:
    cls: Any = plugins.load("networks", name)
    return lambda shape, classes, graph: cls(shape, classes, graph, **settings)


# -- what comes with robench -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    sorted({*plugins.BUILT_IN["networks"]} - {"huggingface", "module", "robustbench", "timm"}),
)
def test_every_built_in_network_conforms(name: str) -> None:
    assert failed(check_network(network(name))) == {}


def test_a_network_that_says_it_is_random_conforms() -> None:
    assert failed(check_network(network("snn", encoding="bernoulli"))) == {}


@pytest.mark.rows(2)
@pytest.mark.parametrize(
    ("name", "on"),
    [("bp", "mlp"), ("bp-n", "mlp"), ("glr", "mlp"), ("stbp", "snn"), ("nit", "snn")],
)
def test_built_in_trainers_of_every_family_conform(name: str, on: str) -> None:
    cls: Any = plugins.load("trainers", name)
    assert failed(check_trainer(cls, network(on))) == {}


@pytest.mark.parametrize("name", ["imagenet-c", "glr-mnist"])
def test_every_built_in_corruption_conforms(name: str) -> None:
    cls: Any = plugins.load("corruptions", name)
    assert failed(check_corruption(cls)) == {}


def test_the_embedded_data_set_conforms() -> None:
    cls: Any = plugins.load("datasets", "digits")
    assert failed(check_dataset(cls)) == {}


def test_every_card_of_the_reference_workspace_passes() -> None:
    found = list(check(open_workspace(reference_root())))
    assert [one for one in found if not one.passed] == []
    assert len(found) > 100


def test_the_attack_in_the_tests_workspace_passes_with_its_contract() -> None:
    found = list(check(open_workspace(Path(__file__).parent / "workspace")))
    assert [one for one in found if not one.passed] == []
    assert any("./lucky_signs.py:LuckySigns" in one.what for one in found)


# -- deliberately wrong plugins --------------------------------------------------------------------

HEAD = """
import numpy as np, torch
from torch import nn
from torch.nn.functional import cross_entropy
from robench import Attack, Corruption, Dataset, Network, Trainer
from robench.networks.mlp import MLP
from robench.data.digits import Digits
"""
ATTACK = "class Wrong(Attack):\n    def perturb(self, target, x, y, rng):\n        "
TRAINER = "class Wrong(Trainer):\n    def loss(self, network, x, y, rng):\n        "
CORRUPTION = (
    "class Wrong(Corruption):\n    kinds: tuple[str, ...] = ('one', 'two')\n"
    "    def corrupt(self, image, kind, severity, rng):\n        "
)
FORWARD = "class Wrong(MLP):\n    def forward(self, x):\n        "

WRONG = {
    "an attack that leaves the ball": (
        "attack",
        ATTACK + "g = target.gradient(x, y).gradient.sign()\n"
        "        return (x + 2 * target.eps * g).clamp(0, 1)",
        "budget: it leaves the linf ball",
    ),
    "an attack that peeks at gradients": (
        "attack",
        "class Wrong(Attack):\n    needs = 'score'\n    def perturb(self, target, x, y, rng):\n"
        "        leaf = x.clone().requires_grad_()\n"
        "        network = [v for v in vars(target).values() if isinstance(v, nn.Module)][0]\n"
        "        grad, = torch.autograd.grad(cross_entropy(network(leaf), y), leaf)\n"
        "        return target.project(x + target.eps * grad.sign(), x)",
        "access: it needs score access, yet peeks at gradients",
    ),
    "an attack that does nothing": (
        "attack",
        "class Wrong(Attack):\n    needs = 'decision'\n"
        "    def perturb(self, target, x, y, rng):\n        return x",
        "effect: a no-op",
    ),
    "an attack that does not pickle": (
        "attack",
        "class Wrong(Attack):\n    needs = 'decision'\n"
        "    def __init__(self, **settings):\n        super().__init__(**settings)\n"
        "        self.step = lambda x: x\n"
        "    def perturb(self, target, x, y, rng):\n        return x",
        "pickles: raises",
    ),
    "a class that does not pickle": (
        "trainer",
        "def make():\n    class Hidden(Trainer):\n"
        "        def loss(self, network, x, y, rng):\n"
        "            return cross_entropy(network(x), y)\n    return Hidden\nWrong = make()",
        "pickles: raises",
    ),
    "a trainer that is not deterministic": (
        "trainer",
        TRAINER + "return cross_entropy(network(x + 0.1 * torch.randn(x.shape)), y)",
        "seeds: it draws from torch's or numpy's global state",
    ),
    "a trainer that keeps a state between runs": (
        "trainer",
        "class Wrong(Trainer):\n    calls = [0]\n    def loss(self, network, x, y, rng):\n"
        "        self.calls[0] += 1\n"
        "        return cross_entropy(network(x), y) * (1 + self.calls[0] % 7)",
        "seeds: two runs with one seed differ in",
    ),
    "a trainer that does not learn": (
        "trainer",
        TRAINER + "return -cross_entropy(network(x), y)",
        "learns: accuracy",
    ),
    "a trainer that leaves the weights": (
        "trainer",
        "class Wrong(Trainer):\n    def fit(self, network, data, rng, progress):\n"
        "        return []",
        "trains: it leaves the network's weights as they were",
    ),
    "a trainer that writes into the data": (
        "trainer",
        "class Wrong(Trainer):\n    def fit(self, network, data, rng, progress):\n"
        "        data.train.images[:] = 0\n"
        "        return super().fit(network, data, rng, progress)\n"
        "    def loss(self, network, x, y, rng):\n        return cross_entropy(network(x), y)",
        "data: it writes into the images",
    ),
    "a trainer that ends with NaN": (
        "trainer",
        TRAINER + "return cross_entropy(network(x), y)\n    def after_step(self, network):\n"
        "        network.layers[0].op.weight.data[:] = float('nan')",
        "trains: training diverged",
    ),
    "a corruption that leaves [0, 1]": (
        "corruption",
        CORRUPTION + "return image + 0.2 * severity",
        "range: one at severity",
    ),
    "a corruption of another shape": (
        "corruption",
        CORRUPTION + "return image[:, :-1]",
        "shape: one at severity 1 answers float32 (32, 31, 1), not floats (32, 32, 1)",
    ),
    "a corruption that does nothing": (
        "corruption",
        CORRUPTION + "return image.copy()",
        "effect: a no-op: one, two",
    ),
    "a corruption that is weaker at severity 5": (
        "corruption",
        CORRUPTION + "return image * (0.2 + 0.1 * severity)",
        "severities: one: distance to the clean image by severity",
    ),
    "a corruption that draws elsewhere": (
        "corruption",
        CORRUPTION + "noise = np.random.rand(*image.shape)\n"
        "        return np.clip(image + 0.02 * severity * noise, 0, 1)",
        "seeds: it draws from torch's or numpy's global state",
    ),
    "a corruption that remembers": (
        "corruption",
        "class Wrong(Corruption):\n    kinds: tuple[str, ...] = ('one',)\n    seen = []\n"
        "    def corrupt(self, image, kind, severity, rng):\n"
        "        self.seen.append(1)\n"
        "        return image * (0.9 - 0.1 * severity - 0.001 * (len(self.seen) % 50))",
        "batches: one: results depend on the order of images",
    ),
    "a corruption that writes into its image": (
        "corruption",
        CORRUPTION + "image *= 1 - 0.1 * severity\n        return image",
        "untouched: it writes into the image",
    ),
    "a network that answers too few classes": (
        "network",
        FORWARD + "return super().forward(x)[:, :3]",
        "answers: it answers (12, 3) where logits (12, 10) are expected",
    ),
    "a network whose answers depend on neighbours": (
        "network",
        FORWARD + "out = super().forward(x)\n        return out - out.mean(0)",
        "batches: alone and in a batch, answers differ",
    ),
    "a network that is random and does not say so": (
        "network",
        FORWARD + "noise = torch.rand(x.shape, generator=self.generator)\n"
        "        return super().forward(x + 0.1 * noise)",
        "repeats: its answers are random: let random_input say so",
    ),
    "a network with weights outside its state": (
        "network",
        "class Wrong(MLP):\n    def build(self):\n        super().build()\n"
        "        self.extra = torch.randn(10)\n"
        "    def forward(self, x):\n        return super().forward(x) + self.extra",
        "state: state_dict() does not hold all of it",
    ),
    "a network without a gradient": (
        "network",
        FORWARD + "return super().forward(x).detach()",
        "gradient: the answer has no gradient",
    ),
    "an attack that zeroes the weights": (
        "attack",
        ATTACK + "next(target._hidden.parameters()).data.zero_()\n        return x",
        "isolation: attack Wrong changes the network that it is shown: layers.0.op.weight",
    ),
    "an attack that sets threads": (
        "attack",
        ATTACK + "torch.set_num_threads(2)\n        return x",
        "isolation: attack Wrong changes the number of torch threads from 1 to 2",
    ),
    "an attack that replaces a function": (
        "attack",
        ATTACK + "torch.nn.functional.relu = torch.tanh\n        return x",
        "isolation: attack Wrong replaces torch.nn.functional.relu",
    ),
    "a network that changes its input": (
        "network",
        FORWARD + "return super().forward(x.sub_(0.5) if not x.requires_grad else x)",
        "answers: network Wrong changes its input in place: x = x.clone() first",
    ),
    "a network that sets the default dtype": (
        "network",
        FORWARD + "torch.set_default_dtype(torch.float64)\n        return super().forward(x)",
        "answers: network Wrong changes torch's default dtype",
    ),
    "a trainer that changes the folder": (
        "trainer",
        TRAINER + "__import__('os').chdir('/')\n        return cross_entropy(network(x), y)",
        "isolation: trainer Wrong changes the working folder",
    ),
    "a corruption that sets a variable": (
        "corruption",
        CORRUPTION + "__import__('os').environ['ODD'] = '1'\n        return image / 2",
        "isolation: corruption Wrong changes the environment ODD",
    ),
    "a data set that sets threads": (
        "dataset",
        "class Wrong(Digits):\n    def load(self):\n        torch.set_num_threads(2)\n"
        "        return super().load()",
        "loads: dataset Wrong changes the number of torch threads",
    ),
    "a data set whose test images were trained on": (
        "dataset",
        "class Wrong(Digits):\n    def load(self):\n        s = super().load()\n"
        "        return type(s)(s.train, s.validation, s.train, s.classes)",
        "leaks: ",
    ),
}
CARDS = {
    "attack": (
        "attacks",
        'attack = "./wrong.py:Wrong"\naccess = "{access}"\neps = 0.1\n',
    ),
    "trainer": ("models", 'dataset = "digits"\nnetwork = "mlp"\ntrainer = "./wrong.py:Wrong"\n'),
    "network": ("models", 'dataset = "digits"\nnetwork = "./wrong.py:Wrong"\ntrainer = "bp"\n'),
    "dataset": ("models", 'dataset = "./wrong.py:Wrong"\nnetwork = "mlp"\ntrainer = "bp"\n'),
    "corruption": ("corruptions", 'corruption = "./wrong.py:Wrong"\n'),
}


@pytest.mark.rows(6)
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_plugin_is_flagged_by_name(small: Workspace, write: Write, what: str) -> None:
    kind, source, said = WRONG[what]
    folder, card = CARDS[kind]
    write(f"{folder}/wrong.py", HEAD + source + "\n")
    write(f"{folder}/wrong.toml", card.format(access="white-box"))
    found = list(check(small, f"{folder}/wrong.py"))
    contract = next(one for one in found if "wrong.py:Wrong" in one.what)
    assert contract.what == f"{folder}/wrong, {kind} ./wrong.py:Wrong"
    shown = [f"{check}: {detail}" for check, detail in failed(contract.findings).items()]
    assert any(line.startswith(said) for line in shown), shown


# -- cards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("models/m.toml", "dataset =", "card: not valid TOML"),
        ("models/m.toml", 'dataset = "digits"\nnetwork = "mlp"\n', "card: trainer: this key is"),
        (
            "models/m.toml",
            'dataset = "digits"\nnetwork = "mlp"\ntrainer = { name = "bp", epoch = 3 }\n',
            "fields: trainer 'bp': epoch: unknown key",
        ),
        (
            "attacks/a.toml",
            'attack = "pgd"\naccess = "score"\neps = 0.1\n',
            "fields: access = \"score\": attack 'pgd' needs white-box",
        ),
        (
            "attacks/a.toml",
            'attack = "fgsm"\naccess = "transfer"\nsurrogate = "smal"\neps = 0.1\n',
            "names: ",
        ),
        ("reports/r.toml", 'title = "t"\nmodels = ["smal"]\n', "names: models = 'smal' matches no"),
        (
            "reports/r.toml",
            'title = "t"\nmodels = ["small"]\nattacks = ["fgsm"]\n[[claims]]\ntext = "c"\n'
            'model = "small"\nthan = "small"\nthreat = "pgd"\npublished = [0.5, 0.4]\n',
            "names: claims: 'pgd' is not in the report",
        ),
    ],
)
def test_a_wrong_card_is_flagged_by_name(
    small: Workspace, write: Write, file: str, text: str, said: str
) -> None:
    write(file, text)
    found = {one.what: one for one in check(small) if not one.passed}
    assert list(found) == [file.removesuffix(".toml")]
    shown = [
        f"{check}: {detail}"
        for check, detail in failed(next(iter(found.values())).findings).items()
    ]
    assert any(line.startswith(said) for line in shown), shown


def test_the_command_names_what_failed_and_exits_with_1(
    small: Workspace, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("attacks/wrong.py", HEAD + WRONG["an attack that does nothing"][1] + "\n")
    write("attacks/wrong.toml", 'attack = "./wrong.py:Wrong"\naccess = "score"\neps = 0.1\n')
    with pytest.raises(typer.Exit) as ended:
        cli.check(None, small.root)
    assert ended.value.exit_code == 1
    said = capsys.readouterr().out
    assert "FAILED  attacks/wrong, attack ./wrong.py:Wrong: " in said
    assert "        effect: a no-op: it returns the clean images" in said
    assert "ok      models/small: card, fields, names" in said
    assert "4 checked, 1 failed" in said
    cli.check("small", small.root)


def test_a_file_is_checked_with_the_classes_that_no_card_uses(
    small: Workspace, write: Write
) -> None:
    write("models/wrong.py", HEAD + WRONG["a trainer that does not learn"][1] + "\n")
    found = list(check(small, str(small.root / "models/wrong.py")))
    assert [one.what for one in found] == ["trainer wrong.py:Wrong"]
    assert list(failed(found[0].findings)) == ["learns"]


def test_a_built_in_plugin_is_checked_where_it_is_asked_for(small: Workspace) -> None:
    assert all("trainer" not in one.what for one in check(small))
    named = {one.what: one for one in check(small, "models/small")}
    assert set(named) == {"models/small", "models/small, network mlp", "models/small, trainer bp"}
    assert all(one.passed for one in named.values())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("smal", "neither a card nor a plugin; did you mean small"),
        ("models/absent.py", "no such file"),
        ("/etc/hostname.toml", "no such file"),
        ("README.toml", "cards lie in models"),
    ],
)
def test_an_unknown_name_or_file_is_one_clear_error(
    small: Workspace, write: Write, wanted: str, said: str
) -> None:
    write("README.toml", "")
    with pytest.raises(RobenchError, match=said):
        list(check(small, wanted))


def test_a_checked_plugin_passes_only_without_a_failure() -> None:
    good, bad = Result("a", True), Result("b", False, "no")
    assert Checked("x", (good,)).passed
    assert not Checked("x", (good, bad)).passed


DROPOUT = """
from torch import nn
from robench import Network

class Drops(Network):
    def build(self):
        c, h, w = self.input_shape
        last = nn.Linear(c * h * w, self.classes)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), last)

    def forward(self, x):
        return self.layers(x)
"""


def test_dropout_is_fine_and_repeats_with_the_seed(small: Workspace, write: Write) -> None:
    write("models/drops.py", DROPOUT)
    text = 'dataset = "digits"\nnetwork = "./drops.py:Drops"\n'
    write("models/drops.toml", text + 'trainer = { name = "bp", epochs = 2, lr = 1e-2 }\n')
    write(
        "reports/drops.toml",
        (small.root / "reports/small.toml").read_text().replace("small", "drops"),
    )
    assert [found for found in check(small, "models/drops") if not found.passed] == []
    weights = []
    for store in ("one", "two"):
        run = open_run(make_plan(small, "drops"), Store(small.root / store), "cpu")
        torch.rand(1 + len(weights))  # where torch's global state stands does not matter
        execute(run, Ears(), 1)
        (training,) = run.plan.trainings
        weights.append(run.weights[training])
    assert weights[0] == weights[1]


def test_equal_failures_are_said_once() -> None:
    same = tuple(Result(name, False, "raises ValueError: no") for name in ("trains", "seeds"))
    shown = list(lines(Checked("trainer x", same)))
    assert shown[1:] == ["        trains, seeds: raises ValueError: no"]


NARROW = """
from torch import nn
from robench import Network

class Narrow(Network):
    def build(self):
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, self.classes))

    def forward(self, x):
        return self.layers(x)
"""


def test_a_plugin_is_checked_on_the_data_of_its_card(small: Workspace, write: Write) -> None:
    write("models/narrow.py", NARROW)
    text = 'dataset = "digits"\nnetwork = "./narrow.py:Narrow"\n'
    write("models/narrow.toml", text + 'trainer = { name = "bp", epochs = 2 }\n')
    failed = [found for found in check(small, "models/narrow") if not found.passed]
    assert failed, "it takes images of 32 x 32, the card's data has 8 x 8"


# -- plugins that end or hold up what checks them --------------------------------------------------

ENDS = {
    "leaves with 0": ("os._exit(0)", "its worker process died with status 0"),
    "exits with 0": ("sys.exit(0)", "SystemExit: 0"),
    "kills itself": ("os.kill(os.getpid(), 9)", "its worker process died, signal 9"),
    "raises no Exception": ("raise BaseException('mine')", "BaseException: mine"),
    "ends a generator": ("raise GeneratorExit('mine')", "GeneratorExit: mine"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "hangs": ("time.sleep(600)", "ran past its time_limit of 2 s"),
    "swallows all": (
        "exec('while True:\\n try: time.sleep(600)\\n except BaseException: pass')",
        "ran past its time_limit of 2 s",
    ),
}


@pytest.mark.rows(3)
@pytest.mark.skipif(not may_copy("cpu"), reason="no copies of a process here")
@pytest.mark.parametrize("how", ENDS)
def test_a_plugin_that_ends_or_holds_up_its_test_fails_it(
    write: Write, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    body, said = ENDS[how]
    if how in ("hangs", "swallows all"):
        monkeypatch.setattr("robench.checks.cards.LIMIT", 2.0)
    write(
        "attacks/bad.py",
        f"import os, sys, time\nfrom robench import Attack\nclass Bad(Attack):\n"
        f"    def perturb(self, target, x, y, rng):\n        {body}\n        return x\n",
    )
    path = write("attacks/bad.toml", 'attack = "./bad.py:Bad"\naccess = "white-box"\neps = 0.1\n')
    found = list(check(open_workspace(path.parents[1]), "attacks/bad"))
    assert found[0].passed, "the card is right"
    assert said in "\n".join(lines(found[1]))


IMPORTS = {
    "exits": "raise SystemExit(0)",
    "raises no Exception": "raise BaseException('mine')",
    "ends a generator": "raise GeneratorExit('mine')",
    "exits when it is built": (
        "from robench import Attack\nclass Bad(Attack):\n    def __init__(self, **settings):\n"
        "        raise SystemExit(0)\n    def perturb(self, target, x, y, rng):\n        return x\n"
    ),
}


@pytest.mark.parametrize("how", IMPORTS)
def test_a_plugin_that_raises_whatever_when_it_is_imported_or_built_is_one_error(
    write: Write, how: str
) -> None:
    write("attacks/bad.py", IMPORTS[how])
    path = write("attacks/bad.toml", 'attack = "./bad.py:Bad"\naccess = "white-box"\neps = 0.1\n')
    (found,) = check(open_workspace(path.parents[1]), "attacks/bad")
    assert not found.passed
    assert re.search(
        "SystemExit|BaseException: mine|GeneratorExit: mine", found.findings[-1].detail
    )
