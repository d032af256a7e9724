"""Flips of binary pixels: within their budget and their part, and worth more than random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_graph import NODES, built, items, small_graph

from robench.attacks.ball import Ball
from robench.attacks.flips import Flips, RandomFlips
from robench.attacks.gradient import PGD
from robench.attacks.target import WhiteBoxTarget
from robench.data.graph import ItemPart
from robench.networks.base import Network
from robench.networks.gat import GAT
from robench.networks.gcn import GCN
from robench.networks.neighbourhood import changing

CONNECTED = 9


def attacked(
    network: Network, attack: Flips | RandomFlips | PGD, norm: str, eps: float, part: ItemPart
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Images before and after, and the mean margin by which the network is fooled."""
    x = items(*range(CONNECTED))
    network.requires_grad_(False)
    y = network(x).argmax(1)
    target = WhiteBoxTarget(network, Ball(norm, eps, small_graph().pixels(part)), len(x))
    with changing(network, part):
        x_adv = attack.perturb(target, x.clone(), y, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(x_adv)
    right = logits.gather(1, y[:, None])[:, 0]
    return x, x_adv, float((logits.scatter(1, y[:, None], -torch.inf).amax(1) - right).mean())


@pytest.mark.parametrize("part", ["features", "edges"])
@pytest.mark.parametrize("kind", [GCN, GAT])
def test_greedy_flips_do_more_than_random_ones_of_the_same_number(
    kind: type[Network], part: ItemPart
) -> None:
    network = built(kind)
    x, greedy, harm = attacked(network, Flips(), "l0", 2, part)
    _, random, floor = attacked(network, RandomFlips(), "l0", 2, part)
    assert harm > floor
    inside = small_graph().pixels(part)
    for x_adv in (greedy, random):
        moved = (x_adv != x)[:, 0, 0]
        assert moved.sum(1).max() <= 2
        assert set(x_adv.unique().tolist()) <= {0.0, 1.0}
        outside = moved.clone()
        outside[:, inside] = False
        assert not outside.any()


def test_trying_several_candidates_is_no_weaker_than_believing_the_gradient() -> None:
    harms = [
        attacked(built(GCN), Flips(candidates=candidates), "l0", 1, "edges")[2]
        for candidates in (1, NODES)
    ]
    assert harms[1] >= harms[0]


def test_one_flip_with_all_candidates_tried_is_the_best_there_is() -> None:
    network, graph = built(GCN), small_graph()
    x, x_adv, _ = attacked(network, Flips(candidates=NODES), "l0", 1, "edges")
    y = network(x).argmax(1)
    for row in range(CONNECTED):
        tried = x[row].repeat(1 + NODES, 1, 1, 1)  # as it is, and with each edge flipped
        edges = tried[1:, 0, 0, graph.pixels("edges")]
        edges[range(NODES), range(NODES)] = 1 - edges[range(NODES), range(NODES)]
        logits = network(torch.cat([x_adv[row][None], tried]))
        others = logits.clone()
        others[:, y[row]] = -torch.inf
        harm = others.amax(1) - logits[:, y[row]]
        assert float(harm[0]) == pytest.approx(float(harm[1:].max()), abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_on_features_leaves_edges_and_the_node_number_alone(norm: str) -> None:
    x, x_adv, _ = attacked(built(GCN), PGD(steps=3), norm, 0.1, "features")
    features = small_graph().pixels("features")
    assert not torch.equal(x_adv[..., features], x[..., features])
    assert torch.equal(x_adv[..., features.stop :], x[..., features.stop :])
    assert Ball(norm, 0.1).distance(x_adv, x).max() <= 0.1 + 1e-6


def test_random_flips_are_spread_over_what_is_on_and_what_is_off() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((200, 1, 1, 400)) < 0.02).astype(np.float32))
    target = WhiteBoxTarget(built(GCN), Ball("l0", 1), len(x))
    x_adv = RandomFlips().perturb(target, x, torch.zeros(200), torch.Generator().manual_seed(0))
    assert (x_adv != x).sum((1, 2, 3)).tolist() == [1] * 200
    assert 0.35 < float((x_adv < x).any(-1).float().mean()) < 0.65
