"""Finding and opening what is to be segmented, whatever its format: the one place that knows which reader a file needs."""

from __future__ import annotations

import glob
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpseg.core.errors import DataError, UsageError, few
from tpseg.core.extras import require
from tpseg.core.folder_search import may_be_case, search
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES
from tpseg.imaging.reading.picture import PictureScan
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.reading.sniffing import looks_like_dicom

log = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".mha", ".mhd")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
"""A DICOM file may have any name and no suffix: one that begins as DICOM does is one."""
SUFFIXES = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES, *NIFTI_SUFFIXES, *ITK_SUFFIXES, *VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Found:
    """Something to segment that lies on disk, not opened yet; `open_scan` takes it."""

    path: Path
    """The file; for a DICOM series its folder."""
    files: tuple[Path, ...]
    """The file alone, or those of the series, in no particular order."""
    name: str
    """What its results are called: the file's name without its suffix; the folder's, numbered where it holds several series."""


def find_scans(inputs: Sequence[str]) -> list[Found]:
    """What paths, folders (searched with subfolders), globs and `@lists` (a path per line) stand for; raises UsageError if nothing.

    The DICOM files of a folder that belong to one series are one scan; a file that is named itself, or by a glob or in a list, is
    one for itself. What else a folder holds is left out and told, see find_in_folder.
    """
    found: list[Found] = []
    for entry in inputs:
        path = Path(entry)
        if path.is_dir():
            found += find_in_folder(path)
        elif entry.startswith("@"):
            try:
                lines = Path(entry[1:]).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{entry[1:]}: the list of images cannot be read ({error})") from error
            found += _each(Path(line.strip()) for line in lines if line.strip())
        elif not path.exists() and glob.has_magic(entry):
            found += _each(Path(match) for match in sorted(glob.glob(entry, recursive=True)))
        else:
            found += _each([path])
    unique = list({one.files: one for one in found}.values())
    if not unique:
        raise UsageError(f"no images in {', '.join(inputs)}; expected {', '.join(SUFFIXES)} files, or DICOM files of any name")
    return unique


def find_in_folder(folder: Path) -> list[Found]:
    """The scans in a folder and its subfolders, linked ones too, in the order of their names; links that lead nowhere after them.

    Such a link is refused on opening. Logs the files that no reader knows, hidden ones and documents left aside, and DICOM files
    without an image or with masks.
    """
    below = search(folder)
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in below.files:
        by_folder[file.parent].append(file)
    found: list[Found] = []
    unknown: list[Path] = []
    no_image: list[Path] = []
    for place, files in by_folder.items():
        dicom = [file for file in files if is_dicom(file)]
        others = [file for file in files if suffix_of(file) in SUFFIXES and suffix_of(file) not in DICOM_SUFFIXES]
        scans = [*_each(others), *_series(place, dicom)]
        found += scans
        no_image += set(dicom).difference(*(scan.files for scan in scans))
        unknown += [file for file in set(files).difference(dicom, others) if may_be_case(file)]
    for left_out, words in ((unknown, "files of no known kind"), (no_image, "DICOM files without an image, or with masks,")):
        if left_out:
            log.warning(f"{folder}: {len(left_out)} {words} are left out: {few(sorted(map(str, left_out)), 3)}")
    return found + _each(link for link in below.broken if may_be_scan(link))


def may_be_scan(link: Path) -> bool:
    """Whether a link that leads nowhere may have led to a scan, or a folder of them: by its suffix, `1.2.840.17` having none."""
    suffix = suffix_of(link)
    return suffix in SUFFIXES or not suffix[1:2].isalpha()


def open_scan(found: Found | Path | str, *, window: str = "", axis: str = "") -> Scan:
    """Open what `find_scans` found, or a path: a file of any format, or a folder that holds one DICOM series.

    window: a CT window's name or `centre,width`, for DICOM and volumes; '' takes the file's own, else the range of the series or
    volume. Pictures and videos are shown as they are. axis: the plane that volumes are cut in, axial, coronal or sagittal, or
    across voxel axis 0, 1 or 2. Raises DataError for a file that cannot be read, UsageError for a wrong window or axis, for a
    folder of none or several series and where the library for a format is not installed.
    """
    if not isinstance(found, Found):
        path = Path(found)
        if path.is_dir():
            scans = find_in_folder(path)
            if len(scans) != 1:
                raise UsageError(f"{path}: {len(scans)} scans in this folder; name one file, or a folder with one DICOM series")
            found = scans[0]
        else:
            found = Found(path, (path,), name_of(path))
    path, suffix = found.path, suffix_of(found.path)
    if len(found.files) == 1 and not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: {f'a link to {os.readlink(path)}, where nothing is' if path.is_symlink() else 'no such file'}")
        if suffix in IMAGE_SUFFIXES:
            return PictureScan(path, found.name)
        if suffix in NIFTI_SUFFIXES:
            from tpseg.imaging.reading.nifti import NiftiScan

            return NiftiScan(path, found.name, window, axis)
        if suffix in ITK_SUFFIXES:
            require("SimpleITK")
            from tpseg.imaging.reading.itk import ItkScan

            return ItkScan(path, found.name, window, axis)
        if suffix in VIDEO_SUFFIXES:
            require("av")
            from tpseg.imaging.reading.video import VideoScan

            return VideoScan(path, found.name)
        if not is_dicom(path):
            raise DataError(f"{path}: neither DICOM nor a file of a known suffix; expected {', '.join(SUFFIXES)}, or DICOM of any name")
    require("pydicom")
    from tpseg.imaging.reading.dicom import DicomScan

    return DicomScan(found.files, path, found.name, window)


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in lower case; `.nii.gz` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def name_of(path: Path) -> str:
    """A file's name without the suffix of its format; `1.2.840.17`, as scanners name files, has none."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix in SUFFIXES else path.name


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix, or, where that is of no other known format, by how it begins."""
    suffix = suffix_of(path)
    return suffix in DICOM_SUFFIXES or (suffix not in SUFFIXES and looks_like_dicom(path))


def _each(files: Iterable[Path]) -> list[Found]:
    return [Found(file, (file,), name_of(file)) for file in files]


def _series(folder: Path, files: Sequence[Path]) -> Iterator[Found]:
    """The DICOM files of one folder, by series; a series of one file is that file."""
    if not files:
        return
    require("pydicom")
    from tpseg.imaging.reading.series import group_series

    groups = group_series(files)
    stacks = [group for group in groups if len(group) > 1]
    for group in groups:
        if len(group) == 1:
            yield Found(group[0], (group[0],), name_of(group[0]))
        else:
            name = os.path.basename(os.path.abspath(folder))  # a link's own name
            yield Found(folder, tuple(group), name if len(stacks) == 1 else f"{name}_{stacks.index(group) + 1}")
