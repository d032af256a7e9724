"""What an attack asked about each image of its batch: costs and what diagnostics want to know."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

PENDING = 64  # gradients that are taken down as they are before they are worked up


class _Note(NamedTuple):
    loss: Tensor
    margin: Tensor | None
    """Of the images themselves, (n,), or None where the network was shown something else."""
    about: Tensor | None
    """Which image of the batch each row is."""


class Record:
    """Per image of a batch: forward passes, gradients, and what the gradients showed.

    Keeping it must cost an attack next to nothing: questions about the whole batch are counted in
    one number, losses are worked up later, and a GPU is waited for as seldom as can be.

    Args:
        images: images in the batch. `index`, wherever it is taken, says which of them each row of a
            question is about; without it, rows are in the order of the batch, or else are counted
            evenly over all of it.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.runs: list[int] = []
        """Where in the loss trace each run (restart, surrogate) of the attack begins."""
        self._evenly = {"queries": 0.0, "gradients": 0.0}
        self._all_asked = False
        self._watched = False
        self._trace: list[float] = []
        self._means: list[Tensor] = []
        self._pending: list[_Note] = []
        self._of: dict[str, Tensor] = {
            "queries": torch.zeros(images),
            "gradients": torch.zeros(images),
            "asked": torch.zeros(images, dtype=torch.bool),
            "zero_gradient": torch.zeros(images),  # how often it was so
            "fooled": torch.zeros(images),
            "loss": torch.zeros(images),
        }

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """What is known of each image, from now on where the questions are asked."""
        if self._of["loss"].device != device:
            self._of = {name: value.to(device) for name, value in self._of.items()}
        return self._of

    def count(
        self,
        kind: Literal["queries", "gradients"],
        rows: int,
        index: Tensor | None,
        times: int = 1,
    ) -> None:
        """Take down `rows` questions, asked so many times each."""
        if index is None:
            self._evenly[kind] += times * rows / max(self.images, 1)
            return
        counts = self._on(index.device)[kind]
        counts.index_add_(0, index, counts.new_ones(rows), alpha=times)

    def most(self, kind: Literal["queries", "gradients"]) -> float:
        """The largest number of questions about any image."""
        return self._evenly[kind] + (float(self._of[kind].max()) if self.images else 0.0)

    def total(self, kind: Literal["queries", "gradients"]) -> float:
        """All questions, all images together."""
        return self._evenly[kind] * self.images + float(self._of[kind].sum(dtype=torch.float64))

    def note(self, loss: Tensor, margin: Tensor | None, index: Tensor | None) -> None:
        """Take down the losses that came with a gradient, (n,), and the margins, (n,)."""
        self._pending.append(_Note(loss, margin, index))
        if len(self._pending) >= PENDING:
            self._work_up()

    def first_gradient(self, grad: Tensor, index: Tensor | None) -> None:
        """Note which images have an exactly zero gradient, the first time that each is asked."""
        if self._all_asked or (index is None and len(grad) != self.images):
            return
        of, flat = self._on(grad.device), grad.flatten(1)
        rows = slice(None) if index is None else index
        zero = (flat.amax(1) == 0) & (flat.amin(1) == 0) & ~of["asked"][rows]
        _add(of["zero_gradient"], index, zero)
        of["asked"][rows] = True
        self._all_asked = bool(of["asked"].all())

    def skip(self, rows: Tensor) -> None:
        """Images that the attack leaves as they are: nobody will ask for their gradients."""
        self._on(rows.device)["asked"][rows] = True

    def begin_run(self) -> None:
        """The next gradient is the first of a new run."""
        self.runs.append(len(self._trace) + len(self._means) + len(self._pending))

    @property
    def loss_trace(self) -> list[float]:
        """Mean loss at every gradient; an image that has left the attack counts with its last."""
        self._work_up()
        if self._means:
            self._trace += torch.stack(self._means).tolist()
            self._means.clear()
        return self._trace

    def counts(self) -> dict[str, np.ndarray | None]:
        """Per image, (n,): queries; gradients; zero_gradient, whether the first one was exactly
        zero; fooled_on_the_way, whether a point inside the ball at which a gradient was taken was
        misclassified (by a noisy network: on the average of its draws). The last two are None where
        no gradient was asked for image by image; the last one also of an attack by a library, which
        does not say which point it took a gradient at."""
        self._work_up()
        seen = self._all_asked and self.images > 0
        of = {name: value.cpu().numpy() for name, value in self._of.items()}
        return {
            "queries": of["queries"] + self._evenly["queries"],
            "gradients": of["gradients"] + self._evenly["gradients"],
            "zero_gradient": of["zero_gradient"] > 0 if seen else None,
            "fooled_on_the_way": of["fooled"] > 0 if self._watched and seen else None,
        }

    def _work_up(self) -> None:
        for loss, margin, about in self._pending:
            if about is None and len(loss) != self.images:
                self._means.append(loss.mean())
                continue
            of = self._on(loss.device)
            rows = slice(None) if about is None else about
            if margin is not None:
                _add(of["fooled"], about, margin > 0)
                self._watched = True
            of["loss"][rows] = loss
            self._means.append(of["loss"].mean())
        self._pending.clear()


def _add(counts: Tensor, index: Tensor | None, true: Tensor) -> None:
    """Count for each image the rows about it where `true` holds: in any order the same, where
    several rows are about one image."""
    if index is None:
        counts.add_(true)
    else:
        counts.index_add_(0, index, true.to(counts.dtype))
