"""Which passes are recorded, and which recordings are used; `test_cuda.py` has the rest."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks import replay
from robench.networks.base import Network
from robench.networks.mlp import MLP
from robench.networks.noise import NoiseSource, NoisyLayer, noise
from robench.networks.replay import Replays, replays_of
from robench.networks.snn import SNN
from robench.networks.surrogate import surrogate
from robench.trainers.bp import BP
from robench.trainers.nit import NIT


class Recording:
    """A stand-in: remembers that it was made, and answers with what it is told to."""

    made = 0
    answer: float | Exception = 1.0

    def __init__(self, ask: Any, given: Sequence[Any], generators: Any) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer
        type(self).made += 1
        self.played = 0

    def overwrite(self) -> None: ...

    def play(self, *given: Any) -> list[Tensor]:
        self.played += 1
        assert isinstance(self.answer, float)
        return [torch.tensor(self.answer)]


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_Recording", Recording)
    monkeypatch.setattr(replay, "_mend", lambda *given: None)
    monkeypatch.setattr(Recording, "made", 0)
    monkeypatch.setattr(Recording, "answer", 1.0)


def there(rows: int = 3) -> Any:
    """What looks like a tensor on a GPU."""
    return SimpleNamespace(
        is_cuda=True, shape=(rows, 2), dtype=torch.float32, device=torch.device("cuda")
    )


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, *given: Any) -> list[Tensor]:
        self.times += 1
        return [torch.tensor(1.0)]


def test_a_pass_is_recorded_once_it_has_been_asked_for_a_few_times() -> None:
    replays, ask = Replays(), Asked()
    for _ in range(replay.PATIENCE):
        replays("logits", ask, there())
    assert Recording.made == 0
    for _ in range(10):
        replays("logits", ask, there())
    assert Recording.made == 1
    assert ask.times == replay.PATIENCE + 1


def test_another_shape_or_kind_is_another_pass() -> None:
    replays, ask = Replays(), Asked()
    for kind, rows in (("logits", 3), ("logits", 4), ("gradient", 3)):
        for _ in range(replay.PATIENCE + 1):
            replays(kind, ask, there(rows))
    assert Recording.made == 3


def test_what_was_used_last_stays() -> None:
    replays, ask = Replays(), Asked()
    for rows in range(replay.MOST + 5):
        for _ in range(replay.PATIENCE + 1):
            replays("logits", ask, there(rows))
        replays("logits", ask, there(0))
    times = ask.times
    replays("logits", ask, there(0))
    assert ask.times == times


def test_the_oldest_recording_makes_room() -> None:
    replays, ask = Replays(), Asked()
    for rows in range(replay.MOST + 5):
        for _ in range(replay.PATIENCE + 1):
            replays("logits", ask, there(rows))
    assert len(replays._made) == replay.MOST
    times = ask.times
    replays("logits", ask, there(0))
    assert ask.times == times + 1


def test_nothing_is_recorded_on_a_cpu_or_where_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replays, ask = Replays(), Asked()
    for _ in range(10):
        replays("logits", ask, torch.ones(3))
    monkeypatch.setattr(replay, "enabled", False)
    for _ in range(10):
        replays("logits", ask, there())
    assert (Recording.made, ask.times) == (0, 20)


def test_a_recording_that_answers_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recording, "answer", 2.0)
    replays, ask = Replays(), Asked()
    answers = [float(replays("logits", ask, there())[0]) for _ in range(10)]
    assert answers == [1.0] * 10
    assert ask.times == 10


def test_a_recording_for_which_memory_is_too_small_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recording, "answer", torch.OutOfMemoryError("CUDA out of memory"))
    replays, ask = Replays(), Asked()
    assert [float(replays("logits", ask, there())[0]) for _ in range(10)] == [1.0] * 10


def test_a_pass_that_cannot_be_recorded_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recording, "answer", RuntimeError("operation not permitted"))
    replays, ask = Replays(), Asked()
    for _ in range(replay.PATIENCE):
        replays("logits", ask, there())
    with pytest.raises(RobenchError, match=r"recordable = True; take that out: .*not permitted"):
        replays("logits", ask, there())


def test_a_class_says_for_itself_that_it_is_recordable() -> None:
    class Mine(MLP):
        pass

    class MyTrainer(BP):
        pass

    network = MLP((1, 8, 8), 10)
    assert replays_of(network) is not None
    assert replays_of(Mine((1, 8, 8), 10)) is None
    assert BP().may_replay(network)
    assert not BP().may_replay(Mine((1, 8, 8), 10))
    assert not MyTrainer().may_replay(network)
    spiking = SNN((1, 8, 8), 10)
    assert NIT(copies=8).may_replay(spiking)
    assert not NIT(copies=8, pairing="hadamard").may_replay(spiking)


def test_what_is_read_from_elsewhere_makes_another_recording() -> None:
    network = MLP((1, 8, 8), 10, activation="threshold").eval()
    still = replays_of(network)
    with surrogate(network, "arctan:2"):
        assert replays_of(network) is not still
    assert replays_of(network.train()) is not replays_of(network.eval())
    with noise(network, Loud()):
        assert replays_of(network) is None


class Loud(NoiseSource):
    """Does not say what it draws from."""

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        return drive + 1


def test_a_network_with_a_hook_is_not_replayed() -> None:
    network = MLP((1, 8, 8), 10)
    network.layers[0].register_forward_hook(lambda *given: None)
    assert replays_of(network) is None


def test_recordings_of_a_still_network_last_while_its_weights_stay_where_they_are() -> None:
    network: Network = MLP((1, 8, 8), 10)
    first = replays_of(network)
    assert replays_of(network) is first
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
    assert replays_of(network) is not first


def test_a_network_that_draws_numbers_is_recorded_for_each_target_anew() -> None:
    network = SNN((1, 8, 8), 10, encoding="bernoulli")
    network.generator = torch.Generator()
    first = replays_of(network)
    assert first is not None
    assert replays_of(network) is not first
    assert first._generators == [network.generator]
