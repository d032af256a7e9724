"""Does a network answer the same whatever was asked before, and whoever is asked about with it?

A network is a function of its image. One that remembers questions, counts them, or looks at the
rest of a batch cannot be attacked by the attacks that there are, and its accuracy says little. So
it is asked before any attack: alone and in company, in another order, with and without a graph,
and again after near questions; each time a copy of its own, made from the same bytes.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robench.attacks.losses import margin
from robench.data.base import Part
from robench.digest import derived_seed
from robench.networks.base import Network
from robench.networks.noise import InUse
from robench.networks.numbers import asked
from robench.scoring import in_use

VERSION = 1
"""Part of the identity of the cells that note what is found here."""
ASKED = 48
"""Images that are asked about."""
ALONE = 12
"""Of which so many are asked about one by one."""
ROUNDING = 1e-3
"""Change of a logit, of the largest, that sums in another order can make."""
ROUNDS = 12
"""Near questions about each image before the one that counts."""
NEAR = (0.01, 0.03, 0.1)
"""How far, in every pixel, near questions lie from each other; a third of the images each."""
PATIENCE = 60.0
"""Seconds after which a copy of this process that does not answer is ended."""

Fresh = Callable[[], Network]
"""Makes a copy of a network from the same bytes as all others."""


class Questions:
    """Asks copies of one network about the same images, under the same noise.

    Args:
        fresh: makes a copy.
        images: (n, c, h, w).
        noisy: whether the noise of noisy layers is on.
        seed: of all that is drawn.
    """

    def __init__(self, fresh: Fresh, images: Tensor, noisy: InUse, seed: int) -> None:
        self.fresh, self.noisy, self.seed = fresh, noisy, seed
        self.images = images[:ASKED]

    def ask(self, network: Network, x: Tensor, graph: bool = False) -> Tensor:
        """Logits, (n, classes); rows without a number are NaN."""
        seed = derived_seed(self.seed, "asked")
        with in_use(network, self.noisy, seed, x.device), _graph(graph):
            shown = x.clone().requires_grad_() if graph else x.clone()
            return asked(network, shown, known=True).detach().clone()

    def near(self) -> tuple[Tensor, Tensor]:
        """Images that nobody was ever asked about, and others next to them."""
        # Turned, and mixed with others: far from what was asked about before.
        x = (self.images.flip(-1, 0) + self.images.roll(len(self.images) // 3, 0)) / 2
        rng = torch.Generator().manual_seed(derived_seed(self.seed, "near"))
        first = (x + torch.empty(x.shape).uniform_(-0.05, 0.05, generator=rng).to(x)).clamp(0, 1)
        steps = torch.tensor(NEAR).repeat(len(x) // len(NEAR) + 1)[: len(x)]
        signs = (torch.rand(x.shape, generator=rng) < 0.5).float().mul(2).sub(1)
        then = (first + (steps.view(-1, 1, 1, 1) * signs).to(x)).clamp(0, 1)
        return first, then


def found_by_asking(questions: Questions, outside: bool, apart: bool) -> dict[str, Any]:
    """What changes an answer: share of the images whose prediction or logits it moves, by name.

    Args:
        outside: whether the network is not robench's own; those are known to keep no state.
        apart: whether this process may be copied, so that what a network remembers outside itself
            (in its class, in a module) is found too.

    Of a noisy network whose numbers depend on the batch only what repeats them is asked.
    """
    if not outside:
        return {}
    ask, fresh, x = questions.ask, questions.fresh, questions.images
    first, then = questions.near()
    pristine: Tensor | None = None
    if apart:
        pristine = in_a_copy_of_this_process(lambda: ask(fresh(), then))
    if pristine is None:
        pristine = ask(fresh(), then)
    network = fresh()
    answers = ask(network, x)
    found = {"again": moved(answers, ask(network, x))}
    found["copy"] = moved(answers, ask(fresh(), x))
    found["graph"] = moved(answers, ask(fresh(), x, graph=True))
    network = fresh()
    for number in range(ROUNDS):
        ask(network, (first + 1e-3 * number).clamp(0, 1), graph=number % 2 == 1)
    found["after near questions"] = moved(pristine, ask(network, then))
    if not network.draws and not network.random_input:
        back = torch.arange(len(x) - 1, -1, -1, device=x.device)
        found["order"] = moved(answers, ask(fresh(), x[back])[back])
        strange = torch.cat([x[:ALONE], torch.rand_like(x)])
        few = min(ALONE, len(x))
        found["company"] = moved(answers[:few], ask(fresh(), strange)[:few])
        copies = [ask(fresh(), x[i : i + 1]) for i in range(few)]
        found["alone"] = moved(answers[:ALONE], torch.cat(copies))
    return {"images": len(x), **{key: round(value, 4) for key, value in found.items()}}


def moved(one: Tensor, other: Tensor) -> float:
    """Share of the images whose prediction differs by more than a tie, or whose logits do by more
    than rounding."""
    one, other = one.double(), other.double()
    scale = one.nan_to_num(0, 0, 0).abs().amax(1).clamp_min(1e-12)
    apart = (one - other).abs().amax(1) > ROUNDING * scale
    numbers = torch.isfinite(one).all(1), torch.isfinite(other).all(1)
    apart = torch.where(numbers[0] & numbers[1], apart, numbers[0] != numbers[1])
    # A saturated logit may hide the others: whichever class wins by more than rounding counts.
    turned = (one.argmax(1) != other.argmax(1)) & numbers[0] & numbers[1]
    turned &= -margin(one, one.argmax(1)) > ROUNDING * scale
    return float((apart | turned).double().mean())


def as_attacked(
    score: Callable[..., tuple[pa.Table, dict[str, Any]]],
    attacked: Network,
    fresh: Network,
    images: np.ndarray,
    part: Part,
    rows: pa.Table,
) -> dict[str, Any]:
    """Do the network that was attacked, and one that is asked in another order, say of the final
    images what the one that is scored says?

    Args:
        score: scoring.score_slice with all that the three have in common.
        rows: as scored.

    Of each the share of images that it says something else about; of a noisy network, whose draws
    come in the order of the images, only of the former: how much more often it is right.
    """
    after = score(attacked, images, part)[0]
    draws = len(rows.column("predictions")[0]) if len(rows) else 1
    if draws > 1:
        scored, seen = (t.column("correct").to_numpy() for t in (rows, after))
        return {"state": {"gain": round(float((seen - scored).mean()), 4), "draws": draws}}
    back = slice(None, None, -1)
    numbers = None if part.numbers is None else part.numbers[back]
    turned = Part(np.ascontiguousarray(images[back]), part.labels[back].copy(), numbers)
    other = score(fresh, turned.images, turned)[0].take(list(range(len(rows) - 1, -1, -1)))
    return {"state": {"attacked": _unlike(rows, after), "order": _unlike(rows, other)}}


def _unlike(rows: pa.Table, others: pa.Table) -> float:
    """Share of the images whose prediction and loss differ by more than rounding."""
    one, two = (t.column("loss").to_numpy().astype(float) for t in (rows, others))
    apart = np.abs(one - two) > 1e-4 + ROUNDING * np.minimum(np.abs(one), np.abs(two))
    return round(float(apart.mean()), 4)


@contextmanager
def _graph(wanted: bool) -> Iterator[None]:
    with torch.enable_grad() if wanted else torch.no_grad():
        yield


def may_be_copied(device: torch.device) -> bool:
    """Whether a copy of this process can answer."""
    return sys.platform == "linux" and device.type == "cpu" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def in_a_copy_of_this_process(ask: Callable[[], Tensor]) -> Tensor | None:
    """What `ask` answers in a copy of this process, which ends then: whatever it remembers is gone.
    None where it does not answer."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads: torch computes on one
        child = os.fork()
    if not child:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(pickle.dumps(ask().cpu().numpy()))
        finally:
            os._exit(0)
    os.close(write)
    data, deadline = b"", time.monotonic() + PATIENCE
    try:
        while select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(read, 2**20)
            if not piece:
                break
            data += piece
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # it is not reaped yet, so that the number is still its own
        os.waitpid(child, 0)
    try:
        return torch.from_numpy(pickle.loads(data).copy())
    except Exception:  # it died on the way
        return None
