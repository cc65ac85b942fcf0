"""A volume in, masks out: the same grid, voxel for voxel, in every orientation and along every axis."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_factory import PATIENT, all_orientations, write_nifti
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tpseg.imaging.reading.itk import ItkScan
from tpseg.imaging.reading.nifti import NiftiScan
from tpseg.imaging.writing.volumes import write_itk
from tpseg.imaging.writing.volumes import write_nifti as write_mask

SHAPE = (4, 5, 6)


def marked(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels that are bright where a lesion is, in a pattern without any symmetry."""
    return (np.random.default_rng(3).random(shape) < 0.4).astype(np.uint8) * 200


def bright(scan) -> np.ndarray:
    """(N, H, W) bool: what a perfect model marks in the frames it is shown."""
    return np.stack([scan.frame(n)[..., 0] > 100 for n in range(scan.frames)])


def same_grid(one: nib.Nifti1Image, other: nib.Nifti1Image) -> None:
    """Affine, both transforms with their codes, zooms, units and shape are equal, bit for bit."""
    assert one.shape == other.shape
    np.testing.assert_array_equal(one.affine, other.affine)
    for form in ("get_qform", "get_sform"):
        (matrix, code), (expected, expected_code) = (getattr(image.header, form)(coded=True) for image in (one, other))
        assert code == expected_code
        np.testing.assert_array_equal(matrix if matrix is None else np.array(matrix), expected)
    assert one.header.get_zooms() == other.header.get_zooms()
    assert one.header.get_xyzt_units() == other.header.get_xyzt_units()


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "0", "1", "2"])
@pytest.mark.parametrize("affine", all_orientations(), ids=lambda affine: "".join(nib.aff2axcodes(affine)))
def test_masks_lie_on_the_sources_grid_in_all_48_orientations(tmp_path, affine, axis):
    voxels = marked()
    source = write_nifti(tmp_path / "scan.nii", voxels, affine)
    scan = NiftiScan(source, "scan", axis=axis)
    write_mask(scan, bright(scan), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    same_grid(mask, nib.load(source))
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), voxels > 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_oblique_affine_any_codes_and_any_shape_stay_as_they_are(tmp_path: Path, data):
    """Rotations, zooms of 0.1 to 9 mm, q and s transforms that differ, each with any code: the header's own words are kept."""
    zooms = data.draw(st.tuples(*[st.floats(0.1, 9)] * 3))
    axis = np.add(data.draw(st.tuples(*[st.floats(-1, 1)] * 3)), (0.01, 0, 0))
    angle = data.draw(st.floats(-3, 3))
    affine = np.eye(4)
    affine[:3, :3] = nib.quaternions.angle_axis2mat(angle, axis) * zooms
    affine[:3, 3] = data.draw(st.tuples(*[st.floats(-500, 500)] * 3))
    shape = data.draw(st.tuples(*[st.integers(2, 7)] * 3))
    voxels = marked(shape)
    voxels.flat[:2] = 0, 200
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, data.draw(st.sampled_from(["scanner", "aligned", "talairach", "mni"])))
    shifted = affine.copy()
    shifted[:3, 3] += 7
    image.set_qform(shifted, data.draw(st.sampled_from(["unknown", "scanner", "aligned"])))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii")
    scan = NiftiScan(tmp_path / "scan.nii", "scan", axis=data.draw(st.sampled_from(["axial", "coronal", "sagittal"])))
    write_mask(scan, bright(scan), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    same_grid(mask, nib.load(tmp_path / "scan.nii"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), voxels > 0)


def test_probabilities_are_float32_on_the_same_grid(tmp_path):
    affine = all_orientations()[37]
    source = write_nifti(tmp_path / "scan.nii.gz", marked(), affine)
    scan = NiftiScan(source, "scan")
    write_mask(scan, bright(scan) * np.float32(0.7), tmp_path / "p.nii")
    image = nib.load(tmp_path / "p.nii")
    same_grid(image, nib.load(source))
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), (marked() > 0) * np.float32(0.7))


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5)], ids=["fourth axis of one", "one slice"])
def test_the_files_own_shape_is_kept(tmp_path, shape):
    source = write_nifti(tmp_path / "scan.nii", marked(shape))
    scan = NiftiScan(source, "scan")
    write_mask(scan, bright(scan), tmp_path / "mask.nii")
    same_grid(nib.load(tmp_path / "mask.nii"), nib.load(source))
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii").dataobj), marked(shape) > 0)


def test_scaling_window_and_words_of_the_source_stay_behind(tmp_path):
    image = nib.Nifti1Image(marked().astype(np.int16), all_orientations()[5])
    image.header["descrip"], image.header["db_name"], image.header["aux_file"] = (PATIENT.encode(),) * 3
    image.header["cal_max"] = 1000
    image.header.set_slope_inter(2.0, -1024.0)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", PATIENT.encode()))
    nib.save(image, tmp_path / "scan.nii")
    scan = NiftiScan(tmp_path / "scan.nii", "scan")
    write_mask(scan, bright(scan), tmp_path / "mask.nii")
    assert PATIENT.encode() not in (tmp_path / "mask.nii").read_bytes()
    mask = nib.load(tmp_path / "mask.nii")
    assert set(np.unique(mask.get_fdata())) == {0, 1}
    assert mask.header["cal_max"] == 0
    same_grid(mask, nib.load(tmp_path / "scan.nii"))


def test_nifti_2_stays_nifti_2(tmp_path):
    source = write_nifti(tmp_path / "scan.nii", marked(), all_orientations()[11], kind=nib.Nifti2Image)
    scan = NiftiScan(source, "scan")
    write_mask(scan, bright(scan), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert isinstance(mask, nib.Nifti2Image)
    same_grid(mask, nib.load(source))


def itk_image(values: np.ndarray, direction: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetOrigin((-1.5, 20.25, 3.0))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetDirection(direction.flatten().tolist())
    return image


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("affine", all_orientations()[::7], ids=lambda affine: "".join(nib.aff2axcodes(affine)))
def test_itk_formats_keep_origin_spacing_and_direction(tmp_path, affine, suffix, axis):
    values = marked((6, 5, 4))
    direction = affine[:3, :3] / (2, 3, 5)
    source = tmp_path / f"scan{suffix}"
    sitk.WriteImage(itk_image(values, direction), str(source))
    scan = ItkScan(source, "scan", axis=axis)
    write_itk(scan, bright(scan), tmp_path / f"mask{suffix}")
    mask, expected = sitk.ReadImage(str(tmp_path / f"mask{suffix}")), sitk.ReadImage(str(source))
    assert mask.GetPixelID() == sitk.sitkUInt8
    for question in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(mask, question)() == getattr(expected, question)()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), values > 0)


def test_itk_probabilities_are_float32_and_nothing_else_of_the_header_is_kept(tmp_path):
    image = itk_image(marked((6, 5, 4)), np.eye(3))
    image.SetMetaData("PatientName", PATIENT)
    sitk.WriteImage(image, str(tmp_path / "scan.nrrd"))
    scan = ItkScan(tmp_path / "scan.nrrd", "scan")
    write_itk(scan, bright(scan) * np.float32(0.25), tmp_path / "p.nrrd")
    found = sitk.ReadImage(str(tmp_path / "p.nrrd"))
    assert found.GetPixelID() == sitk.sitkFloat32
    assert PATIENT.encode() not in (tmp_path / "p.nrrd").read_bytes()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), (marked((6, 5, 4)) > 0) * np.float32(0.25))


def test_a_two_dimensional_itk_image_stays_one(tmp_path):
    image = sitk.GetImageFromArray(marked((6, 5)))
    image.SetSpacing((0.5, 0.75))
    sitk.WriteImage(image, str(tmp_path / "slice.mha"))
    scan = ItkScan(tmp_path / "slice.mha", "slice")
    write_itk(scan, bright(scan), tmp_path / "mask.mha")
    found = sitk.ReadImage(str(tmp_path / "mask.mha"))
    assert (found.GetDimension(), found.GetSpacing()) == (2, (0.5, 0.75))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), marked((6, 5)) > 0)
