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

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from scipy.linalg import hadamard
from torch import Tensor

from robench.networks.base import Network
from robench.networks.noise import NoisyLayer, noise, noisy_layers

Loss = Callable[[Tensor, Tensor], Tensor]
"""(rows, classes) logits and (rows,) labels -> (rows,) losses. Never differentiated."""

Pairing = Literal["none", "antithetic", "factorial", "hadamard"]


@dataclass(frozen=True)
class LikelihoodRatio:
    """Settings of the estimator; all of them leave it unbiased except `sign` and `last_steps`.

    Args:
        copies: noisy forward passes per image (K in GLR, C in NIT).
        pairing: how one draw of all noises serves several copies. antithetic: eps and -eps.
            factorial: all sign patterns of the layers, 2^L copies, with forward passes shared up to
            the first layer whose sign differs. hadamard: orthogonal sign patterns and their negatives,
            for networks with many injections (deep, or over time).
        baseline: leave-one-out: from every loss the mean loss of the image's other draws is
            subtracted. noise-free: the loss without noise is.
        distribution: of eps; laplace is the variant of the published GLR scripts.
        quasi: draw eps from scrambled Sobol points through the inverse distribution function, one
            sequence per injection with an own random shift for each image.
        sign: NIT-S (Eq. 3): sign(x) and sign(eps) in the first line. sign(0) is 0 here; where a
            baseline is subtracted, the paper's sign(0) = 1 gives the same sum.
        layer_wise: noise in one layer at a time, `copies` for each.
        last_steps: of a layer that injects at several time steps, only the last ones enter.
        block: draws per baseline group; each block has a random stream of its own.
        chunk_rows: rows (copies x images) held in memory at a time; whole blocks, at least one.
            Changes nothing but rounding.
    """

    copies: int = 100
    pairing: Pairing = "antithetic"
    baseline: Literal["none", "leave-one-out", "noise-free"] = "leave-one-out"
    distribution: Literal["gaussian", "laplace"] = "gaussian"
    quasi: bool = False
    sign: bool = False
    layer_wise: bool = False
    last_steps: int | None = None
    block: int = 128
    chunk_rows: int = 65536

    def backward(
        self, network: Network, x: Tensor, y: Tensor, loss: Loss, rng: torch.Generator
    ) -> float:
        """Add the gradient of the mean expected loss to .grad of all noisy layers' parameters.

        Args:
            x: images, (n, c, h, w). y: labels, (n,).
            rng: source of the noise, on the device of x.

        Returns the mean noisy loss. Raises ValueError when `copies` does not fit `pairing`.
        """
        layers = noisy_layers(network)
        if self.layer_wise:
            losses = [self._estimate(network, [layer], x, y, loss, rng) for layer in layers]
            return sum(losses) / len(losses)
        return self._estimate(network, layers, x, y, loss, rng)

    def _estimate(
        self,
        network: Network,
        active: list[NoisyLayer],
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rng: torch.Generator,
    ) -> float:
        patterns = self._patterns(network, active, x[:1])
        per_draw = 2 ** len(active) if patterns is None else len(patterns)
        draws, rest = divmod(self.copies, per_draw)
        if rest or not draws:
            raise ValueError(f"copies = {self.copies}: {self.pairing} needs a multiple of {per_draw}")
        sizes = [self.block] * (draws // self.block) + [draws % self.block] * bool(draws % self.block)
        if self.baseline == "leave-one-out" and len(sizes) > 1 and sizes[-1] == 1:
            sizes[-2:] = [sizes[-2] + 1]  # a block of one draw has no other draws
        seeds = torch.randint(2**62, (len(sizes),), generator=rng, device=rng.device).tolist()
        per_chunk = max(1, self.chunk_rows // (self.block * per_draw * len(x)))
        floor = self._noise_free(network, x, y, loss) if self.baseline == "noise-free" else None
        total = torch.zeros((), device=x.device)
        for start in range(0, len(sizes), per_chunk):
            blocks = list(zip(sizes, seeds, strict=True))[start : start + per_chunk]
            tape = _Tape(self, active, patterns, blocks, len(x), rng.device)
            with torch.no_grad(), noise(network, tape):
                logits = network(x if network.shares_input else tape.expand(x))
                losses = loss(logits, y.repeat(len(logits) // len(y))).view(-1, tape.draws, len(x))
                total += losses.sum()
                tape.backward(self._centred(losses, blocks, floor) / (self.copies * len(x)))
        return float(total) / (self.copies * len(x))

    def _centred(
        self, losses: Tensor, blocks: list[tuple[int, int]], floor: Tensor | None
    ) -> Tensor:
        """Losses, (patterns, draws, images), less the baseline."""
        if floor is not None:
            return losses - floor
        if self.baseline == "none":
            return losses
        parts = []
        for part in losses.split([size for size, _ in blocks], dim=1):
            m = part.shape[1]
            # Leaving out the own draw: L - (sum - own)/(m - 1), and own pattern mates share it.
            own = part.mean(0, keepdim=True)
            others = (own.sum(1, keepdim=True) - own) / (m - 1) if m > 1 else torch.zeros_like(own)
            parts.append(part - others)
        return torch.cat(parts, dim=1)

    def _noise_free(self, network: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
        with torch.no_grad(), noise(network, None):
            return loss(network(x), y)

    def _patterns(self, network: Network, active: list[NoisyLayer], x: Tensor) -> Tensor | None:
        """Signs, (patterns, injections); None: factorial, whose patterns grow layer by layer."""
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
    signed: Tensor | None  # the op at sign(x), for NIT-S
    eps: Tensor  # (draws, images, ...)
    signs: Tensor | None  # (patterns,); None: factorial
    earlier: int  # patterns in the rows of `drive`, for factorial


@dataclass
class _Tape:
    """A noise source that remembers what it drew."""

    settings: LikelihoodRatio
    active: list[NoisyLayer]
    patterns: Tensor | None
    blocks: list[tuple[int, int]]
    images: int
    device: torch.device
    kept: dict[NoisyLayer, deque[_Injection]] = field(default_factory=dict)
    injections: int = 0
    signed: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generators = [
            torch.Generator(self.device).manual_seed(seed) for _, seed in self.blocks
        ]
        self.draws = sum(size for size, _ in self.blocks)

    def expand(self, x: Tensor) -> Tensor:
        """x, (images, ...), as one row per copy, for networks that mix the input in later."""
        copies = self.draws * (1 if self.patterns is None else len(self.patterns))
        return x.repeat(copies, *[1] * (x.dim() - 1))

    def drive(self, layer: NoisyLayer, x: Tensor) -> Tensor:
        with torch.enable_grad():
            drive: Tensor = layer.op(x.detach())
            if self.settings.sign and layer in self.active:
                self.signed[id(drive)] = layer.op(x.detach().sign())
        return drive

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        if layer not in self.active:
            return drive.detach()
        shape = drive.shape[1:]
        eps = self._draw(tuple(shape))
        shift = layer.sigma * eps
        base = drive.detach().view(-1, self.images, *shape)
        rows = base.shape[0] // self.draws or 1
        if base.shape[0] > 1:
            base = base.view(rows, self.draws, self.images, *shape)
        if self.patterns is None:
            signs = None
            noisy = torch.stack([base + shift, base - shift])
        else:
            column = self.patterns[:, self.injections % self.patterns.shape[1]]
            signs = column
            noisy = base + column.view(-1, *[1] * shift.dim()) * shift
        signed = self.signed.get(id(drive))
        queue = self.kept.setdefault(layer, deque(maxlen=self.settings.last_steps))
        queue.append(_Injection(layer, drive, signed, eps, signs, rows))
        self.injections += 1
        return noisy.reshape(-1, *shape)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        """eps, (draws, images, *shape): every block from its own stream."""
        eps = torch.empty(self.draws, self.images, *shape, device=self.device)
        parts = eps.split([size for size, _ in self.blocks])
        for part, generator in zip(parts, self.generators, strict=True):
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
        roots: dict[int, tuple[Tensor, Tensor]] = {}
        for queue in self.kept.values():
            for item in queue:
                root = item.drive if item.signed is None else item.signed
                grad = self._theta(item, weights)
                held = roots.get(id(root))
                roots[id(root)] = (root, grad if held is None else held[1] + grad)
                if item.layer.sigma.requires_grad:
                    self._sigma(item, weights)
        torch.autograd.backward(
            [root for root, _ in roots.values()], [grad for _, grad in roots.values()]
        )

    def _theta(self, item: _Injection, weights: Tensor) -> Tensor:
        """The vector that op's Jacobian is multiplied with: L score(eps) / sigma, (rows, ...)."""
        if self.settings.sign:
            score = item.eps.sign()
        else:
            score = item.eps if self.settings.distribution == "gaussian" else item.eps.sign()
        shape = item.drive.shape[1:]
        if item.signs is None:  # own sign next to those of earlier layers, later ones summed out
            w = weights.view(-1, 2, item.earlier, self.draws, self.images).sum(0)
            w = w[0] - w[1]
        else:
            w = item.signs.view(-1, 1, 1) * weights
        if len(item.drive) == self.images:  # all copies share the drive
            grad = torch.einsum("mn,mn...->n...", w.sum(0), score)
        else:
            grad = (w.view(*w.shape, *[1] * len(shape)) * score).view(-1, *shape)
        return grad if self.settings.sign else grad / item.layer.sigma

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
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


def zero_one_rows(logits: Tensor, y: Tensor) -> Tensor:
    """1 where the prediction is wrong (GLR prints the opposite; its code and prose mean this)."""
    return (logits.argmax(1) != y).to(logits.dtype)
