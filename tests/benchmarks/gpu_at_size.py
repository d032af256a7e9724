"""Attacks at size, stacked small models and whole reports on a GPU, in at most eight minutes.

    python tests/benchmarks/gpu_at_size.py [--minutes 8] [--only throughput stacked reports] [--dry]

throughput: of networks shaped as WRN-28-10 (images of 32 x 32) and ResNet-50 (224 x 224), image
gradients per second of bare passes, of robench's PGD and APGD with nobody leaving, in float32 and
bfloat16, and of AutoAttack's APGD (where pyautoattack is there); of PGD where images leave; what it
costs that half of a batch leaves, there and on a small network.
stacked: models 784-50-10 trained and attacked one after the other (recorded, as a run does) and
stacked by torch.func.vmap.
reports: `nit-mnist` and `quickstart` from nothing, as commands.

Weights are random, since what passes cost does not depend on them. --dry runs the same code in
small on whatever is here: its numbers say nothing, but that it runs. The clock counts, from when
the device is idle to when it is idle again; what would pass the time is left out, and said so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from processes import ROBENCH
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.ball import Ball
from robench.attacks.base import Attack
from robench.attacks.gradient import APGD, PGD
from robench.attacks.libraries.autoattack import AutoAttack
from robench.attacks.target import Precision, WhiteBoxTarget
from robench.networks import replay
from robench.networks.mlp import MLP
from robench.networks.modules.module import Module
from robench.trainers.base import _Recorded
from robench.trainers.bp import BP
from robench.workspace.plugins import Source

EPS, CLASSES = 4 / 255, 10
PARTS = ("throughput", "stacked", "reports")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass
class Time:
    """What is left of it."""

    device: torch.device
    end: float

    def left(self) -> float:
        return self.end - time.monotonic()

    def of(self, work: Callable[[], object], least: float = 2.0) -> float | None:
        """The least seconds of a few rounds, of about `least` seconds together, after one that does
        not count; None: there is no time."""
        found: list[float] = []
        for _ in range(50):
            if self.left() < 2 * max(found[-1:], default=0.0) or self.left() < 0:
                return min(found[1:]) if len(found) > 1 else None
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - started)
            if len(found) > 2 and sum(found[1:]) > least:
                break
        return min(found[1:])

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class PreActivated(nn.Module):
    """Norm, ReLU and convolution, twice, beside a shortcut: the block of a wide ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.first(F.relu(self.norms[0](x)))
        made: Tensor = self.second(F.relu(self.norms[1](inside))) + self.short(x)
        return made


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels beside a shortcut: the block of a ResNet-50."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = ((inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        layers: list[nn.Module] = []
        for a, b, kernel, step in sizes:
            convolution = nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(b), nn.ReLU()]
        self.inside = nn.Sequential(*layers[:-1])
        same = inputs == 4 * width and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = F.relu(self.inside(x) + self.short(x))
        return made


def wide_resnet(depth: int, widen: int) -> nn.Module:
    """Zagoruyko & Komodakis 2016, arXiv 1605.07146: WRN-28-10 with (28, 10)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    inputs = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range((depth - 4) // 6):
            layers.append(PreActivated(inputs, widen * width, stride if number == 0 else 1))
            inputs = widen * width
    end = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *end, nn.Linear(inputs, CLASSES))


def resnet(blocks: tuple[int, ...], first: int = 64) -> nn.Module:
    """He et al. 2016, arXiv 1512.03385: ResNet-50 with (3, 4, 6, 3)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, first, 7, 2, 3, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = first
    for place, count in enumerate(blocks):
        width = first * 2**place
        for number in range(count):
            layers.append(Bottleneck(inputs, width, 2 if place and number == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


def gradient(network: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.autocast(
        x.device.type, torch.bfloat16, enabled=precision != "float32", cache_enabled=False
    ):
        logits = network(leaf)
    (grad,) = torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), leaf)
    return grad


def attacked(attack: Attack, network: Module | MLP, x: Tensor, y: Tensor) -> int:
    """How many image gradients it asked for."""
    target = WhiteBoxTarget(network, Ball("linf", EPS), len(x))
    attack.perturb(target, x, y, torch.Generator(x.device).manual_seed(0))
    return target.gradients


def throughput(clock: Time, dry: bool) -> None:
    sizes: tuple[tuple[str, Callable[[], nn.Module], int, int], ...] = (
        ("WRN-28-10, 32 x 32", lambda: wide_resnet(28, 10), 32, 256),
        ("ResNet-50, 224 x 224", lambda: resnet((3, 4, 6, 3)), 224, 64),
    )
    if dry:
        sizes = (
            ("WRN-10-1, 16 x 16", lambda: wide_resnet(10, 1), 16, 8),
            ("ResNet (1, 1), 32 x 32", lambda: resnet((1, 1), 8), 32, 8),
        )
    for title, make, side, images in sizes:
        torch.manual_seed(0)
        inner = make().to(clock.device).eval().requires_grad_(False)
        x = torch.rand(images, 3, side, side, device=clock.device)
        at_size(clock, title, inner, x, 3 if dry else 10)
        leaving(clock, title, inner, x, inner(x).argmax(1))
    small = MLP((1, 28, 28), CLASSES, hidden=(50,)).to(clock.device).eval().requires_grad_(False)
    x = torch.rand(64 if dry else 1000, 1, 28, 28, device=clock.device)
    leaving(clock, "784-50-10", small, x, small(x).argmax(1))


def at_size(clock: Time, title: str, inner: nn.Module, x: Tensor, steps: int) -> None:
    network = Module(tuple(x.shape[1:]), CLASSES, factory=Source.of(title, lambda: inner)).eval()  # type: ignore[arg-type]
    y = inner(x).argmax(1)
    print(f"\n{title}, {len(x)} images, {steps} steps: image gradients per second")
    for precision in PRECISIONS:

        def passes(precision: Precision = precision) -> None:
            for _ in range(steps):
                gradient(inner, x, y, precision)

        bare = clock.of(passes)
        if bare is None:
            print(f"  {precision}: no time left")
            return
        each = bare / (steps * len(x))
        print(f"  {'bare passes, ' + precision:44} {1 / each:10.0f}")
        sides: dict[str, Attack] = {
            "PGD, nobody leaves": PGD(steps=steps, keep="last", precision=precision),
            "PGD, images leave": PGD(steps=steps, precision=precision),
            "APGD, nobody leaves": APGD(steps=steps, keep="last", precision=precision),
        }
        if precision == "float32" and find_spec("pyautoattack") is not None:
            sides["AutoAttack's APGD"] = AutoAttack(members=("apgd-ce",))
        for name, attack in sides.items():
            asked: list[int] = []

            def work(attack: Attack = attack, asked: list[int] = asked) -> None:
                asked.append(attacked(attack, network, x, y))

            seconds = clock.of(work)
            if seconds is None:
                print(f"  {name}, {precision}: no time left")
                continue
            ratio = seconds / (each * asked[0])
            print(f"  {f'{name}, {precision}':44} {asked[0] / seconds:10.0f}  {ratio:6.2f} x bare")


def leaving(clock: Time, title: str, network: nn.Module, x: Tensor, y: Tensor) -> None:
    """What a loop gives for half of a batch to leave: the images, the bounds of their ball and
    their labels are copied. Against what a pass of those that stay then saves."""
    half = torch.arange(0, len(x), 2, device=x.device)

    def copies() -> None:
        for held in (x, x, x, y):
            held.index_select(0, half)

    cost = clock.of(copies, 0.5)
    whole = clock.of(lambda: gradient(network, x, y, "float32"), 0.5)
    rest = clock.of(lambda: gradient(network, x[half], y[half], "float32"), 0.5)
    if cost is None or whole is None or rest is None:
        print(f"  leaving, {title}: no time left")
        return
    print(
        f"  leaving, {title}: half of {len(x)} images are copied in {1e6 * cost:.0f} us; a "
        f"gradient takes {1e6 * whole:.0f} us, of half of them {1e6 * rest:.0f} us"
    )


def stacked(clock: Time, dry: bool) -> None:
    """Models of one shape, 784-50-10, trained and attacked: one after the other and at once."""
    images, steps = (20, 3) if dry else (100, 15)
    for models in (4,) if dry else (8, 32):
        torch.manual_seed(0)
        x = torch.rand(models, images, 1, 28, 28, device=clock.device)
        y = torch.randint(CLASSES, (models, images), device=clock.device)
        networks = [MLP((1, 28, 28), CLASSES, hidden=(50,)).to(clock.device) for _ in range(models)]
        base = MLP((1, 28, 28), CLASSES, hidden=(50,)).to(clock.device)
        weights, buffers = torch.func.stack_module_state(networks)
        print(f"\n{models} models 784-50-10, {images} images each: seconds")
        alone, together = _updates(networks, base, weights, buffers, x, y)
        compare(clock, "one update of each", alone, together)
        for network in networks:
            network.eval().requires_grad_(False)
        alone, together = _attacks(networks, base, weights, buffers, x, y, steps)
        compare(clock, f"PGD of {steps} steps on each", alone, together)


def compare(
    clock: Time, title: str, alone: Callable[[], object], together: Callable[[], object]
) -> None:
    one, other = clock.of(alone), clock.of(together)
    if one is None or other is None:
        print(f"  {title:30} no time left")
        return
    print(f"  {title:30} one by one {one:.5f}, stacked {other:.5f}: {one / other:.1f} times")


Sides = tuple[Callable[[], object], Callable[[], object]]


def _updates(
    networks: list[MLP], base: MLP, weights: Any, buffers: Any, x: Tensor, y: Tensor
) -> Sides:
    trainer = BP()
    generator = torch.Generator(x.device).manual_seed(0)
    optimizers = [trainer.make_optimizer(network) for network in networks]
    recorded = [_Recorded(trainer, network, generator) for network in networks]

    def alone() -> None:
        for index, optimizer in enumerate(optimizers):
            recorded[index](x[index], y[index])
            optimizer.step()

    optimizer = torch.optim.Adam(list(weights.values()), fused=x.is_cuda)

    def loss(weights: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(base, (weights, buffers), (x,)), y)

    gradients = torch.func.vmap(torch.func.grad(loss))

    def together() -> None:
        found = gradients(weights, buffers, x, y)
        for name, weight in weights.items():
            weight.grad = found[name]
        optimizer.step()

    if x.is_cuda:
        for _ in range(replay.PATIENCE + 1):
            alone()
    return alone, together


def _attacks(
    networks: list[MLP],
    base: MLP,
    weights: Any,
    buffers: Any,
    x: Tensor,
    y: Tensor,
    steps: int,
) -> Sides:
    attack = PGD(steps=steps, keep="last", random_start=False)
    length = 2.5 * EPS / steps

    def alone() -> None:
        for index, network in enumerate(networks):
            attacked(attack, network, x[index], y[index])

    def loss(x: Tensor, weights: Any, buffers: Any, y: Tensor) -> Tensor:
        logits = torch.func.functional_call(base, (weights, buffers), (x,))
        return F.cross_entropy(logits, y, reduction="sum")

    gradients = torch.func.vmap(torch.func.grad(loss))
    fixed = {name: weight.detach() for name, weight in weights.items()}
    low, high = (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)

    def together() -> None:
        x_adv = x
        for _ in range(steps):
            step = gradients(x_adv, fixed, buffers, y).sign_()
            x_adv = torch.add(x_adv, step, alpha=length).clamp_(low, high)

    return alone, together


def reports(clock: Time, dry: bool) -> None:
    """Whole commands, from nothing."""
    for report in ("quickstart",) if dry else ("nit-mnist", "quickstart"):
        few = ["--only", "digits/mlp-bp"] if dry else []
        with tempfile.TemporaryDirectory() as folder:
            command = [ROBENCH, "run", report, *few, "--device", clock.device.type]
            where = ["--store", f"{folder}/store", "--out", f"{folder}/page"]
            started = time.perf_counter()
            try:
                done = subprocess.run(
                    [*command, *where],
                    capture_output=True,
                    text=True,
                    timeout=max(1.0, clock.left()),
                )
            except subprocess.TimeoutExpired:
                print(f"\n{report}: no time left after {time.perf_counter() - started:.0f} s")
                return
        seconds, last = time.perf_counter() - started, done.stdout.strip().split("\n")[-1]
        print(f"\n{report} from nothing: {seconds:.1f} s, status {done.returncode}: {last}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True  # as in a run
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.dry:
        print("there is no CUDA device; --dry runs the same code in small")
        return 1
    clock = Time(device, time.monotonic() + 60 * arguments.minutes)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    print(f"on {where}{', dry' if arguments.dry else ''}, torch {torch.__version__}")
    works = {"throughput": throughput, "stacked": stacked, "reports": reports}
    for part in arguments.only:
        works[part](clock, arguments.dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
