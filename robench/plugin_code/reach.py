"""What a plugin's code can reach: the files that determine what it computes, by their bytes.

All imports are followed as they are written: files of the workspace and people's own code elsewhere
count by their bytes, installed distributions by name and version. What robench itself is built on
(torch, numpy, ...) does not count: versions of those are provenance. Data files count where a class
names them (`files`); a plugin that opens others of its workspace is refused (guard.py).
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from robench.digest import digest_bytes
from robench.errors import RobenchError
from robench.plugin_code.loading import on_change, opened_by, shown, signature, source

PLATFORM = {
    *("robench", "torch", "numpy", "scipy", "skimage", "sklearn", "pandas", "pyarrow", "PIL"),
    *("matplotlib", "seaborn", "pydantic", "safetensors", "pooch", "fsspec", "rich", "typer"),
    *("cv2", "jinja2", "foolbox", "eagerpy", "art", "imagecorruptions"),
}
"""What robench is built on: its versions are provenance, not identity."""
SITES = ("site-packages", "dist-packages")
"""Folders that distributions are installed in."""
FILE = re.compile(r"[\w./ -]{1,200}\.\w{1,12}")
"""What the name of a data file looks like."""
DYNAMIC = ("import_module", "__import__")
"""Functions whose argument, where it is written out, is an import too."""


@dataclass(frozen=True)
class Code:
    """All that determines what a piece of code does."""

    digest: str
    files: frozenset[Path]
    undeclared: tuple[str, ...]
    """Files that were read while it was imported, and that nobody has named."""


def code_of(path: Path, root: Path, classes: Sequence[type] = ()) -> Code:
    """What the code in a file can reach.

    Args:
        root: the workspace, or the folder around a package.
        classes: in the file or re-exported by it: their bases count too, wherever they come from,
            and the data files that they name (`files`).

    A file that reaches nothing else has the digest of its bytes alone.
    """
    path, root = path.resolve(), root.resolve()
    if installed(path):
        top = _module_of(path)
        version = [] if top in PLATFORM else [distribution(top).encode()]
        return Code(digest_bytes(source(path), *version), frozenset({path}), ())
    files, packages = {path}, set[str]()
    bases = {base for item in classes for base in item.__mro__}
    for module in {base.__module__ for base in bases}:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or module.partition(".")[0] in PLATFORM | sys.stdlib_module_names:
            continue
        if installed(Path(file)):
            packages.add(distribution(module))
        else:
            files.add(Path(file).resolve())
    waiting = list(files)
    while waiting:
        for reached in _imports(waiting.pop(), root):
            if isinstance(reached, str):
                packages.add(reached)
            elif reached not in files:
                files.add(reached)
                waiting.append(reached)
    data = {file for base in bases for file in _declared(base)}
    # What compiled code opens nobody notices: files count whose names stand in the code.
    written = {file for one in files for file in _written(one)} - files - data
    read = {file for one in files for file in opened_by.get(one, ())} - files - data
    others = [digest_bytes(source(file)) for file in files - {path}]
    others += [_data(file, *signature(file)) for file in data | written]
    parts = [text.encode() for text in (*sorted(others), *sorted(packages))]
    return Code(
        digest_bytes(source(path), *parts) if parts else digest_bytes(source(path)),
        frozenset(files | data),
        tuple(sorted(shown(file) for file in read)),
    )


def _declared(base: type) -> Iterator[Path]:
    """The data files that a class names, beside the file that it lies in."""
    named = vars(base).get("files", ())
    if "ClassVar" not in str(vars(base).get("__annotations__", {}).get("files", "ClassVar")):
        return  # a setting of that name
    own = getattr(sys.modules.get(base.__module__), "__file__", None)
    if own is None or not isinstance(named, (list, tuple)):
        return
    for name in named:
        file = (Path(own).parent / str(name)).resolve()
        if not file.is_file():
            raise RobenchError(f"{own}: {base.__name__}: files: {name!r}: no such file: {file}")
        yield file


def _written(path: Path) -> Iterator[Path]:
    """Files beside a Python file whose names are written out in it."""
    for name in _names(path):
        with suppress(OSError, ValueError):
            file = (path.parent / name.lstrip("/")).resolve()  # f"{folder}/table.npy"
            if file.is_file() and file.is_relative_to(path.parent):
                yield file


def _nodes(path: Path) -> list[ast.AST]:
    """All that stands in a Python file; nothing where it is none."""
    try:
        return list(ast.walk(ast.parse(source(path))))
    except (SyntaxError, ValueError, OSError):
        return []


@lru_cache(maxsize=1024)
def _names(path: Path) -> tuple[str, ...]:
    """Texts in a Python file that may be the names of files."""
    texts = {node.value for node in _nodes(path) if isinstance(node, ast.Constant)}
    return tuple(t for t in texts if isinstance(t, str) and FILE.fullmatch(t))


@lru_cache(maxsize=64)
def _data(file: Path, *_signature: int) -> str:
    """Digest of a data file under its name."""
    try:
        return digest_bytes(file.name.encode(), file.read_bytes())
    except OSError as error:
        raise RobenchError(f"{file}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1024)
def _imports(path: Path, root: Path) -> tuple[Path | str, ...]:
    """Files and distributions that a Python file imports itself, wherever in it that is written."""
    imported: list[Path | str] = []
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported += _named(path, root, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            imported += _named(path, root, name, tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = getattr(node.args[0], "value", None)
            if called in DYNAMIC and isinstance(first, str):
                imported += _named(path, root, first, ())
    return tuple(dict.fromkeys(imported))


def _named(path: Path, root: Path, name: str, inside: tuple[str, ...]) -> Iterator[Path | str]:
    """What `from name import inside` in a file means."""
    bare = name.lstrip(".")
    if level := len(name) - len(bare):
        base = path.parents[min(level, len(path.parents)) - 1]
        yield from _modules(base, bare.split(".") if bare else [], inside)
        return
    top, *rest = bare.split(".")
    if top in sys.stdlib_module_names or top in PLATFORM:
        return
    place = _place(top)
    if place is not None and installed(place):
        yield distribution(top)
        return
    for base in [place] if place is not None else [path.parent, root]:
        yield from _modules(base, [top, *rest], inside)


def _modules(base: Path, parts: Sequence[str], inside: Sequence[str]) -> Iterator[Path]:
    """Python files that importing `parts` under a folder runs."""
    yield from _module(base / "__init__")
    for number in range(1, len(parts) + 1):
        yield from _module(base.joinpath(*parts[:number]))
    for name in inside:
        if name.isidentifier():
            yield from _module(base.joinpath(*parts, name))


def _module(place: Path) -> Iterator[Path]:
    for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if file.is_file():
            yield file.resolve()


def _place(top: str) -> Path | None:
    """The folder that a module or package of that name lies in; None: there is none."""
    spec = getattr(sys.modules.get(top), "__spec__", None)
    if spec is None:
        with suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.origin and spec.has_location else None


def _module_of(file: Path) -> str:
    """The name of the package or module, at the top, that an installed file belongs to."""
    parts = file.with_suffix("").parts
    return parts[max(parts.index(part) for part in SITES if part in parts) + 1]


def installed(place: Path) -> bool:
    """Whether it lies where distributions are installed, which then have a version."""
    return any(part in SITES for part in place.parts)


@lru_cache(maxsize=256)
def distribution(module: str) -> str:
    """The distribution that a module comes from: name, version and what was installed of it."""
    top = module.partition(".")[0]
    try:
        package = importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
        if not names:
            return top
        package = importlib.metadata.distribution(names[0])
    return built(package)


def built(package: importlib.metadata.Distribution) -> str:
    """name==version, and a digest of the hashes that its RECORD has of files in Python: two builds
    may say the same version. Without a RECORD of such files, the version alone."""
    record = package.read_text("RECORD") or ""
    lines = [line for line in record.splitlines() if ".py,sha256=" in line]
    code = f"#{digest_bytes(*map(str.encode, sorted(lines)))[:16]}" if lines else ""
    return f"{package.name}=={package.version}{code}"


on_change.append(_imports.cache_clear)
on_change.append(_names.cache_clear)
