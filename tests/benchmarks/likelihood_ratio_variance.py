"""Variance of the likelihood-ratio gradient against seconds, for every way of reducing it.

    python tests/benchmarks/likelihood_ratio_variance.py [--out FOLDER]

GLR's network, 196-20-10 with sigma 2, on 25 MNIST images (random ones where MNIST is missing),
before training and after one epoch of it. For each setting: seconds of one CPU thread for one
gradient with `COPIES` forward passes per image, its variance summed over all weights and in each
layer, its cosine with the true gradient in each layer, and variance x seconds as a share of the
plain estimator's: what a given precision costs. Layer-wise injection splits the copies between the
layers and has another expected loss (each layer under its own noise only); it is compared with that
one's gradient. `--out` writes glr_variance.csv and glr_variance.svg.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from robench.data.base import Splits
from robench.data.mnist import MNIST
from robench.errors import RobenchError
from robench.networks.losses import cross_entropy_rows
from robench.networks.mlp import MLP
from robench.trainers.base import to_device
from robench.trainers.glr import GLR
from robench.trainers.likelihood_ratio import LikelihoodRatio

matplotlib.use("svg")
COPIES = 1000
RUNS = 60
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"pairing": "none", "baseline": "none"},
    "baseline": {"pairing": "none"},
    "noise-free baseline": {"pairing": "none", "baseline": "noise-free"},
    "antithetic": {"pairing": "antithetic", "baseline": "none"},
    "antithetic + baseline": {"pairing": "antithetic"},
    "factorial": {"pairing": "factorial", "baseline": "none"},
    "factorial + baseline": {"pairing": "factorial"},
    "hadamard + baseline": {"pairing": "hadamard"},
    "quasi": {"pairing": "none", "baseline": "noise-free", "quasi": True},
    "quasi, factorial": {"pairing": "factorial", "baseline": "noise-free", "quasi": True},
    "layer-wise": {"pairing": "antithetic", "layer_wise": True},
}


def gradient(network: MLP, x: Tensor, y: Tensor, seed: int, **settings: Any) -> list[Tensor]:
    """One estimate, a flat tensor for each layer."""
    rng = torch.Generator().manual_seed(seed)
    network.zero_grad(set_to_none=True)
    LikelihoodRatio(**settings).backward(network, x, y, cross_entropy_rows, rng)
    return [
        torch.cat([layer.op.weight.grad.flatten(), layer.op.bias.grad.flatten()])
        for layer in network.layers
    ]


def measure(network: MLP, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    settings = {name: {"copies": COPIES, **chosen} for name, chosen in SETTINGS.items()}
    truth = gradient(network, x, y, 0, copies=4_000_000, pairing="factorial")
    alone = gradient(network, x, y, 0, copies=2_000_000, layer_wise=True)
    for chosen in settings.values():
        if "layer_wise" in chosen:
            chosen["copies"] = COPIES // 2
    rows: list[dict[str, Any]] = []
    for name, chosen in settings.items():
        expected = alone if "layer_wise" in chosen else truth
        estimates, seconds = [], []
        for seed in range(RUNS):
            start = time.thread_time()
            estimates.append(gradient(network, x, y, 1 + seed, **chosen))
            seconds.append(time.thread_time() - start)
        layers = [torch.stack(layer) for layer in zip(*estimates, strict=True)]
        cosines = [
            float(cosine_similarity(layer, target[None]).mean())
            for layer, target in zip(layers, expected, strict=True)
        ]
        variances = [
            float((layer - target).square().sum(1).mean())
            for layer, target in zip(layers, expected, strict=True)
        ]
        rows.append(
            {
                "setting": name,
                "ms": 1e3 * sorted(seconds)[RUNS // 2],
                "variance": sum(variances),
                "variance_1": variances[0],
                "variance_2": variances[1],
                "cosine_1": cosines[0],
                "cosine_2": cosines[1],
            }
        )
        rows[-1]["cost"] = rows[-1]["variance"] * rows[-1]["ms"]
        rows[-1]["share"] = rows[-1]["cost"] / rows[0]["cost"]
    return rows


def plot(table: list[dict[str, Any]], path: Path) -> None:
    """Variance against milliseconds; dotted lines join settings of equal variance x seconds."""
    import seaborn as sns
    from matplotlib import pyplot as plt

    sns.set_theme(style="whitegrid", palette="colorblind")
    states = list(dict.fromkeys(row["state"] for row in table))
    figure, panes = plt.subplots(
        1, len(states), figsize=(4.6 * len(states), 4.2), squeeze=False, layout="constrained"
    )
    for axes, state in zip(panes[0], states, strict=True):
        rows = [row for row in table if row["state"] == state]
        times = [row["ms"] for row in rows]
        span = torch.linspace(0.7 * min(times), 1.4 * max(times), 50).tolist()
        for row in [*rows[:1], min(rows, key=lambda row: row["cost"])]:
            axes.plot(span, [row["cost"] / ms for ms in span], ":", color="0.6", lw=1)
        for place, row in enumerate(rows):
            style = "osD^vPX*<>p"[place % 11]
            axes.plot(row["ms"], row["variance"], style, ms=8, ls="", label=row["setting"])
        axes.set(xscale="log", yscale="log", xlabel=f"ms for one gradient, K = {COPIES}",
                 title=state)  # fmt: skip
    panes[0][0].set_ylabel("variance, summed over all weights")
    panes[0][-1].legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    figure.savefig(path)


def data() -> Splits | None:
    try:
        return MNIST(resize=14, split="6:4").load()
    except RobenchError as error:
        print(f"random images instead of MNIST: {error}")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the table and the plot")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    splits = data()
    network = MLP((1, 14, 14), 10, hidden=(20,), activation="sigmoid", sigma=2.0, weights="normal")
    x, y = torch.rand(25, 1, 14, 14), torch.arange(25) % 10
    if splits is not None:
        x, y = (part[:25] for part in to_device(splits.train, torch.device("cpu")))
    table: list[dict[str, Any]] = []
    for state in ("before training", "after one epoch"):
        if state == "after one epoch":
            if splits is None:
                break
            rng = torch.Generator().manual_seed(0)
            GLR(epochs=1, copies=100).fit(network, splits, rng, lambda done, text: None)
        print(f"\n{state}: K = {COPIES}, {len(x)} images, one CPU thread")
        print(f"{'':24}     ms   variance    layer 1    layer 2       cosines  var x s")
        for row in measure(network, x, y):
            table.append({"state": state, **row})
            print(
                "{setting:24}{ms:7.2f}{variance:11.2e}{variance_1:11.2e}{variance_2:11.2e}"
                "{cosine_1:8.3f}{cosine_2:6.3f}{share:9.3f}".format(**row)
            )
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with (arguments.out / "glr_variance.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        plot(table, arguments.out / "glr_variance.svg")


if __name__ == "__main__":
    main()
