"""Where the results of a report are found: in the store, else in a published folder."""

from __future__ import annotations

from pathlib import Path

from robench.errors import RobenchError, check_name
from robench.show.results import CELLS, MANIFEST, Results, load_published, load_results
from robench.store.store import Store
from robench.workspace.folders import Workspace


def find_results(
    workspace: Workspace, store: Store, report: str, folder: Path | None = None
) -> Results:
    """The results of one report: of its last run into `store`, else as published in `folder` or in
    the workspace's reports/REPORT/.

    Raises RobenchError when there are none.
    """
    check_name(report, "report")
    if store.has_run(report):
        return load_results(store, report)
    places = [workspace.output / "reports" / report, workspace.root / "reports" / report]
    for place in [folder, *places] if folder else places:
        if (place / MANIFEST).is_file() and (place / CELLS).is_file():
            return load_published(place)
    raise RobenchError(
        f"report {report!r}: neither {store.url} nor {places[0]} holds its results; "
        f"make them with: robench run {report}"
    )


def all_results(workspace: Workspace, store: Store) -> dict[str, Results]:
    """The results of every report card that has any, by name.

    Raises RobenchError when none has.
    """
    results: dict[str, Results] = {}
    for report in workspace.names("reports"):
        try:
            results[report] = find_results(workspace, store, report)
        except RobenchError:
            continue
    if not results:
        raise RobenchError(f"{workspace.root}/reports: no report has results; run one first")
    return results
