"""ImageNet's validation images (ILSVRC 2012), in a folder per class or as their publisher ships
them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from robench.data.image_folder import ImageFolder, Listing, pictures
from robench.errors import RobenchError, system_words
from robench.workspace.plugins import Setting

DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
CLASSES = 1000


class ImageNet(ImageFolder):
    """Photographs in a thousand classes, the 50,000 for validation (Russakovsky et al. 2015), all
    for testing. Classes are in the order of their WordNet ids, as published networks have them."""

    path: Setting = "imagenet"
    """The folder: holds `val` with a folder per WordNet id, or with the images alone beside the
    publisher's `ILSVRC2012_devkit_t12`; the folders of classes alone will do."""
    resize: int = Field(default=256, ge=0, le=8192)
    """What the shorter side is brought to before the middle is cut out; 0: `side`."""
    aside: ClassVar[tuple[str, ...]] = (*ImageFolder.aside, DEVKIT.partition("/")[0])

    @classmethod
    def listed(cls, place: Path, where: str = "") -> Listing:
        """What lies in a folder. Raises RobenchError where it is not ImageNet's."""
        where = where or str(place)
        inner = place / "val" if (place / "val").is_dir() else place
        if not any(each.is_dir() and each.name.startswith("n") for each in inner.iterdir()):
            return _by_devkit(place, inner, where)
        listing = super().listed(inner, where)
        if len(listing.classes) != CLASSES:
            raise RobenchError(
                f"{where}: {inner} holds {len(listing.classes)} folders of pictures, ImageNet has "
                f"{CLASSES}; for some of its classes say dataset = {{ name = 'imagefolder' }}"
            )
        return listing


def _by_devkit(place: Path, inner: Path, where: str) -> Listing:
    """Image i is of the class that line i of the publisher's ground truth says, by its own
    numbers, which `meta.mat` gives WordNet ids for."""
    from scipy.io import loadmat

    devkit, files = place / DEVKIT, pictures(inner)
    if not files:
        raise RobenchError(
            f"{where}: {inner} holds neither a folder for each WordNet id nor the publisher's "
            "pictures"
        )
    if not devkit.is_dir():
        raise RobenchError(
            f"{where}: {inner} holds {len(files)} pictures in no folders of classes: of which "
            "class each is, the publisher's devkit says; unpack ILSVRC2012_devkit_t12.tar.gz so "
            f"that {devkit / TRUTH} is there"
        )
    try:
        lines = (devkit / TRUTH).read_text("utf-8").split()
        synsets = loadmat(devkit / META, squeeze_me=True)["synsets"]
        ids = {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
        wnids = [ids[int(line)] for line in lines]
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RobenchError(
            f"{where}: {devkit} does not hold the publisher's {TRUTH} and {META} "
            f"({system_words(error)})"
        ) from None
    if len(files) != len(wnids):
        raise RobenchError(
            f"{where}: {inner} holds {len(files)} pictures, but {TRUTH} has {len(wnids)} lines"
        )
    names = sorted(ids[number] for number in ids if number <= CLASSES)
    label = {name: number for number, name in enumerate(names)}
    return Listing(
        tuple(names), [], [], [(file, label[name]) for file, name in zip(files, wnids, strict=True)]
    )
