"""The finished cells of one report, from the store or a published folder, ready for arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from robench.digest import Identity
from robench.errors import RobenchError
from robench.show.balls import Ball, largest
from robench.show.packed import pack as packed
from robench.show.packed.manifest_text import opened
from robench.show.packed.rows import unpack_rows
from robench.show.worst_case import expected, vote, votes
from robench.store.belongs import misnamed, misplaced
from robench.store.files import read_regular
from robench.store.manifest import Model as Model
from robench.store.manifest import Threat as Threat
from robench.store.manifest import check_shape
from robench.store.outcomes import Outcomes, Tables
from robench.store.rows_shape import REACHED, check_rows
from robench.store.seal import check_room, rows_match
from robench.store.store import Damaged, Outcome, Store, as_manifest, as_read

Floats = NDArray[np.float64]
MANIFEST, CELLS = "manifest.json", "cells.parquet"
SCHEMAS = (1, 2, 3, 4, packed.SCHEMA)
"""Of the manifest. Up to 2 with the rows as the store has them, up to 3 with `predictions`, up to 4
without a block (manifest_text.py)."""
ELSEWHERE = ("seconds", "environment", "finished", "images")
"""Provenance that the manifest says in its way."""


@dataclass(frozen=True)
class Results:
    """A report's manifest, and the rows of every cell that could be read.

    manifest: models, threats, cells, environments as `robench run` left them; a cell that could not
        be read is marked missing there. A finished cell also says what its provenance says, such
        as input_shape and loss_trace.
    rows: cell digest -> one row per test image.
    folder: where it was published; None: it comes from a store, whose files show that they are
        whole.
    """

    manifest: dict[str, Any]
    rows: Mapping[str, pa.Table]
    folder: Path | None = None

    @property
    def name(self) -> str:
        return str(self.manifest["report"]["name"])

    @property
    def models(self) -> list[Model]:
        return list(self.manifest["models"])

    @cached_property
    def by_name(self) -> dict[str, Model]:
        return {model["name"]: model for model in self.models}

    @property
    def threats(self) -> list[Threat]:
        return list(self.manifest["threats"])

    @cached_property
    def attacks(self) -> list[Threat]:
        """Those that enter the worst case: neither noise floors nor curves over eps."""
        return self._role("attack", "diagnostic")

    @cached_property
    def averaged(self) -> list[Threat]:
        """Those that enter the average: the attacks that the report's card names and that are after
        any wrong class."""
        return [t for t in self._role("attack") if not targeted(t)]

    @cached_property
    def targeted(self) -> list[Threat]:
        """Attacks of every role that go towards a class."""
        return [t for t in self.threats if targeted(t)]

    @cached_property
    def floors(self) -> list[Threat]:
        """Noise that every attack must beat."""
        return self._role("floor")

    @cached_property
    def proofs(self) -> list[Threat]:
        """Those that show what no attack in a ball can do; what they break enters the worst case
        (two_sided.py)."""
        return self._role("proof")

    @property
    def attacked(self) -> bool:
        """Whether there is a worst case."""
        return bool(self.attacks or self.proofs)

    @property
    def searched(self) -> bool:
        """Whether anything looked for points to break in the balls of the worst case."""
        return any(
            threat["kind"] == "attack"
            for model in self.models
            for threat in self.within(model, self.balls)
        )

    @cached_property
    def curves(self) -> list[Threat]:
        """Attacks at several eps, to be plotted."""
        return self._role("curve")

    @cached_property
    def nearest(self) -> list[Threat]:
        """Those that look for the nearest wrong image (nearest.py)."""
        return self._role("nearest")

    def _role(self, *roles: str) -> list[Threat]:
        return [t for t in self.threats if t["kind"] == "attack" and t["role"] in roles]

    @cached_property
    def kinds(self) -> dict[str, list[Threat]]:
        """`card/kind` of each corruption -> its threats, by severity."""
        kinds: dict[str, list[Threat]] = {}
        for threat in self.threats:
            if threat["kind"] == "corruption":
                kinds.setdefault(f"{threat['card']}/{threat['corruption']}", []).append(threat)
        return {
            kind: sorted(threats, key=lambda threat: threat["severity"])
            for kind, threats in kinds.items()
        }

    @cached_property
    def _cells(self) -> dict[tuple[str, int, str], dict[str, Any]]:
        return {(c["model"], c["seed"], c["threat"]): c for c in self.manifest["cells"]}

    def cell(self, model: str, seed: int, threat: str) -> dict[str, Any] | None:
        """The manifest's entry, when the cell is done and its rows are here."""
        listed = self._cells.get((model, seed, threat))
        if listed and listed["status"] == "done" and listed["digest"] in self.rows:
            return listed
        return None

    def table(self, model: str, seed: int, threat: str) -> pa.Table | None:
        """One row per image of a finished cell."""
        cell = self.cell(model, seed, threat)
        return self.rows[cell["digest"]] if cell else None

    def cells(self, model: Model, threat: str) -> list[dict[str, Any]]:
        """The manifest's entry of every seed that has met the threat, seed by seed."""
        met = [self.cell(model["name"], seed["seed"], threat) for seed in model["seeds"]]
        return [cell for cell in met if cell is not None]

    def tables(self, model: Model, threat: str) -> list[pa.Table]:
        """The rows of each seed; none unless every seed of the model has the cell."""
        cells = self.cells(model, threat)
        return [self.rows[c["digest"]] for c in cells] if len(cells) == len(model["seeds"]) else []

    def correct(self, model: Model, threat: str) -> Floats | None:
        """(seeds, images): share of draws in which each image was right.

        None unless every seed of the model has the cell, on the same images.
        """
        tables = self.tables(model, threat)
        if not tables:
            return None
        images = tables[0].column("image").to_numpy()
        if any(not np.array_equal(table.column("image").to_numpy(), images) for table in tables):
            raise RobenchError(
                f"{self.name}: {model['name']}: {threat}: its seeds met different images; "
                "run the report again"
            )
        return np.stack([table.column("correct").to_numpy().astype(np.float64) for table in tables])

    def success(self, model: Model, threat: str) -> Floats | None:
        """(seeds, images whose label is not the class aimed at, in any seed): share of draws that
        answered that class, of several classes their mean.

        None where `correct` is, where the threat is not targeted, and where no image has an aim.
        """
        if self.correct(model, threat) is None:
            return None
        shares_by_seed = []
        for table in self.tables(model, threat):
            if REACHED not in table.column_names:
                return None
            lists = table.column(REACHED).combine_chunks()
            lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            ends = np.cumsum(lengths)
            sums = np.concatenate([[0.0], np.cumsum(lists.flatten().to_numpy().astype(float))])
            has = lengths > 0
            shares = np.full(len(lengths), np.nan)
            shares[has] = (sums[ends] - sums[ends - lengths])[has] / lengths[has]
            shares_by_seed.append(shares)
        together = np.stack(shares_by_seed)
        # Of predicted labels each seed has its own.
        common = ~np.isnan(together).any(axis=0)
        return together[:, common] if common.any() else None

    def worst_case(self, model: Model, threats: Sequence[Threat] | None = None) -> Floats | None:
        """(seeds, images): what is left of each image where the attacker may choose between the
        clean input and every attack of the report.

        Of a model without noise the least. Of a noisy one its expected accuracy, the share of right
        draws, under the attack that other draws chose for the image: see worst_case.expected.

        Args:
            threats: those to choose from instead.

        None unless every seed of the model has all their cells, on the same images.
        """
        if threats is not None:
            return self._chosen(model, threats, expected)
        if model["name"] not in self._worst:
            self._worst[model["name"]] = self._chosen(model, self._counted(model), expected)
        return self._worst[model["name"]]

    @cached_property
    def _worst(self) -> dict[str, Floats | None]:
        return {}

    def worst_vote(self, model: Model) -> Floats | None:
        """The same where a noisy model is asked `voters` times and the majority counts: see
        worst_case.vote. None also where the draws are too few to choose and to vote."""
        return self._chosen(model, self._counted(model), partial(vote, voters=self.voters), draws=2)

    def vote(self, model: Model, threat: str) -> Floats | None:
        """(seeds, images): how often the majority is right under one threat."""
        named = [one for one in self.threats if one["name"] == threat]
        return self._chosen(model, named, partial(votes, voters=self.voters), draws=2)

    @property
    def items(self) -> str:
        """What rows of outcomes are of: `images`, or where each model's data is a graph `nodes`."""
        samples = [model.get("sample") for model in self.models]
        said = [one.get("items") if isinstance(one, Mapping) else None for one in samples]
        # Manifests of before did not say; edges are of nodes.
        edges = any((t.get("fields") or {}).get("part") == "edges" for t in self.threats)
        return "nodes" if edges or (said and set(said) == {"nodes"}) else "images"

    @property
    def noisy(self) -> bool:
        """Whether a model of the report answers differently from draw to draw."""
        return any(model.get("stochastic") for model in self.models)

    @property
    def voters(self) -> int:
        """Draws in a vote: as the report's card says, else half of its draws."""
        report = self.manifest["report"]
        return int(report.get("vote") or report.get("draws", 0) // 2)

    def within(self, model: Model, balls: Collection[Ball]) -> list[Threat]:
        """The clean input and whatever looks for points to break in these balls, of any role; what
        certifies a noisy model looks for none."""
        aside = "proof" if model.get("stochastic") else None
        return [
            threat
            for threat in self.threats
            if threat["kind"] == "clean"
            or (threat["kind"] == "attack" and threat["role"] != aside
                and any(ball.holds(Ball.of(threat)) for ball in balls))
        ]  # fmt: skip

    @cached_property
    def balls(self) -> set[Ball]:
        """The largest of the worst case."""
        return largest(Ball.of(threat) for threat in [*self.attacks, *self.proofs])

    def _counted(self, model: Model) -> list[Threat]:
        """What the attacker of a model's worst case may choose from. Where there are proofs that is
        whatever breaks an image in its balls: they are not asked about images that fell to a curve
        or to mere noise."""
        if self.proofs:
            return self.within(model, self.balls)
        return [t for t in self.threats if t["kind"] == "clean"] + self.attacks

    def _chosen(
        self,
        model: Model,
        threats: Sequence[Threat],
        by: Callable[[NDArray[np.int16], NDArray[np.int16]], Floats],
        draws: int = 1,
    ) -> Floats | None:
        """(seeds, images): the least of the threats for a model without noise; for a noisy one what
        `by` makes of its answers, (threats, images, draws), and the labels, seed by seed; None
        where there are fewer draws."""
        threats = self.met(model, threats)
        arrays = [self.correct(model, threat["name"]) for threat in threats]
        known = [correct for correct in arrays if correct is not None]
        if not known or len(known) < len(arrays):
            return None
        if not model.get("stochastic"):
            return np.asarray(np.minimum.reduce(known))
        left = []
        for tables in zip(*(self.tables(model, t["name"]) for t in threats), strict=True):
            drawn = [answers(table) for table in tables]
            fewest = min(part.shape[1] for part in drawn)
            if fewest < draws:
                return None
            together = np.stack([part[:, :fewest] for part in drawn])
            left.append(by(together, tables[0].column("label").to_numpy()))
        return np.stack(left)

    def complete(self, model: Model) -> bool:
        """Whether every seed has met every threat."""
        seeds = len(model["seeds"])
        met = self.met(model, self.threats)
        return all(len(self.cells(model, threat["name"])) == seeds for threat in met)

    def met(self, model: Model, threats: Sequence[Threat]) -> list[Threat]:
        """Those of the threats that the model is to meet: some are for noisy models only."""
        noisy = bool(model.get("stochastic"))
        return [threat for threat in threats if noisy or threat.get("meets") != "noisy"]

    def failures(self) -> list[dict[str, str]]:
        """What is missing and why: one entry for each model, seed and reason."""
        gaps: dict[tuple[str, int, str, str], list[str]] = {}
        for model in self.models:
            for seed in model["seeds"]:
                if seed["status"] != "done":
                    key = (model["name"], seed["seed"], seed["status"], seed.get("error") or "")
                    gaps.setdefault(key, []).append("training")
                for threat in self.met(model, self.threats):
                    cell = self._cells.get((model["name"], seed["seed"], threat["name"]), {})
                    if not self.cell(model["name"], seed["seed"], threat["name"]):
                        status = cell.get("status", "missing")
                        why = cell.get("error") or ""
                        status = "missing" if status == "done" else status
                        key = (model["name"], seed["seed"], status, why)
                        gaps.setdefault(key, []).append(threat["name"])
        return [
            {
                "model": model,
                "seed": str(seed),
                "status": status,
                "error": error,
                "of": ", ".join(of),
            }
            for (model, seed, status, error), of in gaps.items()
        ]


def targeted(threat: Threat) -> bool:
    """Whether a threat is an attack that goes towards a class."""
    return threat["kind"] == "attack" and threat.get("goal") == "targeted"


def answers(table: pa.Table) -> NDArray[np.int16]:
    """(images, draws): the class that each draw answered."""
    lists = table.column("predictions").combine_chunks()
    return np.asarray(lists.flatten().to_numpy().reshape(len(lists), -1))


def load_results(
    store: Store,
    report: str,
    outcomes: Outcomes | None = None,
    manifest: dict[str, Any] | None = None,
) -> Results:
    """The report's outcomes from the store; what cannot be read becomes missing, and says so.

    Args:
        outcomes: cells that were read already; the rest is read from the store.
        manifest: that of a run that has just ended; None: that of the last run.

    Raises RobenchError when the report was never run.
    """
    where = f"{store.url}: report {report!r}"
    try:
        manifest = as_read(manifest) if manifest is not None else store.read_run(report)
    except Damaged as damaged:
        raise RobenchError(f"{damaged}; make it again with: robench run {report}") from None
    if manifest is None:
        raise RobenchError(f"{where} has not been run; run it with: robench run {report}")
    _check_schema(manifest, where)
    if outcomes is None:  # it is not of this moment
        check_shape(manifest, where)
        for wrong in misnamed(manifest):
            raise RobenchError(
                f"{where}: {wrong}: its digest is not its own; "
                f"run it again with: robench run {report}"
            )
    known = outcomes or Outcomes()
    read: dict[str, Identity | str] = {}
    """Of those that are read here: the identity, or why there is none."""
    for cell in manifest["cells"]:
        if cell["status"] != "done":
            continue
        name = cell["digest"]
        if name not in known and name not in read:  # models with equal weights share cells
            found = _read(store, name)
            read[name] = found if isinstance(found, str) else found.identity
            if not isinstance(found, str):
                known.add(name, found)
        if why := _refused(manifest, cell, read.get(name), known):
            cell.update(status="missing", error=why)
        else:
            noted = known.provenance[name]
            cell.update({key: _short(noted[key]) for key in noted if key not in ELSEWHERE})
    _note_contradictions(manifest, store.contradicted())
    return Results(manifest, known.rows)


def _note_contradictions(manifest: dict[str, Any], contradicted: Collection[str]) -> None:
    """Say of each model what others have measured otherwise, as sharing.py has found out."""
    for model in manifest["models"] if contradicted else ():
        done = [seed for seed in model["seeds"] if seed["status"] == "done"]
        of = [f"the weights of seed {s['seed']}" for s in done if s["digest"] in contradicted]
        of += [
            f"seed {cell['seed']} x {cell['threat']}"
            for cell in manifest["cells"]
            if cell["model"] == model["name"] and cell["status"] == "done"
            if cell["digest"] in contradicted
        ]
        if of:
            more = f" and {len(of) - 3} more" if len(of) > 3 else ""
            model["notes"] = [
                *model.get("notes", ()),
                f"{model['name']}: somebody else has other results of the same work: "
                f"{', '.join(of[:3])}{more}; this page is of those that were here first",
            ]


def _refused(
    manifest: Mapping[str, Any],
    cell: Mapping[str, Any],
    found: Identity | str | None,
    outcomes: Outcomes,
) -> str | None:
    """Why an outcome is not that of its cell; `found`: its identity, or why there is no outcome;
    None: it was looked at before."""
    if isinstance(found, str) or found is None:
        return found
    name = cell["digest"]
    if not rows_match(outcomes.rows[name], cell.get("outcome") or outcomes.digests[name]):
        return f"its outcome {name[:12]} is not the one that the run left; run again"
    model = next(model for model in manifest["models"] if model["name"] == cell["model"])
    seed = next(seed for seed in model["seeds"] if seed["seed"] == cell["seed"])
    threat = next(threat for threat in manifest["threats"] if threat["name"] == cell["threat"])
    other = misplaced(found, model, seed, threat, manifest["report"], cell.get("inputs"))
    return other and f"its outcome {name[:12]} is that of another {other}; run again"


def _read(store: Store, cell: str) -> Outcome | str:
    """The outcome, or why there is none."""
    try:
        return store.read_cell(cell)
    except Damaged:
        return f"its outcome {cell[:12]} is damaged and was set aside; run again"
    except FileNotFoundError:
        return f"its outcome {cell[:12]} is gone; run again"


def load_published(folder: Path) -> Results:
    """The outcomes in a published folder: its manifest.json and cells.parquet.

    Raises RobenchError when a file is absent or unreadable.
    """
    try:
        manifest = json.loads(read_regular(folder / MANIFEST))
        _check_schema(manifest, str(folder / MANIFEST))
        manifest = packed.unpacked(as_manifest(opened(manifest)))
        check_shape(manifest, str(folder / MANIFEST))
        table = _read_rows(folder / CELLS, manifest)
        places = _places(table)
        rows = table.drop_columns(["cell"])
        if manifest["schema"] > 3:
            rows = unpack_rows(rows, list(places.values()))
        check_rows(rows, str(folder / CELLS))
    except FileNotFoundError as error:
        raise RobenchError(
            f"{error.filename or folder / CELLS}: no such file; a published report has "
            f"{MANIFEST} and {CELLS}"
        ) from None
    except RobenchError:
        raise
    except Exception as error:  # whatever parsers make of a stranger's bytes
        raise RobenchError(f"{folder}: not a published report: {error}") from None
    tables = Tables.of(rows, {name: (start, end - start) for name, (start, end) in places.items()})
    _check_digests(manifest, tables, folder)
    for cell in manifest["cells"]:
        if cell["status"] == "done" and cell["digest"] not in tables:
            cell.update(status="missing", error=f"its rows are not in {CELLS}; run again")
    return Results(manifest, tables, folder)


def _places(table: pa.Table) -> dict[str, tuple[int, int]]:
    """Of each cell the first row and the first after it, in their order. Raises ValueError."""
    kind = pa.dictionary(pa.int32(), pa.string())
    if table.schema.field("cell").type != kind or table.column("cell").null_count:
        raise ValueError(f"{CELLS}: column cell is not {kind} without gaps")
    names = table.column("cell").unify_dictionaries().combine_chunks()
    indices = names.indices.to_numpy() if len(table) else np.array([], dtype=np.int32)
    starts = np.flatnonzero(np.diff(indices, prepend=-1))
    ends = np.append(starts, len(indices))[1:]
    return {
        names.dictionary[int(indices[start])].as_py(): (start, end)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    }


def _read_rows(path: Path, manifest: dict[str, Any]) -> pa.Table:
    """Raises ValueError for a table of more rows, or more bytes, than the manifest's cells have."""
    data = read_regular(path)
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    done = {cell["digest"] for cell in manifest["cells"] if cell["status"] == "done"}
    check_room(file.metadata, data, len(done) * manifest["report"]["images"])
    return file.read()


def _check_digests(manifest: dict[str, Any], rows: Mapping[str, pa.Table], folder: Path) -> None:
    """Raises RobenchError where rows are not those that the manifest lists, or a digest is not that
    of its model under its threat."""
    advice = "get both files anew, or run the report again"
    for wrong in misnamed(manifest):
        raise RobenchError(f"{folder / MANIFEST}: {wrong}: its digest is not its own; {advice}")
    sound: set[tuple[str, str]] = set()
    whole = manifest["schema"] < 3  # with the rows as the store has them
    for cell in manifest["cells"]:
        name, said = cell["digest"], cell.get("outcome" if whole else "rows")
        if cell["status"] != "done" or name not in rows or (name, said) in sound:
            continue
        match = rows_match if whole else packed.rows_match
        if said is None or not match(rows[name], said):
            raise RobenchError(
                f"{folder / CELLS}: the rows of {cell['model']} seed {cell['seed']} x "
                f"{cell['threat']} are not those that {MANIFEST} lists; {advice}"
            )
        sound.add((name, said))


def _check_schema(manifest: Any, where: str) -> None:
    if not isinstance(manifest, dict):
        raise RobenchError(f"{where}: holds {type(manifest).__name__}, not the manifest of a run")
    if manifest.get("schema") not in SCHEMAS:
        raise RobenchError(
            f"{where}: schema {manifest.get('schema')!r} is none of {SCHEMAS}, those read here; "
            "run the report again, or use the robench that wrote it"
        )


def _short(value: Any) -> Any:
    """Numbers to six digits: enough to draw, and the same text on every machine."""
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
