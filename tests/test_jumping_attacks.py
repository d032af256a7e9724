"""The gradient loop on networks that jump: its formulas, and what it finds by brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.contest import Best
from robench.attacks.gradient import APGD, PGD
from robench.attacks.loop import GradientAttack
from robench.attacks.losses import accuracy, margin
from robench.attacks.steps import Region, StableSteps
from robench.attacks.target import WhiteBoxTarget
from robench.errors import RobenchError
from robench.networks.adaptive import AdaptiveSurrogate
from robench.networks.base import Network
from robench.networks.lif import integrate
from robench.networks.mlp import MLP
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN
from robench.networks.surrogate import Step, surrogate

STRONG: dict[str, Any] = {
    "schedule": "sa-pgd",
    "loss": "margin",
    "on": "potential",
    "surrogate": "one-sided",
    "reset": "stopped",
    "targets": 2,
}


def seeded(make: Any, seed: int, **settings: Any) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Network = make(**settings)
    return network.eval().requires_grad_(False)


def spiking(seed: int = 0, **settings: Any) -> Network:
    return seeded(lambda **s: SNN((1, 2, 2), 3, **s), seed, hidden=(12,), **settings)


def images(n: int = 40, seed: int = 0, side: int = 2) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def perturbed(network: Network, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
    target = WhiteBoxTarget(network, Ball("linf", eps), len(x))
    return attack.perturb(target, x, y, torch.Generator().manual_seed(0))


# -- what the loss is of ---------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["last", "rate", "membrane"])
def test_what_is_differentiated_in_place_of_the_output_predicts_the_same(readout: str) -> None:
    network = spiking(readout=readout)
    logits, read = network.readings(images(500))
    assert torch.equal(logits, network(images(500)))
    assert float((logits.argmax(1) == read.argmax(1)).double().mean()) > 0.99  # 1/1000 rounds


def test_counts_of_spikes_are_followed_with_the_potential_behind_them() -> None:
    network, x = spiking(readout="rate", surrogate="rectangle:0.5"), images(20)
    found = []
    for part in (0, 1):
        leaf = x.clone().requires_grad_()
        found.append(torch.autograd.grad(network.readings(leaf)[part][:, 0].sum(), leaf)[0])
    network.readout = "membrane"  # type: ignore[assignment]
    leaf = x.clone().requires_grad_()
    (potential,) = torch.autograd.grad(network(leaf)[:, 0].sum(), leaf)
    assert float(found[0].abs().sum()) > 0
    assert float(potential.abs().sum()) > 0
    torch.testing.assert_close(found[1], found[0] + potential)


@pytest.mark.parametrize("readout", ["last", "rate"])
def test_a_last_spike_hides_the_gradient_and_the_potential_does_not(readout: str) -> None:
    network, x = spiking(readout=readout, surrogate="rectangle:0.001"), images()
    y = network(x).argmax(1)
    target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
    wide = "fast-sigmoid:0.1"
    seen = [
        target.gradient(x, y, margin, surrogate=text, on=on).gradient.flatten(1).abs().amax(1)
        for on in ("output", "potential")
        for text in (wide, None)
    ]
    assert bool((seen[1] == 0).all())
    assert bool((seen[2] > 0).all())


def test_networks_without_potentials_are_asked_about_their_output() -> None:
    network = seeded(lambda **s: MLP((1, 2, 2), 3, **s), 0, activation="threshold")
    x = images()
    y = network(x).argmax(1)
    plain, potential = (
        perturbed(network, PGD(steps=10, on=on), x, y, 0.1) for on in ("output", "potential")
    )
    assert torch.equal(plain, potential)


# -- derivatives that adapt ------------------------------------------------------------------------


def slopes(text: str, rounds: list[Tensor], grad: float = 1.0) -> Tensor:
    """Derivatives of a step at 0.5 after the attack has seen the potentials of each round."""
    step, chosen = Step(at=0.5), AdaptiveSurrogate(text, len(rounds[0]))
    for u in rounds:
        leaf = u.clone().requires_grad_()
        with surrogate(step, chosen):
            (step(leaf).sum() * grad).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_widths_follow_the_running_distances_from_the_jump() -> None:
    first, second = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    size = (first - 0.5).abs()
    mean, spread = size, torch.zeros_like(size)
    away = second - 0.5
    mean = 0.9 * mean + 0.1 * away.abs()
    spread = 0.9 * spread + 0.1 * (away.abs() - mean).abs()
    scale = mean + 1.5 * spread + 1e-4
    alpha = 2 * math.tan(0.45 * math.pi) / math.pi / scale
    arctan = alpha / 2 / (1 + (math.pi / 2 * alpha * away) ** 2)
    torch.testing.assert_close(slopes("adaptive:0.45", [first, second]), arctan)
    pull = (away <= 0) / (0.1 * scale + away.abs())
    torch.testing.assert_close(slopes("one-sided:0.1", [first, second]), pull)


def test_only_steps_that_are_not_where_the_loss_wants_them_pull() -> None:
    u = torch.tensor([[0.2, 0.4, 0.6, 0.8]])
    assert slopes("one-sided", [u], 1.0).gt(0).tolist() == [[True, True, False, False]]
    assert slopes("one-sided", [u], -1.0).lt(0).tolist() == [[False, False, True, True]]


def test_pdsg_is_a_gaussian_as_wide_as_the_layer_s_potentials_deviate_so_far() -> None:
    u = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()  # time first
    chosen = AdaptiveSurrogate("pdsg", 4)
    found = chosen.here().derivative(u, 0.5, axis=1)
    for step in range(3):
        s = u[: step + 1].movedim(1, 0).flatten(1).std(1)[:, None]
        z = (u[step] - 0.5 - 0.5 * s) / s
        expected = torch.exp(-0.5 * z**2) / (s * math.sqrt(2 * math.pi))
        torch.testing.assert_close(found[step], expected)
    torch.testing.assert_close(slopes("pdsg", [u[0]]), found[0])
    # Twice as wide, and where nothing deviates as wide as 1.
    wide, s = slopes("pdsg:2", [u[0]]), 2 * u[0].std(1)[:, None]
    torch.testing.assert_close(
        wide, torch.exp(-0.5 * ((u[0] - 0.5) / s - 0.5) ** 2) / (s * math.sqrt(2 * math.pi))
    )
    flat = slopes("pdsg", [torch.full((1, 3), 0.5)])
    assert float(flat[0, 0]) == pytest.approx(math.exp(-0.125) / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("constant", [True, False])
def test_rates_are_functions_of_mean_currents(constant: bool) -> None:
    """RGA on one layer: every step's spike is differentiated by its own current alone."""
    steps, decay, at = 4, 0.3, 0.5
    size = (1 if constant else steps, 40, 2)
    currents = torch.rand(size, generator=torch.Generator().manual_seed(0)).double() * 2 - 0.5
    weights = torch.rand(steps, 40, 2, generator=torch.Generator().manual_seed(1)).double()
    last = torch.rand(40, 2, generator=torch.Generator().manual_seed(2)).double()
    step, leaf = Step(at=at), currents.clone().requires_grad_()
    with surrogate(step, AdaptiveSurrogate("rate", 40)):
        spikes, potential = integrate(leaf, steps, decay, step)
        ((spikes * weights).sum() + (potential * last).sum()).backward()
    c = currents.expand(steps, 40, 2).mean(0) / at
    slope = 0.2 * ((c >= 0) & (c <= 1 - decay))
    slope = slope + (1 - 0.2 * (1 - decay)) / (1 + decay) * ((c > 1 - decay) & (c <= 2))
    expected = weights * slope / at
    expected[-1] += last
    assert {float(value) for value in slope.unique()} > {0.0}
    found = leaf.grad
    assert found is not None
    torch.testing.assert_close(found, expected.sum(0, keepdim=True) if constant else expected)


def test_rates_are_of_leaky_neurons_only() -> None:
    network = seeded(lambda **s: MLP((1, 2, 2), 3, **s), 0, activation="threshold")
    x = images(4)
    with pytest.raises(RobenchError, match="surrogate = .rate. is of the mean currents"):
        perturbed(network, PGD(surrogate="rate"), x, network(x).argmax(1), 0.1)


@pytest.mark.parametrize("text", ["pdsg", "rate", "pdsg:0.5"])
def test_published_derivatives_are_settings_of_the_loop(text: str) -> None:
    network, x = spiking(), images()
    y = network(x).argmax(1)
    attack = PGD(steps=20, random_start=False, surrogate=text, loss="margin", on="potential")
    broken = network(perturbed(network, attack, x, y, 0.2)).argmax(1) != y
    assert 0 < int(broken.sum()) < len(x)


def test_widths_stay_with_their_images_when_others_leave() -> None:
    rounds = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))
    stay = torch.tensor([0, 2, 4])
    step, chosen = Step(), AdaptiveSurrogate("adaptive", 5)
    for number, u in enumerate(rounds):
        leaf = u.clone() if number < 2 else u[stay]
        leaf.requires_grad_()
        if number == 2:
            chosen.keep(stay)
        with surrogate(step, chosen):
            step(leaf).sum().backward()
    whole, rest = AdaptiveSurrogate("adaptive", 5), leaf.grad
    for u in rounds:
        leaf = u.clone().requires_grad_()
        with surrogate(step, whole):
            step(leaf).sum().backward()
    assert rest is not None
    assert leaf.grad is not None
    torch.testing.assert_close(rest, leaf.grad[stay])


def test_draws_of_an_image_share_its_widths() -> None:
    network, x = spiking(sigma=0.3), images(6)
    y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(1)
    chosen = AdaptiveSurrogate("one-sided", len(x))
    with noise(network, GaussianNoise(generator)):
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        target.gradient(x, y, accuracy, 7, chosen, on="potential")
    shapes = [place._mean.shape for place in chosen._places if place._mean is not None]
    assert shapes == [(5, 6, 12), (5, 6, 3)]


def test_how_images_are_batched_changes_nothing() -> None:
    """But for images where the side of a jump hangs on a last bit."""
    network, x = spiking(), images(30)
    y = network(x).argmax(1)
    attack = PGD(steps=30, random_start=False, **STRONG)
    whole = perturbed(network, attack, x, y, 0.2)
    parts = [perturbed(network, attack, x[i : i + 7], y[i : i + 7], 0.2) for i in range(0, 30, 7)]
    same = (torch.cat(parts) - whole).flatten(1).abs().amax(1) <= 1e-5
    assert int(same.sum()) >= 24
    assert 5 <= int((network(whole).argmax(1) == y).sum()) <= 25  # some left, some stayed


# -- the reset -------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [True, False])
def test_the_gradient_through_the_reset_is_autograds(through: bool) -> None:
    """The one pass of lif.py against the same recursion written out, in double precision."""
    network = spiking(surrogate="fast-sigmoid:0.1").double()
    x = images(5).double()

    def potential(leaf: Tensor) -> Tensor:
        spikes = leaf.flatten(1)[None].expand(5, -1, -1)
        for layer in network.layers:  # type: ignore[union-attr]
            u, after = torch.zeros(()), []
            s = torch.zeros(())
            for step in spikes:
                u = network.decay * u * (1 - (s if through else s.detach())) + layer.op(step)
                s = network.spike(u)  # type: ignore[operator]
                after.append(s)
            spikes = torch.stack(after)
        return u

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(potential(leaf)[:, 0].sum(), leaf)
    leaf = x.clone().requires_grad_()
    with surrogate(network, None, through):
        (found,) = torch.autograd.grad(network.readings(leaf)[1][:, 0].sum(), leaf)
    torch.testing.assert_close(found, expected)


def test_a_one_sided_reset_agrees_with_the_step_by_step_rule() -> None:
    """One neuron, two steps: the second potential wants the first spike gone, and only a spike
    that is there can be pulled away."""
    network = seeded(lambda **s: SNN((1, 1, 1), 1, **s), 0, hidden=(), steps=2, decay=0.5)
    weight = network.layers[0].op.weight  # type: ignore[index,union-attr]
    weight.fill_(1.0)
    for current, pulls in ((0.4, False), (0.7, True)):
        leaf = torch.full((1, 1, 1, 1), current, requires_grad=True)
        with surrogate(network, AdaptiveSurrogate("one-sided:0.1", 1)):
            network.readings(leaf)[1].sum().backward()
        s = float(current > 0.5)
        away = abs(current - 0.5)
        pull = -0.5 * current / (0.1 * (away + 1e-4) + away) if pulls else 0.0
        assert leaf.grad is not None
        assert float(leaf.grad) == pytest.approx(1 + 0.5 * (1 - s) + pull, rel=1e-4)


# -- steps, losses, restarts -----------------------------------------------------------------------


def test_stable_steps_are_the_published_recursion() -> None:
    gradients = torch.randn(30, 4, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    x = torch.full((4, 1, 3, 3), 0.5).double()
    steps, region, eps = StableSteps(0.1, 30), Region(Ball("linf", 0.1), x), 0.1
    here = there = x
    m, q, lr = torch.zeros_like(x), torch.zeros_like(x), eps
    for number, g in enumerate(gradients):
        lr = lr / 2 if number in (7, 13, 18, 21, 24, 27, 28) else lr
        m = 0.5 * m + g / g.abs().mean((1, 2, 3), keepdim=True)
        q = 0.8 * q + g**2 / (g**2).mean((1, 2, 3), keepdim=True)
        there = (there + (lr * m / q.sqrt()).clamp(-lr, lr)).clamp(x - eps, x + eps).clamp(0, 1)
        here = steps.advance(here, g.clone(), torch.zeros(4), region)
        torch.testing.assert_close(here, there)


def test_expected_error_is_the_sigmoid_of_margins_over_half_their_deviation() -> None:
    logits = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5) % 4
    gaps = torch.stack([margin(draw, y) for draw in logits])
    expected = torch.sigmoid(gaps / (gaps.std(0) / 2))
    torch.testing.assert_close(accuracy(logits, y), expected)
    assert torch.equal(accuracy(logits[0], y), gaps[0])  # nothing to average over: the margin


def test_settings_that_came_later_leave_older_identities_alone() -> None:
    assert not {"on", "reset", "restart_from", "judged"} & set(PGD.resolved({}))
    assert PGD.resolved({"on": "potential"})["on"] == "potential"


@pytest.mark.parametrize("where", ["best", "near-best"])
def test_runs_from_the_best_image_stay_in_the_ball(where: Any) -> None:
    network, x = spiking(), images()
    y = network(x).argmax(1)
    attack = APGD(steps=5, restarts=4, restart_from=where, on="potential")
    x_adv = perturbed(network, attack, x, y, 0.03)
    assert float((x_adv - x).abs().max()) <= 0.03 + 1e-6


def starts_and_first_steps(
    attack: GradientAttack, best_so_far: Best
) -> list[tuple[Tensor, Tensor]]:
    """Of each run: where it starts, and its first step."""
    network, x, asked = spiking(sigma=0.1), images(), []

    class Noted(WhiteBoxTarget):
        def gradient(self, x: Tensor, *given: Any, **settings: Any) -> Any:
            asked.append(x.clone())
            return super().gradient(x, *given, **settings)

    with noise(network, GaussianNoise(torch.Generator().manual_seed(0))):
        target = Noted(network, Ball("linf", 0.1), len(x))
        attack.improve(
            best_so_far, target, x, network(x).argmax(1), torch.Generator().manual_seed(1)
        )
    assert len(asked) == attack.steps * attack.restarts
    firsts = range(0, len(asked), attack.steps)
    return [(asked[first], asked[first + 1] - asked[first]) for first in firsts]


def test_runs_near_the_best_image_start_near_it_and_take_shorter_steps() -> None:
    x = images()
    attack = PGD(steps=2, step_size=0.04, restarts=2, restart_from="near-best")
    (start, step), (_, later) = starts_and_first_steps(attack, Best(x))
    assert 0.09 < float((start - x).abs().max()) <= 0.1 + 1e-6  # nothing was found before
    assert float(step.abs().max()) == pytest.approx(0.04, abs=1e-5)
    assert float(later.abs().max()) == pytest.approx(0.01, abs=1e-5)

    best = (x + 0.05).clamp(0, 1)
    best_so_far = Best(x)
    best_so_far.enter(torch.arange(len(x)), best, torch.zeros(len(x)))
    (start, step), _ = starts_and_first_steps(attack, best_so_far)
    assert 0.005 < float((start - best).abs().max()) <= 0.01 + 1e-6
    assert float(step.abs().max()) == pytest.approx(0.01, abs=1e-5)


def test_what_was_found_on_a_noisy_network_is_compared_by_as_many_draws_as_are_asked_for() -> None:
    network, x = spiking(sigma=0.1), images()
    asked = []
    for judged in (8, 64):
        with noise(network, GaussianNoise(torch.Generator().manual_seed(0))):
            target = WhiteBoxTarget(network, Ball("linf", 0.001), len(x))
            y = network(x).argmax(1)
            PGD(steps=2, judged=judged).perturb(target, x, y, torch.Generator().manual_seed(1))
        asked.append(target.queries)
    assert asked == [(2 + 2 * judged) * len(x) for judged in (8, 64)]  # the last and the best one


# -- what is found ---------------------------------------------------------------------------------


def breakable(network: Network, x: Tensor, y: Tensor, eps: float, side: int) -> Tensor:
    """By a grid over the ball of a 2x2 image: all but slivers of what can be broken, (n,)."""
    offsets = torch.tensor(list(itertools.product(torch.linspace(-eps, eps, side), repeat=4)))
    broken = [
        bool((network((image + offsets.view(-1, 1, 2, 2)).clamp(0, 1)).argmax(1) != label).any())
        for image, label in zip(x, y, strict=True)
    ]
    return torch.tensor(broken)


@pytest.mark.parametrize("kind", ["threshold", "sign", "spiking"])
def test_of_what_brute_force_breaks_nearly_all_is_found(kind: str) -> None:
    network, eps = spiking(seed=3), 0.06
    if kind != "spiking":
        make = lambda **s: MLP((1, 2, 2), 3, **s)  # noqa: E731
        network, eps = seeded(make, 3, activation=kind, hidden=(12,)), 0.1
        for layer in network.layers:  # type: ignore[union-attr]
            layer.op.weight.mul_(3)
    x = images(100)
    y = network(x).argmax(1)
    truth = breakable(network, x, y, eps, 9)
    surrogates = ("one-sided:0.1", "one-sided:0.3")
    attack = PGD(steps=40, restarts=4, momentum=0.75, **STRONG | {"surrogate": surrogates})
    found = network(perturbed(network, attack, x, y, eps)).argmax(1) != y
    assert 5 <= int(truth.sum()) <= 95
    assert int(found.sum()) >= int(truth.sum()) - 1  # the grid misses some, too
