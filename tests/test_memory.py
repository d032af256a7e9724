"""What does not fit into memory is computed in pieces, to the same results, or says what to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import handed
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from robench.attacks.gradient import DIM, PGD
from robench.data.base import Part, Splits
from robench.data.cifar import CIFAR10
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.make.scoring import attack_slice, score_slice
from robench.networks.base import Network
from robench.networks.memory import ran_out
from robench.networks.mlp import MLP
from robench.networks.weights import tensors_in
from robench.trainers.base import Trainer
from robench.trainers.bp import BP
from robench.trainers.bp_n import BPN
from robench.workspace.cards import AttackCard

CPU = torch.device("cpu")


class Narrow(MLP):
    """A network on a device that holds so many rows of it; `seen`: how many it was asked for."""

    def __init__(self, *arguments: Any, fits: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.fits, self.seen = fits, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return Digits().load()


def network(fits: int, **settings: Any) -> Narrow:
    torch.manual_seed(0)
    return Narrow((1, 8, 8), 10, hidden=(16,), fits=fits, **settings)


def score(asked: Network, part: Part, **settings: Any) -> Any:
    return score_slice(
        asked, part.images, part, draws=2, seed=0, batch_size=64, device=CPU,
        **{"noisy": False, **settings},
    )[0]  # fmt: skip


def attacked(asked: Network, part: Part, attack: Any) -> np.ndarray:
    card = AttackCard(
        name="a", root=".", attack={"name": "pgd"}, access="white-box", eps=0.1
    )  # fmt: skip
    return attack_slice(
        asked, attack, card, 0.1, part, noisy=False, seed=0, batch_size=64, device=CPU
    ).images


@pytest.fixture(scope="module")
def part(digits: Splits) -> Part:
    return Part(digits.test.images[:100], digits.test.labels[:100])


def test_scores_are_the_same_in_pieces(part: Part) -> None:
    narrow = network(fits=10)
    rows, whole = score(narrow, part), score(network(fits=1000), part)
    assert rows["predictions"].equals(whole["predictions"])
    np.testing.assert_allclose(rows["loss"].to_numpy(), whole["loss"].to_numpy(), rtol=1e-5)
    assert narrow.seen[:5] == [64, 32, 16, 8, 8], "halved until it fits, and kept so"
    assert max(narrow.seen[3:]) == 8


def test_a_random_attack_draws_as_before_and_asks_in_pieces(part: Part) -> None:
    narrow = network(fits=20)
    images = attacked(narrow, part, PGD(steps=5, step_size=0.03))
    whole = attacked(network(fits=1000), part, PGD(steps=5, step_size=0.03))
    np.testing.assert_allclose(images, whole, atol=1e-6)
    assert 16 in narrow.seen


def test_training_adds_up_the_gradient_of_a_batch_that_does_not_fit(digits: Splits) -> None:
    def trained(fits: int) -> tuple[Narrow, float]:
        learner = network(fits)
        rng = torch.Generator().manual_seed(0)
        history = BP(epochs=1, batch_size=100).fit(learner, digits, rng, lambda *said: None)
        return learner, history[0]["loss"]

    (narrow, lost), (wide, whole) = trained(30), trained(1000)
    assert 25 in narrow.seen
    assert max(wide.seen) > 100
    assert lost == pytest.approx(whole, rel=1e-4)
    for ours, theirs in zip(narrow.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_rows_whose_numbers_are_drawn_together_are_not_parted(part: Part) -> None:
    noisy = network(fits=10)
    with pytest.raises(RobenchError, match=r"64 images at once.*drawn.*; lower batch_size in the"):
        score(noisy, part, noisy=True)
    with pytest.raises(RobenchError, match=r"transforms them together; lower batch_size"):
        attacked(network(fits=10), part, DIM(steps=2, step_size=0.03))


class Inherits(BP):
    """It might do anything with a batch."""


@pytest.mark.parametrize("trainer", [BPN, Inherits])
def test_a_trainer_that_needs_its_batch_names_the_key(
    digits: Splits, trainer: type[Trainer]
) -> None:
    with pytest.raises(RobenchError, match=r"100 images at once.*lower trainer.batch_size"):
        trainer(epochs=1, batch_size=100).fit(
            network(fits=10), digits, torch.Generator().manual_seed(0), lambda *said: None
        )


def test_one_image_that_does_not_fit_is_an_error(part: Part) -> None:
    with pytest.raises(RobenchError, match="out of memory with 1 images at once"):
        score(network(fits=0), part)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert ran_out(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"))
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(ValueError("out of memory"))


class Counts(handed.Plain):
    """Notes how many images it is asked about at once."""

    asked: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Any:
        Counts.asked.append(len(x))
        return super().forward(x)


def test_checks_ask_about_no_more_images_at_once_than_the_attack(tmp_path: Path) -> None:
    """There are 500 relatives of 30 images and more, and 1,000 whose margins are compared; 80
    images are what a module in memory is known by."""
    Counts.asked.clear()
    relatives = {"name": "pgd-relatives", "steps": 2, "eps": 0.1}
    handed.measured(handed.trained(Counts()), tmp_path, jobs=0, attacks=[relatives])
    assert max(Counts.asked) <= 80


def test_tensors_are_read_without_a_copy() -> None:
    held = {
        "kernel": torch.randn(3, 4),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 2),
    }
    payload = safetensors.torch.save(held, {"robench": "x"})
    found = tensors_in(payload)
    assert found.keys() == held.keys()
    for name, value in held.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    one, other = (tensors_in(payload)["kernel"].data_ptr() for _ in range(2))
    assert one == other
    nn.Linear(4, 3, bias=False).load_state_dict({"weight": found["kernel"]})
    assert torch.equal(found["kernel"], held["kernel"])


def test_the_bytes_of_a_publisher_are_held_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBENCH_DATA", str(tmp_path))
    (tmp_path / CIFAR10.folder).mkdir()
    rng = np.random.default_rng(0)
    shipped = {name: rng.integers(0, 10, (20, 3073), np.uint8) for name in CIFAR10.hashes}
    for name, rows in shipped.items():
        (tmp_path / CIFAR10.folder / name).write_bytes(rows.tobytes())
    splits = CIFAR10().load()
    pixels = splits.train.pixels  # type: ignore[attr-defined]
    assert pixels.base is splits.test.pixels.base  # type: ignore[attr-defined]
    rows = np.concatenate([*shipped.values()])
    assert np.array_equal(pixels, rows[:90, 1:].reshape(-1, 3, 32, 32))
    assert splits.test.labels.tolist() == rows[100:, 0].tolist()
