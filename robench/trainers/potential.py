"""A loss on the membrane potential of spiking outputs, which STBP and NIT may minimise.

A loss on the spikes themselves has two faults: cross-entropy of 0/1 outputs is bounded (softmax
never exceeds e / (e + 9) for ten classes), and an output neuron that stays silent gets no signal
to fire: with NIT, two to four classes of Fashion-MNIST are then never predicted. The potential at
the last step ranks the classes, and its distance to the threshold says who should have fired:

    L = CE(u, y) + 1/2 sum_j BCE(sigmoid(2 (u_j - Vth)), [j = y])

The network is read out by spikes again when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.nn import functional as F

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.snn import SNN
from robench.networks.torch_state import swapped

SLOPE, WEIGHT = 2.0, 0.5


@contextmanager
def potentials(network: Network) -> Iterator[float]:
    """Let a spiking network answer with its output potentials inside the block; gives Vth.

    Raises RobenchError for a network without membrane potentials.
    """
    if not isinstance(network, SNN):
        raise RobenchError(
            f'trainer.criterion = "potential": network {type(network).__name__} has no membrane '
            'potentials; use "cross-entropy"'
        )
    with swapped([network], readout="membrane"):
        yield network.threshold


def potential_rows(u: Tensor, y: Tensor, threshold: float) -> Tensor:
    """The loss above for each row. u: (n, classes) potentials; y: (n,) labels -> (n,)."""
    fired = F.binary_cross_entropy_with_logits(
        SLOPE * (u - threshold), F.one_hot(y, u.shape[1]).to(u.dtype), reduction="none"
    )
    return cross_entropy_rows(u, y) + WEIGHT * fired.sum(1)
