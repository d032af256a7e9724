"""Do gradients of a noisy model that are averaged over more draws still lower the accuracy?

After Athalye et al. 2018 (arXiv 1802.00420, section 4.2): expectation over transformation. A
gradient of too few draws points anywhere, and what looks robust is the noise in the attack.
"""

from __future__ import annotations

from collections.abc import Sequence

from robench.digest import canonical
from robench.show.diagnostics.estimate import LEAST, difference, percent, share
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject, settings
from robench.show.results import Threat

DRAWS = "draws per gradient"


@check(DRAWS)
def averaging(subject: Subject) -> Judged:
    """The accuracy still falls where gradients are averaged over more draws.

    Inputs: noisy models; white-box attacks that are the same but for the draws that each gradient
        is averaged over (eot), within one ball.
    Computation: accuracy against the draws; by how much the most draws leave less than the
        strongest of the others, paired by image and seed, bootstrap interval.
    Threshold: alarm where the fall is more than one point and its interval lies above zero: as
        many draws as the attacks of the report can spare are then too few.
    """
    if not subject.stochastic:
        return not_applicable("The model is not noisy.")
    curves = by_draws(subject.white_box)
    if not curves:
        return not_applicable("No attack was run with several numbers of draws.")
    falls = []
    for curve in curves:
        fewer = min(curve[:-1], key=subject.accuracy)
        fall = difference(subject.known(fewer) - subject.known(curve[-1]), len(curves))
        falls.append((fall, fewer, curve))
    fall, fewer, curve = max(falls, key=lambda item: item[0].low)
    draws = [draws_of(threat) for threat in curve]
    left = [share(subject.known(threat)) for threat in curve]
    evidence = {
        "attacks": [threat["name"] for threat in curve],
        "draws": draws,
        "accuracy": [one.evidence() for one in left],
        "fall": fall.evidence(),
    }
    at = ", ".join(f"{percent(one.value)} at {n}" for n, one in zip(draws, left, strict=True))
    numbers = f"{at} draws; from {draws_of(fewer)} to {draws[-1]} it falls by {fall.points} points"
    if fall.value > LEAST and fall.low > 0:
        return alarm(
            f"Averaging gradients over more draws still lowers the accuracy: {numbers}.", evidence,
            "Average over more draws (eot) until two numbers agree; until then the accuracy is an "
            "upper bound.",
        )  # fmt: skip
    return passed(f"Averaging gradients over more draws does little more: {numbers}.", evidence)


def by_draws(threats: Sequence[Threat]) -> list[list[Threat]]:
    """Attacks that differ in nothing but the draws per gradient, by their number: one list for each
    attack that was run with several."""
    alike: dict[str, dict[int, Threat]] = {}
    for threat in threats:
        fields = {key: value for key, value in settings(threat).items() if key != "eot"}
        ball = [threat["norm"], threat["eps"], threat["access"], threat.get("surrogate")]
        if "eot" in settings(threat):
            alike.setdefault(canonical([fields, ball]), {})[draws_of(threat)] = threat
    return [
        [threat for _, threat in sorted(same.items())] for same in alike.values() if len(same) > 1
    ]


def draws_of(threat: Threat) -> int:
    return int(settings(threat).get("eot") or 1)
