"""Volumes with label maps, NIfTI or ITK's formats, as slices: what the layouts `folder` and `nnunet` have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from threading import Lock

import nibabel as nib
import numpy as np

from tpseg.core.errors import DataError, UsageError
from tpseg.datasets.layout import Layout, among, evenly
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair
from tpseg.imaging.reading.nifti import NiftiScan
from tpseg.imaging.reading.opening import NIFTI_SUFFIXES, open_scan
from tpseg.imaging.reading.volume import VolumeScan

OPEN = 2
"""Volumes kept open: cases are written in order, by several threads."""


class VolumeLayout(Layout):
    """A layout of volumes, of which `window`, `axis` and the share `empty_slices` say how they become slices."""

    def __init__(
        self,
        task: str,
        modality: str,
        description: str,
        labels: Sequence[str],
        group: str | None,
        window: str,
        axis: str,
        empty_slices: float,
    ) -> None:
        super().__init__(task, modality, description, labels, group)
        if not 0 <= empty_slices <= 1:
            raise UsageError(f"empty slices: found {empty_slices:g}, expected a share from 0 to 1")
        self.task = replace(self.task, window=window)
        self.axis, self.empty_slices = axis, empty_slices


@dataclass(frozen=True)
class LabelIds:
    """What the ids of a label map say."""

    ids: Sequence[int] | None = None
    """Those that are lesion; None for all but 0."""
    ignored: int | None = None
    """Where nobody has labelled."""
    known: frozenset[int] | None = None
    """Those that there may be; None if nothing says it."""

    def lesion(self, values: np.ndarray, name: str) -> np.ndarray:
        """Label values as lesion or not, bool of the same shape; raises DataError that names the file, see `among`."""
        return among(values, self.ids, name, self.known)


@dataclass(frozen=True)
class _Volume:
    """An image and where its label map shows lesion."""

    scan: VolumeScan
    lesion: np.ndarray
    """(I, J, K) bool, in the order of the file's voxels."""
    ignored: np.ndarray | None
    """(I, J, K) bool: voxels that nobody has labelled."""


class Volumes:
    """Pairs of volume and label map of a release, opened when a slice of theirs is asked for, from any thread.

    window and axis as for tpseg.imaging.reading.opening.open_scan: without a window grey values are shown from the percentiles of their
    volume, so that its slices stay comparable. labels say what counts as lesion; slices with its label `ignored` are left out.
    Image and label map belong together voxel by voxel and must have one shape and one geometry. channel: which volume of an image
    with a fourth axis is taken; None refuses such images.
    """

    def __init__(
        self, release: Release, window: str = "", axis: str = "", labels: LabelIds | None = None, channel: int | None = None
    ) -> None:
        self._release, self._channel = release, channel
        self._window, self._axis, self._labels = window, axis, labels or LabelIds()
        self._open: OrderedDict[PurePosixPath, _Volume] = OrderedDict()
        self._lock = Lock()

    def slices(
        self,
        image: PurePosixPath,
        labels: PurePosixPath,
        case: str,
        split: str,
        group: str,
        empty_slices: float,
    ) -> Iterator[Pair | LeftOut]:
        """The slices of a volume as cases CASE_0001...: all with lesion, and of those without an evenly spaced share."""
        try:
            volume = self._volume(image, labels)
        except DataError as error:
            yield LeftOut(str(image), "a volume that cannot be used", str(error))
            return
        cut = volume.scan.plane.frame
        frames = range(volume.scan.frames)
        if volume.ignored is not None:
            frames_known = [index for index in frames if not cut(volume.ignored, index).any()]
        else:
            frames_known = list(frames)
        lesion = {index for index in frames_known if cut(volume.lesion, index).any()}
        empty = [index for index in frames_known if index not in lesion]
        kept = sorted(lesion | set(evenly(empty, empty_slices)))
        for index in kept:
            name = f"{case}_{index + 1:04d}"
            slice_image, slice_mask = partial(self._image, image, labels, index), partial(self._mask, image, labels, index)
            yield Pair(name, slice_image, slice_mask, split, group, files=(image, labels))
        if volume.scan.channels > 1:
            yield LeftOut(str(image), f"channels but {self._channel}", f"of {volume.scan.channels}", meant=True)
        if len(kept) < len(frames_known):
            detail = f"{len(frames_known) - len(kept)} of {len(frames)}"
            yield LeftOut(str(image), "slices without lesion", detail, meant=True)
        if len(frames_known) < len(frames):
            detail = f"{len(frames) - len(frames_known)} of {len(frames)}"
            yield LeftOut(str(image), "slices with voxels that are not labelled", detail, meant=True)

    def _image(self, image: PurePosixPath, labels: PurePosixPath, index: int) -> np.ndarray:
        frame = self._volume(image, labels).scan.frame(index)
        return frame[..., 0] if (frame == frame[..., :1]).all() else frame

    def _mask(self, image: PurePosixPath, labels: PurePosixPath, index: int) -> np.ndarray:
        volume = self._volume(image, labels)
        return np.ascontiguousarray(volume.scan.plane.frame(volume.lesion, index))

    def _volume(self, image: PurePosixPath, labels: PurePosixPath) -> _Volume:
        with self._lock:
            if image not in self._open:
                self._open[image] = self._read(image, labels)
                while len(self._open) > OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(image)
            return self._open[image]

    def _read(self, image: PurePosixPath, labels: PurePosixPath) -> _Volume:
        scan = self._scan(image, self._channel)
        label_scan = self._scan(labels)
        values = label_scan.voxels()
        if values.ndim != 3:
            raise DataError(f"{labels}: a volume of colours; expected label ids")
        shapes = [scan.plane.voxels(np.broadcast_to(False, (scan.frames, *scan.size))).shape, values.shape]
        if shapes[0] != shapes[1]:
            found = ", its label map ".join(" x ".join(map(str, shape)) for shape in shapes)
            raise DataError(f"{image}: {found} voxels ({labels}); expected one shape")
        if differing := _differing(scan.affine, label_scan.affine, values.shape):
            raise DataError(f"{image}: {differing} ({labels}); save the label map on the image's grid, with the image's header")
        ignored = self._labels.ignored
        unlabelled = None if ignored is None else among(values, [ignored], str(labels))
        return _Volume(scan, self._labels.lesion(values, str(labels)), unlabelled)

    def _scan(self, file: PurePosixPath, channel: int | None = None) -> VolumeScan:
        path = self._release.path_of(file)
        if channel is not None and file.name.lower().endswith(NIFTI_SUFFIXES):
            return NiftiScan(path, file.name, self._window, self._axis, channel)
        scan = open_scan(path, window=self._window, axis=self._axis)
        if not isinstance(scan, VolumeScan):
            raise DataError(f"{file}: no volume; expected NIfTI, NRRD or MetaImage")
        return scan


def _differing(image: np.ndarray, labels: np.ndarray, shape: Sequence[int]) -> str:
    """How the geometry of two affines differs, in words; '' if no corner of the grid is further off than half a voxel."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1), 1]
    spacings = [np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) for affine in (image, labels)]
    off = np.linalg.norm(corners @ (image - labels)[:3].T, axis=1).max()  # millimetres
    if off <= spacings[0].min() / 2:
        return ""
    axes = ["".join(nib.aff2axcodes(affine)) for affine in (image, labels)]
    if axes[0] != axes[1]:
        return f"its axes run {axes[0]}, those of its label map {axes[1]}"
    if not np.allclose(spacings[0], spacings[1], rtol=0.01):
        found = " mm, its label map's ".join(" x ".join(f"{side:.4g}" for side in spacing) for spacing in spacings)
        return f"its spacing is {found} mm"
    if not np.allclose(image[:3, :3] / spacings[0], labels[:3, :3] / spacings[1], atol=0.01):
        return f"its axes are turned against those of its label map, so that corners are up to {off:.4g} mm apart"
    return f"its origin is {np.linalg.norm((image - labels)[:3, 3]):.4g} mm from its label map's"
