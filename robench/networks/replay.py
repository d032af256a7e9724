"""CUDA graphs: a pass through a network, recorded once and then replayed.

A GPU computes a small network many times faster than Python can ask for its steps one by one. A
recorded pass is asked for in one go. It does the very same steps: a recording whose first replay
does not repeat its answer bit for bit, random numbers included, is thrown away.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from robench.errors import RobenchError, cause
from robench.networks.base import Network
from robench.networks.memory import ran_out
from robench.networks.noise import noise_source
from robench.networks.surrogate import Step

Ask = Callable[..., list[Tensor]]

PATIENCE = 3
"""Calls of one kind after which it is recorded: that costs about as much as ten calls save."""
MOST = 24
"""Recordings that are kept, the last used ones."""
enabled = True


class Replays:
    """Recordings of passes, one for each kind of pass and shape of what is given.

    Args:
        generators: all that the passes draw numbers from.
    """

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self._generators = generators
        self._calls: Counter[Hashable] = Counter()
        self._made: OrderedDict[Hashable, _Recording | None] = OrderedDict()

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
            self._made.move_to_end(key)
            made = self._made[key]
            return ask(*given) if made is None else made.play(*given)
        self._calls[key] += 1
        if self._calls[key] <= PATIENCE:
            return ask(*given)
        if len(self._made) >= MOST:
            oldest, _ = self._made.popitem(last=False)
            del self._calls[oldest]
        return self._record(key, ask, given)

    def _record(self, key: Hashable, ask: Ask, given: tuple[Tensor, ...]) -> list[Tensor]:
        before = [generator.get_state() for generator in self._generators]
        answer = ask(*given)
        after = [generator.get_state() for generator in self._generators]
        self._made[key] = None
        try:
            made = _Recording(ask, given, self._generators)
        except RuntimeError as error:
            _mend(given[0].device, self._generators)
            if ran_out(error):
                return answer
            raise RobenchError(
                "a pass cannot be recorded for the GPU, although its class says recordable = True; "
                f"take that out: {cause(error)}"
            ) from error
        self._to(before)
        made.overwrite()
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
        self._device = given[0].device
        self._given = [tensor.detach().clone() for tensor in given]
        with torch.cuda.device(self._device):
            self._graph = torch.cuda.CUDAGraph()
            for generator in generators:
                self._graph.register_generator_state(generator)
            stream, pool = _aside(self._device)
            here = torch.cuda.current_stream()
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                try:
                    self._graph.capture_begin(pool=pool)
                    self._answer = ask(*self._given)
                except BaseException:
                    with suppress(RuntimeError):  # it would hide what went wrong
                        self._graph.capture_end()
                    raise
                self._graph.capture_end()
            here.wait_stream(stream)

    def overwrite(self) -> None:
        """Make the answer unreadable until it is played again."""
        with torch.no_grad():
            for tensor in self._answer:
                tensor.fill_(torch.nan if tensor.is_floating_point() else 0)

    def play(self, *given: Tensor) -> list[Tensor]:
        with torch.no_grad(), torch.cuda.device(self._device):
            for mine, theirs in zip(self._given, given, strict=True):
                mine.copy_(theirs)
            self._graph.replay()
            return [tensor.clone() for tensor in self._answer]


@lru_cache
def _aside(device: torch.device) -> tuple[Any, Any]:
    """Where recordings of a device are made, and the memory that they share: they are played one
    after the other, and what one answers is copied at once."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]


def _mend(device: torch.device, generators: Sequence[torch.Generator]) -> None:
    """After a recording that broke off the generators still believe in it; a whole one ends
    that."""
    with suppress(RuntimeError):
        _Recording(lambda x: [x + 1], [torch.zeros(1, device=device)], generators)


_still: WeakKeyDictionary[Network, tuple[tuple[Hashable, ...], Replays]] = WeakKeyDictionary()
"""Recordings of networks that draw no numbers, and the state that they were in."""


def replays_of(network: Network) -> Replays | None:
    """The recordings of a network's passes as things stand; None: they may not be recorded."""
    if not network.replays:
        return None
    source = noise_source(network)
    generators = []
    if source is not None:
        generators = source.generators
        if not generators:  # who knows what it does
            return None
    if network.random_input and network.generator is not None:
        generators = [*generators, network.generator]
    if generators:
        return Replays(generators)
    state = (
        network.training,
        *places(network),
        *(module.surrogate for module in network.modules() if isinstance(module, Step)),
    )
    if network not in _still or _still[network][0] != state:
        _still[network] = state, Replays()
    return _still[network][1]


def places(network: Network) -> tuple[int, ...]:
    """Where in memory the weights and buffers are, which recordings read."""
    return tuple(tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers()))
