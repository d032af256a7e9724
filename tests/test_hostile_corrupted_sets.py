"""Corrupted sets from strangers, as arrays or as folders of pictures: what is read is images and
labels, or one error names the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from damaged_files import HOW, damage
from data_files import cifar_c, tiny_c
from hostile import TEXTS, files_in, png_header, put, works_or_says
from hypothesis import given
from hypothesis import strategies as st

from robench.corruptions.given import GivenImages

alone = hostile.alone  # a fixture

LAYOUTS: dict[str, tuple[Callable[[Path], Any], GivenImages, int]] = {
    "npy": (cifar_c, GivenImages(path="C", kinds=["fog"]), 3),
    "folders": (tiny_c, GivenImages(path="T", kinds=["fog"], layout="folders"), 2),
}


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    made = {}
    for name, (build, *_) in LAYOUTS.items():
        folder = tmp_path_factory.mktemp("corrupted")
        build(folder)
        made[name] = files_in(folder)
    return made


def given_taken(layout: str) -> None:
    _, corruption, severity = LAYOUTS[layout]
    part = works_or_says(lambda: corruption.given("fog", severity, 1, 4), "C|T")
    if part is not None:
        assert part.images.dtype == np.float32
        assert part.images.shape[0] == 3 == len(part.labels)
        assert ((part.images >= 0) & (part.images <= 1)).all()
        assert part.labels.dtype == np.int64
    works_or_says(lambda: corruption.origin("fog", severity, 1, 4), "C|T")


@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), how=HOW, value=st.integers(0, 255))
def test_a_damaged_corrupted_set_is_read_or_named(
    alone: Path, corrupted: Any, data: st.DataObject, layout: str, how: str, value: int
) -> None:
    files = dict(corrupted[layout])
    file = data.draw(st.sampled_from(sorted(files)))
    where = data.draw(st.one_of(st.integers(0, 130), st.integers(0, len(files[file]))))
    put(alone / "data", {**files, file: damage(files[file], how, where, value)})
    given_taken(layout)


DTYPES = st.sampled_from(
    ["|u1", "<i8", "<f4", "|O", "|S3", "<M8[s]", "|V0", ">c16", "x", "<U99999999"]
)


@given(
    file=st.sampled_from(["C/fog.npy", "C/labels.npy"]),
    dtype=st.one_of(DTYPES, TEXTS),
    shape=st.one_of(
        st.sampled_from(
            ["(20, 32, 32, 3)", "(4,)", "(0, 32, 32, 3)", "(2**62, 2**62)", "()", "None"]
        ),
        st.tuples(st.integers(-2, 2**70), st.integers(0, 40)).map(repr),
        TEXTS,
    ),
    body=st.one_of(st.binary(max_size=20), st.integers(0, 70_000).map(bytes)),
)
def test_an_npy_header_may_say_anything(
    alone: Path, corrupted: Any, file: str, dtype: str, shape: str, body: bytes
) -> None:
    said = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said) % 2**16)
    put(alone / "data", {**corrupted["npy"], file: start + said + body})
    given_taken("npy")


@pytest.mark.parametrize("side", [13_000, 10**5])
def test_a_picture_of_a_corrupted_set_that_is_a_bomb_is_refused(
    alone: Path, corrupted: Any, side: int
) -> None:
    bomb = png_header(side, side)
    put(alone / "data", dict.fromkeys(corrupted["folders"], bomb))
    corruption = LAYOUTS["folders"][1]
    assert works_or_says(lambda: corruption.given("fog", 2, 0, 2), r"val_\d.png") is None
