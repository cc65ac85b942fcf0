"""Whatever holds an image, as RGB: files, PIL images, arrays, tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import stretch, to_rgb
from tpseg.imaging.reading.opening import open_scan

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


def as_rgb(image: ImageLike, window: str = "") -> np.ndarray:
    """Anything that is an image to (H, W, 3) uint8; raises DataError for what is none.

    window: how grey values of a clinical file become 8 bit, as open_scan takes it.
    """
    if isinstance(image, (str, Path)):
        return read_frame(Path(image), window)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise DataError(f"a tensor of shape {tuple(image.shape)}; expected (3, H, W) or (1, H, W)")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise DataError(f"an array of shape {values.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype != np.uint8:
        if not np.isfinite(values.astype(np.float64)).all():
            raise DataError("the image holds NaN or infinite pixels; replace them before use")
        if np.issubdtype(values.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
            values = np.round(values * 255).astype(np.uint8)
        elif values.ndim == 2:
            return stretch(values)
        else:
            raise DataError(
                f"a colour array of type {values.dtype} with values {values.min()} to {values.max()}; expected uint8, or floats in [0, 1]"
            )
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    return values[..., :3]


def read_frame(path: Path, window: str = "") -> np.ndarray:
    """The one frame of a file, (H, W, 3) uint8; raises DataError for a file of several."""
    scan = open_scan(path, window=window)
    if scan.frames != 1:
        raise DataError(f"{path}: holds {scan.frames} frames; expected one image. Segment all of them with Segmenter.scan")
    return scan.frame(0)
