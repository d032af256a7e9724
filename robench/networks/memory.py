"""What to do when a device's memory does not hold a batch: the same work in smaller pieces.

Batches are part of what a report means where numbers are drawn for all of a batch together, so the
batch stays as it is. What a network answers to each of its rows does not depend on the others,
unless it draws numbers itself; then rows are asked about in halves, quarters, ... of the batch,
which changes nothing but the rounding of the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from robench.errors import RobenchError

if TYPE_CHECKING:
    from robench.networks.base import Network

Part = TypeVar("Part")
SAID = ("out of memory", "not enough memory", "can't allocate memory", "status_alloc_failed")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the memory of the device or of the machine is used up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in SAID)


def halved(rows: int, together: str, key: str) -> int:
    """Half of `rows`, to be tried next, after memory was given back.

    Args:
        together: why rows cannot be parted; empty: they can.
        key: what the user sets to have fewer at once.

    Raises RobenchError where there is nothing to be halved.
    """
    if together or rows <= 1:
        why = f", and {together}" if together else ""
        raise RobenchError(f"out of memory with {rows} images at once{why}; lower {key}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return (rows + 1) // 2


def in_pieces(
    network: Network,
    ask: Callable[..., Part],
    *batch: Tensor,
    together: str = "",
    key: str = "batch_size in the report card",
    start_anew: Callable[[], None] | None = None,
) -> list[Part]:
    """What `ask` answers about the rows of `batch`: one answer, or one for each piece that fits.

    Args:
        together: why rows cannot be parted, beside a network that draws numbers; empty: they can.
        key: what the user sets to have fewer at once.
        start_anew: where pieces leave something behind, forgets that of those that were done: all
            are then asked about again.

    The size that fits is kept with the network. Raises RobenchError where rows cannot be parted,
    naming the key.
    """
    parts: list[Part] = []
    rows = len(batch[0])
    at_once = min(network.rows_at_once or rows, rows)
    if at_once < rows and (together or network.random_now):
        at_once = rows
    start = 0
    while start < rows or not parts:
        try:
            piece = batch if at_once >= rows else [part[start : start + at_once] for part in batch]
            parts.append(ask(*piece))
            start += at_once
            continue
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        if network.random_now and not together:
            together = "numbers are drawn for all of them together"
        at_once = halved(at_once, together, key)
        network.rows_at_once = at_once
        if start_anew is not None:
            start_anew()
            parts, start = [], 0
    return parts


def joined(parts: list[Tensor]) -> Tensor:
    """The answers about all rows; a single one as it is, whatever it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def whole(network: Network, x: Tensor) -> Tensor:
    """Logits of all rows, in as many pieces as memory needs."""
    return joined(in_pieces(network, network, x))
