"""A graph of twelve nodes that tests share, and networks on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench.data.graph import Graph
from robench.networks.base import Network

NODES, WORDS, CLASSES = 12, 6, 3
CHAIN = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 4), (2, 6), (6, 7), (7, 8), (2, 8)]
"""Nodes 9, 10 and 11 have no edges."""


def small_graph() -> Graph:
    rng = np.random.default_rng(0)
    pairs = np.array([*CHAIN, *((b, a) for a, b in CHAIN)]).T
    return Graph((rng.random((NODES, WORDS)) < 0.5).astype(np.float32), pairs)


def built(kind: type[Network], **settings: Any) -> Network:
    graph = small_graph()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(graph.input_shape, CLASSES, graph, **settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1  # biases too
    return network


def items(*nodes: int) -> Tensor:
    return torch.from_numpy(small_graph().items(np.array(nodes or range(NODES))))
