"""NIT, NIT-S and NIT-S+ against the paper's equations, on spiking networks over several steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from robench.data.base import Part, Splits
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, NoiseSource, NoisyLayer, noise, noisy_layers
from robench.networks.snn import SNN
from robench.trainers.likelihood_ratio import LikelihoodRatio
from robench.trainers.nit import NIT, NITS, NITSPlus
from robench.trainers.potential import potential_rows, potentials
from robench.workspace import plugins

SHAPE, CLASSES, IMAGES = (1, 4, 4), 3, 3
Rows = Callable[[Network, Tensor, Tensor], Tensor]


def spiking(convolutional: bool = False, **settings: Any) -> SNN:
    if convolutional:
        settings = {"convolutions": [1], "steps": 2, **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SNN(SHAPE, CLASSES, **{"hidden": [6], "steps": 3, "sigma": 0.5, **settings})
    with torch.no_grad():
        for layer in noisy_layers(network):
            layer.op.weight.mul_(1 if convolutional else 4)  # large enough that neurons spike
    return network


def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(IMAGES, *SHAPE, generator=rng), torch.arange(IMAGES) % CLASSES


def gradient(trainer: NIT, network: Network, seed: int = 0) -> dict[str, Tensor]:
    trainer.start_epoch(network, 0)
    trainer.gradient(network, *batch(), torch.Generator().manual_seed(seed))
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


# -- Eq. 8: the gradient of the expected loss ----------------------------------------------------


def spike_loss(network: Network, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy_rows(network(x), y)


def potential_loss(network: Network, x: Tensor, y: Tensor) -> Tensor:
    with potentials(network) as threshold:
        return potential_rows(network(x), y, threshold)


def difference(network: Network, direction: dict[str, Tensor], rows: Rows) -> float:
    """(E L(theta + h d) - E L(theta - h d)) / 2h, the same noise on both sides."""
    h, draws = 0.1, 40_000
    x, y = batch()
    sides = []
    for side in (h, -h):
        moved = copy.deepcopy(network)
        with torch.no_grad(), noise(moved, GaussianNoise(torch.Generator().manual_seed(3))):
            for key, parameter in moved.named_parameters():
                if key in direction:
                    parameter += side * direction[key]
            sides.append(rows(moved, x.repeat(draws, 1, 1, 1), y.repeat(draws)).double().mean())
    return float(sides[0] - sides[1]) / (2 * h)


@pytest.mark.parametrize(
    ("criterion", "rows", "convolutional"),
    [
        ("cross-entropy", spike_loss, False),
        ("potential", potential_loss, False),
        ("potential", potential_loss, True),
    ],
    ids=["cross-entropy", "potential", "convolutional"],
)
def test_nits_gradient_is_the_finite_difference_of_the_expected_loss(
    criterion: str, rows: Rows, convolutional: bool
) -> None:
    # Neurons of a channel share sigma: small, so that the noise of the others does not drown it.
    network = spiking(True, hidden=[]) if convolutional else spiking()
    settings = {"pairing": "antithetic", "copies": 100_000} if convolutional else {"copies": 48_000}
    trainer = NIT(criterion=criterion, last_steps="all", **settings)
    pilot = gradient(trainer, network, seed=0)
    several = [gradient(trainer, network, seed=seed) for seed in (1, 2, 3)]
    found = {key: torch.stack([one[key] for one in several]).mean(0) for key in pilot}
    assert len(found) == 2 * len(network.layers)
    # One direction for the weights and one for the sigmas of each layer, along which something
    # happens; another estimate than the one that chose it is measured along it.
    for key in found:
        direction = pilot[key] / pilot[key].norm()
        expected = difference(network, {key: direction}, rows)
        assert float((found[key] * direction).sum()) == pytest.approx(expected, rel=0.15), key


def test_layers_in_turn_are_the_estimator_s_and_a_card_without_them_is_the_one_it_was() -> None:
    network = spiking()
    settings: dict[str, Any] = {"copies": (8, 16), "layer_wise": "conditional", "pairing": "none"}
    found = gradient(NIT(**settings), network)
    LikelihoodRatio(**settings).backward(
        network, *batch(), cross_entropy_rows, torch.Generator().manual_seed(0)
    )
    assert len(found) == 2 * len(network.layers)
    for name, weight in network.named_parameters():
        assert weight.grad is not None
        assert torch.equal(found[name], weight.grad), name
    assert "layer_wise" not in NIT.resolved({})
    assert NIT.resolved(settings)["layer_wise"] == "conditional"


# -- Eq. 3: signs for inputs and noise -----------------------------------------------------------


class Prescribed(NoiseSource):
    """A noise source that remembers each layer's inputs and the noise the estimator gave it."""

    def __init__(self, inner: Any, seen: dict[NoisyLayer, list[tuple[Tensor, Tensor]]]) -> None:
        self.inner, self.seen, self.inputs = inner, seen, {}

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        self.inputs[layer] = x.detach()
        return self.inner.drive(layer, x)

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        noisy = self.inner.inject(layer, drive)
        copies = len(noisy) // len(drive)
        eps = (noisy - drive.detach().repeat(copies, 1)) / layer.sigma.detach()
        inputs = self.inputs[layer]
        inputs = inputs.repeat(len(noisy) // len(inputs), 1)
        self.seen.setdefault(layer, []).append((inputs, eps.detach()))
        return noisy


@contextmanager
def watched(network: Network, seen: Any, losses: list[Tensor]) -> Iterator[None]:
    """Note what every layer gets in every step of the estimator's own forward pass."""

    def begin(module: Any, inputs: Any) -> None:
        for layer in noisy_layers(network):
            layer.source = Prescribed(layer.source, seen)

    def end(module: Any, inputs: Any, out: Tensor) -> None:
        losses.append(cross_entropy_rows(out, batch()[1].repeat(len(out) // IMAGES)))

    hooks = [network.register_forward_pre_hook(begin), network.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("last_steps", ["all", 2])
def test_nit_s_is_equation_3_element_by_element(last_steps: int | str, zero: int) -> None:
    network, copies, steps = spiking(), 20, 3
    trainer = NITS(
        copies=copies, pairing="none", baseline="none", last_steps=last_steps, sign_of_zero=zero
    )
    seen: dict[NoisyLayer, list[tuple[Tensor, Tensor]]] = {}
    losses: list[Tensor] = []
    with watched(network, seen, losses):
        found = gradient(trainer, network, seed=5)
    assert len(losses) == 1
    assert losses[0].unique().numel() > 5
    for index, layer in enumerate(network.layers):
        weight = torch.zeros_like(layer.op.weight)
        sigma = torch.zeros_like(layer.sigma)
        assert len(seen[layer]) == steps
        for inputs, eps in seen[layer][-(steps if last_steps == "all" else int(last_steps)) :]:
            for row, loss in enumerate(losses[0]):
                for i in range(len(sigma)):
                    sigma[i] += loss * (eps[row, i] ** 2 - 1) / layer.sigma.detach()[i]
                    for j in range(weight.shape[1]):
                        weight[i, j] += loss * sign(inputs[row, j], zero) * eps[row, i].sign()
        rows = copies * IMAGES
        for name, expected in (("op.weight", weight / rows), ("sigma", sigma / rows)):
            assert expected.abs().max() > 0
            key = f"layers.{index}.{name}"
            torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-4, msg=key)


def sign(value: Tensor, zero: int) -> Tensor:
    return torch.full_like(value, zero) if value == 0 else value.sign()


def test_a_silent_input_moves_its_weights_under_the_paper_s_sign_of_zero() -> None:
    """Also with a baseline: it takes the mean loss away, not how the loss goes with the noise."""
    network = spiking()
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    images[:, :, 0] = 0
    for zero, moves in ((0, False), (1, True)):
        trainer = NITS(copies=64, baseline="leave-one-out", sign_of_zero=zero)
        trainer.start_epoch(network, 0)
        network.zero_grad()
        labels = torch.arange(IMAGES) % CLASSES
        trainer.gradient(network, images, labels, torch.Generator().manual_seed(0))
        grad = network.layers[0].op.weight.grad
        assert bool(grad[:, : SHAPE[2]].any()) == moves


def test_nit_without_signs_is_not_equation_3() -> None:
    network = spiking()
    plain, signed = (gradient(kind(copies=64), network) for kind in (NIT, NITS))
    assert not torch.allclose(plain["layers.1.op.weight"], signed["layers.1.op.weight"])


# -- NIT-S+: when it switches --------------------------------------------------------------------


def small_data() -> Splits:
    rng = torch.Generator().manual_seed(2)
    part = Part(torch.rand(40, *SHAPE, generator=rng).numpy(), (torch.arange(40) % CLASSES).numpy())
    return Splits(part, part, part, ("a", "b", "c"))


SETTINGS: dict[str, Any] = {"epochs": 4, "copies": 8, "batch_size": 20}


def weights_by_epoch(trainer: NIT) -> list[dict[str, Tensor]]:
    """The weights after every epoch."""
    network, seen = spiking(), []
    start = trainer.start_epoch

    def watch(network: Network, epoch: int) -> bool:
        seen.append(copy.deepcopy(network.state_dict()))
        return start(network, epoch)

    trainer.start_epoch = watch  # type: ignore[method-assign]
    trainer.fit(network, small_data(), torch.Generator().manual_seed(0), lambda done, text: None)
    return [*seen[1:], network.state_dict()]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_nit_s_plus_is_nit_s_up_to_the_switch_and_something_else_after_it() -> None:
    signed = weights_by_epoch(NITS(**SETTINGS))
    mixed = weights_by_epoch(NITSPlus(switch=0.5, **SETTINGS))
    assert [same(a, b) for a, b in zip(signed, mixed, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize(("switch", "kind"), [(1.0, NITS), (0.0, NIT)])
def test_nit_s_plus_that_never_switches_is_nit_s_and_at_once_is_nit(
    switch: float, kind: type[NIT]
) -> None:
    plus = weights_by_epoch(NITSPlus(switch=switch, **SETTINGS))
    assert same(plus[-1], weights_by_epoch(kind(**SETTINGS))[-1])


def test_nit_s_plus_goes_on_as_nit_from_the_weights_of_the_switch_with_fresh_moments() -> None:
    trainer = NITSPlus(switch=0.5, **SETTINGS)
    steps: list[float] = []

    def make(network: Network) -> torch.optim.Optimizer:
        optimizer = NIT.make_optimizer(trainer, network)
        optimizer.register_step_post_hook(
            lambda adam, *rest: steps.append(float(next(iter(adam.state.values()))["step"]))
        )
        return optimizer

    trainer.make_optimizer = make  # type: ignore[method-assign]
    weights_by_epoch(trainer)
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4]  # two updates an epoch, switched after two epochs


# -- and on the networks of section 4.4 ----------------------------------------------------------


@pytest.mark.parametrize("name", ["nit", "nit-s", "nit-s+", "stbp", "stbp-n"])
def test_every_spiking_trainer_changes_every_layer_of_a_convolutional_network(name: str) -> None:
    network = spiking(convolutional=True)
    before = copy.deepcopy(network.state_dict())
    settings = {"copies": 16} if "nit" in name else {}
    trainer: Any = plugins.load("trainers", name)(epochs=1, batch_size=20, **settings)
    trainer.fit(network, small_data(), torch.Generator().manual_seed(0), lambda done, text: None)
    learned = [key for key in before if "weight" in key or name not in ("stbp",)]
    assert all(not torch.equal(before[key], network.state_dict()[key]) for key in learned)


def test_nit_s_learns_sigmas_of_a_perceptron() -> None:
    network = MLP(SHAPE, CLASSES, activation="sigmoid", learned_sigma=True)
    found = gradient(NITS(copies=64), network)
    assert {"layers.0.sigma", "layers.1.sigma"} <= found.keys()
