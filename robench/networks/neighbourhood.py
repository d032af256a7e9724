"""What graph networks share: the graph as they hold it, and reading nodes' items (data/graph.py).

A row is a node v with features x_v and edges a_v of its own; all else is as in the graph. For its
logits a network of two layers needs the first layer at v and at v's neighbours alone. So a batch of
rows becomes, padded to the most neighbours that one of them has, (rows, 1 + m) nodes: v, then those
around it, each with the weight of its edge to v (0: padding).

Libraries of graph layers compute one graph at a time. Here every row is a graph of its own, and
every noisy copy of it another; so that an image's rows do not see each other, the layers are
written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robench.data.graph import Graph, ItemPart
from robench.errors import RobenchError
from robench.networks.torch_state import swapped


@dataclass(frozen=True)
class Rows:
    """A batch of nodes, read.

    features: (r, f). node: (r,), which they are. around: (r, m), their neighbours; edge: (r, m),
    the weights of the edges, 0 for padding. whole: `around` is all n nodes, in order.
    """

    features: Tensor
    node: Tensor
    around: Tensor
    edge: Tensor
    whole: bool


class Neighbourhood(nn.Module):
    """The graph, and how rows of it are read.

    Args:
        scaling: how features are scaled, in the graph and in rows; see `scaled`.
        mask_padding: whether `masked` does anything.
    """

    features: Tensor
    adjacency: Tensor
    source: Tensor
    target: Tensor
    digits: Tensor

    def __init__(
        self,
        graph: Graph | None,
        who: str,
        scaling: Literal["none", "sum"],
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        if graph is None:
            raise RobenchError(
                f"network {who}: the data set has no graph; use it with cora or citeseer"
            )
        self.scaling = scaling
        self.nodes = len(graph)
        self.places = graph.pixels("features"), graph.pixels("edges")
        source, target = torch.from_numpy(graph.edges)
        loops = torch.arange(self.nodes, device="cpu")
        # What a card does not set and training does not change is not part of the weights.
        hold = {
            "features": self.scaled(torch.from_numpy(graph.features)),
            "adjacency": torch.from_numpy(graph.adjacency),
            "source": torch.cat([source, loops]),
            "target": torch.cat([target, loops]),
            "digits": 2 ** torch.arange(graph.digits, device="cpu"),
        }
        for name, value in hold.items():
            self.register_buffer(name, value, persistent=False)
        self.part: ItemPart = "features"
        """Which part of its item an adversary may change; see `read`."""
        self.mask_padding = mask_padding

    def scaled(self, features: Tensor) -> Tensor:
        """sum: every node's words are divided by their number (by 1 where there are fewer)."""
        if self.scaling == "none":
            return features
        return features / features.sum(-1, keepdim=True).clamp_min(1)

    def read(self, x: Tensor) -> Rows:
        """x: items, (r, 1, 1, f + n + b).

        While `part` is "edges" all nodes count as being around, so that an adversary gets a
        gradient for edges that are not there yet.
        """
        x = x.flatten(1)
        words, edges = self.places
        features, a = x[:, words], x[:, edges]
        node = ((x[:, edges.stop :] > 0.5) * self.digits).sum(1).clamp_max(self.nodes - 1)
        # A node is no neighbour of itself, whatever its pixel says.
        a = a * (torch.arange(self.nodes, device=x.device) != node[:, None])
        if self.part == "edges" or not torch.equal(a, self.adjacency[node].to(a.dtype)):
            around = torch.arange(self.nodes, device=x.device).expand(len(x), -1)
            return Rows(self.scaled(features), node, around, a, True)
        there = a.detach() != 0
        width = max(1, int(there.sum(1).amax()))
        around = there.to(torch.uint8).topk(width, dim=1).indices
        return Rows(self.scaled(features), node, around, a.gather(1, around), False)

    def masked(self, rows: Rows, values: Tensor) -> Tensor:
        """Values at each row's node and around it, (r, 1 + m, width), zero where there is only
        padding: a likelihood-ratio trainer then takes no gradient from noise that reaches no
        logit."""
        if rows.whole or not self.mask_padding:
            return values
        there = torch.cat([torch.ones_like(rows.edge[:, :1]), rows.edge], dim=1) != 0
        return torch.where(there[..., None], values, 0.0)

    def total(self, values: Tensor) -> Tensor:
        """For every node the sum over its edges and its loop: (e + n, ...) -> (n, ...)."""
        into = values.new_zeros(self.nodes, *values.shape[1:])
        return into.index_add(0, self.target, values)


class Remembered:
    """What follows from a layer's weights and the graph alone, computed once while the weights stay
    what they are: an attack asks thousands of times. They are compared by value: fused optimisers
    do not count up a tensor's version."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.value: tuple[Tensor, ...] = ()

    def __call__(
        self, weights: Sequence[Tensor], compute: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return compute()  # somebody wants their gradient
        same = [_same(a, b) for a, b in zip(weights, self.weights, strict=False)]
        if not same or not all(same):
            # What is remembered is as exact as weights are, whatever the passes are rounded to.
            exact = torch.autocast(weights[0].device.type, enabled=False)
            with torch.no_grad(), exact:
                self.weights = [weight.detach().clone() for weight in weights]
                self.value = compute()
        return self.value


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def changing(network: nn.Module, part: ItemPart) -> AbstractContextManager[None]:
    """Let an adversary see gradients for `part` of the items inside the block."""
    graphs = [module for module in network.modules() if isinstance(module, Neighbourhood)]
    return swapped(graphs, part=part)
