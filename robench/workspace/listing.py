"""What `list`, `show` and `plan` say. Listing imports neither torch nor any plugin."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterable

from robench.errors import RobenchError, nearest
from robench.workspace import plugins
from robench.workspace.cards import AttackCard, Card, CorruptionCard, ModelCard, ReportCard, Spec
from robench.workspace.folders import FOLDERS, Folder, Workspace
from robench.workspace.plan import Plan

Row = tuple[str, ...]


def rows(workspace: Workspace, what: str) -> tuple[Row, list[Row]]:
    """Header and rows of `robench list WHAT`."""
    kind = next((kind for kind in plugins.KINDS if kind == what), None)
    folder = next((folder for folder in FOLDERS if folder == what), None)
    if folder is None:
        assert kind is not None
        return PLUGIN_HEADER, [(name, plugins.summary(kind, name)) for name in plugins.names(kind)]
    own = dict.fromkeys(workspace.names(folder))
    names = own | dict.fromkeys(workspace.known(folder))  # those of the reference workspace last
    listed = [(name, *_columns(workspace.card(folder, name))) for name in names]
    return ("name", *HEADERS[folder]), listed


PLUGIN_HEADER: Row = ("name", "what it is")
HEADERS: dict[Folder, Row] = {
    "models": ("data set", "network", "trainer", "seeds", "description"),
    "attacks": ("attack", "access", "norm", "eps", "description", "paper"),
    "corruptions": ("corruption", "kinds", "severities", "description"),
    "reports": ("models", "attacks", "corruptions", "images", "title"),
}


def _columns(card: Card) -> Row:
    match card:
        case ModelCard():
            seeds = " ".join(str(seed) for seed in card.seeds)
            specs = card.dataset.name, card.network.name, card.trainer.name
            return (*specs, seeds, card.description)
        case AttackCard():
            radii = card.eps if isinstance(card.eps, tuple) else (card.eps,)
            eps = " ".join(f"{value:g}" for value in radii)
            access = f"transfer from {card.surrogate}" if card.surrogate else card.access
            return card.attack.name, access, card.norm, eps, card.description, card.paper
        case CorruptionCard():
            kinds = card.corruption.settings.get("kinds")
            number = str(len(kinds)) if kinds else "all"
            severities = " ".join(str(value) for value in card.severities)
            return card.corruption.name, number, severities, card.description
        case ReportCard():
            lists = (" ".join(part) for part in (card.models, card.attacks, card.corruptions))
            return (*lists, str(card.images), card.title)
    raise TypeError(type(card))


def details(workspace: Workspace, what: str) -> Iterable[str]:
    """The lines of `robench show FOLDER/NAME`."""
    folder_name, _, name = what.partition("/")
    folder = next((folder for folder in FOLDERS if folder == folder_name), None)
    if folder is None or not name:
        raise RobenchError(
            f"show {what!r}: say FOLDER/NAME as in models/digits/mlp-bp; "
            f"{nearest(folder_name, FOLDERS)}"
        )
    card = workspace.card(folder, name)
    yield f"{card.root / card.file}"
    for key, value in card.says().items():
        if not isinstance(getattr(card, key), Spec):
            yield f"{key} = {json.dumps(value)}"
    for kind, spec in plugins.specs(card):
        fields = plugins.resolve(kind, spec, card)
        plugin = plugins.load(kind, spec.name, card)
        place = f"{inspect.getsourcefile(plugin)}:{inspect.getsourcelines(plugin)[1]}"
        yield f"\n{kind[:-1]} {spec.name}: {plugin.__name__} in {place}"
        given = spec.settings
        for field, value in fields.items():
            if field not in ("plugin", "version"):
                yield f"  {field} = {json.dumps(value)}" + ("" if field in given else "  (default)")
        yield f"  version {fields['version']}"


def plan_lines(plan: Plan) -> Iterable[str]:
    """The lines of `robench plan REPORT`."""
    report = plan.report
    yield f"{report.title}"
    own = {model.name for model in plan.models}
    yield f"\ntrainings: {len(plan.trainings)}"
    seeds = Counter(training.card.name for training in plan.trainings)
    for name, number in seeds.items():
        extra = "" if name in own else "  (surrogate)"
        yield f"  {name}: {number} seed{'s' * (number > 1)}{extra}"
    yield f"\nthreats: {len(plan.threats)}"
    for threat in plan.threats:
        if threat.kind == "attack":
            card = threat.attack
            only = "" if card.meets == "all" else ", noisy models only"
            yield f"  {threat.name}: {card.access}, {card.norm} eps {threat.eps:g}{only}"
        else:
            yield f"  {threat.name}"
    some = any(t.kind == "attack" and t.attack.meets != "all" for t in plan.threats)
    fewer = "; fewer where models turn out not to be noisy" if some else ""
    yield f"\ncells: {len(plan.cells)}, of {report.images} images each{fewer}"
