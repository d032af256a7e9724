"""The framework's side of corruptions: corrupted images that depend on nothing but what is asked.

Every image has a random stream of its own, derived from (kind, severity, seed, index in the test
set): order, batches and processes do not matter, and numpy's global state is not touched.
"""

from __future__ import annotations

import numpy as np

from robench.corruptions.base import Corruption
from robench.data.base import Part
from robench.digest import derived_seed
from robench.errors import RobenchError, nearest

ROUNDING = 1e-5
"""How far a plugin's pixels may leave [0, 1] before it counts as a mistake."""


def corrupt_images(
    corruption: Corruption,
    images: np.ndarray,
    first_index: int,
    kind: str,
    severity: int,
    seed: int,
    labels: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
) -> np.ndarray:
    """The corrupted images, made one by one or taken from a set made before.

    Args:
        images: consecutive test images, (n, c, h, w), float32 in [0, 1], c = 1 or 3.
        first_index: index of images[0] in the test set, where `numbers` do not say it.
        kind: one of `corruption.kinds`. severity: 1 to 5.
        seed: of the report.
        labels: (n,), what the labels of a set made before must be; None: they are not compared.
        numbers: (n,), which of its publisher's images each is; None: consecutive ones.

    Returns (n, c, h, w), float32 in [0, 1]. Raises RobenchError for an unknown kind, a severity
    outside 1 to 5, images that are not such, a set made before that does not fit, and a plugin that
    returns something else.
    """
    who = f"corruption {type(corruption).__name__}"
    if kind not in corruption.kinds:
        raise RobenchError(f"{who}: kind {kind!r}: unknown; {nearest(kind, corruption.kinds)}")
    if isinstance(severity, bool) or severity not in (1, 2, 3, 4, 5):
        raise RobenchError(f"{who}: severity = {severity!r}: must be 1, 2, 3, 4 or 5")
    _check_images(images, first_index, f"{who}: {kind}")
    given = _given(corruption, kind, severity, first_index, len(images), numbers)
    if given is not None:
        where = f"{who}: {kind} at severity {severity}"
        if given.images.shape != images.shape:
            raise RobenchError(
                f"{where}: {_said(given.images)} are given, where the data set has "
                f"{_said(images)}: size and channels must be the same"
            )
        if labels is not None and not np.array_equal(given.labels, labels):
            wrong = np.count_nonzero(given.labels != labels)
            raise RobenchError(
                f"{where}: the labels of {wrong} of {len(labels)} images are not the data set's; "
                "a given set belongs to its publisher's test images (split = 'official') and has "
                "their order (of folders: order = 'classes' where the data set goes class by class)"
            )
        return _checked(given.images, images, where).copy()  # a plugin may have kept its own
    entropy = derived_seed("corruption", kind, severity, seed)
    made = np.empty(images.shape, np.float32)
    for offset, image in enumerate(images):
        index = first_index + offset if numbers is None else int(numbers[offset])
        where = f"{who}: {kind} at severity {severity} of image {index}"
        # Copies: transposing leaves grey images in the memory of the test set.
        shown = _channels_last(image)
        untouched = shown.copy()
        answer = corruption.corrupt(shown, kind, severity, image_rng(entropy, index))
        if not np.array_equal(shown, untouched):
            raise RobenchError(f"{where}: it writes into the image that it is given: copy it first")
        made[offset] = _checked(
            np.moveaxis(np.asarray(answer), -1, 0) if np.ndim(answer) == 3 else answer, image, where
        )
    return made


def _said(images: np.ndarray) -> str:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return f"images of shape {images.shape}"
    n, c, h, w = images.shape
    return f"{n} {'grey' if c == 1 else 'colour'} images of {h} x {w} pixels"


def _given(
    corruption: Corruption, kind: str, severity: int, first: int, count: int,
    numbers: np.ndarray | None,
) -> Part | None:  # fmt: skip
    """The images of a set made before, in the order that is asked for."""
    if numbers is None:
        return corruption.given(kind, severity, first, first + count)
    sets = [corruption.given(kind, severity, int(n), int(n) + 1) for n in numbers]
    parts = [part for part in sets if part is not None]
    if not parts:
        return None
    for number, part in zip(numbers, parts, strict=False):
        if part.images.shape[1:] != parts[0].images.shape[1:]:
            raise RobenchError(
                f"corruption {type(corruption).__name__}: {kind} at severity {severity}: image "
                f"{number} is one of {_said(part.images)}, image {numbers[0]} of "
                f"{_said(parts[0].images)}"
            )
    return Part(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def image_rng(entropy: int, index: int) -> np.random.Generator:
    """The random stream of one image. Its generator is named, since numpy's default may change."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(index,))))


def _channels_last(image: np.ndarray) -> np.ndarray:
    """(c, h, w) -> (h, w, c), copied; a channel at once is quicker than all of a pixel's."""
    answer = np.empty((*image.shape[1:], len(image)), image.dtype)
    for channel, values in enumerate(image):
        answer[..., channel] = values
    return answer


def _check_images(images: np.ndarray, first_index: int, who: str) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise RobenchError(
            f"{who}: images of shape {images.shape}: must be (n, c, h, w) with 1 or 3 channels"
        )
    if images.dtype != np.float32:
        raise RobenchError(f"{who}: images of type {images.dtype}: must be float32 in [0, 1]")
    # NaN compares false, so that it counts as outside; and it is both least and most.
    if not images.size or (images.min() >= 0 and images.max() <= 1):
        return
    outside = ~((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))
    at = int(outside.argmax())
    low, high = float(images[at].min()), float(images[at].max())
    raise RobenchError(
        f"{who}: image {first_index + at} has pixels from {low:g} to {high:g}, not in [0, 1]"
    )


def _checked(answer: np.ndarray, like: np.ndarray, where: str) -> np.ndarray:
    """The answer as float32 in [0, 1], or an error that says what is wrong with it."""
    if np.shape(answer) != like.shape:
        raise RobenchError(
            f"{where}: the answer has shape {np.shape(answer)}, the image has {like.shape}"
        )
    low, high = float(np.min(answer)), float(np.max(answer))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise RobenchError(f"{where}: the answer goes from {low:g} to {high:g}, not from 0 to 1")
    bounded: np.ndarray = answer if low >= 0 and high <= 1 else np.clip(answer, 0, 1)
    return bounded.astype(np.float32, copy=False)
