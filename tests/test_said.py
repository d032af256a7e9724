"""What a run says, and to whom: no password leaves it, no text of a plugin moves a cursor or fills
a disk, and a part of a report never passes for the whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from command_line import robench, robench_here
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from small_runs import carry_out, reported

from robench import cli, errors
from robench.errors import RobenchError, conceal
from robench.make.pool import FIRST_LINE, WHOLE, failure_of, perform
from robench.run import RunOptions
from robench.show.published import find_results
from robench.show.results import load_published
from robench.store.store import Store
from robench.workspace.folders import Workspace, open_workspace

Write = Callable[[str, str], Path]

# -- passwords -------------------------------------------------------------------------------------

PASSWORD = "hunter2-and-more"
URLS = [
    f"s3://user:{PASSWORD}@host/bucket",
    f"ftp://user:{PASSWORD}@host:21/a/b",
    f"https://{PASSWORD}@host/x",
    f"simplecache::sftp://u:{PASSWORD}@h/p",
    f"abfs://c@a/p?sig={PASSWORD}&v=2",
    f"https://h/p?access_token={PASSWORD}",
    f"https://h/p?x=1&aws_secret_access_key={PASSWORD}",
    f"http://u:{PASSWORD}/with@slash@h/p",
]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    before = set(errors._secrets)
    yield
    errors._secrets.clear()
    errors._secrets.update(before)


@pytest.mark.parametrize("url", URLS)
def test_no_password_of_a_url_is_in_any_text(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PASSWORD not in conceal(f"cannot open {url}: refused")
    assert PASSWORD not in str(RobenchError(f"--store {url}: no"))
    assert PASSWORD not in str(failure_of(OSError(f"at {url}")))
    monkeypatch.setattr(sys, "argv", ["robench", "run", "--store", url])
    assert PASSWORD not in cli._command()
    for key in errors.secrets_of(url):
        errors.keep_secret(key)
    for key in errors.secrets_of(url):
        assert key not in conceal(f"login incorrect: user, {key}"), "also without its URL"


@pytest.mark.parametrize("text", ["mail me@example.org", "a/b@c", "eps=0.1", "s3://bucket/p?v=1"])
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert conceal(text) == text


class Guarded(MemoryFileSystem):
    """Says its password whenever something fails."""

    protocol = ("guarded", "memory")
    broken = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(f"memory://{path.rpartition('@')[2]}")

    def cat_file(self, path: str, *arguments: object, **settings: object) -> bytes:
        if self.broken and path.endswith(".parquet"):
            raise ValueError(f"login of user with {PASSWORD} at guarded://u:{PASSWORD}@host: gone")
        return bytes(super().cat_file(path, *arguments, **settings))


def test_a_run_into_a_store_with_a_password_leaves_it_in_no_file_and_no_line(
    small: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    url = f"guarded://u:{PASSWORD}@host/store"
    monkeypatch.setattr(sys, "argv", ["robench", "run", "small", "--store", url])
    store = Store(url)
    done = reported(small, store=store, console=Console(), command=cli._command())
    assert done.incomplete == 0
    monkeypatch.setattr(Guarded, "broken", True)
    with pytest.raises(RobenchError, match="gone") as caught:
        reported(small, store=store, console=Console(), command=cli._command())
    assert PASSWORD not in str(caught.value)
    written = {path: path.read_bytes() for path in small.root.rglob("*") if path.is_file()}
    kept = {path: MemoryFileSystem.store[path].getvalue() for path in MemoryFileSystem.store}
    for data in [*written.values(), *kept.values()]:
        assert PASSWORD.encode() not in data
    said = capfd.readouterr()
    assert PASSWORD not in said.out + said.err


def test_a_traceback_that_is_asked_for_has_no_password(small: Workspace) -> None:
    url = f"nowhere://u:{PASSWORD}@host/x"
    for how, words in ((robench_here, ()), (robench, ("--debug",))):
        done = how(*words, "report", "small", "-w", str(small.root), "--store", url)
        assert done.returncode != 0
        assert "nowhere://***@host/x" in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" in done.stderr


# -- texts of plugins ------------------------------------------------------------------------------


class Raises:
    """A task that fails in a way of its own."""

    label, digest, group, time_limit = "raises", "", "raises", None

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, tell: Callable[[float, str], None]) -> None:
        tell(0.5, "\x1b[2J" + "x" * 10_000)
        raise self.error


def named(name: str) -> type[Exception]:
    return type(name, (Exception,), {})


class Unsayable(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


TEXTS: dict[str, BaseException] = {
    "clears the screen": ValueError("\x1b[2J\x1b[1;1H gone"),
    "sets the title": ValueError("\x1b]0;pwned\x07"),
    "goes back": ValueError("all is well\rnothing is"),
    "rings": ValueError("\x07" * 10),
    "is 50 MB": ValueError("x" * 50_000_000),
    "is 10 MB of lines": ValueError("x\n" * 5_000_000),
    "turns the text round": ValueError("\u202egnirts"),
    "has half a letter": ValueError("\ud800"),
    "has a zero": ValueError("a\x00b"),
    "has a long name": named("E" * 1_000_000)("x"),
    "has a name with escapes": named("E\x1b[2J")("x"),
    "cannot be said": Unsayable(),
    "is 50 MB of our own": RobenchError("x" * 50_000_000),
    "quotes a password": ValueError(f"ftp://u:{PASSWORD}@h"),
    "is a group": ExceptionGroup("many", [ValueError("\x1b[2J" * 1000)] * 500),
    "leaves": SystemExit("\x1b[2J"),
    "is no Exception": BaseException("\x1b[2J"),
    "stops a generator": GeneratorExit("x"),
}


@pytest.mark.rows(9)
@pytest.mark.parametrize("what", TEXTS)
def test_what_a_failure_says_is_printable_and_short(what: str) -> None:
    heard: list[str] = []
    failure = perform(Raises(TEXTS[what]), lambda label, done, text: heard.append(text))
    assert failure is not None
    assert failure.short.isprintable()
    assert len(failure.short) <= 2 * FIRST_LINE + 100
    for text in (failure.message, failure.traceback):
        assert len(text) <= 12 * WHOLE
        assert all(line.isprintable() for line in text.split("\n"))
        assert PASSWORD not in text
    assert heard
    assert heard[0].isprintable()
    assert len(heard[0]) < 1000


def test_a_file_of_failures_from_elsewhere_does_not_reach_the_terminal(small: Workspace) -> None:
    run, _ = carry_out(small, only=("clean",))
    missing = next(c for c in run.plan.cells if True)
    name = run.digests[missing]
    run.store.write_failure(name, {"task": "t", "error": "\x1b[2J"})
    next((small.root / ".robench").rglob(f"{name}.parquet")).unlink()
    done = robench_here("status", "small", "-w", str(small.root))
    assert "\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_plugins_class_of_the_name_damaged_is_a_failure_like_any_other(
    small: Workspace, write: Write
) -> None:
    write(
        "attacks/d.py",
        "from robench import Attack\nclass Damaged(Exception): pass\n"
        "class D(Attack):\n    def perturb(self, target, x, y, rng):\n"
        "        raise Damaged('mine')\n",
    )
    write(
        "attacks/e.py",
        "from robench import Attack\nfrom robench.store.store import Damaged\n"
        "class E(Attack):\n    def perturb(self, target, x, y, rng):\n"
        "        raise Damaged('theirs')\n",
    )
    for name in ("d", "e"):
        write(
            f"attacks/{name}.toml",
            f'attack = "./{name}.py:{name.upper()}"\naccess = "white-box"\neps = 0.1\n',
        )
    write(
        "reports/small.toml",
        'title = "t"\nmodels = ["small"]\nattacks = ["d", "e"]\nimages = 20\ndiagnostics = false\n',
    )
    run, ears = carry_out(open_workspace(small.root))
    assert ears.failed["small seed 0 x d"].short.startswith("Damaged: mine")
    assert ears.failed["small seed 0 x e"].short.startswith("Damaged: theirs")
    assert len(run.failures) == 2


# -- a part is not the whole -----------------------------------------------------------------------


def states(workspace: Workspace) -> dict[str, str]:
    page = load_published(workspace.root / "reports/small").manifest
    stored = find_results(workspace, Store(workspace.root / ".robench"), "small").manifest
    found = [{c["threat"]: c["status"] for c in manifest["cells"]} for manifest in (page, stored)]
    assert found[0] == found[1]
    return found[0]


def run(workspace: Workspace, *only: str) -> int:
    command = "robench run small"
    store = Store(workspace.root / ".robench")
    done = reported(workspace, store=store, command=command, options=RunOptions(jobs=1, only=only))
    return done.incomplete


def test_a_part_of_a_report_first_shows_the_rest_as_missing_and_then_takes_nothing_away(
    small: Workspace,
) -> None:
    assert run(small, "fgsm") == 0
    assert states(small) == {"clean": "missing", "fgsm": "done", "noise": "missing"}
    assert run(small) == 0
    page = (small.root / "reports/small/index.html").read_bytes()
    assert run(small, "noise") == 0
    assert states(small) == {"clean": "done", "fgsm": "done", "noise": "done"}
    assert (small.root / "reports/small/index.html").read_bytes() == page


def test_the_command_on_a_page_makes_the_whole_report(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["robench", "run", "x", "--only", "a", "-j", "2", "--only=b", "--store", "s"]
    monkeypatch.setattr(sys, "argv", words)
    assert cli._command() == "robench run x -j 2 --store s"


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[b"run", b"\xff"], [b"\xfe"], [b"list", b"-w", b"/tmp/\x80"]])
def test_bytes_that_are_no_text_on_the_command_line_are_one_error(words: list[bytes]) -> None:

    done = subprocess.run([sys.executable.encode(), b"-m", b"robench", *words], capture_output=True)
    assert done.returncode == 2
    assert b"bytes that are not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


PLACES = {
    "a folder that is gone": (
        "mkdir gone; cd gone; rmdir ../gone",
        "",
        "No such file or directory",
    ),
    "a full disk": ("true", "> /dev/full", "No space left on device"),
    "a full disk, also for errors": ("true", "> /dev/full 2> /dev/full", ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("what", PLACES)
def test_standing_nowhere_and_writing_to_a_full_disk_is_one_error(
    tmp_path: Path, what: str
) -> None:
    before, to, said = PLACES[what]
    words = f"{before}; {sys.executable} -m robench list models {to}"
    done = subprocess.run(["sh", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
