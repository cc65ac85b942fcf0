"""`Tally`: what was found in each file and what was written of it, for the summary of a prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpseg.imaging.reading.opening import Found
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.writing.results import Part


@dataclass(frozen=True)
class Entry:
    """A file that was segmented."""

    found: Found
    frames: int
    pixels: Mapping[str, int]
    """Of lesion, by task, over all frames."""
    of: int
    """Pixels of all frames."""
    square_millimetres: float | None
    """Of a pixel, in the patient; None where the file does not say."""
    between: float | None
    """Millimetres from slice to slice; None where the frames are no evenly spaced slices."""
    outputs: tuple[Path, ...]


class Tally:
    """Counts the masks of each file; from one thread."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._pixels: dict[Found, Counter[str]] = {}

    def add(self, found: Found, part: Part) -> None:
        """The masks of a frame."""
        counts = self._pixels.setdefault(found, Counter())
        for task, one in part.maps.items():
            counts[task] += int(np.count_nonzero(one.mask))

    def close(self, found: Found, scan: Scan, outputs: Sequence[Path]) -> None:
        """No more of a file comes: what was written of it lies in `outputs`."""
        spacing = scan.true_spacing
        area = None if spacing is None else spacing[0] * spacing[1]
        size = scan.frames * scan.size[0] * scan.size[1]
        self.entries.append(Entry(found, scan.frames, self._pixels.pop(found), size, area, scan.slice_spacing, tuple(outputs)))

    def summary(
        self, expected: Mapping[tuple[str, str, str], float] = {}, warnings: Mapping[Found, Sequence[str]] = {}
    ) -> list[dict[str, Any]]:
        """An object for each file, ready for JSON but for paths.

        expected: Dice to expect, by file, name and task; warnings: by file. Area is of a single frame, volume of evenly spaced slices,
        both null where nobody knows how large a pixel is.
        """
        return [
            {
                "file": entry.found.path,
                "name": entry.found.name,
                "frames": entry.frames,
                "tasks": [
                    {
                        "task": task,
                        "pixels": pixels,
                        "share_of_image": pixels / entry.of,
                        "area_mm2": pixels * entry.square_millimetres if entry.square_millimetres and entry.frames == 1 else None,
                        "volume_mm3": (
                            pixels * entry.square_millimetres * entry.between
                            if entry.square_millimetres and entry.between and entry.frames > 1
                            else None
                        ),
                        "expected_dice": expected.get((str(entry.found.path), entry.found.name, task)),
                    }
                    for task, pixels in entry.pixels.items()
                ],
                "warnings": list(warnings.get(entry.found, ())),
                "outputs": list(entry.outputs),
            }
            for entry in self.entries
        ]
