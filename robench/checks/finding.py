"""Contract tests of plugins: what a finding is, and what the tests of every kind share.

Each kind has its own tests beside its contract (attacks.py, ...); cards.py runs them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robench.errors import RobenchError
from robench.plugin_code.time_limit import STOPS
from robench.workspace.plugins import Plugin


@dataclass(frozen=True)
class Result:
    """One check and how it went. `detail` says of a failure what was seen, and what to do."""

    check: str
    passed: bool
    detail: str = ""


def findings(checks: Sequence[Callable[..., str]], *arguments: Any) -> list[Result]:
    """One finding per check, called as it is; a check returns what is wrong, or nothing. A plugin
    that raises fails the check that it raised in."""
    results = []
    for check in checks:
        try:
            wrong = check(*arguments)
        except STOPS:
            raise
        except BaseException as error:
            wrong = raised(error)
        results.append(Result(check.__name__.rstrip("_"), not wrong, wrong))
    return results


def raised(error: BaseException) -> str:
    """What a finding quotes of an exception."""
    own = isinstance(error, RobenchError)
    return str(error) if own else f"raises {type(error).__name__}: {error}"


def pickles(make: Callable[..., Plugin], *_: object) -> str:
    """The plugin travels to worker processes, with its settings."""
    plugin = make()
    again = pickle.loads(pickle.dumps(plugin))
    same = type(again) is type(plugin) and vars(again) == vars(plugin)
    return "" if same else "its settings do not survive pickling"


def global_state() -> tuple[bytes, bytes]:
    """Torch's and numpy's global random states, which no plugin may draw from."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    drawn = numpy["state"]["key"].tobytes() + bytes(str(numpy["state"].get("pos")), "ascii")
    return bytes(torch.get_rng_state().tolist()), drawn


GLOBAL = "it draws from torch's or numpy's global state: use rng"
