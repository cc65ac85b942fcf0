"""From a DICOM frame as it is stored to RGB of 8 bits: rescaling, windows, palettes, colour spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, convert_color_space

from tpseg.core.errors import DataError
from tpseg.imaging.reading.windows import STRIP, Window, repeat_grey


def functional_group(header: Dataset, index: int, name: str) -> Dataset:
    """What an enhanced file says of frame `index` in its group `name`, for it alone or for all; in other files the header itself."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in ([per_frame[index]] if index < len(per_frame) else [], shared[:1]):
        for group in groups:
            if group.get(name):
                return group[name].value[0]
    return header


@dataclass(frozen=True)
class Grey:
    """How a frame's stored grey values are shown."""

    modality: Dataset
    """Where the rescale slope and intercept, or the modality look-up table, stand."""
    window: Window | None
    """None: the file has none, and the range of its series takes its place."""
    table: tuple[int, np.ndarray] | None
    """A VOI look-up table: the value of its first entry, and shares of white in [0, 1]."""
    inverted: bool
    """MONOCHROME1: the lowest value is white."""

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored values in the modality's unit: Hounsfield units for CT."""
        values = apply_modality_lut(stored, self.modality)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise DataError("holds NaN or infinite pixels; replace them before use")
        return values

    def show(self, stored: np.ndarray, window: Window | None) -> np.ndarray:
        """A frame (H, W) as RGB, (H, W, 3) uint8. window: in place of the file's window or table."""

        def convert(strip: np.ndarray) -> np.ndarray:
            values = self.values(strip)
            if window is None and self.table is not None:
                first, shares = self.table
                entries = np.clip(np.round(values).astype(np.int64) - first, 0, len(shares) - 1)
                grey = np.round(shares[entries] * 255).astype(np.uint8)
            else:
                shown = window or self.window
                assert shown is not None, "a frame without a window is shown in the range of its series"
                grey = shown.grey(values)
            return repeat_grey(255 - grey if self.inverted else grey)

        return in_strips(stored, convert)


def grey_of(header: Dataset, index: int) -> Grey:
    """What a file says of showing frame `index`: a VOI table, else its first window, else, for 8 bits without a unit, as they are."""
    modality = functional_group(header, index, "PixelValueTransformationSequence")
    table = voi_table(header)
    return Grey(modality, None if table else window_of(header, index, modality), table, header.PhotometricInterpretation == "MONOCHROME1")


def window_of(header: Dataset, index: int, modality: Dataset) -> Window | None:
    group = functional_group(header, index, "FrameVOILUTSequence")
    centre, width = first(group.get("WindowCenter")), first(group.get("WindowWidth"))
    if centre is not None and width is not None and np.isfinite([centre, width]).all() and width > 0:
        function = str(group.get("VOILUTFunction") or "LINEAR")
        # LINEAR counts whole grey values and cannot be narrower than one; files that rescale to fractions mean LINEAR_EXACT
        return Window(centre, width, "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function)
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if bits <= 8 and not header.get("PixelRepresentation") and not has_unit(modality):
        return Window.between(0, 2**bits - 1)
    return None


def has_unit(modality: Dataset) -> bool:
    """Whether stored values are converted at all."""
    slope, intercept = first(modality.get("RescaleSlope")), first(modality.get("RescaleIntercept"))
    return bool(modality.get("ModalityLUTSequence")) or slope not in (None, 1) or intercept not in (None, 0)


def voi_table(header: Dataset) -> tuple[int, np.ndarray] | None:
    """The first VOI look-up table, DICOM PS3.3 C.11.2.1.1."""
    tables = header.get("VOILUTSequence")
    if not tables:
        return None
    entries, start, bits = (int(value) for value in tables[0].LUTDescriptor)
    data = tables[0].LUTData
    values = np.frombuffer(data, "<u2" if header.original_encoding[1] else ">u2") if isinstance(data, bytes) else np.asarray(data)
    values = values[: entries or 2**16].astype(np.float64)
    return start, np.clip(values / (2 ** depth_of(values, bits) - 1), 0, 1)


def depth_of(entries: np.ndarray, told: int) -> int:
    """Bits of a look-up table's entries: 8 if none exceeds 255, whatever is told, else all would be black."""
    return 8 if told > 8 and entries.size and entries.max() <= 255 else told


def extent(stored: np.ndarray, grey: Grey, header: Dataset) -> tuple[float, float]:
    """Lowest and highest value of a frame in the modality's unit, without padding; (inf, -inf) where all is padding."""
    low, high = np.inf, -np.inf
    padding = header.get("PixelPaddingValue")
    for rows in strips(stored):
        strip = stored[rows]
        if padding is not None:
            limits = sorted((int(padding), int(header.get("PixelPaddingRangeLimit", padding))))
            strip = strip[(strip < limits[0]) | (strip > limits[1])]
        if strip.size:
            values = grey.values(strip)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def palette_to_rgb(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Indices (H, W) into the file's palette as RGB, (H, W, 3) uint8; below and above it its first and last colour."""
    start = int(header.RedPaletteColorLookupTableDescriptor[1])
    colours = palette(header)
    return in_strips(stored, lambda strip: colours[np.clip(strip.astype(np.int64) - start, 0, len(colours) - 1)])


def palette(header: Dataset) -> np.ndarray:
    """The colours of a file's palette, (N, 3) uint8, DICOM PS3.3 C.7.6.3.1.5 and 6."""
    count, start, _ = (int(value) for value in header.RedPaletteColorLookupTableDescriptor)
    count = count or 2**16
    if "RedPaletteColorLookupTableData" in header:
        order = "<u2" if header.original_encoding[1] else ">u2"
        data = [header[f"{colour}PaletteColorLookupTableData"].value for colour in ("Red", "Green", "Blue")]
        table = np.stack([_entries(one, count, order) for one in data], axis=1)
    else:
        table = apply_color_lut(np.arange(start, start + count), header)[..., :3]
    return (table >> (depth_of(table, 8 * table.dtype.itemsize) - 8)).astype(np.uint8)


def _entries(data: bytes, count: int, order: str) -> np.ndarray:
    """A colour's look-up table, (N,): words, or bytes of which two lie in a word, the first in its low half."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), order).astype("<u2")
    if len(words) >= count:
        return words[:count]
    if len(data) not in (count, count + count % 2):
        raise DataError(f"has a palette of {len(data):,} bytes for {count} colours; is the file complete?")
    return words.view(np.uint8)[:count]


def colour_to_rgb(stored: np.ndarray, photometric: str, bits: int) -> np.ndarray:
    """Colours (H, W, 3) of `bits` a sample, RGB or YBR_FULL, as RGB of 8 bits."""
    if photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        raise DataError(f"is in {photometric}, which only JPEG 2000 can be; export the image again")

    def convert(strip: np.ndarray) -> np.ndarray:
        rgb = convert_color_space(strip, "YBR_FULL", "RGB") if photometric in ("YBR_FULL", "YBR_FULL_422") else strip
        return (rgb if bits == 8 else np.clip(rgb.astype(np.float64) / (2**bits - 1), 0, 1) * 255 + 0.5).astype(np.uint8)

    return in_strips(stored, convert)


def in_strips(values: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A frame (H, W, ...) converted to (H, W, 3) uint8 a strip at a time, so that floating point needs little memory."""
    result = np.empty((*values.shape[:2], 3), np.uint8)
    for rows in strips(values):
        result[rows] = convert(values[rows])
    return result


def strips(values: np.ndarray) -> list[slice]:
    """Slices of a frame's rows of about STRIP pixels each."""
    rows = max(1, STRIP // values.shape[1])
    return [slice(top, top + rows) for top in range(0, len(values), rows)]


def first(value: object) -> float | None:
    """The first of a header's numbers, which may be one, several or none."""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return None if value in (None, "") else float(value)  # type: ignore[arg-type]
    return next((float(one) for one in value), None)
