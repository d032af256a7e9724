"""MNIST and Fashion-MNIST in the idx format of their publishers."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from robench.data.base import Dataset, Raw
from robench.data.files import find_files
from robench.errors import RobenchError

LARGEST = 2**28
"""Bytes that an idx file may unpack to; MNIST's take 47 million. A bomb asks for more."""


def read_idx(path: Path) -> np.ndarray:
    """A gzipped idx file of unsigned bytes. Raises RobenchError when it is not one."""
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RobenchError(
            f"{path}: not a gzip file ({error}); remove it to fetch it anew"
        ) from None
    dimensions = data[3] if len(data) > 4 else 0
    header = 4 + 4 * dimensions
    whole = data[:3] == b"\x00\x00\x08" and dimensions > 0 and len(data) >= header
    shape = tuple(int(n) for n in np.frombuffer(data[4:header], ">u4")) if whole else ()
    if not whole or len(data) != header + math.prod(shape):
        raise RobenchError(f"{path}: not a whole idx file of bytes; remove it to fetch it anew")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _content(array: np.ndarray) -> str:
    """MD5 of the idx file that holds an array."""
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class MNIST(Dataset):
    """Handwritten digits, 28x28 grey, 60,000 + 10,000 (LeCun et al. 1998)."""

    resize: int = Field(default=28, ge=4, le=28)
    """Side of the images; 14 averages 2x2 pixels as GLR does. Must divide 28."""

    folder: ClassVar[str] = "mnist"
    base_url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    hashes: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    }

    contents: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    }
    """MD5 of what the publisher's files unpack to: packing them again changes nothing."""

    def raw(self) -> Raw:
        urls = {name: self.base_url + name for name in self.hashes}
        files = find_files(self.folder, urls, self.hashes)
        arrays = [read_idx(files[name]) for name in self.hashes]
        for images, labels, name in zip(arrays[::2], arrays[1::2], tuple(urls)[::2], strict=True):
            if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
                raise RobenchError(
                    f"{files[name]}: holds {images.shape} and its labels {labels.shape}, not 28x28 "
                    "pixels and a label for each image; remove both to fetch them anew"
                )
        images = np.concatenate([arrays[0], arrays[2]])[:, None]
        labels = np.concatenate([arrays[1], arrays[3]])
        if self.resize != 28:
            if 28 % self.resize:
                raise RobenchError(f"dataset {self.folder}: resize = {self.resize} must divide 28")
            block = 28 // self.resize
            blocks = images.reshape(-1, 1, self.resize, block, self.resize, block)
            images = blocks.mean((3, 5), dtype=np.float32) / np.float32(255)
        return Raw(
            images, labels, len(arrays[1]), self._notes(dict(zip(urls, arrays, strict=True)))
        )

    def _notes(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """What is to be said of files that are not the publisher's, whatever they are called."""
        odd = [name for name, array in arrays.items() if _content(array) != self.contents[name]]
        if not odd:
            return ()
        return (f"{self.folder}: not the publisher's data: {', '.join(odd)}",)


class FashionMNIST(MNIST):
    """Clothing, 28x28 grey, 60,000 + 10,000, a drop-in for MNIST (Xiao et al. 2017)."""

    folder: ClassVar[str] = "fashion-mnist"
    base_url: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    hashes: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    }

    contents: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
    }

    def class_names(self) -> tuple[str, ...]:
        return (
            *("top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "boot"),
        )
