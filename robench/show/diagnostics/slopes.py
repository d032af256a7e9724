"""Does the gradient tell how the loss changes? (robench/make/probes/slopes.py asks, before any
attack)"""

from __future__ import annotations

from robench.show.diagnostics.finding import STRONGER, Finding, percent
from robench.show.diagnostics.subject import Subject

CHECK = "gradient against differences"
DISAGREE = 0.1
"""Share of the images on which an honest gradient may look wrong: where kinks lie close."""


def slopes(subject: Subject) -> Finding:
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
    cells = subject.cells(subject.clean) if subject.clean else []
    found = [cell["slopes"] for cell in cells if cell.get("slopes")]
    if subject.jumps:
        return Finding.not_applicable(
            CHECK, "The network has steps or spikes: its derivative is a surrogate."
        )
    if not found:
        return Finding.not_applicable(CHECK, "Gradients were not compared with differences.")
    for one in found:
        if not one["repeats"]:
            return Finding(
                CHECK, "alarm",
                "The network draws noise that no seed repeats, so that nothing that it answers can "
                "be computed twice.",
                {"by_seed": found},
                "Draw from torch's global generator, as torch.randn does.",
            )  # fmt: skip
        if one.get("error"):
            return Finding(
                CHECK, "alarm",
                f"There is no gradient: {str(one['error']).split(' (')[0]}.",
                {"by_seed": found},
                f"Name a differentiable stand-in for what has none (stand_in), or {STRONGER}.",
            )  # fmt: skip
    still = max(float(one.get("still") or 0) for one in found)
    if still > DISAGREE:
        return Finding(
            CHECK, "alarm",
            f"The gradient promises changes that do not come: {percent(still)} of the images get "
            "the same answer, to the bit, at every point that was asked about near them.",
            {"by_seed": found},
            "Let the answer be computed from the image, not from what was asked before, and name a "
            f"stand-in for what has no gradient (stand_in); or {STRONGER}.",
        )  # fmt: skip
    known = [one for one in found if one["images"]]
    if not known:
        return Finding.not_applicable(CHECK, "The loss hardly changes along any direction.")
    images = sum(one["images"] for one in known)
    wrong = sum(one["disagree"] * one["images"] for one in known) / images
    median = min(one["median"] for one in known)
    evidence = {"images": images, "disagree": round(wrong, 4), "median_correlation": median}
    numbers = (
        f"the correlation of derivatives and differences is below .9 on {percent(wrong)} of "
        f"{images} images (median {median:.3f})"
    )
    if wrong > DISAGREE:
        return Finding(
            CHECK, "alarm", f"The gradient lies about how the loss changes: {numbers}.", evidence,
            f"Do not trust attacks that follow it: {STRONGER}.",
        )  # fmt: skip
    return Finding(CHECK, "pass", f"The gradient tells how the loss changes: {numbers}.", evidence)
