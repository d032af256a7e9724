"""A control variate that is learned: what a layer's noise will do to the loss, foreseen from the
output error.

To first order noise moves an image's loss by sigma eps g, where g is the gradient at the layer's
output. Most of the variance of a likelihood-ratio estimate is this term, from all the elements
that are not the one whose weights are asked about. For any f that the noise does not know,

    E[L eps / sigma]  =  E[(L - sigma eps f) eps / sigma] + f,

so that f is subtracted and added again: the estimate stays unbiased, and of its variance |g - f|^2
is left of |g|^2. Here f is linear in the output error, softmax(logits) - onehot(y), of the network
without noise, and is fitted to the estimates of earlier batches. Nothing is differentiated and no
gradient crosses a layer. Feedback learned from node perturbation: Lansdell, Prakash and Kording
(ICLR 2020, arXiv 1906.00889); an expansion to first order as a control variate: MuProp (Gu et al.,
ICLR 2016, arXiv 1511.05176), there by backpropagation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.networks.base import Network
from robench.networks.noise import NoisyLayer, noise, noisy_layers
from robench.trainers.noise_tape import Injection, NoiseTape

MEMORY = 0.99
"""Share of what is known that a batch leaves: the weights move on."""
RIDGE = 1e-3
"""Of the mean diagonal: errors add up to zero over the classes."""

Key = tuple[int, int]
"""Which noisy layer, and which of its injections."""


class Feedback:
    """Foresees the gradient at noisy layers; learns batch by batch."""

    def __init__(self) -> None:
        self._fits: dict[Key, _Fit] = {}
        self._numbers: dict[NoisyLayer, int] = {}

    def look(self, network: Network, x: Tensor, y: Tensor) -> None:
        """Begin a batch. x: images, (n, c, h, w). y: labels, (n,)."""
        with torch.no_grad(), noise(network, None):
            logits = network(x)
        error = logits.softmax(1) - F.one_hot(y, logits.shape[1])
        self._errors = torch.cat([error, torch.ones_like(error[:, :1])], dim=1)
        self._numbers = {layer: number for number, layer in enumerate(noisy_layers(network))}
        self._foreseen: dict[Key, Tensor | None] = {}
        self._estimates: dict[Key, Tensor] = {}

    def _of(self, item: Injection, place: int) -> Tensor | None:
        """f for each image, like one draw of the noise; None: nothing is known yet, or the score
        is a spike's, of which the noise that f foresees is a small part."""
        if item.spike:
            return None
        key = self._numbers[item.layer], place
        if key not in self._foreseen:
            fit = self._fits.get(key)
            self._foreseen[key] = None if fit is None else fit.foreseen(self._errors)
        f = self._foreseen[key]
        return None if f is None else f.view(-1, *item.eps.shape[2:])

    def surprises(self, tape: NoiseTape, losses: Tensor) -> Tensor:
        """Losses, (patterns, draws, images), less what is foreseen of the noise."""
        for queue in tape.kept.values():
            for place, item in enumerate(queue):
                if (f := self._of(item, place)) is not None:
                    f = f * item.layer.sigma
                    moved = torch.einsum("dif,if->di", item.eps.flatten(2), f.flatten(1))
                    shape = (-1, *item.signs.shape, *moved.shape)
                    signed = item.signs[..., None, None] * moved
                    losses = (losses.view(shape) - signed).view_as(losses)
        return losses

    def add_again(
        self,
        tape: NoiseTape,
        vector: Tensor,
        items: tuple[Injection, ...],
        places: tuple[int, ...],
        weights: Tensor,
        share: float,
    ) -> None:
        """Add to a drive's vector what was subtracted from its copies; note what they say.

        Args:
            vector: like the one drive of the `items`, which are at these places of their layer.
            weights: (patterns, draws, images), over copies and images.
            share: of one copy of one image in the mean.
        """
        total = None
        for item, place in zip(items, places, strict=True):
            if item.spike:
                continue
            score = tape.score(item.eps)
            said = torch.einsum("di,dif->if", item.own(weights).sum(0), score.flatten(2))
            said = said.view(-1, *score.shape[2:]) / item.layer.sigma * tape.images
            key = self._numbers[item.layer], place
            before = self._estimates.get(key)
            said = said.flatten(1)
            self._estimates[key] = said if before is None else before + said
            if (f := self._of(item, place)) is not None:
                total = f if total is None else total + f
        if total is not None:
            copies = weights.numel() // len(vector)  # that a row stands for
            vector.view(-1, *total.shape).add_(copies * share * total)

    def learn(self) -> None:
        """End a batch."""
        for key, estimate in self._estimates.items():
            if (f := self._foreseen[key]) is not None:
                estimate = estimate + f
            self._fits.setdefault(key, _Fit(self._errors, estimate)).learn(self._errors, estimate)
        self._numbers.clear()  # it holds layers, which no copy of this needs


class _Fit:
    """Least squares of the gradient at one layer on the output error, later batches first."""

    def __init__(self, errors: Tensor, estimate: Tensor) -> None:
        self.errors = errors.new_zeros(errors.shape[1], errors.shape[1])
        self.products = errors.new_zeros(errors.shape[1], estimate.shape[1])
        self.map = torch.zeros_like(self.products)
        self.agreement = self.size = errors.new_zeros(())

    def foreseen(self, errors: Tensor) -> Tensor:
        # Of a fit to noise little is to be believed: so much as later batches agreed with.
        trust = (self.agreement / self.size.clamp(min=1e-30)).clamp(0, 2)
        return errors @ (trust * self.map)

    def learn(self, errors: Tensor, estimate: Tensor) -> None:
        guess = errors @ self.map
        self.agreement = MEMORY * self.agreement + (guess * estimate).sum()
        self.size = MEMORY * self.size + guess.square().sum()
        self.errors = MEMORY * self.errors + errors.T @ errors
        self.products = MEMORY * self.products + errors.T @ estimate
        ridge = RIDGE * self.errors.diagonal().mean() * torch.eye(len(self.errors)).to(errors)
        self.map = torch.linalg.solve(self.errors + ridge, self.products)
