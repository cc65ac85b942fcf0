"""Pictures and masks of a release: decoded from bytes, kept as they are where they can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from tpseg.core.errors import DataError
from tpseg.datasets.release import Release
from tpseg.imaging.pictures.formats import BRIGHT, decode, refuse_invisible, to_mask, to_rgb
from tpseg.imaging.pictures.samples import Picture, Samples, samples_of

SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}
"""How the formats begin whose files are kept as they are."""


def suffix_of(content: bytes) -> str:
    """'.png' or '.jpg' by what a file holds, whatever it is called; '' for anything else."""
    return next((suffix for signature, suffix in SIGNATURES.items() if content.startswith(signature)), "")


def picture(release: Release, name: PurePosixPath) -> Callable[[], np.ndarray | bytes]:
    """A file's picture for Pair.image: PNG and JPEG as they are, anything else (TIFF, BMP) as RGB."""

    def read() -> np.ndarray | bytes:
        content = release.read(name)
        return content if suffix_of(content) else to_rgb(decode(content, str(name)), str(name))

    return read


def mask(release: Release, *names: PurePosixPath) -> Callable[[], np.ndarray]:
    """The union of one or several mask files, (H, W) bool, for Pair.mask."""

    def read() -> np.ndarray:
        masks = [lesion(decode(release.read(name), str(name)), str(name)) for name in names]
        for name, one in zip(names, masks, strict=True):
            if one.shape != masks[0].shape:
                raise DataError(f"{name}: {_size(one)}, but {names[0]} {_size(masks[0])}; masks of one image have one size")
        return np.logical_or.reduce(masks)

    return read


def lesion(image: Picture, name: str) -> np.ndarray:
    """A public set's mask, known to be binary, as (H, W) bool: 1 bit, grey, RGB or palette; 0 and 1, or cut at half of white.

    Softer than formats.to_mask, which does not know what it reads: here any share of soft edges is cut. Raises DataError for a
    coloured mask, for class ids and for a mask drawn in the alpha channel.
    """
    samples = samples_of(image)
    if samples.palette is not None or samples.values.dtype == bool:
        return to_mask(image, Path(name)).mask
    refuse_invisible(samples, name)
    values = samples.values
    if values.ndim == 3:
        if (values.max(axis=2) != values.min(axis=2)).any():
            raise DataError(f"{name}: a coloured mask; expected black and white")
        values = values[..., 0]
    high = values.max()
    if high <= 1:
        return values == 1
    if values.dtype == np.uint16 and high >= BRIGHT << 8:
        return values >= 128 << 8
    if not BRIGHT <= high <= 255:
        raise DataError(f"{name}: mask values up to {high}; expected 0 and 255, or 0 and 1")
    return values >= 128


def labels(release: Release, name: PurePosixPath) -> Callable[[], np.ndarray]:
    """A file of class ids, (H, W): every id but 0 is lesion; for Pair.mask."""
    return lambda: ids_of(decode(release.read(name), str(name)), str(name)) != 0


def ids_of(image: Picture, name: str) -> np.ndarray:
    """A decoded picture as label ids, (H, W): its grey values, or its palette's indices; raises DataError for any other kind."""
    samples = samples_of(image)
    ids = samples.values
    if ids.ndim == 3:
        if (ids != ids[..., :1]).any():
            raise DataError(f"{name}: a coloured label map; expected one channel of ids")
        ids = ids[..., 0]
    refuse_invisible(Samples(ids, samples.alpha), name)
    return ids


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"
