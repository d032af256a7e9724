"""Graph networks: every row is a graph of its own, and computes what the papers' layers compute."""

from __future__ import annotations

import pytest
import torch
from small_graph import CLASSES, NODES, WORDS, built, items, small_graph
from torch import Tensor
from torch.nn import functional as F

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.gat import GAT
from robench.networks.gcn import GCN
from robench.networks.neighbourhood import changing
from robench.networks.noise import GaussianNoise, noise


def gcn_by_definition(network: Network, features: Tensor, adjacency: Tensor) -> Tensor:
    """Kipf & Welling's two layers on one whole graph, with dense matrices."""
    loops = adjacency + torch.eye(NODES)
    scale = loops.sum(1).rsqrt()
    mix = scale[:, None] * loops * scale
    features = features / features.sum(1, keepdim=True).clamp_min(1)
    first, last = network.first.op, network.last.op
    hidden = torch.relu(mix @ features @ first.weight.t() + first.bias)
    return mix @ hidden @ last.weight.t() + last.bias


def gat_by_definition(network: Network, features: Tensor, adjacency: Tensor) -> Tensor:
    """Velickovic et al.'s two layers on one whole graph, with dense matrices."""
    loops = adjacency + torch.eye(NODES)
    x = features / features.sum(1, keepdim=True).clamp_min(1)
    for op in (network.first.op, network.last.op):
        values = (x @ op.weight.t()).unflatten(-1, op.shape).transpose(0, 1)  # (heads, n, width)
        receives = (values * op.receives[:, None]).sum(-1)
        sends = (values * op.sends[:, None]).sum(-1)
        scores = F.leaky_relu(receives[:, :, None] + sends[:, None], 0.2)
        alpha = (scores + loops.log()).softmax(-1)
        x = (alpha @ values).transpose(0, 1).flatten(1) + op.bias
        x = F.elu(x) if op is network.first.op else x
    return x


DEFINITIONS = {GCN: gcn_by_definition, GAT: gat_by_definition}
KINDS = pytest.mark.parametrize("kind", DEFINITIONS)


@KINDS
def test_the_nodes_of_the_graph_get_the_logits_of_the_papers_layers(kind: type[Network]) -> None:
    graph, network = small_graph(), built(kind)
    expected = DEFINITIONS[kind](
        network, torch.from_numpy(graph.features), torch.from_numpy(graph.adjacency).float()
    )
    torch.testing.assert_close(network(items()), expected, rtol=1e-4, atol=1e-5)


@KINDS
def test_changed_features_and_edges_give_the_logits_of_the_changed_graph(
    kind: type[Network],
) -> None:
    graph, network = small_graph(), built(kind)
    x = items(2, 4, 9)
    x[:, 0, 0, graph.pixels("features")] = torch.rand(3, WORDS)
    edges = x[:, 0, 0, graph.pixels("edges")]
    edges[0, [1, 5, 9]] = 1 - edges[0, [1, 5, 9]]
    edges[2, [1, 2]] = 1
    found = network(x)
    for row, node in enumerate((2, 4, 9)):
        features = torch.from_numpy(graph.features).clone()
        features[node] = x[row, 0, 0, graph.pixels("features")]
        adjacency = torch.from_numpy(graph.adjacency).float()
        adjacency[node] = adjacency[:, node] = edges[row]
        expected = DEFINITIONS[kind](network, features, adjacency)[node]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(x[row : row + 1])[0], expected, rtol=1e-4, atol=1e-5)


@KINDS
def test_an_adversary_who_may_rewire_gets_the_gradient_of_edges_that_are_not_there(
    kind: type[Network],
) -> None:
    graph, network = small_graph(), built(kind)
    x = items(2).requires_grad_()
    with changing(network, "edges"):
        logits = network(x)
    torch.testing.assert_close(logits, network(items(2)), rtol=1e-4, atol=1e-5)
    logits[0, 0].backward()
    edges = x.grad[0, 0, 0, graph.pixels("edges")]
    h = 1e-2
    for other in (3, 5, 10):  # an edge, and two that are none
        moved = items(2).repeat(2, 1, 1, 1).double()
        moved[:, 0, 0, WORDS + other] += torch.tensor([h, -h])
        with changing(network.double(), "edges"):
            up, down = network(moved)[:, 0].tolist()
        assert float(edges[other]) == pytest.approx((up - down) / (2 * h), rel=0.02, abs=1e-4)
    network.float()


@KINDS
def test_rows_of_a_batch_do_not_see_each_other(kind: type[Network]) -> None:
    network, x = built(kind), items(0, 2, 9)
    x[1, 0, 0, :WORDS] = 0.5
    together = network(x)
    apart = torch.cat([network(row[None]) for row in x])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-6)


@KINDS
def test_what_is_remembered_of_weights_is_forgotten_when_they_change(kind: type[Network]) -> None:
    network, x = built(kind), items(2)
    with torch.no_grad():
        before = network(x)
        network.first.op.weight.mul_(0.5)
        assert not torch.equal(network(x), before)
        again = built(kind)
        again.load_state_dict(network.state_dict())
        assert torch.equal(network(x), again(x))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    network(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        again.load_state_dict(network.state_dict())
        assert torch.equal(network(x), again(x))
    assert float(network.first.op.weight.grad.abs().sum()) > 0


@KINDS
def test_noise_enters_both_layers_and_is_off_unless_asked_for(kind: type[Network]) -> None:
    network, x = built(kind), items(2)
    assert torch.equal(network(x), network(x))
    for layer in (network.first, network.last):
        with noise(network, None):
            layer.source = GaussianNoise(torch.Generator().manual_seed(0))
            assert not torch.equal(network(x), network(x))


def test_a_graph_network_without_a_graph_says_what_it_needs() -> None:
    with pytest.raises(RobenchError, match="network gcn: the data set has no graph; use it with"):
        GCN((1, 8, 8), 10)


def test_the_convolution_is_torch_geometrics() -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="needs the extra 'graph'")
    graph, network = small_graph(), built(GCN, scaling="none")
    layers = geometric.GCNConv(WORDS, 16), geometric.GCNConv(16, CLASSES)
    with torch.no_grad():
        for theirs, ours in zip(layers, (network.first.op, network.last.op), strict=True):
            theirs.lin.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    edges = torch.from_numpy(graph.edges)
    hidden = layers[0](torch.from_numpy(graph.features), edges).relu()
    torch.testing.assert_close(network(items()), layers[1](hidden, edges), rtol=1e-4, atol=1e-5)


def test_the_attention_is_torch_geometrics() -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="needs the extra 'graph'")
    graph, network = small_graph(), built(GAT, scaling="none")
    layers = geometric.GATConv(WORDS, 8, heads=8), geometric.GATConv(64, CLASSES)
    with torch.no_grad():
        for theirs, ours in zip(layers, (network.first.op, network.last.op), strict=True):
            theirs.lin.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
            theirs.att_src.copy_(ours.sends[None])
            theirs.att_dst.copy_(ours.receives[None])
    edges = torch.from_numpy(graph.edges)
    hidden = F.elu(layers[0](torch.from_numpy(graph.features), edges))
    torch.testing.assert_close(network(items()), layers[1](hidden, edges), rtol=1e-4, atol=1e-5)
