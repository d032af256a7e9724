"""`robench.parametrize_with_checks`: the contract of plugins in their authors' own pytest, one case
for each check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from robench.checks.cards import contract
from robench.checks.finding import Result
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.workspace.plugins import KINDS, Kind, Plugin, base_of

if TYPE_CHECKING:
    import pytest

REST = "runs"
"""The check that fails by whatever has no check of its own: a plugin cannot be built, ends its
process, takes too long."""
CHECKS: dict[Kind, tuple[str, ...]] = {
    "attacks": (
        *(REST, "pickles", "isolation", "access", "counts", "seeds", "batches", "noisy"),
        *("zero_budget", "budget", "monotone", "effect", "goal", "eot"),
    ),
    "corruptions": (
        *(REST, "pickles", "kinds", "images", "isolation", "shape", "range", "untouched"),
        *("seeds", "batches", "effect", "severities"),
    ),
    "datasets": (REST, "pickles", "loads", "images", "labels", "repeats", "leaks"),
    "networks": (REST, "answers", "builds", "repeats", "batches", "state", "gradient"),
    "trainers": (REST, "pickles", "isolation", "trains", "history", "seeds", "data", "learns"),
}


@dataclass(frozen=True)
class Check:
    """One check of the contract: call it with the plugin.

    Raises AssertionError where the plugin fails it; skips where it does not apply.
    """

    name: str
    _kind: Kind
    _tried: Callable[[], list[Result]] = field(repr=False)

    def __call__(self, plugin: Any) -> None:
        import pytest

        findings, known = self._tried(), CHECKS[self._kind]
        failed = [finding for finding in findings if not finding.passed]
        mine = [finding for finding in failed if finding.check == self.name]
        if self.name == REST:
            mine += [finding for finding in failed if finding.check not in known]
        if mine:
            raise AssertionError("; ".join(f"{one.check}: {one.detail}" for one in mine))
        if self.name != REST and self.name not in {finding.check for finding in findings}:
            before = f"not reached: {failed[0].check} fails" if failed else "does not apply"
            pytest.skip(before)


def parametrize_with_checks(
    plugins: Sequence[Any], *, norm: str | None = None, network: Any = None
) -> pytest.MarkDecorator:
    """Parametrise a test over plugins and the checks of their contract (those of `robench check`).

        @parametrize_with_checks([MyDefense(sigma=0.2), MyAttack, partial(MyNetwork, hidden=(64,))])
        def test_contract(plugin, check):
            check(plugin)

    Args:
        plugins: classes, which are tried with their defaults, or instances of Attack, Corruption,
            Dataset and Trainer; networks, which are built for the images that they are tried on, as
            classes or `functools.partial` of them.
        norm: the norm that attacks are tried in; None: the first of each.
        network: the class, or partial, of what trainers train; None: a small MLP.

    A plugin is tried once, in a copy of the process, for all of its checks. Raises RobenchError for
    what is no plugin.
    """
    import pytest

    cases = []
    for plugin in plugins:
        kind, called = _kind_of(plugin), _class_of(plugin).__name__
        tried = cache(partial(_try, kind, plugin, norm, network))
        cases += [
            pytest.param(plugin, Check(name, kind, tried), id=f"{called}-{name}")
            for name in CHECKS[kind]
        ]
    return pytest.mark.parametrize(("plugin", "check"), cases)


def _class_of(plugin: Any) -> type[Any]:
    inner = plugin.func if isinstance(plugin, partial) else plugin
    return inner if isinstance(inner, type) else type(inner)


def _kind_of(plugin: Any) -> Kind:
    for kind in KINDS:
        if issubclass(_class_of(plugin), base_of(kind)):
            if kind == "networks" and isinstance(plugin, Network):
                raise RobenchError(
                    f"parametrize_with_checks: {type(plugin).__name__} is built already; give the "
                    "class, or functools.partial of it with its settings"
                )
            return kind
    raise RobenchError(f"parametrize_with_checks: {plugin!r} is no plugin of robench")


def _try(kind: Kind, plugin: Any, norm: str | None, network: Any) -> list[Result]:
    torch.set_num_threads(1)
    if kind == "networks":
        return contract(kind, plugin, plugin)
    if isinstance(plugin, Plugin):
        settings = {key: getattr(plugin, key) for key in type(plugin).fields().model_fields}
        plugin = partial(type(plugin), **settings)
    return contract(kind, plugin, network, norm)
