"""How adversarial images lie in a file: what an attack made of every test image, beside the outcome
that it was scored for.

    images/ab/<digest of the cell>.safetensors

    images   (n, channels, height, width), float32 in [0, 1]: as the network was shown them
    image    (n,), int32: which of the publisher's test images each is
    label    (n,), int16: its label

in the order of the outcome's rows. The header holds under `robench` the identity of the cell, the
digest of the outcome's rows and of the tensors, and a seal. Images do not belong to an identity:
they follow from it, so that keeping them changes no number.
"""

from __future__ import annotations

import numpy as np

from robench.store.columns import values
from robench.store.files import Content
from robench.store.seal import sealed_tensors
from robench.store.store import Outcome


def images_file(outcome: Outcome, images: np.ndarray) -> tuple[str, Content]:
    """The digest of the tensors, and the file of a cell's images."""
    rows = outcome.rows
    tensors = {
        "images": np.ascontiguousarray(images, np.float32),
        "image": values(rows.column("image")).astype(np.int32),
        "label": values(rows.column("label")).astype(np.int16),
    }
    return sealed_tensors(tensors, {"identity": outcome.identity, "outcome": outcome.digest})
