"""What interval bounds say of convolutional networks holds for every image that is tried."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.data.base import Part
from robench.make.scoring import Perturbed, attack_slice
from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.snn import SNN
from robench.proofs import boxes
from robench.proofs.exact import Exact
from robench.proofs.linear import Box, Net, Value
from robench.workspace.cards import AttackCard, Norm

SHAPE, CLASSES = (1, 6, 6), 3
NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "relu": (CNN, {"channels": (3, 4), "hidden": (6,)}),
    "average": (CNN, {"channels": (3, 4), "hidden": (), "pool": "average"}),
    "shortcut": (CNN, {"channels": (3, 3), "halvings": (1,), "shortcuts": (2,), "hidden": (5,)}),
    "inside": (CNN, {"channels": (3, 4), "hidden": (5,), "noise": "halving"}),
    "threshold": (CNN, {"channels": (3, 4), "hidden": (6,), "activation": "threshold"}),
    "sign": (CNN, {"channels": (3,), "hidden": (6,), "activation": "sign"}),
    "staircase": (CNN, {"channels": (3,), "hidden": (6,), "activation": "staircase"}),
    "standardised": (CNN, {"channels": (3, 4), "hidden": (6,), "standardise": "pixel"}),
    "sigmoid": (CNN, {"channels": (3, 4), "hidden": (6,), "activation": "sigmoid"}),
    "last": (SNN, {"convolutions": (3, 4), "hidden": (6,), "steps": 3}),
    "rate": (SNN, {"convolutions": (4,), "hidden": (6,), "steps": 4, "readout": "rate"}),
    "membrane": (SNN, {"convolutions": (4,), "hidden": (), "steps": 3, "readout": "membrane"}),
}


def made(kind: str, seed: int) -> Network:
    torch.manual_seed(seed)
    cls, settings = NETWORKS[kind]
    network = cls(SHAPE, CLASSES, **settings).eval().requires_grad_(False)
    if isinstance(network, SNN):
        for layer in network.layers:  # so that spikes get through
            layer.op.weight.mul_(2)
    network.learn_input(torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(7)).numpy())
    return network


def images(network: Network, count: int, seed: int) -> Part:
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Part(x.numpy(), network(x).argmax(1).numpy())


def settle(network: Network, part: Part, eps: float, norm: Norm = "linf") -> Perturbed:
    spec = {"name": "exact"}
    card = AttackCard(
        attack=spec, access="weights", role="proof", norm=norm, eps=eps, name="exact", root=Path()
    )
    device = torch.device("cpu")
    return attack_slice(
        network, Exact(steps=0), card, eps, part, noisy=False, seed=0, batch_size=8, device=device
    )


def sampled(image: np.ndarray, eps: float, count: int, seed: int) -> Tensor:
    """Points of the ball: half of them corners."""
    draw = torch.Generator().manual_seed(seed)
    step = 2 * torch.rand(count, *SHAPE, generator=draw) - 1
    step[::2] = step[::2].sign()
    return (torch.from_numpy(image) + eps * step).clamp(0, 1)


@pytest.mark.rows(5)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("eps", [0.003, 0.03])
def test_no_sample_violates_what_is_proved(
    kind: str, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the answer nor, in any layer, the interval that a product was said to lie in."""
    proved = 0
    for seed in range(4):
        network = made(kind, seed)
        part = images(network, 5, seed)
        said = settle(network, part, eps).proved
        assert said is not None
        proved += int((said == 1).sum())
        for index, image in enumerate(part.images):
            tried = sampled(image, eps, 200, index)
            if said[index]:
                assert (network(tried).argmax(1) == int(part.labels[index])).all()
            _held(network, image, eps, tried, monkeypatch)
    assert proved or eps > 0.01


@pytest.mark.rows(0)
@pytest.mark.parametrize(("norm", "eps"), [("l1", 0.1), ("l2", 0.02)])
def test_balls_that_are_no_boxes_are_more_than_the_box_around_them(norm: Norm, eps: float) -> None:
    """More is proved than of that box, and no sample violates it."""
    proved = boxed = 0
    for kind in NETWORKS:
        for seed in range(2):
            network = made(kind, seed)
            part = images(network, 5, seed)
            said = settle(network, part, eps, norm).proved
            whole = settle(network, part, eps).proved
            assert said is not None
            assert whole is not None
            assert (said >= whole).all()
            proved, boxed = proved + int(said.sum()), boxed + int(whole.sum())
            for index in np.flatnonzero(said).tolist():
                clean = torch.from_numpy(part.images[index])[None]
                draw = torch.Generator().manual_seed(index)
                steps = torch.randn(200, *SHAPE, generator=draw)
                steps[::2] *= torch.rand(100, *SHAPE, generator=draw) < 0.05  # towards few pixels
                tried = Ball(norm, eps).project(clean + steps, clean)
                assert (network(tried).argmax(1) == int(part.labels[index])).all()
    assert proved > boxed > 0


def _held(
    network: Network, image: np.ndarray, eps: float, tried: Tensor, patch: pytest.MonkeyPatch
) -> None:
    """Hold the values that every layer computes against the interval that it was given."""
    given: dict[torch.nn.Module, list[Value]] = {}
    net = Net(1000, math.inf)
    through = boxes._through

    def spied(net: Net, op: torch.nn.Module, x: Value, more: int = 0) -> Value:
        found = through(net, op, x, more)
        given.setdefault(op, []).append(found)
        return found

    x = torch.from_numpy(image)[None]
    with patch.context() as patched:
        patched.setattr(boxes, "_through", spied)
        low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
        boxes._proved(network, net, Box(low.double(), high.double()), 0)
    checked = []
    draw = torch.Generator().manual_seed(0)

    def look(op: torch.nn.Module, _: Any, out: Tensor) -> None:
        if op in given and isinstance(op, torch.nn.Conv2d | torch.nn.Linear):
            low = torch.cat([value.box.low for value in given[op]])
            high = torch.cat([value.box.high for value in given[op]])
            values = out.double().unflatten(0, (len(low), -1))  # step by step
            assert (values >= low[:, None]).all()
            assert (values <= high[:, None]).all()
            for value, numbers in zip(given[op], values, strict=True):  # and under a linear bound
                a = torch.randn(4, *numbers.shape[1:], generator=draw, dtype=torch.float64)
                sums = numbers.flatten(1) @ a.flatten(1).T
                assert (sums.amax(0) <= net.most([(value, a)])).all()
            checked.append(op)

    hooks = [op.register_forward_hook(look) for op in network.modules()]
    network(tried)
    for hook in hooks:
        hook.remove()
    assert checked


@pytest.mark.rows(1)
@pytest.mark.parametrize("kind", ["relu", "average", "shortcut", "membrane"])
def test_linear_bounds_prove_what_intervals_do_not(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    nothing = torch.full((CLASSES,), torch.inf, dtype=torch.float64)
    for linear in (True, False):
        if not linear:
            monkeypatch.setattr(Net, "most", lambda *_: nothing)
            monkeypatch.setattr(Net, "narrowed", lambda *_: None)
        said = [
            settle(made(kind, seed), images(made(kind, seed), 10, seed), eps).proved
            for seed in range(3)
            for eps in (0.03, 0.1)
        ]
        counts.append(np.concatenate(said) == 1)
    with_lines, intervals_alone = counts
    assert (with_lines >= intervals_alone).all()
    assert with_lines.sum() > intervals_alone.sum()


@pytest.mark.rows(4)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_ball_without_extent_is_proved(kind: str) -> None:
    network = made(kind, 1)
    part = images(network, 8, 1)
    # An output layer without any spike ties; that is left open.
    top = network(torch.from_numpy(part.images)).topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1] > 1e-6).numpy()
    said = settle(network, part, 0.0)
    assert clear.any()
    assert said.proved is not None
    assert (said.proved[clear] == 1).all(), said.notes


@pytest.mark.parametrize("kind", ["relu", "threshold", "sigmoid"])
def test_what_is_constant_by_construction_is_proved_in_any_ball(kind: str) -> None:
    network = made(kind, 0)
    assert isinstance(network, CNN)
    with torch.no_grad():
        network.layers[-1].op.weight[:] = network.layers[-1].op.weight[0].clone()
        network.layers[-1].op.bias[:] = torch.tensor([0.0, 1.0, 0.5])
    said = settle(network, images(network, 4, 0), 1.0)
    assert said.proved is not None
    assert (said.proved == 1).all()


def test_what_bounds_leave_is_open_and_says_why() -> None:
    relu = made("relu", 0)
    part = images(relu, 4, 0)
    said = settle(relu, part, 0.9)
    assert said.proved is not None
    assert not said.proved.any()
    assert set(said.notes.values()) == {"bounds alone do not prove it"}
    for network, why in (
        (CNN(SHAPE, CLASSES, channels=(3,), norm="layer"), "no bounds for GroupNorm"),
        (CNN(SHAPE, CLASSES, channels=(3,), activation="tanh"), "no bounds for tanh"),
        (SNN(SHAPE, CLASSES, convolutions=(3,), encoding="bernoulli"), "draws numbers"),
    ):
        said = settle(network.eval().requires_grad_(False), part, 0.01)
        assert said.proved is not None
        assert not said.proved.any()
        assert all(why in note for note in said.notes.values())
    relu.register_forward_hook(lambda *_: None)
    assert "hooks" in settle(relu, part, 0.0).notes[0]
