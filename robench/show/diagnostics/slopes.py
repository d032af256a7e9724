"""Does the gradient tell how the loss changes? (robench/make/probes/slopes.py asks, before any
attack)"""

from __future__ import annotations

from robench.show.diagnostics.estimate import percent
from robench.show.diagnostics.finding import STRONGER, Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject

DISAGREE = 0.1
"""Share of the images on which an honest gradient may look wrong: where kinks lie close."""


@check("gradient against differences")
def slopes(subject: Subject) -> Judged:
    """The gradient is not the slope of what the network answers: cut, swapped, or made up.

    Inputs: networks without steps and spikes; on some 24 images, half of them moved, the derivative
        g.d along 24 random sign directions d and the difference (L(x + hd) - L(x - hd)) / 2h at h =
        .01 and .03, under the same noise on both sides; L is the margin, and the cross-entropy.
    Computation: their correlation over the directions, for each image at the better h; of the two
        losses the lower. Share of the images where it is below .9.
    Threshold: alarm above a tenth of the images, where the network draws noise that no seed
        repeats, where there is no gradient at all, or where more than a tenth of the images get the
        same bits on both sides of every direction although their gradient promises more. Honest
        networks reach .999.
    """
    if subject.jumps:
        return not_applicable("The network has steps or spikes: its derivative is a surrogate.")
    seeds = subject.noted(subject.clean, "slopes")
    if not seeds:
        return not_applicable("Gradients were not compared with differences.")
    for one in seeds:
        if not one["repeats"]:
            return alarm(
                "The network draws noise that no seed repeats, so that nothing that it answers can "
                "be computed twice.",
                {"by_seed": seeds},
                "Draw from torch's global generator, as torch.randn does.",
            )
        if one.get("error"):
            return alarm(
                f"There is no gradient: {str(one['error']).split(' (')[0]}.",
                {"by_seed": seeds},
                f"Name a differentiable stand-in for what has none (stand_in), or {STRONGER}.",
            )
    still = max(float(one.get("still") or 0) for one in seeds)
    if still > DISAGREE:
        return alarm(
            f"The gradient promises changes that do not come: {percent(still)} of the images get "
            "the same answer, to the bit, at every point that was asked about near them.",
            {"by_seed": seeds},
            "Let the answer be computed from the image, not from what was asked before, and name a "
            f"stand-in for what has no gradient (stand_in); or {STRONGER}.",
        )
    known = [one for one in seeds if one["images"]]
    if not known:
        return not_applicable("The loss hardly changes along any direction.")
    images = sum(one["images"] for one in known)
    wrong = sum(one["disagree"] * one["images"] for one in known) / images
    median = min(one["median"] for one in known)
    evidence = {"images": images, "disagree": round(wrong, 4), "median_correlation": median}
    numbers = (
        f"the correlation of derivatives and differences is below .9 on {percent(wrong)} of "
        f"{images} images (median {median:.3f})"
    )
    if wrong > DISAGREE:
        text = f"The gradient lies about how the loss changes: {numbers}."
        return alarm(text, evidence, f"Do not trust attacks that follow it: {STRONGER}.")
    return passed(f"The gradient tells how the loss changes: {numbers}.", evidence)
