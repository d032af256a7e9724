"""Cora and CiteSeer: what the files say, and that a file that asks for code gets none."""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from robench.data.planetoid import CiteSeer, Cora, assemble, read_pickle
from robench.errors import RobenchError

FACTS = {
    "cora": (Cora, 2708, 1433, 5278, 7, 140),
    "citeseer": (CiteSeer, 3327, 3703, 4552, 6, 120),
}
"""Nodes, words, edges, classes and labelled training nodes, as torch-geometric counts them."""


@pytest.mark.data
@pytest.mark.parametrize("name", FACTS)
def test_the_published_sets_have_their_published_sizes(name: str) -> None:
    kind, nodes, words, edges, classes, train = FACTS[name]
    data = kind().load()
    graph = data.graph
    assert graph is not None
    assert graph.features.shape == (nodes, words)
    assert graph.edges.shape == (2, 2 * edges)
    assert (len(data.train), len(data.validation), len(data.test)) == (train, 500, 1000)
    assert len(data.classes) == classes
    assert np.bincount(data.train.labels).tolist() == [20] * classes
    assert (graph.adjacency == graph.adjacency.T).all()
    assert data.input_shape == graph.input_shape == data.test.images.shape[1:]


@pytest.mark.data
def test_an_item_is_its_nodes_words_edges_and_number() -> None:
    data = Cora().load()
    graph = data.graph
    assert graph is not None
    row = data.test.images[17, 0, 0]
    node = 1708 + 17  # the last 1,000 nodes of Cora are for testing
    assert (row[graph.pixels("features")] == graph.features[node]).all()
    assert set(np.flatnonzero(row[graph.pixels("edges")])) == set(
        graph.edges[1][graph.edges[0] == node]
    )
    assert int((row[-graph.digits :] * 2 ** np.arange(graph.digits)).sum()) == node


@pytest.mark.data
def test_a_ratio_pools_all_labelled_nodes() -> None:
    data = CiteSeer(split="6:1:3").load()
    assert len(data.train) + len(data.validation) + len(data.test) == 3312  # 15 have no label


def written(folder: Path, **changed: object) -> dict[str, Path]:
    """The eight files of a graph of five nodes: two to train on, tests 4 and 3 in that order."""
    eye = np.eye(5, dtype=np.float32)
    labels = np.eye(2, dtype=np.int32)
    parts = {
        "x": csr_matrix(eye[:2]),
        "y": labels,
        "allx": csr_matrix(eye[:3]),
        "ally": labels[[0, 1, 0]],
        "tx": csr_matrix(eye[[4, 3]]),
        "ty": labels[[1, 0]],
        "graph": defaultdict(list, {0: [1, 1], 1: [0], 2: [2, 4], 4: [2]}),
        **changed,
    }
    files = {}
    for name, part in parts.items():
        files[name] = folder / name
        files[name].write_bytes(pickle.dumps(part, protocol=4))
    files["test.index"] = folder / "test.index"
    files["test.index"].write_text("4\n3\n")
    return files


def test_test_nodes_are_put_where_their_index_says(tmp_path: Path) -> None:
    graph, labels, tests = assemble(written(tmp_path))
    assert (graph.features == np.eye(5)).all()
    assert labels.tolist() == [0, 1, 0, 0, 1]
    assert tests.tolist() == [3, 4]


def test_edges_are_symmetric_without_doubles_and_loops(tmp_path: Path) -> None:
    graph, _, _ = assemble(written(tmp_path))
    assert graph.edges.T.tolist() == [[0, 1], [1, 0], [2, 4], [4, 2]]


class Runs:
    """A pickle of this writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "code ran")


def test_a_pickle_that_asks_for_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "ind.cora.x").write_bytes(pickle.dumps(Runs(trap)))
    with pytest.raises(RobenchError, match=r"ind.cora.x: not a file of arrays .*asks for pathlib"):
        read_pickle(tmp_path / "ind.cora.x")
    assert not trap.exists()


def test_a_truncated_file_says_which_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ind.cora.tx"
    path.write_bytes(pickle.dumps(csr_matrix(np.eye(3)), protocol=4)[:-20])
    with pytest.raises(RobenchError, match="ind.cora.tx: not a file of arrays"):
        read_pickle(path)
