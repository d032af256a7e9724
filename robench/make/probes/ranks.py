"""Are test images safer, one by one, than images that a network cannot know?

Accuracy on the report's images tells a network that learnt all of them by heart, but not one that
learnt some. The margins of many images do, however few of them are attacked: those that are known
lie above all others. A two-sample test of Kolmogorov and Smirnov compares them, one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench.attacks.losses import margin
from robench.data.base import Part
from robench.digest import derived_seed
from robench.make.probes.asking import Fresh, answers, uphill
from robench.make.scoring import batch_of, in_use
from robench.networks.base import Network
from robench.networks.noise import InUse

Rank = dict[str, Any]


def ranks(
    fresh: Fresh,
    parts: Mapping[str, Part],
    *,
    eps: float,
    noisy: InUse,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> list[Rank]:
    """How much further test images lie from being wrong than images of other parts: `above`, the
    largest excess of a share of test images above a margin over the other part's share, and `p`,
    how likely so much is by chance.

    Args:
        parts: `test`, and others by name (data/fresh.py).
        eps: length of the one signed step after which margins are compared too (`how` is
            `attacked`), where there is a gradient.
    """
    compared: list[Rank] = []
    if "test" not in parts:
        return compared

    def margins(part: Part) -> dict[str, Tensor]:
        """Of each image, (n,), clean and after a step: how far it is from being wrong."""
        network = fresh()
        clean: list[Tensor] = []
        stepped: list[Tensor] = []
        for start in range(0, len(part), batch_size):
            x, y = batch_of(part, start, batch_size, device)
            with in_use(network, noisy, derived_seed(seed, "ranks", start), device):
                clean.append(_ask(network, x, y))
                grad = uphill(network, x, y)
                if grad is not None and len(stepped) == len(clean) - 1:
                    step = grad.sign_().mul_(eps).add_(x).clamp_(0, 1)  # in place: they are many
                    stepped.append(_ask(network, step, y))
        measured = {"clean": torch.cat(clean)}
        return measured | ({"attacked": torch.cat(stepped)} if len(stepped) == len(clean) else {})

    seen = {name: margins(part) for name, part in parts.items()}
    for how, test in seen["test"].items():
        for name, others in seen.items():
            if name == "test" or how not in others:
                continue
            one, other = test.numpy(), others[how].numpy()
            above, p = farther(one, other)
            compared.append({
                "part": name, "how": how, "images": len(one), "others": len(other),
                "above": round(above, 4), "p": float(f"{p:.3g}"),
            })  # fmt: skip
    return compared


def farther(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The largest excess of the share of `one` above a value over that of `other`, and how likely
    so much is by chance: scipy.stats.ks_2samp(one, other, alternative="less", method="asymp"),
    whose package takes 46 MiB of every process that asks (Hodges 1958, Arkiv foer Matematik 3,
    p. 473, Eq. 5.3)."""
    one, other = np.sort(one), np.sort(other)
    values = np.concatenate([one, other])
    shares = [np.searchsorted(rows, values, side="right") / len(rows) for rows in (one, other)]
    above = float(np.clip((shares[1] - shares[0]).max(), 0, 1))
    many, few = float(max(len(one), len(other))), float(min(len(one), len(other)))
    z = math.sqrt(many * few / (many + few)) * above
    shift = 2 * z * (many + 2 * few) / math.sqrt(many * few * (many + few)) / 3
    return above, min(1.0, math.exp(-2 * z**2 - shift))


def _ask(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """What is no number is wrong by as much as can be."""
    with torch.no_grad():
        return (-margin(answers(network, x), y)).nan_to_num(-torch.inf).cpu()
