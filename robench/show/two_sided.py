"""Two-sided numbers: what attacks and proofs together say of each image, ball by ball.

An image is *broken* in a ball where any attack found a point of it that the model gets wrong (the
clean image is such a point too), *proved* where a proof shows that there is none, else *open*; open
never counts as proved (METHODS: what can be proved). So, for the images measured,

    proved share <= robust accuracy <= 1 - broken share,

and with intervals on both ends the same is said of images that were not measured. For a noisy model
the same three parts are shares of an image: what a certificate guarantees of the probability of a
right answer, and what attacks left of it. A certificate of its vote says 1/2 of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from robench.errors import RobenchError
from robench.show.balls import Ball
from robench.show.results import Model, Results, Threat
from robench.show.statistics import Floats

NEVER = 1e-9
"""Probability below which measured draws contradict a certified share. A proof is certain: there
one wrong draw is enough."""
PROVED, OPEN, ATTACKED = "proved", "open", "attacked"


@dataclass(frozen=True)
class Ends:
    """One model in one ball.

    ball: None: in all balls of the worst case together.
    proved, survived: (seeds, images) in [0, 1]: what is proved of each image, and what the clean
        input and every attack in the ball left of it.
    attacks: those attacks, proofs that looked for points to break among them.
    """

    ball: Ball | None
    proved: Floats
    survived: Floats
    attacks: tuple[str, ...]

    @property
    def open(self) -> float:
        """The share between both ends. Where draws are few, luck may take what is left of a noisy
        model below what is certified: then none."""
        return max(float(np.mean(self.survived - self.proved)), 0.0)

    @property
    def states(self) -> NDArray[np.str_]:
        """(seeds, images): b(roken), p(roved) or o(pen); of a noisy model what most of it is."""
        parts = [1 - self.survived, self.proved, self.survived - self.proved]
        return np.asarray(np.array(["b", "p", "o"])[np.argmax(parts, axis=0)])


def balls(results: Results) -> list[Ball]:
    """Those in which something is proved, by norm and radius."""
    return sorted({Ball.of(threat) for threat in results.proofs})


def several(results: Results) -> list[Ball]:
    """The balls that are told apart: all, unless the only one is that of the worst case."""
    every = balls(results)
    return [] if len(every) < 2 and set(every) == results.balls else every


def ends(results: Results, model: Model, ball: Ball | None = None) -> Ends | None:
    """Both ends of a model in one ball; None: in the balls of the worst case.

    None where a cell is missing that has a say, no proof reaches the whole ball, or none applies
    to the model.
    """
    if not results.proofs:
        return None
    where = results.balls if ball is None else {ball}
    threats = results.within(model, where)
    shown = [proved(results, model, one) for one in where]
    left = results.worst_case(model, threats)
    known = [part for part in shown if part is not None]
    if left is None or not known or len(known) < len(shown):
        return None
    met = results.met(model, threats)
    names = tuple(threat["name"] for threat in met if threat["kind"] == "attack")
    return Ends(ball, reduce(np.minimum, known), left, names)


def proved(results: Results, model: Model, ball: Ball) -> Floats | None:
    """(seeds, images) in [0, 1]: the most that any proof of a ball around this one shows; None
    where there is no such proof, one has no outcome, or none applies to the model."""
    reaching = [t for t in results.met(model, results.proofs) if Ball.of(t).holds(ball)]
    if not all(results.tables(model, threat["name"]) for threat in reaching):
        return None
    shown = [_shown(results, model, threat) for threat in reaching]
    known = [part for part in shown if part is not None]
    return reduce(np.maximum, known) if known else None


def accuracies(results: Results, model: Model) -> dict[str, Floats]:
    """What the leaderboard says of both ends, by column: (seeds, images) each."""
    columns: dict[str, Floats] = {}
    whole = ends(results, model)
    if whole is not None:
        columns[PROVED] = whole.proved
    for ball in several(results):
        one = ends(results, model, ball)
        if one is not None:
            columns |= {column(PROVED, ball): one.proved, column(ATTACKED, ball): one.survived}
    return columns


def left_open(results: Results, row: Mapping[str, float]) -> dict[str, float]:
    """The share between both ends, by column, from a row of the leaderboard."""
    return {
        column(OPEN, ball): max(row[column(ATTACKED, ball)] - row[column(PROVED, ball)], 0.0)
        for ball in [None, *several(results)]
        if column(PROVED, ball) in row
    }


def columns(results: Results) -> list[str]:
    """The columns of both ends, whatever models have them; none without proofs."""
    if not results.proofs:
        return []
    each = [column(part, ball) for ball in several(results) for part in (PROVED, ATTACKED, OPEN)]
    return [PROVED, OPEN, *each]


def column(part: str, ball: Ball | None) -> str:
    """Where the leaderboard has a part; None: of the worst case."""
    if ball is not None:
        return f"{part}@{ball}"
    return "worst_case" if part == ATTACKED else part


def between(name: str) -> bool:
    """Whether a column is that of what is open."""
    return name.split("@")[0] == OPEN


def taken(name: str) -> bool:
    """Whether a column of both ends is called so."""
    return name in (PROVED, OPEN) or name.startswith((f"{PROVED}@", f"{ATTACKED}@", f"{OPEN}@"))


def check(results: Results) -> None:
    """Raises RobenchError where a proof and an attack in its ball contradict each other on an
    image: one of the two is a bug, and no number of the report stands until it is found."""
    contradictions = list(_contradictions(results))
    if not contradictions:
        return
    model, seed, image, proof, attack = contradictions[0]
    more = f"; so for {len(contradictions) - 1} more" if len(contradictions) > 1 else ""
    cells = [
        f"{threat['name']} (cell {(results.cell(model, seed, threat['name']) or {})['digest']})"
        for threat in (proof, attack)
    ]
    raise RobenchError(
        f"{results.name}: {model}, seed {seed}, image {image}: proved by {cells[0]}, but broken by "
        f"{cells[1]}{more}; one of them is a bug: run both again, and report what stays"
    )


def _contradictions(
    results: Results,
) -> Iterator[tuple[str, int, int, Threat, Threat]]:
    """Model, seed, image, proof and attack; of the attacks on an image the first."""
    others = [
        threat for threat in results.threats if threat["kind"] in ("clean", "attack")
    ]  # noise floors and proofs too: whatever breaks an image in the ball
    for model in results.models if results.proofs else ():
        for proof in results.proofs:
            shown = _shown(results, model, proof)
            if shown is None:
                continue
            ball, seen = Ball.of(proof), np.zeros(shown.shape, bool)
            for threat in others:
                if threat["kind"] == "attack" and not ball.holds(Ball.of(threat)):
                    continue
                correct = results.correct(model, threat["name"])
                if correct is None:
                    continue
                draws = _draws(results, model, threat)
                luck = stats.binom.cdf(np.rint(correct * draws), draws, np.minimum(shown, 1.0))
                fresh = (correct < shown) & (luck < NEVER) & ~seen
                seen |= fresh
                for place, image in np.argwhere(fresh):
                    seed = model["seeds"][int(place)]["seed"]
                    yield model["name"], seed, int(image), proof, threat


def _draws(results: Results, model: Model, threat: Threat) -> Floats:
    """(seeds, 1): answers that each image was scored by."""
    tables = results.tables(model, threat["name"])
    lengths = [len(table.column("predictions")[0]) if len(table) else 1 for table in tables]
    return np.array(lengths, dtype=float)[:, None]


def _shown(results: Results, model: Model, proof: Threat) -> Floats | None:
    """(seeds, images): the column `proved` of one proof, nothing where it is null; None where a
    seed has no outcome, or the proof does not apply: it is null throughout, or none was tried."""
    tables = results.tables(model, proof["name"])
    columns = [table.column(PROVED) for table in tables if PROVED in table.column_names]
    if len(columns) < len(tables) or all(part.null_count == len(part) for part in columns):
        return None
    if all(_untried(cell) for cell in results.cells(model, proof["name"])):
        return None
    shown = np.stack([part.fill_null(0.0).to_numpy().astype(np.float64) for part in columns])
    # Of a noisy model, 1 can only be said of its vote: more than half of its answers are right.
    return np.where(shown == 1, 0.5, shown) if model["stochastic"] else shown


def _untried(cell: Mapping[str, Any]) -> bool:
    """Whether the proof looked at no image, and left what was standing open for one reason: it does
    not know such networks."""
    noted = cell.get("proof") or {}
    return noted.get("images") == 0 and len(set(noted.get("open", {}).values())) == 1


def efforts(results: Results, model: Model, ball: Ball) -> list[Mapping[str, Any]]:
    """What the proofs in just this ball noted of themselves, seed by seed: images, seconds of an
    image (median, p95, max), and of open images why."""
    proofs = [t for t in results.met(model, results.proofs) if Ball.of(t) == ball]
    cells = [cell for proof in proofs for cell in results.cells(model, proof["name"])]
    return [cell["proof"] for cell in cells if cell.get("proof")]
