"""imagecorruptions 1.1.2 (Hendrycks & Dietterich, Michaelis et al., 2019) on today's libraries.

The package was last released in 2020 and cannot even be imported where `pkg_resources` is gone.
Here its module is loaded as a private copy, and only names in that copy are mended:

    pkg_resources                 finds the frost textures; gone from setuptools 82
    scipy.ndimage.interpolation   deprecated, goes with SciPy 2; scipy.ndimage has the same function
    numpy.float_                  gone from numpy 2 (fog)
    numpy.random                  the global state; here the caller's, the global one is not touched
    gaussian(multichannel=True)   now channel_axis=-1 (glass_blur, gaussian_blur)
    skimage.util.random_noise     no longer draws from numpy.random (impulse_noise); here it does
    spatter                       where no drop hits (2% of 32-pixel images at severity 1) it
                                  divides 0 by 0 and answers with black; here the image stays
    print                         silenced

The draws are those of numpy's legacy RandomState, whose streams numpy promises never to change. All
answers equal those of the unmended package on the libraries of its time bit for bit, except
jpeg_compression and elastic_transform, which depend on the versions of Pillow and SciPy, and
motion_blur, one grey level off on a few pixels. The file can go when a release of imagecorruptions
takes a generator and runs on numpy 2.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from robench.errors import RobenchError

VERSION = "1.1.2"
COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 kinds that ImageNet-C's mean corruption error is made of."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The 4 further kinds, meant for validation."""
KINDS = COMMON + EXTRA
SMALLEST = 32
"""Pixels a side that the package asks for at least."""

_one_at_a_time = threading.Lock()  # the copy's `np.random` is one for the whole process


def corrupt(
    image: np.ndarray, kind: str, severity: int, random: np.random.RandomState
) -> np.ndarray:
    """What `imagecorruptions.corrupt` answers, with `random` in place of numpy's global state.

    Args:
        image: (h, w, 3), uint8, both sides at least 32.
        kind: one of KINDS. severity: 1 to 5.
        random: the only source of randomness.

    Returns (h, w, 3), uint8.
    """
    from PIL import Image

    package = mended()
    with _one_at_a_time:
        package.np.random = random
        answer = getattr(package, kind)(Image.fromarray(image), severity)
    return np.asarray(answer).astype(np.uint8)  # cuts off, as the package does


@lru_cache(maxsize=1)
def mended() -> ModuleType:
    """A private copy of `imagecorruptions.corruptions`, mended.

    Raises RobenchError when the package is missing or is not the version that this file mends.
    """
    spec = importlib.util.find_spec("imagecorruptions")
    if spec is None or not spec.submodule_search_locations:
        raise RobenchError("imagecorruptions is not installed: pip install imagecorruptions==1.1.2")
    version = importlib.metadata.version("imagecorruptions")
    if version != VERSION:
        raise RobenchError(
            f"imagecorruptions {version} is installed; robench mends exactly {VERSION}: "
            f"pip install imagecorruptions=={VERSION}"
        )
    folder = Path(spec.submodule_search_locations[0])
    source = importlib.util.spec_from_file_location(
        "robench.corruptions._imagecorruptions", folder / "corruptions.py"
    )
    assert source is not None
    assert source.loader is not None
    copy = importlib.util.module_from_spec(source)
    with _stand_ins(folder):
        source.loader.exec_module(copy)
    _mend(copy)
    return copy


def texture_files() -> tuple[Path, ...]:
    """The frost textures in the package's order."""
    package = mended()
    names = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")
    return tuple(Path(package.resource_filename(package.__name__, f"./frost/{n}")) for n in names)


@contextlib.contextmanager
def _stand_ins(folder: Path) -> Iterator[None]:
    """What the package imports and may no longer find; sys.modules is put back afterwards."""
    import scipy.ndimage

    resources = ModuleType("pkg_resources")
    resources.resource_filename = (  # type: ignore[attr-defined]
        lambda _package, name: str(folder / name)
    )
    interpolation = ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = scipy.ndimage.map_coordinates  # type: ignore[attr-defined]
    stand_ins = {module.__name__: module for module in (resources, interpolation)}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _mend(copy: Any) -> None:
    import skimage.color
    import skimage.filters

    def gaussian(image: np.ndarray, sigma: Any, multichannel: bool = False, **options: Any) -> Any:
        axis = -1 if multichannel else None
        blur: Any = skimage.filters.gaussian
        return blur(image, sigma, channel_axis=axis, **options)

    def random_noise(image: np.ndarray, mode: str, amount: float) -> np.ndarray:
        """Salt and pepper as scikit-image 0.17 drew it."""
        assert mode == "s&p"
        choices = np.array([True, False])
        flipped = numpy.random.choice(choices, size=image.shape, p=[amount, 1 - amount])
        salted = numpy.random.choice(choices, size=image.shape, p=[0.5, 0.5])
        return np.where(flipped, salted.astype(image.dtype), image)

    def spatter(image: Any, severity: int = 1) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            answer = unmended_spatter(image, severity)
        return np.where(np.isnan(answer), np.asarray(image), answer)

    unmended_spatter = copy.spatter
    numpy = _NumPy("numpy")
    copy.np = numpy
    copy.gaussian = gaussian
    copy.sk = SimpleNamespace(color=skimage.color, util=SimpleNamespace(random_noise=random_noise))
    copy.spatter = spatter
    copy.print = lambda *_: None


class _NumPy(ModuleType):
    """numpy with a `random` of its own."""

    random: Any = None
    float_ = np.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
