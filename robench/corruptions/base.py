"""The corruption contract: one image in, the corrupted image out; or a set that was made before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from robench.workspace.plugins import Plugin

if TYPE_CHECKING:  # planning loads this file, and needs no data set
    from robench.data.base import Part


class Corruption(Plugin):
    """Corrupts images as nature would, at severities 1 to 5.

    Subclasses declare the field `kinds` with their default list and override `corrupt`. What an
    image becomes may depend on the image, kind, severity and `rng` alone; the framework derives
    `rng` from (image index, kind, severity, seed), so neither order nor batches matter.
    """

    kinds: tuple[str, ...] = ()
    not_identity: ClassVar[tuple[str, ...]] = ("kinds",)
    """Fields that do not change what one kind at one severity makes of an image."""

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The corrupted image.

        Args:
            image: (h, w, c), float32 in [0, 1], c = 1 or 3.
            kind: one of `self.kinds`. severity: 1 (mild) to 5.

        Returns an array like `image`, in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it corrupts")

    def given(self, kind: str, severity: int, start: int, stop: int) -> Part | None:
        """The images that were made before of test images `start` to `stop`, with their labels;
        None where `corrupt` makes them."""
        return None

    def origin(self, kind: str, severity: int, start: int, stop: int) -> dict[str, Any]:
        """What identities hold beside the fields: whether the images are generated or given, for
        generated and given ones differ; of given ones also their hash."""
        return {"source": "generated"}
