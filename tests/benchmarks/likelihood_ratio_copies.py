"""Accuracy of GLR training against seconds, for 10 to 10,000 copies and for the card's setting.

    python tests/benchmarks/likelihood_ratio_copies.py [--out FOLDER]

The network and the recipe of models/glr/mnist14/lrs.toml on MNIST at 14x14, each with as many
epochs of its cosine schedule as fill about a minute. Seconds are CPU seconds of one thread, without
those of the test; accuracy is of all test images, without noise, one seed. `--out` writes
glr_copies.csv and glr_copies.svg.
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

from robench.data.mnist import MNIST
from robench.networks.mlp import MLP
from robench.trainers.base import to_device
from robench.trainers.glr import GLR

matplotlib.use("svg")
EVERY = 1.0
"""Seconds of training between two looks at the test images."""
SETTINGS: dict[str, dict[str, Any]] = {
    "K = 10": {"copies": 10, "pairing": "antithetic", "epochs": 30},
    "K = 100": {"copies": 100, "pairing": "antithetic", "epochs": 20},
    "K = 1,000": {"copies": 1000, "pairing": "antithetic", "epochs": 6},
    "K = 10,000": {"copies": 10_000, "pairing": "antithetic", "epochs": 1},
    "as the card: K = 200, factorial": {"copies": 200, "epochs": 12},
}


def curve(x: Tensor, y: Tensor, splits: Any, settings: dict[str, Any]) -> list[tuple[float, float]]:
    """(seconds, accuracy) over one training."""
    torch.manual_seed(0)
    network = MLP((1, 14, 14), 10, hidden=(20,), activation="sigmoid", sigma=2.0, weights="normal")
    points: list[tuple[float, float]] = []
    started, looked = time.thread_time(), 0.0

    def look(done: float, text: str) -> None:
        nonlocal started, looked
        spent = time.thread_time() - started
        if points and spent < looked + EVERY:
            return
        with torch.no_grad():
            points.append((spent, float((network(x).argmax(1) == y).float().mean())))
        looked = spent
        started = time.thread_time() - spent

    trainer = GLR(schedule="cosine", lr=2.0, **settings)
    trainer.fit(network, splits, torch.Generator().manual_seed(0), look)
    looked = -EVERY
    look(1.0, "")
    return points


def plot(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    import seaborn as sns
    from matplotlib import pyplot as plt

    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name)
    axes.axhline(0.94, color="0.4", linewidth=1, linestyle=":")
    axes.text(0.4, 0.941, "published 94%", color="0.3", va="bottom", ha="left", fontsize=8)
    axes.set(xlabel="CPU seconds of one thread", ylabel="test accuracy", ylim=(0.8, 0.96))
    axes.set_title("GLR on MNIST 14x14, 196-20-10: accuracy against training time")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the table and the plot")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = MNIST(resize=14, split="6:4").load()
    x, y = to_device(splits.test, torch.device("cpu"))
    curves = {}
    for name, settings in SETTINGS.items():
        curves[name] = points = curve(x, y, splits, settings)
        reached = next((f"{s:.0f} s" for s, accuracy in points if accuracy >= 0.94), "not reached")
        print(f"{name:32} {points[-1][1]:.3f} after {points[-1][0]:.0f} s; 94%: {reached}")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        with (arguments.out / "glr_copies.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["setting", "seconds", "accuracy"])
            for name, points in curves.items():
                writer.writerows([name, f"{s:.2f}", f"{accuracy:.4f}"] for s, accuracy in points)
        plot(curves, arguments.out / "glr_copies.svg")


if __name__ == "__main__":
    main()
