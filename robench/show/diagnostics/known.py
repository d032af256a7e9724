"""Does the network know its test images? Attacks on them, and on their relatives.

A network that says the right label near every test image withstands any attack in the ball there,
and is as weak as any elsewhere; so is one that was trained on them.
"""

from __future__ import annotations

import math
from typing import Any

from robench.show.diagnostics.estimate import percent
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject

BEYOND = {
    "attacked": {
        "training": 0.05, "validation": 0.05, "mixtures": 0.1, "moved": 0.5, "turned": 0.5,
        "darker": 0.5, "changed": 0.5,
    },
    "clean": {
        "training": 0.05, "validation": 0.05, "mixtures": 0.1, "turned": 0.2, "darker": 0.2,
        "changed": 0.2,
    },
}  # fmt: skip
"""By how much, beyond chance, a network may be right about more of the test images than of their
relatives. Changes that are small for people weaken the smallest images under attack, which costs
honest networks up to 40 points there."""
SURE = 2.6
"""Standard errors that count as chance."""
ABOVE = 0.1
"""Excess of test images above some margin that data of another origin may have."""
CHANCE = 5e-4
"""Of so much by chance, for each of up to four comparisons."""
CALLED = {
    "training": "training images", "validation": "validation images",
    "mixtures": "mixtures of neighbours", "moved": "test images moved by half a pixel",
    "turned": "test images turned by 8 degrees", "darker": "test images darker by a quarter",
    "changed": "test images turned, moved and darkened a little",
}  # fmt: skip


@check("test images and their relatives")
def known(subject: Subject) -> Judged:
    """An attack leaves more of the test images than of others that the network cannot know.

    Inputs: cells that noted what their attack leaves of training images, of validation images, of
        mixtures of neighbours and of test images moved by half a pixel, turned by 8 degrees,
        darker by a quarter, or a little of each by chance that the weights decide
        (robench/data/fresh.py), and what the network answers to them as they are; and how the
        margins of up to a thousand test images compare with those of as many training and
        validation images, clean and after one signed step (robench/make/probes/ranks.py).
    Computation: accuracy on the test images minus that on each sort, less 2.6 standard errors;
        under attack and, but for moved images, which are blurred, clean. Of margins the largest
        excess of a share of test images above one, with its one-sided p (Kolmogorov and Smirnov).
    Threshold: alarm above 5 points for training and validation images, 10 for mixtures, and for
        changed images 50 under attack and 20 clean; where test images lie above others by .1 or
        more, and so much comes by chance once in 2000 times.
    """
    excesses: list[tuple[float, str, str, float, float, int]] = []
    for threat in subject.attacks:
        cells = subject.noted(threat, "relatives")
        if not cells or subject.clean is None:
            continue
        here = subject.known(threat)
        for how, test in (("attacked", here), ("clean", subject.known(subject.clean))):
            of_test = float(test.mean())
            for sort in sorted({name for cell in cells for name in cell}):
                if sort not in BEYOND[how]:
                    continue
                seen = [cell[sort] for cell in cells if sort in cell]
                count = int(seen[0]["images"])
                other = sum(float(one[how]) for one in seen) / len(seen)
                error = math.sqrt(_variance(of_test, test.shape[1]) + _variance(other, count))
                beyond = of_test - other - SURE * error - BEYOND[how][sort]
                excesses.append((beyond, sort, how, of_test, other, count))
    if not excesses:
        return not_applicable("No attack was run on relatives of the test images.")
    beyond, sort, how, of_test, other, count = max(excesses)
    evidence: dict[str, Any] = {
        "sorts": [
            {
                "sort": name, "how": way, "test_images": round(of, 4), "relatives": round(rest, 4),
                "images": n,
            }
            for _, name, way, of, rest, n in excesses
        ]
    }  # fmt: skip
    ranked = [one for t in subject.attacks for ranks in subject.noted(t, "ranks") for one in ranks]
    evidence["margins"] = ranked
    advice = "Measure it on images that nobody had when it was made."
    numbers = (
        f"it keeps {percent(of_test)} on test images and {percent(other)} on {count} "
        f"{CALLED[sort]}" + (" under the same attack" if how == "attacked" else "")
    )
    if beyond > 0:
        return alarm(f"The network knows its test images: {numbers}.", evidence, advice)
    told = [one for one in ranked if one["above"] >= ABOVE and one["p"] < CHANCE]
    if told:
        most = max(told, key=lambda one: float(one["above"]))
        step = " after a step of the attack" if most["how"] == "attacked" else ""
        return alarm(
            f"The network knows some of its test images: {percent(most['above'])} more of "
            f"{most['images']} lie above a margin{step} than of {most['others']} "
            f"{CALLED[most['part']]} (p = {most['p']:.1g}).",
            evidence,
            advice,
        )
    return passed(f"Test images are no safer than others: {numbers}.", evidence)


def _variance(share: float, images: int) -> float:
    """Of a share, with one image more on either side, so that none is certain."""
    p = (share * images + 1) / (images + 2)
    return p * (1 - p) / (images + 2)
