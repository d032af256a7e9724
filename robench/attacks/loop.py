"""The loop that the whole gradient family shares: gradient, comparison, step, projection.

What each setting means, and from which paper it is, stands in gradient.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, Best, BestIterates, aims, judge, rank
from robench.attacks.diversity import diversify, gaussian_kernel, smooth
from robench.attacks.losses import LOSSES
from robench.attacks.sequential import confirmed, settling
from robench.attacks.sparse import SparseSteps
from robench.attacks.steps import (
    AdaptiveSteps,
    FixedSteps,
    Region,
    StableSteps,
    Steps,
    direction,
    per_image,
    pick,
)
from robench.attacks.target import Answer, Precision, WhiteBoxTarget
from robench.errors import RobenchError
from robench.networks.adaptive import SHARES, AdaptiveSurrogate, share_of
from robench.networks.surrogate import SWEEP, parse_surrogate

CYCLE_CHECK = 8
"""Steps from one look for images that repeat themselves to the next; the first is early, because
some get no gradient at all."""


@dataclass(eq=False)
class LoopRun:
    """One run of the loop: one start, one surrogate. Everything it holds is about the images still
    under attack, `rows` of the batch."""

    attack: GradientAttack
    target: WhiteBoxTarget
    best: Best
    surrogate: str | AdaptiveSurrogate | None
    rng: torch.Generator
    pace: float
    """How long the steps are, as a share of what the schedule makes them."""

    def __post_init__(self) -> None:
        attack = self.attack
        self.draws = attack.eot if self.target.stochastic or attack.diversity else 1
        self.vote = attack.objective == "vote" and self.target.stochastic
        self.view: Callable[[Tensor], Tensor] | None = None
        if attack.diversity:
            share, smallest = attack.diversity, attack.smallest
            self.view = partial(diversify, probability=share, smallest=smallest, rng=self.rng)
        self.kernel: Tensor | None = None
        if attack.smoothing:
            self.kernel = gaussian_kernel(attack.smoothing, attack.smoothing_sigmas)

    def go(
        self,
        start: Tensor,
        region: Region,
        y: Tensor,
        aim: Tensor | None,
        rows: Tensor,
        judged: bool,
    ) -> None:
        """Attack the images and enter what was found among the best images.

        Args:
            start, region, y, aim: first iterates, where they may go, labels and classes to run
                towards, of the images in `rows`.
            judged: whether the result competes with other runs'.
        """
        attack = self.attack
        self.target.record.begin_run()
        self.y, self.aim, self.rows = y, aim, rows
        if isinstance(self.surrogate, str) and self.surrogate.partition(":")[0] in SHARES:
            self.surrogate = AdaptiveSurrogate(self.surrogate, len(rows))
        self.region = region
        self.steps = self._steps()
        self.best_iterates = BestIterates(start) if self.target.stochastic else None
        self.closed = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self.gone = 0
        # DLR is a margin in units that two classes do not have.
        few = attack.loss == "dlr" and self.target.classes < (3 if aim is None else 4)
        loss = LOSSES["margin" if few else attack.loss]
        x_adv = previous = start
        del start  # so large batches take no more memory than they need
        for step in range(attack.steps):
            index = self.rows if len(self.rows) < self.target.images else None
            answer = self.target.gradient(
                x_adv, self.y, loss, self.draws, self.surrogate, index, self.view, self.aim,
                self.vote, attack.on, attack.reset == "through", attack.precision,
            )  # fmt: skip
            if attack.keep == "best":
                self._compare(x_adv, answer, attack.steps - step)
                if self.gone == len(self.rows):
                    return
            gradient = answer.gradient
            if self.kernel is not None:
                gradient = smooth(gradient, self.kernel)
            following = self.steps.advance(x_adv, gradient, answer.loss, self.region)
            if self.repeats and step % CYCLE_CHECK == 1:
                last = x_adv if (attack.steps - 1 - step) % 2 else following
                self._settle((following == previous).flatten(1).all(1), last, judged)
                if self.gone == len(self.rows):
                    return
            previous, x_adv = x_adv, following
            if self._saves(attack.steps - step):
                x_adv, previous = self._leave(x_adv, previous)
        if attack.keep == "best" or judged:
            self._finish(x_adv, judged)
        else:
            self.best.images = x_adv  # the only run, and nobody left it

    def _saves(self, left: int) -> bool:
        """Whether it saves time to drop the images that are closed, with so many steps left."""
        if self.rows.is_cuda:  # does few as fast as many, and replays what keeps its shape
            return 2 * self.gone >= len(self.rows)
        # Leaving costs about one step in copying; so many images must leave that it saves one.
        return self.gone * left >= len(self.rows)

    @property
    def repeats(self) -> bool:
        """Whether an iterate that was there before brings back all that followed it: images that go
        to and fro between two iterates, or stay where they are, will not differ from now on. Both
        were judged, and the later steps' number says which will be the last."""
        attack = self.attack
        simple = attack.keep == "best" and attack.schedule == "fixed" and not attack.momentum
        same = self.view is None and not isinstance(self.surrogate, AdaptiveSurrogate)
        return simple and same and not self.target.stochastic

    def _settle(self, over: Tensor, last: Tensor, judged: bool) -> None:
        """Images of a network without noise leave that no iterate has broken.

        Args:
            over: which of them have had their last iterate, (n,) bool; closed ones do not count.
            last: that iterate, of all of them.
            judged: whether other runs follow, which may skip images that are broken.
        """
        rows = torch.nonzero(over & ~self.closed)[:, 0]
        if not len(rows):
            return
        index, images = self.rows[rows], last.index_select(0, rows)
        ranks = torch.zeros(len(rows), device=rows.device)
        if judged:  # else the score alone will tell
            share, gap = judge(self.target, images, self.y[rows], 1, index)
            ranks = rank(gap)
            self.best.broken[index[share == 1]] = True
        self.best.enter(index, images, ranks)
        self.closed[rows] = True
        self.gone += len(rows)

    def _steps(self) -> Steps:
        attack, eps = self.attack, self.target.eps
        if self.target.norm == "l1":  # as many pixels as it takes: their steps have no length
            return SparseSteps(eps, attack.steps)
        if attack.schedule == "apgd":
            return AdaptiveSteps(self.pace * eps, attack.steps)
        if attack.schedule == "sa-pgd":
            return StableSteps(self.pace * eps, attack.steps, attack.momentum)
        default = eps if attack.steps == 1 else 2.5 * eps / attack.steps
        return FixedSteps(self.pace * (attack.step_size or default), attack.momentum)

    def _compare(self, x_adv: Tensor, answer: Answer, left: int) -> None:
        """Enter the images that are broken now, and remember the best iterates of the others.

        Args:
            left: steps left, this one included.
        """
        share, gap = answer.fooled, answer.margin
        rounded, noisy = self.attack.precision != "float32", self.best_iterates is not None
        if self.view is not None or (rounded and noisy):  # of what it was shown instead, or rounded
            share, gap = judge(self.target, x_adv, self.y, self.draws, self.rows, self.vote)
        elif rounded:
            share, gap = self._asked_again(x_adv, share, gap)
        if self.best_iterates is None:
            ranks = rank(gap)
            broken = torch.nonzero((gap > ROUNDING) & (share == 1) & ~self.closed)[:, 0]
        else:
            ranks = self._ranks(gap, share)
            self.best_iterates.note(x_adv, ranks, self.closed)
            broken = self._confirmed(x_adv, share, 3 * self.draws * left)
        if len(broken):
            self.closed[broken] = True
            self.gone += len(broken)
            index = self.rows[broken]
            self.best.enter(index, x_adv.index_select(0, broken), ranks[broken])
            self.best.broken[index] = True

    def _asked_again(self, x_adv: Tensor, share: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Share and margin by float32 of the images that rounded passes call broken: no others
        leave, so that one that only the rounded network gets wrong stays under attack."""
        rows = torch.nonzero((gap > 0) & ~self.closed)[:, 0]
        if not len(rows):
            return share, gap
        asked = judge(self.target, x_adv.index_select(0, rows), self.y[rows], 1, self.rows[rows])
        return share.index_copy(0, rows, asked[0]), gap.index_copy(0, rows, asked[1])

    def _ranks(self, gap: Tensor, share: Tensor) -> Tensor:
        """What iterates of a noisy network are compared by, (n,): what is scored, draw by draw or
        by vote."""
        return rank(gap) if self.vote else rank(gap, share)

    def _confirmed(self, x_adv: Tensor, share: Tensor, cost: int) -> Tensor:
        """Rows that are broken for sure, on a noisy network.

        Args:
            cost: forward passes that an image which stays still costs; asking must be cheaper.
        """
        rows = torch.nonzero((share == 1) & ~self.closed)[:, 0]
        if not len(rows) or cost <= settling(0) - self.draws:
            return rows[:0]
        # The gradient's own draws count: the iterate was there before them.
        given = (x_adv[rows], self.y[rows], self.rows[rows])
        return rows[confirmed(self.target, *given, wrong=self.draws)]

    def _leave(self, x_adv: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Drop what is held of broken images; the iterates of the others, and those just before."""
        stay = torch.nonzero(~self.closed)[:, 0]
        self.y, self.rows = self.y.index_select(0, stay), self.rows.index_select(0, stay)
        self.aim = None if self.aim is None else self.aim.index_select(0, stay)
        self.region.keep(stay)
        self.steps.keep(stay)
        if self.best_iterates is not None:
            self.best_iterates.keep(stay)
        if isinstance(self.surrogate, AdaptiveSurrogate):
            self.surrogate.keep(stay)
        self.closed, self.gone = torch.zeros_like(stay, dtype=torch.bool), 0
        return x_adv.index_select(0, stay), previous.index_select(0, stay)

    def _finish(self, x_adv: Tensor, judged: bool) -> None:
        """Images that no iterate has broken: the last one is still to be judged.

        Args:
            judged: whether other runs follow, which may skip images that are broken.
        """
        if self.best_iterates is None:
            self._settle(~self.closed, x_adv, judged)
            return
        target, rows = self.target, torch.nonzero(~self.closed)[:, 0]
        x_adv = x_adv.index_select(0, rows)
        draws, y, index = max(self.draws, self.attack.judged), self.y[rows], self.rows[rows]
        share, gap = judge(target, x_adv, y, draws, index, self.vote)
        if self.attack.keep == "best":
            # The peak was chosen by the draws that its gradient was taken with: fresh ones decide
            # between it and the last iterate.
            peak = self.best_iterates.images.index_select(0, rows)
            other, wide = judge(target, peak, y, draws, index, self.vote)
            last = self._ranks(gap, share) >= self._ranks(wide, other)
            x_adv = pick(per_image(last, x_adv), peak, x_adv)
            share, gap = torch.where(last, share, other), torch.where(last, gap, wide)
        self.best.enter(index, x_adv, self._ranks(gap, share))
        if judged:
            sure = share == 1
            sure[sure.clone()] = confirmed(target, x_adv[sure], y[sure], index[sure])
            self.best.broken[index[sure]] = True


Surrogates = str | tuple[str, ...] | None


NEAR = 0.1
"""Of the ball: how far from the best image runs with `restart_from = "near-best"` start."""


NEAR_PACE = 0.25
"""How long their steps are, as a share of what they would be: those that begin with the whole
radius forget where they started."""


def _surrogate(chosen: Surrogates) -> Surrogates:
    if isinstance(chosen, tuple) and not chosen:
        raise ValueError("an empty list names no surrogate derivative")
    for text in chosen if isinstance(chosen, tuple) else (chosen,):
        if text is not None and text != "sweep":
            (share_of if text.partition(":")[0] in SHARES else parse_surrogate)(text)
    return chosen


def _odd(length: int) -> int:
    if length and length % 2 == 0:
        raise ValueError("a kernel has an odd length, so that it has a middle")
    return length


class GradientAttack(Attack):
    """Steps along the gradient, projected after each."""

    steps: int = Field(default=15, ge=1)
    step_size: float | None = Field(default=None, gt=0)
    """Length of a step in pixel units; None: eps for one step, 2.5 eps / steps for more."""
    schedule: Literal["fixed", "apgd", "sa-pgd"] = "fixed"
    """apgd: Croce & Hein's adaptive step sizes; sa-pgd: steps of each pixel's own length, which
    come to rest where its gradient wavers. Both have a momentum of their own; that of
    sa-pgd, 0.5, gives way to `momentum`."""
    momentum: float = Field(default=0.0, ge=0)
    """mu of MIM: how much of the running sum of normalised gradients stays at each step."""
    diversity: float = Field(default=0.0, ge=0, le=1)
    """Probability that an image is resized and padded at random before each gradient (DIM)."""
    smallest: float = Field(default=299 / 330, gt=0, lt=1)
    """Least size that diversity resizes to, as a share of the image's."""
    smoothing: Annotated[int, Field(ge=0), AfterValidator(_odd)] = 0
    """Length in pixels of the Gaussian kernel that smooths the gradient (TIM); 0: none."""
    smoothing_sigmas: float = Field(default=3.0, gt=0)
    """Standard deviations from the middle of the kernel to its edge; the deviation in pixels is
    (smoothing - 1) / (2 smoothing_sigmas)."""
    random_start: bool = False
    """Start from a uniform point of the ball."""
    restarts: int = Field(default=1, ge=1)
    """Runs, from the second on from random starts; the image keeps its most adversarial one."""
    eot: int = Field(default=1, ge=1)
    """Draws to average each gradient over, where the network or `diversity` is random."""
    restart_from: Literal["clean", "best", "near-best"] = "clean"
    """best: further runs start within half a ball of the best image so far; near-best: within a
    tenth of one, with steps a quarter as long, and so does the first run where another attack has
    found an image before."""
    judged: int = Field(default=8, ge=1)
    """Least number of fresh draws by which what runs found on a noisy network is compared."""
    objective: Literal["expected", "vote"] = "expected"
    """What is raised on a noisy network. expected: the mean loss of its draws; vote: the loss of
    their mean output, which decides what the majority says."""
    loss: Literal["cross-entropy", "margin", "dlr", "accuracy"] = "cross-entropy"
    """accuracy: the share of draws of a noisy network that are misclassified, smoothed."""
    on: Literal["output", "potential"] = "output"
    """potential: the loss is of the potentials that decide a spiking network's output, whose
    gradient no last spike hides; on other networks the same as output."""
    targets: int = Field(default=0, ge=0)
    """Runs towards each of so many likeliest wrong classes (of all, where there are fewer), instead
    of away from the right one."""
    surrogate: Annotated[Surrogates, AfterValidator(_surrogate)] = None
    """Derivative of steps and spikes: `rectangle:0.5`, ...; `adaptive`, `one-sided`: of widths
    that follow each neuron, `pdsg`, `rate`: as published (networks/adaptive.py); a list: one run
    with each, the best kept per image; "sweep": five fixed ones; None: the network's own."""
    reset: Literal["through", "stopped"] = "through"
    """Whether gradients flow through the reset of a spiking neuron."""
    precision: Precision = "float32"
    """Of the passes that gradients are taken in. bfloat16: faster where the processor computes in
    it; whether an image is broken is asked in float32 all the same. Not of networks that jump."""
    keep: Literal["best", "last"] = "best"
    """best: an image leaves the attack with the first iterate that breaks it, else with the final
    one (on a noisy network: with the one that most draws misclassify); last: the final iterate of
    every image, as the papers do."""
    later: ClassVar[tuple[str, ...]] = (
        "objective", "restart_from", "judged", "on", "reset", "precision",
    )  # fmt: skip
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for key in ("step_size", "momentum"):
            own = self.schedule == "apgd" or (self.schedule == "sa-pgd" and key == "step_size")
            if own and getattr(self, key):
                raise RobenchError(
                    f'attack: {key}: schedule = "{self.schedule}" sets it; drop this key'
                )
        texts = self.surrogate if isinstance(self.surrogate, tuple) else (self.surrogate,)
        adapting = any(str(text).partition(":")[0] in SHARES for text in texts)
        if self.objective == "vote" and (
            self.on == "potential" or self.loss == "accuracy" or adapting
        ):
            raise RobenchError(
                'attack: objective = "vote" is of mean outputs: it goes with neither on = '
                '"potential", loss = "accuracy" nor derivatives that adapt'
            )

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        best = Best(x)
        self.improve(best, target, x, y, rng)
        return best.images

    def improve(
        self,
        best: Best,
        target: WhiteBoxTarget,
        x: Tensor,
        y: Tensor,
        rng: torch.Generator,
        alone: bool = True,
    ) -> None:
        """Attack the images that stand, and enter what is found.

        Args:
            alone: whether no other attack takes part.
        """
        target.check_precision(self.precision)
        self.finite_eps(target)
        if target.norm == "l1" and self.schedule != "apgd":
            raise RobenchError(f'attack: schedule = "{self.schedule}": in l1 it is "apgd"')
        y = target.sought(y)
        runs = [
            (surrogate, aim, restart)
            for surrogate in self._surrogates(target)
            for aim in aims(target, x, y, self.targets)
            for restart in range(self.restarts)
        ]
        for surrogate, aim, restart in runs:
            rows = best.standing()
            if not len(rows):
                break
            clean = x if len(rows) == len(x) else x[rows]  # nobody writes into either
            region = Region(target.ball, clean)
            moved = bool(self.random_start or restart)
            near = moved and self.restart_from == "near-best" and bool(restart or best.entered)
            again = near or (bool(restart) and self.restart_from == "best")
            reach = NEAR if near else 0.5 if again else 1.0
            run = LoopRun(self, target, best, surrogate, rng, NEAR_PACE if near else 1.0)
            run.go(
                _around(best.images[rows] if again else clean, reach, region, target, rng)
                if moved else clean,
                region, y[rows], None if aim is None else aim[rows], rows,
                judged=not alone or len(runs) > 1,
            )  # fmt: skip

    def _surrogates(self, target: WhiteBoxTarget) -> tuple[str | None, ...]:
        """The derivatives to run with; a network without jumps has no use for a second one."""
        if self.surrogate == "sweep":
            return SWEEP if target.jumps else (None,)
        if isinstance(self.surrogate, tuple):
            return self.surrogate if target.jumps else (None,)
        return (self.surrogate,)


def _around(
    centre: Tensor, reach: float, region: Region, target: WhiteBoxTarget, rng: torch.Generator
) -> Tensor:
    """Uniform points, at most this share of the ball's radius from a centre, inside a region."""
    return region.project_(_within_ball(centre, target, rng).mul_(reach).add_(centre))


def _within_ball(x: Tensor, target: WhiteBoxTarget, rng: torch.Generator) -> Tensor:
    """A uniform point of the norm ball around zero for each image."""
    noise = torch.empty_like(x)
    if target.norm == "linf":
        return noise.uniform_(-target.eps, target.eps, generator=rng)
    if target.norm == "l1":
        noise = noise.exponential_(generator=rng)
        coins = torch.rand(x.shape, generator=rng, device=x.device) < 0.5
        size = noise.flatten(1).sum(1) / torch.rand(len(x), generator=rng, device=x.device) ** (
            1 / x[0].numel()
        )
        return torch.where(coins, noise, -noise) * per_image(target.eps / size, x)
    noise = direction(noise.normal_(generator=rng), "l2")
    radius = torch.rand(len(x), generator=rng, device=x.device) ** (1 / x[0].numel())
    return noise * per_image(radius, x) * target.eps
