"""Does the network know its test images? Attacks on them, and on their relatives.

A network that says the right label near every test image withstands any attack in the ball there,
and is as weak as any elsewhere; so is one that was trained on them.
"""

from __future__ import annotations

import math
from typing import Any

from robench.diagnostics.finding import Finding, percent
from robench.diagnostics.subject import Subject

CHECK = "test images and their relatives"
BEYOND = {"training": 0.05, "validation": 0.05, "mixtures": 0.1, "moved": 0.5}
"""By how much, beyond chance, an attack may leave more of the test images than of their
relatives. Half a pixel blurs the smallest images, which costs honest networks up to 40
points under attack."""
SURE = 2.6
"""Standard errors that count as chance."""


def known(subject: Subject) -> Finding:
    """An attack leaves more of the test images than of others that the network cannot know.

    Inputs: cells that noted what their attack leaves of training images, of validation images, of
        mixtures of neighbours and of test images moved by half a pixel (robench/data/fresh.py), and
        what the network answers to them as they are.
    Computation: accuracy on the test images minus that on each sort, less 2.6 standard errors;
        under attack, and for training, validation images and mixtures clean as well.
    Threshold: alarm above 5 points for training and validation images, 10 for mixtures and 50 for
        moved images, which are blurred and so weaker under attack.
    """
    found: list[tuple[float, str, str, float, float, int]] = []
    for threat in subject.attacks:
        cells = [cell["relatives"] for cell in subject.cells(threat) if cell.get("relatives")]
        if not cells or subject.clean is None:
            continue
        here = subject.known(threat)
        for how, test in (("attacked", here), ("clean", subject.known(subject.clean))):
            of_test = float(test.mean())
            for sort in sorted({name for cell in cells for name in cell}):
                if how == "clean" and sort == "moved":
                    continue
                seen = [cell[sort] for cell in cells if sort in cell]
                count = int(seen[0]["images"])
                other = sum(float(one[how]) for one in seen) / len(seen)
                error = math.sqrt(_variance(of_test, test.shape[1]) + _variance(other, count))
                beyond = of_test - other - SURE * error - BEYOND.get(sort, 1.0)
                found.append((beyond, sort, how, of_test, other, count))
    if not found:
        return Finding.not_applicable(CHECK, "No attack was run on relatives of the test images.")
    beyond, sort, how, of_test, other, count = max(found)
    evidence: dict[str, Any] = {
        "sorts": [
            {
                "sort": name, "how": way, "test_images": round(of, 4), "relatives": round(rest, 4),
                "images": n,
            }
            for _, name, way, of, rest, n in found
        ]
    }  # fmt: skip
    called = {
        "training": "training images", "validation": "validation images",
        "mixtures": "mixtures of neighbours", "moved": "test images moved by half a pixel",
    }  # fmt: skip
    numbers = (
        f"it keeps {percent(of_test)} on test images and {percent(other)} on {count} "
        f"{called.get(sort, sort)}" + (" under the same attack" if how == "attacked" else "")
    )
    if beyond > 0:
        return Finding(
            CHECK, "alarm", f"The network knows its test images: {numbers}.", evidence,
            "Measure it on images that nobody had when it was made.",
        )  # fmt: skip
    return Finding(
        CHECK, "pass", f"Test images are no safer than others: {numbers}.", evidence
    )  # fmt: skip


def _variance(share: float, images: int) -> float:
    """Of a share, with one image more on either side, so that none is certain."""
    p = (share * images + 1) / (images + 2)
    return p * (1 - p) / (images + 2)
