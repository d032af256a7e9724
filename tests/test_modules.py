"""Networks that robench did not make: named in a card with their weights, or handed over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from factory import FACTORY
from torch import Tensor, nn

import robench
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.identity import resolve_model
from robench.networks.modules.handed import _SEEN, handed_over
from robench.networks.modules.module import Module
from robench.networks.weights import load_state
from robench.run import RunOptions, make_results
from robench.store.store import Store
from robench.workspace.cards import ModelCard
from robench.workspace.folders import Workspace
from robench.workspace.plugins import Located

Write = Callable[[str, str], Path]

CARD = """
dataset = "digits"
network = {{ name = "module", factory = "{factory}" }}
trainer = {{ name = "given", weights = "{weights}" }}
"""


class Scaled(nn.Module):
    """A module with an attribute that is no weight."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.scale * self.layer(x.flatten(1))
        return answer


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    """64-20-10, at about 90% on the digits."""
    data = Digits().load().train
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module


@pytest.fixture
def quietly(small: Workspace) -> dict[str, Any]:
    """What keeps an evaluation short and within the small workspace, whose report has no
    diagnostics."""
    return {
        "workspace": small.root,
        "report": "small",
        "images": 40,
        "progress": False,
        "attacks": ["fgsm"],
    }


def card_of(small: Workspace, write: Write, factory: str, weights: str) -> ModelCard:
    write("models/own.toml", CARD.format(factory=factory, weights=weights))
    return small.card("models", "own")


# -- in a card -------------------------------------------------------------------------------------


def test_a_card_names_a_factory_and_a_file_of_weights(
    small: Workspace, write: Write, trained: nn.Sequential, quietly: dict[str, Any]
) -> None:
    write("models/net.py", FACTORY)
    safetensors.torch.save_file(trained.state_dict(), small.root / "models/net.safetensors")
    card_of(small, write, "./net.py:make", "net.safetensors")
    results = robench.evaluate(trained, "digits", beside=["own"], **quietly).results
    for threat in ("clean", "fgsm"):
        handed, carded = (results.table(n, 0, threat) for n in ("Sequential", "own"))
        assert handed is not None
        assert handed.equals(carded), "one module, two ways in, the same rows"


def test_a_factory_of_an_installed_package_is_found(small: Workspace, write: Write) -> None:
    state = nn.Linear(64, 10).state_dict()
    safetensors.torch.save_file(state, small.root / "models/w.safetensors")
    arguments = "arguments = { in_features = 64, out_features = 10 }"
    text = CARD.format(factory="torch.nn:Linear", weights="w.safetensors")
    write("models/own.toml", text.replace('Linear" }', f'Linear", {arguments} }}'))
    card = small.card("models", "own")
    assert resolve_model(card).parameters == 650


def test_a_changed_factory_or_file_of_weights_is_another_model(
    small: Workspace, write: Write
) -> None:
    def digest() -> str:
        return resolve_model(card_of(small, write, "./net.py:make", "w.safetensors")).digest(0)

    state = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    write("models/net.py", FACTORY)
    safetensors.torch.save_file(state.state_dict(), small.root / "models/w.safetensors")
    found = [digest()]
    write("models/net.py", FACTORY + "# changed\n")
    found.append(digest())
    changed = {key: value + 1 for key, value in state.state_dict().items()}
    safetensors.torch.save_file(changed, small.root / "models/w.safetensors")
    found.append(digest())
    assert len(set(found)) == 3


def test_a_pickle_offered_as_weights_is_refused_and_not_read(
    small: Workspace, write: Write
) -> None:
    write("models/net.py", FACTORY)
    torch.save({"weight": torch.zeros(1)}, small.root / "models/w.pt")
    with pytest.raises(
        RobenchError, match=r"own.toml: weights = 'w.pt': is a pickle.*robench new weights"
    ):
        resolve_model(card_of(small, write, "./net.py:make", "w.pt"))


@pytest.mark.parametrize(
    ("factory", "weights", "said"),
    [
        ("./net.py:make", "absent.safetensors", "weights = 'absent.safetensors': No such file"),
        ("./net.py:make", "net.py", "is not a safetensors file"),
        ("./net.py:mkae", "w.safetensors", "no class or function 'mkae'; did you mean make"),
        ("./net.py:number", "w.safetensors", "factory 'number': made int, not a torch.nn.Module"),
        ("../../net.py:make", "w.safetensors", "outside the workspace"),
        ("nowhere.at_all:make", "w.safetensors", "own.toml: 'nowhere.at_all:make'.*No module"),
        ("make", "w.safetensors", "say 'package.module:name' or './file.py:name'"),
    ],
)
def test_a_bad_factory_or_file_is_one_clear_error(
    small: Workspace, write: Write, factory: str, weights: str, said: str
) -> None:
    write("models/net.py", FACTORY)
    safetensors.torch.save_file({"a": torch.zeros(1)}, small.root / "models/w.safetensors")
    with pytest.raises(RobenchError, match=said) as caught:
        resolve_model(card_of(small, write, factory, weights))
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_say_where(small: Workspace, write: Write) -> None:
    write("models/net.py", FACTORY)
    safetensors.torch.save_file({"a": torch.zeros(1)}, small.root / "models/w.safetensors")
    card_of(small, write, "./net.py:make", "w.safetensors")
    report = (small.root / "reports/small.toml").read_text().replace('["small"]', '["own"]')
    write("reports/small.toml", report)
    from rich.console import Console

    results = make_results(
        small,
        "small",
        store=Store(small.root / ".robench"),
        console=Console(quiet=True),
        command="",
        options=RunOptions(jobs=1),
    )
    assert "the weights do not fit the network: Missing key" in results.failures()[0]["error"]


def test_one_file_of_weights_is_not_shown_as_several_seeds(small: Workspace, write: Write) -> None:
    write("models/net.py", FACTORY)
    safetensors.torch.save_file({"a": torch.zeros(1)}, small.root / "models/w.safetensors")
    card = card_of(small, write, "./net.py:make", "w.safetensors")
    write("models/own.toml", (small.root / card.file).read_text() + "seeds = [0, 1]\n")
    with pytest.raises(RobenchError, match=r"seeds = \[0, 1\]: trainer 'given' trains nothing"):
        resolve_model(small.card("models", "own"))


# -- handed over -----------------------------------------------------------------------------------


def test_evaluate_measures_what_the_module_itself_answers(
    trained: nn.Sequential, quietly: dict[str, Any]
) -> None:
    found = robench.evaluate(trained, "digits", **quietly)
    row = found.to_pandas().iloc[0]
    rows = found.results.table(found.name, 0, "clean")
    assert rows is not None
    test, asked = Digits().load().test, rows["image"].to_numpy()  # a sample of all classes
    assert len(set(asked)) == 40
    with torch.no_grad():
        predicted = trained(torch.from_numpy(test.images[asked])).argmax(1).numpy()
    assert row["clean"] == (predicted == test.labels[asked]).mean()
    assert row["worst_case"] <= row["fgsm"] <= row["clean"]


def test_the_module_is_left_as_it_was(trained: nn.Sequential, quietly: dict[str, Any]) -> None:
    trained.train()
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    threads = torch.get_num_threads()
    robench.evaluate(trained, "digits", **quietly)
    assert trained.training
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert all(torch.equal(before[key], value) for key, value in trained.state_dict().items())
    assert torch.get_num_threads() == threads


def test_the_result_shows_itself_and_writes_the_same_page_as_a_report(
    trained: nn.Sequential, quietly: dict[str, Any], tmp_path: Path
) -> None:
    found = robench.evaluate(trained, "digits", name="mine", **quietly | {"report": "strong"})
    shown = found._repr_html_()
    assert "worst case over attacks" in shown
    assert "fgsm" in shown
    assert found.verdicts["mine"]["verdict"] in shown
    assert "worst case over attacks" in str(found)
    page = found.to_html(tmp_path / "deep" / "page.html")
    folder = found.to_folder(tmp_path / "folder")
    assert page.read_bytes() == (folder / "index.html").read_bytes()
    assert (folder / "cells.parquet").is_file()


def test_a_second_call_reads_the_store_and_a_changed_module_does_not(
    trained: nn.Sequential, quietly: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    quietly["progress"] = True
    said = []
    for module in (trained, trained, nn.Sequential(*trained, nn.Hardtanh())):
        robench.evaluate(module, "digits", name="m", **quietly)
        said.append(capsys.readouterr().err)
    assert "0 evaluated" not in said[0]
    assert "0 evaluated" in said[1]
    assert "0 evaluated" not in said[2]


def test_probabilities_are_attacked_through_their_logarithm(
    trained: nn.Sequential, quietly: dict[str, Any]
) -> None:
    plain = robench.evaluate(trained, "digits", **quietly).to_pandas().iloc[0]
    module = nn.Sequential(trained, nn.Softmax(1))
    found = robench.evaluate(module, "digits", outputs="probabilities", **quietly)
    assert found.to_pandas().iloc[0]["fgsm"] == plain["fgsm"]


def test_images_are_normalised_where_the_module_wants_it(
    trained: nn.Sequential, quietly: dict[str, Any]
) -> None:
    class Undo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0.5 + 0.25

    plain = robench.evaluate(trained, "digits", **quietly).to_pandas().iloc[0]
    module = nn.Sequential(Undo(), trained)
    found = robench.evaluate(module, "digits", mean=[0.25], std=[0.5], **quietly)
    assert found.to_pandas().iloc[0]["clean"] == plain["clean"]


def test_a_stochastic_module_draws_from_the_runs_seed(quietly: dict[str, Any]) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), _Jitter())
    network = Module((1, 8, 8), 10, factory=handed_over(module)[0], stochastic=True).eval()
    x = torch.rand(4, 1, 8, 8)
    before = torch.get_rng_state()
    answers = []
    for seed in (1, 1, 2):
        network.generator = torch.Generator().manual_seed(seed)
        answers.append(network(x))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    assert torch.equal(torch.get_rng_state(), before)


class _Jitter(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_a_handed_module_is_known_by_weights_attributes_and_code() -> None:
    module = Scaled()
    twin = Scaled()
    twin.load_state_dict(module.state_dict())
    texts = [handed_over(module)[0].text, handed_over(twin)[0].text]
    assert texts[0] == texts[1]
    twin.scale = 2.0
    texts.append(handed_over(twin)[0].text)
    with torch.no_grad():
        module.layer.bias += 1
    texts.append(handed_over(module)[0].text)
    hooked = Scaled()
    hooked.load_state_dict(twin.state_dict())
    hooked.scale = 2.0
    hooked.register_forward_hook(lambda *_: None)
    texts.append(handed_over(hooked)[0].text)
    assert len(set(texts)) == 4


def test_code_that_cannot_be_read_counts_as_new_in_every_session() -> None:
    typed: dict[str, Any] = {"__name__": "a_notebook"}
    exec("from torch import nn\nclass Own(nn.Linear):\n    pass\n", typed)
    module = typed["Own"](2, 2)
    text = handed_over(module)[0]
    assert handed_over(module)[0] == text
    _SEEN.clear()  # as a new process begins
    assert handed_over(module)[0] != text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"report": "strnog", "attacks": None}, "'strnog': neither a report card nor a set.*stron"),
        ({"dataset": "digitz"}, "dataset 'digitz' is not known; did you mean digits"),
        ({"name": "a*b"}, r"name = 'a\*b'"),
        ({"outputs": "labels"}, "outputs = 'labels'"),
        ({"mean": [0.1, 0.2]}, r"mean = \[0.1, 0.2\]: the images have 1 channels"),
        ({"images": 9999}, "images = 9999"),
        ({"attacks": ["pgdd"]}, "'pgdd' matches no card; did you mean"),
    ],
)
def test_bad_arguments_are_one_clear_error(
    quietly: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    asked = {"dataset": "digits", **quietly, **change}
    with pytest.raises(RobenchError, match=said):
        robench.evaluate(Scaled(), **asked)


def test_a_module_that_answers_with_the_wrong_shape_is_an_error(quietly: dict[str, Any]) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(RobenchError, match=r"answers \(40, 7\) where logits \(40, 10\)"):
        robench.evaluate(module, "digits", **quietly)


def test_a_source_travels_to_worker_processes() -> None:
    import pickle

    source = pickle.loads(pickle.dumps(handed_over(Scaled(3.0))[0]))
    assert isinstance(source, Located)
    assert source.make().scale == 3.0


def test_channels_may_lie_side_by_side_in_memory() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    factory = Located("layers", lambda: copy.deepcopy(layers))
    plain, other = (
        Module((3, 8, 8), 10, factory=factory, channels_last=last) for last in (False, True)
    )
    load_state(other.module, layers.state_dict())
    inside = other.module[0].weight
    assert inside.is_contiguous(memory_format=torch.channels_last)
    assert not inside.is_contiguous()
    x = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(plain(x), other(x))
    assert "channels_last" not in Module.resolved({"factory": "f"})
    assert Module.resolved({"factory": "f", "channels_last": True})["channels_last"] is True
