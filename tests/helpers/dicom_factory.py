"""Clinical files made by code: every element that a reader looks at is set here or by the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
"""In every file: must turn up in no name and no message."""


def dicom(values: np.ndarray, *, syntax: UID = ExplicitVRLittleEndian, seed: str = "", **elements: object) -> Dataset:
    """A data set with the pixels `values`, of any number type: (H, W), (N, H, W), or colour (H, W, 3), (N, H, W, 3).

    elements: further ones by keyword, which replace those made here; None leaves one out. seed: what its UIDs are made from.
    """
    colour = values.shape[-1] == 3 and values.ndim >= 3
    frame = values.shape[-3:] if colour else values.shape[-2:]
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["instance", seed, str(elements)])
    header.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    header.Modality, header.Manufacturer, header.ManufacturerModelName = "CT", "tpseg tests", "made.py"
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = PATIENT, "12345", "19700101", "F"
    header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20200102", "030405", "1", "A1"
    header.SeriesNumber, header.InstanceNumber, header.ReferringPhysicianName = 1, 1, ""
    header.Rows, header.Columns = frame[:2]
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        header.PlanarConfiguration = 0
    if values.ndim == len(frame) + 1:
        header.NumberOfFrames = len(values)
    header.BitsAllocated = header.BitsStored = 8 * values.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    if values.dtype.kind == "f":
        header.__delattr__("BitsStored")
        header.__delattr__("HighBit")
        setattr(header, "FloatPixelData" if values.dtype.itemsize == 4 else "DoubleFloatPixelData", values.tobytes())
    else:
        header.PixelRepresentation = int(values.dtype.kind == "i")
        data = values.astype(values.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        header.PixelData = data + b"\0" * (len(data) % 2)
        header["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            header.pop(keyword, None)
        else:
            setattr(header, keyword, value)
    return header


def write_dicom(path: Path, values: np.ndarray, **elements: object) -> Path:
    """Write `dicom(values, ...)` as a file with preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom(values, **elements).save_as(path, enforce_file_format=True)  # type: ignore[arg-type]
    return path


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (3.0, 0.5, 0.75),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    shuffle: int | None = 0,
    **elements: object,
) -> list[Path]:
    """Write slices (N, H, W) as a series, a file each; spacing: mm between slices, rows, columns. Returns files in slice order.

    Slice n lies n steps along the normal of `orientation`. With `shuffle` (a seed) neither file names nor instance numbers tell
    the order.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    numbers = np.arange(len(volume)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(volume))
    return [
        write_dicom(
            folder / f"IM{numbers[n]:04d}",
            values,
            **{
                "InstanceNumber": int(numbers[n]) + 1,
                "ImagePositionPatient": [float(round(x, 6)) for x in normal * spacing[0] * n],
                "ImageOrientationPatient": [float(x) for x in orientation],
                "PixelSpacing": list(spacing[1:]),
                "SliceThickness": spacing[0],
                "seed": str(n),
                **elements,
            },
        )
        for n, values in enumerate(volume)
    ]


def item(**elements: object) -> Items:
    """A sequence of one item."""
    one = Dataset()
    for keyword, value in elements.items():
        setattr(one, keyword, value)
    return Items([one])


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    """Write voxels (I, J, K) as .nii or .nii.gz; affine: identity if None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(kind(values, np.eye(4) if affine is None else affine, dtype=values.dtype), path)
    return path


def all_orientations() -> list[np.ndarray]:
    """The 48 affines (4, 4) whose voxel axes run along the patient's, in any order and either way: sizes 2, 3, 5 mm for i, j, k."""
    found = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            affine = np.eye(4)
            affine[:3, :3] = 0
            for voxel_axis, (axis, sign, zoom) in enumerate(zip(order, signs, (2.0, 3.0, 5.0), strict=True)):
                affine[axis, voxel_axis] = -zoom if sign else zoom
            affine[:3, 3] = (-10, 20, 30)
            found.append(affine)
    return found
