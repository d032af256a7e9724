"""The trainer contract, and the training loop that every trainer shares."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench.data.base import Part, Splits
from robench.data.sample import stratified
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.memory import in_pieces, whole
from robench.networks.noise import InUse, noise, noise_in_use, noisy_layers
from robench.networks.replay import Replays, places
from robench.trainers.images import images_of
from robench.workspace.plugins import Plugin

STAIRS = r"^stairs:(0\.\d{1,6}|1):[1-9]\d{0,5}$"

History = list[dict[str, float]]
"""Training curves: one row per epoch."""

Progress = Callable[[float, str], None]
"""Told the share that is done, in [0, 1], and a few words."""


class Trainer(Plugin):
    """Turns a fresh network and training data into a trained one.

    The smallest trainer overrides `loss`. One that has no loss to differentiate overrides
    `gradient` (the likelihood-ratio family does), one with a loop of its own overrides `fit`. The
    base class owns the rest: device, shuffling, epochs, schedule, validation, progress, early stop.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=100, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] | Annotated[str, Field(pattern=STAIRS)] = "constant"
    """cosine: the learning rate falls to 0 over the run, step by step; stairs:0.8:10: it is
    multiplied by 0.8 every 10 epochs."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation accuracy; None: never."""
    mean_of_rows: ClassVar[bool] = False
    """Whether `loss` is a mean over rows none of which depends on the others or on `rng`: then a
    batch that does not fit into memory is added up from pieces. Not inherited."""
    recordable: ClassVar[bool] = False
    """Whether a GPU may replay a recorded `gradient` (replay.py): from one `start_epoch` to the
    next it does the same whatever the batch, decides nothing by a tensor's values, copies nothing
    to or from the host, and draws from `rng` alone. Not inherited."""
    trains: ClassVar[bool] = True
    """Whether the seed matters: false where weights were made elsewhere."""
    noisy: ClassVar[bool] = False
    """Whether the noise of the noisy layers is on while it trains."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.scratch: Path | None = None
        """A folder for what a stopped training is to find again; None: there is none."""
        self.noise_in_use: InUse = False
        """What noise the card leaves on when the model is used."""

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """The loss to minimise, a scalar. x: (n, c, h, w) in [0, 1]; y: (n,) class indices."""
        raise NotImplementedError(f"{type(self).__name__} defines neither loss, gradient nor fit")

    def gradient(
        self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> float | Tensor:
        """Leave the gradient of one batch in the parameters' .grad; return the loss, a number or a
        detached scalar."""
        loss = self.loss(network, x, y, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def may_replay(self, network: Network) -> bool:
        """Whether a GPU may replay recorded gradients of this network as things stand."""
        return bool(vars(type(self)).get("recordable", False)) and network.replays

    def _gradient(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        rng: torch.Generator,
        recorded: Callable[[Tensor, Tensor], float] | None = None,
        together: str = "",
    ) -> float:
        """`gradient`, added up from pieces where the batch does not fit into memory.

        Args:
            together: why there can be no pieces; empty: there can.
        """

        def of_piece(some: Tensor, labels: Tensor) -> float:
            if len(labels) == len(y):
                return recorded(x, y) if recorded else float(self.gradient(network, x, y, rng))
            loss = self.loss(network, some, labels, rng) * (len(labels) / len(y))
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        key = f"trainer.batch_size (now {self.batch_size})"
        return sum(
            in_pieces(
                network, of_piece, x, y, together=together, key=key, start_anew=network.zero_grad
            )
        )

    def _together(self, network: Network) -> str:
        """Why the rows of a batch cannot be learned from in pieces; empty: they can."""
        if not vars(type(self)).get("mean_of_rows", False):  # a subclass says so for itself
            return "this trainer needs them together"
        layers = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
        if network.random_now or any(isinstance(module, layers) for module in network.modules()):
            return "the network learns from them together"
        return ""

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        """What the optimiser gets: groups may carry their own learning rate."""
        return [{"params": [p for p in network.parameters() if p.requires_grad]}]

    def start_epoch(self, network: Network, epoch: int) -> bool:
        """Called before each epoch, counted from 0; True asks for a fresh optimiser state."""
        return False

    def after_step(self, network: Network) -> None:
        """Called after each optimiser step: projections and clamps go here."""

    def measure(self, network: Network, data: Splits) -> dict[str, float]:
        """What else a row of the training curves holds, asked after each epoch. Curves of one
        quantity are named `what/...`; those the page leaves to plots of their own."""
        return {}

    def make_optimizer(self, network: Network) -> torch.optim.Optimizer:
        groups = self.parameter_groups(network)
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        return torch.optim.Adam(groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def fit(
        self, network: Network, data: Splits, rng: torch.Generator, progress: Progress
    ) -> History:
        """Train in place and return the curves.

        Raises RobenchError when the loss stops being a finite number.
        """
        device = rng.device
        memory = memory_now(device)
        network.generator = rng
        x, y = images_of(data.train, device), torch.from_numpy(data.train.labels).to(device)
        optimizer = self.make_optimizer(network)
        steps_per_epoch = math.ceil(len(y) / self.batch_size)
        history: History = []
        asked, kept = self._asked(data)
        best, since_best = -1.0, 0
        for epoch in range(self.epochs):
            started = time.perf_counter()
            if self.start_epoch(network, epoch):
                optimizer = self.make_optimizer(network)
            base_rates = [
                group.setdefault("base_lr", group["lr"]) for group in optimizer.param_groups
            ]
            order = torch.randperm(len(y), generator=rng, device=device)
            weights = [w for group in optimizer.param_groups for w in group["params"]]
            network.train()
            # Another epoch may do something else.
            may = device.type == "cuda" and self.may_replay(network)
            recorded = _Recorded(self, network, rng) if may else None
            together = self._together(network)
            total = 0.0
            for step in range(steps_per_epoch):
                done = (epoch + step / steps_per_epoch) / self.epochs
                if self.schedule != "constant":
                    share = self._share_of_rate(epoch, done)
                    for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                        group["lr"] = rate * share
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                for weight in weights:  # zero_grad, without what it does around this
                    weight.grad = None
                images, labels = x.index_select(0, batch), y.index_select(0, batch)
                try:
                    loss = self._gradient(network, images, labels, rng, recorded, together)
                except Exception as error:
                    error.add_note(f"epoch {epoch + 1}, step {step + 1}")
                    raise
                if not math.isfinite(loss):
                    raise RobenchError(
                        f"training diverged: loss is {loss} in epoch {epoch + 1}, step {step + 1}; "
                        f"lower trainer.lr (now {self.lr})"
                    )
                optimizer.step()
                self.after_step(network)
                total += loss * len(batch)
                progress(done, f"epoch {epoch + 1}/{self.epochs} loss {loss:.3f}")
            accuracy = self.validate_accuracy(network, asked, rng)
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": total / len(y),
                    kept: accuracy,
                    **_sigma(network),
                    **_two_weights(network),
                    **self.measure(network, data),
                    "seconds": time.perf_counter() - started,
                    **added_memory(device, memory),
                }
            )
            since_best = 0 if accuracy > best else since_best + 1
            best = max(best, accuracy)
            if self.patience is not None and since_best >= self.patience:
                break
        network.generator = None
        history[-1] |= self.final_noise(network)
        return history

    def _share_of_rate(self, epoch: int, done: float) -> float:
        """What the learning rate is multiplied with. done: share of the run."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        _, factor, every = self.schedule.split(":")
        return float(factor) ** (epoch // int(every))

    def _asked(self, data: Splits) -> tuple[Part, str]:
        """Up to 2,000 images, drawn by class, whose accuracy is measured after every epoch, and
        what it is called: training images where the split holds none for validation."""
        part, kept = data.validation, "validation_accuracy"
        if not len(part):
            part, kept = data.train, "training_accuracy"
        chosen = stratified(part.labels)[:2000]
        return part.some(chosen), kept

    def validate_accuracy(self, network: Network, asked: Part, rng: torch.Generator) -> float:
        """Accuracy on these images, with noise where the model is used with it (one draw, the same
        after every epoch)."""
        x, y = images_of(asked, rng.device), torch.from_numpy(asked.labels).to(rng.device)
        network.eval()
        network.generator = torch.Generator(rng.device).manual_seed(0)
        source = noise_in_use(self.noise_in_use, torch.Generator(rng.device).manual_seed(1))
        with torch.no_grad(), noise(network, source):
            hits = 0
            for start in range(0, len(y), 500):
                said = whole(network, x[start : start + 500]).argmax(1)
                hits += int((said == y[start : start + 500]).sum())
        network.generator = rng
        return hits / len(y)

    def final_noise(self, network: Network) -> dict[str, float]:
        """Of every noisy layer whose noise was on in training: `sigma/LAYER`, the mean of its
        sigmas; `sigma spread/LAYER`, their standard deviation; `sigma clamped/LAYER`, the share of
        learned ones that end at the clamp, where there is one."""
        if not self.noisy:
            return {}
        curves: dict[str, float] = {}
        clamp: tuple[float, float] | None = getattr(self, "sigma_range", None)
        for index, layer in enumerate(noisy_layers(network), start=1):
            sigma = layer.sigma.detach()
            curves[f"sigma/{index}"] = float(sigma.mean())
            curves[f"sigma spread/{index}"] = float(sigma.std(correction=0))
            if clamp is not None and layer.sigma.requires_grad:
                at = sum((sigma - bound).abs() < 1e-6 * bound for bound in clamp)
                curves[f"sigma clamped/{index}"] = float(torch.as_tensor(at).float().mean())
        return curves


class _Recorded:
    """The gradient of a trainer within an epoch, replayed once it has been asked for a few
    times."""

    def __init__(self, trainer: Trainer, network: Network, rng: torch.Generator) -> None:
        self._trainer, self._network, self._rng = trainer, network, rng
        self._places = places(network)
        self._replays = Replays([rng])
        self._learning: list[Tensor] = []

    def __call__(self, x: Tensor, y: Tensor) -> float:
        if (here := places(self._network)) != self._places:  # a recording reads what was there
            self._places, self._replays = here, Replays([self._rng])
        loss, *gradients = self._replays("gradient", self._ask, x, y)
        for weight, grad in zip(self._learning, gradients, strict=True):
            weight.grad = grad
        return float(loss)

    def _ask(self, x: Tensor, y: Tensor) -> list[Tensor]:
        weights = list(self._network.parameters())
        for weight in weights:
            weight.grad = None
        loss = self._trainer.gradient(self._network, x, y, self._rng)
        self._learning = [weight for weight in weights if weight.grad is not None]
        gradients = [weight.grad for weight in self._learning if weight.grad is not None]
        return [torch.as_tensor(loss), *gradients]


def to_device(part: Part, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy; what `bp` and most defenses minimise."""
    return F.cross_entropy(logits, y)


def _sigma(network: nn.Module) -> dict[str, float]:
    """Mean sigma per noisy layer, where sigma is learned."""
    return {
        f"sigma_{index}": float(layer.sigma.detach().mean())
        for index, layer in enumerate(noisy_layers(network), start=1)
        if layer.sigma.requires_grad
    }


def _two_weights(network: nn.Module) -> dict[str, float]:
    """The weights themselves, where there are just two: the path of the optimiser in the plane."""
    weights = [p.detach().flatten() for p in network.parameters() if p.requires_grad]
    if sum(map(len, weights)) != 2:
        return {}
    first, second = torch.cat(weights).tolist()
    return {"weight/1": first, "weight/2": second}


def memory_now(device: torch.device) -> float | None:
    """MiB in use, from which the peak counts afresh: of the device on CUDA, resident memory of the
    process on a CPU; None where a system cannot forget a peak (only Linux can, and not in every
    container)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize() / 2**20


def added_memory(device: torch.device, start: float | None) -> dict[str, float]:
    """`added_memory_mb`: the highest memory since `memory_now` gave `start`, less what was in use
    then (MiB, at least 0); nothing where `start` is None."""
    if start is None:
        return {}
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB
    return {"added_memory_mb": max(0.0, peak - start)}
