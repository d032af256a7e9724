"""What publishers ship as bytes stays so until it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robench.data.base import Dataset, InBytes, Raw, Sliced
from robench.data.ready import ready
from robench.data.sample import drawn
from robench.networks.mlp import MLP
from robench.trainers.bp import BP
from robench.trainers.images import images_of


class Bytes(Dataset):
    def raw(self) -> Raw:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
        return Raw(pixels, np.arange(60) % 10, 40)


class Floats(Bytes):
    def raw(self) -> Raw:
        raw = super().raw()
        return Raw(np.divide(raw.images, 255, dtype=np.float32), raw.labels, 40)


@pytest.mark.parametrize("split", ["official", "7:2:1"])
def test_they_are_the_same_images_to_the_bit(split: str) -> None:
    held, wanted = (ready(kind(split=split).load(), "here") for kind in (Bytes, Floats))
    assert held.fingerprint == wanted.fingerprint
    assert held.input_shape == wanted.input_shape
    for name in ("train", "validation", "test"):
        mine, theirs = getattr(held, name), getattr(wanted, name)
        assert isinstance(mine, InBytes)
        assert mine.shape == theirs.shape
        for items in (slice(1, 3), np.array([2, 0]), 1):
            np.testing.assert_array_equal(mine.at(items), theirs.at(items))
        assert "images" not in vars(mine)
        np.testing.assert_array_equal(mine.images, theirs.images)
        assert mine.images.dtype == np.float32


def test_a_sample_of_them_leaves_the_others_as_they_are() -> None:
    held, wanted = (ready(kind().load(), "here") for kind in (Bytes, Floats))
    few, theirs = drawn(held, 7), drawn(wanted, 7)
    np.testing.assert_array_equal(few.images, theirs.images)
    np.testing.assert_array_equal(few.labels, theirs.labels)
    assert few.numbers is not None
    np.testing.assert_array_equal(few.numbers, theirs.numbers)
    assert "images" not in vars(held.test)


def test_whoever_writes_into_them_is_noticed() -> None:
    held = ready(Bytes().load(), "here")
    before = held.seal()
    assert held.train.images[0, 0, 0, 0] <= 1
    assert held.seal() == before, "to be looked at is no change"
    held.train.images[5, 0, 0, 0] = 2
    assert held.seal() != before


def test_the_training_loop_gets_the_same_bits_batch_by_batch() -> None:
    """All bytes, without ever holding all images as numbers."""
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(64, 3, 2, 2)
    part = InBytes(pixels, np.zeros(64, np.int64))
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        images, chosen = images_of(part, torch.device(device)), torch.arange(63, -1, -3)
        assert torch.equal(images[:64].cpu(), torch.from_numpy(part.at(slice(None))))
        drawn = images.index_select(0, chosen.to(device))
        assert torch.equal(drawn.cpu(), torch.from_numpy(part.at(chosen.numpy())))
    assert "images" not in vars(part)


@pytest.mark.parametrize("standardise", ["none", "channel"])
def test_networks_are_trained_on_them_as_on_numbers(standardise: str) -> None:
    weights = []
    for kind in (Bytes, Floats):
        data = ready(kind().load(), "here")
        torch.manual_seed(0)
        network = MLP(data.input_shape, 10, hidden=(8,), standardise=standardise)
        network.learn_input(Sliced(data.train))
        BP(epochs=2, batch_size=7, lr=0.1).fit(
            network, data, torch.Generator().manual_seed(0), lambda done, said: None
        )
        weights.append(torch.cat([value.flatten() for value in network.state_dict().values()]))
        assert "images" not in vars(data.train) or kind is Floats
    assert torch.equal(*weights)
