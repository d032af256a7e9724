"""Networks that look more robust than they are, by kind, and for each an attacker who knows how.

Every trick wraps a small honest network of the digits. `truth` is the accuracy that an attacker
leaves who knows the trick: on the honest network underneath, scored by a fresh copy of the trick.
Of networks that know the test images no attack in the ball can be better, so there the truth is
what they withstand around images that they do not know.

As a script it prints the table: python tests/tricks.py [--strong] [NAME ...]; with --strong under
all of `strong` and its diagnostics, else under the few in STRONG.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import tricks_batches
import tricks_gradients
import tricks_known
import tricks_memory
import tricks_numbers
from torch import Tensor, nn
from trick import EPS, IMAGES, Trick, digits

import robench
from robench.attacks.ball import Ball
from robench.attacks.gradient import APGD
from robench.attacks.target import WhiteBoxTarget
from robench.data.sample import drawn
from robench.networks.base import Network
from robench.networks.modules.module import Module
from robench.workspace.plugins import Located

STRONG = ("strong/apgd-margin", "strong/apgd-dlr")
"""Of `strong`, without its long searches, which slow tricks make minutes of; the diagnostics with
theirs come along."""
KINDS: dict[str, list[type[Trick]]] = {
    "memory": tricks_memory.TRICKS,
    "test set": tricks_known.TRICKS,
    "no gradient or number": tricks_numbers.TRICKS,
    "lying gradient": tricks_gradients.TRICKS,
    "batches": tricks_batches.TRICKS,
}
CASES = [(kind, make) for kind, tricks in KINDS.items() for make in tricks]


def measured(trick: Trick, store: Path, **settings: Any) -> robench.Evaluation:
    """The verdict of robench on a trick."""
    asked: dict[str, Any] = {
        "report": "strong", "norm": "linf", "eps": EPS, "images": IMAGES, "progress": False,
        "store": store, "name": "trick", "stochastic": getattr(trick, "stochastic", False),
        "jobs": getattr(trick, "jobs", 1),
    }  # fmt: skip
    return robench.evaluate(trick, "digits", **{**asked, **settings})


def truth(make: type[Trick]) -> float:
    """The accuracy that an attacker leaves who knows the trick: he attacks what is underneath, and
    the trick, fresh and asked about one image at a time, is shown what he found."""
    make.forget()
    trick = make()
    part = drawn(digits(), getattr(make, "images", IMAGES))
    x, y = torch.tensor(part.images), torch.tensor(part.labels)
    if (
        isinstance(trick, tricks_known.KnowsTheTestImages)
        or make is tricks_known.TrainedOnTheTestImages
    ):
        all_known = len(getattr(make, "parts", ())) > 1
        part = digits().test if all_known else digits().validation
        moved = torch.tensor(part.images[: 2 * IMAGES])
        if all_known:  # half a pixel aside: nothing that it knows
            moved = (moved + moved.roll(1, -1)) / 2
        x, y = moved, torch.tensor(part.labels[: 2 * IMAGES])
    underneath: nn.Module = trick.base
    if isinstance(trick, tricks_known.NearestTestImage):
        underneath = trick
    left = torch.ones(len(x))
    for found in _known_attacks(underneath, trick, x, y):
        right = torch.zeros(len(x))
        draws = 4 if getattr(trick, "stochastic", False) else 1
        for _ in range(draws):
            fresh = make().eval()
            with torch.no_grad():
                for i in range(len(x)):
                    make.forget()
                    fresh = make().eval() if make in KINDS["memory"] else fresh
                    right[i] += _right(fresh, found[i : i + 1], y[i]) / draws
        left = torch.minimum(left, right)
    return float(left.mean())


def _right(fresh: nn.Module, x: Tensor, label: Tensor) -> float:
    try:
        logits = fresh(x)
    except (ValueError, RuntimeError):
        return 0.0
    return float(bool(torch.isfinite(logits).all()) and logits.argmax(1)[0] == label)


def _known_attacks(underneath: nn.Module, trick: Trick, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    yield x
    source = Located("underneath", lambda: underneath)
    network: Network = Module((1, 8, 8), 10, factory=source)
    for loss, targets in (("cross-entropy", 0), ("margin", 0), ("margin", 9)):
        attack = APGD(steps=60, loss=loss, targets=targets, keep="last")
        rng = torch.Generator().manual_seed(0)
        target = WhiteBoxTarget(network.eval(), Ball("linf", EPS), len(x))
        yield attack.perturb(target, x, y, rng)


def row(kind: str, make: type[Trick], attacks: tuple[str, ...] | None = STRONG) -> dict[str, Any]:
    """attacks: None: all of `strong`."""
    random.seed(0)
    make.forget()
    with tempfile.TemporaryDirectory() as folder:
        many = 16 if getattr(make, "stochastic", False) else getattr(make, "images", IMAGES)
        found = measured(make(), Path(folder), attacks=attacks, images=many)
    worst = float(found.to_pandas().iloc[0]["worst_case"])
    verdict = found.verdicts["trick"]
    return {
        "kind": kind,
        "trick": make.__name__,
        "printed": worst,
        "truth": truth(make),
        "verdict": verdict["verdict"],
        "alarms": [alarm["check"] for alarm in verdict["alarms"]],
    }


def main(names: list[str]) -> None:
    bad, wanted = 0, set(names) - {"--strong"}
    for kind, make in CASES:
        if wanted and make.__name__ not in wanted:
            continue
        found = row(kind, make, None if "--strong" in names else STRONG)
        held = found["verdict"] == "doubtful" or found["printed"] <= found["truth"] + 0.03
        bad += not held
        print(
            f"| {kind} | {found['trick']} | {100 * found['printed']:.1f} | "
            f"{100 * found['truth']:.1f} | {found['verdict']} | {', '.join(found['alarms'])} | "
            f"{'held' if held else 'NOT HELD'} |",
            flush=True,
        )
    print(f"{bad} not held")


if __name__ == "__main__":
    main(sys.argv[1:])
