"""What float32 loses at a point is told from the most that it loses in a ball, and neither is ever
taken for less than it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from two_pixels import CLASSES, EPS, SHAPE, everywhere, images, perceptron, settle, spiking

from robench.attacks.ball import Ball
from robench.data.base import Part
from robench.networks.base import Network
from robench.networks.fc import FC
from robench.networks.mlp import MLP
from robench.proofs.bounds import intervals
from robench.proofs.leaf import CLOSE, Leaf
from robench.proofs.reading import read
from robench.proofs.region import gamma, region
from robench.proofs.rounding import of_answers, of_sums
from robench.proofs.shallow import Shallow

LINES = ("relu", "abs", "threshold", "sign", "staircase")


def some(kind: str, seed: int) -> Network:
    """Networks whose first layer sees pixels as they are, centred, or standardised."""
    if kind == "centred":
        return perceptron(FC, seed, hidden=(5,), activation="relu", span=2.0)
    if kind == "spikes":
        return spiking(seed, hidden=(5,), steps=3, threshold=0.4)
    standardise = "pixel" if kind == "standardised" else "none"
    activation = kind if kind in LINES else "relu"
    made = perceptron(MLP, seed, hidden=(5,), activation=activation, standardise=standardise)
    if standardise != "none":
        pixels = np.random.default_rng(seed).uniform(0.2, 0.9, (20, *SHAPE))
        made.learn_input(pixels.astype(np.float32))
    return made


@pytest.mark.parametrize("kind", [*LINES, "centred", "standardised", "spikes"])
def test_the_line_lies_above_what_a_point_loses_and_below_the_most(kind: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        network = some(kind, seed)
        part = images(network, 1, seed)
        x, label = torch.from_numpy(part.images), int(part.labels[0])
        reading, ball = read(network), region(Ball("linf", EPS), x)
        image = Shallow(reading, intervals(reading, ball), label, ball)
        first, last = reading.stages[0], reading.stages[-1]
        matrix = first.sources[0].matrix
        assert matrix is not None
        points = rng.uniform(ball.low, ball.high, (500, 2))
        seen = np.abs(reading.scale * points + reading.shift)
        lost = gamma(first.operations) * (np.abs(first.bias) + seen @ np.abs(matrix).T)
        line = of_sums(reading, ball)
        at = points @ line.slope.T + line.offset
        assert (lost <= at).all()
        assert (at <= image.bounds[0].rounding * (1 + 1e-12)).all()
        # Where every pixel counts the most, so does the sum.
        most = np.where(line.slope > 0, ball.high, ball.low)
        assert np.allclose((most * line.slope).sum(1) + line.offset, image.bounds[0].rounding)
        if kind == "spikes":
            continue
        weight = last.sources[0].matrix
        assert weight is not None
        for point in points[:50]:
            p = matrix @ (reading.scale * point + reading.shift) + first.bias
            piece = np.array([(image.ends[1] < value).sum() for value in p[image.units]], int)
            low = np.maximum(image.ends[0][piece], image.low)
            high = np.minimum(image.ends[1][piece], image.high)
            every = np.array([(image.ends[1] < value).sum() for value in p])
            size = np.abs(image.slopes[every, 0] * p + image.offsets[every, 0])
            for target in {*range(CLASSES)} - {label}:
                slope, offset = of_answers(image, target, piece, low, high)
                sizes = np.abs(last.bias) + np.abs(weight) @ size
                lost_here = gamma(last.operations) * sizes[[target, label]].sum()
                line_here = slope @ p[image.units] + offset
                assert lost_here <= line_here
                assert line_here <= image.slack[0][[target, label]].sum() * (1 + 1e-9)


def planted(activation: str, margin: float) -> tuple[Network, Part]:
    """The wrong class comes nearest where the first pixel is 0 and float32 loses next to nothing:
    there it is behind by `margin`, which is less than float32 loses where the pixel is not 0."""
    network = MLP((1, 1, 2), 2, hidden=(2,), activation=activation)
    first, last = (layer.op for layer in network.layers)
    with torch.no_grad():
        if activation in ("relu", "abs"):  # the right class leads by 300 x + margin
            first.weight[:] = torch.tensor([[300.0, 0.0], [0.0, 1.0]])
            first.bias[:] = torch.tensor([0.0, -0.55])  # a kink that changes nothing
            last.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
            last.bias[:] = torch.tensor([margin, 0.0])
        else:  # a unit is off for x >= 0, by `margin` at 0, and the wrong class wins where it is on
            first.weight[:] = torch.tensor([[-300.0, 0.0], [0.0, 1.0]])
            first.bias[:] = torch.tensor([-margin, -0.55])
            last.weight[:] = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
            last.bias[:] = torch.tensor([0.5, 0.0])
    network.eval().requires_grad_(False)
    return network, Part(np.array([[[[0.1, 0.5]]]], dtype=np.float32), np.array([0]))


@pytest.mark.parametrize("activation", ["relu", "abs", "threshold", "sign"])
def test_what_only_the_most_of_rounding_leaves_open_is_proved(
    activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, part = planted(activation, 1e-5)
    answers = everywhere(network, part.images[0], 0.2)
    assert (answers.argmax(1) == 0).all()
    made = settle(network, part, 0.2)
    assert made.proved is not None
    assert made.proved[0] == 1
    monkeypatch.setattr(Leaf, "_within_rounding", lambda *_: CLOSE)
    before = settle(network, part, 0.2)
    assert before.proved is not None
    assert not before.proved[0]
    assert before.notes[0] == CLOSE


@pytest.mark.parametrize("activation", ["relu", "abs", "threshold", "sign"])
@pytest.mark.parametrize("margin", [0.0, 1e-45, 1e-9, 1e-7, -1e-9, -1e-7, -1e-5])
def test_a_weight_within_rounding_of_deciding_is_never_proved_wrongly(
    activation: str, margin: float
) -> None:
    network, part = planted(activation, margin)
    made = settle(network, part, 0.2)
    wrong = bool(everywhere(network, part.images[0], 0.2).argmax(1).any())
    assert made.proved is not None
    assert not (wrong and made.proved[0])


@pytest.mark.rows(1)
@pytest.mark.parametrize("activation", LINES)
def test_a_lead_within_rounding_is_never_proved_wrongly(activation: str) -> None:
    """The right class is moved to where the best wrong one just does not pass it, and from there by
    so many float32 steps."""
    settled: dict[int, list[bool]] = {}
    for seed in range(8):
        network: Any = perceptron(MLP, seed, hidden=(4,), activation=activation)
        part = images(network, 1, seed)
        label, last = int(part.labels[0]), network.layers[-1].op
        before = float(last.bias[label])
        logits = everywhere(network, part.images[0], EPS).double()
        others = [c for c in range(CLASSES) if c != label]
        lead = float((logits[:, others].max(1).values - logits[:, label]).max())
        even = np.float32(before + lead)
        for steps in (-3000, -60, -5, -1, 0, 1, 5, 60, 3000):
            moved = even + np.float32(steps) * np.spacing(np.abs(even))
            last.bias[label] = float(moved)
            if int(network(torch.from_numpy(part.images)).argmax()) != label:
                continue
            made = settle(network, part)
            answers = everywhere(network, part.images[0], EPS).argmax(1)
            assert made.proved is not None
            assert not (made.proved[0] and bool((answers != label).any()))
            settled.setdefault(steps, []).append(bool(made.proved[0]))
    assert any(settled[3000])
    assert not any(settled.get(-3000, []))
