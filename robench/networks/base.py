"""What a network is to robench: a torch module that maps images to logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robench.data.base import Sliced
from robench.data.graph import Graph
from robench.errors import RobenchError
from robench.networks.noise import NoisyLayer
from robench.plugin_code.watched_weights import Original
from robench.workspace.plugins import Plugin


class Network(nn.Module, Plugin):
    """Images to logits. Subclasses declare fields and make their layers in `build`.

    Args:
        input_shape: (c, h, w) of one image.
        classes: number of logits.
        graph: where the items are nodes, what is around them (data/graph.py).
        settings: the declared fields, as a card sets them.

    A network is a function of its input: it keeps no state between calls. What is random in it is
    drawn from the noise source (networks/noise.py) or from `self.generator`.
    """

    standardise: Literal["none", "channel", "pixel"] = "none"
    """What the network does first: channel: from every channel its mean over the training images is
    taken, and what is left divided by its standard deviation; pixel: likewise, but each pixel's own
    mean is taken. Part of the network: eps stays in pixels, and attacks and proofs see through it.
    """

    later: ClassVar[tuple[str, ...]] = ("standardise",)
    shares_input: ClassVar[bool] = True
    """Whether the first noisy layer may see one row per image where later ones see one per copy;
    false for networks that add the input to something noisy later on."""

    recordable: ClassVar[bool] = False
    """Whether a GPU may replay a recorded pass (replay.py): `forward` then decides nothing by a
    tensor's values or by attributes that change in use, and copies nothing to or from the host. Not
    inherited."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        graph: Graph | None = None,
        **settings: Any,
    ) -> None:
        nn.Module.__init__(self)
        Plugin.__init__(self, **settings)
        self.input_shape = input_shape
        self.classes = classes
        self.graph = graph
        self.generator: torch.Generator | None = None
        self.rows_at_once: int | None = None  # what memory.py found to fit
        self.originals: Mapping[str, Original] = {}  # of weights that others hold, too
        self.build()
        if self.standardise != "none":
            self._standardise()

    def _standardise(self) -> None:
        """Make room for what `learn_input` finds. Raises RobenchError where pixels are no
        quantities."""
        if self.graph is not None or getattr(self, "encoding", "direct") != "direct":
            what = "nodes of a graph" if self.graph is not None else "spikes"
            raise RobenchError(
                f"network.standardise = {self.standardise!r}: its pixels are {what}, not "
                'intensities; leave it at "none"'
            )
        channels = (self.input_shape[0], 1, 1)
        shape = self.input_shape if self.standardise == "pixel" else channels
        self.register_buffer("input_mean", torch.zeros(shape))
        self.register_buffer("input_std", torch.ones(channels))

    def learn_input(self, images: np.ndarray[Any, Any] | Sliced) -> None:
        """Measure means and standard deviations where `standardise` wants them, before training.

        Args:
            images: those of the training set, (n, c, h, w).
        """
        if self.standardise == "none":
            return
        mean, square = np.zeros(self.input_shape), np.zeros(self.input_shape)
        for start in range(0, len(images), 256):  # in double precision, whatever their number
            part = np.asarray(images[start : start + 256], dtype=np.float64)
            mean += part.sum(0) / len(images)
            square += np.square(part).sum(0) / len(images)
        pixels = (1, 2)
        if self.standardise == "channel":
            mean = mean.mean(pixels, keepdims=True)
        variance = (square - np.square(mean)).mean(pixels, keepdims=True)
        std = np.sqrt(np.maximum(variance, 0))
        std[std < FLAT] = 1.0  # a channel that never changes
        for name, value in (("input_mean", mean), ("input_std", std)):
            self.get_buffer(name).copy_(torch.from_numpy(value))

    def standardised(self, x: Tensor) -> Tensor:
        """What the layers see of images x. `__call__` hands that to `forward`; a subclass that
        answers in other methods without it asks here."""
        if self.standardise == "none":
            return x
        return (x - self.get_buffer("input_mean")) / self.get_buffer("input_std")

    def build(self) -> None:
        """Make the layers. Initial weights come from torch's default generator, which the framework
        seeds and restores around construction."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is built")

    @property
    def random_input(self) -> bool:
        """Whether the network draws numbers even when the noise of its layers is off."""
        return False

    @property
    def noisy(self) -> bool:
        """Whether the network has noisy layers at all."""
        return any(isinstance(module, NoisyLayer) for module in self.modules())

    @property
    def random_now(self) -> bool:
        """Whether an answer draws numbers as things stand, for all rows of a call together."""
        return self.random_input or any(
            getattr(module, "source", None) is not None for module in self.modules()
        )

    @property
    def replays(self) -> bool:
        """Whether passes may be recorded as things stand: a subclass says so for itself, and a hook
        would not be called again."""
        hooked = any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in self.modules()
        )
        return bool(vars(type(self)).get("recordable", False)) and not hooked

    def known_from(self, other: Network) -> None:
        """What was found out by asking another copy from the same bytes holds for this one, too."""
        self.rows_at_once, self.originals = other.rows_at_once, other.originals

    def notes(self, images: Tensor) -> tuple[str, ...]:
        """What people should know of the network, on its page; it may look at some images, (n, c,
        h, w)."""
        return ()

    def ties(self, logits: Tensor) -> Tensor:
        """Whether the two highest outputs of each row tie before any tie-break, (n,) bool."""
        top = logits.topk(2, dim=1).values
        return top[:, 0] == top[:, 1]

    def readings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and what an attacker may differentiate in their place: its argmax is the
        prediction, too, but no last jump hides the gradient. Here it is the logits themselves."""
        logits = self(x)
        return logits, logits

    @property
    def lends(self) -> bool:
        """Whether `readings` may add to the logits' gradient that of potentials (`lent`)."""
        return False

    def activity(self, x: Tensor) -> dict[str, float]:
        """What the network can say of itself on images `x`, for people: spike rates, for
        example."""
        return {}

    def __call__(self, x: Tensor) -> Tensor:
        """Logits. x: images, (n, c, h, w), float32 in [0, 1] -> (n, classes), float32, whatever
        the network computes in."""
        logits: Tensor = super().__call__(self.standardised(x))
        if isinstance(logits, Tensor) and logits.dtype != torch.float32:
            logits = logits.float()
        return logits


def lent(logits: Tensor, potential: Tensor) -> Tensor:
    """The logits, whose gradient is their own and that of the potential behind them. Counts of
    spikes say which class leads and the potential which spike comes next; an attack that follows
    one of the two breaks less than one that follows both. LENDING is raised when this changes."""
    return logits + (potential - potential.detach())


FLAT = 1e-6
"""A standard deviation below it is none."""
LENDING = 1
"""Part of the identity of networks that lend."""


def check_shape(logits: Tensor, rows: int, classes: int) -> None:
    """Raises RobenchError when a network's answer is not one row of logits for each image."""
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (rows, classes):
        answer = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise RobenchError(
            f"the network answers {answer} where logits {(rows, classes)} are expected"
        )


def all_finite(*values: Tensor) -> bool:
    """Whether all of them are finite numbers: if so, then mostly their sum is, in a tenth of the
    time."""
    sums = [part.sum() for part in values]
    return math.isfinite(sum(sums[1:], sums[0])) or all(
        bool(torch.isfinite(part).all()) for part in values
    )


def check_finite(what: str, *answers: Tensor) -> None:
    """Raises RobenchError when any of a network's answers is not a finite number."""
    if not all_finite(*answers):
        raise RobenchError(f"the network answers NaN or infinite {what}")
