"""Modules as people have them: buffers that are not finite, weights that are computed, wrappers,
scripts, quantised weights, answers that are no plain logits."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from handed import Plain, measured, numbers, trained
from torch import Tensor, nn
from torch.nn.utils import prune

import robench
from robench.errors import RobenchError
from robench.make.scoring import in_use
from robench.make.trained import Copies
from robench.networks.base import Network
from robench.networks.modules.handed import handed_over, weights_lent
from robench.networks.weights import load_state, plain_state, written_state
from robench.plugin_code.watched_weights import Original, Shown
from robench.workspace.folders import Workspace


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return numbers(measured(trained(), tmp_path_factory.mktemp("plain")))


# -- the same function in another guise: the same numbers ------------------------------------------


class Masked(Plain):
    """A causal mask, infinite below the line, added to nothing that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.full((4, 4), -torch.inf), 1))
        self.register_buffer("unused", torch.full((3,), torch.nan))

    def forward(self, x: Tensor) -> Any:
        weights = torch.softmax(self.mask, dim=1)  # rows of the mask as attention has them
        return super().forward(x) * weights.sum(1).mean()


class KeepsOutput(Plain):
    """Keeps what it answered last, with its graph."""

    last: Any = None

    def forward(self, x: Tensor) -> Any:
        self.last = {"answer": [super().forward(x)]}
        return self.last["answer"][0]


class Extra(Plain):
    """Holds a scale as extra state."""

    scale = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * self.scale


class Renames(Plain):
    """Calls a weight otherwise in its state."""

    def __init__(self) -> None:
        super().__init__()
        self._register_state_dict_hook(self.out)
        self._register_load_state_dict_pre_hook(self.back)

    @staticmethod
    def out(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
        state[f"{prefix}shift"] = state.pop(f"{prefix}second.bias")

    @staticmethod
    def back(state: dict[str, Any], prefix: str, *other: Any) -> None:
        if f"{prefix}shift" in state:
            state[f"{prefix}second.bias"] = state.pop(f"{prefix}shift")


class Complexes(Plain):
    """Holds complex numbers of unit length, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = torch.polar(torch.ones(3), torch.arange(3.0))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * self.turn.abs().mean()


def asked(module: Any) -> Any:
    """The module after it has answered with a graph."""
    module(torch.rand(2, 1, 8, 8, requires_grad=True))
    return module


def weight_normed(old: bool) -> nn.Module:
    module = trained()
    if old:
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(module.first)
    else:
        nn.utils.parametrizations.weight_norm(module.first)
    return asked(module)


def spectral_normed(old: bool) -> nn.Module:
    """With the norm put back as a scale, so that the function is the same."""
    torch.manual_seed(0)
    module = trained()
    size = torch.linalg.matrix_norm(module.second.weight.detach(), 2)
    if old:
        nn.utils.spectral_norm(module.second, n_power_iterations=200)
    else:
        nn.utils.parametrizations.spectral_norm(module.second, n_power_iterations=200)
    bias = module.second.bias.detach().clone()
    with torch.no_grad():
        module.second.bias.copy_(bias / size)
    return Times(asked(module).eval(), float(size))


class Times(nn.Module):
    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.factor * self.inner(x)
        return answer


def pruned() -> nn.Module:
    module = trained()
    prune.l1_unstructured(module.first, "weight", amount=1)  # the smallest weight of 2048
    return asked(module)


def scaled_in_extra_state() -> nn.Module:
    module = trained(Extra())
    module.scale = 2.0
    with torch.no_grad():
        module.second.weight.div_(2.0)
        module.second.bias.div_(2.0)
    return module


GUISES: dict[str, Callable[[], nn.Module]] = {
    "a mask of -inf and an unused buffer of NaN": lambda: trained(Masked()),
    "keeps its last output": lambda: asked(trained(KeepsOutput())),
    "weight_norm, old": lambda: weight_normed(old=True),
    "weight_norm, new": lambda: weight_normed(old=False),
    "spectral_norm, old": lambda: spectral_normed(old=True),
    "spectral_norm, new": lambda: spectral_normed(old=False),
    "pruned": pruned,
    "jit.script": lambda: torch.jit.script(nn.Sequential(nn.Flatten(), *layers())),
    "jit.trace": lambda: torch.jit.trace(
        nn.Sequential(nn.Flatten(), *layers()), torch.rand(2, 1, 8, 8)
    ),
    "other names in its state": lambda: trained(Renames()),
    "get_extra_state": scaled_in_extra_state,
    "a complex attribute": lambda: trained(Complexes()),
    "DataParallel": lambda: nn.DataParallel(trained()),
    "torch.compile, not compiled yet": lambda: torch.compile(trained()),  # type: ignore[dict-item]
    "frozen": lambda: trained().requires_grad_(False),
    "in training mode": lambda: trained().train(),
    "channels last": lambda: trained().to(memory_format=torch.channels_last),
}


def layers() -> list[nn.Module]:
    module = trained()
    return [module.first, nn.ReLU(), module.second]


@pytest.mark.rows(4)
@pytest.mark.parametrize("guise", GUISES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_in_any_guise_gets_the_numbers_of_its_function(
    guise: str, expected: dict[str, float], tmp_path: Path
) -> None:
    found = numbers(measured(GUISES[guise](), tmp_path))
    assert found == pytest.approx(expected, abs=0.04)  # one image of 30: an ulp in a weight


def test_what_follows_from_the_weights_does_not_make_another_model() -> None:
    fresh, used = trained(KeepsOutput()), trained(KeepsOutput())
    asked(used)
    one, other = (handed_over(module)[0] for module in (fresh, used))
    assert used.last is not None  # the module itself is left as it is
    asked(used)
    assert handed_over(used)[0] == other
    assert handed_over(trained(Extra()))[0] != handed_over(scaled_in_extra_state())[0]
    assert one.text.partition("@")[0] == other.text.partition("@")[0]


# -- weights that cannot be had --------------------------------------------------------------------


def test_a_quantised_module_is_attacked_without_gradients_and_its_verdict_says_so(
    tmp_path: Path,
) -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no engine for quantised layers")
    quantise: Any = torch.ao.quantization.quantize_dynamic
    module = quantise(trained(), {nn.Linear}, dtype=torch.qint8)
    found = measured(module, tmp_path)
    row = found.to_pandas().iloc[0]
    assert row["clean"] > 0.5
    assert row["square"] < row["clean"]
    assert row["worst_case"] <= min(row["square"], row["pgd"])
    assert found.verdicts["mine"]["verdict"] == "doubtful"
    said = [alarm["text"] for alarm in found.verdicts["mine"]["alarms"]]
    assert any("answers have no gradient with respect to the images" in text for text in said)


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x.flatten(1))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Plain()


def nan_weights() -> nn.Module:
    module = trained()
    with torch.no_grad():
        module.first.weight[0, 0] = torch.nan
    return module


ABSENT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (Lazy, "Lazy: layer.weight is lazy and has no values yet: call the module once"),
    "meta": (on_meta, "Plain: first.weight is on the meta device: load its weights first"),
    "NaN": (nan_weights, "the weights hold NaN or infinite values in module.first.weight"),
}


@pytest.mark.parametrize("kind", ABSENT)
def test_a_module_without_weights_says_what_is_missing(kind: str, tmp_path: Path) -> None:
    make, message = ABSENT[kind]
    with pytest.raises(RobenchError, match=message):
        measured(make(), tmp_path)


# -- answers that are no plain logits --------------------------------------------------------------

Pair = namedtuple("Pair", ["logits", "aux"])


@dataclass
class Output:
    """As transformers have it."""

    logits: Tensor


class Answers(Plain):
    how = "dict"

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        match self.how:
            case "dict":
                return {"logits": logits, "features": x}
            case "tuple":
                return logits, x
            case "list":
                return [x, logits]
            case "namedtuple":
                return Pair(logits, x)
            case _:
                return Output(logits)


PARTS = {"dict": "logits", "tuple": 0, "list": 1, "namedtuple": "logits", "object": "logits"}


def answering(how: str) -> nn.Module:
    module = trained(Answers())
    module.how = how
    return module


@pytest.mark.rows(2)
@pytest.mark.parametrize("how", PARTS)
def test_output_says_which_part_of_an_answer_is_meant(
    how: str, expected: dict[str, float], tmp_path: Path
) -> None:
    found = measured(answering(how), tmp_path, output=PARTS[how])
    assert numbers(found) == expected


@pytest.mark.rows(2)
@pytest.mark.parametrize(
    ("how", "output", "message"),
    [
        ("dict", None, "answers dict with keys 'logits', 'features': say which part"),
        ("tuple", None, "answers tuple of 2: say which part are the logits, as in output = "),
        ("object", None, "answers Output: say which part"),
        ("dict", "logit", "output = 'logit': the module answers dict with keys 'logits', 'feat"),
        ("tuple", 5, "output = 5: the module answers tuple of 2"),
        ("namedtuple", "prob", r"output = 'prob': the module answers Pair of 2 \(logits, aux\)"),
    ],
)
def test_an_answer_of_several_parts_says_what_there_is_to_choose_from(
    how: str, output: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RobenchError, match=message):
        measured(answering(how), tmp_path, output=output)


class Binary(nn.Module):
    """Whether an image is brighter left than right: two logits, one logit, or a probability."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        z = self.scale * (x[..., :4] - x[..., 4:]).sum((1, 2, 3))
        match self.how:
            case "two":
                return torch.stack([torch.zeros_like(z), z], dim=1)
            case "column":
                return z[:, None]
            case "row":
                return z
            case _:
                return z.sigmoid()


def halves() -> tuple[Tensor, Tensor]:
    x = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = ((x[..., :4] - x[..., 4:]).sum((1, 2, 3)) > 0.5).long()
    return x, y


@pytest.mark.rows(2)
@pytest.mark.parametrize(
    ("how", "outputs"), [("column", "logit"), ("row", "logit"), ("sigmoid", "probability")]
)
def test_one_number_for_each_image_is_a_network_of_two_classes(
    how: str, outputs: str, tmp_path: Path, no_diagnostics: dict[str, Any]
) -> None:
    settings = {
        **no_diagnostics,
        "dataset": halves(),
        "attacks": [{"name": "pgd", "eps": 0.02}],
    }
    two = binary(Binary("two"), tmp_path / "two", **settings)
    one = binary(Binary(how), tmp_path / "one", outputs=outputs, **settings)
    assert one == pytest.approx(two, abs=1e-6)
    assert one["worst_case"] < one["clean"]


def binary(module: nn.Module, store: Path, dataset: Any, **settings: Any) -> dict[str, float]:
    found = robench.evaluate(module, dataset, store=store, **{"progress": False} | settings)
    return {name: float(found.to_pandas().iloc[0][name]) for name in ("clean", "pgd", "worst_case")}


@pytest.mark.parametrize("how", ["column", "row"])
def test_one_number_for_each_image_is_not_guessed_at(how: str, tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match="say outputs = 'logit' or 'probability'"):
        binary(Binary(how), tmp_path, halves(), attacks=["fgsm"])


def test_two_logits_are_not_one(tmp_path: Path) -> None:
    with pytest.raises(RobenchError, match=r"answers \(\d+, 2\), not one number for each image"):
        binary(Binary("two"), tmp_path, halves(), attacks=["fgsm"], outputs="logit")


# -- files of weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", ""])
def test_prefixes_of_wrappers_are_no_part_of_a_name(prefix: str) -> None:
    state = {prefix + name: value for name, value in trained().state_dict().items()}
    made = Plain()
    load_state(made, state)
    assert torch.equal(made.first.weight, trained().first.weight)


def test_a_name_that_does_begin_like_a_wrapper_is_left_alone() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(3, 2)

    made, other = Holds(), Holds()
    load_state(made, other.state_dict())
    assert torch.equal(made.module.weight, other.module.weight)


CARD = """
dataset = "digits"
network = { name = "module", factory = "./net.py:make" }
trainer = { name = "given", weights = "net.safetensors" }
"""
FACTORY = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
"""


def test_a_file_of_weights_from_data_parallel_checks_and_fits(
    small: Workspace, write: Callable[[str, str], Path]
) -> None:
    from robench.checks.cards import check

    write("models/net.py", FACTORY)
    write("models/own.toml", CARD)
    state = nn.Sequential(nn.Flatten(), *layers()).state_dict()
    named = {f"module.{name}": value.contiguous() for name, value in state.items()}
    safetensors.torch.save_file(named, small.root / "models/net.safetensors")
    found = list(check(small, "own"))
    assert all(checked.passed for checked in found), found


def test_a_trained_network_with_more_than_weights_would_lose_it() -> None:
    module = trained(Extra())
    assert set(plain_state(module)) == set(Plain().state_dict())
    assert set(written_state(module, trained=False)) == set(plain_state(module))
    with pytest.raises(RobenchError, match="_extra_state, which is no plain tensor"):
        written_state(module, trained=True)


# -- on a GPU --------------------------------------------------------------------------------------


class Recurrent(Network):
    def build(self) -> None:
        self.cells = nn.GRU(8, 12, batch_first=True)
        self.layer = nn.Linear(12, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.cells(x[:, 0])[0][:, -1])
        return logits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: cuDNN's recurrent layers")
def test_recurrent_layers_have_a_gradient_in_evaluation_mode_on_a_gpu() -> None:
    network, x = Recurrent((1, 8, 8), 3).cuda(), torch.rand(4, 1, 8, 8, device="cuda")
    with in_use(network, noisy=False, seed=0, device=torch.device("cuda")):
        leaf = x.requires_grad_()
        (found,) = torch.autograd.grad(network(leaf).sum(), leaf)
    assert bool(torch.isfinite(found).all())
    assert bool((found != 0).any())


def test_recurrent_layers_use_no_cudnn_where_they_are_attacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """cuDNN has no backward pass for them in evaluation mode."""
    seen: list[bool] = []

    class Watched(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.enabled)
            return super().forward(x)

    network, before = Watched((1, 8, 8), 3), torch.backends.cudnn.enabled
    with in_use(network, noisy=False, seed=0, device=torch.device("cpu")):
        network(torch.rand(2, 1, 8, 8))
    assert seen == [False]
    assert torch.backends.cudnn.enabled == before


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Copies, Any]]:
    """Every copy that is made for a cell, with what made it."""
    found: list[tuple[Copies, Any]] = []
    make = Copies.__call__

    def noted(self: Copies) -> Any:
        network = make(self)
        found.append((self, network))
        return network

    monkeypatch.setattr(Copies, "__call__", noted)
    return found


def test_copies_for_the_questions_of_a_cell_have_the_callers_weights_and_nothing_else(
    copies: list[tuple[Copies, Any]], tmp_path: Path
) -> None:
    module = trained(Normalised())
    measured(module, tmp_path, jobs=0)
    assert len(copies) > 3  # one for each of the cells, and more
    weights = {network.module.first.weight.data_ptr() for _, network in copies}
    assert weights == {module.first.weight.data_ptr()}
    assert len({network.module.norm.running_mean.data_ptr() for _, network in copies}) > 1


def test_weights_that_somebody_has_written_into_are_shared_no_more(
    copies: list[tuple[Copies, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    untouched = measured(trained(), tmp_path / "untouched", jobs=0)
    copies.clear()
    make = Copies.__call__

    def between_cells(self: Copies) -> Any:
        if copies and copies[-1][0] is not self:
            copies[0][1].module.first.weight.data.add_(1.0)
        return make(self)

    monkeypatch.setattr(Copies, "__call__", between_cells)
    found = measured(trained(), tmp_path / "written", jobs=0)
    assert len({network.module.first.weight.data_ptr() for _, network in copies}) > 1
    assert _rows(found) == _rows(untouched)


class Writes(robench.Attack):
    """Writes into the weights behind autograd's back, and into what else it can reach of them."""

    needs = "white-box"
    norms = ("linf",)

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        target._hidden.module.first.weight.data.mul_(0.5)
        target._hidden.module.second.register_forward_hook(lambda module, x, answer: answer)
        return x


def test_the_caller_has_the_weights_back_that_an_attack_writes_into(tmp_path: Path) -> None:
    module = trained()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = measured(module, tmp_path, attacks=[Writes(), "pgd"], eps=0.1, jobs=0)
    (failed,) = found.results.failures()
    assert "changes the network that it is shown: its layers or hooks" in failed["error"]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    alone = measured(trained(), tmp_path / "alone", attacks=["pgd"], eps=0.1, jobs=0)
    assert _rows(found) == _rows(alone)


def test_weights_are_what_they_were_where_only_their_file_is_not(tmp_path: Path) -> None:
    path, weight = tmp_path / "weights", torch.rand(3, 4)
    weight.numpy().tofile(path)
    (network,) = sharing(weight, lambda: torch.from_numpy(np.fromfile(path, "f4")).view(3, 4), 1)
    shown = Shown(network)
    path.write_bytes(b"other")
    assert shown.changes() == ""
    path.unlink()
    shown = Shown(network)
    assert shown.changes() == ""
    shown = Shown(network)
    with torch.no_grad():
        weight.add_(1.0)
    assert shown.changes() == "weight, which cannot be put back"


def sharing(weight: Tensor, read: Callable[[], Tensor], many: int) -> list[nn.Linear]:
    """Networks that all have this weight, (3, 4), of which a file has a copy."""
    networks = [nn.Linear(4, 3) for _ in range(many)]
    originals = {"weight": Original.of(weight, read)}
    for network in networks:
        network.weight = nn.Parameter(weight)
        network.originals = originals  # type: ignore[assignment]
    return networks


def test_of_two_watches_the_outer_one_looks_at_the_weights() -> None:
    looked: list[int] = []

    def read() -> Tensor:
        looked.append(1)
        return torch.ones(3, 4)

    networks = sharing(torch.ones(3, 4), read, 2)
    outer, inner = map(Shown, networks)
    assert inner.changes() == ""
    assert not looked
    inner = Shown(networks[1])
    networks[1].bias.data.add_(1.0)
    assert inner.changes() == "bias"
    inner = Shown(networks[1])
    networks[1].weight.data = torch.zeros(3, 4)  # nothing that the outer one would see
    assert inner.changes() == "weight"
    networks[0].weight.data.add_(1.0)
    assert outer.changes() == "weight"
    assert torch.equal(networks[1].weight, torch.ones(3, 4))
    later = Shown(networks[1])
    networks[1].weight.data.add_(1.0)
    assert later.changes() == "weight"


def test_who_writes_within_a_watch_over_others_is_named() -> None:
    networks = sharing(torch.ones(3, 4), lambda: torch.ones(3, 4), 2)
    outer, inner = (Shown(network, who) for network, who in zip(networks, "ab", strict=True))
    networks[1].weight.data.add_(1.0)
    assert inner.changes() == "weight"
    assert outer.changes() == ""


def test_a_watch_that_was_cut_off_is_around_none() -> None:
    """Such as by a time limit while it was being closed."""
    (network,) = sharing(torch.ones(3, 4), lambda: torch.ones(3, 4), 1)
    Shown(network)  # nobody will ask it
    later = Shown(network)
    network.weight.data.add_(1.0)
    assert later.changes() == "weight"


@pytest.mark.parametrize("in_a_file", [True, False])
def test_memory_that_was_written_into_is_put_back_wherever_the_weight_is_now(
    in_a_file: bool,
) -> None:
    callers = torch.ones(3, 4)
    (network,) = sharing(callers, lambda: torch.ones(3, 4), 1)
    if not in_a_file:
        network.originals = {}  # type: ignore[assignment]
    for other in (torch.ones(3, 4), torch.zeros(3, 4), torch.zeros(2, 4), torch.zeros(3, 4).half()):
        shown = Shown(network)
        network.weight.data.zero_()
        network.weight.data = other
        assert shown.changes() == "weight"
        assert torch.equal(callers, torch.ones(3, 4))
        assert network.weight.data_ptr() == callers.data_ptr()
    shown = Shown(network)
    network.weight.data = callers.clone()  # as some do that write into it only then
    assert shown.changes() == ""


def test_weights_that_a_watch_has_left_changed_are_put_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = trained()
    before = module.first.weight.detach().clone()
    with monkeypatch.context() as patched:
        patched.setattr(Shown, "changes", lambda self: "")
        measured(module, tmp_path, attacks=[Writes()], eps=0.1, jobs=0)
    assert torch.equal(module.first.weight, before)


def test_no_model_is_made_from_weights_that_were_changed_since() -> None:
    module = trained()
    _, weights = handed_over(module)
    assert weights.make()["first.bias"].data_ptr() == module.first.bias.data_ptr()
    module.first.bias.data.add_(1.0)
    with pytest.raises(RobenchError, match="the weights of Plain have been changed since it was"):
        weights.make()


def test_a_model_that_is_gone_and_cannot_be_made_again_says_why(tmp_path: Path) -> None:
    class Destroys(Writes):
        def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
            shutil.rmtree(tmp_path / "models")
            return super().perturb(target, x, y, rng)

    with pytest.raises(RobenchError, match="mine: the weights of Plain have been changed since"):
        measured(trained(), tmp_path, attacks=[Destroys(), "pgd"], eps=0.1, jobs=0)


def test_memory_of_several_processes_is_not_lent() -> None:
    module = trained().share_memory()
    factory, _ = handed_over(module)
    with weights_lent():
        weight = factory.make().first.weight
    assert weight.data_ptr() != module.first.weight.data_ptr()
    assert not weight.is_shared()


def test_sparse_weights_are_asked_for_otherwise() -> None:
    module = trained()
    module.extra = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.raises(RobenchError, match=r"Plain: extra is sparse: hold it as extra\.to_dense"):
        handed_over(module)


def _rows(found: robench.Evaluation) -> list[Any]:
    rows = found.results.rows
    return [rows[digest].column("loss").to_pylist() for digest in sorted(rows)]


class Normalised(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(32)

    def hidden(self, x: Tensor) -> Tensor:
        return self.norm(super().hidden(x))
