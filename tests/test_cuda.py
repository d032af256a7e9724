"""On a GPU: what the CPU computes, to rounding, and the same bits from the same seed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from small_graph import built, items
from small_runs import Ears
from torch import Tensor
from torch.nn import functional as F

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, MIM, PGD
from robench.attacks.nattack import NAttack
from robench.attacks.square import Square
from robench.attacks.target import WhiteBoxTarget
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.run_state import Run, open_run
from robench.make.scheduler import execute
from robench.networks import replay
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN
from robench.store.store import Store
from robench.trainers.base import Trainer
from robench.trainers.likelihood_ratio import LikelihoodRatio
from robench.workspace import plugins
from robench.workspace.folders import Workspace
from robench.workspace.plan import make_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {}),
    "snn": ("snn", {"readout": "membrane"}),
    "snn-convolutional": ("snn", {"readout": "membrane", "convolutions": [4]}),
    "cnn": ("cnn", {}),
    "rnn": ("rnn", {}),
}
TRAINERS: list[tuple[str, str, dict[str, Any]]] = [
    ("bp", "mlp", {}),
    ("adversarial", "mlp", {"eps": 0.1}),
    ("glr", "mlp", {"copies": 60}),
    ("lr", "mlp", {"copies": 16, "layer_wise": True}),
    ("stbp", "snn", {}),
    ("stbp-n", "snn", {}),
    ("nit", "snn", {"copies": 8}),
    ("nit-s", "snn", {"copies": 8}),
]


def fresh(kind: str, **settings: Any) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Network = plugins.load("networks", kind)((1, 8, 8), 10, **settings)
    return network


def digits(images: int, device: torch.device) -> tuple[Tensor, Tensor]:
    test = Digits().load().test
    x, y = torch.from_numpy(test.images[:images]), torch.from_numpy(test.labels[:images])
    return x.to(device), y.to(device)


def trained(trainer: str, kind: str, settings: dict[str, Any], device: torch.device) -> Network:
    network = fresh(kind).to(device)
    made: Trainer = plugins.load("trainers", trainer)(epochs=2, lr=5e-3, **settings)
    made.fit(network, Digits().load(), torch.Generator(device).manual_seed(0), lambda *told: None)
    return network.eval().requires_grad_(False)


def slope(network: Network, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), leaf)
    return logits.detach().cpu(), grad.cpu()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_answer_as_on_the_cpu(name: str) -> None:
    kind, settings = NETWORKS[name]
    network = fresh(kind, **settings).eval()
    here = slope(network, *digits(100, CPU))
    there = slope(network.to(CUDA), *digits(100, CUDA))
    for ours, theirs in zip(here, there, strict=True):
        # A potential that rounding moves over its threshold makes another spike.
        alike = torch.isclose(ours, theirs, rtol=1e-3, atol=1e-5).flatten(1).all(1)
        assert alike.float().mean() >= (0.97 if kind == "snn" else 1)


@pytest.mark.parametrize("kind", ["gcn", "gat"])
def test_graph_networks_answer_as_on_the_cpu(kind: str) -> None:
    network = built(plugins.load("networks", kind)).eval()
    ours = network(items()).detach()
    torch.testing.assert_close(network.to(CUDA)(items().to(CUDA)).detach().cpu(), ours)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=10, step_size=0.02),
        MIM(steps=10, step_size=0.02),
        APGD(steps=10),
        Square(queries=100),
        NAttack(iterations=10, population=40),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks_are_as_strong_as_on_the_cpu(attack: Attack) -> None:
    network = trained("bp", "mlp", {}, CPU)
    left = []
    for device in (CPU, CUDA, CUDA):
        x, y = digits(200, device)
        target = WhiteBoxTarget(network.to(device), Ball("linf", 0.1), len(x))
        x_adv = attack.perturb(target, x, y, torch.Generator(device).manual_seed(0))
        assert x_adv.device == x.device
        left.append((x_adv.cpu(), float((network(x_adv).argmax(1) == y).float().mean())))
    (_, here), (first, there), (second, _) = left
    assert here < 0.9  # the attack does something
    assert there == pytest.approx(here, abs=0.01 if not attack.randomised else 0.06)
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", ["mlp", "snn", "snn-convolutional", "cnn", "rnn"])
@pytest.mark.parametrize("noisy", [False, True])
def test_recorded_passes_are_the_same_bits(
    kind: str, noisy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings = NETWORKS[kind]
    torch.backends.cudnn.deterministic = True  # as runs do
    network = fresh(name, **settings).to(CUDA).eval().requires_grad_(False)
    if noisy and not network.noisy:
        pytest.skip("has no noisy layers")
    x, y = digits(60, CUDA)
    found = []
    for recorded in (False, True):
        monkeypatch.setattr(replay, "enabled", recorded)
        source = GaussianNoise(torch.Generator(CUDA).manual_seed(0)) if noisy else None
        with noise(network, source):
            for attack in (PGD(steps=12, eot=3), Square(queries=12), APGD(steps=12, targets=2)):
                target = WhiteBoxTarget(network, Ball("linf", 0.05), len(x))
                rng = torch.Generator(CUDA).manual_seed(0)
                found.append(attack.perturb(target, x, y, rng))
            made = target._replays._made.values() if target._replays else []
            assert bool(made) == recorded
            assert all(recording is not None for recording in made)
    assert all(map(torch.equal, found[:3], found[3:]))


def test_a_pass_that_python_makes_random_is_not_replayed() -> None:
    class Moody(MLP):
        recordable = True

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + random.random()

    network = Moody((1, 8, 8), 10).to(CUDA).eval().requires_grad_(False)
    target = WhiteBoxTarget(network, Ball("linf", 0.05), 30)
    x, _ = digits(30, CUDA)
    assert len({float(target.logits(x).sum()) for _ in range(10)}) == 10
    assert target._replays is not None
    assert list(target._replays._made.values()) == [None]


def test_a_pass_that_waits_for_the_device_is_refused_and_harms_nothing() -> None:
    class Slow(MLP):
        recordable = True

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.amax() > 0)

    network = Slow((1, 8, 8), 10).to(CUDA).eval().requires_grad_(False)
    x, _ = digits(30, CUDA)
    target = WhiteBoxTarget(network, Ball("linf", 0.05), 30)
    for _ in range(replay.PATIENCE):
        target.logits(x)
    with pytest.raises(RobenchError, match="recordable = True"):
        target.logits(x)
    rng = torch.Generator(CUDA).manual_seed(0)
    assert torch.rand(3, generator=rng, device=CUDA).isfinite().all()
    assert torch.rand(3, device=CUDA).isfinite().all()


@pytest.mark.parametrize(("trainer", "kind", "settings"), TRAINERS, ids=lambda part: str(part)[:12])
def test_replayed_updates_are_the_same_bits(
    trainer: str, kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = trained(trainer, kind, settings, CUDA).state_dict()
    monkeypatch.setattr(replay, "enabled", False)
    step_by_step = trained(trainer, kind, settings, CUDA).state_dict()
    assert all(torch.equal(replayed[key], step_by_step[key]) for key in replayed)


@pytest.mark.parametrize(
    "trainer", ["bp", "bp-n", "glr", "nit", "nit-s", "nit-s+", "stbp", "stbp-n"]
)
def test_updates_are_recorded(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    record = replay._Recording.__init__

    def noted(self: Any, *given: Any) -> None:
        record(self, *given)
        made.append(self)

    monkeypatch.setattr(replay._Recording, "__init__", noted)
    kind = "mlp" if trainer in ("bp", "bp-n", "glr") else "snn"
    trained(trainer, kind, {}, CUDA)
    assert len(made) == 2  # one in each epoch


@pytest.mark.parametrize(("trainer", "kind", "settings"), TRAINERS, ids=lambda part: str(part)[:12])
def test_training_gives_the_same_bits_every_time(
    trainer: str, kind: str, settings: dict[str, Any]
) -> None:
    first, second = (trained(trainer, kind, settings, CUDA).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(value.isfinite().all() for value in first.values())


@pytest.mark.parametrize("pairing", ["none", "antithetic", "factorial"])
def test_likelihood_ratio_gradients_agree_with_the_cpus(pairing: Any) -> None:
    """Other numbers are drawn there: the two estimates agree as two estimates do."""
    gradients = []
    for device in (CPU, CUDA):
        network = fresh("mlp", hidden=[12], sigma=1.0).to(device)
        x, y = digits(20, device)
        estimator = LikelihoodRatio(copies=20_000, pairing=pairing)
        rng = torch.Generator(device).manual_seed(0)
        estimator.backward(network, x, y, cross_entropy_rows, rng)
        gradients.append(network.layers[1].op.weight.grad.cpu().flatten())
    assert F.cosine_similarity(*gradients, dim=0) > 0.97


def test_noise_has_the_layers_standard_deviation() -> None:
    network = fresh("mlp", hidden=[8], sigma=0.5).to(CUDA)
    assert isinstance(network, MLP)
    layer, drive = network.layers[0], torch.zeros(20_000, 8, device=CUDA)
    with noise(network, GaussianNoise(torch.Generator(CUDA).manual_seed(0))):
        eps = layer.inject(drive)
    assert float(eps.std()) == pytest.approx(0.5, rel=0.01)


def test_spikes_and_their_derivatives_follow_the_same_noise_as_on_the_cpu() -> None:
    network = fresh("snn", readout="membrane")
    assert isinstance(network, SNN)
    drawn = [torch.randn(5, 1, 30, size) for size in (50, 10)]

    class Given(GaussianNoise):
        def __init__(self, device: torch.device) -> None:
            super().__init__(torch.Generator(device).manual_seed(0))
            self.left = [eps.to(device) for eps in drawn]

        def _noisy(self, layer: Any, drive: Tensor, steps: int) -> Tensor:
            return torch.addcmul(drive[:, None], layer.sigma, self.left.pop(0)).flatten(1, 2)

    answers = []
    for device in (CPU, CUDA):
        with noise(network.to(device), Given(device)):
            answers.append(slope(network, *digits(30, device)))
    alike = torch.isclose(answers[0][1], answers[1][1], rtol=1e-3, atol=1e-5).flatten(1).all(1)
    assert alike.float().mean() > 0.95


def test_a_run_gives_the_same_outcomes_every_time(small: Workspace) -> None:
    plan, stores = make_plan(small, "small", ()), []
    for name in ("first", "second"):
        store = Store(str(small.root / name))
        run: Run = open_run(plan, store, "cuda")
        execute(run, Ears())
        assert not run.failures
        stores.append([store.read_cell(run.digests[cell]) for cell in plan.cells])
    for ours, theirs in zip(*stores, strict=True):
        assert ours.rows.equals(theirs.rows)
        assert ours.provenance["environment"]["device"] == "cuda"


def test_outcomes_are_those_of_the_cpu_to_a_few_images(small: Workspace) -> None:
    plan, right = make_plan(small, "small", ()), []
    for device in ("cpu", "cuda"):
        run = open_run(plan, Store(str(small.root / device)), device)
        execute(run, Ears())
        outcomes = [run.store.read_cell(run.digests[cell]) for cell in plan.cells]
        right.append([np.mean(outcome.rows["correct"].to_numpy()) for outcome in outcomes])
    assert right[0] == pytest.approx(right[1], abs=0.2)  # of 40 images, after other shuffles
