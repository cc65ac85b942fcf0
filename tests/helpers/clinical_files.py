"""Whole clinical files of each format and kind: what fuzzing starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_factory import item, write_dicom, write_nifti
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from video_files import ramp, write_video


def dicom_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4096, (64, 48)).astype(np.uint16)
    plain = write_dicom(folder / "plain.dcm", grey, RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.5])
    write_dicom(folder / "deflated.dcm", grey, syntax=DeflatedExplicitVRLittleEndian)
    write_dicom(folder / "left.dcm", grey << 4, BitsStored=12, HighBit=15)
    palette: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.arange(256, dtype=np.uint16).tobytes()
    write_dicom(folder / "palette.dcm", grey.astype(np.uint8), **palette)
    groups = [item(FrameVOILUTSequence=item(WindowCenter=n, WindowWidth=99))[0] for n in range(3)]
    write_dicom(folder / "enhanced.dcm", np.stack([grey] * 3), PerFrameFunctionalGroupsSequence=groups)
    for name, syntax in (("rle", RLELossless), ("j2k", JPEG2000Lossless)):
        packed = pydicom.dcmread(plain)
        packed.compress(syntax)
        packed.save_as(folder / f"{name}.dcm")
    bundled = Path(pydicom.__file__).parent / "data" / "test_files"
    for name in ("MR_small_jpeg_ls_lossless", "SC_rgb_small_odd_jpeg", "JPEGLSNearLossless_16", "SC_rgb_jpeg_dcmtk", "SC_rgb_gdcm_KY"):
        (folder / f"{name}.dcm").write_bytes((bundled / f"{name}.dcm").read_bytes())


def nifti_seeds(folder: Path) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (8, 9, 10))
    for dtype in (np.int16, np.float32):
        write_nifti(folder / f"{np.dtype(dtype)}.nii", values.astype(dtype))
        write_nifti(folder / f"{np.dtype(dtype)}.nii.gz", values.astype(dtype))


def itk_seeds(folder: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (8, 9, 10)).astype(np.int16))
    for compress in (False, True):
        sitk.WriteImage(image, str(folder / f"{compress}.{suffix}"), compress)
    colours = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (8, 9, 10, 3)).astype(np.uint8), isVector=True)
    sitk.WriteImage(colours, str(folder / f"rgb.{suffix}"))


def video_seeds(folder: Path) -> None:
    codecs = {"a.mp4": "mpeg4", "b.mp4": "libx264", "c.avi": "mpeg4", "d.mkv": "libx264", "e.webm": "libvpx-vp9", "f.mov": "mjpeg"}
    for name, codec in codecs.items():
        write_video(folder / name, ramp(8), codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")
