"""Files of tensors that are written from where these lie are those that safetensors writes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from robench.networks.weights import TORCH, apart
from robench.store.seal import as_written, sealed_tensors, tensors_digest, tensors_header

ABOUT = {"identity": {"what": "model", "name": 'ä"\\\n'}, "history": [1.5]}
KINDS = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
)


def several() -> dict[str, Any]:
    """Tensors of all kinds and shapes whose names are in another order than they lie in a file."""
    rng, found = torch.Generator().manual_seed(0), {}
    for number, kind in enumerate(KINDS):
        for shape in ((), (3,), (2, 0), (5, 2, 3)):
            values = torch.randint(0, 2, shape, generator=rng).to(kind)
            found[f"{(7 * number) % 10}.{len(shape)}é"] = values
    return found


def test_a_file_is_that_of_the_library_but_for_the_order_of_its_header() -> None:
    tensors = several()
    name, pieces = sealed_tensors(tensors, ABOUT, TORCH)
    mine = b"".join(pieces)
    theirs = safetensors.torch.save(tensors, {"robench": as_written(ABOUT, name)})
    assert name == tensors_digest(theirs) == tensors_digest(mine)
    assert tensors_header(mine) == tensors_header(theirs)
    start, size = (8 + int.from_bytes(data[:8], "little") for data in (mine, theirs))
    assert mine[start:] == theirs[size:]
    assert start % 8 == 0
    read = safetensors.torch.load(mine)
    assert read.keys() == tensors.keys()
    for key, value in tensors.items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value)


def test_arrays_of_numpy_and_no_tensors_at_all_too() -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.array([True, False])}
    for tensors in (arrays, {}):
        name, pieces = sealed_tensors(tensors, ABOUT)
        whole = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        assert name == tensors_digest(safetensors.numpy.save(whole))
        read = safetensors.numpy.load(b"".join(pieces))
        assert {key: value.tolist() for key, value in read.items()} == {
            key: value.tolist() for key, value in tensors.items()
        }
    said = json.loads(tensors_header(b"".join(pieces))["__metadata__"]["robench"])
    assert said["identity"] == ABOUT["identity"]


def test_only_what_shares_memory_or_lies_in_another_order_is_copied() -> None:
    whole = torch.rand(4, 6)
    tied = torch.rand(3)
    given = {
        "alone": torch.rand(2, 3), "rows": whole[1:3], "turned": whole.T,
        "tied": tied, "again": tied, "none": torch.rand(0, 2),
    }  # fmt: skip
    found = apart(given)
    assert found["alone"].data_ptr() == given["alone"].data_ptr()
    places = [value.data_ptr() for value in found.values() if value.numel()]
    assert len(set(places)) == len(places)
    for key, value in given.items():
        assert torch.equal(found[key], value)
        assert found[key].is_contiguous()
    name, _ = sealed_tensors(found, {}, TORCH)
    assert name == tensors_digest(safetensors.torch.save(found))


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex128])
def test_what_the_library_does_not_write_is_refused_by_it(kind: torch.dtype) -> None:
    tensors = {"z": torch.zeros(3, dtype=kind)}
    try:
        theirs = safetensors.torch.save(tensors)
    except Exception as error:
        with pytest.raises(type(error)):
            sealed_tensors(tensors, {}, TORCH)
    else:
        assert sealed_tensors(tensors, {}, TORCH)[0] == tensors_digest(theirs)
