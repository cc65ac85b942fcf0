"""Windows: which grey values of a CT, an MR or an X-ray become black, which white."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tpseg.core.errors import UsageError, nearest

STRIP = 2**20
"""Pixels that are computed in floating point at a time, so that a large frame needs no more memory than its result."""
PERCENTILES = (0.5, 99.5)
"""Of a volume without a window: what lies outside is a metal implant or noise, and would leave little contrast to the rest."""
SAMPLES = 2**22
"""Voxels that the percentiles are taken from, evenly spaced, where a volume has more."""


@dataclass(frozen=True)
class Window:
    """Grey values around `centre` in a range of `width`, spread over black to white; DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""

    centre: float
    width: float
    function: str = "LINEAR"
    """LINEAR, LINEAR_EXACT or SIGMOID, as DICOM's VOI LUT Function."""

    @classmethod
    def between(cls, low: float, high: float) -> Window:
        """`low` becomes black and `high` white; where both are the same, all up to it becomes black."""
        return cls(low + (high - low) / 2, high - low, "LINEAR_EXACT")

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Values of any number type, (H, W, ...), to uint8 of the same shape."""
        result = np.empty(values.shape, np.uint8)
        rows = max(1, STRIP // max(1, values.shape[1]))
        for top in range(0, len(values), rows):
            share = self.share(values[top : top + rows].astype(np.float64))
            result[top : top + rows] = np.round(share * 255)
        return result

    def rgb(self, values: np.ndarray) -> np.ndarray:
        """Grey values (H, W) or (H, W, 1), or colours (H, W, 3), to (H, W, 3) uint8."""
        shown = self.grey(values)
        return shown if shown.shape[2:] == (3,) else repeat_grey(shown.reshape(shown.shape[:2]))

    def share(self, values: np.ndarray) -> np.ndarray:
        """Values, float64, as shares of white in [0, 1]."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - self.centre) / self.width, -700, 700)))
        # LINEAR counts whole grey values: the first and the last of `width` of them are black and white
        centre, span = (self.centre - 0.5, self.width - 1) if self.function == "LINEAR" else (self.centre, self.width)
        low = centre - span / 2
        if span == 0:
            return (values > low).astype(np.float64)
        return np.clip((values - low) / span, 0, 1)


WINDOWS = {
    "lung": Window(-600, 1500),
    "mediastinum": Window(50, 350),
    "abdomen": Window(50, 400),
    "liver": Window(30, 150),
    "soft_tissue": Window(40, 400),
    "bone": Window(400, 1800),
    "temporal_bone": Window(600, 2800),
    "spine": Window(50, 250),
    "brain": Window(40, 80),
    "stroke": Window(40, 40),
    "subdural": Window(75, 215),
}
"""CT windows in Hounsfield units: the values that Radiopaedia gives under 'Windowing (CT)', the middle of the range where it gives one."""


def parse_window(text: str) -> Window:
    """A window's name, `lung`, or its centre and width, `-600,1500`; raises UsageError for anything else."""
    name = text.strip().lower().replace(" ", "_").replace("-", "_")
    if name in WINDOWS:
        return WINDOWS[name]
    parts = text.split(",")
    expected = f"expected one of {', '.join(WINDOWS)}, or CENTRE,WIDTH such as 40,400"
    try:
        centre, width = (float(part) for part in parts)
    except ValueError:
        raise UsageError(f"window {text!r}: {expected}{nearest(name, WINDOWS)}") from None
    if not (math.isfinite(centre) and math.isfinite(width) and width >= 1):
        raise UsageError(f"window {text!r}: the width must be 1 or more; {expected}")
    return Window(centre, width)


def sample(values: np.ndarray) -> np.ndarray:
    """At most SAMPLES values of a volume, evenly spaced in the order they lie in memory."""
    step = -(-values.size // SAMPLES)
    return values.ravel(order="K")[:: step if step == 1 else step | 1]  # odd, so as not to walk along one column of voxels


def volume_range(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest grey value of a volume without a window: its percentiles 0.5 and 99.5.

    values: of any shape and number type, in the file's own units. NaN and infinity are left out; without any finite value the
    range is (0, 0). Slices share the range of their volume, so that they stay comparable.
    """
    taken = sample(values)
    if np.issubdtype(taken.dtype, np.floating):
        taken = taken[np.isfinite(taken)]
    if not taken.size:
        return 0.0, 0.0
    low, high = np.percentile(taken.astype(np.float64), PERCENTILES)
    return float(low), float(high)


def repeat_grey(grey: np.ndarray) -> np.ndarray:
    """Grey (H, W) uint8 as RGB, (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)
