"""The piece of work that keeps adversarial images of a cell that was finished without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from robench.digest import digest
from robench.errors import RobenchError
from robench.make.attack_batch import AttackBatch
from robench.make.tasks import Evaluate, Kind, MakeInputs, Tell, Train
from robench.make.trained import there
from robench.store.adversarial import images_file
from robench.store.store import Store


@dataclass(frozen=True)
class KeepImages:
    """Make the images of a cell that was finished without keeping them.

    The attack runs again, as the same work gives the same bits. Where it does not (on another kind
    of processor), the images would not be those that the stored outcome speaks of, and none are
    kept.
    """

    evaluation: Evaluate
    kind: ClassVar[Kind] = "evaluate"
    makes: ClassVar[Sequence[str]] = ["images"]

    @property
    def digest(self) -> str:
        return digest({"what": "images", "cell": self.evaluation.digest})

    @property
    def label(self) -> str:
        return f"images of {self.evaluation.label}"

    @property
    def group(self) -> str:
        return self.evaluation.group

    @property
    def time_limit(self) -> float:
        return self.evaluation.time_limit

    @property
    def store(self) -> str:
        return self.evaluation.store

    @property
    def reads(self) -> list[str]:
        return self.evaluation.reads

    def run(self, tell: Tell) -> None:
        store, cell = Store(self.evaluation.store), self.evaluation.digest
        stored = there(store.read_cell, cell)
        outcome, images = self.evaluation.carry_out()
        assert images is not None
        if outcome.digest != stored.digest:
            made = stored.provenance.get("environment", {})
            raise RobenchError(
                "its outcome is kept, its images are not: what this machine makes of it is not to "
                f"the bit what the store holds (made on {made.get('processor', 'another machine')}"
                f", {made.get('capability', '?')}, torch {made.get('torch', '?')}); run into a "
                "store of its own with --store"
            )
        store.write_images(cell, images_file(stored, images)[1], stored.digest)
        store.clear_failure(self.digest)


Task = Train | MakeInputs | Evaluate | AttackBatch | KeepImages
