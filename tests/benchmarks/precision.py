"""What gradients in bfloat16, weights in channels_last and torch.compile save, on one core.

    python tests/benchmarks/precision.py resnet18 32 50
    python tests/benchmarks/precision.py resnet50 224 8 [--compile]

A network of timm by its name, the side of its images and how many there are. Processor seconds of
one forward and backward pass to the images, each way as a share of float32; then PGD (10 steps,
eps 4/255) by robench in both precisions, with what each left standing of the images. Weights are
random: what the passes cost does not depend on them, how many images stand does.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from timm_here import timm_or_skip

from robench.attacks.ball import Ball
from robench.attacks.contest import Best
from robench.attacks.gradient import PGD
from robench.attacks.target import WhiteBoxTarget
from robench.networks.modules.module import Module
from robench.workspace.plugins import Located

torch.set_num_threads(1)
EPS = 4 / 255


def gradient(network: nn.Module, x: Tensor, y: Tensor, rounded: bool = False) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded, cache_enabled=False):
        logits = network(leaf)
    (grad,) = torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), leaf)
    return grad


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The least processor time of a few, after one that does not count."""
    work()
    took = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return min(took)


def main(name: str, side: int, images: int, compiled: bool) -> None:
    torch.manual_seed(0)
    network = timm_or_skip().create_model(name, num_classes=10).eval().requires_grad_(False)
    x = torch.rand(images, 3, side, side)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    y = network(x).argmax(1)
    plain = seconds(lambda: gradient(network, x, y))
    print(f"{name}, {images} images of {side} x {side}: one gradient in float32 {plain:.3f} s")
    ways: dict[str, Callable[[], Any]] = {
        "bfloat16": lambda: gradient(network, x, y, rounded=True),
        "channels_last": lambda: gradient(last, x, y),
        "bfloat16, channels_last": lambda: gradient(last, x, y, rounded=True),
    }
    if compiled:
        made = torch.compile(network)
        started = time.process_time()
        gradient(made, x, y)
        print(f"  torch.compile: {time.process_time() - started:.0f} s before the first answer")
        ways["torch.compile"] = lambda: gradient(made, x, y)
    for way, work in ways.items():
        print(f"  {way:24} {seconds(work) / plain:.2f}")

    held = Module(
        factory=Located("given", lambda: network), input_shape=(3, side, side), classes=10
    ).eval()
    for precision in ("float32", "bfloat16"):
        target, best = WhiteBoxTarget(held, Ball("linf", EPS), images), Best(x)
        attack = PGD(steps=10, precision=precision)
        started = time.process_time()
        attack.improve(best, target, x, y, torch.Generator().manual_seed(0), alone=False)
        took = time.process_time() - started
        stand = int((held(best.images).argmax(1) == y).sum())
        print(f"  PGD in {precision}: {took:.2f} s, {stand} of {images} images stand")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "--compile" in sys.argv)
