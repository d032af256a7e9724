"""A network's weights as a file holds them: plain tensors by name, and what is left to its code."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors.torch import _TYPES as KINDS
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.plugin_code.watched_weights import Original, bytes_of, same_bits
from robench.store.seal import Framework, tensors_header

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """What of a state_dict() a file can hold: not extra state, nor quantised weights."""
    return {name: value for name, value in module.state_dict().items() if is_plain(value)}


def written_state(module: nn.Module, trained: bool) -> dict[str, Tensor]:
    """The same as `apart` gives it: a file holds no tensor twice.

    Args:
        trained: whether the values were made here, so that nothing else brings them back.

    Raises RobenchError where a trained module has more than a file can hold, and for weights that
    are not finite. Buffers may be anything: masks are infinite, and what is unused is never seen.
    """
    state = plain_state(module)
    beside = [name for name in module.state_dict() if name not in state]
    if trained and beside:
        raise RobenchError(
            f"state_dict() holds {beside[0]}, which is no plain tensor and would be lost; register "
            "a buffer for it"
        )
    weights = dict(module.named_parameters(remove_duplicate=False))
    bad = [name for name in state if name in weights and not torch.isfinite(state[name]).all()]
    if bad:
        made = "training left" if trained else "the weights hold"
        raise RobenchError(f"{made} NaN or infinite values in {', '.join(bad)}")
    return apart(state)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, row after row, each in memory that no other has; those that are so
    already are no copies."""
    places = set[int]()
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        value, memory = value.detach().cpu(), value.untyped_storage()
        alone = memory.nbytes() == value.nbytes and memory.data_ptr() not in places
        if not (alone and value.is_contiguous()):
            value = value.clone(memory_format=torch.contiguous_format)
        places.add(memory.data_ptr())
        found[name] = value
    return found


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put plain tensors into a module; what a file cannot hold stays as its code has made it.

    Names may have the prefixes of DataParallel and torch.compile. Raises RuntimeError, as torch
    does, where names or shapes differ.
    """
    own = module.state_dict()
    for prefix in PREFIXES:
        wrapped = bool(state) and all(name.startswith(prefix) for name in state)
        if wrapped and not any(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    plain = [name for name, value in own.items() if is_plain(value)]
    if len(plain) < len(own):  # versions of layers stand in an attribute of `own`
        for name in plain:
            del own[name]
        own.update(state)
        state = own
    module.load_state_dict(state)


def holds(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a module has these plain tensors by these names, bit for bit, and no others."""
    own = plain_state(module)
    return own.keys() == state.keys() and all(same_bits(own[name], state[name]) for name in own)


TORCH = Framework(safetensors.torch.save, lambda tensor: tensor.new_zeros(1), bytes_of)


def originals_in(
    path: str, payload: bytes, module: nn.Module, lent: Collection[int]
) -> dict[str, Original]:
    """Of the weights of a module that lie at certain places in memory, what a file says they are;
    of none where the module's own code gives it some under other names, or otherwise.

    Args:
        path: of the file, whose content `payload` is.
    """
    header, start = tensors_header(payload), 8 + int.from_bytes(payload[:8], "little")
    found = {}
    named = module.state_dict(keep_vars=True)
    for name, weight in module.named_parameters(remove_duplicate=False):
        if weight.data_ptr() in lent and weight.device.type == "cpu":
            if named.get(name) is not weight:
                return {}
            first = start + header[name]["data_offsets"][0]
            found[name] = Original.of(
                weight, partial(_in_file, path, first, weight.shape, weight.dtype)
            )
    return found


def _in_file(path: str, first: int, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """A tensor that begins at a byte of a file."""
    bytes_ = np.fromfile(path, np.uint8, math.prod(shape) * kind.itemsize, offset=first)
    return torch.from_numpy(bytes_).view(kind).view(shape)


def tensors_in(payload: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file that is whole, without a copy: they lie in `payload`, and
    nobody may write into them."""
    header = tensors_header(payload)
    start = 8 + int.from_bytes(payload[:8], "little")
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        for name, said in header.items():
            if name == "__metadata__":
                continue
            kind: Any = KINDS[said["dtype"]]
            count = math.prod(said["shape"])
            first = start + said["data_offsets"][0]
            flat = (
                torch.frombuffer(payload, dtype=kind, count=count, offset=first)
                if count
                else torch.empty(0, dtype=kind)
            )
            tensors[name] = flat.view(said["shape"])
    return tensors


def is_plain(value: Any) -> bool:
    """Whether a file can hold it."""
    return isinstance(value, Tensor) and not (value.is_quantized or value.is_sparse)
