"""`robench.evaluate`: a torch module that robench did not train, through the plan, the run and the
page that every report goes through; and what it returns, for people in notebooks."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import pandas as pd
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import nn

from robench.cards import AnyCard, ModelCard, ReportCard, explain
from robench.diagnostics.finding import Verdict
from robench.diagnostics.verdicts import diagnose
from robench.errors import RobenchError, nearest
from robench.identity import load_splits
from robench.leaderboard import column_name, leaderboard
from robench.networks.module import handed_over
from robench.report import PAGE, write_report
from robench.report.text import percent
from robench.results import Results
from robench.run import make_results
from robench.store import Store
from robench.workspace import Workspace, open_workspace

NAME = re.compile(r"[\w.+/-]+")
SUMMARY = {
    "worst_case": "worst case over attacks",
    "clean": "clean",
    "average_attacks": "average over attacks",
    "average_corruptions": "average over corruptions",
}


@dataclass(frozen=True)
class Evaluation:
    """How a module fared: shown as a table in notebooks.

    results: every outcome, as reports have them. name: what the module is called in them.
    """

    results: Results = field(repr=False)
    name: str

    def to_pandas(self) -> pd.DataFrame:
        """The leaderboard, one row per model; columns as in a report's leaderboard.csv."""
        return self._table.copy()

    def to_html(self, path: str | Path) -> Path:
        """Write the report's page, one file that needs no other; returns its path."""
        path = Path(path).expanduser().resolve()
        with tempfile.TemporaryDirectory() as folder:
            page = self.to_folder(folder) / PAGE
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(page.read_bytes())
            except OSError as error:
                raise RobenchError(f"{path}: cannot be written: {error.strerror}") from error
        return path

    def to_folder(self, folder: str | Path) -> Path:
        """Write what `robench run` publishes: the page, and its numbers and outcomes beside it."""
        return write_report(self.results, Path(folder).expanduser().resolve()).parent

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Whether the numbers of each model are to be believed, and why not."""
        return diagnose(self.results)

    @cached_property
    def _table(self) -> pd.DataFrame:
        return leaderboard(self.results)

    @property
    def _row(self) -> pd.Series:
        return self._table[self._table["model"] == self.name].iloc[0]

    def __str__(self) -> str:
        row = self._row
        lines = [f"{self.name} on {row['dataset']}, {row['images']} images"]
        lines += [f"  {said}: {_shown(row, key)}" for key, said in _summary(row).items()]
        verdict = self.verdicts[self.name]
        lines.append(f"  diagnostics: {verdict['verdict']}")
        lines += [f"    {alarm['text']}" for alarm in verdict["alarms"]]
        lines += [
            f"  {failed['status']}: {failed['of']}: {failed['error']}" for failed in self._gaps
        ]
        return "\n".join(lines)

    @property
    def _gaps(self) -> list[dict[str, str]]:
        return [failed for failed in self.results.failures() if failed["model"] == self.name]

    def _repr_html_(self) -> str:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("robench.report", "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        row = self._row
        shown = [
            (threat, _shown(row, column_name(threat["name"])))
            for threat in self.results.threats
            if threat["kind"] != "corruption"
        ]
        kinds = [(kind, _shown(row, column_name(kind))) for kind in self.results.kinds]
        return environment.get_template("notebook.html.j2").render(
            name=self.name,
            dataset=row["dataset"],
            images=row["images"],
            title=self.results.manifest["report"]["title"],
            summary=[(said, _shown(row, key)) for key, said in _summary(row).items()],
            threats=shown,
            kinds=kinds,
            verdict=self.verdicts[self.name],
            gaps=self._gaps,
        )


def _summary(row: pd.Series) -> dict[str, str]:
    return {key: said for key, said in SUMMARY.items() if not pd.isna(row[key])}


def _shown(row: pd.Series, column: str) -> str:
    """Accuracy in per cent with its 95% interval."""
    value, low, high = (row[column + suffix] for suffix in ("", "_low", "_high"))
    return "–" if pd.isna(value) else f"{percent(value)}% ({percent(low)}–{percent(high)})"


def evaluate(
    module: nn.Module,
    dataset: str | Mapping[str, Any],
    report: str = "strong",
    *,
    attacks: Sequence[str] | None = None,
    corruptions: Sequence[str] | None = None,
    images: int | None = None,
    beside: Sequence[str] = (),
    name: str | None = None,
    outputs: Literal["logits", "probabilities"] = "logits",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    stochastic: bool = False,
    workspace: str | Path | None = None,
    store: str | Path | None = None,
    device: str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Attack, corrupt and diagnose a trained module as a report does its models.

    What was evaluated before is read from the store. The module itself is left as it is.

    Args:
        module: images (n, c, h, w), float32 in [0, 1] -> (n, classes).
        dataset: a data set by name, or {"name": ..., "split": ...} as in a model card.
        report: a report card, whose threats the module meets (its models are left out), or a set of
            attacks: a folder of attack cards ("strong") or one card ("pgd").
        attacks, corruptions: names or patterns of cards instead of those of `report`.
        images: test images per cell; None: as the report says, at most as many as there are.
        beside: model cards to be trained and measured beside the module.
        name: what the module is called; None: its class.
        outputs: what the module answers. mean, std: of each channel, where the module wants
            normalised images. stochastic: whether two answers to one image may differ.
        workspace: folder whose cards are meant; None: the one at hand, as in the command line.
        store: folder or fsspec URL of results; None: .robench in the workspace.
        device: None: CUDA where there is one.
        jobs: processes; more than one needs a module that pickles and whose class is in a file.
        progress: whether bars are drawn.

    Raises RobenchError for bad input, and where the module does not answer as it should.
    """
    if not isinstance(module, nn.Module):
        raise RobenchError(f"evaluate: {type(module).__name__} is not a torch.nn.Module")
    name = name or type(module).__name__
    if not NAME.fullmatch(name):
        raise RobenchError(f"evaluate: name = {name!r}: letters, digits and . _ + / - only")
    here = open_workspace(Path(workspace) if workspace is not None else None)
    factory, weights = handed_over(module)
    settings = {"outputs": outputs, "mean": tuple(mean), "std": tuple(std)}
    card = _card(
        ModelCard,
        here,
        name,
        description=f"{type(module).__name__}, handed over in Python",
        dataset=dict(dataset) if isinstance(dataset, Mapping) else dataset,
        network={"name": "module", "factory": factory, "stochastic": stochastic, **settings},
        trainer={"name": "given", "weights": weights},
    )
    asked = _report(here, report, attacks, corruptions)
    if images is None:
        images = min(asked.images, len(load_splits(card).test))
    asked = asked.model_copy(
        update={"name": f"evaluate/{name}", "models": (name, *beside), "images": images}
    )
    threads, steady = torch.get_num_threads(), torch.backends.cudnn.deterministic
    try:
        results = make_results(
            here.holding(card, asked),
            asked.name,
            store=Store(store if store is not None else here.output / ".robench"),
            console=Console(stderr=True, quiet=not progress),
            command=f"robench.evaluate({name}, dataset={dataset!r}, report={report!r})",
            device=device,
            jobs=jobs,
        )
    finally:
        # A run computes on one thread, with steady convolutions; the caller's own work need not.
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = steady
    if results.table(name, 0, "clean") is None:
        why = next(failed["error"] for failed in results.failures() if failed["model"] == name)
        raise RobenchError(f"evaluate: {name}: {why}")
    return Evaluation(results, name)


def _card(kind: type[AnyCard], workspace: Workspace, name: str, **values: Any) -> AnyCard:
    try:
        return kind(name=name, root=workspace.root, **values)
    except ValidationError as error:
        raise RobenchError(f"evaluate: {explain(error, set(kind.model_fields))}") from None


def _report(
    workspace: Workspace,
    wanted: str,
    attacks: Sequence[str] | None,
    corruptions: Sequence[str] | None,
) -> ReportCard:
    """The report that is meant, whichever models it names itself."""
    own: dict[str, Any] = {}
    if attacks is not None or corruptions is not None:
        own = {"attacks": tuple(attacks or ()), "corruptions": tuple(corruptions or ())}
    known, cards = workspace.known("reports"), workspace.known("attacks")
    sets = {name.rpartition("/")[0] for name in cards} - {""}
    if wanted in known:
        card = workspace.card("reports", wanted)
        own |= {"claims": (), "baselines": ()}
    elif own or wanted in sets or wanted in cards:
        pattern = f"{wanted}/*" if wanted in sets else wanted
        title = "Own threats" if own else f"Attacks: {wanted}"
        card = _card(ReportCard, workspace, wanted, title=title, models=("*",), attacks=(pattern,))
    else:
        raise RobenchError(
            f"evaluate: report = {wanted!r}: neither a report card nor a set of attacks; "
            f"{nearest(wanted, [*known, *sets, *cards])}"
        )
    return card.model_copy(update=own)
