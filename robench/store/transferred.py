"""What became of files that two stores were to share, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from robench.errors import cut, printable
from robench.store.promised import differences
from robench.store.store_files import FOLDERS, Said, StoreFile


@dataclass(frozen=True)
class Contradiction:
    """One digest and two contents: by what determines it, it is the same work."""

    item: StoreFile
    ours: Said
    """Of the store that is written to."""
    theirs: Said
    copy: str
    """Where in the store that is written to the other's is kept."""

    def lines(self, label: str, ours: str, theirs: str) -> Iterator[str]:
        """In words. `label`: of what; empty: no manifest says. `ours`, `theirs`: the stores."""
        what = "rows" if self.item.kind == "cells" else "tensors"
        named = f" ({label})" if label else ""
        yield f"contradiction: {self.item.kind[:-1]} {self.item.key[:12]}{named}: two results:"
        yield f"  {self.ours.content[:12]}  {what} in {ours}: {self.ours.made}"
        yield f"  {self.theirs.content[:12]}  {what} in {theirs}: {self.theirs.made}"
        there, here = (
            said.provenance.get("environment") or {} for said in (self.theirs, self.ours)
        )
        if other := differences(there, here):
            yield f"  other bits may be, since they were made on other machines: {printable(other)}"
        else:
            yield "  the same bits were promised: one of the two is not what its cards say"
        yield f"  nothing was replaced; the second is kept as {self.copy}"


@dataclass
class Transferred:
    """What became of the files that were to be shared, by kind or by name."""

    moved: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    """Already there."""
    absent: Counter[str] = field(default_factory=Counter)
    """Asked for, and in neither store."""
    names: list[str] = field(default_factory=list)
    """Of the files that were written."""
    contradictions: list[Contradiction] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Name of a file -> why it was not taken."""
    left: dict[str, str] = field(default_factory=dict)
    """Report -> why its manifest was not taken, which is no fault."""
    strange: list[str] = field(default_factory=list)
    """Names that are none of a store's files."""

    @property
    def sound(self) -> bool:
        """Whether nothing contradicts and nothing was refused."""
        return not (self.contradictions or self.refused)

    def summary(self, done: str) -> Iterator[str]:
        """In words, without the contradictions. `done`: what was done with the files."""
        for name, why in sorted(self.refused.items()):
            yield f"refused: {name}: {why}"
        for report, why in sorted(self.left.items()):
            yield f"note: the page of {report} {why}"
        if self.strange:
            shown = ", ".join(cut(ascii(name), 80) for name in sorted(self.strange)[:3])
            yield f"left alone: {len(self.strange)} files that are none of a store's: {shown}"
        for kind in FOLDERS:
            counts = {done: self.moved[kind], "already there": self.same[kind]}
            if self.absent[kind]:
                counts["in neither store"] = self.absent[kind]
            if any(counts.values()):
                said = ", ".join(f"{number} {state}" for state, number in counts.items())
                yield f"{kind}: {said}"
        if not any(self.moved.values()) and not any(self.same.values()):
            yield f"nothing {done}"
        counts = {"contradictions": len(self.contradictions), "refused": len(self.refused)}
        yield ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "sound"
