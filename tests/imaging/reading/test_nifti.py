"""Reading NIfTI: how frames lie for every order of the voxels, grey values, and files that cannot be used."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import all_orientations, write_nifti

from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.imaging.reading.nifti import NiftiScan
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.planes import plane_of
from tpseg.imaging.reading.windows import volume_range

SHAPE = (4, 5, 6)


def opened(path: Path, **options: str) -> NiftiScan:
    scan = open_scan(path, **options)
    assert isinstance(scan, NiftiScan)
    return scan


def patient(affine: np.ndarray) -> np.ndarray:
    """A volume in which each voxel's value tells where it lies: 100 for the right half, 50 for the front, 25 for the head half."""
    where = nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1))
    middle = nib.affines.apply_affine(affine, (np.array(SHAPE) - 1) / 2)
    right, front, head = np.moveaxis(where > middle, -1, 0)
    return (100 * right + 50 * front + 25 * head).astype(np.uint8)


@pytest.mark.parametrize("kind", [nib.nifti1.Nifti1Image, nib.nifti2.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_packed_says_its_beginning_not_its_name(tmp_path: Path, name: str, kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    content = kind(values, affine).to_bytes()
    (tmp_path / name).write_bytes(content if name.endswith(".gz") else gzip.compress(content))
    scan = opened(tmp_path / name)
    assert np.array_equal(scan.voxels(), values)
    assert np.array_equal(scan.affine, affine)
    (tmp_path / name).write_bytes(content[:-20] if name.endswith(".gz") else gzip.compress(content[:-20]))
    with pytest.raises(DataError):
        opened(tmp_path / name).voxels()


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_frames_lie_alike_for_all_48_orientations(tmp_path: Path, axis: str) -> None:
    """Top left of an axial frame is the patient's right front, of a coronal one his right and head, of a sagittal one front and head.

    Frames run from feet to head, from front to back, from left to right. And masks go back to the voxels they came from.
    """
    for number, affine in enumerate(all_orientations()):
        values = patient(affine)
        scan = opened(write_nifti(tmp_path / f"{number}.nii", values, affine), axis=axis, window="88,176")
        frames = np.stack([scan.frame(n)[..., 0] for n in range(scan.frames)]).astype(int)
        first, last = frames[0], frames[-1]
        shades = {value: int(np.round(value / 175 * 255)) for value in range(0, 176, 25)}
        expected = {
            "axial": (first, 100 + 50, 0, last, 100 + 50 + 25, 25),
            "coronal": (first, 100 + 50 + 25, 50, last, 100 + 25, 0),
            "sagittal": (first, 50 + 25, 0, last, 100 + 50 + 25, 100),
        }[axis]
        for frame, top_left, bottom_right in (expected[:3], expected[3:]):
            assert frame[0, 0] == shades[top_left], affine
            assert frame[-1, -1] == shades[bottom_right], affine
        masks = frames > shades[75]
        assert np.array_equal(scan.to_voxels(masks), values > 75), affine


def test_spacing_is_of_the_axes_that_a_frame_shows(tmp_path: Path) -> None:
    """Voxels of 2 x 3 x 5 mm along the patient's right, front and head."""
    path = write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.int16), np.diag([2.0, 3.0, 5.0, 1.0]))
    for axis, size, spacing, between in (("axial", (5, 4), (3, 2), 5), ("coronal", (6, 4), (5, 2), 3), ("sagittal", (6, 5), (5, 3), 2)):
        scan = opened(path, axis=axis)
        assert (scan.size, scan.spacing, scan.slice_spacing) == (size, spacing, between)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "0", "1", "2"])
def test_to_voxels_undoes_frame_for_any_volume(axis: str) -> None:
    """Also oblique ones: every voxel at its own place."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 5, 3)
        voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        plane = plane_of(affine, SHAPE, axis)
        frames = np.stack([plane.frame(voxels, n) for n in range(plane.lengths(SHAPE)[0])])
        assert frames.shape == plane.lengths(SHAPE)
        assert np.array_equal(plane.voxels(frames), voxels)


def test_a_voxel_axis_by_its_number() -> None:
    affine = np.diag([-2.0, 3.0, 5.0, 1.0])[:, [2, 0, 1, 3]]  # voxel axes: head, right, front
    assert [plane_of(affine, SHAPE, axis).axes[0] for axis in ("0", "1", "2")] == [0, 1, 2]
    assert plane_of(affine, SHAPE, "0") == plane_of(affine, SHAPE, "axial")


def test_without_an_axis_a_single_slice_is_shown_whole(tmp_path: Path) -> None:
    """A coronal slice must not be cut into lines."""
    path = write_nifti(tmp_path / "a.nii", np.zeros((40, 1, 30), np.int16))
    assert (open_scan(path).frames, open_scan(path).size) == (1, (30, 40))
    assert (open_scan(path, axis="axial").frames, open_scan(path, axis="axial").size) == (30, (1, 40))


@pytest.mark.parametrize("axis", ["top", "3", "-1", "Axial"])
def test_another_axis_is_bad_usage(tmp_path: Path, axis: str) -> None:
    with pytest.raises(UsageError, match="expected sagittal, coronal, axial, 0, 1 or 2"):
        open_scan(write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.int16)), axis=axis)


# Grey values


def test_without_a_window_the_percentiles_of_the_volume(tmp_path: Path) -> None:
    """0 to 1000 once each, scattered: 5 is black and 995 white in every slice."""
    values = np.random.default_rng(0).permutation(1001).reshape(7, 11, 13).astype(np.int16)
    scan = opened(write_nifti(tmp_path / "a.nii", values))
    assert volume_range(values) == (5, 995)
    expected = np.round(np.clip((values - 5) / 990, 0, 1) * 255)
    voxels = scan.to_voxels(np.stack([scan.frame(n)[..., 0] for n in range(scan.frames)]))
    assert np.array_equal(voxels, expected)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_scaled_values_and_a_window(tmp_path: Path, suffix: str) -> None:
    """Stored 0, 100, 200, 400, times 2, less 1000: lung, black at -1350 and 1499 wide."""
    image = nib.Nifti1Image(np.array([0, 100, 200, 400], np.int16).reshape(4, 1, 1), np.diag([-1.0, 1, 1, 1]))
    image.header.set_slope_inter(2, -1000)
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[352:360] = np.array([0, 100, 200, 400], "<i2").tobytes()  # as stored, not what nibabel made of the slope
    raw[112:120] = np.array([2, -1000], "<f4").tobytes()
    path = tmp_path / f"b.{suffix}"
    path.write_bytes(gzip.compress(bytes(raw)) if suffix == "nii.gz" else bytes(raw))
    frame = open_scan(path, window="lung", axis="axial").frame(0)
    assert frame[..., 0].tolist() == [[round(hu / 1499 * 255) for hu in (350, 550, 750, 1150)]]
    assert open_scan(path).name == "b"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64, ">i2", ">f4"])
def test_number_types(tmp_path: Path, dtype: type) -> None:
    values = np.array([0, 100], dtype).reshape(2, 1, 1)
    path = write_nifti(tmp_path / "a.nii", values, np.diag([-1.0, 1, 1, 1]))
    assert open_scan(path, window="50.5,101", axis="axial").frame(0)[0, :, 0].tolist() == [0, 255]


def test_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    structured = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(SHAPE)
    nib.save(nib.Nifti1Image(structured, np.diag([-1.0, -1, 1, 1])), tmp_path / "a.nii")
    assert np.array_equal(open_scan(tmp_path / "a.nii").frame(2), colours[:, :, 2].transpose(1, 0, 2))


def test_nifti_2_and_units(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.int16), np.diag([0.002, 0.003, 0.005, 1.0]), kind=nib.Nifti2Image)
    image = nib.load(path)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "b.nii")
    assert open_scan(tmp_path / "b.nii").spacing == pytest.approx((3, 2))


@pytest.mark.parametrize(("unit", "millimetres"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_a_unit_is_that_of_the_voxels_and_of_their_place(tmp_path: Path, unit: str, millimetres: float) -> None:
    affine = np.array([[2.0, 0, 0, -30], [0, 3, 0, 40], [0, 0, 5, 50], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(opened(tmp_path / "a.nii").affine, np.diag([millimetres] * 3 + [1]) @ affine)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_axes_of_length_one(tmp_path: Path, shape: tuple) -> None:
    """Read as a volume; a mask takes the file's own shape again."""
    values = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    scan = opened(write_nifti(tmp_path / "a.nii", values), window="1,2")
    frames = np.stack([scan.frame(n)[..., 0] > 127 for n in range(scan.frames)])
    back = scan.to_voxels(frames)
    assert back.shape == shape
    assert np.array_equal(back, values > 0)


def test_an_uncompressed_file_is_not_read_whole(tmp_path: Path) -> None:
    """A window given, one slice costs one slice."""
    path = write_nifti(tmp_path / "a.nii", np.zeros((8, 8, 8), np.int16))
    scan = opened(path, window="lung")
    scan.frame(3)
    assert isinstance(scan._raw, np.memmap)


# Bad input


def test_nan_is_refused_where_it_shows(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    values[3, 3, 5] = np.nan
    scan = opened(write_nifti(tmp_path / "a.nii", values))
    scan.frame(4)
    with pytest.raises(DataError, match=r"a\.nii: slice 6 of 8 holds NaN"):
        scan.frame(5)


@pytest.mark.parametrize(
    ("shape", "words"), [((4, 5, 6, 2), "4 axes, 4 x 5 x 6 x 2; expected three"), ((4, 5, 0), "without voxels"), ((7,), "1 axes")]
)
def test_shapes_that_are_no_volume(tmp_path: Path, shape: tuple, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_scan(write_nifti(tmp_path / "a.nii", np.zeros(shape, np.int16)))


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complex64"):
        open_scan(write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.complex64)))


@pytest.mark.parametrize(
    "affine",
    [np.diag([1.0, 0, 1, 1]), np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), np.diag([1.0, np.nan, 1, 1])],
)
def test_a_singular_affine_is_refused(tmp_path: Path, affine: np.ndarray) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.int16))
    raw = bytearray(path.read_bytes())
    raw[280:328] = affine[:3].astype("<f4").tobytes()  # the sform's rows
    path.write_bytes(raw)
    with pytest.raises(DataError, match="affine is singular"):
        open_scan(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="240 bytes of voxels, 239 are there"):
        open_scan(path)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(whole)[:-12])
    with pytest.raises(DataError, match=r"b\.nii\.gz: cannot be read"):
        open_scan(packed).frame(0)


def test_a_header_that_promises_more_than_memory(tmp_path: Path) -> None:
    """32767 x 32767 x 32767 voxels in a file of a few hundred bytes; only the packed one could hide that many."""
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["dim"][1:4] = 32767
    for name, words in (("a.nii", r"bytes of voxels, \d+ are there"), ("a.nii.gz", "unpack it to .nii")):
        raw = image.header.binaryblock + b"\0" * 4 + b"\0" * 16
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
        with pytest.raises(DataError, match=words):
            open_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_no_nifti(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)
    with pytest.raises(DataError, match=r"a\.nii.*really a NIfTI file"):
        open_scan(tmp_path / name)


def test_every_file_that_comes_with_nibabel() -> None:
    """Each is shown, or refused in one sentence."""
    root = Path(nib.__file__).parent
    shown, sentences = 0, []
    for path in sorted(itertools.chain((root / "tests" / "data").rglob("*"), (root / "nicom" / "tests" / "data").rglob("*"))):
        if not path.is_file():
            continue
        try:
            scan = open_scan(path)
            for index in range(scan.frames):
                frame = scan.frame(index)
                assert frame.shape == (*scan.size, 3)
                assert frame.dtype == np.uint8
            shown += 1
        except TPSegError as error:
            sentences.append(str(error).removeprefix(f"{path}: "))
    assert shown >= 9
    assert shown + len(sentences) >= 80
    assert not [sentence for sentence in sentences if "\n" in sentence or sentence.startswith("/")]
