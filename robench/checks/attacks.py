"""What every attack must fulfil, plugin or built-in: checks that `robench check` runs in seconds.

Each check is a function of a way to build the attack and a norm; it returns what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from robench.attacks.base import Attack
from robench.checks.finding import GLOBAL, Result, findings, global_state, pickles
from robench.checks.trial import attempt, reference
from robench.errors import RobenchError

RADII: dict[str, tuple[float, ...]] = {
    "linf": (0.05, 0.1, 0.2),
    "l2": (0.5, 1.0, 2.0),
    "l1": (3.0, 6.0, 12.0),
    "l0": (3.0, 6.0, 12.0),
    "none": (math.inf,),
}
"""Radii at which attacks are tried on the digits, by norm; the last one is generous."""
ODD = {"linf": 8 / 255, "l2": 1 / 3, "l1": math.pi, "l0": 5.0}
"""Radii that binary fractions do not hit."""

Make = Callable[..., Attack]
"""Builds the attack; keywords override its settings."""


def check_attack(make: Make, norm: str | None = None) -> list[Result]:
    """All checks that apply to an attack.

    Args:
        make: builds the attack; keywords override its settings.
        norm: the norm to try it in; None: the first that it supports.

    Returns one finding per check; an attack that raises fails the check it raised in.
    """
    try:
        attack = make()
    except RobenchError as error:
        return [Result("builds", False, str(error))]
    norm = norm or attack.norms[0]
    if norm not in attack.norms:
        return [Result("builds", False, f"norm {norm!r} is not one of {attack.norms}")]
    checks: list[Callable[[Make, str], str]] = [pickles, isolation, access, counts, seeds]
    checks += [batches, noisy]
    if math.isfinite(RADII[norm][-1]):
        checks += [zero_budget, budget, monotone]
    checks += [effect]
    if attack.targeted:
        checks.append(goal)
    if "eot" in type(attack).fields().model_fields:
        checks.append(eot)
    return findings(checks, make, norm)


def isolation(make: Make, norm: str) -> str:
    """The process and the network that it is shown are left as they were: else this raises."""
    attack = make()
    attempt(attack, attack.needs, norm, RADII[norm][-1])
    return ""


def zero_budget(make: Make, norm: str) -> str:
    """eps = 0 returns the clean images."""
    attack = make()
    far = float(attempt(attack, attack.needs, norm, 0.0).distance.max())
    return "" if far <= 1e-6 else f"at eps = 0 it moves images by {far:.3g}"


def budget(make: Make, norm: str) -> str:
    """Norm ball and [0, 1] are kept, also where eps is no binary fraction."""
    attack = make()
    for eps in (RADII[norm][-1], ODD[norm]):
        trial = attempt(attack, attack.needs, norm, eps)
        if trial.x_adv.shape != reference()[1].shape or not torch.isfinite(trial.x_adv).all():
            return "it returns something else than finite images like x"
        low, high, far = (float(v) for v in (*trial.x_adv.aminmax(), trial.distance.max()))
        if low < -1e-6 or high > 1 + 1e-6:
            return f"it leaves [0, 1]: [{low:.6g}, {high:.6g}]"
        if far > eps * (1 + 1e-5) + 1e-6:
            return f"it leaves the {norm} ball: {far:.6g} > eps = {eps:.6g}"
    return ""


def effect(make: Make, norm: str) -> str:
    """A generous budget changes images, and breaks some that were not."""
    attack, (network, x, y) = make(), reference()
    trial = attempt(attack, attack.needs, norm, RADII[norm][-1])
    if torch.equal(trial.x_adv, x):
        proof = attack.needs == "weights"  # which may find no witness
        return "" if proof else "a no-op: it returns the clean images"
    clean = float((network(x).argmax(1) != y).float().mean())
    numbers = f"error {clean:.3f} clean, {trial.success:.3f} attacked"
    return "" if trial.success > clean else numbers


def goal(make: Make, norm: str) -> str:
    """Told a class to go to, a generous budget gets there more often than no attack does."""
    attack, (network, x, y) = make(), reference()
    aim = network(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    trial = attempt(attack, attack.needs, norm, RADII[norm][-1], towards=aim)
    before = float((network(x).argmax(1) == aim).float().mean())
    after = float((network(trial.x_adv).argmax(1) == aim).float().mean())
    numbers = f"the likeliest wrong class: {before:.3f} clean, {after:.3f} attacked"
    return "" if after > before else numbers


def monotone(make: Make, norm: str) -> str:
    """Success does not fall as eps grows, beyond what chance explains."""
    attack = make()
    success = [attempt(attack, attack.needs, norm, eps).success for eps in RADII[norm]]
    falls = [a - b > _slack(a, b) for a, b in pairwise(success)]
    shown = ", ".join(f"{eps:g}: {s:.3f}" for eps, s in zip(RADII[norm], success, strict=True))
    return f"success by eps: {shown}" if any(falls) else ""


def seeds(make: Make, norm: str) -> str:
    """The same seed gives the same bits, and nothing is drawn from global random states."""
    attack, eps = make(), RADII[norm][0]
    before = global_state()
    one = attempt(attack, attack.needs, norm, eps).x_adv
    if global_state() != before:
        return GLOBAL
    same = torch.equal(one, attempt(attack, attack.needs, norm, eps).x_adv)
    return "" if same else "two runs with one seed differ: use rng alone"


def batches(make: Make, norm: str) -> str:
    """Results do not depend on how images are batched: exactly where nothing is drawn (up to
    rounding of the network's own arithmetic), in their rate where something is."""
    attack, eps = make(), RADII[norm][min(1, len(RADII[norm]) - 1)]
    whole = attempt(attack, attack.needs, norm, eps)
    parts = attempt(attack, attack.needs, norm, eps, batch=23)
    rates = f"success {whole.success:.3f} in one batch, {parts.success:.3f} in batches of 23"
    if attack.randomised:
        gap = abs(whole.success - parts.success)
        return "" if gap <= _slack(whole.success, parts.success) else rates
    differ = float((whole.x_adv - parts.x_adv).flatten(1).abs().amax(1).gt(1e-5).float().mean())
    same = torch.equal(whole.wrong, parts.wrong) and differ <= 0.05
    return "" if same else f"{rates}; {differ:.0%} of the images differ"


def access(make: Make, norm: str) -> str:
    """A target that offers less than the attack needs has no gradient to give."""
    attack, eps = make(), RADII[norm][-1]
    if attack.needs not in ("white-box", "weights"):
        graphs = attempt(attack, attack.needs, norm, eps).seen.graphs
        return f"it needs {attack.needs} access, yet peeks at gradients" if graphs else ""
    try:
        trial = attempt(attack, "score", norm, eps)
    except Exception:
        return ""
    if trial.seen.graphs:
        return "it peeks at gradients that a score target does not offer"
    return 'it works without gradients: declare needs = "score" or "decision"'


def counts(make: Make, norm: str) -> str:
    """What went through the network is what the target counted."""
    attack = make()
    trial = attempt(attack, attack.needs, norm, RADII[norm][-1])
    seen, told = (trial.seen.rows, trial.seen.differentiated), (trial.queries, trial.gradients)
    return "" if seen == told else f"forward and gradient rows {seen}, counted {told}"


def noisy(make: Make, norm: str) -> str:
    """A stochastic network is attacked without an error, within the budget."""
    attack, eps = make(), RADII[norm][-1]
    try:
        far = float(attempt(attack, attack.needs, norm, eps, noisy=True).distance.max())
    except RobenchError:  # not on noisy networks: said in words that a user can act on
        return ""
    return "" if far <= eps * (1 + 1e-5) + 1e-6 else f"distance {far:.6g}, eps {eps:g}"


def eot(make: Make, norm: str) -> str:
    """On a deterministic network, averaging over draws changes nothing."""
    eps, own = RADII[norm][0], type(make()).fields().model_fields
    calm = {"diversity": 0.0} if "diversity" in own else {}  # what the attack itself draws
    one, five = (attempt(make(eot=n, **calm), make().needs, norm, eps) for n in (1, 5))
    same = torch.equal(one.x_adv, five.x_adv)
    return "" if same else "eot = 5 differs from eot = 1 without any noise"


def _slack(a: float, b: float, n: int = 60) -> float:
    """By how much two success rates on n images may differ by chance (95%)."""
    return 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / n) + 1 / n
