"""Stored inputs -> small strips: clean, adversarial, magnified difference, corruptions."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from robench.show.results import Model, Results

Pixels = NDArray[np.uint8]
LARGEST_SIDE = 48  # pixels; larger images are shown by means of blocks


@dataclass(frozen=True)
class Strip:
    """Images side by side as one data URI; every image has an equal share of the width."""

    label: str
    picture: str
    tiles: int
    captions: tuple[str, ...] = ()


def inputs(rows: pa.Table, shape: list[int] | None) -> Pixels | None:
    """The stored images of a cell, (n, h, w, 1 or 3); None where there is nothing to look at."""
    if shape is None or len(shape) != 3 or "input" not in rows.column_names:
        return None
    if max(shape[1:]) > LARGEST_SIDE * min(shape[1:]):  # a row of pixels, such as a node's words
        return None
    stored = rows.column("input").slice(0, 8).to_pylist()
    whole = [item for item in stored if item is not None and len(item) == math.prod(shape)]
    if not whole:
        return None
    images = np.stack([np.frombuffer(item, np.uint8).reshape(shape) for item in whole])
    if shape[0] not in (1, 3):
        images = images.mean(axis=1, keepdims=True).astype(np.uint8)
    return _shrunk(images.transpose(0, 2, 3, 1))


def difference(adversarial: Pixels, clean: Pixels) -> tuple[Pixels, float]:
    """Perturbations around mid-grey, magnified so that the largest just fits; and how much."""
    delta = adversarial.astype(float) - clean.astype(float)
    largest = np.abs(delta).max()
    factor = 127 / largest if largest else 1.0
    factor = float(f"{max(factor, 1):.2g}")
    return np.clip(127.5 + factor * delta, 0, 255).astype(np.uint8), factor


def strip(label: str, images: list[Pixels | None], captions: tuple[str, ...] = ()) -> Strip | None:
    """A strip of (h, w, c) images; a missing one leaves its place empty."""
    first = next((image for image in images if image is not None), None)
    if first is None:
        return None
    height, width, channels = first.shape
    gap = max(1, width // 10)
    canvas = np.zeros((height, (width + gap) * len(images), channels + 1), np.uint8)
    for place, image in enumerate(images):
        if image is not None:
            left = place * (width + gap)
            canvas[:, left : left + width, :channels] = image
            canvas[:, left : left + width, channels] = 255
    return Strip(label, _data_uri(canvas), len(images), captions)


def examples(
    results: Results, model: Model, strongest: str | None, kinds: list[str], tiles: int = 8
) -> list[Strip]:
    """Up to `tiles` test images of the model's first seed: clean, under the strongest attack and
    the magnified difference, and under the highest severity of some corruptions."""
    clean = _pixels(results, model, "clean", tiles)
    if clean is None:
        return []
    rows, images = clean
    labels = rows.column("label").to_pylist()
    strips = [strip("clean", list(images), _captions(rows, labels))]
    attacked = _pixels(results, model, strongest, tiles) if strongest else None
    if strongest and attacked is not None and len(attacked[1]) == len(images):
        delta, factor = difference(attacked[1], images)
        strips += [
            strip(strongest, list(attacked[1]), _captions(attacked[0], labels)),
            strip(f"difference × {factor:g}", list(delta)),
        ]
    for kind in kinds:
        threat = results.kinds[kind][-1]["name"]
        corrupted = _pixels(results, model, threat, tiles)
        if corrupted is not None:
            strips.append(strip(threat, list(corrupted[1]), _captions(corrupted[0], labels)))
    return [made for made in strips if made is not None]


def contact_sheet(results: Results, model: Model) -> list[Strip]:
    """The first test image under every kind of corruption: clean, then by severity."""
    clean = _pixels(results, model, "clean")
    if clean is None:
        return []
    strips = []
    for kind, threats in results.kinds.items():
        corrupted = [_pixels(results, model, threat["name"]) for threat in threats]
        images = [clean[1][0], *(None if one is None else one[1][0] for one in corrupted)]
        captions = ("clean", *(str(threat["severity"]) for threat in threats))
        if any(one is not None for one in corrupted):
            strips.append(strip(kind, images, captions))
    return [made for made in strips if made is not None]


def _pixels(
    results: Results, model: Model, threat: str, tiles: int = 8
) -> tuple[pa.Table, Pixels] | None:
    cell = results.cell(model["name"], model["seeds"][0]["seed"], threat)
    if cell is None:
        return None
    rows = results.rows[cell["digest"]]
    images = inputs(rows.slice(0, tiles), cell.get("input_shape"))
    return None if images is None else (rows.slice(0, len(images)), images)


def _captions(rows: pa.Table, labels: list[Any]) -> tuple[str, ...]:
    """`7` where the first draw is right, `7→1` where it is wrong."""
    predicted = [draws[0] for draws in rows.column("predictions").to_pylist()]
    return tuple(
        str(label) if label == guess else f"{label}→{guess if guess >= 0 else 'none'}"
        for label, guess in zip(labels, predicted, strict=False)
    )


def _shrunk(images: Pixels) -> Pixels:
    """Means of square blocks, until no side is longer than LARGEST_SIDE."""
    n, height, width, channels = images.shape
    block = math.ceil(max(height, width) / LARGEST_SIDE)
    if block == 1:
        return images
    height, width = height // block, width // block
    cut = images[:, : height * block, : width * block].astype(float)
    blocks = cut.reshape(n, height, block, width, block, channels)
    shrunk: Pixels = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return shrunk


def _data_uri(pixels: Pixels) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp(pixels)).decode()


def webp(pixels: Pixels) -> bytes:
    """(h, w, channels) as lossless WebP, a third smaller than PNG; 2 channels are grey and alpha, 4
    are RGB and alpha."""
    grey = pixels.shape[2] == 2
    shown = pixels[:, :, [0, 0, 0, 1]] if grey else pixels
    sink = io.BytesIO()
    Image.fromarray(shown, "RGBA").save(
        sink, "WEBP", lossless=True, quality=100, method=6, exact=True
    )
    return sink.getvalue()
