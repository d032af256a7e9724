"""Natural noise on binary features, such as a paper's words: forgotten, added, swapped, blurred.

Severities are shares of the words that an item has, so that a short paper suffers as much as a long
one; ours, for want of a published scale.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from robench.corruptions.base import Corruption

Kind = Literal["forget", "add", "swap", "gaussian"]
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
SIGMAS = (0.01, 0.02, 0.04, 0.06, 0.1)


class BagOfWords(Corruption):
    """Words that are lost, put in, or replaced; Gaussian noise on their counts."""

    kinds: tuple[Kind, ...] = Field(default=("forget", "add", "swap", "gaussian"), min_length=1)

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(h, w, c) -> (h, w, c)."""
        if kind == "gaussian":
            noisy: np.ndarray = np.clip(
                image + rng.normal(scale=SIGMAS[severity - 1], size=image.shape), 0, 1
            )
            return noisy
        answer = image.copy().reshape(-1)
        there, absent = np.flatnonzero(answer > 0.5), np.flatnonzero(answer <= 0.5)
        count = round(SHARES[severity - 1] * len(there))
        if kind in ("forget", "swap"):
            answer[rng.choice(there, count, replace=False)] = 0
        if kind in ("add", "swap"):
            answer[rng.choice(absent, min(count, len(absent)), replace=False)] = 1
        return answer.reshape(image.shape)
