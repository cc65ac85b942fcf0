"""Reading NRRD and MetaImage: as NIfTI of the same geometry, and only from the file's own folder."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_factory import all_orientations, write_nifti

from tpseg.core.errors import DataError
from tpseg.imaging.reading.itk import ItkScan
from tpseg.imaging.reading.opening import open_scan

SHAPE = (4, 5, 6)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def write_itk(path: Path, voxels: np.ndarray, affine: np.ndarray, compress: bool = False) -> Path:
    """Voxels (I, J, K) with a RAS affine, as SimpleITK writes them."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(zooms.tolist())
    image.SetDirection((RAS_TO_LPS @ affine[:3, :3] / zooms).ravel().tolist())
    image.SetOrigin((RAS_TO_LPS @ affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_the_same_frames_as_from_nifti(tmp_path: Path, suffix: str) -> None:
    """nibabel is the independent reader: for every orientation, and masks go back to where they came from."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    for number, affine in enumerate(all_orientations()[:: 1 if suffix == "nrrd" else 7]):
        axis = ("axial", "coronal", "sagittal")[number % 3]
        ours = open_scan(write_itk(tmp_path / f"{number}.{suffix}", voxels, affine), axis=axis)
        theirs = open_scan(write_nifti(tmp_path / f"{number}.nii", voxels, affine), axis=axis)
        assert isinstance(ours, ItkScan)
        assert (ours.size, ours.frames, ours.name) == (theirs.size, theirs.frames, str(number))
        assert ours.spacing == pytest.approx(theirs.spacing)
        assert ours.affine == pytest.approx(affine)
        frames = np.stack([ours.frame(n) for n in range(ours.frames)])
        assert np.array_equal(frames, np.stack([theirs.frame(n) for n in range(theirs.frames)]))
        back = sitk.GetImageFromArray(ours.to_voxels(frames[..., 0] > 99).astype(np.uint8))
        assert back.GetSize() == SHAPE
        assert np.array_equal(sitk.GetArrayFromImage(back).transpose(), theirs.to_voxels(frames[..., 0] > 99))


def test_geometry_as_simpleitk_has_it(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.nrrd", np.zeros(SHAPE, np.int16), all_orientations()[9])
    scan, image = open_scan(path), sitk.ReadImage(str(path))
    assert isinstance(scan, ItkScan)
    assert (scan.origin, scan.voxel_spacing, scan.direction) == (image.GetOrigin(), image.GetSpacing(), image.GetDirection())


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_number_types_compressed(tmp_path: Path, suffix: str, dtype: type) -> None:
    voxels = np.array([0, 100], dtype).reshape(2, 1, 1)
    path = write_itk(tmp_path / f"a.{suffix}", voxels, np.diag([-1.0, 1, 1, 1]), compress=True)
    assert open_scan(path, window="50.5,101", axis="axial").frame(0)[0, :, 0].tolist() == [0, 255]


def test_rgb_and_a_slice(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "a.mha"))
    scan = open_scan(tmp_path / "a.mha")
    assert isinstance(scan, ItkScan)
    assert (scan.frames, scan.size) == (1, (5, 7))
    assert np.array_equal(scan.frame(0), colours)
    assert scan.to_voxels(np.zeros((1, 5, 7), bool)).shape == (5, 7)


def test_nan_is_refused(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.nrrd", np.full(SHAPE, np.nan, np.float32), np.eye(4))
    with pytest.raises(DataError, match="slice 1 of 6 holds NaN"):
        open_scan(path).frame(0)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (sitk.Image([3, 3, 3, 3], sitk.sitkInt16), "4 axes, 3 x 3 x 3 x 3"),
        (sitk.Image([3, 3, 3], sitk.sitkVectorFloat32, 2), "2 values of 32 bits in a voxel"),
        (sitk.Image([3, 3, 3], sitk.sitkVectorUInt16, 3), "3 values of 16 bits in a voxel"),
    ],
)
def test_what_is_no_grey_volume(tmp_path: Path, image: sitk.Image, words: str) -> None:
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    with pytest.raises(DataError, match=words):
        open_scan(tmp_path / "a.mha")


@pytest.mark.parametrize("named", ["../secret.raw", "/etc/passwd", "sub/x.raw", "LIST", "slice%d.raw 1 3 1", "gone.raw"])
def test_voxels_are_taken_from_the_files_own_folder_alone(tmp_path: Path, named: str) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for raw in (tmp_path / "secret.raw", folder / "sub" / "x.raw"):
        raw.write_bytes(b"\1" * 64)
    header = f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {named}\n"
    (folder / "a.mhd").write_text(header)
    with pytest.raises(DataError, match="expected one file beside it"):
        open_scan(folder / "a.mhd")
    nrrd = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {named}\n\n"
    (folder / "a.nrrd").write_text(nrrd)
    with pytest.raises(DataError, match="expected one file beside it"):
        open_scan(folder / "a.nrrd")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.raw").write_bytes(b"\1" * 64)
    (tmp_path / "data" / "x.raw").symlink_to(tmp_path / "secret.raw")
    (tmp_path / "data" / "a.mhd").write_text("NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = x.raw\n")
    with pytest.raises(DataError, match="expected one file beside it"):
        open_scan(tmp_path / "data" / "a.mhd")


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_short(tmp_path: Path, suffix: str, compress: bool) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 16)).astype(np.int16)
    path = write_itk(tmp_path / f"a.{suffix}", voxels, np.eye(4), compress)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=rf"a\.{suffix}"):
        open_scan(path).frame(0)


def test_a_header_that_promises_more_than_memory(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_text("NRRD0004\ntype: uint8\ndimension: 3\nsizes: 9999 9999 9999\nencoding: gzip\n\n")
    (tmp_path / "a.mha").write_text("NDims = 3\nDimSize = 9999 9999 9999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n")
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(DataError, match=r"a volume of .* GiB"):
            open_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
def test_what_is_no_volume(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)
    with pytest.raises(DataError, match="really a NRRD or MetaImage file"):
        open_scan(tmp_path / name)


def test_nibabel_agrees_on_the_affine(tmp_path: Path) -> None:
    """SimpleITK writes the same image as NIfTI, nibabel reads its affine."""
    path = write_itk(tmp_path / "a.nrrd", np.zeros(SHAPE, np.int16), all_orientations()[17])
    sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / "a.nii"))
    scan = open_scan(path)
    assert isinstance(scan, ItkScan)
    assert scan.affine == pytest.approx(nib.load(tmp_path / "a.nii").affine, abs=1e-5)
