"""A network as it was when a plugin was shown it: its weights are compared with a copy, or with the
file that has them, and put back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

NAMED = 5
"""Changes that an error names."""
HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hook")))


@dataclass(frozen=True)
class Original:
    """What a weight is to be, as a file has it: then nobody needs a copy.

    memory: the weight's, whatever tensor a network has in its place. read: the values, read anew.
    digest: of them, which the file need not have for ever.
    """

    memory: Tensor
    read: Callable[[], Tensor]
    digest: bytes

    @classmethod
    def of(cls, weight: Tensor, read: Callable[[], Tensor]) -> Original:
        return cls(weight.detach(), read, _digest(weight))

    def is_in_file(self, weight: Tensor) -> bool:
        try:
            return same_bits(weight, self.read())
        except (OSError, ValueError, RuntimeError):  # it is gone, or shorter
            return False

    def is_still(self, weight: Tensor) -> bool:
        if not _alike(weight, self.memory):
            return False
        return self.is_in_file(weight) or _digest(weight) == self.digest

    def put_back(self) -> bool:
        """Whether the weight is what it was, again or still; else the file does not have it any
        more."""
        if self.is_still(self.memory):
            return True
        with suppress(OSError, ValueError, RuntimeError), torch.no_grad():
            values = self.read()
            if _digest(values) == self.digest:
                self.memory.copy_(values)
                return True
        return False

    def __deepcopy__(self, memo: dict[int, Any]) -> Original:
        return self


def bytes_of(tensor: Tensor) -> bytes | memoryview:
    """The bytes of a tensor's numbers, row after row: where they lie, if they lie so on the CPU."""
    tensor = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    if not tensor.nbytes:
        return b""
    plain = torch.empty(0, dtype=torch.uint8)
    first = tensor.storage_offset() * tensor.element_size()
    plain.set_(tensor.untyped_storage(), first, (tensor.nbytes,), (1,))
    memory: memoryview = plain.numpy().data
    return memory


def _digest(weight: Tensor) -> bytes:
    return hashlib.sha256(bytes_of(weight)).digest()


@dataclass(frozen=True)
class _Copied:
    """What a weight was, where no file has it."""

    memory: Tensor
    values: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> _Copied:
        return cls(weight.detach(), weight.detach().clone())

    def is_still(self, weight: Tensor) -> bool:
        return same_bits(weight, self.values)

    def put_back(self) -> bool:
        with suppress(RuntimeError), torch.no_grad():
            self.memory.copy_(self.values)
            return True
        return False


class Shown:
    """A network as it was when a plugin was shown it.

    Weights whose originals are in a file are compared with these, and by the outer one of two
    watches over the same plugins: copies of a network share them.
    """

    def __init__(self, network: nn.Module, who: str = "") -> None:
        self._network, self.who = network, who
        self._layers = _layers(network)
        self.originals: Mapping[str, Original] = getattr(network, "originals", {})
        self._outer = not any(
            other.originals is self.originals and other.who == who for other in list(_on_watch)
        )
        self._state = {
            name: (value, self.originals.get(name) or _Copied.of(value))
            for name, value in _state(network).items()
        }
        if self._outer:
            _on_watch.add(self)

    def changes(self) -> str:
        """What is not as it was, for people; empty: nothing. Weights are put back. To be asked
        once, at the end of the watch."""
        _on_watch.discard(self)
        state = _state(self._network)
        written = {name for name, one in self._state.items() if not self._is_still(*one)}
        lost = [name for name in written if not self._put_back(*self._state[name])]
        if _layers(self._network) != self._layers:
            said = "its layers or hooks"
        else:
            changed = [
                name
                for name, (value, _) in self._state.items()
                if name in written or state.get(name) is not value
            ]
            if not changed and len(state) == len(self._state):
                return ""
            said = ", ".join(changed[:NAMED]) or "new weights"
        return f"{said}, which cannot be put back" if lost else said

    def _is_still(self, value: Tensor, kept: Original | _Copied) -> bool:
        """Whether neither the memory that a weight had has changed, which may be the caller's, nor
        what the network has in its place."""
        around = isinstance(kept, Original) and not self._outer  # a watch that will look at it
        held = _alike(value, kept.memory) and value.data_ptr() == kept.memory.data_ptr()
        return (around or kept.is_still(kept.memory)) and (held or kept.is_still(value))

    @staticmethod
    def _put_back(value: Tensor, kept: Original | _Copied) -> bool:
        """Whether a weight is what it was again: its file may be gone."""
        if not kept.put_back():
            return False
        with suppress(RuntimeError):
            value.data = kept.memory
            return True
        return False


_on_watch: WeakSet[Shown] = WeakSet()
"""The outer ones of the watches that are open: one that an interruption has cut off is none."""


def _state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and persistent buffers themselves, by name."""
    state: dict[str, Any] = network.state_dict(keep_vars=True)
    own: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    own |= dict(network.named_buffers(remove_duplicate=False))
    # Quantised layers make some of their state anew for each state_dict().
    return {name: own[name] for name, value in state.items() if own.get(name) is value}


def _layers(network: nn.Module) -> list[Any]:
    """Which layers there are, of which class, with which hooks."""
    layers: list[Any] = []
    for name, module in network.named_modules(remove_duplicate=False):
        own = module.__dict__
        if isinstance(module, torch.jit.ScriptModule):  # whose parts are made anew when looked at
            layers.append((name, type(module).__name__))
            continue
        hooks = tuple(tuple(own[kind]) for kind in HOOKS if own.get(kind))
        layers.append((name, id(module), type(module), hooks, id(own.get("forward"))))
    return layers


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are alike: type, shape, device and values."""
    if not _alike(a, b) or a.device != b.device:
        return False
    if torch.equal(a, b):
        return True
    # Not a number is unlike itself.
    return bool(((a == b) | ((a != a) & (b != b))).all())
