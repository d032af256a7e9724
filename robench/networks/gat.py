"""Graph attention network for nodes (Velickovic et al. 2018, arXiv 1710.10903).

v_1(u) = sum_w alpha_uw Theta_1 x_w + b_1 + sigma eps,   v_2 likewise from phi(v_1)
alpha_uw = softmax over w of LeakyReLU(l . Theta x_u + r . Theta x_w), w: u and its neighbours

Several heads side by side in the first layer, one in the second, which is read at the node that is
asked about. Every row computes with the features and edges of its own node (neighbourhood.py); an
edge of weight a counts a times in the softmax.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench.networks.base import Network
from robench.networks.mlp import Activation, activation
from robench.networks.neighbourhood import Neighbourhood, Remembered, Rows
from robench.networks.noise import NoisyLayer, repeated

LARGEST = 40.0  # of a score before its exponential is taken: sums stay finite in float32


class Heads(nn.Module):
    """What the heads of a layer make of one node: Theta x, l . Theta x, r . Theta x."""

    def __init__(self, inputs: int, heads: int, width: int) -> None:
        super().__init__()
        self.shape = (heads, width)
        self.weight = nn.Parameter(torch.empty(heads * width, inputs))
        self.receives = nn.Parameter(torch.empty(heads, width))
        self.sends = nn.Parameter(torch.empty(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads * width))
        for parameter in (self.weight, self.receives, self.sends):
            nn.init.xavier_uniform_(parameter)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., inputs) -> values (..., heads, width), scores to receive, to send (..., heads)."""
        values = (x @ self.weight.t()).view(*x.shape[:-1], *self.shape)
        return values, (values * self.receives).sum(-1), (values * self.sends).sum(-1)


def _strength(receiver: Tensor, sender: Tensor) -> Tensor:
    """Of an edge in the softmax, before it is normalised."""
    return F.leaky_relu(receiver + sender, 0.2).clamp(-LARGEST, LARGEST).exp()


class Attention(Heads):
    """The first layer at each row's node and around it: items -> (r, 1 + m, heads * width)."""

    def __init__(self, graph: Neighbourhood, inputs: int, heads: int, width: int) -> None:
        super().__init__(inputs, heads, width)
        # The graph belongs to the network; a layer of it is not another one.
        object.__setattr__(self, "graph", graph)
        self.graph: Neighbourhood
        self.remembered = Remembered()

    def _known(self) -> tuple[Tensor, ...]:
        """Of the graph as published: values and scores of all nodes, and the sums and norms of the
        softmax around each."""
        graph = self.graph
        values, receives, sends = self.project(graph.features)
        edges = _strength(receives[graph.target], sends[graph.source])
        sums = graph.total(edges[..., None] * values[graph.source])
        return values, receives, sends, sums, graph.total(edges)

    def forward(self, x: Tensor) -> Tensor:
        rows, graph = self.graph.read(x), self.graph
        weights = [self.weight, self.receives, self.sends]
        values, receives, sends, sums, norms = self.remembered(weights, self._known)
        own, own_receives, own_sends = self.project(rows.features)
        node, around = rows.node, rows.around
        # Around v: what v sent before is taken out, what it sends now put in.
        before = graph.adjacency[node[:, None], around].to(x.dtype)[..., None]
        old = before * _strength(receives[around], sends[node][:, None])
        new = rows.edge[..., None] * _strength(receives[around], own_sends[:, None])
        change = new[..., None] * own[:, None] - old[..., None] * values[node][:, None]
        beside = (sums[around] + change) / (norms[around] - old + new)[..., None]
        at = self._at(rows, values, sends, own, own_receives, own_sends)
        return graph.masked(rows, torch.cat([at, beside], 1).flatten(2) + self.bias)

    def _at(
        self, rows: Rows, values: Tensor, sends: Tensor, own: Tensor, own_receives: Tensor,
        own_sends: Tensor,
    ) -> Tensor:  # fmt: skip
        """The layer at v itself, (r, 1, heads, width): a sum over v and all that is around."""
        loop = _strength(own_receives, own_sends)
        edges = rows.edge[..., None] * _strength(own_receives[:, None], sends[rows.around])
        sums = torch.einsum("rmh,rmhw->rhw", edges, values[rows.around]) + loop[..., None] * own
        at: Tensor = sums / (edges.sum(1) + loop)[..., None]
        return at[:, None]


class Readout(Heads):
    """The second layer at each row's node: hidden values with the edges' weights beside them as a
    last column, (r, 1 + m, inputs + 1) -> logits, (r, classes)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, 1, classes)

    def forward(self, x: Tensor) -> Tensor:
        values, receives, sends = self.project(x[..., :-1])
        edges = x[..., -1:] * _strength(receives[:, :1], sends)
        sums = (edges[..., None] * values).sum(1) / edges.sum(1)[..., None]
        return sums.flatten(1) + self.bias


class GAT(Network):
    """Two layers of graph attention; for data sets whose items are nodes."""

    later: ClassVar[tuple[str, ...]] = ("mask_padding",)
    heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=8, ge=1)
    """Width of each head."""
    activation: Activation = "elu"
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
        self.around = Neighbourhood(self.graph, "gat", self.scaling, self.mask_padding)
        words, width = self.around.features.shape[1], self.heads * self.hidden
        self.first = NoisyLayer(
            Attention(self.around, words, self.heads, self.hidden),
            (width,), self.sigma, self.learned_sigma,
        )  # fmt: skip
        self.last = NoisyLayer(
            Readout(width, self.classes), (self.classes,), self.sigma, self.learned_sigma
        )
        self.phi = activation(self.activation, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.phi(self.first(x))  # (r, 1 + m, heads * width)
        rows = self.around.read(x)
        edges = torch.cat([torch.ones_like(rows.edge[:, :1]), rows.edge], dim=1)
        edges = repeated(edges, hidden)[..., None]
        logits: Tensor = self.last(torch.cat([hidden, edges], dim=-1))
        return logits
