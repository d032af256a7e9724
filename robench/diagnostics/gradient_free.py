"""Does an attack that sees no gradient break what the attacks with gradients leave?

After Athalye et al. 2018 (arXiv 1802.00420) and Carlini et al. 2019 (1902.06705): a white-box
attacker knows more, so whoever does better with less shows that the gradient misleads.
"""

from __future__ import annotations

import numpy as np

from robench.diagnostics.estimate import LEAST, Estimate, difference, share
from robench.diagnostics.finding import Finding, percent
from robench.diagnostics.subject import Ball, Subject
from robench.results import Threat
from robench.statistics import Floats

CHECK = "attacks without gradients"


def gradient_free(subject: Subject) -> Finding:
    """An attack by scores, by decisions or by transfer, or mere noise, breaks images that no
    white-box attack broke.

    Inputs: in each ball, all white-box attacks with the clean images, and all other attacks, noise
        floors included.
    Computation: share of the images that every white-box attack leaves right and another attack
        breaks. Where the model is noisy, the best attack of either side is chosen for each image
        by one half of the draws and what it gains is measured by the other half (then the other
        way round), so that luck in scoring cancels.
    Threshold: alarm where the interval of the share lies above 1%: a handful of images is owed to
        white-box attacks that stopped early, not to their gradients.
    """
    found: list[tuple[Estimate, Ball, list[Threat], list[Threat]]] = []
    for ball, threats in subject.balls.items():
        white = [t for t in threats if t["access"] == "white-box"]
        other = [t for t in threats if t["access"] != "white-box"]
        if not white or not other:
            continue
        side = [*white, *([subject.clean] if subject.clean else [])]
        gained = gain(
            [subject.halves(threat) for threat in side],
            [subject.halves(threat) for threat in other],
        )
        estimate = difference(gained) if subject.stochastic else share(gained)
        found.append((estimate, ball, white, other))
    if not found:
        return Finding.not_applicable(
            CHECK, "No ball has both a white-box attack and one that sees no gradient."
        )
    estimate, (norm, eps), white, other = max(found, key=lambda item: item[0].low)
    names = ", ".join(threat["name"] for threat in other)
    evidence = {
        "norm": norm,
        "eps": eps,
        "share": estimate.evidence(),
        "white_box": {t["name"]: round(subject.accuracy(t), 4) for t in white},
        "without_gradients": {t["name"]: round(subject.accuracy(t), 4) for t in other},
    }
    numbers = (
        f"{percent(max(estimate.value, 0.0))} ({estimate.range}) of the images are broken by "
        f"{names} and by no white-box attack"
    )
    if estimate.low > LEAST:
        return Finding(
            CHECK, "alarm", f"Gradients do worse than none: {numbers}.", evidence,
            'Give the white-box attacks another loss (loss = "margin"), derivative (surrogate = '
            '"sweep") or draws (eot), and the attacks without gradients more queries.',
        )  # fmt: skip
    return Finding(
        CHECK,
        "pass",
        f"Attacks without gradients do not surely break more than {percent(LEAST)}: {numbers}.",
        evidence,
    )


def gain(white: list[tuple[Floats, Floats]], other: list[tuple[Floats, Floats]]) -> Floats:
    """By how much the best of `other` lowers each image's correctness below the best of `white`,
    (seeds, images) in [-1, 1]; of a model without noise, 1 where it alone breaks the image, else 0.

    Args:
        white, other: each attack's share of correct draws in two halves, (seeds, images) each.
    """
    total = []
    for choose, measure in ((0, 1), (1, 0)):
        judged = [np.stack([halves[choose] for halves in side]) for side in (white, other)]
        scored = [np.stack([halves[measure] for halves in side]) for side in (white, other)]
        best = [part.argmin(axis=0)[None] for part in judged]
        lowest = [np.take_along_axis(p, at, 0)[0] for p, at in zip(judged, best, strict=True)]
        left = [np.take_along_axis(p, at, 0)[0] for p, at in zip(scored, best, strict=True)]
        total.append(np.where(lowest[1] < lowest[0], left[0] - left[1], 0.0))
    return np.asarray((total[0] + total[1]) / 2)
