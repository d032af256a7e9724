"""What a module keeps from one call to the next, and how it is put back.

Spiking neurons of other libraries hold their potentials in buffers and attributes. A network is a
function of its input here: whatever a call leaves behind is gone before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robench.networks.surrogate import Step
from robench.networks.torch_state import torch_seeded

OWN = frozenset(vars(nn.Module())) - {"_buffers"}
"""What every module holds, which is no state of its own making."""
MISSING = object()


@dataclass(frozen=True)
class _Held:
    """A value that may be state: itself, and what a tensor in it was before anything wrote into
    it."""

    value: Any
    versions: tuple[tuple[Tensor, int, Tensor], ...]

    @classmethod
    def of(cls, value: Any) -> _Held:
        # Containers are copied, so that what is put into them does not show here.
        kept = type(value)(value) if type(value) in (list, dict) else value
        tensors = [one for one in tensors_in(value) if not one.is_inference()]
        return cls(kept, tuple((one, one._version, one.detach().clone()) for one in tensors))

    def is_still(self, value: Any) -> bool:
        if type(self.value) in (list, dict):
            same = type(value) is type(self.value)
            same = same and [*map(id, _items(value))] == [*map(id, _items(self.value))]
        else:
            same = value is self.value
        return same and all(one._version == version for one, version, _ in self.versions)

    def put_back(self) -> Any:
        with torch.no_grad():
            for one, version, before in self.versions:
                if one._version != version:
                    one.copy_(before)
        return type(self.value)(self.value) if type(self.value) in (list, dict) else self.value


def _items(value: Any) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else list(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors that a value is or holds, in plain containers too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def _may_be_state(value: Any) -> bool:
    """Tensors and numbers, and plain containers of them; settings are among them and stay."""
    if isinstance(value, (Tensor, int, float, type(None))):
        return not isinstance(value, nn.Parameter)
    if isinstance(value, Mapping):
        return all(map(_may_be_state, value.values()))
    return isinstance(value, (list, tuple)) and all(map(_may_be_state, value))


class KeptState:
    """A module as it is now, between two calls."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = list(module.named_modules())
        self._before = [
            {place: _Held.of(value) for place, value in _places(part).items()}
            for _, part in self._parts
        ]

    def put_back(self) -> list[str]:
        """Undo what changed; the parts that hold it, by name."""
        changed = []
        for (name, part), before in zip(self._parts, self._before, strict=True):
            now = _places(part)
            for place in {**before, **now}:
                held = before.get(place)
                if held is not None and held.is_still(now.get(place, MISSING)):
                    continue
                changed.append(name or place[1])
                where = vars(part)["_buffers"] if place[0] == "buffer" else vars(part)
                if held is None:
                    del where[place[1]]
                else:
                    where[place[1]] = held.put_back()
        return list(dict.fromkeys(changed))


def _places(part: nn.Module) -> dict[tuple[str, str], Any]:
    """Where a module may hold state, with what is there now."""
    if isinstance(part, (torch.jit.ScriptModule, Step)):
        return {}
    places: dict[tuple[str, str], Any] = {
        ("buffer", name): value for name, value in vars(part)["_buffers"].items()
    }
    for name, value in vars(part).items():
        if name not in OWN and name != "_buffers" and _may_be_state(value):
            places["attribute", name] = value
    return places


def remembers(module: nn.Module, ask: Any) -> list[str]:
    """What a module keeps that changes its next answer; empty where it answers as before.

    Args:
        ask: calls the module and answers a tensor. It is called with equal random numbers.

    The module is left as it was.
    """
    state = KeptState(module)
    try:
        with torch.no_grad():
            with torch_seeded(0):
                first = ask()
            with torch_seeded(0):
                second = ask()
    finally:
        changed = state.put_back()
    if not changed or (first.shape == second.shape and torch.equal(first, second)):
        return []
    return changed
