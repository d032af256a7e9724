"""Answers that are no numbers: NaN, infinities, an exception. Whoever gets none has been fooled.

A network that raises for one image of a batch still answers about the others: they are asked again
in halves, and rows without an answer are NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network, all_finite, check_shape
from robench.networks.memory import ran_out

NONE = -1
"""What is predicted where there is no answer: a class that no image has."""
LOST = 100.0
"""Loss, and margin, of an image about which there is no answer."""


def asked(
    network: Network,
    x: Tensor,
    ask: Callable[[Tensor], Tensor] | None = None,
    known: bool = False,
) -> Tensor:
    """Logits, (n, classes), with NaN in the rows of images for which the network raises.

    Args:
        ask: what is called in its place, such as one of its methods.
        known: whether the network is known to answer about other images.

    Raises what the network raised where it does for every image and is not `known`, and
    RobenchError where its answer has another shape.
    """
    answers, raised = _asked(network, x, ask or network)
    if raised is not None and not known and all(answer is None for answer in answers):
        raise raised
    if len(answers) == 1 and answers[0] is not None:
        return answers[0]
    gap = torch.full((1, network.classes), torch.nan, device=x.device)
    parts = [gap if answer is None else answer for answer in answers]
    return torch.cat(parts) if parts else x.new_zeros((0, network.classes))


def _asked(
    network: Network, x: Tensor, ask: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor | None], Exception | None]:
    """Answers about consecutive rows, None for a single row that raises, and the first error."""
    try:
        logits = ask(x)
    except RobenchError:
        raise
    except Exception as error:  # whatever a stranger's network raises
        if ran_out(error):
            raise
        if len(x) <= 1:
            return [None] * len(x), error
        half = len(x) // 2
        left, first = _asked(network, x[:half], ask)
        right, second = _asked(network, x[half:], ask)
        return left + right, first or second
    check_shape(logits, len(x), network.classes)
    return [logits], None


def without_a_number(logits: Tensor) -> Tensor | None:
    """Which rows, (n,), hold something that is no number; None: none does."""
    if all_finite(logits):
        return None
    return ~torch.isfinite(logits).all(-1)
