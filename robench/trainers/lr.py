"""LR: the likelihood ratio method for convolutional, recurrent and graph networks (Jiang et al.,
arXiv 2305.08960).

Noise enters every layer (networks/noise.py) and the estimator (likelihood_ratio.py) turns losses of
noisy copies into gradients; no gradient crosses a layer. Some steps may be taken by backpropagation
instead: a share of all of them, alternating, or the first epochs, after which LR fine-tunes what
backpropagation has found. The BP steps are without noise.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robench.data.base import Part, Splits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.noise import noisy_layers
from robench.trainers.base import Trainer, cross_entropy, to_device
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import Baseline, LayerWise, LikelihoodRatio, Pairing, Score
from robench.trainers.sigma import clamp_sigmas, with_sigma_lr
from robench.trainers.spike_score import need_spikes
from robench.trainers.steps import LastSteps, steps_of


class LR(Trainer):
    """Likelihood ratio with variance reduction, alone or alternating with backpropagation."""

    later: ClassVar[tuple[str, ...]] = ("feedback", "score")
    copies: int | tuple[int, ...] = 100
    """K, noisy forward passes per image. With layer_wise: for each layer, or a list with a number
    for every layer."""
    pairing: Pairing | Literal["auto"] | tuple[Pairing, ...] = "antithetic"
    """Which copies share a draw of the noise; see likelihood_ratio.py. With layer_wise: for all
    layers, or a list with one for every layer. auto: "none" or "antithetic", for every layer
    whichever has less variance on the first batch of each epoch."""
    baseline: Baseline = "leave-one-out"
    layer_wise: LayerWise = False
    """true: noise in one layer at a time, whose weights follow the loss under its own noise alone.
    "conditional": noise in all, of which in turn one layer's varies from copy to copy."""
    quasi: bool = False
    """Noise from scrambled Sobol points; wants baseline = "noise-free"."""
    last_steps: LastSteps = "all"
    """Of a layer that runs at several time steps, only the noise of so many last ones enters: less
    variance, slightly biased."""
    feedback: bool = False
    """Whether what a layer's noise does to the loss is foreseen from the output error, by a linear
    map that is learned from earlier batches, and subtracted: less variance and no bias, see
    feedback.py."""
    score: Score = "noise"
    """spike: neurons that are seen by their spikes alone are scored by the spike, not by the noise:
    less variance and no bias, see spike_score.py."""
    sigma_lr: float = Field(default=1e-3, ge=0)
    """Learning rate of the sigmas, where the network learns them."""
    sigma_range: tuple[float, float] = (0.05, 5.0)
    """Clamp of learned sigmas after each step."""
    bp_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps that are taken by backpropagation, spread evenly."""
    bp_epochs: int = Field(default=0, ge=0)
    """Epochs of backpropagation before the first of LR: fine-tuning of a BP model. At the switch
    the optimiser starts anew."""
    block_rows: int = Field(default=32768, ge=1)
    """Rows (copies x images) computed at a time; fewer take less memory."""
    cosines: tuple[int, ...] = ()
    """Numbers of copies at which the direction of the LR gradient is compared with BP's after each
    epoch, layer by layer, on 100 training images; they are kept with the training curves."""
    noisy = True

    def start_epoch(self, network: Network, epoch: int) -> bool:
        if not network.noisy:
            raise RobenchError(
                f"trainer lr: network {type(network).__name__} has no noisy layers; use mlp, cnn, "
                "rnn, gcn, gat or snn, or a module in robench.noisy"
            )
        if epoch == 0:  # counted over epochs: one may be a single step
            self._step = 0
            self._feedback = Feedback() if self.feedback else None
            if self.score == "spike":
                need_spikes(network)
                if self.pairing == "auto":
                    raise RobenchError(
                        'trainer.pairing = "auto": it measures what the noise\'s score does; with '
                        'trainer.score = "spike" use "none"'
                    )
        self._epoch = epoch
        self._estimator = self._with(self.copies)
        self._measures = self.pairing == "auto"
        return epoch > 0 and epoch == self.bp_epochs

    def _with(self, copies: int | tuple[int, ...]) -> LikelihoodRatio:
        return LikelihoodRatio(
            copies=copies,
            pairing="antithetic" if self.pairing == "auto" else self.pairing,
            baseline=self.baseline,
            layer_wise=self.layer_wise,
            quasi=self.quasi,
            last_steps=steps_of(self.last_steps),
            score=self.score,
            block_rows=self.block_rows,
            chunk_rows=self.block_rows,
        )

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        return with_sigma_lr(network, self.sigma_lr)

    def gradient(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        self._step += 1
        turn = math.floor(self._step * self.bp_share) > math.floor((self._step - 1) * self.bp_share)
        if turn or self._epoch < self.bp_epochs:
            return _backpropagate(network, x, y)
        if self._measures:
            self._estimator = self._estimator.paired(network, x, y, cross_entropy_rows, rng)
            self._measures = False
        return self._estimator.backward(network, x, y, cross_entropy_rows, rng, self._feedback)

    def after_step(self, network: Network) -> None:
        clamp_sigmas(network, *self.sigma_range)

    def measure(self, network: Network, data: Splits) -> dict[str, float]:
        """`cosine/LAYER@COPIES` and `cosine seconds/COPIES`."""
        if not self.cosines:
            return {}
        device = next(network.parameters()).device
        x, y = to_device(Part(data.train.at(slice(100)), data.train.labels[:100]), device)
        before, network.generator = network.generator, torch.Generator(device).manual_seed(0)
        network.zero_grad(set_to_none=True)
        _backpropagate(network, x, y)
        expected = _by_layer(network)
        found: dict[str, float] = {}
        for copies in self.cosines:
            rng = torch.Generator(device).manual_seed(copies)
            started = time.perf_counter()
            settings = replace(self._estimator, copies=copies)
            known = copy.deepcopy(self._feedback)
            settings.backward(network, x, y, cross_entropy_rows, rng, known)
            found[f"cosine seconds/{copies}"] = time.perf_counter() - started
            for layer, (ours, theirs) in enumerate(
                zip(_by_layer(network), expected, strict=True), start=1
            ):
                cosine = float(F.cosine_similarity(ours, theirs, dim=0))
                found[f"cosine/{layer}@{copies}"] = cosine
        network.generator = before
        return found


def _backpropagate(network: Network, x: Tensor, y: Tensor) -> Tensor:
    loss = cross_entropy(network(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _by_layer(network: Network) -> list[Tensor]:
    """The gradient of each noisy layer's op as one vector; the gradients are then forgotten."""
    vectors = [
        torch.cat([_gradient(p).flatten() for p in layer.op.parameters()])
        for layer in noisy_layers(network)
    ]
    network.zero_grad(set_to_none=True)
    return vectors


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
