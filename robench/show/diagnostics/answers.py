"""Does the model answer as it says it does? Determinism, and logits where logits are expected."""

from __future__ import annotations

import numpy as np

from robench.show.diagnostics.estimate import percent, share
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject

ROUNDING = 1e-3
"""Relative change of logits that the order of sums on a GPU can make."""


@check("determinism")
def determinism(subject: Subject) -> Judged:
    """Two answers to the same image differ although the model says that it is deterministic.

    Inputs: the clean cell, where such a model is asked twice; the largest difference between the
        logits of the two answers, relative to the largest logit, where the cell noted it.
    Computation: share of the images whose two predictions differ, over all seeds.
    Threshold: alarm at one image, or where logits differ by more than a thousandth: the same
        numbers in the same order give the same bits, or nearly so on a GPU.
    """
    if subject.stochastic:
        return not_applicable("The model says that it is noisy; it is scored over several draws.")
    if subject.clean is None or "stochastic" not in subject.model:
        return not_applicable("The clean images were not met.")
    answers = subject.predictions(subject.clean)
    if answers.shape[2] < 2:
        return not_applicable("The model was asked once about each image.")
    differ = (answers != answers[:, :, :1]).any(axis=2).astype(float)
    moved = max(float(cell.get("between_draws") or 0) for cell in subject.cells(subject.clean))
    evidence = {
        "images_that_changed": [int(count) for count in differ.sum(axis=1)],
        "share": share(differ).evidence(),
        "largest_change_of_a_logit": round(moved, 6),
    }
    if differ.any() or moved > ROUNDING:
        return alarm(
            "The model says that it is deterministic, but when it was asked again about the clean "
            f"images, {percent(float(differ.mean()))} of its predictions changed, and its logits "
            f"by up to {percent(moved)} of the largest.",
            evidence,
            "Let the network say so (random_input, or noisy layers with inference_noise = true): "
            "it is then scored over several draws and attacked through its expectation (eot).",
        )  # fmt: skip
    return passed("Asked twice about the clean images, the model answers the same.", evidence)


@check("outputs")
def outputs(subject: Subject) -> Judged:
    """The outputs are probabilities where logits are expected.

    Inputs: whether all answers of a cell are points of the simplex (non-negative, summing to one).
    Computation: over the clean cells of all seeds.
    Threshold: alarm where it holds of any seed; logits do not do that by chance.
    """
    seen = subject.noted(subject.clean, "probabilities")
    if not seen:
        return not_applicable("The clean images were not met.")
    evidence = {"seeds_with_probabilities": int(np.sum(seen)), "seeds": len(seen)}
    if any(seen):
        return alarm(
            "The outputs are probabilities: the attacks' loss puts a second softmax on them, which "
            "flattens the gradient.",
            evidence, "Return logits, without the last softmax, and run again.",
        )  # fmt: skip
    return passed("The outputs are logits, not probabilities.", evidence)
