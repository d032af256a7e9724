"""Cora and CiteSeer: papers and what they cite, in the raw files of the Planetoid authors.

Eight files `ind.NAME.*` (Yang, Cohen, Salakhutdinov 2016, arXiv 1603.08861), laid out as
torch-geometric lays them out: planetoid/Cora/raw/. They are pickles, and a pickle can run whatever
its maker likes: they are read by an unpickler that knows arrays, sparse matrices and dictionaries
of lists, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy._core.multiarray import _reconstruct

from robench.data.base import Dataset, Part, Splits
from robench.data.files import find_files
from robench.data.graph import Graph
from robench.data.publisher import odd_files
from robench.errors import RobenchError

BASE = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data"
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
VALIDATION = 500  # nodes after the training nodes, as in all papers on these sets


MOST = 10_000
"""Nodes, and words of one; CiteSeer has a third of it. What grows with its square fits memory."""


class _SparseRows:
    """Stands in for scipy's csr_matrix: takes its fields and runs none of its code."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    _shape: tuple[int, int]


def _dense(sparse: _SparseRows) -> np.ndarray:
    """Raises ValueError, or whatever fields that do not fit together raise."""
    rows, columns = sparse._shape
    if not (0 <= rows <= MOST and 0 <= columns <= MOST):
        raise ValueError(f"{rows} rows of {columns} words, more than {MOST}")
    matrix = np.zeros((rows, columns), np.float32)
    lengths = np.diff(sparse.indptr)
    if len(lengths) != rows or len(sparse.indices) != lengths.sum() or (lengths < 0).any():
        raise ValueError("its rows do not fit together")
    matrix[np.repeat(np.arange(rows), lengths), sparse.indices] = sparse.data
    return matrix


ADMITTED: dict[tuple[str, str], Any] = {
    ("scipy.sparse.csr", "csr_matrix"): _SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): _SparseRows,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "list"): list,
    ("__builtin__", "list"): list,
}


class _Reader(pickle.Unpickler):
    """Finds the names in ADMITTED and no others."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}") from None


def read_pickle(path: Path) -> Any:
    """What a file of arrays holds. Raises RobenchError for a file that asks for anything else."""
    try:
        data = path.read_bytes()
        for code, argument, _ in pickletools.genops(data):
            if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("asks for more memory than a file of its length fills")
        content = _Reader(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(content, _SparseRows | np.ndarray | dict):
            raise pickle.UnpicklingError(f"holds a {type(content).__name__}")
        if isinstance(content, np.ndarray) and content.nbytes > len(data):
            raise pickle.UnpicklingError("holds an array without its content")
        return _dense(content) if isinstance(content, _SparseRows) else content
    except Exception as error:  # a broken pickle may fail in any way
        raise RobenchError(
            f"{path}: not a file of arrays as the Planetoid authors ship it ({error}); remove it "
            "to fetch it anew"
        ) from None


class Planetoid(Dataset):
    """Base of the citation networks; items are nodes (data/graph.py).

    Official split: 20 labelled nodes of each class to train on, the next 500 nodes for validation,
    1,000 to test. Ratios pool and shuffle all nodes that have a label.
    """

    name: ClassVar[str]
    hashes: ClassVar[dict[str, str]]
    labels: ClassVar[tuple[str, ...]]

    def load(self) -> Splits:
        name = self.name.lower()
        hashes = {f"ind.{name}.{part}": self.hashes[part] for part in PARTS}
        urls = {file: f"{BASE}/{file}" for file in hashes}
        files = find_files(f"planetoid/{self.name}/raw", urls, hashes)
        read = {part: files[f"ind.{name}.{part}"] for part in PARTS}
        try:
            splits = self._splits_of(*assemble(read), len(read_pickle(read["y"])))
            return replace(splits, notes=odd_files(name, files, hashes))
        except RobenchError:
            raise
        except Exception as error:  # whatever arrays of any kind and shape lead to
            raise RobenchError(
                f"{read['x'].parent}: the files of {self.name} do not fit together ({error}); "
                "remove them to fetch them anew"
            ) from None

    def _splits_of(
        self, graph: Graph, labels: np.ndarray, tests: np.ndarray, training: int
    ) -> Splits:
        if self.split == "official":
            sets = [np.arange(training), np.arange(training, training + VALIDATION), tests]
        else:
            sets = self.cut(np.flatnonzero(labels >= 0))
        for nodes in sets:
            if not ((labels[nodes] >= 0) & (labels[nodes] < len(self.labels))).all():
                raise ValueError(f"labels are not those of {len(self.labels)} classes")
        train, validation, test = (Part(graph.items(nodes), labels[nodes]) for nodes in sets)
        return Splits(train, validation, test, self.labels, graph)

    def class_names(self) -> tuple[str, ...]:
        return self.labels


def assemble(files: dict[str, Path]) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The graph, labels (n,) with -1 for none, and the test nodes, sorted.

    The files number test nodes in an order of their own (test.index). CiteSeer's leave out fifteen
    numbers, nodes without features, edges or label.
    """
    read = {part: read_pickle(files[part]) for part in PARTS if part != "test.index"}
    order = np.array([int(line) for line in files["test.index"].read_text().split()])
    first, last = len(read["allx"]), int(order.max())
    if order.min() < 0 or last >= MOST or len(set(order)) < len(order) or last < first - 1:
        raise ValueError(f"{files['test.index'].name} does not number different nodes below {MOST}")
    words = read["allx"].shape[1]
    if words > MOST:
        raise ValueError(f"{words} words, more than {MOST}")
    features = np.zeros((last + 1, words), np.float32)
    labels = np.full(last + 1, -1, np.int64)
    features[:first], features[order] = read["allx"], read["tx"]
    labels[:first], labels[order] = read["ally"].argmax(1), read["ty"].argmax(1)
    if not ((features >= 0) & (features <= 1)).all():
        raise ValueError("words are not in [0, 1]")
    pairs = np.array([(a, b) for a, others in read["graph"].items() for b in others], np.int64)
    if pairs.min() < 0 or pairs.max() > last:
        raise ValueError(f"graph has edges to nodes that are none of {last + 1}")
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    edges = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).T
    return Graph(features, np.ascontiguousarray(edges)), labels, np.sort(order)


class Cora(Planetoid):
    """2,708 papers on machine learning in seven subjects, 1,433 words, 5,278 citations."""

    name = "Cora"
    labels = (
        *("theory", "reinforcement learning", "genetic algorithms", "neural networks"),
        *("probabilistic methods", "case based", "rule learning"),
    )
    hashes: ClassVar[dict[str, str]] = {
        "x": "md5:190831eee19d8f330d89d94b40a65c5a",
        "tx": "md5:b29c36916768e1d2f55391c1aa9317ac",
        "allx": "md5:c9083193a57057dd1238321e140194d7",
        "y": "md5:78344284e3ff7fd24eb9c307d51351eb",
        "ty": "md5:48bf43f54fa5b86089a4bd0299795f10",
        "ally": "md5:125d70817fe1fdbfdcad991995e81579",
        "graph": "md5:b37c419cec179f45834467630c278e4c",
        "test.index": "md5:9b822cae1d01f41e8bf8782e20367c0e",
    }


class CiteSeer(Planetoid):
    """3,327 papers in six subjects, 3,703 words, 4,552 citations."""

    name = "CiteSeer"
    labels = ("AI", "ML", "information retrieval", "databases", "agents", "HCI")
    hashes: ClassVar[dict[str, str]] = {
        "x": "md5:baeb0100b5a8af8d41f928113ce0a4e5",
        "tx": "md5:c25ab826a7e95c0922ab625de705f7df",
        "allx": "md5:28486b4b9c4ee076b4eee2febd89ba86",
        "y": "md5:8b99f50aa950fbbf9a7a2b71ff9cac97",
        "ty": "md5:356894a73b7a7eff43c3580f2fcf92a4",
        "ally": "md5:f0df7e5f859245e32987bfd224d01657",
        "graph": "md5:5f88483d5f5cc2b26b987bbbfb695005",
        "test.index": "md5:70af39d4dff8aaa5c63f8dc526b16534",
    }
