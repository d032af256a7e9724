"""Checkpoints that torch.save() has written: the tensors in them, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from robench.errors import RobenchError, system_words
from robench.networks.weights import apart, is_plain
from robench.store.seal import PICKLES

HELD = ("state_dict", "model_state_dict", "model", "net", "last")
"""Where a checkpoint holds more than weights: which of it they are, the first of these."""
GLOBAL = re.compile(r"GLOBAL (\S+)")
"""How torch names what it does not read."""


def is_pickle(path: Path) -> bool:
    """Whether a file begins as torch.save() has them."""
    with path.open("rb") as file:
        return file.read(16).startswith(PICKLES)


def tensors_of(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights in a checkpoint by their names, on the CPU, each in memory of its own, and what
    else it holds. No code in it is run (torch's `weights_only`).

    Raises RobenchError, which does not name the file, for one that is damaged, holds more than
    tensors, numbers, texts and containers of them, or no weights by name.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RobenchError(_why_not(str(error))) from None
    beside = tuple[str, ...]()
    while isinstance(found, Mapping) and not any(map(is_plain, found.values())):
        key = next((key for key in HELD if isinstance(found.get(key), Mapping)), None)
        if key is None:
            break
        beside += tuple(str(each) for each in found if each != key)
        found = found[key]
    state: Mapping[Any, Any] = found if isinstance(found, Mapping) else {}
    tensors = {str(name): value for name, value in state.items() if is_plain(value)}
    if not tensors:
        raise RobenchError(
            f"holds no weights: no tensor has a name in it, but there is {_kind(found)}; write the "
            "state dict that is meant: safetensors.torch.save_file(torch.load(FILE, map_location="
            "'cpu', weights_only=True)[...], NEW_FILE)"
        )
    beside += tuple(str(name) for name in state if str(name) not in tensors)
    return apart(tensors), beside


def rewritten(path: Path) -> tuple[Path, str]:
    """Write the weights of a checkpoint as safetensors beside it. Returns the new file and what is
    in it. Raises RobenchError where it cannot be read, or a file lies there already."""
    new = path.with_suffix(".safetensors")
    try:
        if not is_pickle(path):
            raise RobenchError("is not a checkpoint of torch.save()")
        tensors, beside = tensors_of(path)
        with new.open("xb") as file:
            file.write(safetensors.torch.save(tensors))
    except FileExistsError:
        raise RobenchError(f"{path}: {new} lies there already; move it away") from None
    except (OSError, RobenchError) as error:
        raise RobenchError(f"{path}: {system_words(error)}") from None
    left = f"; left out: {_few(beside)}" if beside else ""
    return new, f"{len(tensors)} tensors{left}"


def _why_not(said: str) -> str:
    """What torch says, in a line."""
    unknown = GLOBAL.search(said)
    if unknown is None:
        return f"cannot be read as a checkpoint of torch.save(): {said.strip().split(chr(10))[0]}"
    return (
        f"holds more than tensors ({unknown[1]}), and reading that may run code: nothing was read; "
        "where you trust it, write its weights alone: safetensors.torch.save_file(STATE, NEW_FILE),"
        " STATE the state dict in torch.load(FILE, map_location='cpu', weights_only=False)"
    )


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        return _few([f"{key} ({_kind(value)})" for key, value in found.items()]) or "nothing"
    many = f" of {len(found)}" if isinstance(found, (list, tuple)) else ""
    return f"{type(found).__name__}{many}"


def _few(names: Any) -> str:
    several = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + several
