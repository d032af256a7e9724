"""Which folder is the workspace, and which cards it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

from robench.errors import RobenchError, check_name, nearest, resolved
from robench.workspace.cards import (
    AttackCard,
    Card,
    CorruptionCard,
    ModelCard,
    ReportCard,
    read_card,
)

Folder = Literal["models", "attacks", "corruptions", "reports"]
FOLDERS: tuple[Folder, ...] = ("models", "attacks", "corruptions", "reports")
CARD_TYPES: dict[Folder, type[Card]] = {
    "models": ModelCard,
    "attacks": AttackCard,
    "corruptions": CorruptionCard,
    "reports": ReportCard,
}


@dataclass(frozen=True)
class Workspace:
    """A folder with models/, attacks/, corruptions/ and reports/.

    A card that the workspace does not have is looked up in the reference workspace, so that a
    benchmark of one's own can use `attacks = ["pgd"]` or compare with `digits/mlp-bp`.
    """

    root: Path
    output: Path
    """Where reports/NAME/ and the store .robench/ are written by default."""
    fallback: Workspace | None = field(default=None)
    held: tuple[Card, ...] = ()
    """Cards that Python code hands over, beside those in files; they hide those."""

    def names(self, folder: Folder) -> list[str]:
        """The names of the cards in `folder`, sorted; the reference workspace's not included."""
        base = self.root / folder
        inside = self._inside(base)
        named = {card.name for card in self.held if card.folder == folder}
        for name, plain in _files(base):
            if (plain and inside) or self._path(folder, name):
                named.add(name)
        return sorted(named)

    def _path(self, folder: Folder, name: str) -> Path | None:
        """The file of a card, if there is one inside the workspace. Hidden files are none."""
        path = self.root / folder / f"{name}.toml"
        if any(part.startswith(".") or not part for part in name.split("/")):
            return None
        return path if self._inside(path) and path.is_file() else None

    def _inside(self, path: Path) -> bool:
        """Whether there is something at a path, and in the workspace, links followed."""
        try:
            return path.exists() and path.resolve().is_relative_to(self.root.resolve())
        except (OSError, ValueError, RuntimeError):  # NUL, too long, links in a circle
            return False

    def known(self, folder: Folder) -> list[str]:
        """The names of the cards in `folder`, those of the reference workspace too."""
        return sorted(
            {*self.names(folder), *(self.fallback.names(folder) if self.fallback else ())}
        )

    def holding(self, *cards: Card) -> Workspace:
        """This workspace with cards that are in no file."""
        return replace(self, held=(*self.held, *cards))

    @overload
    def card(self, folder: Literal["models"], name: str) -> ModelCard: ...
    @overload
    def card(self, folder: Literal["attacks"], name: str) -> AttackCard: ...
    @overload
    def card(self, folder: Literal["corruptions"], name: str) -> CorruptionCard: ...
    @overload
    def card(self, folder: Literal["reports"], name: str) -> ReportCard: ...
    @overload
    def card(self, folder: Folder, name: str) -> Card: ...
    def card(self, folder: Folder, name: str) -> Card:
        """The card `name` (no suffix), from here or from the reference workspace."""
        for card in self.held:
            if (card.folder, card.name) == (folder, name):
                return card
        if path := self._path(folder, name):
            check_name(name, f"{folder}/")
            return _read(folder, path, self.root, name, path.stat().st_mtime_ns)
        if self.fallback and self.fallback._path(folder, name):
            return self.fallback.card(folder, name)
        raise RobenchError(
            f"{self.root / folder}: no card named {name!r}; {nearest(name, self.known(folder))}"
        )

    def select(self, folder: Folder, patterns: Sequence[str], asked_by: str) -> list[str]:
        """Names that match `patterns` (`digits/*`), in the order given, each once.

        A pattern that matches nothing here is tried on the reference workspace.
        """
        chosen: dict[str, None] = {}
        own = self.names(folder)
        for pattern in patterns:
            matching = [name for name in own if fnmatchcase(name, pattern)]
            if not matching:
                known = self.known(folder)
                matching = [name for name in known if fnmatchcase(name, pattern)]
                if not matching:
                    what = f"{folder} = {pattern!r} matches no card; {nearest(pattern, known)}"
                    raise RobenchError(f"{asked_by}: {what}")
            chosen |= dict.fromkeys(matching)
        return list(chosen)


def _files(base: Path, within: str = "") -> Iterator[tuple[str, bool]]:
    """Names of the cards under a folder, and whether each is a plain file: no link, no pipe. Hidden
    files are none, and links to folders are not followed."""
    with suppress(OSError), os.scandir(base / within) as entries:
        for entry in entries:
            name = f"{within}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(base, f"{name}/")
            elif name.endswith(".toml"):
                yield name.removesuffix(".toml"), entry.is_file(follow_symlinks=False)


@lru_cache(maxsize=4096)
def _read(folder: Folder, path: Path, root: Path, name: str, _mtime: int) -> Card:
    return read_card(CARD_TYPES[folder], path, root, name)


def reference_root() -> Path:
    """The reference workspace: package data in a wheel, the checkout in an editable install."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "reference"
    return packaged if packaged.is_dir() else package.parent


def is_workspace(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


def open_workspace(named: Path | None = None, start: Path | None = None) -> Workspace:
    """The workspace that the user named, else the one they stand in, else the reference one.

    Raises RobenchError when the named folder lacks one of the four folders.
    """
    here = (start or Path.cwd()).resolve()
    reference = reference_root()
    if named is not None:
        root = resolved(named, f"--workspace {named}")
        missing = [name for name in FOLDERS if not (root / name).is_dir()]
        if missing:
            raise RobenchError(
                f"--workspace {named}: not a workspace, it lacks {', '.join(missing)}/; "
                "a workspace is a folder with models/, attacks/, corruptions/ and reports/"
            )
    else:
        root = next((folder for folder in (here, *here.parents) if is_workspace(folder)), reference)
        if root == reference and not here.is_relative_to(reference):
            return Workspace(root=reference, output=here)
    fallback = None if root == reference else Workspace(root=reference, output=root)
    return Workspace(root=root, output=root, fallback=fallback)
