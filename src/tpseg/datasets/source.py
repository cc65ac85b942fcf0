"""What a source of data is: a public data set, or a layout that many data sets have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np

from tpseg.core.tasks import Task
from tpseg.data.left_out import LeftOut
from tpseg.datasets.release import Release


@dataclass(frozen=True)
class Pair:
    """One case of a release; nothing is decoded before `image` and `mask` are called, which may be in several threads."""

    name: str
    """Stem of the files that are written for it; unique in the release."""
    image: Callable[[], np.ndarray | bytes]
    """(H, W) or (H, W, 3) uint8, written as PNG; or a PNG or JPEG file's own bytes, written as they are."""
    mask: Callable[[], np.ndarray]
    """(H, W) bool. Both raise DataError that names the file, for a case that is to be left out."""
    split: str = ""
    """train, val or test where the release says so; '' where it is to be drawn. In a public set test is what the paper reports."""
    group: str = ""
    """Patient, case or video; '' where the release names none."""
    files: tuple[PurePosixPath, ...] = ()
    """What it is made of in the release, the image first: a file that nothing is made of is named as such."""
    searched: str = ""
    """What the option `group` is searched in; '' where the source has none, or groups of its own."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else `split.csv` is to say of it, the same columns in every pair: `{"set": "Kvasir"}`."""


@dataclass(frozen=True)
class Facts:
    """What people want to know of a public data set before they download it."""

    title: str
    size: str
    """Number of images, format, and the download's size where known."""
    licence: str
    page: str
    """Where to get it."""
    files: str
    """What the download consists of: file or folder names."""
    citation: str
    counts: Mapping[str, int]
    """The paper's number of images by part, `train` and `val`; empty where it uses none of this set."""
    split: str = ""
    """Where the parts come from, in a sentence."""


class Source(ABC):
    """A layout of images and masks that can be turned into a data set."""

    name: ClassVar[str]
    """As in `tpseg data prepare NAME`."""
    groups: str = ""
    """What `group` is: 'patient'; '' where the release names none."""
    task: Task
    facts: Facts | None = None
    """None for a layout that is no one data set's."""
    advice: ClassVar[str] = ""
    """What to do with files that are laid out otherwise, for the refusal."""

    @abstractmethod
    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        """The cases of a release in a fixed order, and what it holds besides; none if it is not laid out like this.

        Raises DataError for a release that is laid out so but cannot be used: that says what was expected and what was found.
        """
