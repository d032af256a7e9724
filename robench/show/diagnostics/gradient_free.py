"""Does an attack that sees no gradient break what the attacks with gradients leave?

After Athalye et al. 2018 (arXiv 1802.00420) and Carlini et al. 2019 (1902.06705): a white-box
attacker knows more, so whoever does better with less shows that the gradient misleads.
"""

from __future__ import annotations

from robench.show.diagnostics.estimate import LEAST, Estimate, difference, percent, share
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Ball, Subject
from robench.show.results import Threat


@check("attacks without gradients")
def gradient_free(subject: Subject) -> Judged:
    """An attack by scores, by decisions or by transfer, or mere noise, breaks images that no
    white-box attack broke.

    Inputs: in each ball, all white-box attacks with the clean images, and all other attacks, noise
        floors included.
    Computation: share of the images that every white-box attack leaves right and another attack
        breaks: by how much the worst case falls where the attacker may choose the others too. Of a
        noisy model it is chosen by some draws and scored by others, so that luck cancels.
    Threshold: alarm where the interval of the share lies above 1%: a handful of images is owed to
        white-box attacks that stopped early, not to their gradients.
    """
    gains: list[tuple[Estimate, Ball, list[Threat], list[Threat]]] = []
    for ball, threats in subject.balls.items():
        white = [t for t in threats if t["access"] == "white-box"]
        other = [t for t in threats if t["access"] != "white-box"]
        if not white or not other:
            continue
        side = [*white, *([subject.clean] if subject.clean else [])]
        gained = subject.left(side) - subject.left([*side, *other])
        estimate = difference(gained) if subject.stochastic else share(gained)
        gains.append((estimate, ball, white, other))
    if not gains:
        return not_applicable("No ball has both a white-box attack and one that sees no gradient.")
    estimate, (norm, eps), white, other = max(gains, key=lambda item: item[0].low)
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
        return alarm(
            f"Gradients do worse than none: {numbers}.", evidence,
            'Give the white-box attacks another loss (loss = "margin"), derivative (surrogate = '
            '"sweep") or draws (eot), and the attacks without gradients more queries.',
        )  # fmt: skip
    text = f"Attacks without gradients do not surely break more than {percent(LEAST)}: {numbers}."
    return passed(text, evidence)
