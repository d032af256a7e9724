"""`robench check`: are the cards of a workspace valid, and do its plugins keep their contracts?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robench.checks.apart import apart
from robench.checks.attacks import check_attack
from robench.checks.corruptions import check_corruption
from robench.checks.data import check_dataset
from robench.checks.finding import Result, raised
from robench.checks.networks import Make as NetworkMake
from robench.checks.networks import Shape, check_network
from robench.checks.trainers import check_trainer
from robench.data.base import Splits
from robench.data.files import NotHere, offline
from robench.data.graph import Graph
from robench.data.loading import load_splits
from robench.digest import canonical
from robench.errors import RobenchError, nearest, resolved
from robench.make.goals import check_goal
from robench.make.scoring import check_fit
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.plugin_code.time_limit import STOPS
from robench.workspace import plugins
from robench.workspace.cards import AttackCard, Card, ModelCard, ReportCard, Spec
from robench.workspace.folders import FOLDERS, Folder, Workspace
from robench.workspace.plan import make_plan
from robench.workspace.plugins import Kind

LIMIT = 1800.0
"""Seconds that the contract test of a plugin may take."""


@dataclass(frozen=True)
class Checked:
    """A card or a plugin, and what was found."""

    what: str
    findings: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True)
class _Wanted:
    cards: Sequence[tuple[Folder, str]]
    named: bool
    """Whether the user asked for these: then built-in plugins are tested too."""
    file: Path | None = None
    plugin: tuple[Kind, str] | None = None


def check(workspace: Workspace, wanted: str | None = None) -> Iterator[Checked]:
    """Check the cards of a workspace and the plugins that come from outside robench.

    Args:
        wanted: only this: a card ("pgd" or "attacks/pgd"), a card's or plugin's file, or the name
            of a built-in or installed plugin. None: all cards of the workspace.

    Raises RobenchError when there is nothing of that name.
    """
    torch.set_num_threads(1)
    chosen = _choose(workspace, wanted)
    done: set[str] = set()
    for folder, name in chosen.cards:
        card_checked = _card(workspace, folder, name)
        yield card_checked
        if card_checked.passed:
            yield from _contracts(workspace.card(folder, name), chosen.named, done)
    if chosen.file is not None:
        for kind, plugin in plugins.classes_in(chosen.file, workspace.root):
            if not any(f'"{plugin.__name__}@' in work for work in done):
                what = f"{kind[:-1]} {chosen.file.name}:{plugin.__name__}"
                yield Checked(what, tuple(_by_default(kind, plugin)))
    if chosen.plugin is not None:
        kind, name = chosen.plugin
        results = _by_default(kind, plugins.load(kind, name))
        yield Checked(f"{kind[:-1]} {name}", tuple(results))


def _choose(workspace: Workspace, wanted: str | None) -> _Wanted:
    own = [(folder, name) for folder in FOLDERS for name in workspace.names(folder)]
    if wanted is None:
        return _Wanted(own, named=False)
    if wanted.endswith((".py", ".toml")):
        return _choose_file(workspace, wanted, own)
    every = [(folder, name) for folder in FOLDERS for name in workspace.known(folder)]
    cards = [(folder, name) for folder, name in every if wanted in (name, f"{folder}/{name}")]
    if cards:
        return _Wanted(cards, named=True)
    for kind in plugins.KINDS:
        if wanted in plugins.names(kind):
            return _Wanted((), named=True, plugin=(kind, wanted))
    known = {name for _, name in every}.union(*(plugins.names(kind) for kind in plugins.KINDS))
    raise RobenchError(f"check {wanted}: neither a card nor a plugin; {nearest(wanted, known)}")


def _choose_file(workspace: Workspace, wanted: str, own: Sequence[tuple[Folder, str]]) -> _Wanted:
    places = [
        resolved(place, f"check {wanted}") for place in (Path(wanted), workspace.root / wanted)
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None or not path.is_relative_to(workspace.root):
        why = "no such file" if path is None else "lies outside the workspace"
        raise RobenchError(f"check {wanted}: {why} ({workspace.root})")
    if path.suffix == ".py":
        cards = [(folder, name) for folder, name in own if _uses(workspace, folder, name, path)]
        return _Wanted(cards, named=False, file=path)
    cards = [card for card in own if workspace.root / f"{card[0]}/{card[1]}.toml" == path]
    if not cards:
        raise RobenchError(f"check {wanted}: cards lie in {', '.join(FOLDERS)}")
    return _Wanted(cards, named=True)


def _uses(workspace: Workspace, folder: Folder, name: str, path: Path) -> bool:
    try:
        card = workspace.card(folder, name)
    except RobenchError:
        return False
    texts = [
        text
        for _, spec in plugins.specs(card)
        for text in (spec.name, *spec.settings.values())
        if isinstance(text, str) and ".py:" in text
    ]
    return any(_same(card.home / text.partition(":")[0], path) for text in texts)


def _same(named: Path, path: Path) -> bool:
    try:
        return resolved(named, "") == path
    except RobenchError:
        return False


def lines(checked: Checked) -> Iterator[str]:
    """What a terminal shows of it: one line, and one more for each failure."""
    names = ", ".join(finding.check for finding in checked.findings if finding.passed)
    yield f"{'ok    ' if checked.passed else 'FAILED'}  {checked.what}: {names or 'nothing passed'}"
    failed: dict[str, list[str]] = {}  # one mistake often fails several checks
    for finding in checked.findings:
        if not finding.passed:
            failed.setdefault(finding.detail or "failed", []).append(finding.check)
    for detail, checks in failed.items():
        yield f"        {', '.join(checks)}: {detail}"


# -- cards -----------------------------------------------------------------------------------------


def _card(workspace: Workspace, folder: Folder, name: str) -> Checked:
    """What a card says is valid, and names what there is."""
    results: list[Result] = []
    try:
        card = workspace.card(folder, name)
        results.append(Result("card", True))
        _fields(card)
        results.append(Result("fields", True))
        _names(workspace, card)
        results.append(Result("names", True))
    except RobenchError as error:
        text = str(error).removeprefix(f"{folder}/{name}.toml: ")
        results.append(Result(("card", "fields", "names")[len(results)], False, text))
    return Checked(f"{folder}/{name}", tuple(results))


def _fields(card: Card) -> None:
    """Every plugin is there, and takes the settings that the card gives it."""
    for kind, spec in plugins.specs(card):
        plugins.resolve(kind, spec, card)
    if isinstance(card, AttackCard):
        attack = plugins.build("attacks", card.attack, card)
        check_fit(attack, card)
        check_goal(attack, card)


def _names(workspace: Workspace, card: Card) -> None:
    """Every card that this one names is there."""
    if isinstance(card, AttackCard) and card.surrogate is not None:
        workspace.card("models", card.surrogate)
    if not isinstance(card, ReportCard):
        return
    plan = make_plan(workspace, card.name)
    models = [model.name for model in plan.models]
    threats = [threat.name for threat in plan.threats]
    for key, names, known in (
        ("baselines", card.baselines, models),
        *(("claims", (c.model, c.than, c.control or c.model), models) for c in card.claims),
        *(("claims", (c.threat, c.strong), [*threats, "worst case"]) for c in card.claims),
    ):
        for name in names:
            if name not in known:
                raise RobenchError(f"{key}: {name!r} is not in the report; {nearest(name, known)}")


# -- plugins ---------------------------------------------------------------------------------------


def _contracts(card: Card, named: bool, done: set[str]) -> Iterator[Checked]:
    """The contract tests of a card's plugins; of robench's own only where they are asked for."""
    for kind, spec in plugins.specs(card):
        plugin = plugins.load(kind, spec.name, card)
        outside = spec.name not in plugins.BUILT_IN[kind]
        outside |= plugin.located(spec.settings, card) != spec.settings
        if kind == "datasets" and not outside:
            continue  # loading it may download it
        work = canonical([kind, plugins.resolve(kind, spec, card), _beside(kind, card)])
        if not (named or outside) or work in done:
            continue
        done.add(work)
        norm = card.norm if isinstance(card, AttackCard) else None
        network = _network_of(card) if isinstance(card, ModelCard) else None
        try:
            data = None if kind == "datasets" else _own_data(card)
        except RobenchError as error:
            results = [Result("builds", False, str(error))]
        else:
            results = contract(kind, _from_card(kind, spec, card), network, norm, data)
        yield Checked(f"{card.folder}/{card.name}, {kind[:-1]} {spec.name}", tuple(results))


def _own_data(card: Card) -> Splits | None:
    """The data set of a model card, where it is at hand: what is checked there is what runs. None
    where it would have to be downloaded."""
    if not isinstance(card, ModelCard):
        return None
    with offline():
        try:
            return load_splits(card)
        except NotHere:
            return None


def _beside(kind: Kind, card: Card) -> Any:
    """What else a contract test depends on."""
    if isinstance(card, ModelCard) and kind == "trainers":
        return plugins.resolve("networks", card.network, card)
    return card.norm if isinstance(card, AttackCard) else None


def _from_card(kind: Kind, spec: Spec, card: Card) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        changed = Spec(**{"name": spec.name, **spec.settings, **more})
        return plugins.build(kind, changed, card)

    return make


def _network_of(card: ModelCard) -> NetworkMake:
    def make(shape: Shape, classes: int, graph: Graph | None) -> Network:
        network: Network = plugins.build(
            "networks", card.network, card, input_shape=shape, classes=classes, graph=graph
        )
        return network

    return make


def _by_default(kind: Kind, plugin: type[Any]) -> list[Result]:
    """The contract test of a plugin that no card sets, as its own defaults have it."""
    return contract(kind, plugin, plugin if kind == "networks" else None)


def contract(
    kind: Kind,
    make: Callable[..., Any],
    network: NetworkMake | None = None,
    norm: str | None = None,
    data: Splits | None = None,
) -> list[Result]:
    """The contract test of one plugin.

    Args:
        make: builds the plugin; keywords override its settings.
        network: builds the network under test, or the one that a trainer trains (None: a small
            MLP).
        data: what networks and trainers are tried on; None: noise, and digits.
    """
    network = network or partial(MLP, hidden=(32,))
    tests: dict[Kind, Callable[[], list[Result]]] = {
        "attacks": lambda: check_attack(make, norm),
        "corruptions": lambda: check_corruption(make),
        "datasets": lambda: check_dataset(make),
        "trainers": lambda: check_trainer(make, network, data),
        "networks": lambda: check_network(network, data),
    }

    def tried() -> list[Result]:
        try:
            return tests[kind]()
        except STOPS:
            raise
        except BaseException as error:  # whatever a stranger's plugin raises
            return [Result("builds", False, raised(error))]

    try:
        return apart(tried, LIMIT, "its contract test")
    except RobenchError as error:
        return [Result("runs", False, str(error))]
