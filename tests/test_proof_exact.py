"""What the exact search says is what trying everything says, on networks small enough for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from two_pixels import CLASSES, EPS, SHAPE, UNITS, everywhere, images, perceptron, settle, spiking

from robench.attacks.ball import Ball
from robench.data.base import Part
from robench.networks.base import Network
from robench.networks.fc import FC
from robench.networks.lif import integrate
from robench.networks.mlp import MLP
from robench.networks.snn import SNN
from robench.networks.surrogate import Step
from robench.proofs import branch, exact, solver
from robench.proofs.region import Region, region
from robench.proofs.units import SpikeTrain
from robench.workspace.cards import Norm


def check(
    network: Network, seed: int, eps: float = EPS, count: int = 12, norm: Norm = "linf"
) -> tuple[int, int]:
    """Hold every answer against the grid; how many were broken and proved."""
    part = images(network, count, seed)
    made = settle(network, part, eps, norm)
    x = torch.from_numpy(part.images)
    far = Ball(norm, eps).distance(torch.from_numpy(made.images), x)
    assert float(far.max()) <= eps * (1 + 1e-6)
    wrong = network(torch.from_numpy(made.images)).argmax(1).numpy() != part.labels
    for index in range(count):
        answers = everywhere(network, part.images[index], eps, norm)
        tried = bool((answers.argmax(1) != int(part.labels[index])).any())
        best = answers.topk(2, dim=1).values
        tied = bool((best[:, 0] - best[:, 1] < 1e-6).any())  # silent outputs: open, or right
        assert made.proved is not None
        assert tied or wrong[index] or made.proved[index] == 1, made.notes.get(index)
        assert not (made.proved[index] and (tried or wrong[index]))
    return int(wrong.sum()), int((made.proved == 1).sum())


@pytest.mark.rows(5)
@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("hidden", [(4,), (3, 3)])
def test_perceptrons(activation: str, hidden: tuple[int, ...]) -> None:
    if activation == "sigmoid" and len(hidden) > 1:
        pytest.skip("bands around sigmoids of two layers leave images open")
    seen = [
        check(perceptron(MLP, seed, hidden=hidden, activation=activation), seed, EPS * len(hidden))
        for seed in range(6)
    ]
    broken, proved = np.sum(seen, axis=0)
    assert broken
    assert proved


ROUND: list[tuple[Norm, float]] = [("l1", 0.25), ("l2", 0.2)]


@pytest.mark.rows(9)
@pytest.mark.parametrize(("norm", "eps"), ROUND)
@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("hidden", [(4,), (3, 3)])
def test_perceptrons_in_balls_that_are_no_boxes(
    activation: str, hidden: tuple[int, ...], norm: Norm, eps: float
) -> None:
    if activation == "sigmoid" and len(hidden) > 1:
        pytest.skip("bands around sigmoids of two layers leave images open")
    seen = []
    for seed in range(3):
        network = perceptron(MLP, seed, hidden=hidden, activation=activation)
        seen.append(check(network, seed, eps * len(hidden), norm=norm))
    broken, proved = np.sum(seen, axis=0)
    assert broken
    assert proved


@pytest.mark.rows(4)
@pytest.mark.parametrize(("norm", "eps"), ROUND)
@pytest.mark.parametrize("readout", ["last", "membrane", "rate"])
@pytest.mark.parametrize(("hidden", "steps"), [((4,), 3), ((3, 3), 2)])
def test_spiking_networks_in_balls_that_are_no_boxes(
    readout: str, hidden: tuple[int, ...], steps: int, norm: Norm, eps: float
) -> None:
    seen = []
    for seed in range(3):
        network = spiking(seed, hidden=hidden, steps=steps, readout=readout, threshold=0.4)
        seen.append(check(network, seed, eps, norm=norm))
    broken, proved = np.sum(seen, axis=0)
    assert broken
    assert proved


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
@pytest.mark.parametrize("eps", [0.05, 0.6, 3.0])
def test_how_far_a_sum_of_pixels_reaches_in_a_ball(norm: Norm, eps: float) -> None:
    """No point of the ball gets farther, and one that lies in it gets as far."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.choice([0.0, 0.02, 0.5, 0.9, 1.0], (1, 1, 4, 5)).astype(np.float32))
    ball = Ball(norm, eps)
    where = region(ball, x)
    v = np.concatenate([rng.normal(size=(40, 20)), np.eye(20), -np.eye(20), np.zeros((1, 20))])
    most, best = where.reach(v), where.farthest(v)
    reached = ((best - where.middle) * v).sum(1)
    assert np.allclose(reached, most, rtol=1e-4, atol=1e-7)
    assert (most >= reached - 1e-9).all()
    assert ((best >= -1e-12) & (best <= 1 + 1e-12)).all()
    inside = torch.from_numpy(best).view(-1, 1, 4, 5)
    assert float(ball.distance(inside, x.double()).max()) <= eps * (1 + 1e-4) + 1e-5
    points = x + eps * torch.from_numpy(rng.normal(size=(3000, 1, 4, 5)).astype(np.float32))
    kept = ball.project(points, x).flatten(1).numpy().astype(float)
    assert ((kept - where.middle) @ v.T <= most + 1e-9).all()


def test_networks_that_see_their_pixels_centred() -> None:
    broken, proved = check(perceptron(FC, 1, hidden=(4,), activation="relu", span=2.0), 1)
    assert broken
    assert proved


@pytest.mark.rows(4)
@pytest.mark.parametrize("kind", [MLP, FC, SNN])
@pytest.mark.parametrize(
    ("standardise", "norm"), [("channel", "linf"), ("pixel", "linf"), ("pixel", "l2")]
)
def test_networks_that_standardise_their_pixels(
    kind: type[Network], standardise: str, norm: Norm
) -> None:
    settings = {"hidden": (4,), "standardise": standardise}
    seen = []
    for seed in range(4):
        if kind is SNN:
            network = spiking(seed, steps=2, threshold=0.4, **settings)
        else:
            network = perceptron(kind, seed, activation="relu", **settings)
        pixels = np.random.default_rng(seed).uniform(0.2, 0.9, (20, *SHAPE))
        network.learn_input(pixels.astype(np.float32))
        assert float(network.get_buffer("input_std")) < 0.4
        seen.append(check(network, seed, norm=norm))
    broken, proved = np.sum(seen, axis=0)
    assert broken
    assert proved


@pytest.mark.rows(5)
@pytest.mark.parametrize("readout", ["last", "membrane", "rate"])
@pytest.mark.parametrize(("hidden", "steps"), [((4,), 1), ((4,), 2), ((4,), 3), ((3, 3), 3)])
def test_spiking_networks(readout: str, hidden: tuple[int, ...], steps: int) -> None:
    seen = [
        check(spiking(seed, hidden=hidden, steps=steps, readout=readout, threshold=0.4), seed)
        for seed in range(3)
    ]
    broken, proved = np.sum(seen, axis=0)
    assert broken
    assert proved


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
@pytest.mark.parametrize(("decay", "threshold"), [(0.2, 0.5), (0.9, 0.3), (0.0, 1.0), (1.0, 1.0)])
def test_spike_trains_change_where_the_neuron_does(
    steps: int, decay: float, threshold: float
) -> None:
    train = SpikeTrain(steps, decay, threshold)
    pieces = train.pieces(-1.0, 2.0)
    inside = np.linspace(-1, 2, 4001)
    around = [np.nextafter(np.float32(b), np.float32(b + s)) for b in pieces.high for s in (-1, 1)]
    currents = np.array([*inside, *around, *pieces.high[:-1]], dtype=np.float32)
    series, _ = integrate(torch.from_numpy(currents)[None], steps, decay, Step(at=threshold))
    real = torch.stack(list(series), 1).numpy()
    for current, spikes in zip(currents.tolist(), real, strict=True):
        near = 8 * steps * 2**-24 * abs(current)  # what a program adds for rounding
        hit = (pieces.low - near <= current) & (current <= pieces.high + near)
        assert any((pieces.offset[k] == spikes).all() for k in np.flatnonzero(hit))


@pytest.mark.rows(30)
@pytest.mark.parametrize("steps", [0, 1, -1, 2, -2, 5, -5, 60, -60])
@pytest.mark.parametrize("activation", ["threshold", "sign", "staircase"])
@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_a_unit_within_rounding_of_its_jump_is_never_proved_wrongly(
    activation: str, steps: int, norm: Norm
) -> None:
    """One unit decides; the ball ends at its jump, so many float32 steps before or behind."""
    network = MLP(SHAPE, 2, hidden=(1,), activation=activation)
    first, last = (layer.op for layer in network.layers)
    with torch.no_grad():
        first.weight[:] = torch.tensor([[0.7, 1 / 3]])
        farthest = {"linf": [1.0, 1.0], "l1": [1.0, 0.0], "l2": [0.7, 1 / 3]}[norm]
        way = 0.1 * np.array(farthest) / np.linalg.norm(farthest, 2 if norm == "l2" else np.inf)
        corner = torch.tensor([[0.3, 0.6]]) + torch.tensor(way, dtype=torch.float32)
        bias = -(first.weight @ corner.t()).item()
        for _ in range(abs(steps)):
            bias = float(np.nextafter(np.float32(bias), np.float32(np.sign(steps) * 10)))
        first.bias[:] = bias
        last.weight[:] = torch.tensor([[0.0], [1.0]])
        last.bias[:] = torch.tensor([0.5 if activation != "staircase" else 0.4, 0.0])
    network.eval().requires_grad_(False)
    part = Part(np.array([[[[0.3, 0.6]]]], dtype=np.float32), np.array([0]))
    made = settle(network, part, eps=0.1, norm=norm)
    low, high = torch.tensor([0.2, 0.5]), torch.tensor([0.4, 0.7])
    corners = torch.cartesian_prod(*torch.stack([low, high], 1)).view(-1, *SHAPE)
    x = torch.from_numpy(part.images)
    edges = x + torch.tensor(way * 1.01, dtype=torch.float32).view(1, *SHAPE)
    nearly = corner.view(1, *SHAPE) * (1 + 6e-8 * torch.arange(-3, 4).view(-1, 1, 1, 1))
    points = Ball(norm, 0.1).project(torch.cat([corners, edges, nearly]), x)
    wrong = bool(network(points).argmax(1).any())
    assert made.proved is not None
    assert not (wrong and made.proved[0])
    if abs(steps) >= 60:
        assert made.proved[0] == (steps < 0)


def test_a_solver_that_dies_or_is_too_slow_leaves_images_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shallow = perceptron(MLP, 0, hidden=(4,), activation="threshold")
    deep = perceptron(MLP, 2, hidden=(3, 3), activation="threshold")
    part = images(shallow, 12, 0)
    for network, module, name in ((shallow, exact, "search"), (deep, solver.Solver, "ask")):
        own = Part(part.images, network(torch.from_numpy(part.images)).argmax(1).numpy())
        sure = settle(network, own)
        late = settle(network, own, seconds=1e-9)
        few = settle(network, own, nodes=1)
        with monkeypatch.context() as patch:

            def dies(*_: Any, **__: Any) -> None:
                raise MemoryError("killed")

            patch.setattr(module, name, dies)
            dead = settle(network, own)
        for made, why in ((late, "out of time"), (few, "out of nodes"), (dead, "the solver died")):
            assert sure.proved is not None
            assert made.proved is not None
            assert (made.proved <= sure.proved).all()
            if why != "out of nodes" or network is shallow:
                assert any(why in note for note in made.notes.values())
            open_ = {i for i in range(12) if not made.proved[i]}
            assert {*made.notes} <= open_


def test_what_cannot_be_read_stays_open_and_says_why() -> None:
    class Mine(MLP):
        pass

    torch.manual_seed(0)
    cases: list[tuple[Network, str]] = [
        (Mine(SHAPE, CLASSES), "no encoding of Mine"),
        (MLP(SHAPE, CLASSES, activation="tanh"), "no encoding of tanh units"),
        (SNN(SHAPE, CLASSES, encoding="bernoulli"), "draws numbers"),
    ]
    for network, why in cases:
        part = images(network.eval(), 3, 0)
        made = settle(network, part)
        assert made.proved is not None
        assert not made.proved.any()
        assert all(why in note for note in made.notes.values())
    hooked = perceptron(MLP, 0, hidden=(4,), activation="relu")
    part = images(hooked, 3, 0)
    hooked.register_forward_hook(lambda *_: None)
    assert "hooks" in settle(hooked, part).notes[0]


def test_nothing_is_said_that_a_bound_does_not_say() -> None:
    """The Lagrangian bound lies above every lead in the ball, whatever its multipliers."""
    from robench.proofs.bounds import intervals
    from robench.proofs.reading import read
    from robench.proofs.shallow import Nodes, Shallow

    rng = np.random.default_rng(0)
    for activation in UNITS:
        network = perceptron(MLP, 3, hidden=(4,), activation=activation)
        x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
        label = int(network(x).argmax())
        low, high = (x - EPS).clamp(0, 1).numpy().ravel(), (x + EPS).clamp(0, 1).numpy().ravel()
        ball = Region(low.astype(float), high.astype(float))
        reading = read(network)
        image = Shallow(reading, intervals(reading, ball), label, ball)
        points = torch.from_numpy(rng.uniform(low, high, (4000, 2)).astype(np.float32))
        logits = network(points.view(-1, *SHAPE)).double().numpy()
        targets = [c for c in range(CLASSES) if c != label]
        nodes = Nodes(np.tile(image.low, (2, 1)), np.tile(image.high, (2, 1)), np.array(targets))
        for steps in (0, 3, 40):
            start = rng.normal(0, 1, (2, len(image.units)))
            value = branch.bound(image, nodes, start, steps, 1.0).value
            for target, most in zip(targets, value, strict=True):
                assert most >= (logits[:, target] - logits[:, label]).max() - 1e-6


@pytest.mark.parametrize("activation", ["relu", "abs", "threshold", "sign", "staircase"])
def test_two_ways_to_search_say_the_same(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branch and bound over the hidden units, and the mixed-integer program of all of them."""
    network = perceptron(MLP, 5, hidden=(5,), activation=activation)
    part = images(network, 12, 5)
    branched = settle(network, part)
    monkeypatch.setattr(exact, "shallow", lambda _: False)
    programmed = settle(network, part)
    assert not branched.notes
    assert not programmed.notes
    assert branched.proved is not None
    assert programmed.proved is not None
    assert branched.proved.tolist() == programmed.proved.tolist()


@pytest.mark.parametrize("activation", [*UNITS, "spikes"])
def test_what_is_cut_from_a_box_cannot_win_there(activation: str) -> None:
    """Points of the ball at which the wrong class leads keep all their pre-activations."""
    from robench.proofs.bounds import intervals
    from robench.proofs.dual import tighten
    from robench.proofs.reading import read
    from robench.proofs.shallow import Nodes, Shallow

    rng = np.random.default_rng(0)
    kept = cut = 0
    for seed in range(12):
        if activation == "spikes":
            network = spiking(seed, hidden=(6,), steps=4, threshold=0.4)
        else:
            network = perceptron(MLP, seed, hidden=(6,), activation=activation)
        x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed))
        label = int(network(x).argmax())
        low, high = (x - EPS).clamp(0, 1).numpy().ravel(), (x + EPS).clamp(0, 1).numpy().ravel()
        ball = Region(low.astype(float), high.astype(float))
        reading = read(network)
        image = Shallow(reading, intervals(reading, ball), label, ball)
        if not len(image.units):
            continue
        points = rng.uniform(low, high, (4000, 2)).astype(np.float32)
        answers = network(torch.from_numpy(points).view(-1, *SHAPE)).argmax(1).numpy()
        for target in {*range(CLASSES)} - {label}:
            nodes = Nodes(image.low[None], image.high[None], np.array([target]))
            found = branch.bound(image, nodes, np.zeros((1, len(image.units))), 40, 4.0)
            boxes = tighten(image, nodes, found)
            cut += int((boxes.low > nodes.low).sum() + (boxes.high < nodes.high).sum())
            p = points[answers == target].astype(float) @ image.weight.T + image.bias
            kept += len(p)
            if found.value[0] >= 0:
                assert (p >= boxes.low - 1e-6).all()
                assert (p <= boxes.high + 1e-6).all()
            else:
                assert not len(p)
    assert kept
    assert cut


def test_a_tie_of_what_is_read_is_never_wider_than_the_slack_for_it() -> None:
    """Potentials that the tie-break of a last spike does not tell apart in float32."""
    from robench.proofs.bounds import tie_slack
    from robench.proofs.reading import read

    network = spiking(0, hidden=(4,), steps=2, readout="last", threshold=0.4)
    reading = read(network)
    rng = np.random.default_rng(0)
    told = 0
    for middle in (-60.0, -20.0, -5.0, -0.5, 0.0, 0.4, 0.41, 1.0, 4.0, 8.0, 12.0):
        for width in (1e-6, 1e-5, 1e-4, 1e-2, 0.5):
            own, other = (rng.uniform(-width, width, 2000).astype(np.float32) for _ in range(2))
            label, target = (torch.from_numpy(np.float32(middle) + p) for p in (own, other))
            read_label, read_target = (
                (p > 0.4).float() + torch.sigmoid(p - 0.4) / 1000 for p in (label, target)
            )
            lost = (read_target >= read_label).numpy()
            ahead = label.double().numpy() - target.double().numpy()
            slack = tie_slack(
                reading,
                np.array([float(target.min())]),
                np.array([float(target.max())]),
                np.array([float(label.min())]),
                np.array([float(label.max())]),
            )
            assert (ahead[lost] <= slack[0]).all(), (middle, width)
            told += int((lost & (ahead > 0)).sum())
    assert told
