"""The likelihood-ratio gradient estimator that GLR, LR and NIT share.

A noisy layer computes v = op(x; theta) + sigma eps. For a per-copy loss L (GLR Eq. 5, NIT Eq. 1):

    dE[L]/dtheta = E[ L * score(eps) / sigma * dop/dtheta ]        score(eps) = eps        (Gaussian)
    dE[L]/dsigma = E[ L * scale_score(eps) / sigma ]               scale_score = eps^2 - 1

The first line is the vector-Jacobian product of op alone, with its input held fixed. So the network
runs once without a graph, every noisy layer keeps the graph of its own op, and one call of
`torch.autograd.backward` on all of them gives the gradient: no gradient crosses a layer, neither the
activations nor the loss need a derivative, and no layer type needs code of its own.

Copies are rows of the batch, ordered (sign pattern, draw, image). A layer whose input is still one row
per image computes its op once per image; its noise makes the copies.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from scipy.linalg import hadamard
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import NoisyLayer, noise, noisy_layers

Loss = Callable[[Tensor, Tensor], Tensor]
"""(rows, classes) logits and (rows,) labels -> (rows,) losses. Never differentiated."""

Pairing = Literal["none", "antithetic", "factorial", "hadamard"]
Baseline = Literal["none", "leave-one-out", "noise-free"]
Distribution = Literal["gaussian", "laplace"]
LayerWise = Literal["no", "yes", "alone"]

Blocks = list[tuple[int, int]]
"""(draws, seed) of each block of draws."""


@dataclass(frozen=True)
class LikelihoodRatio:
    """Settings of the estimator; all of them leave it unbiased except `sign` and `last_steps`.

    Args:
        copies: noisy forward passes per image (K in GLR, C in NIT). With `layer_wise`: for each
            layer, or a tuple with a number for every layer.
        pairing: how one draw of all noises serves several copies. antithetic: eps and -eps.
            factorial: all sign patterns of the layers, 2^L copies, with forward passes shared up to
            the first layer whose sign differs; for layers in a chain. hadamard: orthogonal sign
            patterns and their negatives, for many injections (deep, or over time).
        baseline: leave-one-out: from every loss the mean loss of the image's other draws is
            subtracted. noise-free: the loss without noise is.
        distribution: of eps; laplace is the variant of the published GLR scripts.
        quasi: draw eps from scrambled Sobol points through the inverse distribution function. They
            depend on each other, so the leave-one-out baseline would bias them.
        sign: NIT-S (Eq. 3): sign(x) and sign(eps) in the first line. sign(0) is 0 here; where a
            baseline is subtracted, the paper's sign(0) = 1 gives the same sum.
        layer_wise: yes: `copies` for one layer at a time. They share one draw of the noise that
            enters before it. alone (LR): the other layers have no noise then, so that a layer's
            gradient is that of the loss under its own noise.
        last_steps: of a layer that injects at several time steps, only the last ones enter.
        block: draws per baseline group (to twice as many); each block has an own random stream.
        chunk_rows: rows (copies x images) held in memory at a time; whole blocks, at least one.
            Changes nothing but rounding.
    """

    copies: int | tuple[int, ...] = 100
    pairing: Pairing = "antithetic"
    baseline: Baseline = "leave-one-out"
    distribution: Distribution = "gaussian"
    quasi: bool = False
    sign: bool = False
    layer_wise: LayerWise = "no"
    last_steps: int | None = None
    block: int = 128
    chunk_rows: int = 16384

    def backward(
        self, network: Network, x: Tensor, y: Tensor, loss: Loss, rng: torch.Generator
    ) -> float:
        """Add the gradient of the mean expected loss to .grad of all noisy layers' parameters.

        Args:
            x: images, (n, c, h, w). y: labels, (n,).
            rng: source of the noise, on the device of x.

        Returns the mean noisy loss. Raises RobenchError for settings that do not go together.
        """
        if self.quasi and self.baseline == "leave-one-out":
            raise RobenchError(
                'trainer.quasi = true: quasi-random draws depend on each other; set trainer.baseline to "noise-free" or "none"'
            )
        layers = noisy_layers(network)
        if self.layer_wise == "no":
            if isinstance(self.copies, tuple):
                raise RobenchError(f"trainer.copies = {self.copies}: say one number, or set trainer.layer_wise")
            return self._estimate(network, layers, self.copies, x, y, loss, rng)
        copies = self.copies if isinstance(self.copies, tuple) else (self.copies,) * len(layers)
        if len(copies) != len(layers):
            raise RobenchError(f"trainer.copies = {copies}: the network has {len(layers)} noisy layers")
        losses = [
            self._estimate(network, [layer], count, x, y, loss, rng)
            for layer, count in zip(layers, copies, strict=True)
        ]
        return sum(losses) / len(losses)

    def _estimate(
        self,
        network: Network,
        active: list[NoisyLayer],
        copies: int,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rng: torch.Generator,
    ) -> float:
        signs = self._signs(network, active, x[:1])
        per_draw = 2 ** len(active) if signs is None else len(signs)
        draws, rest = divmod(copies, per_draw)
        if rest or not draws:
            raise RobenchError(
                f"trainer.copies = {copies}: pairing = {self.pairing!r} makes copies in groups of {per_draw} here; "
                f"use {per_draw * max(1, draws)} or {per_draw * (draws + 1)}"
            )
        count = max(1, draws // self.block)
        sizes = [draws // count + (index < draws % count) for index in range(count)]
        common, *seeds = torch.randint(2**62, (count + 1,), generator=rng, device=rng.device).tolist()
        blocks = list(zip(sizes, seeds, strict=True))
        at_once = max(1, self.chunk_rows // (sizes[0] * per_draw * len(x)))
        silent = self._noise_free(network, x, y, loss) if self.baseline == "noise-free" else None
        total = torch.zeros((), device=x.device)
        for start in range(0, count, at_once):
            tape = _Tape(self, active, signs, blocks[start : start + at_once], common, x)
            with torch.no_grad(), noise(network, tape):
                logits = network(x if network.shares_input else tape.expand(x))
                rows = per_draw * tape.draws
                if len(logits) != rows * len(x):
                    raise RobenchError(
                        f"trainer.pairing = {self.pairing!r}: needs layers in a chain; use antithetic or hadamard"
                    )
                losses = loss(logits, y.repeat(rows)).view(per_draw, tape.draws, len(x))
                total += losses.sum()
                tape.backward(self._centred(losses, tape.blocks, silent) / (copies * len(x)))
        return float(total) / (copies * len(x))

    def _centred(self, losses: Tensor, blocks: Blocks, silent: Tensor | None) -> Tensor:
        """Losses, (patterns, draws, images), less the baseline."""
        if silent is not None:
            return losses - silent
        if self.baseline == "none":
            return losses
        parts = []
        for part in losses.split([size for size, _ in blocks], dim=1):
            # The patterns of a draw share its noise, so all of them are left out.
            own = part.mean(0)
            others = (own.sum(0) - own) / max(1, len(own) - 1)
            parts.append(part - others)
        return torch.cat(parts, dim=1)

    def _noise_free(self, network: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        with torch.no_grad(), noise(network, None):
            return loss(network(x), y)

    def _signs(self, network: Network, active: list[NoisyLayer], x: Tensor) -> Tensor | None:
        """Sign patterns, (patterns, injections); None: factorial, whose patterns grow by layer."""
        if self.pairing == "factorial":
            return None
        if self.pairing == "none":
            return torch.ones(1, 1, device=x.device)
        if self.pairing == "antithetic":
            return torch.tensor([[1.0], [-1.0]], device=x.device)
        counter = _Counter(active)
        with torch.no_grad(), noise(network, counter):
            network(x)
        columns = hadamard(1 << counter.injections.bit_length())[:, 1 : counter.injections + 1]
        signs = torch.as_tensor(columns, dtype=torch.float32, device=x.device)
        return torch.cat([signs, -signs])


@dataclass
class _Injection:
    """One addition of noise, kept for the backward pass."""

    layer: NoisyLayer
    drive: Tensor  # with the graph of the layer's op
    eps: Tensor  # (draws, images, ...)
    signs: Tensor  # (own patterns, patterns in the rows of `drive`)


@dataclass
class _Tape:
    """A noise source that remembers what it drew."""

    settings: LikelihoodRatio
    active: list[NoisyLayer]
    signs: Tensor | None
    blocks: Blocks
    common: int  # seed of noise that all copies share
    x: Tensor
    kept: dict[NoisyLayer, deque[_Injection]] = field(default_factory=dict)
    injections: int = 0

    def __post_init__(self) -> None:
        device = self.x.device
        self.images = len(self.x)
        self.draws = sum(size for size, _ in self.blocks)
        self.streams = [
            (size, torch.Generator(device).manual_seed(seed)) for size, seed in self.blocks
        ]
        self.shared_stream = [(1, torch.Generator(device).manual_seed(self.common))]

    def expand(self, x: Tensor) -> Tensor:
        """x, (images, ...), as one row per copy, for networks that mix the input in later."""
        copies = self.draws * (1 if self.signs is None else len(self.signs))
        return x.repeat(copies, *[1] * (x.dim() - 1))

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(layer in self.active):
            drive: Tensor = layer.op(x.detach())
            if self.settings.sign and layer in self.active:
                signed = layer.op(x.detach().sign())  # has the gradient, drive the value
                drive = signed + (drive - signed).detach()
        return drive

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        shape = drive.shape[1:]
        shared = len(drive) == self.images
        base = drive.detach().view(-1, 1 if shared else self.draws, self.images, *shape)
        if layer in self.active:
            eps = self._draw(self.streams, drive)
            if self.signs is None:
                signs = drive.new_tensor([[1.0], [-1.0]]).expand(2, len(base))
            else:
                column = self.signs[:, self.injections % self.signs.shape[1]]
                signs = column.view(-1, len(base))
            queue = self.kept.setdefault(layer, deque(maxlen=self.settings.last_steps))
            queue.append(_Injection(layer, drive, eps, signs))
            self.injections += 1
        elif self.settings.layer_wise == "alone":
            return drive
        else:
            eps = self._draw(self.shared_stream if shared else self.streams, drive)
            signs = torch.ones(1, 1, device=drive.device)
        signs = signs.view(*signs.shape, *[1] * eps.dim())
        return torch.addcmul(base, signs, layer.sigma.detach() * eps).view(-1, *shape)

    def _draw(self, streams: list[tuple[int, torch.Generator]], like: Tensor) -> Tensor:
        """eps, (draws, images, ...): every block from its own stream."""
        sizes = [size for size, _ in streams]
        eps = like.new_empty(sum(sizes), self.images, *like.shape[1:])
        for part, (_, generator) in zip(eps.split(sizes), streams, strict=True):
            if self.settings.quasi:
                _sobol(part, generator)
            elif self.settings.distribution == "gaussian":
                part.normal_(generator=generator)
                continue
            else:
                part.uniform_(generator=generator)
            uniform = part.clamp_(1e-7, 1 - 1e-7)
            if self.settings.distribution == "gaussian":
                part.copy_(torch.special.ndtri(uniform))
            else:
                half = uniform - 0.5
                part.copy_(-half.sign() * torch.log1p(-2 * half.abs()))
        return eps

    def backward(self, weights: Tensor) -> None:
        """Local vector-Jacobian products of all injections. weights: (patterns, draws, images)."""
        items = [item for queue in self.kept.values() for item in queue]
        learned = [item for item in items if item.drive.requires_grad]
        torch.autograd.backward(
            [item.drive for item in learned], [self._theta(item, weights) for item in learned]
        )
        for item in items:
            if item.layer.sigma.requires_grad:
                self._sigma(item, weights)

    def _theta(self, item: _Injection, weights: Tensor) -> Tensor:
        """The vector that op's Jacobian is multiplied with: L score(eps) / sigma, like `drive`."""
        signs = item.signs[..., None, None]
        w = weights.view(-1, signs.numel(), self.draws, self.images).sum(0)
        w = (signs * w.view(*signs.shape[:2], *w.shape[1:])).sum(0)
        gaussian = self.settings.distribution == "gaussian" and not self.settings.sign
        score = item.eps if gaussian else item.eps.sign()
        vector = w.view(*w.shape, *[1] * (score.dim() - 2)) * score
        if len(item.drive) == self.images:  # all copies share it
            vector = vector.sum((0, 1))
        if not self.settings.sign:
            vector = vector.div_(item.layer.sigma.detach())
        return vector.view_as(item.drive)

    def _sigma(self, item: _Injection, weights: Tensor) -> None:
        sigma = item.layer.sigma
        gaussian = self.settings.distribution == "gaussian"
        score = (item.eps.square() if gaussian else item.eps.abs()) - 1
        grad = torch.einsum("mn,mn...->...", weights.sum(0), score).sum_to_size(sigma.shape) / sigma
        sigma.grad = grad.detach() if sigma.grad is None else sigma.grad + grad.detach()


@dataclass
class _Counter:
    """A noise source that adds nothing and counts how often it is asked."""

    active: list[NoisyLayer]
    injections: int = 0

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        driven: Tensor = layer.op(x)
        return driven

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        self.injections += layer in self.active
        return drive


def _sobol(part: Tensor, generator: torch.Generator) -> None:
    """Fill (draws, images, ...) with scrambled Sobol points, shifted at random for each image.

    torch's Sobol sequence stops at 21,201 dimensions: beyond it, a fresh sequence per block of them.
    """
    draws, images = part.shape[:2]
    flat = part.view(draws, images, -1)
    for columns in flat.split(torch.quasirandom.SobolEngine.MAXDIM, dim=2):
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        engine = torch.quasirandom.SobolEngine(columns.shape[2], scramble=True, seed=seed)
        points = engine.draw(draws).to(part.device)[:, None]
        shift = torch.rand(columns.shape[1:], generator=generator, device=part.device)
        columns.copy_((points + shift) % 1)


def cross_entropy_rows(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each row."""
    # Along the first dimension: many times faster on a CPU when there are few classes.
    return -logits.t().log_softmax(0).gather(0, y[None])[0]


def zero_one_rows(logits: Tensor, y: Tensor) -> Tensor:
    """1 where the prediction is wrong (GLR prints the opposite; its code and prose mean this)."""
    right = logits.gather(1, y[:, None])[:, 0]
    return (logits.amax(1) > right).to(logits.dtype)
