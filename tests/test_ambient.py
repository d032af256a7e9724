"""Numbers do not hang on the types that a network computes in, nor on torch's ambient state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handed import Plain, measured, numbers, trained
from torch import Tensor, nn

from robench.attacks.ball import Ball
from robench.attacks.gradient import APGD, DIM, MIM, PGD, TIM
from robench.attacks.lbfgs import LBFGS
from robench.attacks.libraries.foolbox import Foolbox
from robench.attacks.loop import GradientAttack
from robench.attacks.target import WhiteBoxTarget
from robench.networks.base import Network
from robench.networks.torch_state import own_state


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    found = numbers(measured(trained(), tmp_path_factory.mktemp("plain")))
    assert found["worst_case"] < found["clean"] - 0.2
    return found


# -- what a network computes in --------------------------------------------------------------------


class Autocast(Plain):
    """Half of it in bfloat16, as mixed precision has it: its logits are bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer: Tensor = super().forward(x)
        assert answer.dtype == torch.bfloat16
        return answer


class Says(Plain):
    """Answers in a type of its own."""

    kind = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = super().forward(x).to(self.kind)
        return answer


class SaysDouble(Says):
    kind = torch.float64


class SaysHalf(Says):
    kind = torch.float16


class SaysBfloat(Says):
    kind = torch.bfloat16


KINDS: dict[str, Callable[[], nn.Module]] = {
    "autocast to bfloat16 inside": lambda: trained(Autocast()),
    "logits in float64": lambda: trained(SaysDouble()),
    "logits in float16": lambda: trained(SaysHalf()),
    "logits in bfloat16": lambda: trained(SaysBfloat()),
    "weights in float64": lambda: trained().double(),
    "weights in bfloat16": lambda: trained().bfloat16(),
    "weights in float16": lambda: trained().half(),
}


@pytest.mark.rows(3)
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_any_floating_type_gets_the_numbers_of_float32(
    kind: str, expected: dict[str, float], tmp_path: Path
) -> None:
    found = numbers(measured(KINDS[kind](), tmp_path))
    near = 1e-9 if "64" in kind else 0.15  # an eighth of a per cent in a logit turns few images
    assert found == pytest.approx(expected, abs=near)


# -- what is set around it -------------------------------------------------------------------------


@contextmanager
def double_by_default() -> Any:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64 by default": double_by_default,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "another device by default": lambda: torch.device("meta"),
}


@pytest.mark.rows(2)
@pytest.mark.parametrize("state", STATES)
def test_numbers_are_the_same_whatever_is_set_around_a_call(
    state: str, expected: dict[str, float], tmp_path: Path
) -> None:
    module = trained()
    with STATES[state]():
        before = _ambient()
        found = numbers(measured(module, tmp_path))
        assert _ambient() == before
    assert found == expected


@pytest.mark.parametrize("state", ["inference mode", "float64 by default"])
def test_a_network_made_in_another_state_is_measured_like_any(
    state: str, expected: dict[str, float], tmp_path: Path
) -> None:
    with STATES[state]():
        module = trained()
        found = numbers(measured(module, tmp_path))
    assert found == pytest.approx(expected, abs=1e-9)


def _ambient() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_device(),
    )


@own_state()
def stops() -> None:
    assert _ambient() == (torch.float32, True, False, False, torch.device("cpu"))
    torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_the_state_is_put_back_after_an_error() -> None:
    with double_by_default(), torch.no_grad():
        before = _ambient()
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            stops()
        assert _ambient() == before


# -- gradients that are views ----------------------------------------------------------------------


class Views(Network):
    """Answers from sums, whose gradients are one number seen in many places."""

    kind = "rows"

    def build(self) -> None:
        self.layer = nn.Linear(8, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "rows":
                seen = x.sum(1).sum(2)
            case "grey":
                seen = x.sum(1).flatten(1)[:, :8]
            case "all":
                seen = x.sum((1, 2, 3))[:, None].expand(-1, 8) * torch.arange(8.0) / 500
            case _:
                seen = x.mean((1, 3))
        logits: Tensor = self.layer(seen)
        return logits


ATTACKS: dict[str, Any] = {
    "pgd": PGD(steps=3),
    "mim": MIM(steps=3),
    "dim": DIM(steps=3),
    "tim": TIM(steps=3, smoothing=3),
    "apgd": APGD(steps=3),
    "pgd-l2": PGD(steps=3),
    "lbfgs": LBFGS(iterations=3, search_steps=2),
    "foolbox": Foolbox(attack="L2DeepFoolAttack", steps=3),
}


@pytest.mark.parametrize("kind", ["rows", "grey", "all", "mean"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_gradient_that_is_a_view_is_worked_with_like_any(kind: str, name: str) -> None:
    torch.manual_seed(0)
    network = Views((3, 8, 8), 4).eval()
    network.kind = kind
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = network(x).argmax(1)
    norm = "linf" if isinstance(ATTACKS[name], GradientAttack) and name != "pgd-l2" else "l2"
    target = WhiteBoxTarget(network, Ball(norm, 0.5 if norm == "linf" else 5.0), len(x))
    found = ATTACKS[name].perturb(target, x.clone(), y, torch.Generator().manual_seed(1))
    if isinstance(ATTACKS[name], GradientAttack):  # minimal ones need not find anything
        assert bool((found != x).any())
    for part in (0, 1, 2):  # the gradient is the same in every channel, and so are linf's steps
        answer = target.gradient(x, y)
        assert np.allclose(answer.gradient[:, part], answer.gradient[:, 0])
        answer.gradient.mul_(2.0)  # nobody else's memory
