"""What a whole `robench.evaluate` of a network of timm takes, beside bare passes: in a process of
its own, since it is the most that a process ever had that counts.

    python tests/benchmarks/whole_evaluation.py bare|evaluate MODEL SIDE IMAGES [W.pt] [ATTACK ..]

prints JSON. Needs CIFAR-10 under ROBENCH_DATA where SIDE is 32; else pictures are random. `bare`
has what anybody needs: torch, timm, the data set, the network, and one forward and backward pass of
all images. `evaluate` also says what its own passes take alone: those that it has asked for, of as
many rows each, again in the same process, some each time that so many have come together, so that
whatever else the machine does slows down both alike; and what the first look at its numbers takes,
for which pandas and scipy are imported.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from timm_here import timm_or_skip

CLASSES = 10
TOGETHER = 50
"""Passes that are made again at once: few, so that both sides meet the same machine, but not one by
one, which would have the network's weights at hand for the next."""


def network(model: str, weights: str = "") -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm_or_skip().create_model(model, num_classes=CLASSES)
    if weights:
        made.load_state_dict(torch.load(weights, weights_only=True))
    return made.eval().requires_grad_(False)


def given(side: int, images: int) -> tuple[Tensor, Any]:
    """The images, and what stays in memory with them."""
    if side != 32:
        return torch.rand(images, 3, side, side, generator=torch.Generator().manual_seed(0)), None
    from robench.data.cifar import CIFAR10

    held = CIFAR10().load()
    return torch.from_numpy(held.test.at(slice(images))), held


def passes(module: nn.Module, x: Tensor, graph: bool) -> None:
    if not graph:
        with torch.no_grad():
            module(x)
        return
    leaf = x.detach().requires_grad_()
    labels = torch.zeros(len(x), dtype=torch.long)
    with torch.enable_grad():
        torch.autograd.grad(F.cross_entropy(module(leaf), labels, reduction="sum"), leaf)


def bare(model: str, side: int, images: int, weights: str) -> dict[str, Any]:
    x, held = given(side, images)
    module = network(model, weights)
    before, started = status("VmRSS"), time.process_time()
    passes(module, x, True)
    del held
    return {
        "MiB": status("VmHWM"),
        "added": status("VmHWM") - before,
        "seconds": time.process_time() - started,
    }


def evaluate(
    model: str, side: int, images: int, weights: str, attacks: list[str]
) -> dict[str, Any]:
    import robench
    from robench.networks.modules.module import Module
    from robench.plugin_code.freed_memory import give_back

    module = network(model, weights)
    asked: list[tuple[int, bool]] = []
    answer = Module._asked
    pixels = torch.rand(2 * images, 3, side, side)
    taken = {"bare": 0.0, "aside": 0.0}

    def made_again() -> None:
        before = time.process_time()
        give_back()  # so that what is freed does not add to what the process has at once
        started = time.process_time()
        for rows, graph in asked[-(len(asked) % TOGETHER or TOGETHER) :]:
            assert rows <= len(pixels)
            passes(module, pixels[:rows], graph)
        taken["bare"] += time.process_time() - started
        give_back()
        taken["aside"] += time.process_time() - before

    def noted(self: Module, x: Tensor, look: Any) -> Tensor:
        asked.append((len(x), torch.is_grad_enabled() and x.requires_grad))
        if len(asked) % TOGETHER == 0:
            made_again()
        return answer(self, x, look)

    dataset: Any = "cifar10"
    if side != 32:
        x, _ = given(side, images)
        dataset = (x, network(model, weights)(x).argmax(1))
    Module._asked = noted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as store:
        started = time.process_time()
        found = robench.evaluate(
            module, dataset, attacks=attacks, eps=(8 if side == 32 else 4) / 255, images=images,
            store=store, progress=False, jobs=0,
        )  # fmt: skip
        seconds, most = time.process_time() - started - taken["aside"], status("VmHWM")
        started = time.process_time()
        worst = found.worst_case
        looked = time.process_time() - started
    if len(asked) % TOGETHER:
        made_again()
    return {
        "MiB": most,
        "seconds": seconds,
        "looked": looked,
        "bare": taken["bare"],
        "passes": len(asked),
        "rows": sum(rows for rows, _ in asked),
        "at once": max(rows for rows, _ in asked),
        "at once with a graph": max(rows for rows, graph in asked if graph),
        "worst": worst,
        "cells": len(found.results.manifest["cells"]),
    }


def status(key: str) -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, model, side, images, *more = sys.argv[1:]
    weights = more.pop(0) if more and more[0].endswith(".pt") else ""
    ways = (model, int(side), int(images), weights)
    print(json.dumps(bare(*ways) if what == "bare" else evaluate(*ways, more)))
