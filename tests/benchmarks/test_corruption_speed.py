"""Milliseconds per colour image and kind of imagenet-c, at 32x32 and 64x64: as packaged, and fast.

    pytest tests/benchmarks/test_corruption_speed.py -o addopts= --benchmark-sort=fullname

Each round corrupts one image at each of the five severities; the table's times are of five images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.datasets import load_digits

from robench.corruptions import imagecorruptions_compat, imagecorruptions_fast
from robench.corruptions.imagecorruptions_compat import KINDS

Corrupt = Callable[[np.ndarray, str, int, np.random.RandomState], np.ndarray]
MADE: dict[str, Corrupt] = {
    "packaged": imagecorruptions_compat.corrupt,
    "fast": imagecorruptions_fast.corrupt,
}


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", KINDS)
def test_speed(benchmark: BenchmarkFixture, kind: str, made: str, side: int) -> None:
    benchmark.group = f"{side}x{side}"
    digits = load_digits().images[[4, 17, 23]] * 255 / 16
    image = np.kron(digits, np.ones((side // 8,) * 2)).astype(np.uint8).transpose(1, 2, 0)
    random = np.random.RandomState(0)

    def five_severities() -> list[np.ndarray]:
        return [MADE[made](image, kind, severity, random) for severity in range(1, 6)]

    five_severities()  # textures and weights are read before the clock starts
    answers = benchmark.pedantic(five_severities, rounds=15, iterations=1, warmup_rounds=2)
    assert all(answer.shape == image.shape for answer in answers)
