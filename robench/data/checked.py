"""Images and labels from anywhere, brought to what robench computes with, or refused with the
likely mistake named."""

from __future__ import annotations

from typing import Any

import numpy as np

from robench.errors import RobenchError

CHANNELS = (1, 3, 4)
"""How many channels pictures have: grey, colour, colour with transparency."""


def checked_images(values: Any, where: str) -> np.ndarray:
    """Images as (n, c, h, w), float32 in [0, 1], in memory of their own.

    Args:
        values: an array or a tensor, of numbers.
        where: what errors call it.

    Raises RobenchError naming the likely mistake: bytes 0..255, channels last, no channel,
    normalised pixels.
    """
    images = _array(values, where)
    if images.dtype == object or images.dtype.kind not in "fiub":
        raise RobenchError(f"{where}: holds {images.dtype}, not numbers: give pixels in [0, 1]")
    if images.ndim == 3:
        raise RobenchError(
            f"{where}: shape {images.shape}: images are (n, channels, height, width); where they "
            "are grey, give them one channel: x[:, None]"
        )
    if images.ndim != 4 or 0 in images.shape:
        raise RobenchError(
            f"{where}: shape {images.shape}: images are (n, channels, height, width), none of "
            "them 0"
        )
    if images.shape[3] in CHANNELS and images.shape[1] not in CHANNELS:
        raise RobenchError(
            f"{where}: shape {images.shape}: the channels seem to come last; give (n, channels, "
            "height, width): x.transpose(0, 3, 1, 2) in numpy, x.permute(0, 3, 1, 2) in torch"
        )
    made = np.array(images, dtype=np.float32, order="C")
    wrong = wrong_pixels(made)
    if wrong:
        raise RobenchError(f"{where}: {wrong}")
    return made


def wrong_pixels(images: np.ndarray) -> str:
    """What is wrong with pixels that are not in [0, 1]; empty: nothing."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return ""
    if not (np.isfinite(low) and np.isfinite(high)):
        return "pixels that are NaN or infinite"
    return f"pixels from {low:.4g} to {high:.4g}, not in [0, 1]: {_likely(low, high)}"


def _likely(low: float, high: float) -> str:
    """What is probably meant by pixels from `low` to `high`."""
    if low >= 0 and 1 < high <= 255:
        return "they seem to be 0..255; divide them by 255"
    if low >= -1 and high <= 1:
        return (
            "they seem to be -1..1; give (x + 1) / 2, and to the network mean = [0.5], std = [0.5]"
        )
    if low < 0 and high < 20:
        return (
            "they seem to be normalised; give them as they were before, and mean = [...], "
            "std = [...] to the network, so that eps is in pixels"
        )
    return "give them in [0, 1]"


def checked_labels(
    values: Any, images: int, where: str, names: tuple[str, ...] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,), int64, and the names of the classes.

    Args:
        values: whole numbers from 0, or texts, which are mapped to 0, 1, ... in the order of
            `names`, else sorted.
        images: how many there must be.
        names: of the classes; (): as the labels say.

    Raises RobenchError for labels that are not one for each image, fractional, negative, one-hot,
    or of a class beyond `names`.
    """
    labels = _array(values, where)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise RobenchError(
            f"{where}: shape {labels.shape}: one label for each image; where they are one-hot, "
            "give y.argmax(1)"
        )
    if labels.ndim != 1 or len(labels) != images:
        raise RobenchError(f"{where}: shape {labels.shape}, but there are {images} images")
    if labels.dtype.kind in "USO":
        texts = [str(label) for label in labels]
        known = names or tuple(sorted(set(texts)))
        unknown = sorted(set(texts) - set(known))
        if unknown:
            raise RobenchError(
                f"{where}: label {unknown[0]!r} is not among classes = {list(known)}"
            )
        place = {name: number for number, name in enumerate(known)}
        return np.array([place[text] for text in texts], dtype=np.int64), known
    whole = labels.astype(np.int64) if labels.dtype.kind in "iub" else _whole(labels, where)
    if len(whole) and whole.min() < 0:
        raise RobenchError(f"{where}: label {whole.min()}: labels count the classes from 0")
    classes = int(whole.max()) + 1 if len(whole) else 0
    if names and classes > len(names):
        raise RobenchError(
            f"{where}: label {classes - 1}, but there are {len(names)} classes, which count from 0"
        )
    return whole, names or tuple(str(number) for number in range(classes))


def _whole(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind != "f":
        raise RobenchError(f"{where}: holds {labels.dtype}; labels are whole numbers or texts")
    odd = labels[~(np.isfinite(labels) & (labels == np.floor(labels)))]
    if len(odd):
        raise RobenchError(f"{where}: label {odd[0]:g} is not a whole number")
    return labels.astype(np.int64)


def _array(values: Any, where: str) -> np.ndarray:
    """`values` as an array. Tensors come from wherever they lie."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float().numpy() if str(values.dtype) == "torch.bfloat16" else values.numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        raise RobenchError(f"{where}: is no array: {error}") from None
