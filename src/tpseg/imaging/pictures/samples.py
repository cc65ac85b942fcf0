"""A picture's samples as its file has them, of any number type: what Pillow has no mode for, and Pillow's modes in the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Samples:
    """A decoded picture, upright."""

    values: np.ndarray
    """(H, W) grey, or indices of the palette; (H, W, 3) colours."""
    alpha: np.ndarray | None = None
    """(H, W) of the same type; 0 is transparent."""
    palette: np.ndarray | None = None
    """(256, 4) uint8, red, green, blue and alpha of each index."""

    @property
    def height(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow's images have them."""
        return self.width, self.height

    def part(self, top: int, left: int, height: int, width: int) -> Samples:
        """A rectangle of it."""
        return self._each(lambda values: values[top : top + height, left : left + width])

    def turned(self, orientation: int) -> Samples:
        """Upright, by the value of the EXIF tag Orientation; 1 and what is no orientation leave it as it is."""
        turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
            2: lambda values: values[:, ::-1],
            3: lambda values: values[::-1, ::-1],
            4: lambda values: values[::-1],
            5: lambda values: values.swapaxes(0, 1),
            6: lambda values: np.rot90(values, -1),
            7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
            8: np.rot90,
        }
        return self._each(turns[orientation]) if orientation in turns else self

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> Samples:
        return Samples(change(self.values), None if self.alpha is None else change(self.alpha), self.palette)


Picture = Image.Image | Samples
"""A decoded picture: Pillow's where one of its modes holds all of the file."""


def samples_of(picture: Picture) -> Samples:
    """A decoded picture of any kind in the same words: 1 bit as bool, CMYK and other colours as RGB."""
    if isinstance(picture, Samples):
        return picture
    if picture.mode == "P":
        assert picture.palette is not None
        table = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert("P")
        table.putpalette(picture.palette)
        table.info = picture.info
        return Samples(np.asarray(picture), palette=np.asarray(table.convert("RGBA"))[0])
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        values = np.asarray(picture)
        deep = picture.mode == "I" and picture.format == "PNG"  # of Pillow before 11, which had more bits than the file
        return Samples(values.astype(np.uint16 if deep else values.dtype.newbyteorder("="), copy=False))
    if picture.mode == "LA":
        values = np.asarray(picture)  # (H, W, 2)
        return Samples(values[..., 0], values[..., 1])
    if picture.mode == "RGBX":  # a fourth channel of which the file does not say what it is
        values = np.asarray(picture)
        return Samples(values[..., :3], values[..., 3])
    if picture.mode in ("RGBA", "PA", "La", "RGBa"):
        values = np.asarray(picture.convert("LA").convert("RGBA") if picture.mode == "La" else picture.convert("RGBA"))
        return Samples(values[..., :3], values[..., 3])
    return Samples(np.asarray(picture.convert("RGB")))
