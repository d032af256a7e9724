"""Networks as their models have them: fresh, trained, with the noise levels of another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import safetensors.torch

from robench.data.loading import load_splits
from robench.digest import derived_seed
from robench.errors import RobenchError
from robench.make.identity import make_network
from robench.networks.base import Network
from robench.networks.modules.handed import Kept, weights_lent
from robench.networks.noise import NoisyLayer
from robench.networks.torch_state import torch_seeded
from robench.networks.weights import holds, load_state, originals_in, tensors_in
from robench.store.store import Damaged, Store, file_of
from robench.workspace import plugins
from robench.workspace.cards import ModelCard
from robench.workspace.plan import Training

Read = TypeVar("Read")

KEPT = 2**28
"""Bytes of trained networks that a process keeps, the last used ones: cells that share an input
come one after the other, each with another network."""
_kept: OrderedDict[tuple[Training, str, str, str, str], tuple[Network, int]] = OrderedDict()


def fresh_network(card: ModelCard, seed: int) -> Network:
    """An untrained network; torch's global generator is left as it was found."""
    splits = load_splits(card)
    with torch_seeded(derived_seed("network", seed)):
        return make_network(card, splits)


def take_sigmas(network: Network, store: Store, model: str, card: ModelCard) -> None:
    """Give the noisy layers the sigmas of a stored model, layer by layer.

    Raises RobenchError where the layers are others, or learn their sigmas themselves.
    """
    said = f"{card.file}: sigma_of = {card.sigma_of!r}"
    state = safetensors.torch.load(there(store.read_model, model)[0])
    layers = {n: m for n, m in network.named_modules() if isinstance(m, NoisyLayer)}
    theirs = sorted(name for name in state if name.endswith(".sigma"))
    if theirs != sorted(f"{name}.sigma" for name in layers):
        raise RobenchError(f"{said}: has other noisy layers: {', '.join(theirs) or 'none'}")
    for name, layer in layers.items():
        sigma = state[f"{name}.sigma"]
        if layer.sigma.requires_grad:
            raise RobenchError(
                f"{said}: its levels are held fixed, but this network learns its own; put "
                "learned_sigma = false into network"
            )
        if sigma.shape != layer.sigma.shape:
            raise RobenchError(
                f"{said}: {name} has sigmas of shape {tuple(sigma.shape)} there and of "
                f"{tuple(layer.sigma.shape)} here"
            )
        layer.sigma.copy_(sigma)


def trained_network(
    training: Training, model: str, weights: str, store: str, device: str
) -> Network:
    """The network with its stored weights. Raises store.Damaged when they are not what they
    were."""
    return Copies(training, model, weights, store, device)()


@dataclass
class Copies:
    """Makes copies of a stored network that nobody has asked anything yet, for one cell. A network
    of robench's own, which remembers nothing, is one for all, and for other cells, too.

    Copies of a module that was handed over share its weights, once these are found to be the stored
    ones: dozens of them take no more memory than one.
    """

    training: Training
    model: str
    weights: str
    store: str
    device: str
    _first: Network | None = None
    """The first of those that share their weights."""

    def __call__(self) -> Network:
        """A copy. Raises store.Damaged when the stored weights are not what they were."""
        if self._first is not None:
            with weights_lent():
                network = self._made()
            network.to(self.device).eval()
            network.known_from(self._first)
            return network
        key = (self.training, self.model, self.weights, self.store, self.device)
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][0]
        with weights_lent() as lent:
            network = self._made()
        handed = lent[-1] if lent else None
        if handed is not None and self._known_to_be_stored(handed, network):
            self._first = network.to(self.device).eval()
            return network
        store = Store(self.store)
        payload, metadata = there(store.read_model, self.model)
        if metadata["tensors"] != self.weights:
            raise Damaged(
                f"{self.training.label}: its weights in {self.store} are not those of a moment ago"
            )
        state = tensors_in(payload)
        if handed is not None and holds(network, state):
            self._first = network
            if store.files.local and self.device == "cpu":
                path = store.files.path(file_of("models", self.model))
                network.originals = originals_in(path, payload, network, handed.places)
                handed.stored[self._stored] = network.originals
        else:
            network = self._made() if lent else network
            load_state(network, state)
        network.to(self.device).eval()
        if plugins.own("networks", self.training.card.network):
            _kept[key] = network, len(payload)
            while len(_kept) > 1 and sum(size for _, size in _kept.values()) > KEPT:
                _kept.popitem(last=False)
        return network  # what another remembers of one cell would be there in the next

    @property
    def _stored(self) -> tuple[str, ...]:
        return self.model, self.weights, self.store, self.device

    def _known_to_be_stored(self, handed: Kept, network: Network) -> bool:
        """Whether the weights that a network holds were found to be the stored ones before, and are
        what they were; it gets the originals then."""
        network.originals = handed.stored.get(self._stored, {})
        weights = dict(network.named_parameters(remove_duplicate=False))
        return bool(network.originals) and all(
            original.is_in_file(weights[name]) for name, original in network.originals.items()
        )

    def _made(self) -> Network:
        return fresh_network(self.training.card, self.training.seed)


def forget(network: Network) -> None:
    """Keep a network no longer."""
    for key, (kept, _) in list(_kept.items()):
        if kept is network:
            del _kept[key]


def there(read: Callable[[str], Read], name: str) -> Read:
    """What the store held when this task was made. Raises store.Damaged when it does not any
    more, such as when another task has set it aside: then it is made again."""
    try:
        return read(name)
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename or name}: is gone") from None
