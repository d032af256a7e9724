"""The gradient family: FGSM, BIM, PGD, MIM, DIM, TIM and APGD are settings of one loop (loop.py).

FGSM: Goodfellow et al. 2015 (arXiv 1412.6572). BIM: Kurakin et al. 2017 (1607.02533). PGD: Madry et
al. 2018 (1706.06083). MIM: Dong et al. 2018 (1710.06081). DIM: Xie et al. 2019 (1803.06978). TIM:
Dong et al. 2019 (1904.02884). APGD: Croce & Hein 2020 (2003.01690), in l1 2021 (2103.01208). EOT:
Athalye et al. 2018 (1707.07397). SA-PGD and adaptive derivatives: ASSG, 2512.22522.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import Best
from robench.attacks.loop import LoopRun
from robench.attacks.steps import direction, per_image
from robench.attacks.target import WhiteBoxTarget
from robench.errors import RobenchError
from robench.networks.adaptive import SHARES, share_of
from robench.networks.surrogate import SWEEP, parse_surrogate

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
    keep: Literal["best", "last"] = "best"
    """best: an image leaves the attack with the first iterate that breaks it, else with the final
    one (on a noisy network: with the one that most draws misclassify); last: the final iterate of
    every image, as the papers do."""
    later: ClassVar[tuple[str, ...]] = ("objective", "restart_from", "judged", "on", "reset")
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
        self.finite_eps(target)
        if target.norm == "l1" and self.schedule != "apgd":
            raise RobenchError(f'attack: schedule = "{self.schedule}": in l1 it is "apgd"')
        y = target.sought(y)
        runs = [
            (surrogate, aim, restart)
            for surrogate in self._surrogates(target)
            for aim in self._aims(target, x, y)
            for restart in range(self.restarts)
        ]
        for surrogate, aim, restart in runs:
            rows = torch.arange(len(x), device=x.device)
            clean, labels, aimed = x, y, aim
            if bool(best.broken.any()):
                rows = best.standing()
                if not len(rows):
                    break
                clean, labels, aimed = x[rows], y[rows], None if aim is None else aim[rows]
            start, pace = clean, 1.0
            if self.random_start or restart:
                centre, reach = clean, 1.0
                if self.restart_from == "best" and restart:
                    centre, reach = best.images[rows], 0.5
                elif self.restart_from == "near-best" and (restart or best.entered):
                    centre, reach, pace = best.images[rows], NEAR, NEAR_PACE
                start = target.project(centre + reach * _within_ball(clean, target, rng), clean)
            run = LoopRun(self, target, best, surrogate, rng, pace)
            run.go(start, clean, labels, aimed, rows, judged=not alone or len(runs) > 1)

    def _surrogates(self, target: WhiteBoxTarget) -> tuple[str | None, ...]:
        """The derivatives to run with; a network without jumps has no use for a second one."""
        if self.surrogate == "sweep":
            return SWEEP if target.jumps else (None,)
        if isinstance(self.surrogate, tuple):
            return self.surrogate if target.jumps else (None,)
        return (self.surrogate,)

    def _aims(self, target: WhiteBoxTarget, x: Tensor, y: Tensor) -> list[Tensor | None]:
        """The classes to run towards, (n,) each; [None]: away from the right one."""
        if not self.targets or target.aim is not None:
            return [None]
        wrong = target.logits(x).scatter(1, y[:, None], -torch.inf)
        return list(wrong.topk(min(self.targets, target.classes - 1), dim=1).indices.T)


class FGSM(GradientAttack):
    """One step of size eps along the gradient's sign."""

    steps: int = Field(default=1, ge=1, le=1)
    keep: Literal["best", "last"] = "last"
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Goodfellow et al. 2015, arXiv 1412.6572"


class BIM(GradientAttack):
    """FGSM repeated in small steps from the clean image."""

    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Kurakin et al. 2017, arXiv 1607.02533"


class PGD(GradientAttack):
    """BIM from a uniform random start."""

    random_start: bool = True
    paper: ClassVar[str] = "Madry et al. 2018, arXiv 1706.06083"


class PGDOnRelatives(PGD):
    """PGD that the framework also runs on relatives of the test images (data/fresh.py), to see
    whether the network knows these."""

    version: ClassVar[int] = 3
    steps: int = Field(default=20, ge=1)
    on_relatives: ClassVar[bool] = True


class MIM(GradientAttack):
    """BIM along a running sum of normalised gradients."""

    momentum: float = Field(default=1.0, ge=0)
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Dong et al. 2018, arXiv 1710.06081"


class DIM(GradientAttack):
    """MIM whose gradients are taken at randomly resized and padded images."""

    momentum: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=0.5, ge=0, le=1)
    paper: ClassVar[str] = "Xie et al. 2019, arXiv 1803.06978"


class TIM(GradientAttack):
    """MIM whose gradients are smoothed by a Gaussian kernel."""

    momentum: float = Field(default=1.0, ge=0)
    smoothing: Annotated[int, Field(ge=0), AfterValidator(_odd)] = 15
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Dong et al. 2019, arXiv 1904.02884"


class APGD(GradientAttack):
    """PGD that sets its own step sizes; in l1 also how many pixels it moves (sparse.py)."""

    schedule: Literal["fixed", "apgd"] = "apgd"
    steps: int = Field(default=100, ge=1)
    random_start: bool = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    paper: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690; l1: 2021, arXiv 2103.01208"


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
