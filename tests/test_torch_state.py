"""torch's global generator, seeded for a block and put back."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch

from robench.networks.torch_state import torch_seeded


def test_a_block_draws_what_a_seed_gives_and_leaves_the_state_as_it_was() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2**61)
        wanted = torch.rand(3)
    torch.rand(1)
    before = torch.get_rng_state()
    with torch_seeded(2**61):
        assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(torch.get_rng_state(), before)
    with torch_seeded(1):
        assert not torch.equal(torch.rand(3), wanted)


def test_seeding_writes_down_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.manual_seed does, where no GPU is at work: longer than a small network's answer."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the stack was written down")

    monkeypatch.setattr(traceback, "format_stack", refuse)
    with torch_seeded(0):
        torch.rand(1)
