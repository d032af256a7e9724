"""The gradient loop: its formulas, what it keeps, who leaves, what it records."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robench.attacks import diversity, loop
from robench.attacks.ball import Ball
from robench.attacks.diversity import diversify, gaussian_kernel, smooth
from robench.attacks.gradient import APGD, BIM, DIM, FGSM, MIM, PGD, TIM
from robench.attacks.loop import GradientAttack
from robench.attacks.losses import cross_entropy, dlr, margin
from robench.attacks.steps import Region, checkpoints
from robench.attacks.target import Answer, WhiteBoxTarget
from robench.checks.attacks import budget
from robench.checks.trial import attempt, reference
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, noise
from robench.networks.snn import SNN

EPS, STEP = 0.1, 0.01


def run(
    attack: GradientAttack, norm: str = "linf", eps: float = EPS, network: Network | None = None
) -> tuple[Tensor, WhiteBoxTarget]:
    known, x, y = reference()
    target = WhiteBoxTarget(network or known, Ball(norm, eps), len(x))
    return attack.perturb(target, x, y, torch.Generator().manual_seed(0)), target


class Watched(WhiteBoxTarget):
    """A target that remembers where gradients were asked for, and which it gave."""

    def __init__(self, network: Network, eps: float, images: int) -> None:
        super().__init__(network, Ball("linf", eps), images)
        self.asked: list[tuple[Tensor, Tensor]] = []

    def gradient(self, x: Tensor, *arguments: Any, **settings: Any) -> Answer:
        answer = super().gradient(x, *arguments, **settings)
        self.asked.append((x.clone(), answer.gradient.clone()))
        return answer


def slope(x: Tensor) -> Tensor:
    network, _, y = reference()
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)
    return grad


def strays(
    attack: GradientAttack, momentum: float = 0, kernel: Tensor | None = None, step: float = STEP
) -> float:
    """Share of pixels in which an attack's iterates are not those that the papers' formula for BIM,
    MIM and TIM makes of the iterate before.

    The formula is given the gradients that the attack was given, and pixels are left out where its
    direction is within rounding of zero: no sign hangs on the order in which a processor adds.
    """
    network, x, y = reference()
    target = Watched(network, EPS, len(x))
    last = attack.perturb(target, x, y, torch.Generator().manual_seed(0))
    assert torch.equal(target.asked[0][0], x)
    iterates = [*(at for at, _ in target.asked[1:]), last]
    g, wrong, judged = torch.zeros_like(x), 0, 0
    for (at, grad), reached in zip(target.asked, iterates, strict=True):
        torch.testing.assert_close(grad, slope(at), rtol=1e-3, atol=1e-5 * float(grad.abs().max()))
        if kernel is not None:
            plane = torch.outer(kernel, kernel)
            grad = F.conv2d(grad, plane[None, None], padding=len(kernel) // 2)
        g = momentum * g + grad / grad.abs().sum((1, 2, 3), keepdim=True)
        expected = (at + step * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        clear = g.abs() > 1e-5 * g.abs().amax((1, 2, 3), keepdim=True)
        wrong += int(((reached - expected).abs().gt(1e-6) & clear).sum())
        judged += int(clear.sum())
    assert judged > 0.95 * x.numel() * len(iterates), "hardly a pixel is within rounding"
    return wrong / judged


# -- formulas --------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"steps": 15, "step_size": STEP, "keep": "last"}


def test_fgsm_is_one_step_along_the_sign_of_the_gradient() -> None:
    assert strays(FGSM(), step=EPS) == 0
    assert run(FGSM())[1].gradients == len(reference()[1])


def test_bim_is_the_plain_loop() -> None:
    assert strays(BIM(**PLAIN)) == 0


@pytest.mark.parametrize("momentum", [0.9, 1.0])
def test_mim_follows_a_running_sum_of_normalised_gradients(momentum: float) -> None:
    assert strays(MIM(**PLAIN, momentum=momentum), momentum) == 0


def test_tim_smooths_the_gradient_before_it_is_normalised() -> None:
    assert strays(TIM(**PLAIN, smoothing=5), 1.0, gaussian_kernel(5)) == 0


def test_pgd_starts_anywhere_in_the_ball() -> None:
    _, x, _ = reference()
    starts = run(PGD(steps=1, step_size=1e-9, keep="last"))[0] - x
    inside = starts[(x > EPS) & (x < 1 - EPS)]
    assert float(inside.abs().max()) <= EPS + 1e-6
    assert float(inside.abs().mean()) == pytest.approx(EPS / 2, rel=0.1)


def test_l2_steps_have_their_length_and_stay_in_the_ball() -> None:
    _, x, _ = reference()
    one, _ = run(BIM(steps=1, step_size=0.3, keep="last"), norm="l2", eps=1.0)
    middle = ((one > 0) & (one < 1)).flatten(1).all(1)
    sizes = (one - x).flatten(1).norm(dim=1)
    assert float(sizes.max()) <= 0.3 + 1e-6
    torch.testing.assert_close(sizes[middle], torch.full_like(sizes[middle], 0.3))
    many, target = run(PGD(steps=30), norm="l2", eps=1.0)
    assert float(target.ball.distance(many, x).max()) <= 1 + 1e-5


def test_apgd_looks_back_after_the_published_shares_of_its_steps() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_apgd_is_at_least_as_strong_as_pgd() -> None:
    assert attempt(APGD(steps=30), "white-box", "linf", 0.05).success >= (
        attempt(PGD(steps=30), "white-box", "linf", 0.05).success - 1 / 60
    )


def test_apgd_sets_its_own_step_and_momentum() -> None:
    with pytest.raises(RobenchError, match=r"step_size: schedule = .apgd. sets it"):
        APGD(step_size=0.1)


# -- input diversity and smoothing -----------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
def test_diversity_with_probability_one_changes_every_image(channels: int, size: int) -> None:
    x = torch.rand(50, channels, size, size)
    shown = diversify(x, 1.0, 299 / 330, torch.Generator().manual_seed(0))
    assert shown.shape == x.shape
    assert bool(((shown - x).abs().amax((1, 2, 3)) > 1e-3).all())
    assert torch.equal(x, diversify(x, 0.0, 299 / 330, torch.Generator()))


def test_diversity_is_bilinear_resizing_and_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 3, 28, 28)
    draws = [torch.zeros(2), torch.tensor([[0.0, 0.5], [0.9, 0.0], [0.0, 0.99]])]
    monkeypatch.setattr(diversity.torch, "rand", lambda *size, **_: draws.pop(0))
    shown = diversify(x, 1.0, 25 / 28, torch.Generator())
    for image, size, top, left in ((0, 25, 3, 0), (1, 26, 0, 2)):
        small = F.interpolate(x[image : image + 1], size, mode="bilinear", align_corners=False)
        edges = (left, 28 - size - left, top, 28 - size - top)
        torch.testing.assert_close(shown[image : image + 1], F.pad(small, edges))


def test_diversity_draws_for_each_image_on_its_own() -> None:
    x = torch.rand(1, 1, 28, 28).expand(40, -1, -1, -1)
    shown = diversify(x, 0.5, 0.8, torch.Generator().manual_seed(0))
    same = (shown == x).flatten(1).all(1)
    assert 8 < int(same.sum()) < 32
    assert len({tuple(image.flatten().tolist()) for image in shown[~same]}) > 10


def test_tims_kernel_sums_to_one_and_has_the_published_width() -> None:
    kernel = gaussian_kernel(15)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    at = torch.arange(15) - 7.0
    deviation = float((kernel * at**2).sum().sqrt())
    assert 2.2 < deviation < 2.4  # 14 / (2 * 3), a little less for the cut tails


@pytest.mark.parametrize("channels", [1, 3])
def test_smoothing_keeps_a_constant_gradient_and_the_channels_apart(channels: int) -> None:
    gradient = torch.arange(1.0, channels + 1).view(1, channels, 1, 1).expand(2, -1, 28, 28)
    middle = smooth(gradient, gaussian_kernel(5))[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(middle, gradient[:, :, 2:-2, 2:-2])


def test_a_kernel_of_even_length_is_refused() -> None:
    with pytest.raises(ValueError, match="odd length"):
        TIM(smoothing=4)


def test_dim_tim_and_mim_combine() -> None:
    both = DIM(smoothing=5, steps=10, diversity=1.0)
    assert both.momentum == 1.0
    assert attempt(both, "white-box", "linf", 0.2).success > 0.5


# -- losses ----------------------------------------------------------------------------------------


def test_dlr_does_not_see_the_scale_of_the_logits() -> None:
    logits, y = torch.randn(20, 10), torch.arange(20) % 10
    torch.testing.assert_close(dlr(logits, y), dlr(100 * logits, y))
    assert torch.equal(dlr(logits, y) > 0, logits.argmax(1) != y)


def test_dlr_says_how_many_classes_it_needs() -> None:
    with pytest.raises(RobenchError, match="at least 3 classes, there are 2"):
        dlr(torch.randn(4, 2), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_an_aimed_loss_grows_towards_its_class(loss: Any) -> None:
    y, aim = torch.zeros(20, dtype=torch.long), torch.full((20,), 3)
    logits = torch.randn(20, 10) + 6 * F.one_hot(y, 10)
    raised = logits + F.one_hot(aim, 10)
    assert bool((loss(raised, y, aim) > loss(logits, y, aim)).all())


def test_targets_run_towards_the_likeliest_wrong_classes() -> None:
    one = attempt(APGD(steps=10, loss="margin"), "white-box", "linf", 0.05)
    nine = attempt(APGD(steps=10, loss="margin", targets=9), "white-box", "linf", 0.05)
    assert nine.success >= one.success
    more = attempt(APGD(steps=10, loss="margin", targets=20), "white-box", "linf", 0.05)
    assert torch.equal(more.x_adv, nine.x_adv)  # there are no more than nine


# -- what is kept, and who leaves ------------------------------------------------------------------


class Band(Network):
    """Class 1 only where the pixel lies near 0.42; the margin falls on both sides."""

    def build(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1)[:, 0] - 0.42).abs()
        return torch.stack([torch.full_like(distance, 0.4), 0.5 - 10 * distance], 1)


def in_the_band(**settings: Any) -> Tensor:
    """Two steps of 0.07 from 0.36: into the band, and beyond it."""
    x, y = torch.full((1, 1, 1, 1), 0.36), torch.zeros(1, dtype=torch.long)
    target = WhiteBoxTarget(Band((1, 1, 1), 2), Ball("linf", 0.2), 1)
    attack = BIM(steps=2, step_size=0.061, **settings)
    return target.labels(attack.perturb(target, x, y, torch.Generator()))


def test_the_best_iterate_counts_and_not_the_final_one() -> None:
    assert int(in_the_band(keep="best")) == 1
    assert int(in_the_band(keep="last")) == 0


@pytest.mark.parametrize("cls", [BIM, MIM, APGD])
def test_images_that_are_broken_leave_and_save_gradients(cls: type[GradientAttack]) -> None:
    network, _, y = reference()
    x_all, stayed = run(cls(steps=20, keep="last"), eps=0.2)
    x_adv, left = run(cls(steps=20), eps=0.2)
    broken = [network(images).argmax(1) != y for images in (x_all, x_adv)]
    assert bool((broken[1] | ~broken[0]).all())
    assert left.gradients < 0.6 * stayed.gradients


def test_an_image_leaves_with_the_iterate_that_broke_it_whoever_else_is_in_the_batch() -> None:
    network, x, y = reference()
    whole, _ = run(BIM(steps=20), eps=0.15)
    for row in (0, 7, 31):
        target = WhiteBoxTarget(network, Ball("linf", 0.15), 1)
        alone = BIM(steps=20).perturb(target, x[row : row + 1], y[row : row + 1], torch.Generator())
        # An earlier or later iterate differs almost everywhere, rounding at a pixel or two.
        assert float((alone[0] - whole[row]).abs().gt(1e-6).float().mean()) < 0.1


@pytest.mark.parametrize("settings", [{}, {"restarts": 3}, {"loss": "margin"}])
def test_images_that_go_to_and_fro_leave_with_the_iterate_that_would_have_been_their_last(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network in whole steps: most images get no gradient, or are pulled back and forth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SNN((1, 6, 6), 4, hidden=[12], surrogate="rectangle:0.3").eval()
    rng = torch.Generator().manual_seed(1)
    x = torch.randint(0, 5, (60, 1, 6, 6), generator=rng) / 4.0
    y = network(x).argmax(1)

    def attacked() -> tuple[Tensor, WhiteBoxTarget]:
        target = WhiteBoxTarget(network, Ball("linf", 0.125), len(x))
        attack = PGD(steps=41, step_size=0.0625, random_start=False, **settings)
        return attack.perturb(target, x, y, torch.Generator().manual_seed(2)), target

    left, quick = attacked()
    monkeypatch.setattr("robench.attacks.loop.CYCLE_CHECK", 1000)
    stayed, slow = attacked()
    # Another iterate is another image; a sum in another order turns a sign in one of a hundred.
    assert float((left - stayed).abs().amax((1, 2, 3)).gt(1e-6).float().mean()) < 0.05
    assert 0 < (network(stayed).argmax(1) != y).sum() < len(x)
    assert quick.gradients < 0.8 * slow.gradients


def test_a_noisy_image_leaves_only_when_fresh_draws_confirm_it() -> None:
    """Most images fall to some draws early; an attack that believed a single one would stop there
    and stay weak."""
    network, x, y = reference()
    success = {}
    with noise(network, GaussianNoise(torch.Generator().manual_seed(0))):
        for keep in ("last", "best"):
            target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
            x_adv = PGD(steps=30, eot=2, keep=keep).perturb(
                target, x, y, torch.Generator().manual_seed(0)
            )
            wrong = [(network(x_adv).argmax(1) != y).float().mean() for _ in range(20)]
            success[keep] = (float(torch.stack(wrong).mean()), target.gradients)
    assert success["best"][0] > success["last"][0] - 0.03
    assert success["best"][1] < success["last"][1]


def test_restarts_skip_broken_images_and_never_weaken_the_attack() -> None:
    one, five = (attempt(PGD(steps=5, restarts=n), "white-box", "linf", 0.05) for n in (1, 5))
    assert five.success >= one.success
    assert five.gradients < 5 * one.gradients


def test_a_sweep_is_as_strong_as_each_of_its_surrogates() -> None:
    torch.manual_seed(0)
    network = SNN((1, 8, 8), 10, hidden=(20,))
    _, x, y = reference()
    y = network(x).argmax(1)
    success = {}
    for surrogate in ("rectangle:0.5", "fast-sigmoid:0.25", "sweep"):
        target = WhiteBoxTarget(network, Ball("linf", 0.1), len(x))
        x_adv = BIM(steps=5, surrogate=surrogate).perturb(target, x, y, torch.Generator())
        success[surrogate] = float((network(x_adv).argmax(1) != y).float().mean())
    assert success["sweep"] >= max(success.values())


@pytest.mark.parametrize("where", ["logits", "gradients"])
def test_a_network_whose_answers_are_not_numbers_is_named_as_the_cause(where: str) -> None:
    class Broken(Band):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits * torch.nan if where == "logits" else logits + 0 * (x - x).sqrt().sum()

    x, y = torch.full((1, 1, 1, 1), 0.36), torch.zeros(1, dtype=torch.long)
    target = WhiteBoxTarget(Broken((1, 1, 1), 2), Ball("linf", 0.2), 1)
    with pytest.raises(RobenchError, match=f"the network answers NaN or infinite {where}"):
        BIM(steps=3).perturb(target, x, y, torch.Generator())


def test_an_infinite_budget_is_refused_in_words() -> None:
    with pytest.raises(RobenchError, match="eps = inf: PGD needs a finite budget"):
        run(PGD(), eps=float("inf"))


# -- regressions planted by hand -------------------------------------------------------------------


def test_a_dim_without_momentum_is_caught() -> None:
    assert strays(DIM(**PLAIN, diversity=0.0), 1.0) == 0
    assert strays(DIM(**PLAIN, diversity=0.0, momentum=0.0), 1.0) > 0.01


def test_a_projection_that_misses_the_last_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not budget(BIM, "linf")
    calls = itertools.count(1)
    project = Region.project_

    def all_but_the_last(region: Region, x_adv: Tensor) -> Tensor:
        return x_adv if next(calls) % 15 == 0 else project(region, x_adv)

    monkeypatch.setattr(Region, "project_", all_but_the_last)
    assert "leaves" in budget(lambda **_: BIM(step_size=0.05, keep="last"), "linf")


def test_a_kernel_of_another_width_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    tim = TIM(**PLAIN, smoothing=5)
    assert strays(tim, 1.0, gaussian_kernel(5)) == 0
    monkeypatch.setattr(loop, "gaussian_kernel", lambda length, _: gaussian_kernel(length, 1.0))
    assert strays(tim, 1.0, gaussian_kernel(5)) > 0.01


# -- the record ------------------------------------------------------------------------------------


def test_gradients_and_queries_are_counted_image_by_image() -> None:
    _, target = run(BIM(steps=20), eps=0.2)
    counts = target.counts()
    assert counts["gradients"] is not None
    assert counts["gradients"].sum() == target.gradients
    assert len(set(counts["gradients"].tolist())) > 3


def test_images_without_a_gradient_are_flagged() -> None:
    torch.manual_seed(0)
    dead = SNN((1, 8, 8), 10, hidden=(5,), threshold=50.0)
    _, target = run(BIM(steps=2), network=dead)
    flags = target.counts()["zero_gradient"]
    assert flags is not None
    assert flags.all()
    _, target = run(BIM(steps=2))
    flags = target.counts()["zero_gradient"]
    assert flags is not None
    assert not flags.any()


def test_the_loss_trace_has_one_value_per_gradient_and_marks_the_runs() -> None:
    _, target = run(PGD(steps=4, restarts=3, keep="last"), eps=1e-3)
    assert len(target.loss_trace) == 12
    assert target.record.runs == [0, 4, 8]
    assert target.loss_trace[3] > target.loss_trace[0]


def test_iterates_that_were_adversarial_on_the_way_are_noted() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.36), torch.zeros(1, dtype=torch.long)
    target = WhiteBoxTarget(Band((1, 1, 1), 2), Ball("linf", 0.2), 1)
    BIM(steps=3, step_size=0.061, keep="last").perturb(target, x, y, torch.Generator())
    flags = target.counts()["fooled_on_the_way"]
    assert flags is not None
    assert flags.all()


def test_a_sweep_runs_once_on_a_network_without_steps() -> None:
    once, sweep = (run(PGD(steps=3, surrogate=s), eps=1e-3)[1] for s in (None, "sweep"))
    assert sweep.gradients == once.gradients
