"""Backpropagation with another function in place of an activation's derivative (BF paper, Eq. 3):
"Function changes in the backpropagation equation is equivalent to an implicit learning rate".

The forward pass is untouched. In the backward pass the error that reaches an activation is
multiplied by g(z) and not by sigma'(z), z being the activation's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from robench.data.base import Splits
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.derivatives import OWN, BFunction, parse
from robench.networks.mlp import Abs
from robench.networks.noise import noisy_layers
from robench.networks.surrogate import Step
from robench.trainers.base import Trainer, cross_entropy

ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.GELU, Abs, Step)


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, out: Tensor, g: BFunction) -> Tensor:
        ctx.save_for_backward(z)
        ctx.g = g
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return grad * ctx.g(torch, z), None, None


@contextmanager
def replaced(network: Network, functions: Sequence[BFunction | None]) -> Iterator[None]:
    """Let activations have these derivatives inside the block, in the order in which a pass applies
    them; one function is for all. None: the activation's own.

    Raises RobenchError when a pass applies another number of activations.
    """
    calls = 0

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal calls
        calls = 0

    def activate(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        g = functions[0] if len(functions) == 1 else functions[min(calls, len(functions)) - 1]
        if g is None:
            return out
        answer: Tensor = _Replaced.apply(inputs[0], out.detach(), g)  # type: ignore[no-untyped-call]
        return answer

    def end(module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        if calls == 0 or len(functions) not in (1, calls):
            raise RobenchError(
                f"trainer.functions: {len(functions)} given, but network "
                f"{type(network).__name__} applies {calls} activations in a pass; name one for "
                "all, or one for each"
            )

    with ExitStack() as hooks:
        hooks.enter_context(network.register_forward_pre_hook(begin))
        hooks.enter_context(network.register_forward_hook(end))
        for module in network.modules():
            if isinstance(module, ACTIVATIONS):
                hooks.enter_context(module.register_forward_hook(activate))
        yield


def _named(text: str) -> str:
    return text if text == OWN else str(parse(text))


class BFunctionTrainer(Trainer):
    """Backpropagation with replaced derivatives of the activations."""

    functions: tuple[Annotated[str, AfterValidator(_named)], ...] = Field(
        default=("sigmoid",), min_length=1
    )
    """g for all activations, or one for each in the order of a pass: relu, leaky-relu, sigmoid,
    tanh, elu, softplus, gaussian, arctan, rectangle, constant or network, with `:parameter`; own:
    the activation's own derivative."""
    learns: tuple[int, ...] = ()
    """The layers that learn, counted from 1; none named: all."""
    trajectory: bool = False
    """Whether the weights that learn are kept with the training curves (at most 64 of them)."""
    optimizer: Literal["adam", "sgd", "adadelta"] = "adam"  # type: ignore[assignment]

    def make_optimizer(self, network: Network) -> torch.optim.Optimizer:
        if self.optimizer == "adadelta":
            groups = self.parameter_groups(network)
            return torch.optim.Adadelta(groups, lr=self.lr, weight_decay=self.weight_decay)
        return super().make_optimizer(network)

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        return [{"params": self._learning(network)}]

    def _learning(self, network: Network) -> list[nn.Parameter]:
        layers = noisy_layers(network)
        if not self.learns:
            return [p for p in network.parameters() if p.requires_grad]
        if not set(self.learns) <= set(range(1, len(layers) + 1)):
            raise RobenchError(
                f"trainer.learns = {list(self.learns)}: the layers of network "
                f"{type(network).__name__} are counted from 1 to {len(layers)}"
            )
        return [p for place in self.learns for p in layers[place - 1].op.parameters()]

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        functions = [None if name == OWN else parse(name) for name in self.functions]
        with replaced(network, functions):
            return cross_entropy(network(x), y)

    def measure(self, network: Network, data: Splits) -> dict[str, float]:
        """`weight/PLACE` of every weight that learns, where the card asks for the trajectory."""
        if not self.trajectory:
            return {}
        weights = torch.cat([p.detach().flatten() for p in self._learning(network)])
        if len(weights) > 64:
            raise RobenchError(
                f"trainer.trajectory: {len(weights)} weights learn, 64 can be followed; name "
                "layers in trainer.learns"
            )
        return {f"weight/{place}": float(value) for place, value in enumerate(weights)}
