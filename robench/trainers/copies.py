"""Noisy copies of images as rows of a batch: how many are drawn from one stream, how many memory
holds at a time, and how they lie in it.

Copies are ordered (sign pattern, draw, image). A block is draws that share a random stream and a
leave-one-out baseline; a chunk is the blocks whose rows are held at once. Blocks decide what is
drawn, chunks only what it takes. On a GPU all blocks draw from the one generator: a number that
the host has to wait for costs more than all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.noise import noisy_layers
from robench.networks.standard_noise import NoiseStream

ROWS = 2**15
GPU_NUMBERS = 2**25
"""Numbers of the widest layer that a GPU holds at a time: with fewer it would wait for Python."""
LEAST_DRAWS = 8
"""Of a block: with fewer its leave-one-out baseline is a poor mean."""


@dataclass(frozen=True)
class Block:
    """Draws of the noise from one stream. seed: None on a GPU."""

    draws: int
    seed: int | None

    def stream(self, rng: torch.Generator, device: torch.device) -> NoiseStream:
        if self.seed is None:
            return NoiseStream.from_generator(rng)
        return NoiseStream(self.seed, device)


def blocks(draws: int, rows_per_draw: int, block_rows: int, rng: torch.Generator) -> list[Block]:
    """So many draws in blocks of about `block_rows` rows, as even as they can be."""
    count = -(-draws // max(LEAST_DRAWS, block_rows // rows_per_draw))
    sizes = [draws // count + (index < draws % count) for index in range(count)]
    seeds: list[int | None] = [None] * count
    if rng.device.type == "cpu":
        seeds = torch.randint(2**62, (count,), generator=rng).tolist()
    return [Block(size, seed) for size, seed in zip(sizes, seeds, strict=True)]


def chunks(all_blocks: list[Block], rows_per_draw: int, chunk_rows: int) -> Iterator[list[Block]]:
    """The blocks that are held at once, one list after the other."""
    at_once = max(1, chunk_rows // (all_blocks[0].draws * rows_per_draw))
    for start in range(0, len(all_blocks), at_once):
        yield all_blocks[start : start + at_once]


def usual_rows(network: Network, device: torch.device) -> int:
    """Rows that make a block where nobody says how many."""
    ops = [layer.op for layer in noisy_layers(network)]
    widths = [op.out_features for op in ops if isinstance(op, nn.Linear)]
    if device.type == "cpu" or len(widths) < len(ops) or network.graph or not network.shares_input:
        return ROWS
    return max(ROWS, GPU_NUMBERS // max(widths))


def empty(rows: tuple[int, ...], like: Tensor) -> Tensor:
    """An empty tensor (*rows, ...) for the features of `like`, in the memory order of `like`."""
    if like.dim() == 2 and like.stride(0) < like.stride(1):
        return like.new_empty(like.shape[1], *rows).movedim(0, -1)
    return like.new_empty(*rows, *like.shape[1:])
