"""The likelihood-ratio gradient estimator that GLR, LR and NIT share.

A noisy layer computes v = op(x; theta) + sigma eps. For a per-copy loss L (GLR Eq. 5, NIT Eq. 1):

    dE[L]/dtheta = E[ L * score(eps) / sigma * dop/dtheta ]        Gaussian: score(eps) = eps
    dE[L]/dsigma = E[ L * (eps score(eps) - 1) / sigma ]           Laplace:  score(eps) = sign(eps)

The first line is the vector-Jacobian product of op alone, with its input held fixed. So the network
runs without a graph, every noisy layer keeps the graph of its own op, and one call of
`torch.autograd.backward` on all of them gives the gradient: no gradient crosses a layer, neither
activations nor loss need a derivative, and no layer type needs code of its own.

What to read: `_estimate` is one pass, `_surprise` and `_centred` are what is subtracted from L, and
`_vector` and `_sigma` are the two lines. The noise is drawn and kept in noise_tape.py, how many
copies share a stream and fit into memory is said in copies.py, what is foreseen of the noise is
learned in feedback.py, and what a spike says of it is in spike_score.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import NoisyLayer, noise, noisy_layers
from robench.networks.standard_noise import Distribution
from robench.trainers.copies import ROWS, Block, blocks, chunks, empty, usual_rows
from robench.trainers.feedback import Feedback
from robench.trainers.noise_tape import NO_CHAIN, Counter, Injection, NoiseTape, pair

Loss = Callable[[Tensor, Tensor], Tensor]
"""(rows, classes) logits and (rows,) labels -> (rows,) losses. Never differentiated."""

Pairing = Literal["none", "antithetic", "factorial", "hadamard"]
Baseline = Literal["none", "leave-one-out", "noise-free"]

LayerWise = bool | Literal["conditional"]

Score = Literal["noise", "spike"]


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
        score: "spike": where the network sees of a layer's value no more than a spike, what enters
            is not eps but what the spike says of it, E[eps | spike]: spike_score.py. Of several
            time steps that is the last one.
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
    score: Score = "noise"
    block_rows: int | None = None
    chunk_rows: int | None = None

    def backward(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        loss: Loss,
        rng: torch.Generator,
        feedback: Feedback | None = None,
    ) -> Tensor:
        """Add the gradient of the mean expected loss to .grad of all noisy layers' parameters.

        Args:
            x: images, (n, c, h, w). y: labels, (n,).
            rng: source of the noise, on the device of x.
            feedback: what earlier batches said of the noise; learns from this one.

        Returns the mean noisy loss, a scalar. Raises RobenchError for settings that do not go
        together.
        """
        if self.quasi and self.baseline == "leave-one-out":
            raise RobenchError(
                "trainer.quasi = true: quasi-random draws depend on each other; "
                'set trainer.baseline to "noise-free" or "none"'
            )
        if feedback and self.sign:
            raise RobenchError(
                "trainer.feedback = true: what is foreseen is the gradient, which Eq. 3 of NIT-S "
                "does not follow; leave it out"
            )
        if self.score == "spike" and (self.sign or self.distribution == "laplace"):
            raise RobenchError(
                'trainer.score = "spike": it is of Gaussian noise itself, not of its signs or of '
                "Laplace noise; leave it out"
            )
        if feedback:
            feedback.look(network, x, y)
        losses = [
            self._estimate(network, *chosen, x, y, loss, rng, feedback)
            for chosen in self._passes(network)
        ]
        if feedback:
            feedback.learn()
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
        feedback: Feedback | None,
    ) -> Tensor:
        """One pass: the same for the parameters of the `active` layers."""
        signs = self._signs(network, active, pairing, x[:1])
        patterns = 2 ** len(active) if signs is None else len(signs)
        draws = self._draws(copies, pairing, patterns)
        block_rows = self.block_rows or usual_rows(network, x.device)
        chunk_rows = self.chunk_rows or max(ROWS, block_rows)
        rows = patterns * len(x)
        all_blocks = blocks(draws, rows, block_rows, rng)
        silent = self._silent(network, x, y, loss)
        tape = self._tape(active, signs, x, rng)
        total = torch.zeros((), device=x.device)
        with torch.no_grad(), noise(network, tape):
            for chunk in chunks(all_blocks, rows, chunk_rows):
                tape.begin(chunk)
                losses = self._losses(tape, network, y, loss)
                total += losses.sum()
                if feedback:
                    losses = feedback.surprises(tape, losses)
                weights = self._centred(losses, chunk, silent) / (copies * len(x))
                self._push(tape, weights, feedback, 1 / (copies * len(x)))
        return total / (copies * len(x))

    def _tape(
        self, active: list[NoisyLayer], signs: Tensor | None, x: Tensor, rng: torch.Generator
    ) -> NoiseTape:
        return NoiseTape(
            active,
            signs,
            x,
            rng,
            self.distribution,
            self.quasi,
            others=self.layer_wise == "conditional",
            last_steps=self.last_steps,
            sign_at_zero=(1 if self.sign_of_zero else 0) if self.sign else None,
            spikes=self.score == "spike",
        )

    def _draws(self, copies: int, pairing: Pairing, patterns: int) -> int:
        """Draws of the noise, each of which serves so many copies."""
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
        return draws

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
            return pair(x)
        counter = Counter(active)
        with torch.no_grad(), noise(network, counter):
            network(x)
        from scipy.linalg import hadamard  # it takes longer to import than all else here

        columns = hadamard(1 << counter.injections.bit_length())[:, 1 : counter.injections + 1]
        signs = torch.as_tensor(columns, dtype=x.dtype, device=x.device)
        return torch.cat([signs, -signs])

    def _losses(self, tape: NoiseTape, network: Network, y: Tensor, loss: Loss) -> Tensor:
        """Of the copies that the tape draws, (patterns, draws, images)."""
        logits = tape.logits(network)
        y = y.expand(len(logits) // tape.images, -1).reshape(-1)
        return loss(logits, y).view(-1, tape.draws, tape.images)

    def _silent(self, network: Network, x: Tensor, y: Tensor, loss: Loss) -> Tensor | None:
        """The loss of every image without noise, where that is what is subtracted."""
        if self.baseline != "noise-free":
            return None
        with torch.no_grad(), noise(network, None):
            return loss(network(x), y)

    def _centred(self, losses: Tensor, chunk: list[Block], silent: Tensor | None) -> Tensor:
        """Losses, (patterns, draws, images), less the baseline."""
        if silent is not None:
            return losses - silent
        if self.baseline == "none":
            return losses
        parts = []
        for part in torch.split(losses, [block.draws for block in chunk], dim=1):
            own = part.mean(0)  # the patterns of a draw share its noise: all of them are left out
            others = (own.sum(0) - own) / max(1, len(own) - 1)
            parts.append(part - others)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _push(
        self, tape: NoiseTape, weights: Tensor, feedback: Feedback | None, share: float
    ) -> None:
        """Both lines of Eq. 5 / Eq. 1 for all injections.

        Args:
            weights: L, less what is subtracted, over copies and images; (patterns, draws, images).
            share: of one copy of one image in the mean.
        """
        drives, vectors = [], []
        for layer, queue in tape.kept.items():
            # A constant input has one drive for all time steps: one vector for it, too.
            for _, group in groupby(enumerate(queue), key=lambda item: id(item[1].drive)):
                places, items = zip(*group, strict=True)
                drive = items[0].drive
                if drive.requires_grad:
                    vector = self._vector(tape, items, weights)
                    if feedback:
                        feedback.add_again(tape, vector, items, places, weights, share)
                    drives.append(drive)
                    vectors.append(vector)
            if layer.sigma.requires_grad:
                self._sigma(layer, list(queue), weights)
        torch.autograd.backward(drives, vectors)

    def _vector(self, tape: NoiseTape, items: tuple[Injection, ...], weights: Tensor) -> Tensor:
        """What op's Jacobian is multiplied with, like the one drive of the `items`: the sum of
        L score(eps) / sigma."""
        drive = items[0].drive
        earlier = items[0].signs.shape[1]
        vector: Tensor | None = None
        for item in items:
            w = item.each(weights) if item.spike else item.own(weights)
            score = item.spike.of_drive if item.spike else tape.score(item.eps)
            w = w.view(*w.shape, *[1] * (item.eps.dim() - 2))
            if item.spike:
                found = torch.sum(w * score, 0, out=empty((earlier, *item.eps.shape[:2]), drive))
                vector = found if vector is None else vector.add_(found)
            elif vector is None:
                vector = torch.mul(w, score, out=empty((earlier, *score.shape[:2]), drive))
            else:
                vector.addcmul_(w, score)
        assert vector is not None
        if len(drive) == tape.images:  # which all copies share
            vector = torch.sum(vector, (0, 1), out=empty((tape.images,), drive))
        if not self.sign:
            vector /= items[0].layer.sigma
        return vector.view_as(drive)

    def _sigma(self, layer: NoisyLayer, items: list[Injection], weights: Tensor) -> None:
        """Add L (eps score(eps) - 1) / sigma to sigma's gradient."""
        moment = torch.zeros_like(items[0].eps)
        plain = [item for item in items if not item.spike]
        for item in plain:
            if self.distribution == "laplace":
                moment += item.eps.abs()
            else:
                moment.addcmul_(item.eps, item.eps)
        w = weights.sum(0).flatten()
        grad = (w @ moment.reshape(len(w), -1) - len(plain) * w.sum()).view(moment.shape[2:])
        for spike, w in ((item.spike, item.each(weights)) for item in items if item.spike):
            grad += (w.flatten() @ spike.of_sigma.reshape(w.numel(), -1)).view_as(grad)
        grad = grad.sum_to_size(layer.sigma.shape) / layer.sigma
        layer.sigma.grad = grad if layer.sigma.grad is None else layer.sigma.grad + grad

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
            tape = self._tape(active, pair(x), x, rng)
            with torch.no_grad():
                silent = self._silent(network, x, y, loss)
                with noise(network, tape):
                    tape.begin([Block(draws, seed)])
                    up, down = self._losses(tape, network, y, loss)
            odd, even = (up - down) / 2, (up + down) / 2
            spread = odd.square().mean()
            if self.baseline == "leave-one-out":
                rest = max(2, copies)
                single = (spread + even.var(0).mean()) * rest / (rest - 1)
            else:
                single = spread + (even if silent is None else even - silent).square().mean()
            chosen.append("none" if single < 2 * spread else "antithetic")
        return replace(self, pairing=tuple(chosen) if self.layer_wise else chosen[0])
