"""The mended imagecorruptions: equal to the old one, fast equal to slow, and it leaves no trace."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import sys
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robench.corruptions.imagenet_c import blurs as fast_blurs
from robench.corruptions.imagenet_c import compat as imagecorruptions_compat
from robench.corruptions.imagenet_c import fast as imagecorruptions_fast
from robench.corruptions.imagenet_c.compat import COMMON, EXTRA, KINDS, corrupt, mended
from robench.corruptions.imagenet_c.fast import luma
from robench.errors import RobenchError

SEVERITIES = range(1, 6)
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


def stream(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)


def photo() -> np.ndarray:
    """Three handwritten digits as the colours of one 32x32 image: real pixels, always there."""
    digits = load_digits().images[[4, 17, 23]] * 255 / 16
    return np.kron(digits, np.ones((4, 4))).astype(np.uint8).transpose(1, 2, 0)


# -- equal to the unmended package on its own old stack -------------------------------------------


@lru_cache
def golden() -> dict[str, np.ndarray]:
    """What the unmended package answers on the libraries of its time."""
    beside = Path(__file__).resolve().parents[2] / "shared/data/golden"
    file = Path(os.environ.get("ROBENCH_GOLDEN") or beside) / "imagecorruptions-1.1.2.npz"
    if not file.is_file():
        pytest.skip(f"needs {file.name}: set ROBENCH_GOLDEN to the folder that holds it")
    return dict(np.load(file))


@pytest.mark.parametrize("image", ["rgb64", "rgb32", "mnist32"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_old_package(kind: str, image: str) -> None:
    for severity in SEVERITIES:
        answer = corrupt(golden()[f"input/{image}"], kind, severity, stream(1000 + severity))
        old = golden()[f"{image}/{kind}/{severity}"]
        off = np.abs(answer.astype(int) - old)
        if kind == "motion_blur":  # a last bit of sin or exp
            assert off.max() <= 1
            assert np.count_nonzero(off) <= 2
        elif kind == "elastic_transform":  # SciPy mended how it reflects at the border
            assert not off[8:-8, 8:-8].any()
        elif kind == "jpeg_compression" and image != "mnist32":  # Pillow's decoder of colour
            assert off.mean() < 2
        else:
            assert not off.any()


PINS = {
    "gaussian_noise": "72ca6a66627a9671",
    "shot_noise": "5f96e082f08f579c",
    "impulse_noise": "5fbe3a4f5fcf7732",
    "defocus_blur": "20fed45085df7dcd",
    "glass_blur": "81eaeb429e9f0ab8",
    "motion_blur": "2d0812213401f00e",
    "zoom_blur": "d440dfd28880c4dd",
    "snow": "0474ef36c3f8cfce",
    "frost": "84f87fb9fd40c41f",
    "fog": "e52b71132855c419",
    "brightness": "727e0e73bf7d52b3",
    "contrast": "25fbc0a404fe5bca",
    "elastic_transform": "62b163d557e0d051",
    "pixelate": "a8f56c753ce7614c",
    "speckle_noise": "3ec8b0354fc71f23",
    "gaussian_blur": "ac34f7fa3d94ae14",
    "spatter": "ee261053644d30a2",
    "saturate": "ae14da70dffe6279",
}
"""SHA-256 of the five severities of `photo()`, the first 16 digits; jpeg depends on Pillow."""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg_compression"])
def test_answers_are_pinned(kind: str) -> None:
    answers = [corrupt(photo(), kind, severity, stream(severity)) for severity in SEVERITIES]
    assert hashlib.sha256(np.stack(answers).tobytes()).hexdigest()[:16] == PINS[kind]


def test_the_common_and_the_extra_kinds_are_the_packages_nineteen() -> None:
    assert len(COMMON) == 15
    assert len(set(COMMON + EXTRA)) == 19
    assert all(callable(getattr(mended(), kind)) for kind in KINDS)


def test_spatter_without_a_drop_leaves_the_image_as_it_is() -> None:
    assert np.array_equal(corrupt(photo(), "spatter", 1, stream(35)), photo())


# -- the fast kinds -------------------------------------------------------------------------------


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "photo": photo(),
        "noise, 40x57": rng.integers(0, 256, (40, 57, 3), dtype=np.uint8),
        "smooth, 64x64": np.indices((64, 64, 3)).sum(0).astype(np.uint8) * 3,
        "black": np.zeros((32, 32, 3), np.uint8),
        "white": np.full((33, 32, 3), 255, np.uint8),
        "few bytes": np.array(list(product((0, 1, 2, 51, 127, 128, 254, 255), repeat=3)), np.uint8)
        .reshape(32, -1, 3)
        .repeat(2, axis=1)[:, :48],
    }


def large(side: int = 224) -> np.ndarray:
    """Digits over colours that change slowly, with some noise: edges, flat parts, every hue."""
    row, column = np.indices((side, side))
    ramps = np.stack([row, column, (row * column) // side], axis=2) % 256
    digits = np.moveaxis(load_digits().images[[4, 17, 23]], 0, 2)
    ink = digits.repeat(side // 8, axis=0).repeat(side // 8, axis=1) > 9
    noise = np.random.default_rng(0).integers(-9, 10, (side, side, 3))
    noise[: side // 3] = 0
    return np.where(ink, 255 - ramps, ramps + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_fast_equals_slow_bit_for_bit(kind: str) -> None:
    for name, image in images().items():
        for severity in SEVERITIES:
            slow = corrupt(image, kind, severity, stream(7))
            fast = imagecorruptions_fast.corrupt(image, kind, severity, stream(7))
            assert fast.dtype == np.uint8
            assert np.array_equal(fast, slow), (name, severity)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_fast_equals_slow_at_the_size_of_imagenet(kind: str, channels: int) -> None:
    image = large()[..., :channels]
    for severity in (2,) if kind == "glass_blur" else SEVERITIES:  # slow is half a second of it
        slow = corrupt(image.repeat(3 // channels, axis=2), kind, severity, stream(severity))
        fast = imagecorruptions_fast.corrupt(image, kind, severity, stream(severity))
        if channels == 1:
            slow = slow[..., :1] if kind in NOISES else luma(slow)
        assert np.array_equal(fast, slow), severity


@pytest.mark.parametrize("kind", ["brightness", "saturate"])
def test_every_hue_becomes_what_the_package_makes_of_it(kind: str) -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (300, 300, 1))
    near = (base + rng.integers(-2, 3, (300, 300, 3))).clip(0, 255).astype(np.uint8)
    for image in (rng.integers(0, 256, (300, 300, 3), dtype=np.uint8), near):
        for severity in SEVERITIES:
            slow = corrupt(image, kind, severity, stream(0))
            assert np.array_equal(
                imagecorruptions_fast.corrupt(image, kind, severity, stream(0)), slow
            )


def test_the_image_is_left_as_it_was() -> None:
    for image in (large(48), large(48)[..., :1].copy()):
        image.setflags(write=False)
        for kind, severity in product(KINDS, (1, 4)):
            imagecorruptions_fast.corrupt(image, kind, severity, stream(0))


@pytest.mark.parametrize("kind", KINDS)
def test_fast_draws_as_much_as_slow(kind: str) -> None:
    one, other = stream(3), stream(3)
    corrupt(photo(), kind, 3, one)
    imagecorruptions_fast.corrupt(photo(), kind, 3, other)
    assert one.randint(2**31) == other.randint(2**31)


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_image_is_corrupted_as_three_equal_channels(kind: str) -> None:
    grey = photo()[..., :1]
    for severity in SEVERITIES:
        colour = corrupt(np.repeat(grey, 3, axis=2), kind, severity, stream(5))
        expected = colour[..., :1] if kind in NOISES else luma(colour)
        answer = imagecorruptions_fast.corrupt(grey, kind, severity, stream(5))
        assert np.array_equal(answer, expected)


def test_luma_keeps_three_equal_channels() -> None:
    every = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    assert np.array_equal(luma(every), every[..., :1])


@pytest.mark.parametrize(("h", "w", "delta"), [(9, 12, 1), (12, 9, 4), (3, 3, 1), (4, 4, 2)])
def test_the_shuffle_of_glass_blur_is_the_loop_over_pixels(h: int, w: int, delta: int) -> None:
    pixels = np.arange(h * w).reshape(h, w, 1).repeat(3, axis=2)
    loop = pixels.copy()
    random = stream(11)
    for _ in range(3):
        for row in range(h - delta, delta, -1):
            for column in range(w - delta, delta, -1):
                dx, dy = random.randint(-delta, delta, size=(2,))
                there = row + dy, column + dx
                loop[row, column], loop[there] = loop[there], loop[row, column]
    source = fast_blurs.shuffle_sources(h, w, delta, 3, stream(11))
    assert np.array_equal(pixels.reshape(-1, 3)[source].reshape(h, w, 3), loop)


# -- what it leaves behind ------------------------------------------------------------------------


def test_numpys_global_state_is_neither_read_nor_changed() -> None:
    answers = []
    for seed in (0, 1):
        np.random.seed(seed)
        before = np.random.get_state()
        answers.append([corrupt(photo(), kind, 2, stream(1)) for kind in KINDS])
        after = np.random.get_state()
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(*answers)


def test_modules_stood_in_for_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("pkg_resources")
    monkeypatch.setitem(sys.modules, "pkg_resources", mine)
    monkeypatch.delitem(sys.modules, "scipy.ndimage.interpolation", raising=False)
    mended.__wrapped__()
    assert sys.modules["pkg_resources"] is mine
    assert "scipy.ndimage.interpolation" not in sys.modules


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_the_package_itself_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_filename = lambda _package, name: name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pkg_resources", stand_in)
    for name in ("imagecorruptions", "imagecorruptions.corruptions"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    package = importlib.import_module("imagecorruptions.corruptions")
    before = dict(vars(package))
    copy = mended.__wrapped__()
    corrupt(photo(), "fog", 1, stream(0))
    assert copy is not package
    assert dict(vars(package)) == before
    assert package.np is np


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    mended().print("ValueError for Snow, Exception handling")
    assert capsys.readouterr().out == ""


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.2.0")
    with pytest.raises(RobenchError, match=r"imagecorruptions 1\.2\.0 .* mends exactly 1\.1\.2"):
        imagecorruptions_compat.mended.__wrapped__()
