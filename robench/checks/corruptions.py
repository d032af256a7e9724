"""What every corruption must fulfil: checks that `robench check` runs in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from robench.checks.finding import GLOBAL, Result, findings, global_state, pickles
from robench.corruptions.base import Corruption
from robench.corruptions.make import ROUNDING, image_rng
from robench.data.digits import Digits
from robench.errors import RobenchError
from robench.plugin_code.guard import Meddled, guarded

SEVERITIES = (1, 2, 3, 4, 5)
IMAGES = 8
FALLS = 0.3
"""By which share the distance to the clean image may fall from one severity to the next: published
scales are not strictly monotone."""
Make = Callable[..., Corruption]
Asked = tuple[str, int, int]
"""Kind, severity, index of the image."""


def pictures(channels: int) -> list[np.ndarray]:
    """Digits of 32x32 pixels, (32, 32, c) in [0, 1], on backgrounds that are neither black nor
    white."""
    digits = torch.from_numpy(Digits().load().test.images[:IMAGES])
    smooth = F.interpolate(digits, (32, 32), mode="bilinear")[:, 0].numpy()
    large = 0.15 + 0.7 * smooth
    tints = np.linspace(1.0, 0.7, channels, dtype=np.float32)
    return [np.ascontiguousarray(image[:, :, None] * tints, np.float32) for image in large]


class Corrupted:
    """A corruption, and what it made of the pictures of a number of channels."""

    def __init__(self, make: Make, channels: int) -> None:
        self.corruption = make()
        self.clean = pictures(channels)
        self.wrote = False
        before = global_state()
        self.meddled = ""
        try:
            with guarded(f"corruption {type(self.corruption).__name__}", None):
                self.made = {asked: self.ask(*asked) for asked in self.asked()}
        except Meddled as error:
            self.meddled = str(error)
        self.drew_elsewhere = global_state() != before

    def asked(self) -> Iterator[Asked]:
        return product(self.corruption.kinds, SEVERITIES, range(len(self.clean)))

    def ask(self, kind: str, severity: int, index: int) -> Any:
        image = self.clean[index].copy()
        answer = self.corruption.corrupt(image, kind, severity, image_rng(9, index))
        self.wrote |= not np.array_equal(image, self.clean[index])
        return np.array(answer)

    def far(self, kind: str, severity: int) -> float:
        """Mean root mean square distance to the clean images."""
        gaps = [self.made[kind, severity, i] - clean for i, clean in enumerate(self.clean)]
        return float(np.mean([np.sqrt(np.mean(gap**2)) for gap in gaps]))


def check_corruption(make: Make) -> list[Result]:
    """All checks of a corruption, one finding each; of a set made before, that it pickles."""
    results = findings([pickles, kinds], make)
    if not results[-1].passed or made_before(make()):
        return results
    grey: Corrupted | None = None
    for channels in (1, 3):
        what = f"{'grey' if channels == 1 else 'colour'} pictures"
        try:
            trial = Corrupted(make, channels)
        except RobenchError as error:  # said in words that a user can act on
            results.append(Result("images", channels == 1, f"not on {what}: {error}"))
            continue
        except Exception as error:
            said = f"raises {type(error).__name__} on {what}: {error}"
            results.append(Result("images", False, said))
            continue
        if trial.meddled:
            results.append(Result("isolation", False, trial.meddled))
            continue
        answered = findings([shape, range_], trial)
        if not all(finding.passed for finding in answered):
            return results + answered
        if grey is None:
            results += answered
            grey = trial
    if grey is not None:
        results += findings([untouched, seeds, batches, effect, severities], grey)
    return results


def kinds(make: Make) -> str:
    """It says which kinds there are."""
    own = make().kinds
    sound = bool(own) and len(set(own)) == len(own)
    return "" if sound else f"kinds = {own!r}: name each once, at least one"


def made_before(corruption: Corruption) -> bool:
    """Whether the images are read from files, which lie elsewhere."""
    return type(corruption).given is not Corruption.given


def shape(trial: Corrupted) -> str:
    """The answer is an array like the image."""
    for (kind, severity, index), answer in trial.made.items():
        wanted = trial.clean[index].shape
        if answer.shape != wanted or not np.issubdtype(answer.dtype, np.floating):
            said = f"{kind} at severity {severity} answers {answer.dtype} {answer.shape}"
            return f"{said}, not floats {wanted}"
    return ""


def range_(trial: Corrupted) -> str:
    """The answer stays in [0, 1]."""
    for (kind, severity, _), answer in trial.made.items():
        low, high = float(answer.min()), float(answer.max())
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            return f"{kind} at severity {severity} leaves [0, 1]: [{low:.4g}, {high:.4g}]"
    return ""


def untouched(trial: Corrupted) -> str:
    """The image that it is given is left as it was."""
    return "it writes into the image that it is given: copy it first" if trial.wrote else ""


def seeds(trial: Corrupted) -> str:
    """The same seed gives the same bits, and nothing is drawn from global random states."""
    if trial.drew_elsewhere:
        return GLOBAL
    for kind in trial.corruption.kinds:
        asked = (kind, 3, 0)
        if not np.array_equal(trial.ask(*asked), trial.ask(*asked)):
            return f"{kind}: two answers with one rng differ: use rng alone"
    return ""


def batches(trial: Corrupted) -> str:
    """What becomes of an image depends neither on those before it nor on how many there are."""
    for asked in reversed(list(trial.asked())):
        if not np.array_equal(trial.ask(*asked), trial.made[asked]):
            return f"{asked[0]}: results depend on the order of images"
    return ""


def effect(trial: Corrupted) -> str:
    """The strongest severity changes images."""
    still = [kind for kind in trial.corruption.kinds if trial.far(kind, 5) < 1e-4]
    return f"a no-op: {', '.join(still)} leaves the images as they are" if still else ""


def severities(trial: Corrupted) -> str:
    """Higher severities do more."""
    for kind in trial.corruption.kinds:
        far = [trial.far(kind, severity) for severity in SEVERITIES]
        if far[-1] <= far[0] or any(b < (1 - FALLS) * a for a, b in pairwise(far)):
            shown = ", ".join(f"{value:.3f}" for value in far)
            return f"{kind}: distance to the clean image by severity: {shown}; it must grow"
    return ""
