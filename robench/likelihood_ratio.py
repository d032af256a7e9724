"""The likelihood-ratio gradient estimator that GLR, LR and NIT share.

A noisy layer computes v = op(x; theta) + sigma eps. For a per-copy loss L (GLR Eq. 5, NIT Eq. 1):

    dE[L]/dtheta = E[ L * score(eps) / sigma * dop/dtheta ]        Gaussian: score(eps) = eps
    dE[L]/dsigma = E[ L * (eps score(eps) - 1) / sigma ]           Laplace:  score(eps) = sign(eps)

The first line is the vector-Jacobian product of op alone, with its input held fixed. So the network
runs without a graph, every noisy layer keeps the graph of its own op, and one call of
`torch.autograd.backward` on all of them gives the gradient: no gradient crosses a layer, neither
activations nor loss need a derivative, and no layer type needs code of its own.

Copies are rows of the batch, ordered (sign pattern, draw, image). A layer whose input is still one
row per image computes its op once per image; its noise makes the copies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import NoiseSource, NoisyLayer, noise, noisy_layers
from robench.standard_noise import Distribution, NoiseStream

Loss = Callable[[Tensor, Tensor], Tensor]
"""(rows, classes) logits and (rows,) labels -> (rows,) losses. Never differentiated."""

Pairing = Literal["none", "antithetic", "factorial", "hadamard"]
Baseline = Literal["none", "leave-one-out", "noise-free"]

Blocks = list[tuple[int, int | None]]
"""(draws, seed) of blocks: draws that share a random stream and a leave-one-out baseline. On a GPU
all blocks draw from the one generator, and seeds are None."""
ROWS = 2**15
GPU_NUMBERS = 2**25
"""Numbers of the widest layer that a GPU holds at a time: with fewer it would wait for Python."""

NO_CHAIN = (
    'trainer.pairing = "factorial": the layers of this network are no chain (each fed by the one '
    'before alone); use "hadamard" or "antithetic"'
)


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
        quasi: draw eps from scrambled Sobol points. They depend on each other, so that leaving one
            out would bias the estimate.
        sign: NIT-S (Eq. 3): sign(x) sign(eps) for x eps / sigma.
        sign_of_zero: what sign(0) is there. With the paper's 1 a weight whose input is silent moves
            by L sign(eps): the mean loss, which a baseline takes away, and the covariance of the
            loss with the neuron's noise, which it does not.
        layer_wise: noise in one layer at a time (LR), with `copies` for each. A layer's gradient is
            then that of the expected loss under its own noise alone.
        last_steps: of a layer that injects at several time steps, only the last ones enter.
        block_rows: rows (copies x images) that make a block, of at least eight draws. None: 32,768;
            on a GPU more, where all noisy layers are fully connected and share their input.
        chunk_rows: rows held in memory at a time, in whole blocks; None: 32,768, or those of a
            block where they are more. On a CPU it changes nothing but rounding.
    """

    copies: int | tuple[int, ...] = 100
    pairing: Pairing = "antithetic"
    baseline: Baseline = "leave-one-out"
    distribution: Distribution = "gaussian"
    quasi: bool = False
    sign: bool = False
    sign_of_zero: int = 0
    layer_wise: bool = False
    last_steps: int | None = None
    block_rows: int | None = None
    chunk_rows: int | None = None

    def backward(
        self, network: Network, x: Tensor, y: Tensor, loss: Loss, rng: torch.Generator
    ) -> Tensor:
        """Add the gradient of the mean expected loss to .grad of all noisy layers' parameters.

        Args:
            x: images, (n, c, h, w). y: labels, (n,).
            rng: source of the noise, on the device of x.

        Returns the mean noisy loss, a scalar. Raises RobenchError for settings that do not go
        together.
        """
        if self.quasi and self.baseline == "leave-one-out":
            raise RobenchError(
                "trainer.quasi = true: quasi-random draws depend on each other; "
                'set trainer.baseline to "noise-free" or "none"'
            )
        layers = noisy_layers(network)
        each = self.copies if isinstance(self.copies, tuple) else (self.copies,) * len(layers)
        if isinstance(self.copies, int) and not self.layer_wise:
            passes = [(layers, self.copies)]
        elif self.layer_wise and len(each) == len(layers):
            passes = [([layer], copies) for layer, copies in zip(layers, each, strict=True)]
        else:
            raise RobenchError(
                f"trainer.copies = {self.copies}: give one number, or with trainer.layer_wise one "
                f"for each of the {len(layers)} noisy layers"
            )
        losses = [self._estimate(network, *chosen, x, y, loss, rng) for chosen in passes]
        return torch.stack(losses).mean()

    def _estimate(
        self,
        network: Network,
        active: list[NoisyLayer],
        copies: int,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rng: torch.Generator,
    ) -> Tensor:
        """The same for the parameters of the `active` layers."""
        signs = self._signs(network, active, x[:1])
        patterns = 2 ** len(active) if signs is None else len(signs)
        draws, rest = divmod(copies, patterns)
        if rest or not draws:
            near = [str(patterns * number) for number in (draws, draws + 1) if number]
            raise RobenchError(
                f"trainer.copies = {copies}: with trainer.pairing = {self.pairing!r} copies come "
                f"in groups of {patterns}; use {' or '.join(near)}"
            )
        if draws == 1 and self.baseline == "leave-one-out":
            raise RobenchError(
                f"trainer.copies = {copies}: with trainer.pairing = {self.pairing!r} that is one "
                "draw of the noise, which leaves no others for trainer.baseline = "
                f'"leave-one-out" to subtract; use {2 * patterns} copies or more, or "noise-free"'
            )
        block_rows = self.block_rows or _usual_rows(network, x.device)
        chunk_rows = self.chunk_rows or max(ROWS, block_rows)
        count = -(-draws // max(8, block_rows // (patterns * len(x))))
        sizes = [draws // count + (index < draws % count) for index in range(count)]
        seeds: list[int | None] = [None] * count
        if rng.device.type == "cpu":
            seeds = torch.randint(2**62, (count,), generator=rng).tolist()
        blocks = list(zip(sizes, seeds, strict=True))
        at_once = max(1, chunk_rows // (sizes[0] * patterns * len(x)))
        silent = None
        if self.baseline == "noise-free":
            with torch.no_grad(), noise(network, None):
                silent = loss(network(x), y)
        total = torch.zeros((), device=x.device)
        tape = _Tape(self, active, signs, x, rng)
        with torch.no_grad(), noise(network, tape):
            for start in range(0, count, at_once):
                tape.begin(blocks[start : start + at_once])
                shape = (patterns, tape.draws, len(x))
                logits = network(x if network.shares_input else tape.expand(x))
                losses = loss(logits, y.expand(shape).reshape(-1)).view(shape)
                total += losses.sum()
                tape.backward(self._centred(losses, tape.blocks, silent) / (copies * len(x)))
        return total / (copies * len(x))

    def _centred(self, losses: Tensor, blocks: Blocks, silent: Tensor | None) -> Tensor:
        """Losses, (patterns, draws, images), less the baseline."""
        if silent is not None:
            return losses - silent
        if self.baseline == "none":
            return losses
        parts = []
        for part in torch.split(losses, [size for size, _ in blocks], dim=1):
            own = part.mean(0)  # the patterns of a draw share its noise: all of them are left out
            others = (own.sum(0) - own) / max(1, len(own) - 1)
            parts.append(part - others)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _signs(self, network: Network, active: list[NoisyLayer], x: Tensor) -> Tensor | None:
        """Sign patterns, (patterns, injections); None: factorial, whose patterns grow by layer."""
        if self.pairing == "factorial":
            if not network.shares_input:
                raise RobenchError(NO_CHAIN)
            return None
        if self.pairing == "none":
            return x.new_ones(1, 1)
        if self.pairing == "antithetic":
            return _pair(x)
        counter = _Counter(active)
        with torch.no_grad(), noise(network, counter):
            network(x)
        from scipy.linalg import hadamard  # it takes longer to import than all else here

        columns = hadamard(1 << counter.injections.bit_length())[:, 1 : counter.injections + 1]
        signs = torch.as_tensor(columns, dtype=x.dtype, device=x.device)
        return torch.cat([signs, -signs])


@dataclass
class _Injection:
    """One addition of noise, kept for the backward pass."""

    layer: NoisyLayer
    drive: Tensor  # (rows, ...), with the graph of the layer's op
    eps: Tensor  # (draws, images, ...)
    signs: Tensor  # of eps, (own patterns, patterns in the rows of `drive`)


@dataclass
class _Tape(NoiseSource):
    """A noise source that remembers what it drew."""

    settings: LikelihoodRatio
    active: list[NoisyLayer]
    signs: Tensor | None
    x: Tensor
    rng: torch.Generator

    def __post_init__(self) -> None:
        self.images = len(self.x)
        self.pair = _pair(self.x)
        self.laplace = self.settings.distribution == "laplace"

    def begin(self, blocks: Blocks) -> None:
        """Forget what was drawn; draw these blocks next."""
        self.blocks = blocks
        self.draws = sum(size for size, _ in blocks)
        self.streams = [
            (
                size,
                NoiseStream.from_generator(self.rng)
                if seed is None
                else NoiseStream(seed, self.x.device),
            )
            for size, seed in blocks
        ]
        self.kept: dict[NoisyLayer, deque[_Injection]] = {}
        self.injections = 0

    def expand(self, x: Tensor) -> Tensor:
        """x, (images, ...), as one row per copy, for networks that mix the input in later."""
        copies = self.draws * (1 if self.signs is None else len(self.signs))
        return x.repeat(copies, *[1] * (x.dim() - 1))

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(layer in self.active):
            drive: Tensor = layer.op(x.detach())
            if self.settings.sign and drive.requires_grad:
                signed = layer.op(self._signed(x.detach()))
                drive = signed + (drive - signed).detach()  # op's value, the gradient of signed
        return drive

    def _signed(self, x: Tensor) -> Tensor:
        signs = x.sign()
        return signs.masked_fill_(x == 0, 1.0) if self.settings.sign_of_zero else signs

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        if layer not in self.active:
            return drive
        draws = 1 if len(drive) == self.images else self.draws
        base = drive.detach().view(-1, draws, self.images, *drive.shape[1:])
        eps, signs = self._draw(drive), self._next_signs(len(base))
        queue = self.kept.setdefault(layer, deque(maxlen=self.settings.last_steps))
        queue.append(_Injection(layer, drive, eps, signs))
        signed_sigma = signs.view(*signs.shape, *[1] * eps.dim()) * layer.sigma
        noisy = _empty((*signs.shape, self.draws, self.images), drive)
        return torch.addcmul(base, signed_sigma, eps, out=noisy).view(-1, *drive.shape[1:])

    def _next_signs(self, earlier: int) -> Tensor:
        """Signs of the next injection, (own patterns, earlier patterns)."""
        if self.signs is None:
            if earlier == 2 ** len(self.active):
                raise RobenchError(NO_CHAIN)
            return self.pair.expand(2, earlier)
        column = self.signs[:, self.injections % self.signs.shape[1]]
        self.injections += 1
        return column.view(-1, earlier)

    def _draw(self, like: Tensor) -> Tensor:
        """eps, (draws, images, ...): every block from its own stream."""
        parts = []
        for size, stream in self.streams:
            parts.append(_empty((size, self.images), like))
            stream.fill(parts[-1], self.settings.distribution, self.settings.quasi)
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, out=_empty((self.draws, self.images), like))

    def backward(self, weights: Tensor) -> None:
        """Both lines of Eq. 5 / Eq. 1 for all injections. weights: L, (patterns, draws, images)."""
        drives, vectors = [], []
        for layer, queue in self.kept.items():
            # A constant input has one drive for all time steps: one vector for it, too.
            for _, group in groupby(queue, key=lambda item: id(item.drive)):
                items = list(group)
                drive = items[0].drive
                if drive.requires_grad:
                    drives.append(drive)
                    vectors.append(self._vector(items, weights))
            if layer.sigma.requires_grad:
                self._sigma(layer, list(queue), weights)
        torch.autograd.backward(drives, vectors)

    def _vector(self, items: list[_Injection], weights: Tensor) -> Tensor:
        """What op's Jacobian is multiplied with, like the one drive of the `items`: the sum of
        L score(eps) / sigma."""
        drive, sigma = items[0].drive, items[0].layer.sigma
        own, earlier = items[0].signs.shape
        vector: Tensor | None = None
        for item in items:
            # Later layers' patterns are summed out, then the own ones with their signs.
            w = weights.view(-1, own, earlier, self.draws, self.images).sum(0)
            w = (item.signs[..., None, None] * w).sum(0)
            score = item.eps.sign() if self.settings.sign or self.laplace else item.eps
            w = w.view(*w.shape, *[1] * (score.dim() - 2))
            if vector is None:
                vector = torch.mul(w, score, out=_empty((earlier, *score.shape[:2]), drive))
            else:
                vector.addcmul_(w, score)
        assert vector is not None
        if len(drive) == self.images:  # which all copies share
            vector = torch.sum(vector, (0, 1), out=_empty((self.images,), drive))
        if not self.settings.sign:
            vector /= sigma
        return vector.view_as(drive)

    def _sigma(self, layer: NoisyLayer, items: list[_Injection], weights: Tensor) -> None:
        """Add L (eps score(eps) - 1) / sigma to sigma's gradient."""
        moment = torch.zeros_like(items[0].eps)
        for item in items:
            if self.laplace:
                moment += item.eps.abs()
            else:
                moment.addcmul_(item.eps, item.eps)
        w = weights.sum(0).flatten()
        grad = (w @ moment.reshape(len(w), -1) - len(items) * w.sum()).view(moment.shape[2:])
        grad = grad.sum_to_size(layer.sigma.shape) / layer.sigma
        layer.sigma.grad = grad if layer.sigma.grad is None else layer.sigma.grad + grad


@dataclass
class _Counter(NoiseSource):
    """A noise source that adds nothing and counts how often it is asked."""

    active: list[NoisyLayer]
    injections: int = 0

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        self.injections += layer in self.active
        return drive


def _usual_rows(network: Network, device: torch.device) -> int:
    """Rows that make a block where nobody says how many."""
    ops = [layer.op for layer in noisy_layers(network)]
    widths = [op.out_features for op in ops if isinstance(op, nn.Linear)]
    if device.type == "cpu" or len(widths) < len(ops) or network.graph or not network.shares_input:
        return ROWS
    return max(ROWS, GPU_NUMBERS // max(widths))


def _pair(like: Tensor) -> Tensor:
    """Plus and minus one, (2, 1)."""
    pair = like.new_ones(2, 1)
    pair[1] = -1.0
    return pair


def _empty(rows: tuple[int, ...], like: Tensor) -> Tensor:
    """An empty tensor (*rows, ...) for the features of `like`, in the memory order of `like`."""
    if like.dim() == 2 and like.stride(0) < like.stride(1):
        return like.new_empty(like.shape[1], *rows).movedim(0, -1)
    return like.new_empty(*rows, *like.shape[1:])


def cross_entropy_rows(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each row."""
    # Classes first: on a CPU many times faster than along short rows.
    return -logits.t().log_softmax(0).gather(0, y[None]).view(-1)


def zero_one_rows(logits: Tensor, y: Tensor) -> Tensor:
    """1 where the prediction is wrong (GLR prints the opposite; its code and prose mean this)."""
    right = logits.gather(1, y[:, None])[:, 0]
    return (logits.amax(1) > right).to(logits.dtype)
