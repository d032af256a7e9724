"""Corruptions as reports use them: reproducible, at any size, and clear about what is wrong."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_digits

from robench.corruptions.base import Corruption
from robench.corruptions.glr_mnist import GLRMnist
from robench.corruptions.imagenet_c.compat import KINDS
from robench.corruptions.imagenet_c.corruption import ImageNetC
from robench.corruptions.make import corrupt_images
from robench.errors import RobenchError
from robench.workspace import plugins
from robench.workspace.folders import open_workspace, reference_root

DIGITS = (load_digits().images[:6, None] / 16).astype(np.float32)
EVERY = {"pad": ImageNetC(kinds=KINDS, small="pad"), "scale": ImageNetC(kinds=KINDS, small="scale")}
GREY = np.full((40, 1, 8, 8), 0.5, np.float32)


def photos(n: int, h: int = 32, w: int = 32) -> np.ndarray:
    """Images with structure: (n, 3, h, w)."""
    rng = np.random.default_rng(0)
    coarse = rng.random((n, 3, h // 4, w // 4))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)


def sha(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]


# -- reproducible ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_its_batch(kind: str) -> None:
    whole = corrupt_images(EVERY["scale"], DIGITS, 0, kind, 3, 0)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        part = corrupt_images(EVERY["scale"], DIGITS[start:stop], start, kind, 3, 0)
        assert np.array_equal(part, whole[start:stop])


def test_an_image_does_not_depend_on_what_was_made_before() -> None:
    pairs = [(kind, severity) for kind in KINDS for severity in (1, 5)]
    forth = {pair: corrupt_images(EVERY["pad"], DIGITS[:1], 9, *pair, 0) for pair in pairs}
    back = {pair: corrupt_images(EVERY["pad"], DIGITS[:1], 9, *pair, 0) for pair in pairs[::-1]}
    assert all(np.array_equal(forth[pair], back[pair]) for pair in pairs)


@pytest.mark.parametrize("corruption", [EVERY["pad"], GLRMnist()], ids=["imagenet-c", "glr-mnist"])
def test_numpys_global_state_does_not_matter_and_is_left_alone(corruption: Corruption) -> None:
    made = []
    for seed in (0, 1):
        np.random.seed(seed)
        before = np.random.get_state()
        made.append([corrupt_images(corruption, DIGITS[:1], 0, k, 2, 0) for k in corruption.kinds])
        after = np.random.get_state()
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.array_equal(*made)


def test_another_process_makes_the_same_bytes() -> None:
    jobs = [(EVERY["scale"], DIGITS[:2], 0, kind, 4, 0) for kind in KINDS]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        there = list(pool.map(corrupt_images, *zip(*jobs, strict=True)))
    assert all(np.array_equal(a, corrupt_images(*job)) for a, job in zip(there, jobs, strict=True))


@pytest.mark.parametrize("kind", ["gaussian_noise", "glass_blur", "motion_blur", "frost", "fog"])
def test_index_seed_kind_and_severity_each_matter(kind: str) -> None:
    def made(index: int = 0, severity: int = 2, seed: int = 0) -> np.ndarray:
        return corrupt_images(EVERY["pad"], photos(1), index, kind, severity, seed)

    assert not np.array_equal(made(), made(index=1))
    assert not np.array_equal(made(), made(severity=3))
    assert not np.array_equal(made(), made(seed=1))


def test_kinds_draw_independently() -> None:
    grey = np.full((1, 3, 32, 32), 0.5, np.float32)
    noises = [
        corrupt_images(EVERY["pad"], grey, 0, kind, 1, 0).ravel() - 0.5
        for kind in ("gaussian_noise", "speckle_noise")
    ]
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.1


PINS = {
    "gaussian_noise": ("c5ce2c17cfe5811e", "f436f9af4d3b41f1"),
    "shot_noise": ("38076fa1bfee8b68", "d61da95519e85126"),
    "impulse_noise": ("d459035db1a7d602", "1eb739f836ae950e"),
    "defocus_blur": ("078b93abdb1cf14e", "32ebb75542c8bb72"),
    "glass_blur": ("90ff28e168a5d47b", "5a8f7ec6845585e5"),
    "motion_blur": ("8a03cef219e22061", "cd497119d021f045"),
    "zoom_blur": ("38713f317938a595", "d5270f6b61c5410a"),
    "snow": ("d96e291e724bde99", "55b6da344bf54837"),
    "frost": ("87f848b28ff2e575", "e44419e08196ea31"),
    "fog": ("6499638b76047a2d", "8ad7812bb8e29f67"),
    "brightness": ("5c4c4509546ff304", "5c4c4509546ff304"),
    "contrast": ("81640e5fb4a32638", "de4cc2f502143cd1"),
    "elastic_transform": ("2893186fdb622381", "a60a3891cbd961be"),
    "pixelate": ("bb98157b5af3d2ad", "b0e567f8fcf405d7"),
    "speckle_noise": ("624fb16892b7bb1a", "4805e376411e824d"),
    "gaussian_blur": ("54180485297b5c05", "ec943d0018d4bf18"),
    "spatter": ("81c0064dcdc786ae", "9ad47139d6d61a26"),
    "saturate": ("f82e998029db10cf", "f82e998029db10cf"),
}
"""SHA-256 of two digits at severities 1 and 5, padded and scaled; jpeg depends on Pillow."""


@pytest.mark.parametrize("kind", PINS)
def test_images_are_pinned(kind: str) -> None:
    assert (pinned(EVERY["pad"], kind), pinned(EVERY["scale"], kind)) == PINS[kind]


def pinned(corruption: Corruption, kind: str) -> str:
    return sha(np.stack([corrupt_images(corruption, DIGITS[:2], 0, kind, s, 0) for s in (1, 5)]))


GLR_PINS = {
    "gaussian": "c08c89f184141a40",
    "impulse": "367f50c3bd75e80b",
    "glass": "45565ccc5736c0eb",
    "contrast": "f7f3a2276f4c86c4",
}


@pytest.mark.parametrize("kind", GLR_PINS)
def test_images_of_glr_are_pinned(kind: str) -> None:
    assert pinned(GLRMnist(), kind) == GLR_PINS[kind]


# -- imagenet-c at any size -----------------------------------------------------------------------


@pytest.mark.parametrize("small", ["pad", "scale"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_grey_or_colour_gives_bytes_of_the_same_shape(kind: str, small: str) -> None:
    for severity, shape in product((1, 5), ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 40))):
        images = np.resize(photos(1), (1, *shape))
        answer = corrupt_images(EVERY[small], images, 0, kind, severity, 0)
        assert answer.shape == images.shape
        assert answer.dtype == np.float32
        levels = np.round(answer * 255)
        assert np.array_equal(levels.astype(np.float32) / np.float32(255), answer)
        assert levels.min() >= 0
        assert levels.max() <= 255


@pytest.mark.parametrize("small", ["pad", "scale"])
def test_what_is_brought_to_32_pixels_is_brought_back_in_place(small: str) -> None:
    brighter = corrupt_images(EVERY[small], DIGITS, 0, "brightness", 3, 0)
    pixels = np.round(DIGITS * 255) / 255
    expected = np.floor(np.clip(pixels + 0.3, 0, 1) * 255) / 255
    assert np.abs(brighter - expected).max() < 1.01 / 255  # the package cuts off, and rounds


@pytest.mark.parametrize(("small", "sigma"), [("pad", 0.08), ("scale", 0.08 / 4)])
def test_noise_keeps_its_strength_when_padded_and_is_averaged_when_scaled(
    small: str, sigma: float
) -> None:
    noisy = corrupt_images(EVERY[small], GREY, 0, "gaussian_noise", 1, 0)
    assert noisy.std() == pytest.approx(sigma, rel=0.05)


def test_noise_on_a_grey_image_is_as_strong_as_on_a_colour_channel() -> None:
    grey = np.full((4, 1, 32, 32), 0.5, np.float32)
    noisy = corrupt_images(EVERY["pad"], grey, 0, "gaussian_noise", 1, 0)
    assert noisy.std() == pytest.approx(0.08, rel=0.05)


def test_large_images_do_not_depend_on_the_treatment_of_small_ones() -> None:
    for kind in ("glass_blur", "fog"):
        made = [corrupt_images(EVERY[small], photos(1, 40, 36), 0, kind, 2, 0) for small in EVERY]
        assert np.array_equal(*made)


@pytest.mark.parametrize("kind", ["gaussian_noise", "impulse_noise", "defocus_blur", "contrast"])
def test_severity_takes_the_image_further_away(kind: str) -> None:
    far = [
        np.square(corrupt_images(EVERY["pad"], photos(3), 0, kind, s, 0) - photos(3)).mean()
        for s in range(1, 6)
    ]
    assert far == sorted(far)


# -- glr-mnist ------------------------------------------------------------------------------------


def test_glr_gaussian_noise_has_the_papers_deviations() -> None:
    images = np.full((60, 1, 14, 14), 0.5, np.float32)
    for severity, sigma in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1):
        noisy = corrupt_images(GLRMnist(), images, 0, "gaussian", severity, 0)
        assert noisy.std() == pytest.approx(sigma, rel=0.03)


def test_glr_impulse_noise_strikes_the_papers_share_with_as_much_salt_as_pepper() -> None:
    images = np.full((200, 1, 14, 14), 0.5, np.float32)
    for severity, amount in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), start=1):
        noisy = corrupt_images(GLRMnist(), images, 0, "impulse", severity, 0)
        assert set(np.unique(noisy)) == {0.0, 0.5, 1.0}
        assert (noisy != 0.5).mean() == pytest.approx(amount, rel=0.15)
        assert noisy.mean() == pytest.approx(0.5, abs=0.01)


def test_glr_contrast_keeps_the_papers_share_of_the_distance_to_the_mean() -> None:
    mean = DIGITS.mean(axis=(2, 3), keepdims=True)
    for severity, share in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), start=1):
        faint = corrupt_images(GLRMnist(), DIGITS, 0, "contrast", severity, 0)
        assert faint == pytest.approx(mean + share * (DIGITS - mean), abs=1e-6)


def test_glr_glass_moves_pixels_and_loses_none() -> None:
    image = np.random.default_rng(0).permutation(14 * 14).reshape(1, 1, 14, 14) / np.float32(255)
    moved = corrupt_images(GLRMnist(), image.astype(np.float32), 0, "glass", 1, 0)
    assert not np.array_equal(moved, image)
    assert np.abs(np.sort(moved.ravel()) - np.sort(image.ravel())).max() < 1.01 / 255


@pytest.mark.parametrize("kind", ["gaussian", "impulse", "glass", "contrast"])
def test_glr_takes_images_of_any_size(kind: str) -> None:
    for shape in ((1, 2, 2), (1, 14, 14), (1, 28, 28), (3, 9, 12)):
        images = np.resize(photos(1), (1, *shape))
        assert corrupt_images(GLRMnist(), images, 0, kind, 5, 0).shape == images.shape


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.full((2, 1, 8, 8), 1.5, np.float32), "image 10 has pixels from 1.5 to 1.5"),
        (np.full((2, 1, 8, 8), -0.1, np.float32), "not in \\[0, 1\\]"),
        (np.full((2, 1, 8, 8), np.nan, np.float32), "image 10 has pixels from nan"),
        (np.zeros((2, 2, 8, 8), np.float32), "1 or 3 channels"),
        (np.zeros((8, 8), np.float32), "must be \\(n, c, h, w\\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), "type uint8: must be float32"),
    ],
)
def test_images_that_are_not_such_are_refused(images: np.ndarray, says: str) -> None:
    with pytest.raises(RobenchError, match=says) as refused:
        corrupt_images(EVERY["pad"], images, 10, "fog", 1, 0)
    assert "\n" not in str(refused.value)


def test_only_the_bad_image_is_blamed() -> None:
    images = np.concatenate([DIGITS, np.full((1, 1, 8, 8), 2, np.float32)])
    with pytest.raises(RobenchError, match="image 106 has"):
        corrupt_images(EVERY["pad"], images, 100, "fog", 1, 0)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True])
def test_a_severity_outside_1_to_5_is_refused(severity: Any) -> None:
    with pytest.raises(RobenchError, match=r"severity = .*must be 1, 2, 3, 4 or 5"):
        corrupt_images(EVERY["pad"], DIGITS, 0, "fog", severity, 0)


def test_an_unknown_kind_is_answered_with_the_near_ones() -> None:
    with pytest.raises(RobenchError, match="'fogg': unknown; did you mean fog"):
        corrupt_images(EVERY["pad"], DIGITS, 0, "fogg", 1, 0)


def test_a_card_with_an_unknown_kind_is_answered_with_the_near_ones(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write("corruptions/mine.toml", 'corruption = { name = "imagenet-c", kinds = ["glas_blur"] }')
    card = open_workspace(tmp_path).card("corruptions", "mine")
    with pytest.raises(RobenchError, match=r"mine\.toml.*kinds\.0 = 'glas_blur'.*glass_blur"):
        plugins.resolve("corruptions", card.corruption, card)


@pytest.mark.parametrize("kinds", [[], ["fog", "fog"]])
def test_no_kinds_or_one_twice_is_refused(kinds: list[str]) -> None:
    with pytest.raises(ValidationError):
        ImageNetC(kinds=kinds)


class Broken(Corruption):
    """Answers as it is told."""

    kinds: tuple[str, ...] = ("any",)
    answer: Any = None

    def corrupt(self, image: np.ndarray, *_: Any) -> Any:
        return self.answer(image)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda image: image[:4], "has shape \\(1, 4, 8\\), the image has \\(1, 8, 8\\)"),
        (lambda image: None, "has shape \\(\\)"),
        (lambda image: image + 1, "goes from 1 to 1.9"),
        (lambda image: image * np.nan, "goes from nan to nan"),
    ],
)
def test_a_plugin_that_answers_something_else_is_named(answer: Any, says: str) -> None:
    corruption = Broken()
    corruption.answer = answer
    with pytest.raises(RobenchError, match=f"Broken: any at severity 1 of image 3: .*{says}"):
        corrupt_images(corruption, DIGITS[:1], 3, "any", 1, 0)


# -- the cards and their README -------------------------------------------------------------------


@pytest.mark.parametrize("name", open_workspace(reference_root()).names("corruptions"))
def test_every_card_of_the_reference_workspace_resolves(name: str) -> None:
    card = open_workspace(reference_root()).card("corruptions", name)
    corruption = plugins.build("corruptions", card.corruption, card)
    for kind in corruption.kinds:
        assert corrupt_images(corruption, DIGITS[:1], 0, kind, 1, 0).shape == (1, 1, 8, 8)


def test_the_readmes_own_corruption_works(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    readme = (reference_root() / "corruptions/README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    write("corruptions/stripes.py", code)
    write("corruptions/mine.toml", 'corruption = { name = "./stripes.py:Stripes", width = 1 }')
    card = open_workspace(tmp_path).card("corruptions", "mine")
    corruption = plugins.build("corruptions", card.corruption, card)
    white = np.ones((1, 1, 8, 8), np.float32)
    striped = corrupt_images(corruption, white, 0, "vertical", 3, 0)
    assert (striped[0, 0] == 0).all(axis=0).sum() == 3


def test_every_setting_of_the_built_ins_is_in_the_readme() -> None:
    readme = (reference_root() / "corruptions/README.md").read_text()
    for name in plugins.BUILT_IN["corruptions"]:
        assert f"`{name}`" in readme
        for field in plugins.load("corruptions", name).fields().model_fields:
            assert f"`{field}`" in readme
