"""All of imagecorruptions, bit-identical, without its loops in Python and needless work.

`compat.corrupt` is the reference that tests compare with. What is saved:

    glass_blur            one draw for all pixels; the pixel-by-pixel shuffle as pointer jumping
    motion_blur, snow     pieces of one padded image instead of a rolled copy per step
    snow                  two-dimensional interpolation (the third has one place)
    defocus_blur          all channels at once
    zoom_blur             interpolation weights kept per image size
    elastic_transform     two-dimensional interpolation per channel (the third is not interpolated)
    frost                 textures kept
    fog                   the height map without rolled copies
    brightness, saturate  one of six arrangements of a pixel's channels, not all to choose from
    contrast              a table of what each byte becomes
    impulse_noise         draws compared with the two probabilities, not searched for among them
    pixelate, jpeg        no copies between libraries but the needed ones
    grey images           one channel, not three equal ones, where channels know nothing of others

spatter is the package's own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robench.corruptions.imagenet_c import blurs, colours, digital, noises, weather
from robench.corruptions.imagenet_c.compat import corrupt as corrupt_as_packaged

Kind = Callable[[np.ndarray, int, np.random.RandomState], np.ndarray]
ANY_CHANNELS: dict[str, Kind] = {
    "gaussian_noise": noises.gaussian_noise,
    "shot_noise": noises.shot_noise,
    "impulse_noise": noises.impulse_noise,
    "speckle_noise": noises.speckle_noise,
    "glass_blur": blurs.glass_blur,
    "motion_blur": blurs.motion_blur,
    "zoom_blur": blurs.zoom_blur,
    "defocus_blur": blurs.defocus_blur,
    "gaussian_blur": blurs.gaussian_blur,
    "elastic_transform": blurs.elastic_transform,
    "contrast": digital.contrast,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
"""Kinds whose channels know nothing of each other."""
THREE_CHANNELS: dict[str, Kind] = {
    "frost": weather.frost,
    "snow": weather.snow,
    "fog": weather.fog,
    "brightness": colours.brightness,
    "saturate": colours.saturate,
    "spatter": lambda *asked: corrupt_as_packaged(asked[0], "spatter", *asked[1:]),
}


def corrupt(
    image: np.ndarray, kind: str, severity: int, random: np.random.RandomState
) -> np.ndarray:
    """What `compat.corrupt` answers, sooner; grey images stay grey.

    A grey image counts as three equal channels. The answer's channels are brought back to one: of
    the noises the first is kept, since a mean would weaken them; the others (where at most frost,
    mud and colour make the channels differ) are weighted by 0.299, 0.587, 0.114.

    Args:
        image: (h, w, 3) or (h, w, 1), uint8, both sides at least 32.
        kind, severity, random: as there.

    Returns an array like `image`.
    """
    if kind in ANY_CHANNELS:
        return ANY_CHANNELS[kind](image, severity, random)
    if image.shape[2] == 3:
        return THREE_CHANNELS[kind](image, severity, random)
    return luma(THREE_CHANNELS[kind](np.repeat(image, 3, axis=2), severity, random))


def luma(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) -> (h, w, 1), uint8; three equal channels stay what they are."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536
    return ((image @ weights + 32768) >> 16).astype(np.uint8)[..., None]
