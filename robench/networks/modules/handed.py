"""A torch module that Python code hands over: copied, and known by what determines its answers."""

from __future__ import annotations

import copy
import inspect
import uuid
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import CellType
from typing import Any
from weakref import WeakKeyDictionary

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robench.digest import canonical, digest_bytes
from robench.errors import RobenchError
from robench.networks.modules.kept_state import tensors_in
from robench.networks.modules.spiking import freshened, library_of
from robench.networks.weights import apart, plain_state
from robench.plugin_code.reach import code_of
from robench.plugin_code.watched_weights import Original, bytes_of
from robench.workspace.plugins import Located

WRAPPERS = ("torch.nn.parallel", "torch._dynamo.eval_frame")
"""Where the classes are from that only run what they hold: DataParallel, compiled modules."""


def handed_over(module: nn.Module) -> tuple[Located, Located]:
    """A module that is in memory, as a factory and as weights.

    It is copied now and at every use, but for its weights, which stay where they are: they are not
    to be changed while it is in use. It is known by its weights, its attributes and the source of
    its code; robench.evaluate adds what it answers (answers.py). Code whose source cannot be read
    (a notebook's), and attributes that are no plain values, count as different in every session.
    What follows from the weights (tensors with a graph, such as a normalised weight or the last
    output) is copied as it is and does not count. Raises RobenchError for a module that cannot be
    copied, or has no weights yet.
    """
    module = _unwrapped(module)
    name = type(module).__name__
    _check_weights(module, name)
    try:
        kept = _copied(module, lend=True)
    except Exception as error:
        raise RobenchError(f"{name}: cannot be copied: {type(error).__name__}: {error}") from error
    freshened(kept)
    parts = [
        [where, _code(type(part)), {key: _described(item) for key, item in _attributes(part)}]
        for where, part in _parts(module, kept)
    ]
    text = f"{name}@{digest_bytes(canonical(parts).encode(), _tensors(kept))}"
    made = Kept(kept)
    return Located(text, made), Located(text, made.weights)


@dataclass(eq=False, repr=False)
class Kept:
    """A module that was handed over: makes copies of it.

    module: a copy that has the caller's own weights in it, not copies of them. stored: what these
    were found to be, as the weights of a network that has them, by where that is stored.
    """

    module: nn.Module
    stored: dict[Hashable, Mapping[str, Original]] = field(default_factory=dict)
    _seal: str = ""

    def __post_init__(self) -> None:
        self._seal = _sealed(self.module)

    def weights(self) -> dict[str, Tensor]:
        """What a model is made from that is known by them. Raises RobenchError where the caller's
        are others by now."""
        if _sealed(self.module) != self._seal:
            raise RobenchError(
                f"the weights of {type(self.module).__name__} have been changed since it was "
                "handed over"
            )
        return plain_state(self.module)

    def __call__(self) -> nn.Module:
        lent = _lending.get()
        if lent is not None:
            lent.append(self)
        return _copied(self.module, lend=lent is not None, seen=True)

    def put_back(self) -> None:
        """The caller has the weights that were handed over: a watch that an interruption has cut
        off has left them as they were then."""
        for originals in self.stored.values():
            for original in originals.values():
                original.put_back()

    @property
    def places(self) -> set[int]:
        """Where its weights lie in memory."""
        return {weight.data_ptr() for weight in self.module.parameters() if weight.numel()}

    def __getstate__(self) -> dict[str, Any]:
        """In another process nothing is known yet."""
        return {**vars(self), "stored": {}}


def _parts(module: nn.Module, kept: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a module by name: spiking neurons from its copy, which remembers nothing, all
    others as they are, since who has been seen before is known again."""
    copies = kept.named_modules(remove_duplicate=False)
    for (where, part), (_, copied) in zip(
        module.named_modules(remove_duplicate=False), copies, strict=True
    ):
        yield where, part if library_of(part) is None else copied


def _unwrapped(module: nn.Module) -> nn.Module:
    """What a wrapper runs."""
    while type(module).__module__.startswith(WRAPPERS):
        inner = getattr(module, "module", None) or getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        module = inner
    return module


def _check_weights(module: nn.Module, name: str) -> None:
    for where, value in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(value):
            raise RobenchError(
                f"{name}: {where} is lazy and has no values yet: call the module once on an image"
            )
        if value.is_meta:
            raise RobenchError(f"{name}: {where} is on the meta device: load its weights first")
        if "sparse" in str(value.layout):
            raise RobenchError(f"{name}: {where} is sparse: hold it as {where}.to_dense()")


_lending: ContextVar[list[Kept] | None] = ContextVar("_lending", default=None)


@contextmanager
def weights_lent() -> Iterator[list[Kept]]:
    """Modules that are made inside the block hold the weights of what was handed over, not copies
    of them: they take next to no memory and time. Yields whose weights those are.

    Whoever makes them writes into no weight, and watches that nobody does (watched_weights.py);
    buffers and all else are copied.
    """
    lent: list[Kept] = []
    token = _lending.set(lent)
    try:
        yield lent
    finally:
        _lending.reset(token)


def _copied(module: nn.Module, lend: bool = False, seen: bool = False) -> nn.Module:
    """A deep copy. torch copies no tensor that has a graph; those are copied without.

    Args:
        lend: whether it holds the same weights.
        seen: whether it is known that nothing has a graph.
    """
    memo: dict[int, Any] = {}
    for weight in module.parameters() if lend else ():
        if type(weight) is nn.Parameter and _may_be_lent(weight):
            memo[id(weight)] = nn.Parameter(weight.data, weight.requires_grad)
    for part in module.modules():
        for item in vars(part).values():  # hooks that nobody set are most of what there is to copy
            if type(item) is OrderedDict and not item:
                memo[id(item)] = OrderedDict()
        # Buffers too: a neuron's potential, for example.
        for value in () if seen else tensors_in([*vars(part).values(), dict(part._buffers)]):
            if value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    with torch.no_grad():  # else a script's weights would have a graph in their copy
        return copy.deepcopy(module, memo)


def _may_be_lent(weight: Tensor) -> bool:
    """Not what has no gradients, nor memory that other processes write into, which no watch of
    this one sees."""
    shared = not weight.is_cuda and weight.untyped_storage().is_shared()
    return not (shared or weight.is_inference())


def _sealed(module: nn.Module) -> str:
    """A digest of the weights that may be the caller's own, one by one: few are copied at once."""
    each = [digest_bytes(bytes_of(_plain(weight))) for weight in module.parameters()]
    return digest_bytes(*(one.encode() for one in each))


def _tensors(module: nn.Module) -> bytes:
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return (
        safetensors.torch.save(apart({name: _plain(value) for name, value in named.items()}))
        + canonical(_beside(module)).encode()
    )


def _beside(module: nn.Module) -> dict[str, Any]:
    """What a state_dict() holds beside plain tensors: extra state, quantised weights."""
    plain = plain_state(module)
    state = module.state_dict()
    return {name: _described(state[name]) for name in state if name not in plain}


def _plain(value: Tensor) -> Tensor:
    """As numbers that a file holds: complex ones as pairs."""
    value = value.detach()
    if value.is_quantized:
        value = value.dequantize()
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    return value


def _attributes(part: nn.Module) -> list[tuple[str, Any]]:
    """What a module holds beside its weights and parts; `training` is off in use."""
    known = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
    return sorted(
        # Hooks lie under numbers that say only how many there were before.
        (key, [*item.values()] if key.endswith("_hooks") and isinstance(item, Mapping) else item)
        for key, item in vars(part).items()
        if key not in known
    )


def _described(value: Any) -> Any:
    """A plain value that says what `value` is; unlike any other where that cannot be said."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(canonical(_described(item)) for item in value)
    if isinstance(value, Tensor) and value.grad_fn is not None:
        return "follows from the weights"
    if isinstance(value, Tensor):
        return digest_bytes(safetensors.torch.save(apart({"value": _plain(value)})))
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return _code(value)
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "__dict__"):
        said = {key: _described(item) for key, item in vars(value).items()}  # a hook of torch's own
        return [_code(type(value)), said]
    return _unknown(value)


def _code(thing: Any) -> str:
    """Name of a class or function, with the sources of the files that it and its bases lie in;
    torch's count by name, as versions of libraries are no part of an identity."""
    texts = []
    for item in thing.__mro__ if inspect.isclass(thing) else (thing,):
        name = f"{item.__module__}.{item.__qualname__}"
        if name.partition(".")[0] not in ("torch", "builtins"):
            try:
                file = inspect.getsourcefile(item)
            except (TypeError, OSError):
                file = None
            if file is not None and Path(file).is_file():
                name += f"@{code_of(Path(file), Path(file).parent).digest}"
            else:
                name += f"@{_unknown(item)}"
        texts.append(name)
        if id(item) not in _WALKING:  # a function may close over itself
            _WALKING.add(id(item))
            try:
                for held in ("__closure__", "__defaults__", "__kwdefaults__"):
                    if getattr(item, held, None):
                        texts.append(canonical(_described(_contents(getattr(item, held)))))
            finally:
                _WALKING.discard(id(item))
    return " ".join(texts)


def _contents(held: Any) -> Any:
    """What a function closes over, or its defaults."""
    if not isinstance(held, tuple):
        return held
    cells = [item for item in held if isinstance(item, CellType)]
    return [cell.cell_contents for cell in cells if cell != CellType()] if cells else held


_WALKING: set[int] = set()
"""Functions that are being described."""
_SEEN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _unknown(thing: Any) -> str:
    """A text of its own for a thing that only this session knows."""
    try:
        return _SEEN.setdefault(thing, uuid.uuid4().hex)
    except TypeError:  # neither hashed nor weakly referenced
        return uuid.uuid4().hex
