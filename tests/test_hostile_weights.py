"""Files of weights from strangers: they load and the network answers with numbers, or one error
says why not. A pickle is not opened.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import hostile
import pytest
import safetensors.torch
import torch
from damaged_files import HOW, damage
from hostile import JSON, NUMBERS, changed, works_or_says
from hypothesis import assume, given
from hypothesis import strategies as st

from robench.make.identity import resolve_model
from robench.networks.base import check_finite
from robench.workspace import plugins
from robench.workspace.folders import Workspace

alone, workspace = hostile.alone, hostile.workspace  # fixtures


def weights_taken(workspace: Workspace, content: bytes) -> None:
    """A card names weights: they are refused, or loaded and answer with numbers."""
    (workspace.root / "models/net.safetensors").write_bytes(content)
    card = workspace.card("models", "given")

    def act() -> None:
        resolve_model(card)
        trainer = plugins.build("trainers", card.trainer, card)
        network = plugins.build("networks", card.network, card, input_shape=(1, 8, 8), classes=10)
        trainer.fit(network, None, torch.Generator(), None)
        with torch.no_grad():
            check_finite("logits", network(torch.zeros(1, 1, 8, 8)))

    works_or_says(act, "weights|models/given.toml|the network answers")


@pytest.fixture
def tensors(workspace: Workspace) -> Iterator[bytes]:
    """The weights of the card `given`, as they should be."""
    file = workspace.root / "models/net.safetensors"
    content = file.read_bytes()
    yield content
    file.write_bytes(content)


@given(data=st.data(), how=HOW, value=st.integers(0, 255))
def test_damaged_weights_are_taken_or_refused(
    workspace: Workspace, tensors: bytes, data: st.DataObject, how: str, value: int
) -> None:
    where = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(tensors))))
    weights_taken(workspace, damage(tensors, how, where, value))


TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)


@given(
    data=st.data(),
    name=st.sampled_from(["1.weight", "1.bias", "3.weight", "3.bias", "4.bias"]),
    fill=NUMBERS.filter(lambda number: abs(number) < 2**60 or number != number),
    kind=st.sampled_from(TYPES),
    shape=st.lists(st.integers(0, 70), max_size=3),
)
def test_weights_of_any_type_shape_and_value_are_taken_or_refused(
    workspace: Workspace,
    tensors: bytes,
    data: st.DataObject,
    name: str,
    fill: Any,
    kind: torch.dtype,
    shape: list[int],
) -> None:  # fmt: skip
    state = safetensors.torch.load(tensors)
    shape = list(state[name].shape) if name in state and data.draw(st.booleans()) else shape
    value = torch.full(shape, float(fill), dtype=torch.float64)
    state[name] = value.to(kind)
    try:
        content = safetensors.torch.save(state)
    except KeyError:  # early releases write no complex numbers
        assume(False)
    weights_taken(workspace, content)


HEADERS = {"1.weight": {"dtype": "F32", "shape": [20, 64], "data_offsets": [0, 5120]}}


@given(header=st.one_of(changed(HEADERS, JSON), JSON), size=st.none() | st.integers(0, 2**64 - 1))
def test_a_header_of_weights_may_say_anything(
    workspace: Workspace, tensors: bytes, header: Any, size: int | None
) -> None:
    said = json.dumps(header).encode()
    length = len(said) if size is None else size
    weights_taken(workspace, length.to_bytes(8, "little") + said + bytes(5120))


@pytest.mark.parametrize(
    "content", [b"\x80\x02}.", b"PK\x03\x04", gzip.compress(b"x", mtime=0), b""]
)
def test_weights_that_are_something_else_are_refused_saying_why(
    workspace: Workspace, tensors: bytes, content: bytes
) -> None:
    (workspace.root / "models/net.safetensors").write_bytes(content)
    card = workspace.card("models", "given")
    why = r"net.safetensors': is (a pickle, and reading one runs the code|not a safetensors file)"
    assert works_or_says(lambda: resolve_model(card), why) is None
