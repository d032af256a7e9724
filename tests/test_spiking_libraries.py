"""Networks of snntorch, spikingjelly and norse: recognised, fresh before every question, attacked
as our own are."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robench
from robench.attacks.ball import Ball
from robench.attacks.gradient import PGD
from robench.attacks.spikes import Spikes
from robench.attacks.target import WhiteBoxTarget
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.modules.module import Module
from robench.networks.modules.spiking import OWN, ForeignStep
from robench.networks.operations import counted
from robench.networks.snn import SNN
from robench.networks.surrogate import SWEEP, surrogate
from robench.show.report.spiking import spikes
from robench.trainers.stbp import STBP
from robench.workspace.folders import reference_root
from robench.workspace.plugins import Located

STEPS, DECAY, THRESHOLD = 5, 0.2, 0.5


def library(name: str) -> Any:
    """The library's module, or a skip that says what is not installed."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def digits() -> Any:
    return Digits().load()


@pytest.fixture(scope="module")
def own(digits: Any) -> SNN:
    """Trained by STBP, one hidden layer of 30 neurons."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SNN((1, 8, 8), 10, hidden=(30,), learned_sigma=False)
    trainer = STBP(epochs=15, lr=2e-3, batch_size=50, surrogate="rectangle:1")
    trainer.fit(network, digits, torch.Generator().manual_seed(0), lambda share, words: None)
    return network.eval().requires_grad_(False)


def weights(network: nn.Module) -> list[Tensor]:
    return [weight for weight in network.parameters() if weight.dim() == 2]


class OfSnntorch(nn.Module):
    """One step at a time; its neurons keep their potentials."""

    def __init__(self) -> None:
        super().__init__()
        snntorch = library("snntorch")
        settings = {"threshold": THRESHOLD, "reset_mechanism": "zero", "init_hidden": True}
        self.first, self.second = nn.Linear(64, 30, bias=False), nn.Linear(30, 10, bias=False)
        self.lif1, self.lif2 = (snntorch.Leaky(beta=DECAY, **settings) for _ in range(2))

    def forward(self, x: Tensor) -> Any:
        return self.lif2(self.second(self.lif1(self.first(x.flatten(1)))))


class KeepsTime(OfSnntorch):
    """As in snntorch's tutorials: loops over time, resets, records spikes and potentials."""

    def __init__(self, answers: str = "both") -> None:
        super().__init__()
        self.answers = answers
        self.lif2.output = True

    def forward(self, x: Tensor) -> Any:
        importlib.import_module("snntorch.utils").reset(self)
        spikes, potentials = [], []
        for _ in range(STEPS):
            spike, potential = self.lif2(self.second(self.lif1(self.first(x.flatten(1)))))
            spikes.append(spike)
            potentials.append(potential)
        if self.answers == "sum":
            return torch.stack(spikes).sum(0)
        return torch.stack(spikes), torch.stack(potentials)


def of_spikingjelly(mode: str) -> nn.Module:
    base = library("spikingjelly.activation_based.neuron")
    layer = importlib.import_module("spikingjelly.activation_based.layer")
    # tau = 1 / (1 - decay): the potential decays towards the reset by its share.
    settings = {"tau": 1 / (1 - DECAY), "decay_input": False, "v_threshold": THRESHOLD}
    return nn.Sequential(
        layer.Flatten(step_mode=mode),
        layer.Linear(64, 30, bias=False, step_mode=mode),
        base.LIFNode(**settings, v_reset=0.0, step_mode=mode),
        layer.Linear(30, 10, bias=False, step_mode=mode),
        base.LIFNode(**settings, v_reset=0.0, step_mode=mode),
    )


def of_norse() -> nn.Module:
    norse: Any = library("norse.torch")
    # Box neurons: v' = v + dt tau (leak - v + input), so that 1 - dt tau is the decay.
    p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(800.0), v_th=torch.tensor(THRESHOLD))
    return norse.SequentialState(  # type: ignore[no-any-return]
        nn.Flatten(),
        nn.Linear(64, 30, bias=False),
        norse.LIFBoxCell(p),
        nn.Linear(30, 10, bias=False),
        norse.LIFBoxCell(p),
    )


LIBRARIES: dict[str, Callable[[], nn.Module]] = {
    "snntorch": OfSnntorch,
    "spikingjelly, single-step": partial(of_spikingjelly, "s"),
    "spikingjelly, multi-step": partial(of_spikingjelly, "m"),
    "norse": of_norse,
}
KEEPING = [name for name in LIBRARIES if name != "norse"]
"""norse hands the state in and out."""


def with_weights_of(network: SNN, make: Callable[[], nn.Module]) -> nn.Module:
    made = make()
    scale = 0.8 if "norse" in type(made).__module__ else 1.0  # dt tau, by which it takes its input
    with torch.no_grad():
        for weight, wanted in zip(weights(made), weights(network), strict=True):
            weight.copy_(wanted / scale)
    return made


def as_network(make: Callable[[], nn.Module], **settings: Any) -> Module:
    source = Located("it@here", make)
    return Module((1, 8, 8), 10, factory=source, **settings).eval().requires_grad_(False)


def like(network: SNN, name: str, readout: str = "last", **settings: Any) -> Module:
    make = partial(with_weights_of, network, LIBRARIES[name])
    return as_network(make, steps=STEPS, readout=readout, **settings)


def reading(network: SNN, readout: Any) -> SNN:
    again = SNN((1, 8, 8), 10, hidden=(30,), learned_sigma=False, readout=readout)
    again.load_state_dict(network.state_dict())
    return again.eval().requires_grad_(False)


@pytest.mark.parametrize("readout", ["last", "rate"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_same_weights_give_the_same_answers(
    own: SNN, digits: Any, name: str, readout: str
) -> None:
    x = torch.from_numpy(digits.test.images[:200])
    ours, theirs = reading(own, readout)(x), like(own, name, readout)(x)
    # A potential at the threshold may fall on either side of it, and few do.
    assert int((ours - theirs).abs().amax(1).gt(1e-4).sum()) <= 1
    assert int((ours.argmax(1) != theirs.argmax(1)).sum()) <= 1


def attacked(network: Network, digits: Any) -> tuple[Tensor, Tensor]:
    """Images as spikes leaves them, and their labels."""
    x, y = (torch.from_numpy(part[:40]) for part in (digits.test.images, digits.test.labels))
    target = WhiteBoxTarget(network, Ball("linf", 0.05), len(x))
    return Spikes().perturb(target, x, y, torch.Generator().manual_seed(0)), y


@pytest.fixture(scope="module")
def own_attacked(own: SNN, digits: Any) -> tuple[Tensor, Tensor]:
    return attacked(own, digits)


@pytest.mark.rows(1)
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_same_weights_give_the_same_worst_case(
    own: SNN, own_attacked: tuple[Tensor, Tensor], digits: Any, name: str
) -> None:
    theirs = like(own, name)
    found = [own_attacked[0], attacked(theirs, digits)[0]]
    y = own_attacked[1]
    # Attacks part where numbers are rounded otherwise: what either finds counts for both.
    left = [
        int(torch.stack([network(x_adv).argmax(1) == y for x_adv in found]).all(0).sum())
        for network in (own, theirs)
    ]
    alone = int((theirs(found[1]).argmax(1) == y).sum())
    assert abs(left[0] - left[1]) <= 1
    assert alone - left[1] <= 3
    assert 5 < left[0] < 35


@pytest.mark.parametrize("chosen", [*SWEEP, "adaptive", "one-sided"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_surrogates_replace_those_of_the_library(
    own: SNN, digits: Any, name: str, chosen: str
) -> None:
    from robench.networks.adaptive import AdaptiveSurrogate

    x, y = (torch.from_numpy(part[:8]) for part in (digits.test.images, digits.test.labels))
    gradients = []
    for network in (own, like(own, name)):
        used = AdaptiveSurrogate(chosen, len(x)) if ":" not in chosen else chosen
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        answer = target.gradient(x, y, surrogate=used, on="potential", through_reset=False)
        gradients.append(answer.gradient)
    largest = float(gradients[0].abs().max())
    assert largest > 0
    # All but those of an image that rounding puts on the other side of a threshold.
    alike = torch.isclose(gradients[1], gradients[0], rtol=1e-2, atol=1e-3 * largest)
    assert int(alike.flatten(1).all(1).sum()) >= len(x) - 1


@pytest.mark.parametrize("name", LIBRARIES)
def test_without_a_choice_the_library_s_own_derivative_is_used(own: SNN, name: str) -> None:
    network = like(own, name)
    steps = [module for module in network.modules() if isinstance(module, ForeignStep)]
    assert len(steps) == 2
    with surrogate(network, "arctan:2"):
        assert all(step.surrogate.name == "arctan" for step in steps)
    assert all(step.surrogate is OWN for step in steps)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = WhiteBoxTarget(network, Ball("linf", 0.1), 4)
    y = torch.zeros(4, dtype=torch.long)
    own_one = target.gradient(x, y, on="potential").gradient
    other = target.gradient(x, y, on="potential", surrogate="rectangle:0.05").gradient
    assert not torch.allclose(own_one, other)


@pytest.mark.parametrize("name", KEEPING)
def test_a_network_that_keeps_its_state_is_reset_before_every_question(
    own: SNN, digits: Any, name: str
) -> None:
    x = torch.from_numpy(digits.test.images[:20])
    raw = with_weights_of(own, LIBRARIES[name]).eval()
    asked = (lambda: raw(torch.stack([x] * STEPS))) if "multi" in name else (lambda: raw(x))
    assert not torch.equal(asked(), asked())  # it does keep it
    network = like(own, name)
    first = network(x)
    network(torch.rand(7, 1, 8, 8))
    assert torch.equal(network(x), first)
    torch.testing.assert_close(torch.cat([network(x[:3]), network(x[3:])]), first)
    assert "keeps its state" in network.notes(x)[0]


def test_one_that_hands_its_state_out_keeps_none(own: SNN, digits: Any) -> None:
    assert like(own, "norse").notes(torch.from_numpy(digits.test.images[:20])) == ()


def test_state_that_no_library_knows_of_is_reset_too() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.register_buffer("potential", torch.zeros(10))
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x.flatten(1)) + self.potential + len(self.seen)
            self.potential += out.detach().mean(0)
            self.seen.append(out)
            return out

    network = as_network(Remembers)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first = network(x)
    assert torch.equal(network(x), first)
    assert "keeps its state from one call to the next (potential, seen)" in network.notes(x)[0]
    assert network.module.seen == []


def test_one_that_resets_itself_is_not_said_to_keep_its_state(own: SNN, digits: Any) -> None:
    library("snntorch")
    make = partial(with_weights_of, own, KeepsTime)
    assert as_network(make).notes(torch.from_numpy(digits.test.images[:20])) == ()


@pytest.mark.parametrize("readout", ["rate", "last", "membrane"])
def test_series_of_outputs_are_read(own: SNN, digits: Any, readout: Any) -> None:
    library("snntorch")
    x = torch.from_numpy(digits.test.images[:100])
    theirs = as_network(partial(with_weights_of, own, KeepsTime), readout=readout)
    ours = reading(own, readout)(x)
    assert int((theirs(x).argmax(1) != ours.argmax(1)).sum()) <= 1


def test_counts_of_spikes_lend_the_gradient_of_the_potential(own: SNN, digits: Any) -> None:
    library("snntorch")
    network = as_network(partial(with_weights_of, own, partial(KeepsTime, "sum")))
    x = torch.from_numpy(digits.test.images[:20])
    logits, potential = network.readings(x)
    assert torch.equal(logits, network(x))
    torch.testing.assert_close(potential, logits)


def test_poisson_input_draws_anew_from_the_network_s_generator(own: SNN, digits: Any) -> None:
    library("snntorch")
    network: Network = like(own, "snntorch", readout="rate", encoding="poisson")
    assert network.random_input
    x = torch.from_numpy(digits.test.images[:50])
    answers = []
    for seed in (0, 0, 1):
        network.generator = torch.Generator().manual_seed(seed)
        answers.append(network(x))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_an_encoding_needs_steps(own: SNN) -> None:
    library("snntorch")
    with pytest.raises(RobenchError, match="steps = 8"):
        as_network(OfSnntorch, encoding="poisson")


@pytest.mark.parametrize("name", LIBRARIES)
def test_it_says_how_often_its_neurons_fire_and_what_that_costs(
    own: SNN, digits: Any, name: str
) -> None:
    x = torch.from_numpy(digits.test.images[:50])
    ours, theirs = own.activity(x), like(own, name).activity(x)
    for layer in ("spike_rate_1", "spike_rate_2"):
        assert theirs[layer] == pytest.approx(ours[layer], abs=1e-3)
    fired = ours["spike_rate_1"] * 30 * STEPS
    assert theirs["synaptic_operations"] == pytest.approx(fired * 10, rel=1e-2)
    assert theirs["multiply_accumulates"] == 64 * 30 * STEPS


def test_operations_are_counted_where_spikes_arrive() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    x = (torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    with counted(layers) as operations:
        hidden = layers[0](x).detach()
    # By hand: a weight of one at a time, and the outputs that it changes.
    reached = 0
    for _, channel, row, column in torch.nonzero(x).tolist():
        alone = torch.zeros_like(x[:1])
        alone[0, channel, row, column] = 1
        with torch.no_grad():
            reached += int((layers[0](alone) != 0).sum())
    assert operations.additions == reached
    with counted(layers) as operations:
        layers[2](hidden.flatten(1))
    assert operations.for_each(3) == {
        "synaptic_operations": 0.0,
        "multiply_accumulates": 64 * 3,
    }


@pytest.mark.rows(1)
@pytest.mark.parametrize("name", ["snntorch", "spikingjelly, multi-step"])
def test_evaluate_takes_it_as_it_is(own: SNN, name: str, tmp_path: Path) -> None:
    module = with_weights_of(own, LIBRARIES[name])
    settings: dict[str, Any] = {
        "steps": STEPS,
        "readout": "last",
        "attacks": [{"name": "pgd", "steps": 5, "eps": 0.05, "surrogate": "arctan:2"}],
        "images": 40,
        "progress": False,
        "store": tmp_path,
        "name": "theirs",
    }
    found = robench.evaluate(module, "digits", **settings)
    assert found.clean > 0.7
    assert found.worst_case < found.clean
    assert "keeps its state" in str(found)
    command = found.results.manifest["command"]
    assert command.startswith("robench.evaluate(theirs, dataset='digits', report=")
    assert "'surrogate': 'arctan:2'}], images=40, steps=5, readout='last')" in command
    (row,) = spikes(found.results)
    assert (row.attack == "") == (row.zero_gradient == 0)
    additions, multiplications = row.synaptic_operations, row.multiply_accumulates
    assert additions is not None
    assert multiplications == 64 * 30 * STEPS
    assert row.energy_nj == pytest.approx((0.9 * additions + 4.6 * multiplications) / 1000)
    assert len(row.rates) == 2
    assert 'id="spikes"' in found.to_html(tmp_path / "page.html").read_text()
    # What it was asked before does not make it another network.
    module(torch.rand(*([STEPS] if "multi" in name else []), 3, 1, 8, 8))
    again = robench.evaluate(module, "digits", **settings)
    assert again.results.models[0]["fields"] == found.results.models[0]["fields"]


@pytest.mark.rows(0)
def test_the_lines_of_the_readme_run(tmp_path: Path) -> None:
    library("snntorch")
    blocks = re.findall(r"```python\n(.*?)```", (reference_root() / "README.md").read_text(), re.S)
    (code,) = [block for block in blocks if "import snntorch" in block]
    code = code.replace("eps=0.1)", "eps=0.1, images=20, progress=False, store=store)")
    told: dict[str, Any] = {"store": tmp_path}
    exec(code, told)
    result = told["result"]
    assert not result.results.failures()
    assert {threat["name"] for threat in result.results.attacks} >= {"strong/spikes", "pgd"}
    assert "keeps its state from one call to the next (modules 2, 4)" in str(result)
    command = result.results.manifest["command"]
    assert command.endswith("dataset='digits', report='spikes', eps=0.1, images=20, steps=8)")


def test_poisson_input_is_attacked_through_its_expectation(own: SNN, digits: Any) -> None:
    library("snntorch")
    network = like(own, "snntorch", readout="rate", encoding="poisson")
    x, y = (torch.from_numpy(part[:20]) for part in (digits.test.images, digits.test.labels))

    def left(images: Tensor) -> float:
        network.generator = torch.Generator().manual_seed(1)
        return float(
            torch.stack([network(images).argmax(1) == y for _ in range(16)]).float().mean()
        )

    network.generator = torch.Generator().manual_seed(0)
    target = WhiteBoxTarget(network, Ball("linf", 0.15), len(x))
    attack = PGD(steps=10, eot=10, loss="margin", on="potential", surrogate="arctan:2")
    x_adv = attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
    signs = torch.empty_like(x).normal_(generator=torch.Generator().manual_seed(2)).sign()
    floor = left((x + 0.15 * signs).clamp(0, 1))
    assert floor > 0.6
    assert left(x_adv) < floor - 0.2
