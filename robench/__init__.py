"""robench: adversarial robustness benchmarks for networks trained with and without backpropagation.

The public names are imported when they are first used, so that `import robench` costs nothing.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robench.attacks.base import Attack
    from robench.checks.in_pytest import parametrize_with_checks
    from robench.corruptions.base import Corruption
    from robench.data.base import Dataset, Part, Raw, Splits
    from robench.errors import RobenchError
    from robench.evaluation.binarization import binarization_test
    from robench.evaluation.evaluate import evaluate
    from robench.evaluation.notebook import Evaluation
    from robench.networks.base import Network
    from robench.networks.modules.noisy import noisy
    from robench.trainers.base import Trainer

try:
    __version__ = version("robench")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0+unknown"

_PUBLIC = {
    "Attack": "robench.attacks.base",
    "Corruption": "robench.corruptions.base",
    "Dataset": "robench.data.base",
    "Part": "robench.data.base",
    "Raw": "robench.data.base",
    "Splits": "robench.data.base",
    "Evaluation": "robench.evaluation.notebook",
    "Network": "robench.networks.base",
    "RobenchError": "robench.errors",
    "Trainer": "robench.trainers.base",
    "binarization_test": "robench.evaluation.binarization",
    "evaluate": "robench.evaluation.evaluate",
    "noisy": "robench.networks.modules.noisy",
    "parametrize_with_checks": "robench.checks.in_pytest",
}

__all__ = [
    "Attack",
    "Corruption",
    "Dataset",
    "Evaluation",
    "Network",
    "Part",
    "Raw",
    "RobenchError",
    "Splits",
    "Trainer",
    "binarization_test",
    "evaluate",
    "noisy",
    "parametrize_with_checks",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'robench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
