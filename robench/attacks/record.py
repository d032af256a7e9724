"""What an attack asked about each image of its batch: costs and what diagnostics want to know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Record:
    """Per image of a batch: forward passes, gradients, and what the gradients showed.

    Args:
        images: images in the batch. `index`, wherever it is taken, says which of them each row of a
            question is about; without it, rows are in the order of the batch, or else are counted
            evenly over all of it.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.queries = torch.zeros(images, dtype=torch.float64)
        self.gradients = torch.zeros(images, dtype=torch.float64)
        self.asked = torch.zeros(images, dtype=torch.bool)
        self.zero_gradient = torch.zeros(images, dtype=torch.bool)
        """Whether the gradient that was asked for first was exactly zero."""
        self.fooled = torch.zeros(images, dtype=torch.bool)
        """Whether a point inside the ball at which a gradient was taken was misclassified (by most
        draws of a noisy network)."""
        self._all_asked = False
        self._loss = torch.zeros(images)
        self._trace: list[Tensor] = []
        self.runs: list[int] = []
        """Where in the loss trace each run (restart, surrogate) of the attack begins."""

    def count(self, counter: Tensor, rows: int, index: Tensor | None) -> None:
        """Add one to `counter` for each of `rows` questions."""
        if index is not None:
            ones = torch.ones(len(index), dtype=counter.dtype)
            counter.index_add_(0, index.cpu(), ones)
        else:
            counter += rows / max(self.images, 1)

    def gradient(
        self, grad: Tensor, loss: Tensor, fooled: Tensor | None, index: Tensor | None
    ) -> None:
        """Take down a gradient: its rows, the losses, and the share of draws that were fooled."""
        self.first_gradient(grad, index)
        if index is None and len(grad) != self.images:
            self._trace.append(loss.mean())
            return
        rows = slice(None) if index is None else index.cpu()
        if fooled is not None:
            self.fooled[rows] |= (fooled > 0.5).cpu()
        self._loss[rows] = loss.cpu()
        self._trace.append(self._loss.mean())

    def first_gradient(self, grad: Tensor, index: Tensor | None) -> None:
        """Note which images have an exactly zero gradient, the first time that each is asked."""
        if self._all_asked or (index is None and len(grad) != self.images):
            return
        rows = slice(None) if index is None else index.cpu()
        flat = grad.flatten(1)
        zero = ((flat.amax(1) == 0) & (flat.amin(1) == 0)).cpu()
        self.zero_gradient[rows] |= zero & ~self.asked[rows]
        self.asked[rows] = True
        self._all_asked = bool(self.asked.all())

    def begin_run(self) -> None:
        """The next gradient is the first of a new run."""
        self.runs.append(len(self._trace))

    @property
    def loss_trace(self) -> list[float]:
        """Mean loss at every gradient; an image that has left the attack counts with its last."""
        return [float(loss) for loss in self._trace]

    def counts(self) -> dict[str, np.ndarray | None]:
        """Per image, (n,): queries, gradients, zero_gradient and fooled_on_the_way; the last two
        are None where no gradient was asked for image by image."""
        seen = self._all_asked and self.images > 0
        return {
            "queries": self.queries.numpy().astype(np.float32),
            "gradients": self.gradients.numpy().astype(np.float32),
            "zero_gradient": self.zero_gradient.numpy() if seen else None,
            "fooled_on_the_way": self.fooled.numpy() if seen else None,
        }
