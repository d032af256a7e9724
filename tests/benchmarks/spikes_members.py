"""What each member of the attack `spikes` breaks that no other member breaks, network by network.

    python tests/benchmarks/spikes_members.py [--store FOLDER] [--images 100] [--only NAME ...]

Prints two tables, of silent and of noisy networks (they are in attacks/README.md): per cent of the
images that the ensemble leaves, and points that it leaves more without each member. Networks are
taken from the store, and trained into it where they are missing. The images are the last ones of
the order in which test images are drawn, which the ensemble was not built on. Members are run
apart, on all images, and an image counts by the member that does most to it; of a noisy network
that is the least share of right answers among 512 fresh draws. The last member of the noisy
ensemble begins where the others have ended: there the ensemble is run as it is, and what that
member adds is what it takes off what the others leave. One thread: the silent networks take about a
CPU minute, the noisy ones 10 to 20 CPU seconds each, the noisy convolutional one several minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.attacks.contest import Best
from robench.attacks.loop import GradientAttack
from robench.attacks.spikes import members
from robench.attacks.target import WhiteBoxTarget
from robench.data.loading import load_splits
from robench.make import identity
from robench.make.scoring import in_use
from robench.make.tasks import Train
from robench.make.trained import trained_network
from robench.networks.base import Network
from robench.store.store import Store
from robench.workspace.folders import open_workspace, reference_root
from robench.workspace.plan import Training

DRAWS = 512
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A trained network, and the radius that it is attacked within, in linf."""

    card: str
    eps: float
    seed: int = 1


SILENT = (
    Case("digits/mlp-glr", 0.1),
    Case("digits/snn-stbp", 0.05),
    Case("digits/snn-stbp", 0.1),
    Case("glr/mnist14/lrt", 0.05),
    Case("lr/mnist-spikes/snn-bp", 0.05, seed=0),  # convolutional
    Case("nit/mnist/stbp", 0.02),
    Case("nit/mnist/stbp", 0.05),
    Case("nit/mnist/nit-silent", 0.05, seed=0),
    Case("spiking/mnist/adversarial", 0.1),
    Case("spiking/mnist/s-ibp", 0.1),
    Case("nit/fashion/stbp", 0.02),
    Case("spiking/fashion/adversarial", 0.05),
)
NOISY = (
    Case("lr/mnist-spikes/snn-bp-n", 0.05, seed=0),  # convolutional
    Case("nit/mnist/stbp-n", 0.1),
    Case("nit/mnist/nit", 0.05),
    Case("nit/mnist/nit-s-plus", 0.05),
    Case("nit/fashion/nit", 0.05),
    Case("digits/snn-nit", 0.1),
)


def trained(case: Case, store: Path) -> tuple[Network, bool, Tensor, Tensor]:
    """The network, whether its noise is in use, and all its test images in order."""
    card = open_workspace(reference_root()).card("models", case.card)
    resolved = identity.resolve_model(card)
    digest, training = resolved.digest(case.seed), Training(card, case.seed)
    if not Store(str(store)).has("models", digest):
        print(f"training {case.card} ...", flush=True)
        task = Train(training, digest, resolved.identity(case.seed), str(store), "cpu", None)
        task.run(lambda done, text: None)
    weights = Store(str(store)).read_model(digest)[1]["tensors"]
    network = trained_network(training, digest, weights, str(store), "cpu")
    splits = load_splits(card)
    part = identity.drawn(splits, len(splits.test.labels))
    x, y = torch.from_numpy(part.images.copy()), torch.from_numpy(part.labels.copy()).long()
    return network, bool(card.inference_noise), x, y


class Bench:
    """One network with its images, and the score of what attacks make of these."""

    def __init__(self, case: Case, store: Path, images: int) -> None:
        self.network, self.noisy, x, y = trained(case, store)
        self.x, self.y, self.eps = x[-images:], y[-images:], case.eps

    @property
    def members(self) -> list[GradientAttack]:
        return members(self.noisy)

    def right(self, images: Tensor) -> Tensor:
        """Share of right answers, (n,)."""
        draws = DRAWS if self.noisy else 1
        with in_use(self.network, self.noisy, 999, CPU), torch.no_grad():
            answers = [self.network(images).argmax(1) == self.y for _ in range(draws)]
        return torch.stack(answers).float().mean(0)

    def attacked(self, attacks: list[GradientAttack], seed: int) -> Iterator[Tensor]:
        """The best images so far after each attack, on what those before it left."""
        with in_use(self.network, self.noisy, seed, CPU):
            target = WhiteBoxTarget(self.network, Ball("linf", self.eps), len(self.x))
            best_so_far, rng = Best(self.x), torch.Generator().manual_seed(seed)
            for attack in attacks:
                attack.improve(best_so_far, target, self.x, self.y, rng, alone=False)
                yield target.project(best_so_far.images, self.x)

    def row(self) -> tuple[float, list[float]]:
        """Per cent that is left, and points that are left more without each member."""
        together = [attack for attack in self.members if attack.restart_from == "clean"]
        last = [attack for attack in self.members if attack.restart_from != "clean"]
        apart = torch.stack(
            [
                self.right(images)
                for number, attack in enumerate(together)
                for images in self.attacked([attack], 50 + number)
            ]
        )
        left = apart.amin(0).mean()
        without = [
            torch.cat([apart[:number], apart[number + 1 :]]).amin(0).mean()
            for number in range(len(together))
        ]
        adds = [float(100 * (mean - left)) for mean in without]
        if last:
            in_turn = [self.right(images).mean() for images in self.attacked(together + last, 60)]
            adds.append(float(100 * (in_turn[len(together) - 1] - in_turn[-1])))
            left = in_turn[-1]
        return float(100 * left), adds


def named(attack: GradientAttack) -> str:
    times = f"{attack.targets} x " if attack.targets else ""
    loss = f"{attack.loss}, " if attack.loss != "margin" else ""
    near = f", near the best, {attack.restarts} x" if attack.restart_from != "clean" else ""
    return f"{times}{loss}`{attack.surrogate}`{near}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, default=reference_root() / ".robench")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="cards to measure, by name")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for noisy, cases in ((False, SILENT), (True, NOISY)):
        names = [named(attack) for attack in members(noisy)]
        print(f"\n| {'noisy' if noisy else 'silent'} network | eps | together | ", end="")
        print(" | ".join(names), "|\n|" + " --- |" * (3 + len(names)))
        for case in cases:
            if asked.only and case.card not in asked.only:
                continue
            started = time.process_time()
            left, adds = Bench(case, asked.store, asked.images).row()
            cells = [case.card, f"{case.eps:g}", f"{left:.1f}", *(f"{add:.1f}" for add in adds)]
            took = time.process_time() - started
            print("|", " | ".join(cells), f"| <!-- {took:.0f} CPU-s -->", flush=True)


if __name__ == "__main__":
    main()
