"""The likelihood-ratio estimator: what it estimates, with what error, and that no setting biases
it.

The reference on smooth networks is the pathwise gradient (autograd through the same noise), on
threshold networks a finite difference with common random numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows, zero_one_rows
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, NoiseSource, NoisyLayer, noise, noisy_layers
from robench.networks.snn import SNN
from robench.trainers.likelihood_ratio import LikelihoodRatio

SHAPE, CLASSES, IMAGES = (1, 4, 4), 3, 3


class Convolutional(Network):
    """Convolution, tanh, convolution, fully connected."""

    def build(self) -> None:
        self.first = NoisyLayer(nn.Conv2d(1, 2, 3), (2, 1, 1), 0.5, learned=True)
        self.second = NoisyLayer(nn.Conv2d(2, 3, 2), (3, 1, 1), 0.7, learned=True)
        self.last = NoisyLayer(nn.Linear(3, self.classes), (self.classes,), 0.6, learned=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.last(torch.tanh(self.second(x)).flatten(1))


class Recurrent(Network):
    """h[t+1] = tanh(W [x_t, h[t]] + b + sigma eps), one image row at a time; one op, many steps."""

    shares_input = False

    def build(self) -> None:
        self.cell = NoisyLayer(nn.Linear(4 + 5, 5), (5,), 0.5, learned=True)
        self.last = NoisyLayer(nn.Linear(5, self.classes), (self.classes,), 0.5, learned=True)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for row in x[:, 0].unbind(1):
            h = torch.tanh(self.cell(torch.cat([row, h], dim=1)))
        return self.last(h)


class SmoothStep(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return torch.sigmoid(3 * u)


def perceptron(activation: str = "sigmoid", **settings: Any) -> Network:
    settings = {"hidden": (5,), "sigma": 0.7, "learned_sigma": True, **settings}
    return MLP(SHAPE, CLASSES, activation=activation, **settings)


def spiking(smooth: bool) -> Network:
    network = SNN(SHAPE, CLASSES, hidden=(6,), steps=3, sigma=0.5)
    if smooth:
        network.spike = SmoothStep()
    return network


NETWORKS: dict[str, Callable[[], Network]] = {
    "linear": perceptron,
    "conv2d": lambda: Convolutional(SHAPE, CLASSES),
    "recurrent": lambda: Recurrent(SHAPE, CLASSES),
    "lif": lambda: spiking(smooth=True),
}


def seeded(make: Callable[[], Network]) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make()
    with torch.no_grad():
        for layer in noisy_layers(network):
            layer.op.weight.mul_(6)  # large enough that the noise matters, and neurons spike
    return network


def batch(images: int = IMAGES) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(images, *SHAPE, generator=rng), torch.arange(images) % CLASSES


def gradients(network: Network) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def estimate(
    network: Network, seed: int = 0, loss: Any = cross_entropy_rows, **settings: Any
) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    LikelihoodRatio(**settings).backward(network, *batch(), loss, rng)
    return gradients(network)


class LaplaceNoise(NoiseSource):
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        eps = torch.distributions.Laplace(0.0, 1.0)
        uniform = torch.rand(drive.shape, generator=self.generator).clamp(1e-7, 1 - 1e-7)
        return drive + layer.sigma * eps.icdf(uniform)


def pathwise(
    network: Network,
    draws: int = 100_000,
    source: type[NoiseSource] = GaussianNoise,
    only: NoisyLayer | None = None,
) -> dict[str, Tensor]:
    """Autograd's gradient of the mean loss over `draws` noisy copies of each image."""
    x, y = batch()
    with noise(network, source(torch.Generator().manual_seed(7))):
        for layer in noisy_layers(network):
            if only not in (None, layer):
                layer.source = None
        rows = torch.nn.functional.cross_entropy(
            network(x.repeat(draws, 1, 1, 1)), y.repeat(draws), reduction="mean"
        )
    rows.backward()
    return gradients(network)


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient[name].flatten() for name in sorted(gradient)])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


# -- what is estimated ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_it_agrees_with_autograd_of_the_same_noisy_loss_for_weights_and_sigmas(name: str) -> None:
    network = seeded(NETWORKS[name])
    expected = pathwise(network)
    found = estimate(network, copies=300_000, pairing="none")
    assert found.keys() == expected.keys()
    assert {key.rpartition(".")[2] for key in found} >= {"weight", "sigma"}
    for key in expected:
        assert cosine(found[key], expected[key]) > 0.99, key
        assert 0.85 < found[key].norm() / expected[key].norm() < 1.15, key


def directional_difference(network: Network, direction: dict[str, Tensor], loss: Any) -> float:
    """(f(theta + h d) - f(theta - h d)) / 2h with the same noise on both sides."""
    h, draws = 0.05, 100_000
    x, y = batch()
    sides = []
    for side in (h, -h):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for key, parameter in moved.named_parameters():
                parameter += side * direction[key]
            with noise(moved, GaussianNoise(torch.Generator().manual_seed(3))):
                rows = loss(moved(x.repeat(draws, 1, 1, 1)), y.repeat(draws))
        sides.append(float(rows.double().mean()))
    return (sides[0] - sides[1]) / (2 * h)


@pytest.mark.rows(4)
@pytest.mark.parametrize("loss", [cross_entropy_rows, zero_one_rows])
@pytest.mark.parametrize(
    "make",
    [
        lambda: perceptron("threshold"),
        lambda: perceptron("abs"),
        lambda: perceptron("sign"),
        lambda: perceptron("staircase"),
        lambda: spiking(smooth=False),
    ],
    ids=["threshold", "abs", "sign", "staircase", "lif"],
)
def test_it_agrees_with_finite_differences_where_there_is_no_derivative(
    make: Callable[[], Network], loss: Any
) -> None:
    network = seeded(make)
    found = estimate(network, loss=loss, copies=200_000, pairing="antithetic")
    expected, got = [], []
    for seed in range(4):
        rng = torch.Generator().manual_seed(seed)
        # Random directions along which something happens: finite differences are noisy, too.
        reweighted = {k: g * torch.rand(g.shape, generator=rng) for k, g in found.items()}
        direction = {k: g / flat(reweighted).norm() for k, g in reweighted.items()}
        expected.append(directional_difference(network, direction, loss))
        got.append(sum(float((found[key] * direction[key]).sum()) for key in direction))
    assert got == pytest.approx(expected, rel=0.1)


def test_neither_activation_nor_loss_is_ever_differentiated() -> None:
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            return v.sigmoid()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            raise AssertionError("differentiated")

    class Undifferentiable(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            return Forward.apply(v)

    network = seeded(perceptron)
    network.phi = Undifferentiable()

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        assert not logits.requires_grad
        return zero_one_rows(Forward.apply(logits), y)

    assert flat(estimate(network, loss=loss, copies=64)).abs().max() > 0


# -- with what error -----------------------------------------------------------------------------


def runs(network: Network, count: int, **settings: Any) -> Tensor:
    """Independent estimates, (count, parameters)."""
    return torch.stack([flat(estimate(network, seed, **settings)) for seed in range(count)])


@pytest.mark.parametrize("pairing", ["none", "antithetic", "factorial", "hadamard"])
def test_its_error_falls_as_one_over_the_root_of_the_number_of_copies(pairing: str) -> None:
    network = seeded(perceptron)
    expected = flat(pathwise(network))
    errors = [
        float((runs(network, 25, copies=copies, pairing=pairing) - expected).square().mean().sqrt())
        for copies in (64, 64 * 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.25)


def assert_unbiased(estimates: Tensor, expected: Tensor, parts: dict[str, Tensor]) -> None:
    """z-tests of the mean of (runs, parameters): each parameter, and the length along `expected`
    of every part (a wrong baseline shows as a wrong length)."""
    z = (estimates.mean(0) - expected) / (estimates.std(0) / len(estimates) ** 0.5)
    assert z.abs().max() < 4.5
    for name, mask in parts.items():
        along = estimates[:, mask] @ expected[mask] / expected[mask].norm()
        error = float(along.mean() - expected[mask].norm()) / float(along.std()) * len(along) ** 0.5
        assert abs(error) < 3.5, f"{name}: {error}"


def parts(gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        part: flat({k: torch.full(g.shape, part in k) for k, g in gradient.items()}).bool()
        for part in ("op", "sigma")
    }


@pytest.mark.parametrize(("pairing", "copies"), [("none", 1), ("antithetic", 2), ("factorial", 4)])
def test_one_draw_leaves_nothing_to_subtract_and_says_so(pairing: str, copies: int) -> None:
    network = seeded(perceptron)
    with pytest.raises(RobenchError, match=f"copies = {copies}: .* use {2 * copies} copies or"):
        estimate(network, pairing=pairing, copies=copies)
    assert flat(estimate(network, pairing=pairing, copies=copies, baseline="none")).any()


UNBIASED: dict[str, dict[str, Any]] = {
    "plain": {"pairing": "none", "baseline": "none"},
    "antithetic": {"pairing": "antithetic", "baseline": "none"},
    "factorial": {"pairing": "factorial", "baseline": "none"},
    "hadamard": {"pairing": "hadamard", "baseline": "none"},
    "noise-free baseline": {"pairing": "none", "baseline": "noise-free"},
    "leave-one-out": {"pairing": "none"},
    "leave-one-out, two pairs": {"pairing": "antithetic", "copies": 4},
    "leave-one-out, factorial": {"pairing": "factorial", "copies": 8},
    "leave-one-out, hadamard": {"pairing": "hadamard", "copies": 16},
    "several blocks": {"pairing": "antithetic", "copies": 54, "block_rows": 1},
    "quasi-random": {"quasi": True, "pairing": "none", "baseline": "none"},
    "quasi-random, factorial": {"quasi": True, "pairing": "factorial", "baseline": "noise-free"},
}


@pytest.mark.rows(5)
@pytest.mark.parametrize("name", UNBIASED)
def test_no_setting_biases_it(name: str) -> None:
    network = seeded(perceptron)
    expected = pathwise(network)
    estimates = runs(network, 500, **{"copies": 8, **UNBIASED[name]})
    assert_unbiased(estimates, flat(expected), parts(expected))


@pytest.mark.parametrize("pairing", ["none", "factorial"])
def test_laplace_noise_gives_the_gradient_of_the_loss_under_laplace_noise(pairing: str) -> None:
    network = seeded(perceptron)
    expected = pathwise(network, source=LaplaceNoise)
    estimates = runs(network, 500, copies=8, pairing=pairing, distribution="laplace")
    assert_unbiased(estimates, flat(expected), parts(expected))
    assert cosine(flat(expected), flat(pathwise(network))) < 0.999


@pytest.mark.parametrize("copies", [8, (4, 10)])
def test_layer_wise_gives_the_gradient_of_the_loss_under_each_layers_own_noise(
    copies: int | tuple[int, int],
) -> None:
    network = seeded(perceptron)
    layers = noisy_layers(network)
    prefixes = [next(n for n, m in network.named_modules() if m is layer) for layer in layers]
    expected = {}
    for layer, prefix in zip(layers, prefixes, strict=True):
        own = pathwise(network, only=layer)
        expected |= {key: grad for key, grad in own.items() if key.startswith(prefix)}
    estimates = runs(network, 500, copies=copies, layer_wise=True)
    assert_unbiased(estimates, flat(expected), parts(expected))


@pytest.mark.rows(3)
@pytest.mark.parametrize("name", ["linear", "conv2d", "recurrent"])
@pytest.mark.parametrize(
    "settings",
    [
        {"pairing": "none"},
        {"pairing": "antithetic"},
        {"pairing": "none", "baseline": "noise-free"},
        {"pairing": ("none", "antithetic"), "copies": (4, 10)},
        {"pairing": "none", "block_rows": 1, "chunk_rows": 1, "copies": 20},
    ],
    ids=["none", "antithetic", "noise-free", "layer by layer", "several chunks"],
)
def test_conditional_layer_wise_gives_the_gradient_of_the_loss_under_all_noise(
    name: str, settings: dict[str, Any]
) -> None:
    network = seeded(NETWORKS[name])
    layers = len(noisy_layers(network))
    settings = {
        k: v[:1] * (layers - 1) + v[1:] if isinstance(v, tuple) else v for k, v in settings.items()
    }
    expected = pathwise(network)
    estimates = runs(network, 500, **{"copies": 8, **settings}, layer_wise="conditional")
    assert_unbiased(estimates, flat(expected), parts(expected))


def test_of_conditional_passes_all_copies_share_the_noise_of_other_layers() -> None:
    """Also where blocks of copies are computed one after the other."""
    network = seeded(lambda: perceptron(hidden=(5, 4)))
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            seen.append(v.clone())
            return v.sigmoid()

    network.phi = Spy()
    settings: dict[str, Any] = {"copies": 24, "pairing": "none", "block_rows": 1, "chunk_rows": 1}
    estimate(network, layer_wise="conditional", **settings)
    first = [v for v in seen if v.shape[1] == 5]  # of the first layer, in each chunk of each pass
    varying, shared = first[:3], first[3:]
    assert len(varying[0]) > IMAGES
    assert not torch.equal(varying[0], varying[1])
    assert all(len(v) == IMAGES for v in shared)
    assert [len({v.numpy().tobytes() for v in part}) for part in (shared[:3], shared[3:])] == [1, 1]
    assert not torch.equal(shared[0], shared[3])  # another pass, another draw


@pytest.mark.parametrize("layer_wise", [False, True, "conditional"])
@pytest.mark.parametrize(
    ("sigma", "settings", "expected"),
    [
        (0.05, {}, "none"),
        (0.05, {"baseline": "none"}, "antithetic"),
        (3.0, {"activation": "abs"}, "antithetic"),
    ],
    ids=["a straight loss", "a mean that nobody subtracts", "an even loss"],
)
def test_the_pairing_of_less_variance_is_found(
    layer_wise: Any, sigma: float, settings: dict[str, Any], expected: str
) -> None:
    even = "activation" in settings
    network = seeded(
        lambda: perceptron(settings.get("activation", "sigmoid"), sigma=sigma, learned_sigma=False)
    )
    if even:  # |v| around zero: what the first layer's noise does to the loss is even
        with torch.no_grad():
            network.layers[0].op.weight.zero_()
            network.layers[0].op.bias.zero_()
    ours = LikelihoodRatio(
        copies=64, layer_wise=layer_wise, baseline=settings.get("baseline", "leave-one-out")
    )
    found = ours.paired(network, *batch(), cross_entropy_rows, torch.Generator().manual_seed(0))
    again = ours.paired(network, *batch(), cross_entropy_rows, torch.Generator().manual_seed(0))
    assert found == again
    assert (found.pairing[0] if layer_wise else found.pairing) == expected
    first = [
        float(
            torch.stack(
                [
                    estimate(
                        network, seed, copies=64, layer_wise=layer_wise, pairing=pairing,
                        baseline=ours.baseline,
                    )["layers.0.op.weight"]
                    for seed in range(60)
                ]
            ).var(0).sum()
        )
        for pairing in ("none", "antithetic")
    ]  # fmt: skip
    assert (first[0] < first[1]) == (expected == "none")


def test_a_list_that_does_not_fit_the_layers_is_said() -> None:
    network = seeded(perceptron)
    with pytest.raises(RobenchError, match=r"trainer.pairing = .*: give one way, or with .* 2 "):
        estimate(network, pairing=("none", "none", "none"), layer_wise=True)
    with pytest.raises(RobenchError, match=r"trainer.copies = .*: give one number, or with"):
        estimate(network, copies=(4, 4))


def test_the_last_steps_are_exact_for_the_noise_of_the_last_steps() -> None:
    network = seeded(lambda: spiking(smooth=True))
    whole = estimate(network, copies=64, last_steps=3)
    assert torch.equal(flat(whole), flat(estimate(network, copies=64)))
    assert not torch.equal(flat(whole), flat(estimate(network, copies=64, last_steps=1)))


# -- how it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pairing"),
    [("linear", "factorial"), ("conv2d", "antithetic"), ("lif", "hadamard"), ("recurrent", "none")],
)
def test_chunks_change_nothing_but_rounding(name: str, pairing: str) -> None:
    network = seeded(NETWORKS[name])
    settings = {"copies": 512, "pairing": pairing, "block_rows": 1}
    one = flat(estimate(network, chunk_rows=1, **settings))
    many = flat(estimate(network, chunk_rows=10**9, **settings))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_copies() -> None:
    network = seeded(perceptron)
    rows: list[int] = []
    network.layers[1].register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    estimate(network, copies=20_000, chunk_rows=4096, block_rows=4096)
    assert max(rows) <= 4096
    assert sum(rows) == 20_000 * IMAGES


def test_the_first_layer_sees_one_row_per_image() -> None:
    network = seeded(perceptron)
    rows: list[int] = []
    network.layers[0].op.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    estimate(network, copies=64)
    assert rows == [IMAGES]


def test_factorial_shares_forward_passes_up_to_the_first_layer_whose_sign_differs() -> None:
    network = seeded(lambda: perceptron(hidden=(5, 4)))
    rows: list[int] = []
    for layer in network.layers:
        layer.op.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    estimate(network, copies=64, pairing="factorial")
    assert rows == [IMAGES, 16 * IMAGES, 32 * IMAGES]


def test_the_same_generator_gives_the_same_bits() -> None:
    network = seeded(perceptron)
    settings: list[dict[str, Any]] = [
        {},
        {"quasi": True, "baseline": "none"},
        {"layer_wise": True},
    ]
    for setting in settings:
        first, again, other = (flat(estimate(network, seed, **setting)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_it_adds_to_the_gradient_and_returns_the_mean_noisy_loss() -> None:
    network = seeded(perceptron)
    once = flat(estimate(network, copies=64))
    for _ in range(2):
        mean = LikelihoodRatio(copies=64).backward(
            network, *batch(), cross_entropy_rows, torch.Generator().manual_seed(0)
        )
    torch.testing.assert_close(flat(gradients(network)), 2 * once)
    x, y = batch()
    with torch.no_grad(), noise(network, GaussianNoise(torch.Generator().manual_seed(0))):
        noisy = cross_entropy_rows(network(x.repeat(64, 1, 1, 1)), y.repeat(64)).mean()
    with torch.no_grad():
        still = cross_entropy_rows(network(x), y).mean()
    # 64 draws say the mean to a hundredth or two; without noise it is a tenth less.
    assert float(mean) == pytest.approx(float(noisy), rel=0.04)
    assert float(still) < 0.95 * float(noisy)


def test_frozen_parameters_are_left_alone() -> None:
    network = seeded(perceptron)
    network.layers[0].requires_grad_(False)
    network.layers[1].sigma.requires_grad_(False)
    assert estimate(network, copies=64).keys() == {"layers.1.op.weight", "layers.1.op.bias"}


# -- the sign approximation ----------------------------------------------------------------------


def signed_by_definition(network: Network, seed: int, copies: int) -> dict[str, Tensor]:
    """NIT Eq. 3 written out: mean over copies of L sign(x_j) sign(eps_i), element by element."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    logits: list[Tensor] = []
    hooks = [network.register_forward_hook(lambda module, inputs, out: logits.append(out))]
    for name, module in network.named_modules():
        if isinstance(module, NoisyLayer):

            def remember(layer: Any, inputs: tuple[Tensor], out: Tensor, name: str = name) -> None:
                repeats = len(out) // len(inputs[0])
                eps = out - layer.op(inputs[0]).detach().repeat(repeats, 1)
                seen[name] = (inputs[0].repeat(repeats, 1), eps)

            hooks.append(module.register_forward_hook(remember))
    estimate(network, seed, copies=copies, pairing="none", baseline="none", sign=True)
    for hook in hooks:
        hook.remove()
    losses = cross_entropy_rows(logits[0], batch()[1].repeat(copies))
    expected = {}
    for name, (inputs, eps) in seen.items():
        weight = torch.zeros(eps.shape[1], inputs.shape[1])
        for row in range(len(losses)):
            for i in range(eps.shape[1]):
                weight[i] += losses[row] * inputs[row].sign() * eps[row, i].sign()
        expected[f"{name}.op.weight"] = weight / len(losses)
    return expected


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "sign"])
def test_the_sign_approximation_equals_its_definition_element_by_element(activation: str) -> None:
    network = seeded(lambda: perceptron(activation, learned_sigma=False))
    expected = signed_by_definition(network, seed=5, copies=20)
    found = estimate(network, 5, copies=20, pairing="none", baseline="none", sign=True)
    assert expected.keys() <= found.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)


def test_the_sign_approximation_leaves_values_and_sigmas_as_they_are() -> None:
    network = seeded(perceptron)
    plain, signed = (estimate(network, copies=64, sign=sign) for sign in (False, True))
    for key in plain:
        if "sigma" in key:
            torch.testing.assert_close(signed[key], plain[key], rtol=1e-3, atol=1e-5)


def test_a_silent_input_gets_no_gradient_from_the_sign_approximation() -> None:
    network = seeded(perceptron)
    x, y = batch()
    x[:, :, 1, 2] = 0
    LikelihoodRatio(copies=64, sign=True, baseline="none").backward(
        network, x, y, cross_entropy_rows, torch.Generator().manual_seed(0)
    )
    grad = gradients(network)["layers.0.op.weight"]
    assert (grad == 0).nonzero()[:, 1].unique().tolist() == [1 * 4 + 2]


# -- the losses ----------------------------------------------------------------------------------


def test_cross_entropy_of_each_row_is_torchs_also_for_huge_logits() -> None:
    logits = 200 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 7
    expected = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(cross_entropy_rows(logits, y), expected)


def test_the_zero_one_loss_is_one_where_the_prediction_is_wrong() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 3.0, 2.0], [0.0, 0.0, 1.0]])
    assert zero_one_rows(logits, torch.tensor([1, 1, 2])).tolist() == [0, 1, 0]


# -- what a user can get wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"copies": 5}, r"trainer.copies = 5: .*'antithetic'.* groups of 2; use 4 or 6"),
        ({"copies": 3, "pairing": "factorial"}, r"trainer.copies = 3: .* groups of 4; use 4$"),
        ({"copies": 4, "pairing": "hadamard"}, r"trainer.copies = 4: .* groups of 8; use 8$"),
        ({"quasi": True}, "trainer.quasi = true: .*trainer.baseline"),
        ({"copies": (4, 4)}, "trainer.copies = .*trainer.layer_wise"),
        ({"copies": (4, 4, 4), "layer_wise": True}, "2 noisy layers"),
    ],
)
def test_settings_that_do_not_go_together_say_so(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobenchError, match=message):
        estimate(seeded(perceptron), **settings)


def test_factorial_patterns_need_layers_in_a_chain() -> None:
    with pytest.raises(RobenchError, match=r'trainer.pairing = "factorial".*"hadamard"'):
        estimate(seeded(NETWORKS["recurrent"]), copies=64, pairing="factorial")
