"""Is the network a function of its image? Memory, batches, and answers that are no numbers.

Asked before any attack, and again after each of them (robench/make/probes/asking.py): an attack,
and whoever scores it, need a network that answers the same question the same way.
"""

from __future__ import annotations

from typing import Any

from robench.show.diagnostics.estimate import percent
from robench.show.diagnostics.finding import Judged, alarm, check, not_applicable, passed
from robench.show.diagnostics.subject import Subject
from robench.show.results import Threat

MOVED = 0.02
"""Share of images whose answers may change by more than rounding: less than one of those asked."""
MOVED_IF_IT_JUMPS = 0.05
"""The same where rounding may turn a spike or a step."""
GAINED = 0.03
"""By how much more often a noisy model may be right when the copy that was attacked is asked."""


@check("memory")
def memory(subject: Subject) -> Judged:
    """The model answers otherwise when it was asked other questions before, or is differentiated.

    Inputs: of networks from outside, what the clean cell noted when copies made from the same bytes
        were asked twice, after near questions, with a graph, and, in a copy of the process, after
        an attack, and whether something was opened for writing there; and what each attack's cell
        noted when the copy that was attacked was asked about the final images, beside the fresh one
        that is scored.
    Computation: share of the images about which two of them disagree by more than rounding; of a
        noisy model, whose copies may be at another draw, by how much more often the attacked one is
        right.
    Threshold: alarm above 2% of the images (5% where steps or spikes may turn by rounding), at 3
        points, or where a file or connection was opened for writing.
    """
    asked, states = subject.noted(subject.clean, "asked"), _states(subject)
    if not asked and not states:
        return not_applicable(
            "The network is one of robench's own, which are tested to keep no state."
        )
    limit = MOVED_IF_IT_JUMPS if subject.jumps else MOVED
    seen = {
        "when it is asked twice": _most(asked, "again"),
        "in two copies of the same bytes": _most(asked, "copy"),
        "after questions about near images": _most(asked, "after near questions"),
        "when it is differentiated": _most(asked, "graph"),
        "after an attack on other copies": _most(asked, "after an attack"),
    }
    if subject.stochastic and seen["in two copies of the same bytes"] <= limit:
        # Noise from a source inside the network goes on from question to question.
        del seen["when it is asked twice"]
    attacked = [(float(state["attacked"]), name) for name, state in states if "attacked" in state]
    gained = [(float(state["gain"]), name) for name, state in states if "gain" in state]
    evidence: dict[str, Any] = {
        "share_of_answers_that_change": seen,
        "after_an_attack": {name: value for value, name in attacked},
        "gain_after_an_attack": {name: value for value, name in gained},
    }
    how, most = max(seen.items(), key=lambda item: item[1])
    said = []
    if any(one.get("writes") for one in asked):
        said.append("it opens files or connections for writing while it answers")
    if most > limit:
        said.append(f"{percent(most)} of its answers change {how}")
    if attacked and max(attacked)[0] > limit:
        said.append(
            f"the copy that {max(attacked)[1]} has attacked answers otherwise about "
            f"{percent(max(attacked)[0])} of the final images than a fresh one"
        )
    if gained and max(gained)[0] > GAINED:
        said.append(
            f"the copy that {max(gained)[1]} has attacked is right {percent(max(gained)[0])} of "
            "the images more often than a fresh one"
        )
    if said:
        return alarm(
            f"The network is no function of its image: {'; '.join(said)}.",
            evidence,
            "Reset what the network keeps (membranes, caches, counters) at the start of forward, "
            "and draw noise from torch's global generator; until then no attack has met the "
            "network that is scored.",
        )
    return passed(
        "Asked again, after near questions, with gradients and after each attack, it answers the "
        "same.",
        evidence,
    )


@check("batches")
def batches(subject: Subject) -> Judged:
    """The answer about an image depends on the batch that it comes in.

    Inputs: of networks from outside without noise, what the clean cell noted when images were asked
        about alone, in another order and in strange company; and what each attack's cell noted when
        the final images came in the opposite order and in smaller batches.
    Computation: share of the images whose answer changes by more than rounding.
    Threshold: alarm above 2% of the images (5% where steps or spikes may turn by rounding).
    """
    asked, states = subject.noted(subject.clean, "asked"), _states(subject)
    turned = [(float(state["order"]), name) for name, state in states if "order" in state]
    if not any("alone" in one for one in asked) and not turned:
        return not_applicable(
            "The network is one of robench's own, or noisy: its draws go by batch."
        )
    seen = {
        "one by one": _most(asked, "alone"),
        "in another order or smaller batches": max(
            [_most(asked, "order"), *(value for value, _ in turned)]
        ),
        "in other company": _most(asked, "company"),
    }
    evidence = {"share_of_answers_that_change": seen}
    how, most = max(seen.items(), key=lambda item: item[1])
    if most > (MOVED_IF_IT_JUMPS if subject.jumps else MOVED):
        return alarm(
            f"The answer about an image depends on its batch: {percent(most)} of the answers "
            f"change when images come {how}.",
            evidence,
            "Let every image be answered about by itself: fixed statistics in normalisation, no "
            "sums or sorting over the batch, no counters.",
        )
    return passed(
        "Images get the same answers alone, in company, in another order and in smaller batches.",
        evidence,
    )


@check("numbers")
def numbers(subject: Subject) -> Judged:
    """The model answers NaN, infinities or an exception, or offers no gradient to a white-box
    attack.

    Inputs: how many images of each cell some answer was no number for; why an attack that follows
        gradients had none, and was made without (attacks/without_gradients.py).
    Computation: the largest share of the images, over all cells; the attacks that went without.
    Threshold: alarm at one image, or one such attack.
    """
    if subject.clean is None:
        return not_applicable("The clean images were not met.")
    silent: list[tuple[float, Threat]] = []
    why: dict[str, str] = {}
    for threat in [subject.clean, *subject.attacks]:
        count = sum(map(int, subject.noted(threat, "no_number")))
        silent.append((count / subject.known(threat).size, threat))
        for reason in filter(None, subject.noted(threat, "without_gradients")):
            why[threat["name"]] = str(reason)
    most, where = max(silent, key=lambda item: item[0])
    evidence = {
        "without_a_number": {threat["name"]: round(part, 4) for part, threat in silent if part},
        "without_gradients": why,
    }
    said = []
    if most > 0:
        said.append(
            f"it answers {percent(most)} of the images under {where['name']} with NaN, an infinity "
            "or an exception, which counts as wrong"
        )
    if why:
        reason = next(iter(why.values())).split(" (")[0].split(":")[0]
        said.append(
            f"{len(why)} attacks that follow gradients ({', '.join(list(why)[:3])}) were made by "
            f"scores and a fitted network instead, since {reason}"
        )
    if said:
        return alarm(
            f"The model does not answer as attacks need: {'; '.join(said)}.",
            evidence,
            "Read the worst case as an upper bound: let the network answer with finite logits "
            "everywhere, and name a differentiable stand-in for what has no gradient (stand_in).",
        )
    return passed("Every answer is a number, and every attack had its gradients.", evidence)


def _states(subject: Subject) -> list[tuple[str, dict[str, Any]]]:
    """What each attack's cell noted, of every seed."""
    return [(t["name"], state) for t in subject.attacks for state in subject.noted(t, "state")]


def _most(asked: list[dict[str, Any]], name: str) -> float:
    """Over all seeds."""
    return max((float(one[name]) for one in asked if name in one), default=0.0)
