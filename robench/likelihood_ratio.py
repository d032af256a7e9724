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
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

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

LayerWise = bool | Literal["conditional"]

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
    """Settings of the estimator. It is an unbiased estimate of the gradient of the mean loss under
    the noise that its copies have, whatever they are, except with `sign` and `last_steps`.

    Args:
        copies: noisy forward passes per image (K in GLR, C in NIT). With `layer_wise`: for each
            layer, or a tuple with a number for every layer.
        pairing: how one draw of all noises serves several copies. antithetic: eps and -eps.
            factorial: all sign patterns of the layers, 2^L copies, with forward passes shared up to
            the first layer whose sign differs; for layers in a chain. hadamard: orthogonal sign
            patterns and their negatives, for many injections (deep, or over time). With
            `layer_wise` one for all layers, or one for each.
        baseline: leave-one-out: from every loss the mean loss of the image's other draws is
            subtracted. noise-free: the loss without noise is.
        distribution: of eps; laplace is the variant of the published GLR scripts.
        quasi: draw eps from scrambled Sobol points. They depend on each other, so that leaving one
            out would bias the estimate.
        sign: NIT-S (Eq. 3): sign(x) sign(eps) for x eps / sigma.
        sign_of_zero: what sign(0) is there. With the paper's 1 a weight whose input is silent moves
            by L sign(eps): the mean loss, which a baseline takes away, and the covariance of the
            loss with the neuron's noise, which it does not.
        layer_wise: the layers in turn (LR), with `copies` for each. True: noise in one of them at a
            time, whose gradient is then that of the expected loss under its own noise alone: of
            another loss for each layer, and of none for the network. "conditional": noise in all,
            of which the layer's own varies from copy to copy and the others' is one draw for an
            image that all its copies share: an unbiased estimate of the gradient under all noise.
        last_steps: of a layer that injects at several time steps, only the last ones enter.
        block_rows: rows (copies x images) that make a block, of at least eight draws. None: 32,768;
            on a GPU more, where all noisy layers are fully connected and share their input.
        chunk_rows: rows held in memory at a time, in whole blocks; None: 32,768, or those of a
            block where they are more. On a CPU it changes nothing but rounding.
    """

    copies: int | tuple[int, ...] = 100
    pairing: Pairing | tuple[Pairing, ...] = "antithetic"
    baseline: Baseline = "leave-one-out"
    distribution: Distribution = "gaussian"
    quasi: bool = False
    sign: bool = False
    sign_of_zero: int = 0
    layer_wise: LayerWise = False
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
        losses = [
            self._estimate(network, *chosen, x, y, loss, rng) for chosen in self._passes(network)
        ]
        return torch.stack(losses).mean()

    def _passes(self, network: Network) -> list[tuple[list[NoisyLayer], int, Pairing]]:
        """(layers whose noise varies, copies, pairing) of each pass."""
        layers = noisy_layers(network)
        each: dict[str, Any] = {"copies": self.copies, "pairing": self.pairing}
        for key, value in each.items():
            if not isinstance(value, tuple):
                each[key] = (value,) * (len(layers) if self.layer_wise else 1)
            elif not self.layer_wise or len(value) != len(layers):
                what = "number" if key == "copies" else "way"
                raise RobenchError(
                    f"trainer.{key} = {value}: give one {what}, or with trainer.layer_wise one "
                    f"for each of the {len(layers)} noisy layers"
                )
        active = [[layer] for layer in layers] if self.layer_wise else [layers]
        return list(zip(active, each["copies"], each["pairing"], strict=True))

    def paired(
        self, network: Network, x: Tensor, y: Tensor, loss: Loss, rng: torch.Generator
    ) -> LikelihoodRatio:
        """The same with "none" or "antithetic" for the pairing of each pass, whichever has less
        variance per copy on this batch: both cost the same.

        Of a loss as a function of the noise, a pair takes the even part away and says the odd part
        twice, where two draws of their own would say it better; leaving one out takes the mean of
        the even part away and leaves what it varies by. For small sigma that is little.
        """
        chosen: list[Pairing] = []
        for active, copies, _ in self._passes(network):
            draws = max(2, min(copies, (self.chunk_rows or ROWS) // len(x)) // 2)
            seed = None
            if rng.device.type == "cpu":
                seed = int(torch.randint(2**62, (), generator=rng))
            tape = _Tape(self, active, _pair(x), x, rng)
            with torch.no_grad():
                silent = self._silent(network, x, y, loss)
                with noise(network, tape):
                    tape.begin([(draws, seed)])
                    up, down = tape.losses(network, y, loss)
            odd, even = (up - down) / 2, (up + down) / 2
            spread = odd.square().mean()
            if self.baseline == "leave-one-out":
                rest = max(2, copies)
                single = (spread + even.var(0).mean()) * rest / (rest - 1)
            else:
                single = spread + (even if silent is None else even - silent).square().mean()
            chosen.append("none" if single < 2 * spread else "antithetic")
        return replace(self, pairing=tuple(chosen) if self.layer_wise else chosen[0])

    def _estimate(
        self,
        network: Network,
        active: list[NoisyLayer],
        copies: int,
        pairing: Pairing,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rng: torch.Generator,
    ) -> Tensor:
        """The same for the parameters of the `active` layers."""
        signs = self._signs(network, active, pairing, x[:1])
        patterns = 2 ** len(active) if signs is None else len(signs)
        draws, rest = divmod(copies, patterns)
        if rest or not draws:
            near = [str(patterns * number) for number in (draws, draws + 1) if number]
            raise RobenchError(
                f"trainer.copies = {copies}: with trainer.pairing = {pairing!r} copies come "
                f"in groups of {patterns}; use {' or '.join(near)}"
            )
        if draws == 1 and self.baseline == "leave-one-out":
            raise RobenchError(
                f"trainer.copies = {copies}: with trainer.pairing = {pairing!r} that is one "
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
        silent = self._silent(network, x, y, loss)
        total = torch.zeros((), device=x.device)
        tape = _Tape(self, active, signs, x, rng)
        with torch.no_grad(), noise(network, tape):
            for start in range(0, count, at_once):
                tape.begin(blocks[start : start + at_once])
                losses = tape.losses(network, y, loss)
                total += losses.sum()
                tape.backward(self._centred(losses, tape.blocks, silent) / (copies * len(x)))
        return total / (copies * len(x))

    def _silent(self, network: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor | None:
        """The loss of every image without noise, where that is what is subtracted."""
        if self.baseline != "noise-free":
            return None
        with torch.no_grad(), noise(network, None):
            return loss(network(x), y)

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

    def _signs(
        self, network: Network, active: list[NoisyLayer], pairing: Pairing, x: Tensor
    ) -> Tensor | None:
        """Sign patterns, (patterns, injections); None: factorial, whose patterns grow by layer."""
        if pairing == "factorial":
            if not network.shares_input:
                raise RobenchError(NO_CHAIN)
            return None
        if pairing == "none":
            return x.new_ones(1, 1)
        if pairing == "antithetic":
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
        self.aside = None
        if self.settings.layer_wise == "conditional":
            self.aside = NoiseStream.from_generator(self.rng)
        self.shared: list[Tensor] = []  # noise of the other layers, the same for all copies

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
        self.injections = self.asides = 0

    def expand(self, x: Tensor) -> Tensor:
        """x, (images, ...), as one row per copy, for networks that mix the input in later."""
        copies = self.draws * (1 if self.signs is None else len(self.signs))
        return x.repeat(copies, *[1] * (x.dim() - 1))

    def losses(self, network: Network, y: Tensor, loss: Loss) -> Tensor:
        """Of the copies that were drawn, (patterns, draws, images)."""
        logits = network(self.x if network.shares_input else self.expand(self.x))
        shape = (-1, self.draws, self.images)
        y = y.expand(len(logits) // self.images, -1).reshape(-1)
        return loss(logits, y).view(shape)

    def drive(self, layer: NoisyLayer, *inputs: Any) -> Tensor:
        inputs = tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs)
        with torch.set_grad_enabled(layer in self.active):
            drive: Tensor = layer.op(*inputs)
            if self.settings.sign and drive.requires_grad:
                signed = layer.op(*map(self._signed, inputs))
                drive = signed + (drive - signed).detach()  # op's value, the gradient of signed
        return drive

    def _signed(self, x: Any) -> Any:
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return x
        signs = x.sign()
        return signs.masked_fill_(x == 0, 1.0) if self.settings.sign_of_zero else signs

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        if layer not in self.active:
            return drive if self.aside is None else self._beside(layer, drive, self.aside)
        if len(drive) % self.images:
            raise RobenchError(
                f"a noisy layer answers {len(drive)} rows to {self.images} images: the first "
                "dimension of what it sees must be images"
            )
        draws = 1 if len(drive) == self.images else self.draws
        base = drive.detach().view(-1, draws, self.images, *drive.shape[1:])
        eps, signs = self._draw(drive), self._next_signs(len(base))
        queue = self.kept.setdefault(layer, deque(maxlen=self.settings.last_steps))
        queue.append(_Injection(layer, drive, eps, signs))
        signed_sigma = signs.view(*signs.shape, *[1] * eps.dim()) * layer.sigma
        noisy = _empty((*signs.shape, self.draws, self.images), drive)
        return torch.addcmul(base, signed_sigma, eps, out=noisy).view(-1, *drive.shape[1:])

    def _beside(self, layer: NoisyLayer, drive: Tensor, stream: NoiseStream) -> Tensor:
        """The drive of another layer, with noise that all copies of an image share."""
        if self.asides == len(self.shared):
            eps = _empty((1, self.images), drive)
            stream.fill(eps, self.settings.distribution, quasi=False)
            self.shared.append(eps)
        eps = self.shared[self.asides]
        self.asides += 1
        base = drive.view(-1, self.images, *drive.shape[1:])
        noisy = _empty((len(base), self.images), drive)
        return torch.addcmul(base, layer.sigma, eps, out=noisy).view(-1, *drive.shape[1:])

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
