"""The report of a run: a folder with one self-contained page, and the same numbers as files."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from robench.digest import canonical, digest_bytes
from robench.errors import RobenchError, cause, system_words
from robench.show.diagnostics.finding import Verdict
from robench.show.packed.manifest_text import as_text, opened
from robench.show.packed.pack import lean, published, unpacked
from robench.show.report.around import PAGE, Around, around
from robench.show.report.text import portable
from robench.show.results import CELLS, MANIFEST, Results
from robench.store.files import read_regular
from robench.store.seal import sealed, unsealed

if TYPE_CHECKING:  # it needs scipy, and a page that is up to date does not
    from robench.show.claims import Claim

__all__ = ["PAGE", "Verdict", "write_report"]

NOTHING = "0" * 64
"""Where the page will say what it was made from, until that is known."""
ZSTD, WHOLE = 19, 2**28
ENCODINGS = {
    "image": "DELTA_BINARY_PACKED",
    "right": "DELTA_LENGTH_BYTE_ARRAY",
    "wrong": "DELTA_LENGTH_BYTE_ARRAY",
}
"""Of columns in which few values come again."""
BESIDE = (
    CELLS,
    MANIFEST,
    "accuracies.csv",
    "leaderboard.csv",
    "leaderboard.json",
    "leaderboard.tex",
)


def write_report(results: Results, folder: Path, **given: Any) -> Path:
    """What `write_files` writes; returns the path of the page."""
    write_files(results, folder, **given)
    return folder / PAGE


def write_files(
    results: Results,
    folder: Path,
    *,
    verdicts: Mapping[str, Verdict] | None = None,
    claims: Sequence[Claim] | None = None,
    within: Around | None = None,
) -> dict[str, bytes]:
    """Write index.html, leaderboard.csv, .json and .tex, manifest.json and cells.parquet.

    Args:
        verdicts: whether each model is to be believed, by name; None: what the checks of
            robench.show.diagnostics find; {}: the page says nothing of it.
        claims: published claims with our verdict on them; None: those of the report's card.
        within: the page's neighbours in a site; None: those that an index beside the folder names.

    The folder then rebuilds by itself (`load_published`). Each file appears whole or not at all.
    The bytes depend on the results alone; a folder that is up to date is left untouched.

    Returns the folder's files by name, as they now are. Raises RobenchError when the folder cannot
    be written.
    """
    # No place on a machine is published, neither on the page nor in its manifest.
    command = portable(str(results.manifest["command"]))
    results = replace(results, manifest={**results.manifest, "command": command})
    manifest = canonical(lean(results.manifest))
    said = json.dumps([verdicts and dict(verdicts), claims and list(claims)], sort_keys=True)
    within = within or around(folder)
    place = json.dumps(within and asdict(within))
    content = digest_bytes(manifest.encode(), said.encode(), place.encode(), *_source())
    if current := _current(folder, content):
        return current
    try:
        made = _made(results, content, verdicts, claims, within)
    except Exception as error:
        if results.folder is None:
            raise
        # No check foresees all that a stranger's manifest may say.
        raise RobenchError(
            f"{results.folder}: what {MANIFEST} and {CELLS} say does not fit together "
            f"({cause(error)}); get them anew, or run the report again"
        ) from error
    for name, data in made.items():
        _write(folder / name, data)
    return made


def _made(
    results: Results,
    content: str,
    verdicts: Mapping[str, Verdict] | None,
    claims: Sequence[Claim] | None,
    within: Around | None,
) -> dict[str, bytes]:
    """The files of the folder by name. The page comes last: while it is old, the folder counts as
    old."""
    # Only now: tables and plots take a second to import.
    from robench.show.claims import judge
    from robench.show.diagnostics.verdicts import against_truth, diagnose
    from robench.show.leaderboard import leaderboard
    from robench.show.report.headline import headline
    from robench.show.report.page import render
    from robench.show.report.payload import pictured_cells
    from robench.show.report.tables import as_csv, as_json, as_latex, as_long_csv

    # As it will be read from the folder: no order of keys may tell the two apart.
    table = leaderboard(results)
    pictured = pictured_cells(results, table)
    packed, rows = published(results.manifest, results.rows, pictured)
    manifest = as_text(sealed(packed))
    results = Results(unpacked(unsealed(opened(json.loads(manifest)))), results.rows)
    if verdicts is None:
        verdicts = diagnose(results)
    if claims is None:
        claims = judge(results)
    said = headline(results, table, verdicts, claims)
    held = against_truth(results, verdicts)
    made = {
        CELLS: _parquet(rows),
        MANIFEST: manifest.encode(),
        "leaderboard.csv": as_csv(table, verdicts, held).encode(),
        "leaderboard.json": as_json(results, table, verdicts, said, claims, held).encode(),
        "accuracies.csv": as_long_csv(results, table, verdicts).encode(),
        "leaderboard.tex": as_latex(results, table, verdicts).encode(),
    }
    page = render(results, table, verdicts, claims, said, NOTHING, held, within).encode()
    made_from = digest_bytes(content.encode(), page, *(made[name] for name in BESIDE))
    made[PAGE] = page.replace(NOTHING.encode(), made_from.encode(), 1)
    return made


def _current(folder: Path, content: str) -> dict[str, bytes] | None:
    """The folder's files, where its page is as it was made from `content`, and those beside it,
    too; else None."""
    try:
        page = read_regular(folder / PAGE)
        beside = [read_regular(folder / name) for name in BESIDE]
    except (OSError, ValueError):
        return None
    named = re.search(rb'<meta name="robench-made-from" content="(\w{64})">', page[:4000])
    if not named:
        return None
    bare = page[: named.start(1)] + NOTHING.encode() + page[named.end(1) :]
    if named[1].decode() != digest_bytes(content.encode(), bare, *beside):
        return None
    return {PAGE: page, **dict(zip(BESIDE, beside, strict=True))}


def _source() -> list[bytes]:
    """The code that makes the page: a change to it makes every page old."""

    def read(folder: Traversable) -> list[bytes]:
        contents: list[bytes] = []
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir() and entry.name != "__pycache__":
                contents += read(entry)
            elif entry.is_file():
                contents.append(entry.read_bytes())
        return contents

    return read(files("robench") / "show")


def _parquet(table: pa.Table) -> bytes:
    """Each picture once: values are looked up in one dictionary for the whole file."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=ZSTD,
        use_dictionary=[name for name in table.column_names if name not in ENCODINGS],
        column_encoding={
            name: how for name, how in ENCODINGS.items() if name in table.column_names
        },
        dictionary_pagesize_limit=WHOLE,
        row_group_size=max(len(table), 1),
        data_page_size=WHOLE,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue().to_pybytes())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; untouched when it already says the same."""
    try:
        if path.is_file() and path.read_bytes() == data:  # of a pipe the first is not true
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise RobenchError(
            f"{path}: cannot be written: {system_words(error)}; choose another folder with --out"
        ) from error
