"""The corruption contract: one image in, the corrupted image out."""

from __future__ import annotations

import numpy as np

from robench.plugins import Plugin


class Corruption(Plugin):
    """Corrupts images as nature would, at severities 1 to 5.

    Subclasses declare the field `kinds` with their default list and override `corrupt`. What an image
    becomes may depend on the image, kind, severity and `rng` alone; the framework derives `rng` from
    (data set, image index, kind, severity, seed), so neither order nor batches matter.
    """

    kinds: tuple[str, ...] = ()

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
