"""The command line: verbs that parse, call and print."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robench import __version__
from robench.errors import RobenchError, conceal, printable

if TYPE_CHECKING:
    from robench.make.verify import Retrained, Verified
    from robench.store.store import Store
    from robench.workspace.folders import Folder, Workspace

FAILED, USAGE, UNDER, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Adversarial robustness benchmarks for networks trained with and without backpropagation.",
    epilog="Exit codes: 0 done, 1 something failed or is missing, 2 bad input, 3 an accuracy is "
    "under what --fail-under asks, 130 interrupted.",
)
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)


What = StrEnum(
    "What", ["models", "attacks", "corruptions", "reports", "trainers", "networks", "datasets"]
)
"""What `robench list` can list."""


New = StrEnum(
    "New",
    ["workspace", "model", "attack", "corruption", "dataset", "network", "notebook", "weights"],
)
"""What `robench new` can begin."""


WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="Folder with models/, attacks/, corruptions/, reports/."
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Where results are kept: a folder or an fsspec URL. [.robench]"),
]
ReportArgument = Annotated[str, typer.Argument(help="Name of a card in reports/.")]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Make only models or threats that match this pattern; repeatable."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ... [cuda where there is one]")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the page. [reports/REPORT in the workspace]"),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options that come before the verb; `main` reads --debug itself."""


@app.command()
def run(
    report: ReportArgument = "quickstart",
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
    out_folder: OutOption = None,
    device: DeviceOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=0,
            help="Worker processes; 0: none, for a debugger. [one per core; 1 on CUDA]",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Work on a Ray cluster: auto, HOST:PORT, ray://...; without: of this machine.",
        ),
    ] = None,
    gpu_share: Annotated[
        float,
        typer.Option("--gpu-share", min=0.01, max=1, help="With --ray: GPUs that a task takes."),
    ] = 1.0,
    only: OnlyOption = None,
    keep_images: Annotated[
        bool,
        typer.Option("--keep-images", help="Keep all adversarial images; see robench images."),
    ] = False,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="[MODELS:]COLUMN=ACCURACY",
            help="Exit code 3 where an accuracy is less, as in worst_case=0.4; repeatable.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write JUnit XML for a build server.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the table as Markdown.")
    ] = None,
) -> None:
    """Train what is missing, evaluate what is missing, write the page."""

    here = _workspace(workspace)
    here.card("reports", report)  # a misspelt name is said before torch is imported
    watch = None
    more = (only, ray, keep_images, fail_under, junit, markdown)
    if not any(more) and device in (None, "cpu"):
        from robench.make import unchanged
        from robench.store.files import Files

        files = Files(str(store or here.output / ".robench"))
        folder = out_folder or here.output / "reports" / report
        asked = unchanged.Asked(here, report, files, folder, _command())
        if found := unchanged.look(asked):
            err.print(found.line, highlight=False)
            _say(f"page: {folder / 'index.html'}")
            return
        watch = unchanged.watch(asked)
    from robench.run import RunOptions, run_report
    from robench.show import gate
    from robench.store.store import Store

    wanted = gate.parse(fail_under or ())

    debug = "--debug" in sys.argv
    done = run_report(
        here,
        report,
        RunOptions(device, jobs, ray, gpu_share, tuple(only or ()), keep_images, debug),
        store=_store(here, store) if watch is None else Store(watch.asked.files),
        folder=out_folder,
        console=err,
        command=_command(),
        watch=watch,
    )
    for note in dict.fromkeys(said for one in done.results.models for said in one.get("notes", ())):
        err.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    _say(f"page: {done.page}")
    checks = gate.hold(done.results, wanted)
    if junit is not None:
        gate.write(junit, gate.junit(done.results, checks))
    if markdown is not None:
        gate.write(markdown, gate.markdown(done.results, checks).encode())
    for check in checks:
        state = "ok    " if check.passed else "UNDER "
        _say(f"{state} {check.text}")
    if done.incomplete:
        raise typer.Exit(FAILED)
    if not all(check.passed for check in checks):
        raise typer.Exit(UNDER)


@app.command()
def report(
    name: ReportArgument = "quickstart",
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
    out_folder: OutOption = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Rebuild a page from the store, or from its published folder; trains and evaluates nothing."""
    from robench.show.published import find_results
    from robench.show.report.folder import write_report

    here = _workspace(workspace)
    folder = out_folder or here.output / "reports" / name
    results = find_results(here, _store(here, store), name, folder)
    page = write_report(results, folder)
    _say(f"page: {page}")
    if open_page:
        typer.launch(str(page))


class ImageFormat(StrEnum):
    """What `robench images` writes."""

    npz = "npz"
    png = "png"


@app.command()
def images(
    report: Annotated[str, typer.Argument(help="Name of a card in reports/.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    form: Annotated[
        ImageFormat,
        typer.Option("--format", help="npz: exact, float32; png: rounded to 8 bits."),
    ] = ImageFormat.npz,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Only models or threats that match this pattern; repeatable."),
    ] = None,
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
) -> None:
    """Write the images that a run with --keep-images kept, for other programs."""
    from robench.show.images import export
    from robench.show.results import load_results

    kept = _store(_workspace(workspace), store)
    for path in export(kept, load_results(kept, report), folder, form.value, only or ()):
        _say(f"wrote {path}")


@app.command()
def publish(
    site: Annotated[Path, typer.Argument(help="Folder of the site.")],
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
) -> None:
    """Write a static site of all reports that have results, with an index; only what changed."""
    from robench.show.published import all_results
    from robench.show.report.site import write_site

    here = _workspace(workspace)
    results = all_results(here, _store(here, store))
    subjects = {name: here.card("reports", name).subject for name in results}
    index = write_site(results, site, subjects=subjects, beside=here.root / "reports")
    _say(f"site: {index}")


@app.command("list")
def list_(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.models,
    workspace: WorkspaceOption = None,
) -> None:
    """List cards, or the names that cards may use."""
    from robench.workspace import listing

    table = Table(box=None, pad_edge=False)
    header, rows = listing.rows(_workspace(workspace), what.value)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = out if out.is_terminal else Console(width=200, emoji=False)
    console.print(table)  # wide ones keep their lines when the output is a pipe


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A card, as in models/digits/mlp-bp or attacks/pgd.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Show a card: what it says, every field with its default, and the file that implements it."""
    from robench.workspace import listing

    _say(*listing.details(_workspace(workspace), what))


@app.command()
def plan(
    report: ReportArgument = "quickstart",
    workspace: WorkspaceOption = None,
    only: OnlyOption = None,
) -> None:
    """Say what a report asks for, without doing it."""
    from robench.workspace import listing
    from robench.workspace.plan import make_plan

    _say(*listing.plan_lines(make_plan(_workspace(workspace), report, only or ())))


@app.command()
def status(
    report: ReportArgument = "quickstart",
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
) -> None:
    """Say what is done, missing and failed. Exit code 1 while anything is missing."""
    from robench.run import report_status

    here = _workspace(workspace)
    state = report_status(here, report, _store(here, store))
    _say(*map(printable, state.lines()))
    if not state.complete:
        raise typer.Exit(FAILED)


@app.command()
def verify(
    report: ReportArgument = "quickstart",
    cells: Annotated[int, typer.Option("--cells", min=0, help="How many cells to rerun.")] = 10,
    train: Annotated[int, typer.Option("--train", min=0, help="How many models to retrain.")] = 0,
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
) -> None:
    """Rerun a sample of stored cells, retrain models, and compare bits; where they were made on
    another kind of processor or with another torch, compare the images' outcomes. Exit code 1 when
    any differs."""
    from robench.make.verify import data_notes, verify_training
    from robench.make.verify import verify as rerun

    here = _workspace(workspace)
    kept = _store(here, store)
    for note in data_notes(here, report, kept):
        _say(f"note: {note}")
    again: Iterable[Verified | Retrained] = rerun(here, report, kept, cells) if cells else ()
    retrained = verify_training(here, report, kept, train) if train else ()
    differing = 0
    for found in chain(again, retrained):
        line = f"{found.digest[:12]}  {found.label}: {found.said}"
        _say(line)
        differing += found.failed
    if differing:
        raise typer.Exit(FAILED)


@app.command()
def fsck(
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
    every: Annotated[bool, typer.Option("--all", help="List what no report needs, too.")] = False,
) -> None:
    """Check every file of a store; say what no report needs. Exit code 1 when one is damaged."""
    from robench.store import fsck as checking

    state = checking.check_store(_store(_workspace(workspace), store))
    _say(*map(printable, state.lines(every)))
    if state.damaged:
        raise typer.Exit(FAILED)


UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="The other store: a folder, s3://BUCKET/PATH, or any fsspec URL."
    ),
]
OfReportArgument = Annotated[
    str | None,
    typer.Argument(metavar="REPORT", help="Only what this report needs. [everything]"),
]
OnlyNeededOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="With REPORT: only models or threats of this pattern; repeatable."),
]


@app.command()
def pull(
    url: UrlArgument,
    report: OfReportArgument = None,
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
    only: OnlyNeededOption = None,
) -> None:
    """Take into the store what others have trained and measured, so that a run need not do it
    again. Every file is checked against its digest and seal before it enters; nothing that is there
    is replaced; two results of the same work that differ are both kept, and named. A seal is no
    signature: robench verify runs a sample again. Exit code 1 when anything contradicts or is
    refused."""
    _share(url, report, workspace, store, only, pull=True)


@app.command()
def push(
    url: UrlArgument,
    report: OfReportArgument = None,
    workspace: WorkspaceOption = None,
    store: StoreOption = None,
    only: OnlyNeededOption = None,
) -> None:
    """Put what the store holds where others can pull it from. Only what is not there is sent, so
    that a push that was stopped goes on, and several people may push to one place; nothing there is
    replaced; two results of the same work that differ are both kept, and named. Exit code 1 when
    anything contradicts, or is damaged here."""
    _share(url, report, workspace, store, only, pull=False)


def _share(
    url: str,
    report: str | None,
    workspace: Path | None,
    store: str | None,
    only: list[str] | None,
    pull: bool,
) -> None:
    from robench.make.progress import FilesBar
    from robench.store import sharing
    from robench.store.files import Files
    from robench.store.store import Store
    from robench.store.transferred import Transferred

    verb = "pull" if pull else "push"
    if only and report is None:
        raise RobenchError("--only: of a report: name one after the URL")
    here = _workspace(workspace)
    ours, theirs = _store(here, store), Store(Files(url, verb))
    source, target = (theirs, ours) if pull else (ours, theirs)
    sharing.check_stores(source, target, conceal(f"{verb} {url}" if pull else ours.url))
    shared = Transferred()
    batches = sharing.all_files(source, shared)
    if report is not None:
        from robench.make.needed import needed

        batches = needed(here, report, ours, theirs, only or ())
    with FilesBar(err, verb) as bar:
        try:
            sharing.Sharing(source, target, shared, bar).carry(batches)
        finally:
            if pull:
                sharing.note_pulled(target, source, shared)
    names = sharing.labels(target, source) if shared.contradictions else {}
    for one in shared.contradictions:
        label = names.get(one.item.key, "")
        _say(*map(printable, one.lines(label, target.files.shown, source.files.shown)))
    _say(*map(printable, shared.summary(f"{verb}ed")))
    if pull and report is not None:
        _say(f"next: robench run {report}")
    if not shared.sound:
        raise typer.Exit(FAILED)


@app.command()
def check(
    wanted: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            help="A card, its file or a plugin's; a plugin by name. [all cards of the workspace]",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Check cards and run the contract tests of plugins. Exit code 1 when something is wrong."""
    from robench.checks import cards as contract

    checked = failed = 0
    for checked_one in contract.check(_workspace(workspace), wanted):
        _say(*contract.lines(checked_one))
        checked, failed = checked + 1, failed + (not checked_one.passed)
    out.print(f"{checked} checked, {failed} failed", highlight=False)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def new(
    what: Annotated[New, typer.Argument(help="What to begin.")],
    name: Annotated[
        str,
        typer.Argument(
            help="Its name, as in my-defense; a workspace: a folder; weights: a checkpoint of "
            "torch.save(), whose tensors are written beside it as safetensors."
        ),
    ],
    workspace: WorkspaceOption = None,
) -> None:
    """Begin a workspace, a model, attack, corruption, data set or network in it, or a notebook:
    files that work, to be changed. Or write the weights of a checkpoint as cards name them."""
    from robench.workspace import new as begin

    if what is New.weights:
        from robench.networks.modules.checkpoint import rewritten

        file, held = rewritten(Path(name))
        card = f'trainer = {{ name = "given", weights = "{file.name}" }}'
        _say(f"wrote {file}: {held}", f"next, in a card beside it: {card}")
        return
    if what is New.workspace:
        files = begin.new_workspace(Path(name))
        command = f"cd {name} && robench new model my-defense"
    elif what is New.notebook:
        files = begin.new_notebook(Path(name))
        command = f"jupyter notebook {files[0]}"
    else:
        files = begin.new_plugin(_workspace(workspace), what.value, name)
        where = f" -w {workspace}" if workspace else ""
        command = (
            f"robench check {begin.PLURAL[what.value]}/{name}{where} && robench run {name}{where}"
        )
    _say(*(f"wrote {file}" for file in files), f"next: {command}")


class Described(StrEnum):
    """What `robench schema` describes."""

    models = "models"
    attacks = "attacks"
    corruptions = "corruptions"
    reports = "reports"
    leaderboard = "leaderboard"


@app.command()
def schema(
    what: Annotated[Described, typer.Argument(help="Cards of a folder, or leaderboard.json.")],
) -> None:
    """Print the JSON Schema of cards, for editors that complete them."""
    import json

    from robench.show.report.schema import leaderboard_schema
    from robench.workspace.schema import schema as described

    folder: Folder | Literal["leaderboard"] = what.value
    made = leaderboard_schema() if folder == "leaderboard" else described(folder)
    typer.echo(json.dumps(made, indent=2))


def _workspace(named: Path | None) -> Workspace:
    from robench.workspace.folders import open_workspace

    return open_workspace(named)


def _store(workspace: Workspace, named: str | None) -> Store:
    from robench.store.store import Store

    return Store(named or workspace.output / ".robench")


def _say(*lines: str) -> None:
    """Lines as they are, however long."""
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _command() -> str:
    """As a page shows it, which is of the whole report, and which anybody may read."""
    words = [
        word
        for before, word in pairwise(sys.argv)
        if "--only" not in (before, word.partition("=")[0])
    ]
    return conceal(" ".join(["robench", *words]))


def main() -> None:
    """Entry point: a user's mistake is one or two lines, never a traceback."""
    sys.excepthook = _print_traceback
    debug = "--debug" in sys.argv
    try:
        check_words(sys.argv[1:])
        app(_with_ray_address(sys.argv[1:]), prog_name="robench")
    except RobenchError as error:
        if debug:
            raise
        err.print(f"[red]error[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(USAGE)
    except OSError as error:  # of where it stands and what it writes to: all else has an error
        if debug:
            raise
        said = " ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        with suppress(OSError):  # it may be this stream that is full
            err.print(f"[red]error[/red] {escape(said)}", highlight=False, soft_wrap=True)
        _leave_quietly(USAGE)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has caught Ctrl-C
            _interrupted()
        raise


def _leave_quietly(code: int) -> NoReturn:
    """End although streams cannot be written, which Python would say at its end with a code of its
    own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _interrupted() -> NoReturn:
    err.print("interrupted; what is finished is kept: run the same command to continue")
    sys.exit(INTERRUPTED)


def check_words(words: list[str]) -> None:
    """Raises RobenchError for a word of the command line that no text can quote."""
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise RobenchError(
                f"argument {number}: {printable(word)}: bytes that are not UTF-8; rename the file"
            ) from None


def _print_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """As Python does, without the passwords that libraries quote."""
    lines = traceback.format_exception(kind, error, trace)
    sys.stderr.write(conceal("".join(lines)))


def _with_ray_address(words: list[str]) -> list[str]:
    """`--ray` may stand alone: what follows is its address only where it looks like one."""
    made: list[str] = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        alone = word == "--ray" and not (following in ("auto", "here") or ":" in following)
        made.append("--ray=here" if alone else word)
    return made


if __name__ == "__main__":
    main()
