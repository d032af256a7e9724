"""The threats that `robench.evaluate` is asked for: names, settings, instances, at radii of one's
own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from robench.attacks.base import Attack
from robench.errors import RobenchError, explain, nearest
from robench.show.report.text import radius
from robench.workspace import plugins
from robench.workspace.cards import AnyCard, AttackCard, ReportCard, as_number
from robench.workspace.folders import Workspace

GREY, COLOUR = 0.1, 8 / 255
"""L-infinity radii where none is said: of images with one channel, and of all others."""
Wanted = str | Mapping[str, Any] | Attack


@dataclass(frozen=True)
class Asked:
    """A report whose models are still to be named, the cards it needs, and what to say of it."""

    report: ReportCard
    cards: tuple[AttackCard, ...]
    said: str


def threats_asked(
    workspace: Workspace,
    report: str,
    attacks: Sequence[Wanted] | None,
    corruptions: Sequence[str] | None,
    *,
    norm: str | None,
    eps: float | Sequence[float] | None,
    channels: int,
    goal: str | None = None,
    aim: int | str | None = None,
) -> Asked:
    """What `report` and `attacks` mean, at the radii that are asked for.

    Args:
        report: a report card, a folder of attack cards, or one attack card.
        attacks: instead of the report's: names or patterns of cards; mappings with what an attack
            card says, or with an attack's name and settings; instances of Attack.
        norm: None: as the cards say. eps: radii of all attacks in that norm, the first for the
            headline; None: those of a report card and of mappings as they are; of cards that
            robench brings along, the usual one for such images.
        channels: of an image.
        goal, aim: of all attacks, as in a card; those that go towards no class are left out.

    Raises RobenchError for names that are not known and settings that do not fit.
    """
    own = attacks is not None or corruptions is not None
    card, names = _report(workspace, report, own)
    given = _given(workspace, attacks) if own else _named(workspace, names, card.file)
    keeps = card.name in workspace.known("reports") and not own
    radii = _radii(eps)
    made: dict[str, AttackCard] = {}
    # Cards of the user's workspace keep their radius, but not those that robench brings along.
    own_cards = workspace.names("attacks") if workspace.fallback is not None else ()
    for one_asked, kept in given:
        kept = kept or keeps or one_asked.name in own_cards
        attack = _towards(one_asked, goal, aim)
        if attack is None:
            continue
        for one in _at(attack, norm, radii, None if kept else (GREY if channels == 1 else COLOUR)):
            made[one.name] = one
    if given and not made:
        why = f"norm = {norm!r}: none of the attacks asked for works in it"
        if goal == "targeted":
            why = "goal = 'targeted': none of the attacks asked for goes towards a class"
        raise RobenchError(f"evaluate: {why}")
    update: dict[str, Any] = {"attacks": tuple(made)}
    if own:
        update["corruptions"] = tuple(corruptions or ())
    return Asked(card.model_copy(update=update), tuple(made.values()), _said(list(made.values())))


def held_card(kind: type[AnyCard], workspace: Workspace, name: str, **values: Any) -> AnyCard:
    """A card that is in no file. Raises RobenchError in the words of `robench.evaluate`."""
    return _checked(kind, {**values, "name": name, "root": workspace.root})


def _checked(kind: type[AnyCard], values: Mapping[str, Any]) -> AnyCard:
    try:
        return kind(**values)
    except ValidationError as error:
        raise RobenchError(f"evaluate: {explain(error, set(kind.model_fields))}") from None


def _report(workspace: Workspace, wanted: str, own: bool) -> tuple[ReportCard, tuple[str, ...]]:
    """The report that is meant, whichever models it names itself, and its attacks' patterns."""
    known, cards = workspace.known("reports"), workspace.known("attacks")
    sets = {name.rpartition("/")[0] for name in cards} - {""}
    if wanted in known:
        card = workspace.card("reports", wanted)
        about_models = ("claims", "baselines", *(("transfer",) if own else ()))
        return card.model_copy(update=dict.fromkeys(about_models, ())), card.attacks
    if not (own or wanted in sets or wanted in cards):
        raise RobenchError(
            f"evaluate: report = {wanted!r}: neither a report card nor a set of attacks; "
            f"{nearest(wanted, [*known, *sets, *cards])}"
        )
    title = "Own threats" if own else f"Attacks: {wanted}"
    pattern = f"{wanted}/*" if wanted in sets else wanted
    made = held_card(ReportCard, workspace, wanted, title=title, models=("*",))
    return made, (pattern,)


def _named(
    workspace: Workspace, patterns: Sequence[str], asked_by: str
) -> list[tuple[AttackCard, bool]]:
    """Attack cards by name or pattern, none of which keeps its radius for sure."""
    names = workspace.select("attacks", patterns, asked_by) if patterns else []
    return [(workspace.card("attacks", name), False) for name in names]


def _given(workspace: Workspace, attacks: Sequence[Wanted] | None) -> list[tuple[AttackCard, bool]]:
    """Attack cards in the order asked for, and whether their radius was said with them."""
    cards: list[tuple[AttackCard, bool]] = []
    if isinstance(attacks, (str, Mapping, Attack)):
        attacks = [attacks]
    for wanted in attacks or ():
        if isinstance(wanted, str):
            cards += _named(workspace, [wanted], "evaluate")
        elif isinstance(wanted, Attack):
            cards.append((_of_instance(workspace, wanted), False))
        elif isinstance(wanted, Mapping):
            cards.append((_of_mapping(workspace, wanted), "eps" in wanted))
        else:
            raise RobenchError(
                f"evaluate: attacks: {type(wanted).__name__}; give names of cards, "
                "{'name': 'pgd', 'steps': 50}, or instances of robench.Attack"
            )
    counts: dict[str, int] = {}
    for place, (card, kept) in enumerate(cards):  # the same attack with other settings
        counts[card.name] = counts.get(card.name, 0) + 1
        if counts[card.name] > 1:
            name = f"{card.name}-{counts[card.name]}"
            cards[place] = card.model_copy(update={"name": name}), kept
    return cards


def _of_mapping(workspace: Workspace, wanted: Mapping[str, Any]) -> AttackCard:
    """`{"attack": ..., "eps": ...}` as in a card, or `{"name": "pgd", "steps": 50, "eps": ...}`."""
    values = dict(wanted)
    if "attack" not in values:
        about_the_card = set(AttackCard.model_fields) - {"name", "root", "attack"}
        if values.get("access") != "transfer":
            about_the_card -= {"surrogate"}  # the attack's: a derivative, not a model
        if values.get("goal") not in ("targeted", "untargeted"):
            about_the_card.discard("goal")  # which attacks may have as a setting of their own
        settings = {key: item for key, item in values.items() if key not in about_the_card}
        values = {key: item for key, item in values.items() if key in about_the_card}
        if "name" not in settings:
            raise RobenchError(f"evaluate: attacks: {dict(wanted)!r}: 'name' says which attack")
        values["attack"] = settings
    attack = values["attack"]
    name = attack["name"] if isinstance(attack, Mapping) else str(attack)
    plugin = plugins.load("attacks", name)
    values.setdefault("access", plugin.needs)  # type: ignore[attr-defined]
    values.setdefault("norm", plugin.norms[0])  # type: ignore[attr-defined]
    values.setdefault("eps", GREY)
    return held_card(AttackCard, workspace, name, **values)


def _of_instance(workspace: Workspace, attack: Attack) -> AttackCard:
    name = plugins.held("attacks", type(attack))
    settings = {key: getattr(attack, key) for key in type(attack).fields().model_fields}
    values = {"access": attack.needs, "norm": attack.norms[0], "eps": GREY}
    spec = {"name": name, **settings}
    return held_card(AttackCard, workspace, type(attack).__name__, attack=spec, **values)


def _radii(eps: float | Sequence[float] | None) -> tuple[float, ...]:
    if eps is None:
        return ()
    given = eps if isinstance(eps, (list, tuple)) else (eps,)
    try:
        radii = tuple(float(as_number(one)) for one in given)
    except (TypeError, ValueError):
        raise RobenchError(f"evaluate: eps = {eps!r}: a radius, as in 8/255, or a list") from None
    if not radii or not all(one >= 0 for one in radii):
        raise RobenchError(f"evaluate: eps = {eps!r}: radii are at least 0")
    return radii


def _towards(card: AttackCard, goal: str | None, aim: int | str | None) -> AttackCard | None:
    """The card with the goal asked for; None where its attack cannot have it."""
    if goal is None and aim is None:
        return card
    if goal not in ("targeted", "untargeted"):
        said = 'goal = "targeted"' if goal is None else f"goal = {goal!r}"
        raise RobenchError(
            f"evaluate: {said}: say goal = 'targeted' where you say an aim, or 'untargeted'"
        )
    changed = held_like(card, goal=goal, aim=aim)
    attack = plugins.build("attacks", card.attack, card)
    own = getattr(attack, "targets", 0) or getattr(attack, "goal", "untargeted") != "untargeted"
    if goal == "targeted" and (card.role == "proof" or own or not attack.targeted):
        return None
    return changed


def _at(
    card: AttackCard, norm: str | None, radii: tuple[float, ...], usual: float | None
) -> list[AttackCard]:
    """The card at the radii asked for: the first counts, the others are a curve. Nothing where it
    does not work in the norm."""
    plugin = plugins.load("attacks", card.attack.name, card)
    if norm is not None and norm != card.norm:
        if norm not in plugin.norms:  # type: ignore[attr-defined]
            return []
        card = card.model_copy(update={"norm": norm})
        if not radii and card.norm != "linf":
            raise RobenchError(f"evaluate: norm = {norm!r}: say eps, as there is no usual radius")
    if isinstance(card.eps, tuple):
        return [card]
    if not radii:
        if usual is None or card.norm != "linf" or not 0 < card.eps < math.inf:
            return [card]
        radii = (usual,)
    first = held_like(card, eps=radii[0])
    if len(radii) == 1:
        return [first]
    curve = {"name": f"{card.name}-curve", "eps": tuple(sorted(set(radii))), "role": "curve"}
    return [first, held_like(card, **curve)]


def held_like(card: AttackCard, **changes: Any) -> AttackCard:
    """The card with some values changed, and checked again."""
    values = {key: getattr(card, key) for key in type(card).model_fields}
    return _checked(AttackCard, {**values, **changes})


def _said(cards: Sequence[AttackCard]) -> str:
    """The balls of the attacks that count, for people: `linf, eps = 8/255`."""
    balls = [
        f"{card.norm}, eps = {radius(card.eps)}"
        for card in cards
        if card.role in ("attack", "diagnostic") and not isinstance(card.eps, tuple)
    ]
    return "; ".join(dict.fromkeys(balls))
