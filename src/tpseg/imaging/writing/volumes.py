"""Masks and probabilities of a volume's frames as a volume on the very grid of their source: NIfTI, NRRD, MetaImage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from tpseg.core.files import replacing
from tpseg.imaging.reading.nifti import NiftiScan

if TYPE_CHECKING:
    from tpseg.imaging.reading.itk import ItkScan

FREE_TEXT = ("descrip", "aux_file", "db_name", "intent_name")
"""Fields of a NIfTI header that may hold a patient's name."""


def write_nifti(scan: NiftiScan, frames: np.ndarray, path: Path) -> None:
    """Write frames (N, H, W) as .nii or .nii.gz with the source's shape, affine, qform, sform, units and codes.

    bool is written as uint8 0 and 1, probabilities as float32. What the source's header says in words is left behind, and so
    are its extensions.
    """
    values = voxel_type(scan.to_voxels(frames))
    header = scan.image.header.copy()
    header.extensions.clear()
    for field in FREE_TEXT:
        if field in header:  # NIfTI-2 has no db_name
            header[field] = b""
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the source's window
    header.set_intent("label" if frames.dtype == bool else "none")
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    with replacing(path) as new:
        nib.save(kind(values, None, header), new)  # without an affine: the header's own transforms stay as they are


def write_itk(scan: ItkScan, frames: np.ndarray, path: Path) -> None:
    """Write frames (N, H, W) as .nrrd or .mha, compressed, with the source's size, origin, spacing and direction; types as above."""
    import SimpleITK as sitk  # an extra

    image = sitk.GetImageFromArray(voxel_type(scan.to_voxels(frames)))
    image.SetOrigin(scan.origin)
    image.SetSpacing(scan.voxel_spacing)
    image.SetDirection(scan.direction)
    with replacing(path) as new:
        sitk.WriteImage(image, str(new), useCompression=True)


def voxel_type(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8 if values.dtype == bool else np.float32)
