"""Runs ONE cell and enforces the threat model: the framework keeps the score, plugins never do."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.goal import Goal, among
from robench.attacks.target import (
    BudgetExceeded,
    DecisionTarget,
    NoGradient,
    ScoreTarget,
    WeightsTarget,
    WhiteBoxTarget,
)
from robench.attacks.without_gradients import WithoutGradients
from robench.data.base import Part
from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.memory import whole
from robench.networks.neighbourhood import changing
from robench.networks.noise import InUse, noise, noise_in_use
from robench.networks.numbers import LOST, NONE, asked, without_a_number
from robench.networks.torch_state import own_state, swapped
from robench.plugin_code.guard import AtWork, guarded, watched
from robench.plugin_code.time_limit import DAY, OutOfTime, until
from robench.store import columns
from robench.workspace.cards import AttackCard

DISPLAYED = 8
"""Images per cell whose perturbed input is kept for the page."""
ACTIVE = 100
"""Images that a network is asked about its activity on: means over neurons and time steps."""
ROUNDING = (1 + 1e-5, 1e-6)
"""Factor and offset by which a distance may exceed eps before it counts as leaving the ball."""
ACCESS = {
    "weights": WeightsTarget,
    "white-box": WhiteBoxTarget,
    "score": ScoreTarget,
    "decision": DecisionTarget,
    "transfer": WhiteBoxTarget,
}
LUCK = 1e-9
"""Probability below which a noisy model's answers contradict a bound."""
RANK = {"decision": 0, "score": 1, "white-box": 2, "weights": 3}


@dataclass(frozen=True)
class Perturbed:
    """What an attack made of a slice, and what it cost: rows of images."""

    images: np.ndarray
    distance: np.ndarray
    queries: np.ndarray
    gradients: np.ndarray
    zero_gradient: np.ndarray | None
    fooled_on_the_way: np.ndarray | None
    loss_trace: list[float]
    """Mean loss at each gradient."""
    loss_runs: list[int]
    """Where in the trace each run (restart, surrogate) begins."""
    proved: np.ndarray | None = None
    """Of a proof: a lower bound in [0, 1] of the probability that the model answers right,
    whatever point of the ball it is shown."""
    notes: dict[int, str] = field(default_factory=dict)
    """Of a proof: image -> why nothing was proved."""
    proof_seconds: list[float] = field(default_factory=list)
    """Of a proof: what each image that it looked at took."""
    radius: np.ndarray | None = None
    """Where the nearest wrong image was looked for: its distance, 0 where the clean image is one;
    NaN where none was found, or not looked for."""
    clear: np.ndarray | None = None
    """Where a proof looked for it: a radius within which there is none; NaN as above."""
    without_gradients: str = ""
    """Why an attack that follows gradients had none and was made without; empty: it had."""


COLUMNS = (
    "images", "distance", "queries", "gradients", "zero_gradient", "fooled_on_the_way", "proved",
)  # fmt: skip
"""What is known of each image of what attack_slice makes."""


@contextmanager
def in_use(network: Network, noisy: InUse, seed: int, device: torch.device) -> Iterator[None]:
    """The network as it answers questions: evaluation mode, no weight gradients, its randomness on
    a stream of its own."""
    generator = torch.Generator(device).manual_seed(seed)
    if any(module.training for module in network.modules()):
        network.eval()
    if any(weight.requires_grad for weight in network.parameters()):
        network.requires_grad_(False)
    network.generator = generator
    recurrent = any(isinstance(module, torch.nn.RNNBase) for module in network.modules())
    with (
        noise(network, noise_in_use(noisy, generator)),
        # cuDNN's recurrent layers have no backward pass in evaluation mode; torch's own do.
        swapped([torch.backends.cudnn], enabled=False) if recurrent else nullcontext(),
    ):
        try:
            yield
        finally:
            network.generator = None


def check_fit(attack: Attack, card: AttackCard) -> None:
    """Raises RobenchError when the attack needs more than its card allows, or another norm."""
    access = "white-box" if card.access == "transfer" else card.access
    if RANK[attack.needs] > RANK[access]:
        raise RobenchError(
            f'{card.file}: access = "{card.access}": attack {card.attack.name!r} needs '
            f"{attack.needs}"
        )
    if (card.access == "weights") != (attack.needs == "weights"):
        raise RobenchError(
            f'{card.file}: access = "weights": attack {card.attack.name!r} proves nothing, so that '
            f'it gets no weights; say access = "{attack.needs}"'
        )
    if card.norm not in attack.norms:
        raise RobenchError(
            f'{card.file}: norm = "{card.norm}": attack {card.attack.name!r} works in '
            f"{', '.join(attack.norms)}"
        )


@own_state()
def attack_slice(
    network: Network,
    attack: Attack,
    card: AttackCard,
    eps: float,
    data: Part,
    *,
    part: slice | None = None,
    noisy: InUse,
    seed: int,
    batch_size: int,
    device: torch.device,
    broken: Mapping[int, str] | None = None,
    aims: np.ndarray | None = None,
    top_k: int = 1,
    limit: float | None = None,
    work: AtWork | None = None,
    only: int | None = None,
    made: Mapping[int, Perturbed] | None = None,
) -> Perturbed:
    """Let an attack perturb a slice of test data, within its budget.

    Args:
        network: what the attack may ask, as far as `card.access` goes.
        data: the images and their true labels.
        part: the pixels of an item that the card lets the attack change; None: all.
        noisy: whether the noise of the noisy layers is on.
        broken: what a proof is told: images that something else has broken in a ball no larger ->
            the threat that did.
        aims: of a targeted threat, the class that each image is to be taken for, (n,); an image
            whose aim is negative has none, and stays as it is.
        top_k: a label counts as answered among so many likeliest classes.
        limit: seconds that the attack may take; None: as its card says.
        work: the plugins that are called (see guard.py).
        only: the first image of the one batch that is wanted; None: all batches.
        made: batches that are there already, by their first image.

    Each batch draws numbers of its own, known by its first image, so that it is the same wherever
    it is attacked. Where the network has no gradient to follow, the attack is made without
    (without_gradients.py).

    Raises BudgetExceeded when the attack leaves its ball, its range or its number of queries, and
    RobenchError when card and attack do not fit, or a plugin changes what is not its own.
    """
    check_fit(attack, card)
    work = work or AtWork(f"attack {card.attack.name!r} ({card.file})")
    ball = Ball(card.norm, eps, part)
    limit = limit or card.time_limit or DAY
    deadline = time.monotonic() + limit
    parts: list[Perturbed] = []
    for start in range(0, len(data), batch_size) if only is None else (only,):
        if made is not None and start in made:
            parts.append(made[start])
            continue
        why = ""
        given = data.at(slice(start, start + batch_size))  # once: it may have to be decoded
        x, y = batch_of(Part(given, data.labels[start:]), 0, batch_size, device)
        goal, whole = Goal(top_k=top_k), x
        if aims is not None:
            wanted = torch.as_tensor(aims[start : start + batch_size], device=device)
            here = torch.nonzero(wanted >= 0)[:, 0]
            x, y, goal = x[here], y[here], Goal(wanted[here], top_k)
            rows = here.cpu().numpy()
            given = given[rows]
            if not len(rows):
                parts.append(Perturbed(**_untouched(whole), loss_trace=[], loss_runs=[]))
                continue
        rng = torch.Generator(device).manual_seed(derived_seed(seed, "attack", start))
        with (
            changing(network, card.part),
            in_use(network, noisy, derived_seed(seed, "attacked", start), device),
        ):
            # A ball of its own: whoever widens it is held to the one that the card says.
            shown = Ball(card.norm, eps, part)
            target = ACCESS[card.access](network, shown, len(x), card.max_queries, deadline, goal)
            if isinstance(target, WeightsTarget):
                inside = [i - start for i in broken or () if start <= i < start + len(x)]
                target.broken[inside] = True
            guard = guarded(work, derived_seed(seed, "attack", "global", start), network)
            try:
                with guard, until(deadline):
                    try:
                        x_adv = attack.perturb(target, x.clone(), y.clone(), rng)
                    except NoGradient as nothing:
                        if card.access == "weights" or not isinstance(target, ScoreTarget):
                            raise
                        why = str(nothing)
                        x_adv = WithoutGradients().perturb(target, x.clone(), y.clone(), rng)
            except OutOfTime:
                raise BudgetExceeded(
                    f"attack {card.attack.name!r} ran past its time_limit of {limit:g} s"
                ) from None
        _check_untouched(x, given, f"{work.who} writes into the data set")
        x_adv = _enforce(x_adv, x, ball, card)
        counted = {
            "images": x_adv.cpu().numpy(),
            "distance": ball.distance(x_adv, x).cpu().numpy(),
            **target.counts(),
        }
        parts.append(
            Perturbed(
                **(counted if aims is None else _spread(counted, whole, rows)),
                loss_trace=target.loss_trace,
                loss_runs=target.record.runs,
                without_gradients=why,
            )
        )
        if isinstance(target, WeightsTarget):
            parts[-1] = replace(
                parts[-1],
                proved=target.claims,
                notes={start + index: text for index, text in target.notes.items()},
                proof_seconds=target.seconds,
            )
    return _together(parts)


def _together(parts: Sequence[Perturbed]) -> Perturbed:
    """What was made of the batches of a slice, in their order."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        found = [getattr(part, name) for part in parts]
        columns[name] = None if any(one is None for one in found) else np.concatenate(found)
    asked = [part for part in parts if part.queries.any()]
    length = min((len(part.loss_trace) for part in asked), default=0)
    return Perturbed(
        **columns,
        loss_trace=[float(np.mean([one.loss_trace[i] for one in asked])) for i in range(length)],
        loss_runs=next((part.loss_runs for part in parts if part.loss_runs), []),
        notes={image: text for part in parts for image, text in part.notes.items()},
        proof_seconds=[seconds for part in parts for seconds in part.proof_seconds],
        without_gradients=next((p.without_gradients for p in parts if p.without_gradients), ""),
    )


def _untouched(x: Tensor) -> dict[str, Any]:
    """What is noted of images that no attack has any use for."""
    none = np.zeros(len(x))
    return {
        "images": x.cpu().numpy(),
        "distance": none.astype(np.float32),
        "queries": none,
        "gradients": none,
        "zero_gradient": none > 0,
        "fooled_on_the_way": none > 0,
    }


def _spread(counted: Mapping[str, Any], x: Tensor, rows: np.ndarray) -> dict[str, Any]:
    """What is noted of some images of a batch, `rows`, beside the others."""
    noted = _untouched(x)
    for name, values in counted.items():
        if values is None:
            noted[name] = None
        else:
            noted[name] = noted[name].astype(values.dtype)
            noted[name][rows] = values
    return noted


ENFORCED = 64
"""Images that are held against the budget at once: more would take as much memory again."""


def _enforce(x_adv: Tensor, x: Tensor, ball: Ball, card: AttackCard) -> Tensor:
    """The images as scored: refused when outside the budget, else projected to undo rounding."""
    who = f"attack {card.attack.name!r} ({card.file})"
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        shape = tuple(getattr(x_adv, "shape", ()))
        raise BudgetExceeded(f"{who} returned {shape or type(x_adv)}, not images {tuple(x.shape)}")
    x_adv = x_adv.detach().to(x)
    pieces = zip(torch.split(x_adv, ENFORCED), torch.split(x, ENFORCED), strict=True)
    return torch.cat([_enforced(found, clean, ball, card, who) for found, clean in pieces])


def _enforced(x_adv: Tensor, x: Tensor, ball: Ball, card: AttackCard, who: str) -> Tensor:
    if not torch.isfinite(x_adv).all():
        raise BudgetExceeded(f"{who} returned NaN or infinite pixels")
    if float(x_adv.amin()) < -ROUNDING[1] or float(x_adv.amax()) > 1 + ROUNDING[1]:
        raise BudgetExceeded(f"{who} left the range [0, 1]")
    if ((x_adv != x) & ~ball.free(x)).any():
        raise BudgetExceeded(f'{who} changed more than the part = "{card.part}" of an item')
    far = float(ball.distance(x_adv, x).amax())
    if ball.norm != "none" and far > ball.eps * ROUNDING[0] + ROUNDING[1]:
        raise BudgetExceeded(f"{who} left its {ball.norm} ball: distance {far:.6g} > {ball.eps:g}")
    return ball.project(x_adv, x)


@own_state()
def score_slice(
    network: Network,
    images: np.ndarray,
    part: Part,
    *,
    noisy: InUse,
    draws: int,
    seed: int,
    batch_size: int,
    device: torch.device,
    top_k: int = 1,
    work: AtWork | None = None,
    perturbed: bool = False,
) -> tuple[pa.Table, dict[str, Any]]:
    """Predict the images by so many draws: one row per image, and what was seen on the way.

    Observations: `probabilities` (every answer is a point of the simplex, as after a softmax),
    `activity` (what the network says of itself on a few, such as spike rates), `between_draws`
    (largest difference between the logits of two draws, relative to the largest logit; None for one
    draw), `inference_ms` (milliseconds per image and draw, of the fastest batch) and, where there
    are any, `no_number`: images to which some answer was NaN, infinite or an exception. They count
    as wrong: their prediction is no class (-1).

    Args:
        top_k: a label counts as answered where it is among so many likeliest classes, and stands
            in `predictions` then.
        work: the network that is called (see guard.py).
        perturbed: whether an attack made the images: it may have left none with an answer.

    Raises RobenchError when the network answers with the wrong shape or to no image with numbers,
    or changes what is not its own.
    """
    work = work or AtWork("the network")
    answered: list[tuple[np.ndarray, ...]] = []
    simplex, activity, between, fastest = True, {}, 0.0, math.inf
    bytes_: list[bytes] = []
    shown = min(DISPLAYED, len(part))
    for start in range(0, len(part), batch_size):
        given = images[start : start + batch_size]  # once: it may have to be made
        x, y = batch_of(Part(given, part.labels[start:]), 0, batch_size, device)
        drawn, lost = [], torch.zeros(len(y), device=device)
        silent = torch.zeros(len(y), dtype=torch.bool, device=device)
        watch = watched(work, derived_seed(seed, "score", "global", start), network)
        use = in_use(network, noisy, derived_seed(seed, "score", start), device)
        with torch.no_grad(), use, watch:
            first: Tensor | None = None
            for _ in range(draws):
                started = time.perf_counter()
                logits = asked(network, x, partial(whole, network), known=perturbed)
                bad = without_a_number(logits)  # which waits for the device
                fastest = min(fastest, (time.perf_counter() - started) / len(y))
                if first is None:
                    first = logits
                else:
                    between = max(between, _change(logits, first))
                if bad is not None:
                    silent |= bad
                    logits = torch.where(bad[:, None], 0.0, logits)
                said = logits.argmax(1)
                said = said if top_k == 1 else torch.where(among(logits, y, top_k), y, said)
                lost_now = cross_entropy_rows(logits, y)
                if bad is not None:
                    said, lost_now = torch.where(bad, NONE, said), torch.where(bad, LOST, lost_now)
                drawn.append(said)
                lost += lost_now
            if start == 0:
                activity = network.activity(x[: min(ACTIVE, network.rows_at_once or ACTIVE)])
        _check_untouched(x, given, f"{work.who} changes its input in place: x = x.clone() first")
        few = given[: shown - len(bytes_)]
        bytes_ += [np.round(image * 255).astype(np.uint8).tobytes() for image in few]
        noted = torch.stack(drawn, 1), lost / len(drawn), network.ties(logits), silent
        answered.append(tuple(column.cpu().numpy() for column in noted))
        simplex &= bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all())
        del given, few, x  # of pictures two batches are much memory: before the next is made
    predictions, losses, ties, nothing = map(np.concatenate, zip(*answered, strict=True))
    predicted, silent_images = predictions.astype(np.int16), int(nothing.sum())
    if silent_images == len(part) and not perturbed:
        raise RobenchError("the network answers NaN or infinite logits")
    right = predicted == part.labels[:, None]
    rows = pa.table(
        {
            "image": columns.numbers(_numbers(part)),
            "label": columns.numbers(part.labels.astype(np.int16)),
            "predictions": columns.lists(list(predicted), np.int16),
            "correct": columns.numbers(right.mean(1, dtype=np.float32)),
            "loss": columns.numbers(losses.astype(np.float32)),
            "tie": columns.numbers(ties),
            "input": columns.binaries([*bytes_, *[None] * (len(part) - shown)]),
        }
    )
    return rows, {
        "probabilities": simplex,
        "activity": activity,
        "between_draws": between if draws > 1 else None,
        "inference_ms": round(1e3 * fastest, 5),
        **({"no_number": silent_images} if silent_images else {}),
    }


def with_costs(rows: pa.Table, perturbed: Perturbed | None) -> pa.Table:
    """The rows with what the attack cost; nulls where there was none. Those of a proof also say
    what it proved, and those of a search for the nearest wrong image how far that is."""
    types = {
        "distance": np.float32,
        "queries": np.float32,
        "gradients": np.float32,
        "zero_gradient": np.bool_,
        "fooled_on_the_way": np.bool_,
    }
    for name, kind in types.items():
        values = None if perturbed is None else getattr(perturbed, name)
        none = np.full(len(rows), values is None)
        values = np.zeros(len(rows)) if values is None else values
        rows = rows.append_column(name, columns.numbers(values.astype(kind), none))
    for name in ("proved", "radius", "clear"):
        values = None if perturbed is None else getattr(perturbed, name)
        if values is not None:
            column = columns.numbers(values.astype(np.float32), np.isnan(values))
            rows = rows.append_column(name, column)
    return rows


class Contradiction(Exception):
    """A proof says that there is no wrong point where one is known: one of the two is a bug."""


def check_proof(
    rows: pa.Table, perturbed: Perturbed, broken: Mapping[int, str], noisy: bool, who: str
) -> None:
    """Hold what was proved against what is known.

    Args:
        broken: image -> the threat that broke it in a ball no larger.
        noisy: whether the answers draw numbers: then only what could hardly be luck contradicts.
        who: what errors call the proof.

    Raises Contradiction naming image, proof and witness; BudgetExceeded where a bound is none.
    """
    from scipy.special import bdtr  # it takes longer to import than all else here

    proved = perturbed.proved
    assert proved is not None
    if not ((proved >= 0) & (proved <= 1)).all():  # NaN too
        raise BudgetExceeded(f"{who} claims a bound that is no probability: {proved}")
    correct = columns.values(rows.column("correct"))
    draws = len(rows.column("predictions")[0]) if len(rows) else 1
    for image in np.flatnonzero(proved > 0).tolist():
        bound, seen = float(proved[image]), float(correct[image])
        least = bound if bound < 1 else 0.5  # of a noisy model, 1 can only be said of its vote
        if not noisy and image in broken:
            witness = broken[image]
        elif seen < 1 if not noisy else bdtr(round(seen * draws), draws, least) < LUCK:
            witness = f"its own image, right in {seen:.0%} of {draws} answers"
        else:
            continue
        raise Contradiction(
            f"image {image}: {who} proves at least {bound:.4g} everywhere in the ball, but "
            f"{witness} breaks it inside the ball; one of the two is a bug"
        )


def _change(logits: Tensor, first: Tensor) -> float:
    """Largest difference between two answers, relative to the largest logit."""
    logits, first = logits.nan_to_num(0, 0, 0), first.nan_to_num(0, 0, 0)
    return float((logits - first).abs().amax() / first.abs().amax().clamp_min(1e-12))


def _numbers(part: Part) -> np.ndarray:
    """Which of the publisher's test images the rows are about."""
    numbers = np.arange(len(part)) if part.numbers is None else part.numbers
    return numbers.astype(np.int32)


def batch_of(part: Part, start: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copies: no plugin gets hold of the memory of a data set."""
    images = torch.from_numpy(part.at(slice(start, start + size)))
    labels = torch.from_numpy(part.labels[start : start + size])
    return images.to(device, copy=True), labels.to(device, copy=True)


def _check_untouched(x: Tensor, images: np.ndarray, said: str) -> None:
    """Raises RobenchError, saying so, where a batch and what it was made of are not alike."""
    if not torch.equal(x.cpu(), torch.from_numpy(images)):
        raise RobenchError(said)
