"""Segmenting what is too large to be segmented whole: overlapping tiles, and one mask out of their logits, a band at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np

from tpseg.imaging.reading.picture import PictureScan
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.regions import FrameRegions, Regions, open_regions, read_reduced, read_tile

OVERLAP = 0.25
"""Of two tiles side by side, as a share of their width."""
SHOWN = 4096
"""Pixels along the longer side of what is kept of a frame to look at."""


class Tiling(Collection[tuple[int, int]]):
    """Where the tiles of an image lie, and how much each of their pixels counts."""

    def __init__(self, size: tuple[int, int], side: int) -> None:
        """size: height and width of the image; side: height and width of a tile, both in pixels of the image."""
        from monai.data.utils import compute_importance_map  # seconds to import, and only tiles need it

        self.size = size
        self.side = side
        self.rows, self.columns = (starts(length, side) for length in size)
        self.weight = compute_importance_map((side,), mode="gaussian").numpy()
        """(side,): along either axis; a tile's middle counts most, for at its edges the network lacks the surroundings."""

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __contains__(self, corner: object) -> bool:
        return any(corner == one for one in self)

    @property
    def last(self) -> tuple[int, int]:
        return self.rows[-1], self.columns[-1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """First row and column of each tile, row by row."""
        return ((top, left) for top in self.rows for left in self.columns)

    def weigh(self, logits: np.ndarray) -> np.ndarray:
        """A tile's logits (side, side) times its weights."""
        return logits * self.weight[:, None] * self.weight

    def total(self, axis: int) -> np.ndarray:
        """Sum of the weights of all tiles along an axis, (H,) or (W,); that of a pixel is the product of the two."""
        length = self.size[axis]
        total = np.zeros(length + self.side, np.float32)
        for start in (self.rows, self.columns)[axis]:
            total[start : start + self.side] += self.weight
        return total[:length]


def starts(length: int, side: int) -> list[int]:
    """Where tiles begin along an axis; the last one ends where the image ends, unless the image is smaller than a tile."""
    from monai.data.utils import dense_patch_slices

    if length <= side:
        return [0]
    step = max(1, int(side * (1 - OVERLAP)))
    return [part.start for (part,) in dense_patch_slices((length,), (side,), (step,))]


class Blend:
    """The mask of an image from the logits of its tiles: their weighted mean, over ½ after the sigmoid.

    Holds floats for one band of the image, as high as a tile and as wide as the image; what lies above the tiles to come is
    cut to a mask at once.
    """

    def __init__(self, tiling: Tiling, keep_probability: bool = False) -> None:
        self.tiling = tiling
        self.mask = np.zeros(tiling.size, bool)
        """(H, W); complete after `finish`."""
        self.probability = np.zeros(tiling.size, np.float32) if keep_probability else None
        """(H, W) in [0, 1], if it is to be kept: four times the memory of the mask."""
        self._band = np.zeros((tiling.side, tiling.size[1]), np.float32)  # weighted sums, from the row self._top on
        self._top = 0
        self._totals = tiling.total(0), tiling.total(1)

    def add(self, top: int, left: int, weighed: np.ndarray) -> None:
        """Add a tile's weighed logits (side, side); tiles come in the order of the tiling."""
        self._settle(top)
        height, width = (min(length - start, self.tiling.side) for length, start in zip(self.tiling.size, (top, left), strict=True))
        self._band[:height, left : left + width] += weighed[:height, :width]

    def finish(self) -> None:
        """No more tiles come."""
        self._settle(self.tiling.size[0])

    def _settle(self, until: int) -> None:
        """Cut the rows above `until`, which no tile to come touches."""
        rows = until - self._top
        if rows <= 0:
            return
        logits = self._band[:rows] / (self._totals[0][self._top : until, None] * self._totals[1])  # (rows, W)
        probability = 1 / (1 + np.exp(-logits.clip(-80, 80)))
        self.mask[self._top : until] = probability > 0.5
        if self.probability is not None:
            self.probability[self._top : until] = probability
        self._band[: len(self._band) - rows] = self._band[rows:].copy()
        self._band[len(self._band) - rows :] = 0
        self._top = until


class TiledFrame:
    """One frame of a scan on its way through the network: cut into tiles in any order, from several threads, and put together."""

    def __init__(
        self, scan: Scan, index: int, tasks: Sequence[str], side: int, *, probability: bool = False, picture: bool = False
    ) -> None:
        """probability, picture: whether these are to be kept beside the masks."""
        self.scan, self.index = scan, index
        self.tiling = Tiling(scan.size, side)
        self.blends = {task: Blend(self.tiling, probability) for task in tasks}
        self.factor = -(-max(scan.size) // SHOWN)
        """By how much `picture` is smaller than the frame."""
        self.picture: np.ndarray | None = None
        """The frame to look at, (H / factor, W / factor, 3) uint8, if it is to be kept; there when all tiles are cut."""
        self._wants_picture = picture
        self._left = len(self.tiling)
        self._regions: Regions | None = None
        self._lock = Lock()

    def cut(self, top: int, left: int) -> np.ndarray:
        """One tile, (side, side, 3) uint8; the frame is decoded for the first and forgotten after the last. Raises DataError."""
        with self._lock:
            if self._regions is None:
                picture = isinstance(self.scan, PictureScan)
                self._regions = open_regions(self.scan.path) if picture else FrameRegions(self.scan.frame(self.index))
            regions = self._regions
        tile = read_tile(regions, top, left, self.tiling.side)
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.picture = read_reduced(regions, self.factor) if self._wants_picture else None
                self._regions = None
        return tile

    def add(self, top: int, left: int, weighed: Mapping[str, np.ndarray]) -> None:
        """Add the weighed logits of one tile for each task; in the order of the tiling, from one thread."""
        for task, logits in weighed.items():
            self.blends[task].add(top, left, logits)

    def finish(self) -> dict[str, Blend]:
        """The masks for each task, when all tiles are added."""
        for blend in self.blends.values():
            blend.finish()
        return self.blends
