"""What `robench.evaluate` returns: numbers, tables and plots of one module, for people in notebooks
and for tests on build servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from robench.errors import RobenchError, nearest
from robench.show.report.templating import rendered
from robench.show.report.text import budget, counted, entry, interval, percent, towards
from robench.show.results import Results
from robench.store.store import Store

if TYPE_CHECKING:  # tables, tests and drawing are imported where something is looked at
    import pandas as pd
    from matplotlib.axes import Axes

    from robench.evaluation.binarization import Binarization
    from robench.show.diagnostics.finding import Verdict

SUMMARY = {
    "worst_case": "worst case over attacks",
    "clean": "clean",
    "worst_case_vote": "worst case of a vote",
    "clean_vote": "clean, by vote",
    "average_attacks": "average over attacks",
    "average_corruptions": "average over corruptions",
}


@dataclass(frozen=True)
class Evaluation:
    """How a module fared: shown as a table in notebooks.

    results: every outcome, as reports have them. name: what the module is called in them. store:
        where they are kept. binarization: what became of planted examples, where they were asked
        for.
    """

    results: Results = field(repr=False)
    name: str
    store: Store | None = field(default=None, repr=False)
    binarization: Binarization | None = None

    @property
    def clean(self) -> float:
        """Accuracy on unperturbed images, in [0, 1]."""
        return float(self._row["clean"])

    @property
    def worst_case(self) -> float:
        """The headline: the share of images that survive the clean input and every attack, in
        [0, 1]; NaN without attacks."""
        return float(self._row["worst_case"])

    @property
    def fooling_rate(self) -> float:
        """Of labels="predicted": the share of images whose answer an attack changes, in [0, 1]."""
        if self.results.manifest["report"].get("labels") != "predicted":
            raise RobenchError(
                "fooling_rate: these accuracies are against true labels; evaluate with "
                "labels='predicted'"
            )
        return 1 - self.worst_case

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `worst_case`."""
        return float(self._row["worst_case_low"]), float(self._row["worst_case_high"])

    @property
    def threat(self) -> str:
        """The balls that the worst case is over: `L∞ ≤ 8/255`."""
        return " and ".join(dict.fromkeys(budget(threat) for threat in self.results.attacks))

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """One row for each threat and image: image (its number in the test set), label, threat,
        correct (share of draws that were right, in [0, 1])."""
        import pandas as pd

        frames = []
        for threat in self.results.threats:
            table = self.results.table(self.name, 0, threat["name"])
            if table is not None:
                frame = table.select(["image", "label", "correct"]).to_pandas()
                frames.append(frame.assign(threat=threat["name"]))
        rows: pd.DataFrame = pd.concat(frames, ignore_index=True)
        return rows.reindex(columns=["image", "label", "threat", "correct"])

    def images(self, threat: str) -> NDArray[np.float32]:
        """What the module was shown under a threat: (n, channels, height, width), float32, in
        [0, 1], in the order of `per_image`. Of attacks: where `evaluate` was told
        keep_images=True; corrupted images and those crafted on a surrogate always.

        Raises RobenchError where they were not kept.
        """
        from robench.show.images import read_images

        if self.store is None:
            raise RobenchError("images: this result does not know its store")
        return read_images(self.store, self.results, self.name, 0, threat).images

    def success(self, threat: str) -> float:
        """How often a targeted attack got the answer that it aims at, in [0, 1], over the images
        that have another label.

        Raises RobenchError for what is no targeted attack of this result.
        """
        from robench.show.leaderboard import success_column

        known = [one["name"] for one in self.results.targeted]
        if threat not in known:
            raise RobenchError(
                f"success: {threat!r} is no targeted attack of this result; "
                f"{nearest(threat, known)}"
            )
        return float(self._row[success_column(threat)])

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Whether the numbers of each model are to be believed, and why not."""
        from robench.show.diagnostics.verdicts import diagnose

        return diagnose(self.results)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else is to be known of the module and its data: a network that kept its state from
        one call to the next, for example."""
        return tuple(self.results.by_name[self.name].get("notes", ()))

    def assert_robust(
        self, *, below: Literal["low", "value", "high"] = "low", **least: float
    ) -> None:
        """Raise AssertionError where an accuracy is less than it shall be: for test suites.

        Args:
            below: what is compared: the accuracy itself ("value"), or an end of its 95% interval.
            least: column of the leaderboard -> least accuracy in [0, 1], as in `worst_case=0.4`,
                `clean=0.9`, `average_corruptions=0.6`, `pgd=0.5`.
        """
        for column, wanted in least.items():
            accuracy = self._accuracy(column, below)
            if not accuracy >= wanted:
                said = "" if below == "value" else f", {below} end of its 95% interval"
                raise AssertionError(
                    f"{self.name}: {column} is {percent(accuracy)}%{said}; at least "
                    f"{percent(wanted)}% is asked ({self._shown(column)})"
                )

    def compare(self, other: Evaluation) -> pd.DataFrame:
        """This module beside another one on the same images, one row for each threat both met, the
        worst case first.

        Columns: threat; ours, theirs (accuracies in [0, 1]); difference (ours - theirs), low, high
        (its 95% interval, paired by image); p (McNemar's exact test; a paired t-test where
        either model is noisy); only_ours, only_theirs (images that one gets and the other does
        not).

        Raises RobenchError where they met different images.
        """
        return _compared(self, other)

    def to_pandas(self) -> pd.DataFrame:
        """The leaderboard, one row per model; columns as in a report's leaderboard.csv."""
        return self._table.copy()

    def to_markdown(self) -> str:
        """The result as a Markdown table, for a pull request or a build server's summary."""
        from robench.show.leaderboard import column_name

        columns = {said: key for key, said in SUMMARY.items()}
        attacks = [threat for threat in self.results.threats if threat["kind"] == "attack"]
        columns |= {f"{t['name']} ({budget(t)})": column_name(t["name"]) for t in attacks}
        columns |= {kind: column_name(kind) for kind in self.results.kinds}
        measured = {said: entry(self._row, key) for said, key in columns.items()}
        return self._rendered("notebook.md.j2", measured=measured.items())

    def to_html(self, path: str | Path) -> Path:
        """Write the report's page, one file that needs no other; returns its path."""
        from robench.show.gate import write
        from robench.show.report.folder import PAGE

        path = Path(path).expanduser().resolve()
        with tempfile.TemporaryDirectory() as folder:
            write(path, (self.to_folder(folder) / PAGE).read_bytes())
        return path

    def to_folder(self, folder: str | Path) -> Path:
        """Write what `robench run` publishes: the page, and its numbers and outcomes beside it."""
        from robench.show.report.folder import write_report

        return write_report(self.results, Path(folder).expanduser().resolve()).parent

    def plot(
        self,
        what: Literal["threats", "eps", "severity", "examples"] = "threats",
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the result with matplotlib; returns the axes.

        Args:
            what: "threats": accuracy under each attack, with intervals; "eps": accuracy against the
                radius; "severity": accuracy against the severity of corruptions; "examples": the
                first images, clean and under each attack.
            ax: where to draw; None: on a new figure.

        Raises RobenchError where the evaluation has nothing of the kind.
        """
        from robench.evaluation.plots import PLOTS

        if what not in PLOTS:
            raise RobenchError(f"plot: {what!r} is not known; {nearest(what, PLOTS)}")
        return PLOTS[what](self.results, self.name, self._row, ax)

    @cached_property
    def _table(self) -> pd.DataFrame:
        from robench.show.leaderboard import leaderboard

        return leaderboard(self.results)

    @property
    def _row(self) -> pd.Series:
        return self._table[self._table["model"] == self.name].iloc[0]

    def _accuracy(self, column: str, which: str) -> float:
        row = self._row
        if column not in row.index or isinstance(row[column], str):
            known = [name for name in row.index if f"{name}_low" in row.index]
            raise RobenchError(
                f"{column!r} is no accuracy of this result; {nearest(column, known)}"
            )
        return float(row[column if which == "value" else f"{column}_{which}"])

    def __str__(self) -> str:
        from robench.show.leaderboard import success_column

        success = [
            (
                f"{threat['name']}, towards {towards(threat)}",
                self._shown(success_column(threat["name"])),
            )
            for threat in self.results.targeted
        ]
        return self._rendered(
            "notebook.txt.j2",
            rules=counted(self.results.manifest["report"]),
            success=success,
            planted=self.binarization,
        ).removesuffix("\n")

    def _repr_html_(self) -> str:
        from robench.show.leaderboard import column_name

        threats = [
            (t, budget(t) if t["kind"] == "attack" else "", self._shown(column_name(t["name"])))
            for t in self.results.threats
            if t["kind"] != "corruption"
        ]
        return self._rendered(
            "notebook.html.j2",
            title=self.results.manifest["report"]["title"],
            threats=threats,
            kinds=[(kind, self._shown(column_name(kind))) for kind in self.results.kinds],
        )

    def _rendered(self, template: str, **values: Any) -> str:
        """A template with what all of them say."""
        row = self._row
        return rendered(
            template,
            name=self.name,
            row=row.to_dict(),
            threat=self.threat,
            summary=[(said, self._shown(key)) for key, said in SUMMARY.items() if entry(row, key)],
            verdict=self.verdicts[self.name],
            notes=self.notes,
            gaps=[gap for gap in self.results.failures() if gap["model"] == self.name],
            **values,
        )

    def _shown(self, column: str) -> str:
        """Accuracy in per cent with its 95% interval."""
        return interval(self._row, column, "%")


def _compared(ours: Evaluation, theirs: Evaluation) -> pd.DataFrame:
    import pandas as pd

    from robench.show.statistics import mcnemar, paired_t, wilson

    rows: list[dict[str, Any]] = []
    for threat, mine, other in _shared(ours, theirs):
        gap = mine - other
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
        if not np.any(gap):  # nothing to resample: as far as so many equal images can say
            error = float(wilson(np.zeros(1), len(gap))[1][0]) / 1.96
        exact = bool(np.isin(np.concatenate([mine, other]), (0.0, 1.0)).all())
        both = np.stack([mine, other])
        p = mcnemar(both > 0.5) if exact else paired_t([mine[None], other[None]])
        rows.append(
            {
                "threat": threat,
                "ours": mine.mean(),
                "theirs": other.mean(),
                "difference": gap.mean(),
                "low": gap.mean() - 1.96 * error,
                "high": gap.mean() + 1.96 * error,
                "p": float(p[0, 1]),
                "only_ours": int((gap > 0.5).sum()),
                "only_theirs": int((gap < -0.5).sum()),
            }
        )
    return pd.DataFrame(rows)


def _shared(ours: Evaluation, theirs: Evaluation) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Threats that both met, with what each got right of the same images."""
    from robench.show.leaderboard import CLEAN

    sides = []
    for side in (ours, theirs):
        table = side.results.table(side.name, 0, CLEAN)
        assert table is not None  # evaluate raises where there is none
        correct = {
            name: rows["correct"].to_numpy(dtype=float)
            for name, rows in side.per_image.groupby("threat", sort=False)
        }
        labels = side.per_image[side.per_image["threat"] == CLEAN]
        model = side.results.by_name[side.name]
        data = model["fields"]["dataset"].get("fingerprint")
        worst = side.results.worst_case(model)
        sides.append((data, labels[["image", "label"]].to_numpy().tolist(), correct, worst))
    (data, images, mine, worst), (others_data, others, other, others_worst) = sides
    if data != others_data or images != others:
        raise RobenchError(
            f"compare: {ours.name} and {theirs.name} met different images; evaluate both on one "
            "data set, with the same number of images"
        )
    fields = {t["name"]: t.get("fields") for t in theirs.results.threats}
    attacks = {t["name"] for t in ours.results.attacks}
    same = bool(attacks) and attacks == {t["name"] for t in theirs.results.attacks}
    if same and worst is not None and others_worst is not None:
        yield "worst case", worst[0], others_worst[0]
    for threat in ours.results.threats:
        name = threat["name"]
        if name in mine and name in other and threat.get("fields") == fields.get(name):
            yield name, mine[name], other[name]
