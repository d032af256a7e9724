"""What a plugin can leave behind in its process: a table of names, how each is read and how it is
put back. guard.py goes through it around every call of a plugin."""

from __future__ import annotations

import gc
import locale
import operator
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_module


@dataclass(frozen=True)
class Watched:
    """One thing that a call of a plugin leaves as it was."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    """Takes what `read` gave before. Raises where it cannot be put back."""
    detail: Callable[[Any, Any], str] = lambda before, now: ""
    """What of it has changed, for people: (before, now)."""


def _values(before: Any, now: Any) -> str:
    return f"from {before} to {now}"


def _keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(sorted(map(str, changed))[:5])


def _each(
    keys: Sequence[Any], read: Callable[[Any], Any], restore: Callable[[Any, Any], Any]
) -> tuple[Callable[[], list[Any]], Callable[[list[Any]], None]]:
    """How things that are read and set alike are read, and those that are other put back."""

    def read_all() -> list[Any]:
        return [read(key) for key in keys]

    def restore_all(before: list[Any]) -> None:
        for key, value in zip(keys, before, strict=True):
            if value is not None and read(key) != value:
                restore(key, value)

    return read_all, restore_all


# -- torch -----------------------------------------------------------------------------------------

DEVICES = ("cpu", "cuda")
CUDNN = ("deterministic", "benchmark", "enabled", "allow_tf32")
TABLES = [
    table
    for name, table in vars(torch_module).items()
    if name.startswith("_global_") and isinstance(table, dict)
]
"""Torch's hooks on all modules."""


def _read_hooks() -> list[dict[Any, Any]]:
    return [dict(table) for table in TABLES]


def _restore_hooks(before: list[dict[Any, Any]]) -> None:
    for table, kept in zip(TABLES, before, strict=True):
        table.clear()
        table.update(kept)


def _restore_device(before: torch.device) -> None:
    torch.set_default_device(None)
    if torch.get_default_device() != before:
        torch.set_default_device(before)


def _read_modes() -> tuple[int, int]:
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def _restore_modes(before: tuple[int, int]) -> None:
    while torch._C._len_torch_function_stack() > before[0]:
        torch._C._pop_torch_function_stack()
    while torch._C._len_torch_dispatch_stack() > before[1]:
        torch._C._pop_torch_dispatch_stack()
    if _read_modes() != before:
        raise RuntimeError("modes that were on are gone")


def _read_autocast() -> list[Any]:
    kinds = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES]
    return [*kinds, torch.is_autocast_cache_enabled()]


def _restore_autocast(before: list[Any]) -> None:
    for device, (enabled, dtype) in zip(DEVICES, before[:-1], strict=True):
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(before[-1])
    torch.clear_autocast_cache()


PRECISIONS = (
    "",
    *("mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn"),
    *("cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul"),
)
"""Parts of torch.backends that round by a setting of their own, where torch is new enough."""
ATTENTION = ("flash", "mem_efficient", "math", "cudnn")


def _asked(question: Callable[[], Any]) -> Any:
    """The answer; None where torch has none, as while two ways to set precision disagree."""
    try:
        return question()
    except (RuntimeError, AttributeError):
        return None


def _cudnn(name: str) -> Any:
    return _asked(partial(getattr, torch.backends.cudnn, name))


def _part(name: str) -> Any:
    return operator.attrgetter(name)(torch.backends) if name else torch.backends


def _precision(name: str) -> Any:
    return _part(name).fp32_precision


def _read_flags() -> list[Any]:
    return [
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        *map(_cudnn, CUDNN),
        torch._C._get_mkldnn_enabled(),
        _asked(torch.get_float32_matmul_precision),
    ]


def _restore_flags(before: list[Any]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    for name, value in zip(CUDNN, before[2:-2], strict=True):
        if value is not None and _cudnn(name) != value:
            setattr(torch.backends.cudnn, name, value)
    torch._C._set_mkldnn_enabled(before[-2])
    if before[-1] is not None and _asked(torch.get_float32_matmul_precision) != before[-1]:
        torch.set_float32_matmul_precision(before[-1])


def _read_precisions() -> list[Any]:
    return [_asked(partial(_precision, name)) for name in PRECISIONS]


def _restore_precisions(before: list[Any]) -> None:
    for name, value in zip(PRECISIONS, before, strict=True):
        if value is not None:
            _part(name).fp32_precision = value


def _read_attention() -> list[bool]:
    fast = torch.backends.mha.get_fastpath_enabled()
    return [fast, *(getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ATTENTION)]


def _restore_attention(before: list[bool]) -> None:
    torch.backends.mha.set_fastpath_enabled(before[0])
    for name, value in zip(ATTENTION, before[1:], strict=True):
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)


def _read_settings() -> tuple[list[Any], list[Any], list[bool]]:
    return _read_flags(), _read_precisions(), _read_attention()


def _restore_settings(before: tuple[list[Any], list[Any], list[bool]]) -> None:
    flags, precisions, attention = before
    # Twice: flags cannot be set while parts disagree with them, and set the parts in their turn.
    _restore_precisions(precisions)
    _restore_flags(flags)
    _restore_precisions(precisions)
    _restore_attention(attention)


_SMALLEST, _ONE = [5e-324], [1.0]  # in lists, so that Python does not multiply beforehand


def _read_denormal() -> bool:
    """Whether the processor takes the smallest numbers for zero."""
    return _SMALLEST[0] * _ONE[0] == 0


TORCH = (
    Watched("the number of torch threads", torch.get_num_threads, torch.set_num_threads, _values),
    Watched("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, _values),
    Watched("torch's default device", torch.get_default_device, _restore_device, _values),
    Watched("torch's modes", _read_modes, _restore_modes),
    Watched("autocast", _read_autocast, _restore_autocast),
    Watched("grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled, _values),
    Watched("torch's flags of determinism and precision", _read_settings, _restore_settings),
    Watched(
        "torch's anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda before: torch.set_anomaly_enabled(*before),
    ),
    Watched("hooks on all modules", _read_hooks, _restore_hooks),
    Watched("flushing of denormal numbers", _read_denormal, torch.set_flush_denormal),
)


# -- Python and the system -------------------------------------------------------------------------

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGCHLD", "SIGPIPE")
    if hasattr(signal, name)
]
LIMITS = [
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
]


def _read_folder() -> str | None:
    with suppress(OSError):
        return os.getcwd()  # noqa: PTH109 (a text that can be compared)
    return None


def _restore_folder(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


def _restore_environment(before: dict[bytes, bytes]) -> None:
    for key in os.environb.keys() - before.keys():
        del os.environb[key]
    os.environb.update(before)


def _changed_variables(before: dict[bytes, bytes], now: dict[bytes, bytes]) -> str:
    decoded = [{os.fsdecode(k): v for k, v in some.items()} for some in (before, now)]
    return _keys(decoded[0], decoded[1])


def _restore_filters(before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _set_signal(number: int, handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def _read_umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


_locale = partial(locale.setlocale, locale.LC_ALL)  # what it is, where it is not told


def _read_collection() -> tuple[bool, tuple[int, int, int]]:
    return gc.isenabled(), gc.get_threshold()


def _restore_collection(before: tuple[bool, tuple[int, int, int]]) -> None:
    (gc.enable if before[0] else gc.disable)()
    gc.set_threshold(*before[1])


def _read_tracing() -> tuple[Any, Any]:
    return sys.gettrace(), sys.getprofile()


def _restore_tracing(before: tuple[Any, Any]) -> None:
    sys.settrace(before[0])
    sys.setprofile(before[1])


STREAMS = ("stdin", "stdout", "stderr")


_Stream = tuple[Any, bool, tuple[int, int] | None]
"""Standard input, output or error, as Python and as the system have it: the object, whether it is
closed, and which file is behind it."""


def _file(descriptor: int) -> tuple[int, int] | None:
    """Which file a descriptor stands for; None: it is closed."""
    with suppress(OSError):
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
    return None


def _read_streams() -> list[_Stream]:
    streams = [getattr(sys, name) for name in STREAMS]
    return [(one, bool(getattr(one, "closed", True)), _file(n)) for n, one in enumerate(streams)]


_spare: dict[int, int] = {}
"""Second descriptors of the standard streams, which outlive the first."""


def keep_streams() -> None:
    """See to it that the standard streams of now can be had again."""
    for number in range(3):
        here = _file(number)
        if here is not None and (number not in _spare or _file(_spare[number]) != here):
            if number in _spare:
                with suppress(OSError):
                    os.close(_spare[number])
            _spare[number] = os.dup(number)


def _restore_streams(before: list[_Stream]) -> None:
    for number, (_, _, was) in enumerate(before):
        if was is not None and _file(number) != was:
            if _file(_spare[number]) != was:
                raise OSError("its file is closed for good")
            os.dup2(_spare[number], number)
    for number, (item, closed, _) in enumerate(before):
        if not closed and getattr(item, "closed", False):
            mode = "r" if number == 0 else "w"
            item = open(  # noqa: SIM115 (it stays)
                number, mode, 1, encoding="utf-8", errors="backslashreplace", closefd=False
            )
        setattr(sys, STREAMS[number], item)


PYTHON = (
    Watched("the working folder", _read_folder, _restore_folder, _values),
    Watched(
        "the environment",
        lambda: dict(os.environ._data),  # type: ignore[attr-defined]
        _restore_environment,
        _changed_variables,
    ),
    Watched("standard input, output or error", _read_streams, _restore_streams),
    Watched("numpy's handling of errors", np.geterr, lambda before: np.seterr(**before), _keys),
    Watched("filters of warnings", lambda: list(warnings.filters), _restore_filters),
    Watched("handlers of signals", *_each(SIGNALS, signal.getsignal, _set_signal)),
    Watched("limits of the process", *_each(LIMITS, resource.getrlimit, resource.setrlimit)),
    Watched("the mask of new files", _read_umask, os.umask),
    Watched(
        "the priority of the process",
        partial(os.getpriority, os.PRIO_PROCESS, 0),
        partial(os.setpriority, os.PRIO_PROCESS, 0),
    ),
    Watched("the locale", _locale, _locale, _values),
    Watched("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, _values),
    Watched("garbage collection", _read_collection, _restore_collection),
    Watched("tracing or profiling", _read_tracing, _restore_tracing),
)
OF_IMPORTS = ("the environment", "filters of warnings", "handlers of signals", "the locale")
"""What importing a library may change: that is undone in silence."""

WATCHED: tuple[Watched, ...] = (*TORCH, *PYTHON)
