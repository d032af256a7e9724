"""Events: a simulated sensor, networks that see them step by step, and flips of a few."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robench.attacks.ball import Ball
from robench.attacks.event_flips import EventFlips
from robench.attacks.flips import RandomFlips
from robench.attacks.target import WhiteBoxTarget
from robench.checks.attacks import check_attack
from robench.data.digits_events import DigitsEvents, sensed
from robench.errors import RobenchError
from robench.networks.modules.module import Module
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN
from robench.proofs.reading import Unreadable, read
from robench.trainers.stbp import STBP
from robench.workspace.plugins import Located

STEPS = 3


def small(seed: int = 0) -> SNN:
    """3 steps x 2 polarities x 2 x 2 pixels: 24 events."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SNN((2 * STEPS, 2, 2), 3, hidden=(12,), steps=STEPS, encoding="events")
        with torch.no_grad():
            for layer in network.layers:
                layer.op.weight.mul_(3)
    return network.eval().requires_grad_(False)


def events(n: int = 40) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return (torch.rand(n, 2 * STEPS, 2, 2, generator=rng) < 0.3).float()


def test_a_still_edge_is_silent_and_a_moving_one_rises_before_it_and_falls_behind() -> None:
    flat = np.full((1, 8, 8), 0.7)
    inner = sensed(flat, 4, 0.3)[:, :, 3:5, 3:5]
    assert inner.sum() == 0  # nothing changes away from the border
    edge = np.zeros((1, 8, 8))
    edge[:, :, 4:] = 1.0
    # The sensor goes right first: what it sees moves left, and column 3 brightens.
    rises, falls = sensed(edge, 4, 0.3)[0, 0], sensed(edge, 4, 0.3)[0, 1]
    assert rises[2:5, 3].all()
    assert falls[2:5, 3].sum() == 0
    assert rises[2:5, :3].sum() == 0


def test_the_set_is_binary_seeded_and_noisy_as_it_says() -> None:
    one, again = DigitsEvents().raw(), DigitsEvents().raw()
    assert np.array_equal(one.images, again.images)
    assert set(np.unique(one.images).tolist()) == {0.0, 1.0}
    assert one.images.shape == (1797, 12, 8, 8)
    quiet = DigitsEvents(noise=0.0).raw()
    assert np.mean(one.images != quiet.images) == pytest.approx(0.005, rel=0.05)
    assert 0.02 < quiet.images.mean() < 0.4


def test_a_network_sees_each_step_s_events_at_that_step() -> None:
    network, x = small(), events(5)
    # By hand: the same layers, one step after the other.
    potentials = [torch.zeros(5, 12), torch.zeros(5, 3)]
    spiked = [torch.zeros(5, 12), torch.zeros(5, 3)]
    for step in range(STEPS):
        seen = x[:, 2 * step : 2 * step + 2].flatten(1)
        for place, layer in enumerate(network.layers):
            kept = 0.2 * potentials[place] * (1 - spiked[place])
            potentials[place] = kept + layer.op(seen)
            spiked[place] = seen = (potentials[place] > 0.5).float()
    _, potential = network.readings(x)
    torch.testing.assert_close(potential, potentials[1])


def test_no_proof_takes_events_for_a_constant_current() -> None:
    with pytest.raises(Unreadable, match="events input"):
        read(small())


def test_steps_that_do_not_fit_are_named() -> None:
    with pytest.raises(RobenchError, match="6 channels are not 4 time steps"):
        SNN((6, 2, 2), 3, steps=4, encoding="events")


def test_any_module_sees_events_step_by_step() -> None:
    seen = []

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)[:, :3]

    network = Module(
        (2 * STEPS, 2, 2), 3, factory=Located("it@here", Sum), steps=STEPS, encoding="events"
    )
    x = events(4)
    answer = network(x)
    assert seen[-1].shape == (4, 2, 2, 2)
    assert torch.equal(seen[-1], x[:, -2:])
    expected = x.view(4, STEPS, 2, 2, 2).mean(1).flatten(1)[:, :3]
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("budget", [1, 2])
def test_flips_find_nearly_all_that_there_is_to_find(budget: int) -> None:
    broken = exact = 0
    for seed in range(3):
        network, x = small(seed), events()
        y = network(x).argmax(1)
        target = WhiteBoxTarget(network, Ball("l0", budget), len(x))
        x_adv = EventFlips().perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
        assert int((x_adv != x).flatten(1).sum(1).max()) <= budget
        assert set(x_adv.unique().tolist()) <= {0.0, 1.0}
        broken += int((network(x_adv).argmax(1) != y).sum())
        every = torch.zeros(len(x), dtype=torch.bool)
        flat = x.flatten(1)
        for size in range(1, budget + 1):
            for places in combinations(range(flat.shape[1]), size):
                other = flat.clone()
                other[:, list(places)] = 1 - other[:, list(places)]
                every |= network(other.view_as(x)).argmax(1) != y
        exact += int(every.sum())
    assert exact > 20
    assert broken >= 0.95 * exact - 1


def test_it_keeps_the_contract_of_every_attack() -> None:
    assert [str(finding) for finding in check_attack(EventFlips) if not finding.passed] == []


def test_chosen_events_do_more_than_random_ones_also_to_a_noisy_network() -> None:
    data = DigitsEvents().load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SNN(
            (12, 8, 8), 10, hidden=(30,), steps=6, encoding="events", readout="rate", sigma=0.2
        )
    trainer = STBP(epochs=8, lr=3e-3, batch_size=50, surrogate="rectangle:1")
    trainer.fit(network, data, torch.Generator().manual_seed(0), lambda share, words: None)
    network.eval().requires_grad_(False)
    x, y = (torch.from_numpy(part[:25]) for part in (data.test.images, data.test.labels))

    def left(attack: Any, noisy: bool) -> float:
        source = GaussianNoise(torch.Generator().manual_seed(0)) if noisy else None
        with noise(network, source):
            target = WhiteBoxTarget(network, Ball("l0", 4), len(x))
            x_adv = attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
            return float(
                torch.stack([network(x_adv).argmax(1) == y for _ in range(8)]).float().mean()
            )

    quick = EventFlips(targets=1, swaps=1, candidates=4)
    for noisy in (False, True):
        floor = left(RandomFlips(), noisy)
        assert floor > 0.5
        assert left(quick, noisy) < floor - 0.1
