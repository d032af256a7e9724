"""Graph convolutional network for nodes (Kipf & Welling 2017, arXiv 1609.02907).

v_1 = A_hat X Theta_1 + b_1 + sigma eps,   v_2 = A_hat phi(v_1) Theta_2 + b_2 + sigma eps

with A_hat = D^-1/2 (A + I) D^-1/2. The second is read at the node that is asked about. Every row
computes with the features and edges of its own node (neighbourhood.py), degrees included.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.linear import Linear
from robench.networks.mlp import Activation, activation
from robench.networks.neighbourhood import Neighbourhood, Remembered, Rows
from robench.networks.noise import NoisyLayer, repeated


class Convolution(nn.Module):
    """A_hat X Theta + b at each row's node and around it: items -> (r, 1 + m, width)."""

    def __init__(self, graph: Neighbourhood, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)
        # The graph belongs to the network; a layer of it is not another one.
        object.__setattr__(self, "graph", graph)
        self.graph: Neighbourhood
        self.remembered = Remembered()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.graph.read(x)
        known, sums = self.remembered([self.weight], self._known)
        own = rows.features @ self.weight.t()  # (r, width)
        if rows.whole:
            return self._rewired(rows, known, own) + self.bias
        at = self._as_published(rows, known, sums, own) + self.bias
        return self.graph.masked(rows, at)

    def _known(self) -> tuple[Tensor, Tensor]:
        """X Theta and (A + I) D^-1/2 X Theta of the graph as published, (n, width) each."""
        known = self.graph.features @ self.weight.t()
        scaled = degrees(self.graph).rsqrt()[:, None] * known
        return known, self.graph.total(scaled[self.graph.source])

    def _as_published(self, rows: Rows, known: Tensor, sums: Tensor, own: Tensor) -> Tensor:
        """Where all edges are the graph's: its own sums, and what the node's features change."""
        graph, node, around = self.graph, rows.node, rows.around
        scale = degrees(graph).rsqrt()
        change = scale[node, None] * (own - known[node])
        at = torch.cat([node[:, None], around], dim=1)
        result: Tensor = scale[at][..., None] * (sums[at] + change[:, None])
        return result

    def _rewired(self, rows: Rows, known: Tensor, own: Tensor) -> Tensor:
        """With edges of its own: an edge of v changes the degree of both its ends, and so what
        the neighbours of both ends receive."""
        graph, node = self.graph, rows.node
        pick = torch.arange(len(node), device=node.device)
        flips = rows.edge - graph.adjacency[node].to(known.dtype)  # (r, n), 0 at v itself
        v = torch.zeros_like(flips)
        v[pick, node] = 1
        degree = degrees(graph) + flips + v * flips.sum(1, keepdim=True)
        scale = degree.clamp_min(1).rsqrt()[..., None]  # (r, n, 1)
        sent = scale * (known + v[..., None] * (own - known[node])[:, None])
        sums = _spread(graph, sent)
        sums = sums + flips[..., None] * sent[pick, node][:, None]
        sums = sums + v[..., None] * (flips[:, None] @ sent)
        result = scale * sums
        return torch.cat([result[pick, node][:, None], result], dim=1)


def degrees(graph: Neighbourhood) -> Tensor:
    """Of all nodes, with their loop: (n,)."""
    return torch.bincount(graph.target, minlength=graph.nodes).to(graph.features.dtype)


def _spread(graph: Neighbourhood, sent: Tensor) -> Tensor:
    """(A + I) sent for every row: (r, n, width) -> the same."""
    rows, nodes, width = sent.shape
    flat = sent.transpose(0, 1).reshape(nodes, rows * width)
    return graph.total(flat[graph.source]).view(nodes, rows, width).transpose(0, 1)


class GCN(Network):
    """Two graph convolutions; for data sets whose items are nodes."""

    later: ClassVar[tuple[str, ...]] = ("mask_padding",)
    hidden: int = Field(default=16, ge=1)
    activation: Activation = "relu"
    scaling: Literal["none", "sum"] = "sum"
    """sum: every node's words are divided by their number."""
    mask_padding: bool = False
    """Whether the first layer answers zero at the places that pad a node's neighbours. No logit
    changes; the likelihood ratio then takes no gradient from the noise there."""
    sigma: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for that of a jump, for attacks and for bp."""

    def build(self) -> None:
        self.around = Neighbourhood(self.graph, "gcn", self.scaling, self.mask_padding)
        words = self.around.features.shape[1]
        self.first = NoisyLayer(
            Convolution(self.around, words, self.hidden),
            (self.hidden,), self.sigma, self.learned_sigma,
        )  # fmt: skip
        last = Linear(self.hidden, self.classes)
        with torch.no_grad():
            bound = math.sqrt(6 / (self.hidden + self.classes))
            last.weight.uniform_(-bound, bound)
            last.bias.zero_()
        self.last = NoisyLayer(last, (self.classes,), self.sigma, self.learned_sigma)
        self.phi = activation(self.activation, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.phi(self.first(x))  # (r, 1 + m, hidden)
        mixed = (repeated(self._shares(x), hidden)[:, None] @ hidden)[:, 0]
        logits: Tensor = self.last(mixed)  # A_hat H Theta = (A_hat H) Theta
        return logits

    def _shares(self, x: Tensor) -> Tensor:
        """The row of A_hat at each row's node: (r, 1 + m)."""
        rows = self.around.read(x)
        known = degrees(self.around)
        degree = 1 + rows.edge.sum(1, keepdim=True)
        others = known[rows.around]
        if rows.whole:
            others = (others + rows.edge - self.around.adjacency[rows.node].to(x.dtype)).clamp_min(
                1
            )
        beside = rows.edge * (degree.clamp_min(1) * others).rsqrt()
        return torch.cat([1 / degree.clamp_min(1), beside], dim=1)
