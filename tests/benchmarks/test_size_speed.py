"""At the size people work at: `standard`, and all of `robench.evaluate`, on a ResNet-18 of timm
beside bare passes and beside AutoAttack's code; PGD, APGD and Square on a ResNet-50 and a ViT-S at
224 x 224; and corruptions of such pictures beside imagecorruptions.

    pytest tests/benchmarks/test_size_speed.py -o addopts= -s

Needs CIFAR-10 under ROBENCH_DATA and timm. Each side of the former runs in a fresh process. Bare
passes are those that the attack has asked for, of as many rows each, and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from timm_here import timm_or_skip

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, PGD
from robench.attacks.libraries.autoattack import AutoAttack
from robench.attacks.square import Square
from robench.attacks.standard import Standard
from robench.attacks.target import WhiteBoxTarget
from robench.corruptions.imagenet_c import compat as imagecorruptions_compat
from robench.corruptions.imagenet_c import fast as imagecorruptions_fast
from robench.corruptions.imagenet_c.compat import COMMON
from robench.data.cifar import CIFAR10
from robench.networks.modules.module import Module
from robench.workspace.plugins import Located

torch.set_num_threads(1)
IMAGES, FEW, EPS = 50, 4, 8 / 255
MADE = {"fast": imagecorruptions_fast, "packaged": imagecorruptions_compat}
AT_224: dict[str, Attack] = {"PGD": PGD(), "APGD": APGD(steps=10), "Square": Square(queries=40)}
Weights = dict[str, Tensor]
Tabled = Callable[..., None]


def resnet() -> nn.Module:
    made: nn.Module = timm_or_skip().create_model("resnet18", num_classes=10)
    return made


def trained() -> Weights:
    """Two epochs of FGSM from random starts on 5,000 images: enough for the attack to have work."""
    data = CIFAR10().load()
    x, y = torch.from_numpy(data.train.at(slice(5000))), torch.from_numpy(data.train.labels[:5000])
    torch.manual_seed(0)
    network = resnet()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for order in (torch.randperm(len(x)) for _ in range(2)):
        for rows in order.split(100):
            shift = torch.empty_like(x[rows]).uniform_(-EPS, EPS).requires_grad_()
            F.cross_entropy(network(x[rows] + shift), y[rows]).backward()
            assert shift.grad is not None
            near = (shift.detach() + 1.25 * EPS * shift.grad.sign()).clamp(-EPS, EPS)
            optimizer.zero_grad()
            F.cross_entropy(network((x[rows] + near).clamp(0, 1)), y[rows]).backward()
            optimizer.step()
    return network.state_dict()


def side(name: str, weights: Weights) -> dict[str, Any]:
    """What one side takes of `standard` on a ResNet-18: see `taken`."""
    module = resnet()
    module.load_state_dict(weights)
    data = CIFAR10().load()
    x = torch.from_numpy(data.test.at(slice(IMAGES)))
    y = torch.from_numpy(data.test.labels[:IMAGES])
    del data
    attacks = {"robench": Standard, "AutoAttack": AutoAttack}
    return taken(module, x, y, attacks[name]() if name in attacks else None)


def at_224(name: str, model: str, attack: str) -> dict[str, Any]:
    """What one side takes of an attack on a few pictures of 224 x 224: see `taken`."""
    torch.manual_seed(0)
    module: nn.Module = timm_or_skip().create_model(model, num_classes=10)
    module.eval()
    x = torch.rand(FEW, 3, 224, 224)
    with torch.no_grad():
        y = module(x).argmax(1)
    return taken(module, x, y, AT_224[attack] if name == "robench" else None)


def taken(module: nn.Module, x: Tensor, y: Tensor, attack: Attack | None) -> dict[str, Any]:
    """CPU seconds, MiB above what was there before, images left; of robench's own attacks also the
    seconds of the bare passes that they asked for, afterwards in the same process. None: what one
    bare pass of all images takes."""
    network = Module(tuple(x.shape[1:]), 10, factory=Located("given", lambda: module))
    network.eval().requires_grad_(False)
    asked: list[tuple[int, bool]] = []
    seen = module.register_forward_pre_hook(
        lambda _, given: asked.append((len(given[0]), torch.is_grad_enabled()))
    )
    before, started = start_of_peak(), time.process_time()
    if attack is None:
        bare(module, x, y, True)
        return {"MiB": peak() - before, "seconds": time.process_time() - started}
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    made = attack.perturb(target, x.clone(), y.clone(), torch.Generator().manual_seed(1))
    found = {"seconds": time.process_time() - started, "MiB": peak() - before}
    seen.remove()
    with torch.no_grad():
        left = int((module(target.project(made, x)).argmax(1) == y).sum())
    if not isinstance(attack, AutoAttack):
        started = time.process_time()
        for rows, graph in asked:
            bare(module, x[:rows], y[:rows], graph)
        found["bare"] = time.process_time() - started
    return {**found, "left": left, "passes": len(asked)}


def bare(module: nn.Module, x: Tensor, y: Tensor, graph: bool) -> None:
    if not graph:
        with torch.no_grad():
            module(x)
        return
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(F.cross_entropy(module(leaf), y, reduction="sum"), leaf)


def start_of_peak() -> float:
    """MiB in use; from now on counts what is most."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


@pytest.mark.data
def test_standard_on_a_resnet(tabled: Tabled) -> None:
    pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of memory are read from Linux's /proc")
    weights = trained()
    names = ("one bare pass", "robench", "AutoAttack")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        found = {name: pool.submit(side, name, weights).result() for name in names}
    ours, theirs, one = found["robench"], found["AutoAttack"], found["one bare pass"]
    notes = {
        "bare passes": f"one of all images with a gradient: {one['MiB']:.0f} MiB",
        "robench": f"{ours['MiB']:.0f} MiB, {ours['left']} images left, {ours['passes']} passes",
        "AutoAttack": f"{theirs['MiB']:.0f} MiB, {theirs['left']} left, {theirs['passes']} passes",
    }
    tabled(
        "standard on ResNet-18, CIFAR-10",
        f"timm's resnet18, {IMAGES} images, linf 8/255, CPU. Memory: most that is added to the "
        "loaded network and images. Bare passes: those that robench asked for, alone.",
        {"bare passes": ours["bare"], "robench": ours["seconds"], "AutoAttack": theirs["seconds"]},
        "bare passes",
        notes,
    )
    assert ours["seconds"] <= 1.1 * ours["bare"]
    assert ours["MiB"] <= 1.3 * one["MiB"]
    assert ours["left"] <= theirs["left"]


@pytest.mark.parametrize("attack", AT_224)
@pytest.mark.parametrize("model", ["resnet50", "vit_small_patch16_224"])
def test_attacks_at_224(model: str, attack: str, tabled: Tabled) -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        sides = ("one bare pass", "robench")
        one, ours = (pool.submit(at_224, name, model, attack).result() for name in sides)
    notes = {
        "bare passes": f"one of all images with a gradient: {one['MiB']:.0f} MiB",
        "robench": f"{ours['MiB']:.0f} MiB, {ours['passes']} passes",
    }
    tabled(
        f"{attack} on {model}, 224x224",
        f"timm's {model}, {FEW} images, linf 8/255, CPU. Memory and bare passes as of `standard`.",
        {"bare passes": ours["bare"], "robench": ours["seconds"]},
        "bare passes",
        notes,
    )
    assert ours["seconds"] <= 1.1 * ours["bare"]
    assert ours["MiB"] <= 1.3 * one["MiB"]


@pytest.mark.data
@pytest.mark.parametrize("attack", ["pgd", "standard/standard"])
def test_a_whole_evaluation(attack: str, tabled: Tabled, tmp_path: Path) -> None:
    """From the module to the results, diagnostics included; `standard` beside AutoAttack's attack
    alone."""
    pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")
    weights = trained()
    torch.save(weights, tmp_path / "W.pt")

    def whole(what: str, *attacks: str) -> dict[str, Any]:
        script = str(Path(__file__).with_name("whole_evaluation.py"))
        case = ("resnet18", "32", str(IMAGES), str(tmp_path / "W.pt"), *attacks)
        command = [sys.executable, script, what, *case]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found: dict[str, Any] = json.loads(said)
        return found

    one, ours = whole("bare"), whole("evaluate", attack)
    name = attack.rpartition("/")[2]
    seconds = {"bare passes": ours["bare"], "robench": ours["seconds"]}
    notes = {
        "bare passes": f"one of all images with a gradient: {one['MiB']:.0f} MiB",
        "robench": f"{ours['MiB']:.0f} MiB, worst case {ours['worst']:.2f}, "
        f"{ours['passes']} passes, {ours['cells']} cells; {ours['looked']:.1f} s more for the "
        "first look at it",
    }
    if name == "standard":
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
            theirs = pool.submit(side, "AutoAttack", weights).result()
        seconds["AutoAttack"] = theirs["seconds"]
        notes["AutoAttack"] = f"its attack alone; {theirs['left']} left, {theirs['passes']} passes"
    tabled(
        f"robench.evaluate with {name}, ResNet-18, CIFAR-10",
        f"timm's resnet18, {IMAGES} images, linf 8/255, CPU: the attack and all diagnostics, from "
        "the module handed over to the results. Bare passes: those that all "
        "of this asked for, alone. Memory: of the whole process, libraries and data included.",
        seconds,
        "bare passes",
        notes,
    )


def test_corruptions_at_224(tabled: Tabled) -> None:
    """Milliseconds of CPU for one picture, kind by kind; the two make the same bits."""
    image = load_sample_image("china.jpg")[100:324, 200:424].copy()
    ours, packaged = [], []
    notes = {}
    for kind in COMMON:
        taken: dict[str, list[float]] = {"fast": [], "packaged": []}
        for round_ in range(3 if kind == "glass_blur" else 11):
            for name, made in list(MADE.items())[:: 1 if round_ % 2 else -1]:
                started = time.process_time()  # OpenCV's threads count, too
                for severity in range(1, 6):
                    made.corrupt(image, kind, severity, np.random.RandomState(round_))
                if round_:  # textures and weights are read in the first
                    taken[name].append((time.process_time() - started) / 5)
        ours.append(median(taken["fast"]))
        packaged.append(median(taken["packaged"]))
        notes[kind] = f"packaged {1e3 * packaged[-1]:.1f} ms, {packaged[-1] / ours[-1]:.2f}x"
    about = "One colour picture of 224 x 224; mean of five severities, all threads."
    rows = {"fast": sum(ours) / len(ours), "packaged": sum(packaged) / len(packaged)}
    tabled("imagenet-c, 224x224", f"{about} The mean of its 15 kinds.", rows, "fast")
    tabled(
        "imagenet-c, 224x224, by kind",
        about,
        dict(zip(COMMON, ours, strict=True)),
        "contrast",
        notes,
    )
    assert rows["fast"] < rows["packaged"]
