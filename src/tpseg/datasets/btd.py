"""BTD, Cheng's brain tumours: contrast-enhanced T1 slices in MATLAB files, four archives of 766 that the paper takes as folds."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import h5py
import numpy as np

from tpseg.core.errors import DataError
from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import FilePair, file_pairs
from tpseg.imaging.pictures.formats import stretch

FOLD = 766
SLICES = 3064
MAX_SIDE = 4096
"""A damaged header may claim any shape."""
DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
"""What h5py raises for damaged files."""
KINDS = {1: "meningioma", 2: "glioma", 3: "pituitary"}


class Btd(Source):
    """`N.mat`, MATLAB v7.3, N from 1 to 3064, whichever folder or archive holds it; or Kaggle's `images/N.png` and `masks/N.png`.

    Slices are of 16 bits without a unit: each is stretched from its own minimum to its maximum, which is what reading a 16-bit
    PNG would do too, and written as 8 bits, which every viewer shows.
    """

    name = "btd"
    groups = "patient (Kaggle's copy names none)"
    task = Task("brain_tumor", "MR", "Brain tumour", finding="SCT:126952004:Neoplasm of brain", anatomy="SCT:12738006:Brain")
    facts = Facts(
        title="Brain tumor dataset (Cheng)",
        size="3064 slices of 233 patients, 16-bit MATLAB files of 512x512, some 256x256",
        licence="CC BY 4.0",
        page="https://doi.org/10.6084/m9.figshare.1512427",
        files="1512427.zip, or the four brainTumorDataPublic_*.zip in it, with 1.mat to 3064.mat",
        citation="Cheng, brain tumor dataset, figshare (2017); Cheng et al., Enhanced Performance of Brain Tumor Classification via Tumor "
        "Region Augmentation and Partition, PLOS ONE 10(10):e0140381 (2015)",
        counts={"train": 2298, "val": 766},
        split="by number, as in the four archives: 1 to 2298 train, 2299 to 3064 reported; patients may be in both",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        matlab = sorted((int(file.stem), file) for file in release.files if re.fullmatch(r"\d+\.mat", file.name.lower()))
        seen: set[int] = set()
        for number, file in matlab:
            if number in seen or not 1 <= number <= SLICES:
                second = number in seen
                yield LeftOut(str(file), "a second file of one number" if second else f"a number beyond {SLICES}", meant=second)
                continue
            seen.add(number)
            try:
                patient, kind = read_facts(release, file)
            except DataError as error:
                yield LeftOut(str(file), "unreadable", str(error))
                continue
            yield Pair(
                name=f"{number:04d}",
                image=lambda file=file: read_array(release, file, "image"),  # type: ignore[misc]
                mask=lambda file=file: read_array(release, file, "tumorMask"),  # type: ignore[misc]
                split=_fold_split(number),
                group=patient,
                files=(file,),
                columns={"kind": kind},
            )
        if not matlab:
            yield from _pictures(release)


def _fold_split(number: int) -> str:
    return "train" if number <= 3 * FOLD else "test"


def read_facts(release: Release, file: PurePosixPath) -> tuple[str, str]:
    """Patient and kind of tumour of one MATLAB file; raises DataError for a file that is none or lacks a field."""
    with _opened(release, file) as content:
        codes, labels = _field(content, "PID"), _field(content, "label")
        for stored in (codes, labels):
            if stored.size > MAX_SIDE:
                raise DataError(f"{file}: {stored.name[1:]} of shape {stored.shape}; expected a few numbers")
        label = int(np.asarray(labels).ravel()[0])
        return "".join(chr(code) for code in np.asarray(codes).ravel()).strip(), KINDS.get(label, str(label))


def read_array(release: Release, file: PurePosixPath, field: str) -> np.ndarray:
    """`image` as (H, W) uint8, stretched, or `tumorMask` as (H, W) bool. HDF5 lists MATLAB's columns first: both are transposed."""
    with _opened(release, file) as content:
        stored = _field(content, field)
        if stored.ndim != 2 or max(stored.shape) > MAX_SIDE:
            raise DataError(f"{file}: cjdata/{field} of shape {stored.shape}; expected 512x512 or 256x256")
        values = np.asarray(stored).T
    return values > 0 if field == "tumorMask" else stretch(values, str(file))[..., 0]


def _field(content: h5py.File, name: str) -> h5py.Dataset:
    """A field of `cjdata`, its values in this file; raises ValueError for links and for values that HDF5 would take from other files."""
    group = content["cjdata"] if isinstance(content.get("cjdata", getlink=True), h5py.HardLink) else None
    stored = group[name] if isinstance(group, h5py.Group) and isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise ValueError(f"cjdata/{name} is no plain field of the file")
    return stored


@contextmanager
def _opened(release: Release, file: PurePosixPath) -> Iterator[h5py.File]:
    """A MATLAB file; what h5py raises for a damaged or another one becomes a DataError."""
    try:
        with h5py.File(io.BytesIO(release.read(file)), "r") as content:
            yield content
    except DAMAGED as error:
        expected = "MATLAB v7.3 with cjdata/image, tumorMask, PID and label"
        raise DataError(f"{file}: cannot be read ({' '.join(str(error).split())}); expected {expected}") from error


def _pictures(release: Release) -> Iterator[Pair | LeftOut]:
    """Kaggle's copy, which nothing marks but that it is complete: one pair for each number from 1 to 3064."""
    found = [one for one in file_pairs(release.files) if isinstance(one, FilePair)]
    if sorted(one.stem for one in found) != sorted(str(number) for number in range(1, SLICES + 1)):
        return
    for one in sorted(found, key=lambda one: int(one.stem)):
        number = int(one.stem)
        yield Pair(
            name=f"{number:04d}",
            image=picture(release, one.image),
            mask=mask(release, one.mask),
            split=_fold_split(number),
            files=(one.image, one.mask),
            columns={"kind": ""},
        )
