"""Standard noise: its distribution, its streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from robench.networks.standard_noise import NoiseStream

CPU = torch.device("cpu")


def test_normal_numbers_are_normal() -> None:
    drawn = NoiseStream(0, CPU).normal((1000, 1000)).flatten().double().numpy()
    assert drawn.mean() == pytest.approx(0, abs=4e-3)
    assert drawn.var() == pytest.approx(1, abs=6e-3)
    assert stats.kurtosis(drawn) == pytest.approx(0, abs=2e-2)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    # The tail holds as many as it should, up to where the quantiles end; a count varies by its
    # root.
    beyond, expected = (np.abs(drawn) > 4).sum(), 2 * stats.norm.sf(4) * len(drawn)
    assert beyond == pytest.approx(expected, abs=3 * np.sqrt(expected))


def test_neighbours_are_independent() -> None:
    drawn = NoiseStream(1, CPU).normal((1_000_000,)).double()
    for lag in (1, 2, 3, 4, 784):
        product = (drawn[lag:] * drawn[:-lag]).mean()
        assert abs(float(product)) < 5e-3, lag


def test_a_seed_says_what_is_drawn_however_it_is_asked_for() -> None:
    first, second = NoiseStream(3, CPU), NoiseStream(3, CPU)
    assert torch.equal(first.normal((8, 5)), second.normal((40,)).view(8, 5))
    assert not torch.equal(first.normal((40,)), NoiseStream(4, CPU).normal((40,)))
    narrow, wide = NoiseStream(3, CPU), NoiseStream(3, CPU)
    exact = wide.normal((7,), torch.float64)
    torch.testing.assert_close(narrow.normal((7,)).double(), exact, rtol=1e-6, atol=1e-7)


def test_a_generator_gives_a_new_stream_each_time() -> None:
    generator = torch.Generator().manual_seed(0)
    streams = [NoiseStream.from_generator(generator) for _ in range(2)]
    assert not torch.equal(streams[0].normal((20,)), streams[1].normal((20,)))
    again = NoiseStream.from_generator(torch.Generator().manual_seed(0))
    assert torch.equal(again.normal((20,)), NoiseStream.from_generator(
        torch.Generator().manual_seed(0)).normal((20,)))  # fmt: skip


def test_memory_order_is_filled_as_it_lies() -> None:
    dense = torch.empty(3, 4)
    NoiseStream(5, CPU).fill(dense, "gaussian", False)
    turned = torch.empty(4, 3).t()
    NoiseStream(5, CPU).fill(turned, "gaussian", False)
    assert torch.equal(dense.flatten(), turned.t().flatten())
