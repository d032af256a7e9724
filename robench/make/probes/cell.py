"""What a cell asks its network beside its own question, for the checks of robench/show/diagnostics:
before any attack, after each, and about images that the network cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from robench.data.base import Part, Splits
from robench.data.fresh import parts, relatives
from robench.data.loading import load_splits
from robench.digest import derived_seed
from robench.make.probes.asking import ASKED, ROUNDING, Fresh, Questions, found_by_asking
from robench.make.probes.elsewhere import may_be_copied
from robench.make.probes.ranks import ranks
from robench.make.probes.slopes import slopes
from robench.networks.base import Network
from robench.networks.surrogate import Step
from robench.plugin_code.freed_memory import give_back
from robench.plugin_code.guard import AtWork, guarded
from robench.plugin_code.time_limit import within
from robench.store import columns
from robench.workspace.cards import ModelCard, ReportCard

BATCHES = 3
"""In so many the final images of an attack come that come in another order."""

Score = Callable[..., tuple[pa.Table, dict[str, Any]]]


@dataclass(frozen=True)
class Probes:
    """Questions to the network of one cell.

    Args:
        fresh: makes a copy that nobody has asked anything yet.
        answered: scores images by a copy, as the cell's own are.
        crafted: what the cell's attack makes of other images, (n, c, h, w), on a copy, within its
            own limit. work: the network, as errors name it. time_limit: seconds for all else.
    """

    fresh: Fresh
    answered: Score
    crafted: Callable[[Network, Part], np.ndarray]
    work: AtWork
    time_limit: float
    model: ModelCard
    report: ReportCard
    device: torch.device

    def before(self, network: Network, part: Part) -> dict[str, Any]:
        """What is found by asking the network before any attack does."""
        seed = derived_seed(self.report.seed, "probed")
        x = torch.from_numpy(part.at(slice(ASKED)).copy()).to(self.device)
        questions = Questions(self.fresh, x, self.model.inference_noise, seed)
        jumps = any(isinstance(module, Step) for module in network.modules())
        shown = None if self.work.own else network  # its copies share its weights
        with guarded(replace(self.work, files=None), seed, shown):
            return {
                "asked": found_by_asking(questions, not self.work.own, may_be_copied(self.device)),
                "slopes": {} if jumps else slopes(questions),
            }

    def after(
        self, attacked: Network, images: np.ndarray, part: Part, rows: pa.Table
    ) -> dict[str, Any]:
        """Do the network that was attacked, and one that is asked in another order and in smaller
        batches, say of the final images what the one that is scored says (`rows`)?

        Of each the share of images that it says something else about; of a noisy network, whose
        draws come in the order of the images, only of the former: how much more often it is right.
        """
        fresh = self.fresh()
        after = self.answered(attacked, images, part)[0]
        draws = len(rows.column("predictions")[0]) if len(rows) else 1
        if draws > 1:
            scored, seen = (columns.values(t.column("correct")) for t in (rows, after))
            return {"state": {"gain": round(float((seen - scored).mean()), 4), "draws": draws}}
        back = slice(None, None, -1)
        numbers = None if part.numbers is None else part.numbers[back]
        turned = Part(np.ascontiguousarray(images[back]), part.labels[back].copy(), numbers)
        few = -(-len(rows) // BATCHES)
        other = self.answered(fresh, turned.images, turned, batch_size=few)[0]
        return {"state": {"attacked": _unlike(rows, after), "order": _unlike(rows, other, back)}}

    def of_relatives(self, part: Part, eps: float, weights: str) -> dict[str, Any]:
        """What the network answers to relatives of the test images, clean and attacked, all sorts
        in one batch; and how its margins on test images compare with those on images that it is
        not to know."""
        splits = load_splits(self.model)
        of_sorts: dict[str, Any] = {}
        sorts = relatives(splits, part, eps, self.report.seed, weights)
        every = Part(
            np.concatenate([part.at(slice(0)), *(one.images for one in sorts.values())]),
            np.concatenate([part.labels[:0], *(one.labels for one in sorts.values())]),
        )
        lengths = {sort: len(one) for sort, one in sorts.items()}
        del sorts  # which are as large again
        give_back()
        with self._at_once(max(len(part), ASKED)) as fresh:
            attacked = self.crafted(fresh(), every) if lengths else every.images
            with within(self.time_limit, self.work.who):
                shares = [
                    columns.values(self.answered(fresh(), images, every)[0].column("correct"))
                    for images in (every.images, attacked)
                    if lengths
                ]
                margins = self._margins(fresh, splits, eps)
        start = 0
        for sort, many in lengths.items():
            clean, left = (float(share[start : start + many].mean()) for share in shares)
            of_sorts[sort] = {
                "images": many, "clean": round(clean, 4), "attacked": round(left, 4)
            }  # fmt: skip
            start += many
        return {"relatives": of_sorts, "ranks": margins}

    @contextmanager
    def _at_once(self, rows: int) -> Iterator[Fresh]:
        """Makes copies that are asked about at most so many images at once inside the block: there
        are more relatives than images under attack, and they are to take no more memory."""
        kept = self.fresh() if self.work.own else None  # which then is one for all
        before = None if kept is None else kept.rows_at_once

        def fresh() -> Network:
            network = self.fresh()
            network.rows_at_once = min(network.rows_at_once or rows, rows)
            return network

        try:
            yield fresh
        finally:
            if kept is not None:
                kept.rows_at_once = before

    def _margins(self, fresh: Fresh, splits: Splits, eps: float) -> list[dict[str, Any]]:
        seed = derived_seed(self.report.seed, "ranks")
        with guarded(replace(self.work, files=None), seed):
            return ranks(
                fresh,
                parts(splits, self.report.seed),
                eps=eps,
                noisy=self.model.inference_noise,
                seed=seed,
                batch_size=self.report.batch_size,
                device=self.device,
            )


def _unlike(rows: pa.Table, others: pa.Table, order: slice = slice(None)) -> float:
    """Share of the images whose prediction and loss differ by more than rounding.

    Args:
        order: in which the others are to be read.
    """
    one, two = (columns.values(t.column("loss")).astype(float) for t in (rows, others))
    two = two[order]
    apart = np.abs(one - two) > 1e-4 + ROUNDING * np.minimum(np.abs(one), np.abs(two))
    return round(float(apart.mean()), 4)
