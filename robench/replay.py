"""CUDA graphs: a pass through a network, recorded once and then replayed.

A GPU computes a small network many times faster than Python can ask for its steps one by one. A
recorded pass is asked for in one go. It does the very same steps: a recording whose first replay
does not repeat its answer bit for bit, random numbers included, is thrown away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.errors import RobenchError, cause
from robench.memory import ran_out
from robench.networks.base import Network
from robench.networks.noise import noise_source

Ask = Callable[..., list[Tensor]]

PATIENCE = 3
"""Calls of one kind after which it is recorded: that costs about as much as ten calls save."""
MOST = 24
"""Recordings that are kept: each holds the memory of its pass."""
enabled = True


class Replays:
    """Recordings of passes, one for each kind of pass and shape of what is given.

    Args:
        generators: all that the passes draw numbers from.
    """

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self._generators = generators
        self._calls: Counter[Hashable] = Counter()
        self._made: dict[Hashable, _Recording | None] = {}

    def __call__(self, kind: Hashable, ask: Ask, *given: Tensor) -> list[Tensor]:
        """What `ask` answers about the tensors that are given, on one device.

        Args:
            kind: what else the answer depends on; the same for all calls that do the same.
            ask: reads tensors and draws numbers, but looks at none of their values on the host.
        """
        if not enabled or not given[0].is_cuda:
            return ask(*given)
        key = (kind, *((tensor.shape, tensor.dtype) for tensor in given))
        if key in self._made:
            made = self._made[key]
            return ask(*given) if made is None else made.play(*given)
        self._calls[key] += 1
        if self._calls[key] <= PATIENCE:
            return ask(*given)
        if len(self._made) >= MOST:
            oldest = next(iter(self._made))
            del self._made[oldest], self._calls[oldest]
        return self._record(key, ask, given)

    def _record(self, key: Hashable, ask: Ask, given: tuple[Tensor, ...]) -> list[Tensor]:
        before = [generator.get_state() for generator in self._generators]
        answer = ask(*given)
        after = [generator.get_state() for generator in self._generators]
        self._made[key] = None
        try:
            made = _Recording(ask, given, self._generators)
        except RuntimeError as error:
            _mend(self._generators)
            if ran_out(error):
                return answer
            raise RobenchError(
                "a pass cannot be recorded for the GPU, although its class says recordable = True; "
                f"take that out: {cause(error)}"
            ) from error
        self._to(before)
        again = made.play(*given)
        states = [generator.get_state() for generator in self._generators]
        if all(map(torch.equal, answer, again)) and all(map(torch.equal, after, states)):
            self._made[key] = made
        self._to(after)
        return answer

    def _to(self, states: list[Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)


class _Recording:
    """One recorded pass."""

    def __init__(
        self, ask: Ask, given: Sequence[Tensor], generators: Sequence[torch.Generator]
    ) -> None:
        self._given = [tensor.clone() for tensor in given]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        here, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            self._graph.capture_begin()
            try:
                self._answer = ask(*self._given)
            except BaseException:
                with suppress(RuntimeError):  # it would hide what went wrong
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        here.wait_stream(stream)

    def play(self, *given: Tensor) -> list[Tensor]:
        for mine, theirs in zip(self._given, given, strict=True):
            mine.copy_(theirs)
        self._graph.replay()
        return [tensor.clone() for tensor in self._answer]


def _mend(generators: Sequence[torch.Generator]) -> None:
    """After a recording that broke off the generators still believe in it; a whole one ends
    that."""
    with suppress(RuntimeError):
        _Recording(lambda x: [x + 1], [torch.zeros(1, device="cuda")], generators)


_still: WeakKeyDictionary[Network, tuple[tuple[int, ...], Replays]] = WeakKeyDictionary()
"""Recordings of networks that draw no numbers, and where their weights were in memory."""


def replays_of(network: Network) -> Replays | None:
    """The recordings of a network's passes as things stand; None: they may not be recorded."""
    if not network.replays:
        return None
    source = noise_source(network)
    generators = source.generators if source is not None else []
    if network.random_input and network.generator is not None:
        generators = [*generators, network.generator]
    if generators:
        return Replays(generators)
    places = tuple(tensor.data_ptr() for tensor in network.state_dict(keep_vars=True).values())
    if network not in _still or _still[network][0] != places:
        _still[network] = places, Replays()
    return _still[network][1]
