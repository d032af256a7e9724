"""Noise of the likelihood-ratio gradient against CPU time, for five kinds of network.

    python tests/benchmarks/likelihood_ratio_networks.py [--estimates 24] [--out FOLDER]

MLP, CNN, LSTM, SNN and convolutional SNN on 25 MNIST images at 14x14 (the embedded digits where
MNIST is missing), after 200 batches of backpropagation through the same noise, from which feedback
has learned what it knows, one estimate a batch. `--network CNN` measures only these. Each setting
has 32 copies for an image, all layers together or in each layer's turn; spiking networks also the
score of a spike and the noise of their last step alone, as they are trained. Of so many independent
estimates: milliseconds of one CPU thread, the debiased self-cosine of every layer (the cosine of
one estimate with the expectation of all, taken from products of different estimates; 0: the layer
learns nothing), and variance over squared signal, layers added up, times milliseconds, as a share
of the first setting's: what a given precision costs. `--out` writes lr_networks.csv and
lr_networks.svg.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from robench.data.digits import Digits
from robench.data.mnist import MNIST
from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.networks.noise import NoisyLayer, noisy_layers
from robench.networks.rnn import RNN
from robench.networks.snn import SNN
from robench.trainers.base import to_device
from robench.trainers.bp_n import BPN
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import LikelihoodRatio

matplotlib.use("svg")
COPIES = 32
MEMBRANE: dict[str, Any] = {"readout": "membrane", "sigma": 0.15, "learned_sigma": False}
NETWORKS: dict[str, Callable[[tuple[int, int, int]], Network]] = {
    "MLP": lambda shape: MLP(shape, 10, hidden=(50,), activation="sigmoid", sigma=1.0),
    "CNN": lambda shape: CNN(
        shape, 10, channels=(8, 16), hidden=(), norm="layer", noise="halving", sigma=0.1
    ),
    "LSTM": lambda shape: RNN(shape, 10, cell="lstm", hidden=32, rows=2, sigma=0.2),
    "SNN": lambda shape: SNN(shape, 10, hidden=(50,), **MEMBRANE),
    "convolutional SNN": lambda shape: SNN(shape, 10, convolutions=(8, 16), hidden=(), **MEMBRANE),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "antithetic, as before": {"pairing": "antithetic"},
    "none": {"pairing": "none"},
    "layer-wise, antithetic": {"pairing": "antithetic", "layer_wise": True},
    "layer-wise, none": {"pairing": "none", "layer_wise": True},
    "conditional, none": {"pairing": "none", "layer_wise": "conditional"},
    "conditional, measured": {"pairing": "auto", "layer_wise": "conditional"},
    "feedback, none": {"pairing": "none"},
    "feedback, layer-wise": {"pairing": "none", "layer_wise": True},
    "feedback, conditional": {"pairing": "none", "layer_wise": "conditional"},
}
OF_SPIKES: dict[str, dict[str, Any]] = {
    "spike, conditional": {"pairing": "none", "score": "spike", "layer_wise": "conditional"},
    "last step": {"pairing": "none", "layer_wise": "conditional", "last_steps": 1},
    "spike, last step": {
        "pairing": "none", "score": "spike", "layer_wise": "conditional", "last_steps": 1,
    },
    "spike, feedback, last step": {
        "pairing": "none", "score": "spike", "layer_wise": "conditional", "last_steps": 1,
    },
}  # fmt: skip
"""Settings for spiking networks only; the last step's noise has a gradient of its own."""


def gradient(layer: NoisyLayer) -> Tensor:
    """Of the layer's weights, as one vector."""
    return torch.cat([weight.grad.flatten() for weight in layer.op.parameters()])


def estimates(
    network: Network, x: Tensor, y: Tensor, count: int, known: Feedback | None, **settings: Any
) -> Any:
    """Milliseconds of one estimate, and of every layer (count, weights)."""
    measured = settings["pairing"] == "auto"
    chosen = {**settings, "pairing": "antithetic"} if measured else settings
    ours = LikelihoodRatio(copies=COPIES, **chosen)
    if measured:
        rng = torch.Generator().manual_seed(count)
        ours = ours.paired(network, x, y, cross_entropy_rows, rng)
    found, started = [], time.thread_time()
    for seed in range(count):
        network.zero_grad(set_to_none=True)
        rng = torch.Generator().manual_seed(seed)
        ours.backward(network, x, y, cross_entropy_rows, rng, copy.deepcopy(known))
        found.append([gradient(layer) for layer in noisy_layers(network)])
    seconds = time.thread_time() - started
    return 1e3 * seconds / count, [torch.stack(layer) for layer in zip(*found, strict=True)]


def trained(
    make: Callable[[], Network], images: Tensor, labels: Tensor, settings: dict[str, Any]
) -> tuple[Network, dict[str, Feedback]]:
    """A network that has begun to learn, and what each setting with feedback knows by then."""
    torch.manual_seed(0)
    network = make()
    trainer, rng = BPN(batch_size=50, lr=2e-3), torch.Generator().manual_seed(0)
    network.generator, optimizer = rng, trainer.make_optimizer(network)
    noisy = torch.Generator().manual_seed(1)
    learn = {setting: Feedback() for setting in settings if "feedback" in setting}
    for start in range(0, 10_000, 50):
        batch = torch.arange(start, start + 50) % len(labels)
        x, y = images[batch], labels[batch]
        for setting, feedback in learn.items():
            ours = LikelihoodRatio(copies=COPIES, **settings[setting])
            ours.backward(network, x, y, cross_entropy_rows, noisy, feedback)
        optimizer.zero_grad()
        trainer.gradient(network, x, y, rng)
        optimizer.step()
    return network, learn


def measure(
    make: Callable[[], Network], images: Tensor, labels: Tensor, count: int, spiking: bool
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    settings = SETTINGS | OF_SPIKES if spiking else SETTINGS
    network, learned = trained(make, images, labels, settings)
    x, y = images[:25], labels[:25]
    for setting, chosen in settings.items():
        ms, layers = estimates(network, x, y, count, learned.get(setting), **chosen)
        cosines, noise = [], 0.0
        for found in layers:
            products = found.double() @ found.double().T
            size = float(products.diagonal().mean())
            signal = float(products.sum() - products.diagonal().sum()) / (count * (count - 1))
            cosines.append((max(signal, 0.0) / size) ** 0.5)
            noise += (size - signal) / max(signal, 1e-3 * size)
        rows.append({"setting": setting, "ms": ms, "noise": noise, "cost": noise * ms})
        rows[-1]["share"] = rows[-1]["cost"] / rows[0]["cost"]
        rows[-1]["cosines"] = " ".join(f"{cosine:.2f}" for cosine in cosines)
    return rows


def plot(table: list[dict[str, Any]], path: Path) -> None:
    import seaborn as sns
    from matplotlib import pyplot as plt

    sns.set_theme(style="whitegrid", palette="colorblind")
    networks = list(dict.fromkeys(row["network"] for row in table))
    figure, panes = plt.subplots(
        1, len(networks), figsize=(3.4 * len(networks), 3.8), layout="constrained", squeeze=False
    )
    panes = panes[0]
    for axes, network in zip(panes, networks, strict=True):
        for place, row in enumerate(row for row in table if row["network"] == network):
            axes.plot(
                row["ms"], row["noise"], "osD^vPX*h<>pd"[place], ms=8, ls="", label=row["setting"]
            )
        axes.set(yscale="log", xlabel="ms for one gradient", title=network)
        axes.set_xlim(left=0)
    panes[0].set_ylabel("variance / squared signal")
    panes[-1].legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--estimates", type=int, default=24, help="independent ones per setting")
    parser.add_argument("--out", type=Path, help="folder for the table and the plot")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only these")
    arguments = parser.parse_args()
    asked = arguments.network or list(NETWORKS)
    torch.set_num_threads(1)
    try:
        splits = MNIST(resize=14, split="6:4").load()
    except RobenchError as error:
        print(f"the embedded digits instead of MNIST: {error}")
        splits = Digits().load()
    images, labels = to_device(splits.train, torch.device("cpu"))
    table: list[dict[str, Any]] = []
    for name in asked:
        make = NETWORKS[name]
        print(f"\n{name}: {COPIES} copies, 25 images, one CPU thread")
        print(f"{'':26}     ms  var/signal^2  x ms, share   self-cosines")
        fresh = partial(make, splits.input_shape)
        for row in measure(fresh, images, labels, arguments.estimates, "SNN" in name):
            table.append({"network": name, **row})
            print("{setting:26}{ms:7.1f}{noise:14.1f}{share:13.2f}   {cosines}".format(**row))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with (arguments.out / "lr_networks.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        plot(table, arguments.out / "lr_networks.svg")


if __name__ == "__main__":
    main()
