"""What an attack may see of a model: labels, logits or gradients, as the card's `access` says.

A target counts what it is asked. A black-box target computes without a graph, so it has no gradient
to give, whatever is done to its answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.ball import Ball
from robench.attacks.goal import Goal, of_draws
from robench.attacks.losses import LOSSES, RowLoss, cross_entropy, mean_output
from robench.attacks.record import Record
from robench.errors import RobenchError
from robench.networks.adaptive import AdaptiveSurrogate
from robench.networks.base import Network, all_finite, check_finite, check_shape
from robench.networks.memory import in_pieces, joined, ran_out
from robench.networks.noise import GaussianNoise, noise_source
from robench.networks.numbers import LOST, asked, without_a_number
from robench.networks.replay import Ask, replays_of
from robench.networks.stand_in import stand_ins, standing_in
from robench.networks.surrogate import Step
from robench.networks.surrogate import surrogate as using_surrogate
from robench.networks.torch_state import swapped

COPIED_ROWS = 4096
"""Rows (draws x images) of a noisy network whose gradients are computed in one go."""


NO_GRADIENT = (
    "the network's answers have no gradient with respect to the images (torch.no_grad, quantised "
    "weights or a detour through numpy inside it?): attack it by its scores, or let the module "
    "name a differentiable stand-in"
)

On = Literal["output", "potential"]
"""What a loss is of: the network's output, or what Network.readings offers in its place."""
Precision = Literal["float32", "bfloat16"]
"""What gradients are computed in."""


class BudgetExceeded(Exception):
    """The attack asked for more than its card allows, or left its norm ball."""


class NoGradient(RobenchError):
    """The network answers, but its answers have no gradient that could be followed."""


class Answer(NamedTuple):
    """What a gradient question yields; averages are over the draws of a stochastic network."""

    gradient: Tensor
    """Of the loss with respect to the images, like x."""
    loss: Tensor
    """Mean loss, (n,)."""
    margin: Tensor
    """Mean margin, (n,): positive where fooled, or where the class aimed at is reached."""
    fooled: Tensor
    """Share of the draws that were misclassified, or answered the class aimed at, (n,)."""
    logits: Tensor
    """Mean logits, (n, classes)."""


@dataclass(frozen=True)
class _Question:
    """What a gradient is asked of; see WhiteBoxTarget.gradient."""

    loss: RowLoss
    draws: int
    surrogate: str | AdaptiveSurrogate | None
    view: Callable[[Tensor], Tensor] | None
    vote: bool
    on: On
    through_reset: bool
    precision: Precision

    def rounded(self, device: torch.device) -> AbstractContextManager[Any]:
        """Passes inside the block are in the precision that is asked for."""
        if self.precision == "float32":
            return nullcontext()
        # Weights that need no gradient are not kept in that precision anyway.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    def loss_towards(self, aim: Tensor | None) -> RowLoss:
        return self.loss if aim is None else partial(self.loss, aim=aim)


class DecisionTarget:
    """A model that answers with labels only.

    Args:
        network: in evaluation mode, on the device of the images.
        ball: the attack's budget: `target.norm`, `target.eps`, `target.project`.
        images: images in the batch under attack; what is asked is counted for each.
        max_queries: forward passes per image that may be asked for.
        deadline: time.monotonic() after which every question is refused.
        goal: what the threat is after; None: to be misclassified.

    Every question takes an optional `index`: which image of the batch each row is about. An attack
    that drops images as they break, or asks many rows about one image, gives it, so that the counts
    are right image by image.
    """

    def __init__(
        self,
        network: Network,
        ball: Ball,
        images: int,
        max_queries: int | None = None,
        deadline: float | None = None,
        goal: Goal | None = None,
    ) -> None:
        self._hidden = network
        self.goal = goal or Goal()
        self._weights = list(network.parameters())
        self._stand_ins = stand_ins(network)
        self.ball = ball
        self.images = images
        self.record = Record(images)
        self.classes = network.classes
        self.stochastic = network.random_now
        self._noise = noise_source(network)
        self._replays = replays_of(network) if torch.cuda.is_available() else None
        self._max_queries = max_queries
        self._deadline = deadline
        self._answers = False  # whether it ever answered with numbers

    @property
    def queries(self) -> int:
        """Forward passes so far, all images together."""
        return round(self.record.total("queries"))

    @property
    def gradients(self) -> int:
        """Gradients so far, all images together."""
        return round(self.record.total("gradients"))

    @property
    def loss_trace(self) -> list[float]:
        return self.record.loss_trace

    def counts(self) -> dict[str, np.ndarray | None]:
        """Per image, (n,): see Record.counts. scoring.py writes them beside each outcome."""
        return self.record.counts()

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def norm(self) -> str:
        return self.ball.norm

    @property
    def aim(self) -> Tensor | None:
        """Of a targeted threat, the class that each image of the batch is to be taken for, (n,)."""
        return self.goal.aim

    def sought(self, y: Tensor) -> Tensor:
        """The labels that `gap` and `gradient` are asked with: the true ones, or the classes that a
        targeted threat aims at."""
        return self.goal.sought(y)

    def gap(self, logits: Tensor, sought: Tensor) -> Tensor:
        """Positive where answers have what the threat is after, (..., n).

        Args:
            logits: (..., n, classes). sought: of these images, (n,).
        """
        return self.goal.gap(logits, sought)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the norm ball around `x` and in [0, 1]."""
        return self.ball.project(x_adv, x)

    def labels(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Predicted classes, (n,). One query for each row."""
        return self._ask(x, index).argmax(1)

    def affords(self, questions: int) -> bool:
        """Whether each image may be asked about so many times more."""
        if self._max_queries is None or not self.images:
            return True
        # Rows that are counted evenly add up in floating point.
        return self.record.most("queries") + questions <= self._max_queries + 1e-6

    def module(self, index: Tensor | None = None) -> nn.Module:
        """The target as a torch module, for libraries that want one; still counted. It answers with
        what the access allows: a decision target with one-hot labels.

        Args:
            index: which images of the batch it is asked about. Questions about as many rows are
                taken to be about these, others are counted evenly.
        """
        return _Counted(self, index)

    def _count(self, rows: int, index: Tensor | None, times: int = 1) -> None:
        self.record.count("queries", rows, index, times)
        if not self.affords(0):
            raise BudgetExceeded(
                f"asked for more than max_queries = {self._max_queries} forward passes an image"
            )
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise BudgetExceeded("ran past its time_limit")

    def _ask(self, x: Tensor, index: Tensor | None) -> Tensor:
        self._count(len(x), index)
        return self._checked(self._logits(x), x)

    def _logits(self, x: Tensor, copies: int = 1) -> Tensor:
        """One pass, without a graph."""
        ask = self._recorded(("logits", copies), lambda x: [self._hidden(x)])

        def answer(x: Tensor) -> Tensor:
            return joined([logits for (logits,) in in_pieces(self._hidden, ask, x)])

        with torch.no_grad():
            return answer(x) if copies > 1 else asked(self._hidden, x, answer, self._answers)

    def _recorded(self, kind: Hashable, ask: Ask) -> Ask:
        """`ask`, or where passes may be recorded, what records them."""
        return ask if self._replays is None else partial(self._replays, kind, ask)

    def _checked(self, logits: Tensor, x: Tensor) -> Tensor:
        """The answers, in which no number stands for being fooled: its row becomes that of a class
        which is not the likeliest. Raises RobenchError where no answer ever was a number, but for
        questions that are none: libraries may ask about images that are not finite."""
        check_shape(logits, len(x), self.classes)
        bad = without_a_number(logits)
        if bad is None:
            self._answers = True
            return logits
        if not self._answers and bool(bad.all()):
            check_finite("logits", logits[torch.isfinite(x).flatten(1).all(1)])
        self._answers = self._answers or not bool(bad.all())
        return torch.where(bad[:, None], self._fooled(logits, None), logits)

    def _fooled(self, logits: Tensor, y: Tensor | None) -> Tensor:
        """Answers that get every image wrong, (..., n, classes); without labels, all the same
        one."""
        if y is None:
            wrong = torch.full_like(logits[..., 0], self.classes - 1, dtype=torch.long)
        else:
            wrong = ((y + 1) % self.classes).expand(logits.shape[:-1])
        return F.one_hot(wrong, self.classes).to(logits.dtype) * LOST


class ScoreTarget(DecisionTarget):
    """A model that answers with logits."""

    def logits(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(n, classes), without a graph. One query for each row."""
        return self._ask(x, index)

    def answers(self, x: Tensor, draws: int, index: Tensor | None = None) -> Tensor:
        """The answers of so many fresh draws of a stochastic network, (draws, n, classes)."""
        if not self._copies:
            return torch.stack([self._ask(x, index) for _ in range(draws)])
        parts = []
        for copies in _at_a_time(draws, len(x)):
            self._count(len(x), index, copies)
            with self._copied(len(x), copies):
                logits = self._logits(x, copies)
            check_shape(logits, copies * len(x), self.classes)
            parts.append(logits.view(copies, len(x), -1))
        together = torch.cat(parts)
        bad = without_a_number(together)
        if bad is None:
            return together
        if bool(bad.all()):
            check_finite("logits", together)
        return torch.where(bad[..., None], self._fooled(together, None), together)

    def rivals(self, x: Tensor, y: Tensor, most: int) -> Tensor:
        """The likeliest classes but y, the likeliest first, (k, n): so many, or all. One query for
        each image of the batch."""
        wrong = self.logits(x).scatter(1, y[:, None], -torch.inf)
        return wrong.topk(min(most, self.classes - 1), dim=1).indices.T

    def common_answers(
        self, several: Sequence[Tensor], draws: int, index: Tensor | None = None
    ) -> list[Tensor]:
        """The answers to several sets of as many images under common draws of a stochastic network,
        each (draws, n, classes): what differs is owed to the images."""
        generator = self._hidden.generator
        start = None if generator is None else generator.get_state()
        answers = []
        for x in several:
            if generator is not None and start is not None:
                generator.set_state(start)
            answers.append(self.answers(x, draws, index))
        return answers

    @property
    def _copies(self) -> bool:
        """Whether several draws can share what comes before the first noisy layer."""
        return (
            self._hidden.shares_input
            and not self._hidden.random_input
            and isinstance(self._noise, GaussianNoise)
        )

    def _copied(self, images: int, copies: int) -> AbstractContextManager[None]:
        if copies > 1 and isinstance(self._noise, GaussianNoise):
            return self._noise.copied(images, copies)
        return nullcontext()


class WhiteBoxTarget(ScoreTarget):
    """A model whose gradients may be asked for."""

    @property
    def jumps(self) -> bool:
        """Whether the network has steps or spikes, whose derivative `surrogate` may replace."""
        return any(isinstance(module, Step) for module in self._hidden.modules())

    def check_precision(self, precision: Precision) -> None:
        """Raises RobenchError where gradients of the network make no sense in that precision."""
        if precision == "float32":
            return
        kinds = {w.dtype for w in self._weights if w.is_floating_point()} - {torch.float32}
        why = ""
        if self.jumps:
            why = "the network has steps or spikes, which rounding would turn"
        elif kinds:
            why = f"the network's weights are {str(kinds.pop()).removeprefix('torch.')}"
        elif self._weights and self._weights[0].is_cuda and not torch.cuda.is_bf16_supported():
            why = "this GPU does not compute in it"
        if why:
            raise RobenchError(f'attack: precision = "{precision}": {why}; drop this key')

    def gradient(
        self,
        x: Tensor,
        y: Tensor,
        loss: RowLoss = cross_entropy,
        draws: int = 1,
        surrogate: str | AdaptiveSurrogate | None = None,
        index: Tensor | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
        aim: Tensor | None = None,
        vote: bool = False,
        on: On = "output",
        through_reset: bool = True,
        precision: Precision = "float32",
    ) -> Answer:
        """Gradient of the loss with respect to the images; only that is computed.

        Args:
            y: true labels, or of a targeted threat the classes aimed at (`sought`), whose loss then
                is the other way round: it is to be raised.
            draws: fresh draws of a stochastic network to average over (EOT, Athalye et al. 2018).
            surrogate: derivative that stands in for that of steps and spikes; None: the network's.
            index: which image of the batch each row is.
            view: a differentiable transformation of the images that the network gets to see
                instead, drawn anew for each draw; loss and margin are of what it saw.
            aim: what the loss is given as its `aim`, (n,), where it takes one.
            vote: take the loss of the draws' mean output, the logarithm of their mean probabilities
                (SmoothAdv: Salman et al. 2019, arXiv 1906.04584, Eq. 5), instead of the mean of
                their losses; the margin of the answer is the mean output's, too.
            on: what the loss and the margin are of: the network's output or, where a spiking
                network has one, the potential that decides it (Network.readings); not of a vote.
            through_reset: whether gradients flow through the reset of spiking neurons.
            precision: of the passes; what is answered is float32, but where they are in bfloat16,
                rounded to that on the way: whether an image is broken then is to be asked apart.

        Images about which there is no number are fooled, and stay where they are. Raises NoGradient
        where there are answers and no gradient of any of them.
        """
        goal = self.goal.loss(loss)
        question = _Question(goal, draws, surrogate, view, vote, on, through_reset, precision)
        try:
            answer = self._answer(question, x, y, aim, index)
        except (RobenchError, BudgetExceeded):
            raise
        except Exception as error:  # whatever a stranger's network raises
            if ran_out(error):
                raise
            answer = self._of_those_that_answer(error, question, x, y, aim, index)
        if not all_finite(answer.logits, answer.gradient, answer.loss):
            answer = self._with_numbers(answer, y)
        self._answers = True
        self.record.first_gradient(answer.gradient, index)
        exact = view is None and precision == "float32"
        self.record.note(answer.loss, answer.margin if exact else None, index)
        return answer

    def _of_those_that_answer(
        self,
        error: Exception,
        question: _Question,
        x: Tensor,
        y: Tensor,
        aim: Tensor | None,
        index: Tensor | None,
    ) -> Answer:
        """The answer of a network that raises for some images: to the others, and NaN for these."""
        self._count(len(x), index)
        bad = without_a_number(self._logits(x))
        if bad is None:
            said = f"{type(error).__name__}: {error}"
            raise NoGradient(f"the network raises where its gradient is asked for: {said}")
        if index is None and len(x) == self.images:
            index = torch.arange(len(x), device=x.device)
        rows = torch.nonzero(~bad)[:, 0]
        parts = [torch.full_like(x, torch.nan), *(torch.full_like(x[:, 0, 0, 0], torch.nan),) * 3]
        parts.append(x.new_full((len(x), self.classes), torch.nan))
        if len(rows):
            few = [None if part is None else part[rows] for part in (aim, index)]
            answer = self._answer(question, x[rows], y[rows], *few)
            for part, found in zip(parts, answer, strict=True):
                part[rows] = found.to(part.dtype)
        return Answer(*parts)

    def _with_numbers(self, answer: Answer, y: Tensor) -> Answer:
        """Rows whose logits are no numbers are fooled; a gradient that is none is zero."""
        bad = without_a_number(answer.logits)
        bad = torch.zeros_like(y, dtype=torch.bool) if bad is None else bad
        lost = ~torch.isfinite(answer.gradient).flatten(1).all(1)
        if bool(bad.all()) and not self._answers:
            check_finite("logits", answer.logits)
        if bool((lost | bad).all()) and not bool(bad.all()):
            raise NoGradient("the network answers NaN or infinite gradients")
        grad = answer.gradient.nan_to_num(0, 0, 0)
        grad[bad] = 0
        return Answer(
            gradient=grad,
            loss=torch.where(bad | ~torch.isfinite(answer.loss), LOST, answer.loss),
            margin=torch.where(bad, LOST, answer.margin),
            fooled=torch.where(bad, 1.0, answer.fooled),
            logits=torch.where(bad[:, None], self._fooled(answer.logits, y), answer.logits),
        )

    def _answer(
        self,
        question: _Question,
        x: Tensor,
        y: Tensor,
        aim: Tensor | None,
        index: Tensor | None,
    ) -> Answer:
        """What `gradient` yields where all is as it should be."""
        total: list[Tensor] = []
        draws, view = question.draws, question.view
        one_piece = "" if view is None else "the attack transforms them together"
        if isinstance(question.surrogate, AdaptiveSurrogate):
            one_piece = "the attack adapts its derivatives to them together"
        given = (x.detach(), y) if aim is None else (x.detach(), y, aim)
        passes = _at_a_time(draws, len(x)) if self._copies and view is None else [1] * draws
        if question.vote:  # all draws of an image have a say in each other's gradient
            passes = [draws]
        with _frozen(self._weights), standing_in(self._stand_ins):
            for copies in passes:
                self._count(len(x), index, copies)
                way = self._voted if question.vote else self._drawn
                ask: Ask = partial(way, question, copies)
                if not (question.vote or one_piece) and question.loss in LOSSES.values():
                    # Other losses may look at values.
                    of_target = (str(self.ball.part), self.goal.top_k)
                    ask = self._recorded((question, copies, *of_target), ask)
                with using_surrogate(self._hidden, question.surrogate, question.through_reset):
                    parts = in_pieces(self._hidden, ask, *given, together=one_piece)
                self.record.count("gradients", len(x), index, copies)
                drawn = [joined(list(pieces)) for pieces in zip(*parts, strict=True)]
                # Added up, so that memory does not grow with the draws; the first into copies,
                # since a network may answer with what it holds.
                if total:
                    total = [a.add_(b) for a, b in zip(total, drawn, strict=True)]
                else:
                    total = drawn if len(passes) == 1 else [part.clone() for part in drawn]
        return Answer(*(part.div_(draws) if draws > 1 else part for part in total))

    def _drawn(
        self, question: _Question, copies: int, x: Tensor, y: Tensor, aim: Tensor | None = None
    ) -> list[Tensor]:
        """Gradient, loss, margin, being fooled and logits, each added up over so many draws."""
        loss, leaf = question.loss_towards(aim), x.detach().requires_grad_()
        with torch.enable_grad(), self._copied(len(x), copies):
            shown = leaf if question.view is None else question.view(leaf)
            with question.rounded(x.device):
                if question.on == "potential":
                    logits, read = self._hidden.readings(shown)
                else:
                    logits = read = self._hidden(shown)
            if question.precision != "float32":
                logits = read = logits.float()
            check_shape(logits, copies * len(x), self.classes)
            if copies == 1:
                rows = loss(read, y)
            elif of_draws(loss):
                rows = loss(read.view(copies, len(x), -1), y)
            else:
                rows = torch.stack([loss(part, y) for part in read.view(copies, len(x), -1)])
        grad = self._of_free_pixels(_gradient(rows, leaf))
        rows, seen = rows.detach(), logits.detach()
        shape = (len(x), -1) if copies == 1 else (copies, len(x), -1)
        seen = seen.view(shape)
        gap = self.gap(seen, y)
        fooled = (gap > 0).to(gap.dtype)
        if question.on == "potential":
            gap = self.gap(read.detach().view(shape), y)
        if copies == 1:
            return [grad, rows, gap, fooled, seen]
        return [grad, rows.sum(0), gap.sum(0), fooled.sum(0), seen.sum(0)]

    def _voted(
        self, question: _Question, copies: int, x: Tensor, y: Tensor, aim: Tensor | None = None
    ) -> list[Tensor]:
        """The same of the mean output of so many draws, with as many times its gradient, loss and
        margin; a few images at a time, so that memory does not grow with the draws."""
        parts = []
        at_once = max(1, COPIED_ROWS // copies)
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            leaf = x[rows].detach().requires_grad_()
            with torch.enable_grad():
                with question.rounded(x.device):
                    drawn = self._several(leaf, copies, question.view).float()
                output = mean_output(drawn)
                lost = question.loss_towards(None if aim is None else aim[rows])(output, y[rows])
            (grad,) = torch.autograd.grad(lost.sum(), leaf)
            grad = self._of_free_pixels(grad)
            fooled = (self.gap(drawn.detach(), y[rows]) > 0).to(x.dtype).sum(0)
            gap = self.gap(output.detach(), y[rows])
            whole = (grad, lost.detach(), gap)
            parts.append([*(part * copies for part in whole), fooled, drawn.detach().sum(0)])
        return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]

    def _of_free_pixels(self, grad: Tensor) -> Tensor:
        """The gradient, in place, without pixels that may not change: they have no say in a step's
        length."""
        return grad if self.ball.part is None else grad.masked_fill_(~self.ball.free(grad), 0)

    def _several(self, x: Tensor, draws: int, view: Callable[[Tensor], Tensor] | None) -> Tensor:
        """The answers of so many draws, (draws, n, classes), in one graph."""
        if self._copies and view is None:
            with self._copied(len(x), draws):
                logits = self._hidden(x)
            check_shape(logits, draws * len(x), self.classes)
            return logits.view(draws, len(x), -1)
        single = [self._hidden(x if view is None else view(x)) for _ in range(draws)]
        for logits in single:
            check_shape(logits, len(x), self.classes)
        return torch.stack(single)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Logits with a graph back to `x`, for libraries. One query for each row, and one gradient
        when it is asked for."""
        self._count(len(x), index)
        with _frozen(self._weights), standing_in(self._stand_ins):
            seen = x
            if torch.is_grad_enabled() and x.requires_grad:
                seen = x.view_as(x)
                seen.register_hook(partial(self._library_gradient, index=index))  # type: ignore[no-untyped-call]
            logits = asked(self._hidden, seen, known=self._answers)
        if seen is not x and not logits.requires_grad:
            raise NoGradient(NO_GRADIENT)
        return self._checked(logits, x)

    def _library_gradient(self, grad: Tensor, index: Tensor | None) -> None:
        self.record.count("gradients", len(grad), index)
        self.record.first_gradient(grad, index)


class WeightsTarget(WhiteBoxTarget):
    """A model that a proof gets whole, and a place to say what was proved about each image.

    An image that nothing is said about is open.
    """

    def __init__(self, network: Network, ball: Ball, images: int, *more: Any, **named: Any) -> None:
        super().__init__(network, ball, images, *more, **named)
        self.broken = np.zeros(images, dtype=bool)
        """Images that something else has broken in a ball no larger, (n,): they need no proof."""
        self.claims = np.zeros(images, dtype=np.float32)
        """What was proved, (n,): the framework puts it on record, and holds it against whatever it
        knows to be broken."""
        self.notes: dict[int, str] = {}
        self.seconds: list[float] = []
        """What each image that was looked at took: kept for people, no part of the result."""

    @property
    def network(self) -> Network:
        """The network itself: its layers, weights and fields. What goes through it uncounted shows
        in no column; `logits` counts."""
        return self._hidden

    def proved(self, image: int, bound: float = 1.0) -> None:
        """The model answers right with a probability of at least `bound` at every point of the ball
        around an image of the batch; 1 for a model without noise: there is no wrong point."""
        self.claims[image] = bound

    def left_open(self, image: int, why: str) -> None:
        """Nothing was proved, and why."""
        self.notes[image] = why


def _gradient(rows: Tensor, leaf: Tensor) -> Tensor:
    """Of the sum of `rows`, in memory of its own: attacks write into it. Raises RobenchError where
    there is none."""
    grad: Tensor | None = None
    if rows.requires_grad:
        (grad,) = torch.autograd.grad(rows, leaf, torch.ones_like(rows), allow_unused=True)
    if grad is None:
        raise NoGradient(NO_GRADIENT)
    # What was summed or broadcast from fewer numbers, such as colours from grey, shares them.
    steps = zip(grad.stride(), grad.shape, strict=True)
    return grad.contiguous() if any(not step and size > 1 for step, size in steps) else grad


def _at_a_time(draws: int, images: int) -> list[int]:
    """How many of so many draws of a batch are computed in each pass."""
    at_once = max(1, COPIED_ROWS // max(1, images))
    return [min(at_once, draws - start) for start in range(0, draws, at_once)]


def _frozen(weights: list[nn.Parameter]) -> AbstractContextManager[None]:
    """No graph to the weights inside the block."""
    return swapped((w for w in weights if w.requires_grad), requires_grad=False)


class _Counted(nn.Module):
    """A target that looks like a network; libraries feed it float64 too."""

    def __init__(self, target: DecisionTarget, index: Tensor | None) -> None:
        super().__init__()
        self._target = target
        whole = index is None or len(index) == target.images
        self._index = None if whole else index
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        target, known = self._target, self._index
        index = known if known is not None and len(known) == len(x) else None
        x = x.to(torch.float32)
        if isinstance(target, WhiteBoxTarget):
            return target.forward(x, index)
        if isinstance(target, ScoreTarget):
            return target.logits(x, index)
        return F.one_hot(target.labels(x, index), target.classes).to(x.dtype)
