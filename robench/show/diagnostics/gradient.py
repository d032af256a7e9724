"""Is there a gradient to follow, and does it depend on who takes it? Zero gradients, surrogates.

After Athalye et al. 2018 (arXiv 1802.00420): a gradient that is zero or arbitrary hides the images
that break a network, it does not remove them.
"""

from __future__ import annotations

from robench.show.diagnostics.estimate import LEAST, percent, share
from robench.show.diagnostics.finding import STRONGER, Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.strength import FEWEST, largest_fall
from robench.show.diagnostics.subject import Subject, effort, native, settings, white_box


@check("zero gradients")
def zero_gradients(subject: Subject) -> Judged:
    """The gradient is exactly zero: saturated, cut off, or never there.

    Inputs: for each image, whether the first gradient that a white-box attack asked for was exactly
        zero (null where the attack did not ask image by image); attacks with the network's own
        gradient.
    Computation: share of the images, largest over the attacks.
    Threshold: alarm where its interval lies above 1%. Logits of an ordinary size have no exactly
        zero gradient in float32, not even where the loss is tiny.
    """
    shares = [
        (share(zero), threat)
        for threat in subject.white_box
        if native(threat) and (zero := subject.column(threat, "zero_gradient")) is not None
    ]
    if not shares:
        return not_applicable("No attack asked for the gradient of each image.")
    most, threat = max(shares, key=lambda item: item[0].low)
    evidence = {
        "attack": threat["name"],
        "share": most.evidence(),
        "by_attack": {t["name"]: round(estimate.value, 4) for estimate, t in shares},
    }
    numbers = (
        f"exactly zero for {percent(most.value)} ({most.range}) of the images where "
        f"{threat['name']} starts"
    )
    if most.low > LEAST:
        advice = f"An attack by gradients cannot move these images: {STRONGER}."
        return alarm(f"The gradient is {numbers}.", evidence, advice)
    return passed(f"There is a gradient to follow: it is {numbers}.", evidence)


@check("surrogate derivatives")
def surrogates(subject: Subject) -> Judged:
    """The accuracy depends on which derivative stands in for that of steps and spikes.

    Inputs: networks with steps or spikes; in each ball, white-box attacks through the network's own
        surrogate, and through others or a sweep of them, each with at least ten gradients per
        image.
    Computation: the strongest of the former against the strongest of the latter.
    Threshold: alarm where the latter leaves less than the 95% interval of the former, and the
        paired difference is surely above zero: "by more than the interval". The derivative is the
        attacker's to choose; if it matters, no single one can be trusted.
    """
    if not subject.jumps:
        return not_applicable("The network has no steps or spikes.")
    sides = []
    for threats in subject.balls.values():
        alike = [t for t in white_box(threats) if t.get("meets") != "noisy"]  # not about draws
        long = [t for t in alike if (effort(t, subject.stochastic) or 0) >= FEWEST]
        through = [t for t in long if settings(t).get("surrogate")]
        sides.append(([t for t in long if native(t)], through))
    most = largest_fall(subject, sides)
    if most is None:
        return not_applicable(
            "No ball has attacks both through the network's own surrogate and another."
        )
    own, other, before = most.before, most.after, most.left
    numbers = (
        f"{percent(before.value)} ({before.range}) through the network's own ({own['name']}), "
        f"{percent(subject.accuracy(other))} through {settings(other)['surrogate']} "
        f"({other['name']})"
    )
    evidence = {
        "own": own["name"],
        "other": other["name"],
        "surrogate": settings(other)["surrogate"],
        "own_accuracy": before.evidence(),
        "other_accuracy": round(subject.accuracy(other), 4),
        "fall": most.fall.evidence(),
    }
    if most.sure:
        return alarm(
            f"The accuracy depends on the surrogate derivative: {numbers}.", evidence,
            'Believe only the worst over several derivatives: surrogate = "sweep", with more '
            "steps, restarts and draws.",
        )  # fmt: skip
    return passed(
        f"Other derivatives do not surely gain more than the interval: {numbers}.", evidence
    )
