"""`Observer`: what looks at files before they are segmented, and at what the network says of them. Calibration is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tpseg.imaging.reading.opening import Found
from tpseg.inference.segmenter import Answer


class Checked(Protocol):
    """What was said of a file before it is segmented."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it is segmented for; none: it gets no mask."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


class Observer(Protocol):
    """Sees each file, each answer and each mask; may be called from several threads."""

    @property
    def chooses(self) -> bool:
        """Whether it finds the task that `auto` stands for."""
        ...

    def before(self, found: Found, tasks: Sequence[str], *, window: str, axis: str, tile: int | None) -> Checked | None:
        """Look at a file that is asked for these tasks; None for nothing to say. Raises DataError for one that cannot be read."""
        ...

    def after(self, found: Found, answer: Answer) -> None:
        """What the network says of a frame or a tile of it, for one task."""
        ...

    def finish(self, task: str, mask: np.ndarray, probability: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """A mask (H, W) bool and its probability (H, W) as they are to be written."""
        ...

    def close(self, found: Found, whole: bool) -> None:
        """No more of a file comes; `whole`: its results are written."""
        ...
