"""Training images as the loop asks for them: all in memory as numbers or as bytes, or decoded batch
by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robench.data.base import InBytes, Part
from robench.data.pictures import Pictures


class InFiles:
    """Pictures that stay in their files: of a tensor of images what the training loop uses."""

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        self._pictures, self._device = pictures, device

    def __getitem__(self, items: slice) -> Tensor:
        return torch.from_numpy(self._pictures[items]).to(self._device)

    def index_select(self, _dim: int, items: Tensor) -> Tensor:
        return torch.from_numpy(self._pictures[items.cpu().numpy()]).to(self._device)


class OfBytes:
    """Bytes on the device, which become numbers batch by batch: a quarter of the memory, and the
    same bits as `InBytes.at`."""

    def __init__(self, pixels: np.ndarray, device: torch.device) -> None:
        self._pixels = torch.from_numpy(pixels).to(device)
        # A tensor: a GPU multiplies with the reciprocal of a number, which rounds otherwise.
        self._greatest = torch.tensor(255.0, device=device)

    def __getitem__(self, items: slice) -> Tensor:
        return self._pixels[items].float().div_(self._greatest)

    def index_select(self, dim: int, items: Tensor) -> Tensor:
        return self._pixels.index_select(dim, items).float().div_(self._greatest)


def images_of(part: Part, device: torch.device) -> Tensor | InFiles | OfBytes:
    """(n, c, h, w), float32 in [0, 1], on the device as far as they are in memory."""
    if part.pictures is not None:
        return InFiles(part.pictures, device)
    if isinstance(part, InBytes):
        return OfBytes(part.pixels, device)
    return torch.from_numpy(part.images).to(device)
