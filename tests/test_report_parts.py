"""What a page is put together from: pictures, thinned curves, times as people write them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from robench.show.report.payload import curves, runs
from robench.show.report.pictures import difference, strip, webp
from robench.show.report.text import seconds


@pytest.mark.parametrize("channels", [2, 4])
def test_a_picture_decodes_to_the_pixels_it_was_given(channels: int) -> None:
    """Those behind full transparency, too."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    pixels[0, 0, -1] = 0
    decoded = np.asarray(Image.open(io.BytesIO(webp(pixels))).convert("RGBA"))
    colours = [0, 0, 0, 1] if channels == 2 else [0, 1, 2, 3]
    assert (decoded == pixels[:, :, colours]).all()


def test_the_difference_is_magnified_to_fill_the_range() -> None:
    clean = np.full((1, 2, 2, 1), 100, np.uint8)
    moved = clean.copy()
    moved[0, 0, 0] += 10
    shown, factor = difference(moved, clean)
    assert factor == 13
    assert shown[0, 0, 0, 0] > 250
    assert shown[0, 1, 1, 0] == 127


def test_an_unperturbed_image_differs_by_plain_grey() -> None:
    clean = np.full((1, 2, 2, 1), 100, np.uint8)
    shown, factor = difference(clean, clean)
    assert (factor, set(np.unique(shown))) == (1.0, {127})


def test_a_strip_keeps_the_place_of_a_missing_image() -> None:
    tile = np.zeros((4, 4, 1), np.uint8)
    made = strip("fog", [tile, None, tile])
    assert made is not None
    assert made.tiles == 3


def test_long_training_curves_are_thinned_and_keep_their_end() -> None:
    history = [{"epoch": float(i), "loss": 1 / i, "seconds": 3.0} for i in range(1, 501)]
    thin = curves(history)
    assert len(thin["loss"]) <= 60
    assert thin["epoch"][-1] == 500
    assert "seconds" not in thin


def test_the_runs_of_an_attack_are_told_apart() -> None:
    trace = {"loss_trace": [0.1, 0.2, 0.3, 0.1, 0.4], "loss_runs": [0, 3]}
    assert runs(trace) == [[0.1, 0.2, 0.3], [0.1, 0.4]]
    assert runs({"loss_trace": [0.1, 0.2]}) == [[0.1, 0.2]]


def test_a_loss_that_is_not_finite_becomes_a_gap() -> None:
    assert curves([{"epoch": 1.0, "loss": math.nan}])["loss"] == [None]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.4 s"), (12.2, "12 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")],
)
def test_times_are_written_for_people(value: float, text: str) -> None:
    assert seconds(value) == text
