"""Does an attack make a model better? Then it was told the wrong thing, or heals what was wrong."""

from __future__ import annotations

from robench.show.diagnostics.estimate import difference, percent
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject


@check("above clean")
def above_clean(subject: Subject) -> Judged:
    """Accuracy under an attack exceeds that on clean images: the attack flees the class that the
    model answers, or goes towards the right one, so that images that were wrong are healed.

    Inputs: the clean cell, and all attacks but noise floors.
    Computation: accuracy under each attack minus the clean one, paired by image and seed, bootstrap
        interval corrected for the number of attacks.
    Threshold: alarm where the interval of the largest lies above zero. An attacker that gains
        nothing can leave every image as it is.
    """
    attacks = [threat for threat in subject.attacks if threat["role"] != "floor"]
    if subject.clean is None or not attacks:
        return not_applicable("Clean images and an attack were not both met.")
    clean = subject.known(subject.clean)
    above = max(attacks, key=subject.accuracy)
    higher = [t for t in attacks if subject.accuracy(t) > subject.accuracy(subject.clean)]
    gains = [(difference(subject.known(t) - clean, len(attacks)), t) for t in higher or [above]]
    gained, threat = max(gains, key=lambda item: item[0].low)
    evidence = {
        "attack": threat["name"],
        "clean_accuracy": round(float(clean.mean()), 4),
        "accuracy": round(subject.accuracy(threat), 4),
        "gain": gained.evidence(),
    }
    numbers = (
        f"{percent(subject.accuracy(threat))} under {threat['name']}, "
        f"{percent(float(clean.mean()))} on clean images"
    )
    if gained.low > 0:
        return alarm(
            f"An attack makes the model better: {numbers}.", evidence,
            "Hand the attack the labels that it means (a wrong class where it goes towards one), "
            "and let it leave images as they are that are wrong already.",
        )  # fmt: skip
    return passed(f"No attack leaves more than there was: {numbers}.", evidence)
