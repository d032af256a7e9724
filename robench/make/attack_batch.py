"""The piece of work that a dear cell is parted into where workers would have nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from robench.digest import digest
from robench.make.batches import batch_identity, write_batch
from robench.make.tasks import Evaluate, Kind, Tell
from robench.store.store import Store


@dataclass(frozen=True)
class AttackBatch:
    """Let the attack of a cell perturb one batch of its images. The bits are those that it has
    where one process does all of the cell."""

    evaluation: Evaluate
    start: int
    kind: ClassVar[Kind] = "evaluate"
    makes: ClassVar[Sequence[str]] = ()

    @property
    def digest(self) -> str:
        return digest(batch_identity(self.evaluation.digest, self.start))

    @property
    def label(self) -> str:
        return self.evaluation.label  # it is that cell which is in the making

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
        made = self.evaluation.attack_batch(self.start)
        write_batch(Store(self.store), self.evaluation.digest, self.start, made)
