"""Networks that look robust and are not: each hides its gradient in a way of its own.

All but one train as what they derive from, and what they plant is there in use only. The file
doubles as the plugin file of the workspace in which test_diagnostics.py runs them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.data.digits import Digits
from robench.networks.mlp import MLP


class Saturated(MLP):
    """Logits a thousand times too large: the loss has no gradient left in float32."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else 1000 * logits


class Quantised(MLP):
    """Pixels rounded to a few levels: no gradient gets past the rounding."""

    levels: int = 3

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.training else (x * self.levels).round() / self.levels)


class RandomResize(MLP):
    """Each image shrunk by a pixel and put in a random corner, without saying that it is random."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self._resized(x))

    def _resized(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        small = F.interpolate(x, (height - 1, width - 1), mode="bilinear", align_corners=False)
        corners = [(0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0)]
        moved = torch.stack([F.pad(small, corner) for corner in corners])
        return moved[torch.randint(0, len(corners), (len(x),)), torch.arange(len(x))]


class Leak(MLP):
    """Knows the test set by heart and, by the toss of a coin, answers from memory."""

    def build(self) -> None:
        super().build()
        test = Digits().load().test
        images = torch.from_numpy(test.images).flatten(1)
        self.register_buffer("images", images, persistent=False)
        self.register_buffer("labels", torch.from_numpy(test.labels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.training:
            return logits
        nearest = torch.cdist(x.detach().flatten(1), self.images).argmin(1)
        known = F.one_hot(self.labels[nearest], self.classes).to(logits.dtype)
        heads = torch.rand(len(x), 1) < 0.5
        return torch.where(heads, logits, 20 * known)


class Probabilities(MLP):
    """Ends with a softmax where logits are expected."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else logits.softmax(1)
