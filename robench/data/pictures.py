"""Images that stay in their files: sliced like an array, decoded when they are asked for."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robench.digest import digest_bytes
from robench.errors import RobenchError, system_words

LARGEST = 2**28
"""Bytes of a picture's file."""
MOST_PIXELS = 2**27
"""Pixels of a picture before it is brought to size; what claims more is taken for a bomb."""
WHOLE = 2**33
"""Bytes that `numpy.asarray` may decode at once."""

KNOWN: dict[Any, Any] = {}
"""What this process has found in folders, until a file turns out to be another."""


@dataclass(frozen=True)
class Shaping:
    """How pictures of any size come to one: shorter side to `resize`, the middle `side` x `side`
    cut out; with `crop` = "none" the whole picture is brought to `side` x `side`. Antialiased."""

    side: int
    resize: int
    crop: Literal["centre", "none"] = "centre"
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    grey: bool = False

    def __call__(self, data: bytes) -> np.ndarray:
        """The bytes of a picture's file as (c, side, side), uint8. Raises whatever a decoder
        does."""
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"{opened.width}x{opened.height} pixels, more than 2^27")
            turned = in_bytes(ImageOps.exif_transpose(opened), opened.format)
            image = turned.convert("L" if self.grey else "RGB")
        how = Image.Resampling[self.filter.upper()]
        if self.crop == "none":
            image = image.resize((self.side, self.side), how)
        else:
            image = self._cut(image, how)
        pixels = np.asarray(image)
        return pixels[None] if self.grey else pixels.transpose(2, 0, 1)

    def _cut(self, image: Any, how: Any) -> Any:
        short = min(image.size)
        if short != self.resize:
            wide, high = (int(size * self.resize / short) for size in image.size)
            if wide * high > MOST_PIXELS:
                said = f"{image.width}x{image.height} pixels would become {wide}x{high}"
                raise ValueError(f"{said}, more than 2^27, before the middle is cut out")
            image = image.resize((max(wide, self.resize), max(high, self.resize)), how)
        left, top = (round((size - self.side) / 2) for size in image.size)
        return image.crop((left, top, left + self.side, top + self.side))


def in_bytes(image: Any, kind: str | None) -> Any:
    """A picture whose levels are bytes. Of 16 bits the white is that of its kind; Pillow itself
    would make white of all above 255. Raises ValueError where no white is known."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"levels of 32 bits ({kind}, mode {image.mode}), of which nobody knows what is white; "
            "write it anew with 8 or 16 bits"
        )
    return image


class Pictures:
    """Images (n, c, side, side), float32 in [0, 1], read from their files whenever they are sliced.

    What is read is held against the digest by which the file was known at first, so that images are
    never others than those that the identities name.
    """

    ndim = 4
    dtype = np.dtype(np.float32)

    def __init__(self, files: Sequence[Path], digests: Sequence[str], shaping: Shaping) -> None:
        """
        Args:
            files: a picture each. digests: SHA-256 of each file, in hex.
        """
        self._files, self.digests, self._shaping = tuple(files), tuple(digests), shaping

    def __len__(self) -> int:
        return len(self._files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        side = self._shaping.side
        return len(self), 1 if self._shaping.grey else 3, side, side

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the files and how they are brought to size."""
        return digest_bytes(repr(astuple(self._shaping)).encode(), *map(str.encode, self.digests))

    def take(self, items: np.ndarray, axis: int = 0) -> Pictures:
        """Some of them in another order, still undecoded."""
        return Pictures(
            [self._files[i] for i in items], [self.digests[i] for i in items], self._shaping
        )

    def __getitem__(self, items: Any) -> np.ndarray:
        """Decoded: an image for a number, else a batch for a slice or an array of numbers."""
        numbers = np.arange(len(self))[items]
        if numbers.ndim == 0:
            return self._read(int(numbers))
        batch = np.empty((len(numbers), *self.shape[1:]), np.float32)
        for row, item in enumerate(numbers):
            batch[row] = self._read(int(item))
        return batch

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._read(item) for item in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        size = self.dtype.itemsize * int(np.prod(self.shape))
        if size > WHOLE:
            raise RobenchError(
                f"{self._files[0].parent}: {len(self)} pictures are {size / 2**30:.0f} GiB when "
                "decoded at once, more than 8: take fewer, or a smaller side"
            )
        whole: np.ndarray = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def _read(self, item: int) -> np.ndarray:
        file = self._files[item]
        data = contents(file)
        if hashlib.sha256(data).hexdigest() != self.digests[item]:
            KNOWN.clear()
            raise RobenchError(f"{file}: has changed since the data set was read; run again")
        try:
            pixels = self._shaping(data)
        except Exception as error:  # whatever a decoder makes of a stranger's bytes
            if type(error).__name__ == "UnidentifiedImageError":  # it names an object in memory
                why = "its bytes are those of no kind of picture that Pillow knows"
            else:
                why = system_words(error)
            raise RobenchError(f"{file}: is no whole picture ({why})") from None
        image: np.ndarray = np.divide(pixels, 255, dtype=np.float32)
        return image


def contents(file: Path) -> bytes:
    """Raises RobenchError for a file that is not there, or too large for a picture."""
    try:
        if file.stat().st_size > LARGEST:
            raise RobenchError(f"{file}: is larger than {LARGEST} bytes, too large for a picture")
        return file.read_bytes()
    except OSError as error:
        raise RobenchError(f"{file}: cannot be read: {system_words(error)}") from None


def digests(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file. Those of files that look as they did (size, time of change, inode) are
    remembered between runs; `Pictures` looks again at each file that it decodes."""
    import pooch  # it warns in notebooks without widgets: not before it is needed

    if not files:
        return []
    folder = Path(os.path.commonpath([file.parent for file in files]))
    memory = Path(pooch.os_cache("robench")) / "pictures" / f"{digest_bytes(bytes(folder))}.json"
    known = _remembered(memory)
    entries: dict[str, list[Any]] = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise RobenchError(f"{file}: cannot be read: {system_words(error)}") from None
        looks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        name = str(file.relative_to(folder))
        before = known.get(name)
        if not isinstance(before, list) or before[:-1] != looks:
            before = [*looks, hashlib.sha256(contents(file)).hexdigest()]
        entries[name] = before
    together = {**known, **entries}  # one part asked for alone makes no other be read again
    if together != known:
        _remember(memory, together)
    return [str(entry[-1]) for entry in entries.values()]


def _remembered(memory: Path) -> dict[str, Any]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, found: dict[str, list[Any]]) -> None:
    """Where the cache cannot be written, the files are read again the next time."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False) as file:
            json.dump(found, file)
        Path(file.name).replace(memory)
    except OSError:
        pass
