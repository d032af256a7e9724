"""A graph whose nodes are the items of a data set, and what one node's item looks like.

To robench an item is an image, (c, h, w). A node's is one row of pixels, (1, 1, f + n + b):

    features   its f features, in [0, 1]
    edges      its row of the adjacency matrix, n pixels, 1 where it has an edge
    number     which node it is, in b binary digits, lowest first; no adversary may change it

The rest of the graph (all nodes' features and edges, as published) is the network's. So every item
is a question of its own: what is this node, were its features and its edges these and all else as
it is? An adversary moves the features or the edges of the node that is classified, in a copy of the
graph of its own; rows of a batch do not see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from robench.digest import digest_bytes

ItemPart = Literal["features", "edges"]
"""What of an item may be changed. Of an image, the features are all of it."""


@dataclass(frozen=True)
class Graph:
    """features: (n, f), float32 in [0, 1]. edges: (2, e), int64, each edge in both directions, no
    node with itself."""

    features: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    @property
    def digits(self) -> int:
        return max(1, (len(self) - 1).bit_length())

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 1, 1, self.features.shape[1] + len(self) + self.digits

    def pixels(self, part: ItemPart) -> slice:
        """Where a part lies in an item's row."""
        features = self.features.shape[1]
        return slice(0, features) if part == "features" else slice(features, features + len(self))

    @cached_property
    def adjacency(self) -> np.ndarray:
        """(n, n), uint8: 1 where there is an edge."""
        matrix = np.zeros((len(self), len(self)), np.uint8)
        matrix[self.edges[0], self.edges[1]] = 1
        return matrix

    def items(self, nodes: np.ndarray) -> np.ndarray:
        """Images (k, 1, 1, f + n + b), float32, of the nodes (k,)."""
        number = nodes[:, None] >> np.arange(self.digits) & 1
        rows = [self.features[nodes], self.adjacency[nodes], number]
        return np.concatenate(rows, axis=1, dtype=np.float32, casting="unsafe")[:, None, None]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all features and edges, of nodes without a label too."""
        return digest_bytes(
            str(self.features.shape).encode(), self.features.tobytes(), self.edges.tobytes()
        )
