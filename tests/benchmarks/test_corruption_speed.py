"""Milliseconds per colour image and kind of imagenet-c, at 32x32 and 64x64: as packaged, and fast.

    pytest tests/benchmarks/test_corruption_speed.py -o addopts= --benchmark-sort=fullname

Each round corrupts one image at each of the five severities; the table's times are of five images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.datasets import load_digits

from robench.corruptions.imagenet_c import compat as imagecorruptions_compat
from robench.corruptions.imagenet_c import fast as imagecorruptions_fast
from robench.corruptions.imagenet_c.compat import KINDS

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
    image, random = picture(side), np.random.RandomState(0)

    def five_severities() -> list[np.ndarray]:
        return [MADE[made](image, kind, severity, random) for severity in range(1, 6)]

    five_severities()  # textures and weights are read before the clock starts
    answers = benchmark.pedantic(five_severities, rounds=15, iterations=1, warmup_rounds=2)
    assert all(answer.shape == image.shape for answer in answers)


def picture(side: int) -> np.ndarray:
    digits = load_digits().images[[4, 17, 23]] * 255 / 16
    return np.kron(digits, np.ones((side // 8,) * 2)).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("side", [32, 64])
def test_all_kinds(side: int, tabled: Callable[..., None]) -> None:
    image, random = picture(side), np.random.RandomState(0)
    taken: dict[str, list[float]] = {made: [] for made in MADE}
    for round_ in range(4):
        for made, corrupt in MADE.items():
            start = time.process_time()
            for kind in KINDS:
                for severity in range(1, 6):
                    corrupt(image, kind, severity, random)
            if round_:  # textures and weights are read in the first
                taken[made].append((time.process_time() - start) / 5)
    seconds = {made: median(times) for made, times in taken.items()}
    about = "One colour image, all 19 kinds at one severity (mean of five)."
    tabled(f"imagenet-c, {side}x{side}", about, seconds, "fast")
    assert seconds["fast"] < seconds["packaged"]
