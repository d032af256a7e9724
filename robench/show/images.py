"""The images that attacks made, read from the store and written for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from robench.errors import RobenchError, check_name, nearest, printable
from robench.show.results import Results, answers
from robench.store.store import Damaged, Store

Format = Literal["npz", "png"]
ARRAYS = ("images", "image", "label", "predictions")
"""Of Kept, as they are written."""


@dataclass(frozen=True)
class Kept:
    """The images of one model seed under one threat, in the order of the outcome's rows."""

    model: str
    seed: int
    threat: str
    images: NDArray[np.float32]
    """(n, channels, height, width), in [0, 1]."""
    image: NDArray[np.int32]
    label: NDArray[np.int16]
    predictions: NDArray[np.int16]
    """(n, draws): what the network answered when they were scored."""


def read_images(store: Store, results: Results, model: str, seed: int, threat: str) -> Kept:
    """What a model was shown under a threat: an attack whose images were kept, or what models
    share, corrupted images and those crafted on a surrogate, which always are.

    Raises RobenchError where there are none, or where they are not those of the outcome.
    """
    cell, rows = results.cell(model, seed, threat), results.table(model, seed, threat)
    if cell is None or rows is None:
        known = [t["name"] for t in results.threats if results.cell(model, seed, t["name"])]
        raise RobenchError(
            f"{results.name}: {model} seed {seed}: no outcome under {threat!r}; "
            f"{nearest(threat, known)}"
        )
    where = f"{results.name}: {model} seed {seed} x {threat}"
    again = "run it again with --keep-images (in Python: keep_images=True)"
    if threat == "clean":
        raise RobenchError(f"{where}: clean images are the data set's own, none are kept")
    name, shared = cell["digest"], cell.get("inputs")
    try:
        payload, about = store.read_inputs(shared) if shared else store.read_images(name)
    except FileNotFoundError:
        raise RobenchError(f"{where}: its images were not kept; {again}") from None
    except Damaged as damaged:
        raise RobenchError(f"{where}: its images are damaged: {damaged}; {again}") from None
    listed, outcome = cell.get("images"), cell.get("outcome")
    if not shared and (about["tensors"] != listed or about["outcome"] != outcome):
        raise RobenchError(f"{where}: the images in the store are those of another run; {again}")
    tensors = safetensors.numpy.load(payload)
    image = rows.column("image").to_numpy().astype(np.int32)
    label = rows.column("label").to_numpy().astype(np.int16)
    return Kept(model, seed, threat, tensors["images"], image, label, answers(rows))


def export(
    store: Store,
    results: Results,
    folder: Path,
    form: Format = "npz",
    only: Sequence[str] = (),
) -> Iterator[Path]:
    """Write all images of a report's attacks for other programs: MODEL/seed-N/THREAT.npz, with the
    arrays of Kept, or a folder THREAT/ with a PNG each, rounded to 8 bits.

    Args:
        only: patterns; models and threats that match one; none: all.

    Yields what is written. Raises RobenchError where nothing was kept, or a file cannot be written.
    """
    written = False
    for cell in results.manifest["cells"]:
        model, seed, threat = cell["model"], cell["seed"], cell["threat"]
        wanted = not only or any(fnmatchcase(name, one) for one in only for name in (model, threat))
        if not wanted or cell["status"] != "done" or not (cell.get("images") or cell.get("inputs")):
            continue
        if cell.get("inputs") and not store.has("inputs", cell["inputs"]):
            continue  # made while it was used
        written = True
        for name in (model, threat):
            check_name(name, "images of")
        kept = read_images(store, results, model, seed, threat)
        place = folder / model / f"seed-{seed}" / threat
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if form == "npz":
                place = place.with_name(f"{place.name}.npz")
                arrays = {key: getattr(kept, key) for key in ARRAYS}
                np.savez_compressed(place, **arrays)
            else:
                _pngs(kept, place)
        except OSError as error:
            raise RobenchError(f"{place}: cannot be written: {error.strerror}") from None
        yield place
    if not written:
        raise RobenchError(
            f"{results.name}: no images are kept{' of that' if only else ''}; make them with: "
            f"robench run {results.name} --keep-images"
        )


def _pngs(kept: Kept, folder: Path) -> None:
    """One picture an image: its number in the test set, its label, what it was taken for."""
    from PIL import Image  # which only these need

    channels = kept.images.shape[1]
    if channels not in (1, 3):
        raise RobenchError(f"{kept.threat}: images of {channels} channels are no PNG; take npz")
    folder.mkdir(parents=True, exist_ok=True)
    bytes_ = np.round(kept.images * 255).astype(np.uint8)
    rows = zip(bytes_, kept.image, kept.label, kept.predictions, strict=True)
    for pixels, image, label, said in rows:
        shown = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
        name = printable(f"{int(image):05}-label-{int(label)}-answer-{int(said[0])}.png")
        Image.fromarray(shown).save(folder / name)
