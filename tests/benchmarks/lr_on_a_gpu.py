"""ResNet-5 on CIFAR-10 by LR with 150 copies of each layer, for as many epochs as fit into minutes.

    python tests/benchmarks/lr_on_a_gpu.py [--minutes 9] [--network vgg8] [--images N] [--copies N]

The network of models/lr/cifar10/resnet5-lr.toml (or VGG-8 with its authors' widths),
conditional passes, every copy with a draw of its own, Adam with a cosine schedule. A few updates
are timed first, and the epochs follow from them. Printed: updates per second, gigabytes of
activations per second that they write at least (each noisy layer's values, once per copy), accuracy
on validation images after each epoch, and at the end on all test images. Published after 100
epochs: 69.7, 72.5 and 74.4% with 150, 400 and 800 copies (arXiv 2305.08960; on validation images).
A dry run on a CPU: --images 200 --copies 8 --minutes 0.2.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robench.data.base import Part
from robench.data.cifar import CIFAR10
from robench.networks.cnn import CNN
from robench.networks.noise import NoiseSource, NoisyLayer, noise, noisy_layers
from robench.trainers.base import History, to_device
from robench.trainers.lr import LR

SHAPES: dict[str, dict[str, Any]] = {
    "resnet5": {
        "channels": (8, 16, 32, 32),
        "halvings": (1, 2, 3),
        "shortcuts": (4,),
        "hidden": (),
    },
    "vgg8": {"channels": (16, 16, 32, 32, 64, 64), "halvings": (2, 4, 6), "hidden": (256,)},
}
BATCH, WARM, TIMED = 100, 3, 10


class _Sizes(NoiseSource):
    """A noise source that adds nothing and notes how many numbers each layer makes of an image."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        self.numbers.append(drive[0].numel())
        return drive


def made(name: str, images: Any, device: torch.device) -> CNN:
    torch.manual_seed(0)
    settings = {"norm": "layer", "noise": "halving", "sigma": 0.1, "standardise": "channel"}
    network = CNN((3, 32, 32), 10, **{**settings, **SHAPES[name]})
    network.learn_input(images)
    return network.to(device)


def written(network: CNN, x: Tensor, copies: int) -> float:
    """Gigabytes of noisy values of one update: in a layer's turn its own and all later ones."""
    sizes = _Sizes()
    with torch.no_grad(), noise(network, sizes):
        network(x[:1])
    later = sum(sum(sizes.numbers[place:]) for place in range(len(sizes.numbers)))
    return 4e-9 * BATCH * copies * later


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--network", choices=list(SHAPES), default="resnet5")
    parser.add_argument("--images", type=int, help="of the training set; all where nothing is said")
    parser.add_argument("--copies", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = CIFAR10().load()
    count = arguments.images or len(data.train.labels)
    part = Part(data.train.images[:count], data.train.labels[:count])
    data = replace(data, train=part)
    settings: dict[str, Any] = {
        "copies": arguments.copies, "layer_wise": "conditional", "pairing": "none",
        "batch_size": BATCH, "lr": 2e-3, "schedule": "cosine",
        "block_rows": 65536 if device.type == "cuda" else 8192,
    }  # fmt: skip
    x, y = (part[:BATCH] for part in to_device(data.train, device))
    network, trainer = made(arguments.network, data.train.images, device), LR(**settings)
    trainer.start_epoch(network, 0)
    rng = torch.Generator(device).manual_seed(0)
    started = time.perf_counter()
    for update in range(WARM + TIMED):
        if update == WARM:
            started = time.perf_counter()
        trainer.gradient(network, x, y, rng)
        if device.type == "cuda":
            torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / TIMED
    updates = -(-len(data.train.labels) // BATCH)
    epochs = max(1, int(60 * arguments.minutes / (updates * seconds)))
    speed = written(network, x, arguments.copies) / seconds
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    print(f"{arguments.network}, {arguments.copies} copies of each of {len(noisy_layers(network))} "
          f"layers on {name}: {1 / seconds:.1f} updates/s, {speed:.2f} GB/s; {epochs} epochs of "
          f"{updates} updates")  # fmt: skip
    network = made(arguments.network, data.train.images, device)
    rng = torch.Generator(device).manual_seed(0)
    curve: History = LR(epochs=epochs, **settings).fit(network, data, rng, lambda done, text: None)
    for row in curve:
        print(
            "epoch {epoch:3.0f}  loss {loss:.3f}  validation {validation_accuracy:.3f}".format(
                **row
            )
        )
    network.eval()
    with torch.no_grad():
        x, y = to_device(data.test, device)
        pairs = zip(x.split(500), y.split(500), strict=True)
        right = [(network(images).argmax(1) == labels).float() for images, labels in pairs]
    print(f"test accuracy {float(torch.cat(right).mean()):.4f}")


if __name__ == "__main__":
    main()
