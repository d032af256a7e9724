"""`robench new`: a workspace, or a plugin with its card and a report, that work as they are."""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Any

import jinja2

from robench.errors import RobenchError, resolved
from robench.workspace.folders import FOLDERS, Folder, Workspace, is_workspace, reference_root

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
PLURAL: dict[str, Folder] = {
    "model": "models",
    "attack": "attacks",
    "corruption": "corruptions",
    "dataset": "models",
    "network": "models",
}
"""Where the card of each kind lies: what a model is made of lies beside its card."""


def new_workspace(folder: Path) -> list[Path]:
    """Make a workspace with one report in it.

    Returns what was written. Raises RobenchError where `folder` holds something that would be
    overwritten, or lies inside a workspace already.
    """
    folder = resolved(folder, f"new workspace {folder}")
    outer = next((parent for parent in folder.parents if is_workspace(parent)), None)
    if outer is not None:
        raise RobenchError(f"{folder}: lies inside the workspace {outer}; choose another place")
    files = {
        "README.md": _render("workspace/README.md.j2", name=folder.name),
        ".gitignore": _render("workspace/gitignore.j2"),
        "reports/first.toml": _render("workspace/first.toml.j2"),
        **{f"{name}/README.md": _render(f"workspace/{name}.md.j2") for name in FOLDERS},
    }
    return _write(folder, files)


def new_plugin(workspace: Workspace, kind: str, name: str) -> list[Path]:
    """Begin a model, attack, corruption, data set or network: a class, the card that uses it, and a
    small report.

    Args:
        kind: a key of PLURAL.
        name: of the card, as in "my-defense"; the class is then MyDefense.

    Returns what was written. Raises RobenchError for a name that is taken or none, and where no
    workspace is at hand.
    """
    if workspace.root == reference_root() and workspace.output != workspace.root:
        raise RobenchError(
            f"new {kind}: there is no workspace in {workspace.output}; make one with: robench new "
            "workspace FOLDER, or name one with --workspace"
        )
    if not NAME.fullmatch(name):
        raise RobenchError(
            f"new {kind} {name!r}: a name is made of small letters, digits and -, and begins with "
            "a letter, as in my-defense"
        )
    words = re.split("[-_]", name)
    module = "_".join(words)
    if keyword.iskeyword(module):
        raise RobenchError(f"new {kind} {name!r}: is a word of Python; choose another name")
    folder = PLURAL[kind]
    for taken in (folder, "reports"):
        if name in workspace.known(taken):
            raise RobenchError(
                f"new {kind} {name!r}: there is a card {taken}/{name} already; choose another name"
            )
    values = {"name": name, "module": module, "class_name": "".join(map(str.capitalize, words))}
    files = {
        f"{folder}/{module}.py": _render(f"{kind}.py.j2", **values),
        f"{folder}/{name}.toml": _render(f"{kind}.toml.j2", **values),
        f"reports/{name}.toml": _render(f"{kind}.report.toml.j2", **values),
    }
    return _write(workspace.root, files)


def new_notebook(path: Path) -> list[Path]:
    """An example notebook: a network of one's own, evaluated, looked at and asserted.

    Raises RobenchError where there is something of that name.
    """
    path = resolved(path if path.suffix == ".ipynb" else path.with_suffix(".ipynb"), "new notebook")
    cells = []
    for number, part in enumerate(_render("notebook.md.j2").split("```python\n")):
        code, fence, text = part.partition("```\n") if number else ("", "", part)
        if fence:
            cells.append(_cell("code", code, number, outputs=[], execution_count=None))
        if text.strip():
            cells.append(_cell("markdown", text, number))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return _write(path.parent, {path.name: json.dumps(notebook, indent=1) + "\n"})


def _cell(kind: str, source: str, number: int, **more: Any) -> dict[str, Any]:
    lines = source.strip("\n").splitlines(keepends=True)
    return {"cell_type": kind, "id": f"{kind}-{number}", "metadata": {}, "source": lines, **more}


def _render(template: str, **values: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robench.workspace", "templates"),
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(values)


def _write(root: Path, files: dict[str, str]) -> list[Path]:
    """All of them or none: nothing that is there is overwritten."""
    there = [name for name in files if resolved(root / name, f"new {root / name}").exists()]
    if there:
        raise RobenchError(f"{root / there[0]}: exists already; nothing was written")
    written = []
    for name, text in files.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RobenchError(f"{path}: cannot be written: {error.strerror or error}") from None
        written.append(path)
    return written
