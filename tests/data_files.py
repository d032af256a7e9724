"""Data sets of a few images in the formats of their publishers."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from robench.data.cifar import CIFAR10


def idx(values: np.ndarray) -> bytes:
    shape = np.array(values.shape, ">u4").tobytes()
    return gzip.compress(b"\x00\x00\x08" + bytes([values.ndim]) + shape + values.tobytes())


def mnist(folder: Path) -> None:
    images = np.arange(20 * 28 * 28, dtype=np.uint8).reshape(20, 28, 28)
    labels = (np.arange(20) % 10).astype(np.uint8)
    (folder / "mnist").mkdir()
    for prefix, part in (("train", slice(0, 15)), ("t10k", slice(15, 20))):
        (folder / f"mnist/{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images[part]))
        (folder / f"mnist/{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels[part]))


def cifar10(folder: Path, per_file: int = 4) -> None:
    """Six files: the label is the row's number in its file, the planes are 10, 20 and 30."""
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for name in CIFAR10.hashes:
        planes = np.repeat(np.array([10, 20, 30], np.uint8), 1024)
        rows = [np.concatenate([[label], planes]) for label in range(per_file)]
        np.stack(rows).astype(np.uint8).tofile(folder / "cifar-10-batches-bin" / name)


IDS = ("n03", "n01", "n02")


def tiny_imagenet(folder: Path) -> Path:
    """Three classes with 12 training and 2 test images each; the red level tells the class."""
    root = folder / "tiny-imagenet-200"
    (root / "val/images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(IDS) + "\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\ttarantula\n")
    for name in IDS:
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        for index in range(12):
            picture(images / f"{name}_{index}.JPEG", name, index)
    rows = [(f"val_{i}.JPEG", IDS[i % 3]) for i in (10, 2, 0, 1, 9, 5)]
    for file, name in rows:
        picture(root / "val/images" / file, name, 0)
    lines = [f"{file}\t{name}\t0\t0\t63\t63" for file, name in rows]
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def picture(path: Path, name: str, index: int) -> None:
    Image.new("RGB", (64, 64), (50 * int(name[-1]), 10 * index, 0)).save(path, quality=95)


def cifar_c(root: Path, per_severity: int = 4) -> np.ndarray:
    """The layout of CIFAR-10-C, where pixel values tell the row; returns the labels."""
    rows = np.arange(5 * per_severity, dtype=np.uint8)
    images = np.broadcast_to(rows[:, None, None, None], (len(rows), 32, 32, 3)).copy()
    images[:, 0, 0] = (1, 2, 3)
    labels = np.tile(np.arange(per_severity), 5).astype(np.uint8)
    (root / "C").mkdir(parents=True)
    np.save(root / "C/fog.npy", images)
    np.save(root / "C/labels.npy", labels)
    return labels[:per_severity]


def tiny_c(root: Path) -> None:
    """The layout of Tiny-ImageNet-C: image i is of class i % 2 and has the grey level i."""
    for index in range(12):
        folder = root / f"T/fog/2/n{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (index,) * 3).save(folder / f"val_{index}.png")
