"""Training images as the loop asks for them: all in memory, or decoded batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.data.base import Part
from robench.data.pictures import Pictures


class InFiles:
    """Pictures that stay in their files: of a tensor of images what the training loop uses."""

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        self._pictures, self._device = pictures, device

    def __getitem__(self, items: slice) -> Tensor:
        return torch.from_numpy(self._pictures[items]).to(self._device)

    def index_select(self, _dim: int, items: Tensor) -> Tensor:
        return torch.from_numpy(self._pictures[items.cpu().numpy()]).to(self._device)


def images_of(part: Part, device: torch.device) -> Tensor | InFiles:
    """(n, c, h, w), float32 in [0, 1], on the device as far as they are in memory."""
    if part.pictures is not None:
        return InFiles(part.pictures, device)
    return torch.from_numpy(part.images).to(device)
