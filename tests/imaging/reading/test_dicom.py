"""Reading DICOM: grey values worked out by hand, series in their order, and files that lie."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import PATIENT, dicom, item, write_dicom, write_series
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.imaging.reading import dicom_file, grey
from tpseg.imaging.reading.dicom import DicomScan
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.series import even_distance

RAMP = np.array([[0, 100], [200, 400]], np.int16)


def shown(path: Path, index: int = 0, window: str = "") -> list:
    """A grey frame's values, one channel."""
    frame = open_scan(path, window=window).frame(index)
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
    assert (frame == frame[..., :1]).all()
    return frame[..., 0].tolist()


def opened(path: Path) -> DicomScan:
    scan = open_scan(path)
    assert isinstance(scan, DicomScan)
    return scan


# Grey values


def test_rescale_then_window(tmp_path: Path) -> None:
    """Stored 0, 100, 200, 400 are -1000, -800, -600, -200 HU; lung, -600 and 1500: black at -1350, 1499 wide."""
    path = write_dicom(tmp_path / "ct.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=-600, WindowWidth=1500)
    assert shown(path) == [[round(350 / 1499 * 255), round(550 / 1499 * 255)], [round(750 / 1499 * 255), round(1150 / 1499 * 255)]]


def test_the_window_asked_for_comes_first(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct.dcm", RAMP, RescaleSlope=1, RescaleIntercept=-160, WindowCenter=0, WindowWidth=10)
    assert shown(path, window="40,401") == [[0, 64], [128, 255]], "-160 black, 400 values up to 240"
    assert shown(path, window="lung") != shown(path)


def test_the_first_of_several_windows(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct.dcm", RAMP, WindowCenter=[200.5, 7], WindowWidth=[401, 3])
    assert shown(path) == [[0, 64], [128, 255]]


@pytest.mark.parametrize(("function", "expected"), [("LINEAR_EXACT", [[0, 64], [128, 255]]), ("SIGMOID", [[30, 69], [128, 225]])])
def test_the_files_window_function(tmp_path: Path, function: str, expected: list) -> None:
    """Sigmoid: 255 / (1 + exp(-4 (x - 200) / 400)) at 0, 100, 200, 400."""
    path = write_dicom(tmp_path / "ct.dcm", RAMP, WindowCenter=200, WindowWidth=400, VOILUTFunction=function)
    assert shown(path) == expected


def test_a_window_narrower_than_one_is_exact(tmp_path: Path) -> None:
    """Diffusion maps are rescaled to thousandths; LINEAR cannot be that narrow."""
    path = write_dicom(tmp_path / "adc.dcm", RAMP, RescaleSlope=0.001, RescaleIntercept=0, WindowCenter=0.2, WindowWidth=0.4)
    assert shown(path) == [[0, 64], [128, 255]]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "cr.dcm", RAMP, PhotometricInterpretation="MONOCHROME1", WindowCenter=200.5, WindowWidth=401)
    assert shown(path) == [[255, 191], [127, 0]]


def test_without_a_window_the_range_of_all_frames(tmp_path: Path) -> None:
    """Not of each frame: 0 to 400 in the first, 800 in the second."""
    path = write_dicom(tmp_path / "mr.dcm", np.stack([RAMP, np.full((2, 2), 800, np.int16)]))
    assert shown(path, 0) == [[0, 32], [64, 128]]
    assert shown(path, 1) == [[255, 255], [255, 255]]


def test_padding_is_not_in_the_range(tmp_path: Path) -> None:
    values = np.array([[-2000, 0], [200, 400]], np.int16)
    path = write_dicom(tmp_path / "ct.dcm", values, PixelPaddingValue=None, RescaleSlope=1, RescaleIntercept=0)
    assert shown(path)[0][1] == 212
    header = dicom(values)
    header.add_new(0x00280120, "SS", -2000)
    header.save_as(tmp_path / "padded.dcm", enforce_file_format=True)
    assert shown(tmp_path / "padded.dcm") == [[0, 0], [128, 255]]


def test_eight_bits_without_a_unit_are_shown_as_they_are(tmp_path: Path) -> None:
    """An ultrasound picture is no measurement: stretching it would brighten dark ones."""
    assert shown(write_dicom(tmp_path / "us.dcm", np.array([[3, 50], [60, 100]], np.uint8))) == [[3, 50], [60, 100]]


def test_a_voi_table(tmp_path: Path) -> None:
    """Entries for 100, 101, 102; below the first and above the last stand for what lies beyond."""
    table = item(LUTDescriptor=[3, 100, 8], LUTData=[10, 20, 250])
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    path = write_dicom(tmp_path / "dx.dcm", np.array([[0, 100], [101, 999]], np.uint16), VOILUTSequence=table)
    assert shown(path) == [[10, 10], [20, 250]]


def test_a_voi_table_of_eight_bits_in_words_is_as_bright_as_it_is(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[4, 0, 16], LUTData=[0, 85, 170, 255])
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    path = write_dicom(tmp_path / "dx.dcm", np.array([[0, 1], [2, 3]], np.uint16), VOILUTSequence=table)
    assert shown(path) == [[0, 85], [170, 255]]


def test_a_table_of_65536_entries_says_0_of_them(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.1: the number would not fit into its 16 bits."""
    table = item(LUTDescriptor=[0, 0, 16], LUTData=np.arange(2**16, dtype="<u2")[::-1].tobytes())
    table[0]["LUTDescriptor"].VR, table[0]["LUTData"].VR = "US", "OW"
    path = write_dicom(tmp_path / "dx.dcm", np.array([[0, 1], [2**15, 2**16 - 1]], np.uint16), VOILUTSequence=table)
    assert shown(path) == [[255, 255], [127, 0]]


def test_a_modality_table(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[4, 0, 16], LUTData=[1000, 3000, 2000, 0], ModalityLUTType="US")
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    path = write_dicom(tmp_path / "dx.dcm", np.array([[0, 1], [2, 3]], np.uint16), ModalityLUTSequence=table)
    assert shown(path) == [[85, 255], [170, 0]]


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.array([[0, 4095], [0, 4095]], np.uint16), {"BitsStored": 12, "HighBit": 11}),
        (np.array([[-7, 9], [-7, 9]], np.int8), {}),
        (np.array([[-70000, 90000], [-70000, 90000]], np.int32), {}),
        (np.array([[0, 2**32 - 1], [0, 2**32 - 1]], np.uint32), {}),
        (np.array([[-0.5, 1.5], [-0.5, 1.5]], np.float32), {}),
        (np.array([[-0.5, 1.5], [-0.5, 1.5]], np.float64), {}),
    ],
)
def test_number_types(tmp_path: Path, values: np.ndarray, bits: dict) -> None:
    assert shown(write_dicom(tmp_path / "a.dcm", values, **bits)) == [[0, 255], [0, 255]]


def test_unused_high_bits_are_dropped(tmp_path: Path) -> None:
    """Old files keep overlays above the 12 bits of the image."""
    values = np.array([[0, 2047], [0xF000, 0x8000 | 4095]], np.uint16)
    assert shown(write_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=11)) == [[0, 127], [0, 255]]


@pytest.mark.parametrize(("kind", "low"), [("u2", 0), ("i2", -2048)])
@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_values_end_where_high_bit_says(tmp_path: Path, kind: str, low: int, high: int, syntax: pydicom.uid.UID) -> None:
    """Old scanners left-align 12 bits in 16; what lies below them is no part of the value."""
    values = np.array([[low, low + 4095], [low + 1000, low + 3000]], np.int32)
    stored = ((values << (high - 11)) | (3 if high == 13 else 0)).astype(kind)
    elements = {"BitsStored": 12, "HighBit": high, "WindowCenter": low + 2048, "WindowWidth": 4096}
    if syntax == RLELossless:
        packed = pydicom.dcmread(write_dicom(tmp_path / "plain.dcm", stored, **elements))
        packed.compress(RLELossless)
        packed.save_as(tmp_path / "a.dcm")
    else:
        write_dicom(tmp_path / "a.dcm", stored, syntax=syntax, **elements)
    assert shown(tmp_path / "a.dcm") == np.round((values - low) / 4095 * 255).tolist()


def test_a_high_bit_that_cannot_be_is_refused(tmp_path: Path) -> None:
    values = np.array([[0, 7], [9, 4095]], np.uint16)
    for high in (3, 16):
        with pytest.raises(DataError, match=rf"a\.dcm: .*values of 12 bits end at bit {high} of 16; expected bit 11 to 15"):
            open_scan(write_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=high))
    with pytest.raises(DataError, match=r"a\.dcm: .*values end at bit 15, but those of frame 1 end at bit 11 or below; correct HighBit"):
        open_scan(write_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=15)).frame(0)
    assert shown(write_dicom(tmp_path / "a.dcm", values.astype(np.uint8), HighBit=0)) == [[0, 7], [9, 255]]  # all bits are used


def test_a_high_bit_of_compressed_pixels_is_refused(tmp_path: Path) -> None:
    packed = pydicom.dcmread(write_dicom(tmp_path / "plain.dcm", np.arange(16, dtype=np.uint16).reshape(4, 4), BitsStored=12, HighBit=11))
    packed.compress(JPEGLSLossless)
    packed.HighBit = 15
    packed.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"a\.dcm: .*of compressed pixels bit 11 is expected"):
        open_scan(tmp_path / "a.dcm")


def test_one_bit(tmp_path: Path) -> None:
    """Packed from the lowest bit on: 0b01010011 is 1, 1, 0, 0, 1, 0, 1, 0."""
    one = {"Rows": 2, "Columns": 4, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": b"\x53\x00"}
    assert shown(write_dicom(tmp_path / "a.dcm", np.zeros((2, 4), np.uint8), **one)) == [[255, 255, 0, 0], [255, 0, 255, 0]]


def test_nan_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, np.nan]], np.float32))
    with pytest.raises(DataError, match=r"a\.dcm: frame 1 holds NaN"):
        open_scan(path).frame(0)


# Colours

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_by_pixel_and_by_plane(tmp_path: Path, planar: int) -> None:
    data = COLOURS.transpose(2, 0, 1).tobytes() if planar else COLOURS.tobytes()
    path = write_dicom(tmp_path / "a.dcm", COLOURS, PlanarConfiguration=planar, PixelData=data)
    assert np.array_equal(open_scan(path).frame(0), COLOURS)


def test_rgb_of_sixteen_bits(tmp_path: Path) -> None:
    assert np.array_equal(open_scan(write_dicom(tmp_path / "a.dcm", COLOURS.astype(np.uint16) * 257)).frame(0), COLOURS)


def test_ybr_full(tmp_path: Path) -> None:
    """Y 76, Cb 85, Cr 255 is red: R = 76 + 1.402 * 127, G = 76 - 0.344 * -43 - 0.714 * 127, B = 76 + 1.772 * -43."""
    ybr = np.array([[[76, 85, 255], [128, 128, 128]]], np.uint8)
    path = write_dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL")
    assert open_scan(path).frame(0).tolist() == [[[254, 0, 0], [128, 128, 128]]]


def test_ybr_full_422(tmp_path: Path) -> None:
    """Two pixels share their colour: Y1, Y2, Cb, Cr."""
    elements = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": bytes([76, 128, 128, 128])}
    path = write_dicom(tmp_path / "a.dcm", np.zeros((1, 2, 3), np.uint8), **elements)
    assert open_scan(path).frame(0).tolist() == [[[76] * 3, [128] * 3]]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette(tmp_path: Path, bits: int) -> None:
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, entries in (("Red", [0, 255, 10, 0]), ("Green", [0, 0, 20, 0]), ("Blue", [7, 0, 30, 0])):
        elements[f"{channel}PaletteColorLookupTableDescriptor"] = [4, 0, bits]
        table = np.array(entries, np.uint8) if bits == 8 else np.array(entries, np.uint16) << 8
        elements[f"{channel}PaletteColorLookupTableData"] = table.tobytes()
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 2]], np.uint8), **elements)
    assert open_scan(path).frame(0).tolist() == [[[0, 0, 7], [255, 0, 0]], [[10, 20, 30], [10, 20, 30]]]


def palette_of(colours: np.ndarray, told: int, first: int = 0, order: str = "<", count: int | None = None) -> dict[str, object]:
    """Elements of a palette (N, 3); told: the bits of its entries as the descriptor has them."""
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, entries in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        elements[f"{channel}PaletteColorLookupTableDescriptor"] = [len(entries) if count is None else count, first, told]
        data = np.ascontiguousarray(entries)
        words = data.view("<u2") if data.dtype == np.uint8 else data
        elements[f"{channel}PaletteColorLookupTableData"] = words.astype(f"{order}u2").tobytes()
    return elements


PALETTE = np.array([[0, 0, 7], [255, 0, 0], [10, 20, 30], [40, 50, 60]], np.uint8)


@pytest.mark.parametrize("told", [8, 16])
def test_eight_bits_in_a_palette_of_words_are_as_bright_as_they_are(tmp_path: Path, told: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]], np.uint8), **palette_of(PALETTE.astype(np.uint16), told))
    assert open_scan(path).frame(0).reshape(4, 3).tolist() == PALETTE.tolist()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("wide", [False, True])
def test_palettes_of_either_byte_order(tmp_path: Path, syntax: pydicom.uid.UID, wide: bool) -> None:
    colours = PALETTE.astype(np.uint16) << 8 if wide else PALETTE
    elements = palette_of(colours, 16 if wide else 8, order="<" if syntax.is_little_endian else ">")
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]], np.uint16), syntax=syntax, **elements)
    assert open_scan(path).frame(0).reshape(4, 3).tolist() == PALETTE.tolist()


def test_values_outside_a_palette_have_its_first_and_last_colour(tmp_path: Path) -> None:
    values = np.array([[0, 100], [103, 356]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", values, **palette_of(PALETTE, 8, first=100))
    assert open_scan(path).frame(0).reshape(4, 3).tolist() == PALETTE[[0, 0, 3, 3]].tolist()


def test_a_palette_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8), **palette_of(PALETTE.astype(np.uint16), 16, count=6))
    with pytest.raises(DataError, match=r"a\.dcm: frame 1 has a palette of 8 bytes for 6 colours"):
        open_scan(path).frame(0)


# Encodings


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.stack([RAMP, RAMP[::-1]]), syntax=syntax, WindowCenter=200.5, WindowWidth=401)
    assert shown(path, 1) == [[128, 255], [0, 64]]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_syntaxes(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (3, 16, 24)).astype(np.uint16)
    plain = write_dicom(tmp_path / "plain.dcm", values, BitsStored=12, HighBit=11)
    packed = pydicom.dcmread(plain)
    try:
        packed.compress(syntax, generate_instance_uid=False)
    except RuntimeError:  # no JPEG-LS encoder for pydicom, but GDCM has one
        packed = compress_with_gdcm(plain, tmp_path / "gdcm.dcm")
    packed.save_as(tmp_path / "packed.dcm")
    for index in range(3):
        assert np.array_equal(open_scan(tmp_path / "packed.dcm").frame(index), open_scan(plain).frame(index))


def compress_with_gdcm(plain: Path, packed: Path) -> pydicom.Dataset:
    """A file as JPEG-LS."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLSLossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return pydicom.dcmread(packed)


def test_no_preamble_and_no_suffix(tmp_path: Path) -> None:
    for number, syntax in enumerate((ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)):
        header = dicom(RAMP, syntax=syntax, WindowCenter=200.5, WindowWidth=401)
        del header.file_meta
        path = tmp_path / f"IM{number}"
        header.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        assert shown(path) == [[0, 64], [128, 255]]
        assert open_scan(path).name == path.name


# Spacing


@pytest.mark.parametrize(
    ("elements", "spacing", "element"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2), "ImagerPixelSpacing"),
        ({"PixelSpacing": [0.5, 0.25], "ImagerPixelSpacing": [0.1, 0.2]}, (0.5, 0.25), "PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, None, ""),
        ({}, None, ""),
    ],
)
def test_spacing(tmp_path: Path, elements: dict, spacing: tuple | None, element: str) -> None:
    scan = opened(write_dicom(tmp_path / "a.dcm", RAMP, **elements))
    assert scan.spacing == spacing
    assert scan.spacing_from == element


def region(delta_x: float, delta_y: float, unit: int = 3) -> pydicom.sequence.Sequence:
    return item(
        RegionSpatialFormat=1,
        PhysicalUnitsXDirection=unit,
        PhysicalUnitsYDirection=unit,
        PhysicalDeltaX=delta_x,
        PhysicalDeltaY=delta_y,
    )


def test_the_spacing_of_ultrasound_regions(tmp_path: Path) -> None:
    """In centimetres, and only where all regions agree."""
    for name, regions, spacing in (
        ("one", [*region(0.02, 0.03)], (0.3, 0.2)),
        ("same", [*region(0.02, 0.03), *region(0.02, 0.03)], (0.3, 0.2)),
        ("two", [*region(0.02, 0.03), *region(0.05, 0.05)], None),
        ("seconds", [*region(0.02, 0.03, unit=4)], None),
    ):
        scan = opened(write_dicom(tmp_path / f"{name}.dcm", RAMP.astype(np.uint8), SequenceOfUltrasoundRegions=regions))
        assert scan.spacing == (None if spacing is None else pytest.approx(spacing))


# Multi-frame and enhanced


def test_enhanced_groups_of_each_frame(tmp_path: Path) -> None:
    """Each frame has its own rescaling and window; spacing and orientation are shared."""
    per_frame = [
        item(
            PixelValueTransformationSequence=item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="HU"),
            FrameVOILUTSequence=item(WindowCenter=centre, WindowWidth=401),
            PlanePositionSequence=item(ImagePositionPatient=[0, 0, 5 * n]),
        )[0]
        for n, (slope, centre) in enumerate(((1, 200.5), (2, 200.5), (1, 600.5)))
    ]
    shared = item(
        PixelMeasuresSequence=item(PixelSpacing=[0.5, 0.25], SliceThickness=5),
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    path = write_dicom(
        tmp_path / "a.dcm",
        np.stack([RAMP] * 3),
        SOPClassUID=EnhancedCTImageStorage,
        PerFrameFunctionalGroupsSequence=per_frame,
        SharedFunctionalGroupsSequence=shared,
    )
    assert [shown(path, n) for n in range(3)] == [[[0, 64], [128, 255]], [[0, 128], [255, 255]], [[0, 0], [0, 0]]]
    scan = opened(path)
    assert (scan.spacing, scan.slice_spacing, scan.multi_frame, scan.frames) == ((0.5, 0.25), 5, True, 3)
    header, number = scan.source(2)
    assert (header.SOPInstanceUID, number) == (scan.headers[0].SOPInstanceUID, 3)


def test_frames_that_differ_in_spacing_have_none(tmp_path: Path) -> None:
    """A measurement in millimetres must never be wrong."""
    per_frame = [item(PixelMeasuresSequence=item(PixelSpacing=[s, s]))[0] for s in (0.5, 0.6)]
    assert opened(write_dicom(tmp_path / "a.dcm", np.stack([RAMP] * 2), PerFrameFunctionalGroupsSequence=per_frame)).spacing is None


def test_a_cine_loop(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    scan = opened(write_dicom(tmp_path / "us.dcm", frames, SOPClassUID=UltrasoundMultiFrameImageStorage))
    assert (scan.frames, scan.size, scan.name) == (4, (6, 8), "us")
    assert all(np.array_equal(scan.frame(n), frames[n]) for n in (3, 0, 2, 1))


# Series


@pytest.mark.parametrize(
    ("places", "distance"),
    [([3.0, 6.0, 9.0], 3.0), ([9.0, 6.0, 3.0], 3.0), ([0.0, 3.0, 6.1], None), ([0.0, 3.0, None], None), ([5.0], None), ([2.0, 2.0], None)],
)
def test_the_distance_of_slices_is_that_of_neighbours_in_either_direction(places, distance):
    assert even_distance(places) == distance


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)])
def test_a_series_is_sorted_along_its_normal(tmp_path: Path, orientation: tuple) -> None:
    """File names and instance numbers are shuffled; frame n lies n steps along the normal."""
    volume = np.arange(5, dtype=np.int16)[:, None, None] * 100 * np.ones((5, 4, 6), np.int16)
    files = write_series(tmp_path / "series", volume, orientation=orientation)
    scan = opened(tmp_path / "series")
    assert (scan.files, scan.frames, scan.size, scan.name) == (tuple(files), 5, (4, 6), "series")
    assert (scan.spacing, scan.spacing_from) == ((0.5, 0.75), "PixelSpacing")
    assert scan.slice_spacing == pytest.approx(3.0)
    assert [int(scan.frame(n)[0, 0, 0]) for n in range(5)] == [0, 64, 128, 191, 255], "one range for the series"
    assert [scan.source(n)[0].SOPInstanceUID for n in range(5)] == [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert scan.source(3)[1] is None
    assert "PixelData" not in scan.headers[0]


def test_without_positions_a_series_is_sorted_by_instance_number(tmp_path: Path) -> None:
    volume = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 2, 2), np.uint8)
    write_series(tmp_path / "s", volume, ImagePositionPatient=None)
    scan = opened(tmp_path / "s")
    assert [header.InstanceNumber for header in scan.headers] == [1, 2, 3, 4, 5, 6]
    assert scan.slice_spacing is None


def test_a_gap_in_a_series_leaves_no_slice_spacing(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", np.zeros((5, 2, 2), np.int16))
    files[2].unlink()
    assert opened(tmp_path / "s").slice_spacing is None


def test_a_copy_in_a_series_is_named(tmp_path: Path) -> None:
    files = write_series(tmp_path / "s", np.zeros((3, 2, 2), np.int16))
    (tmp_path / "s" / "copy").write_bytes(files[1].read_bytes())
    with pytest.raises(DataError, match="the same image as"):
        open_scan(tmp_path / "s")


# Files that are no image, or lie


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        (EncapsulatedPDFStorage, "a DICOM Encapsulated PDF Storage without pixels"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "a DICOM Comprehensive SR Storage without pixels"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "a DICOM RT Structure Set Storage without pixels"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "a DICOM Grayscale Softcopy Presentation State Storage without pixels"),
        ("1.2.840.10008.5.1.4.1.1.2", "a DICOM CT Image Storage without pixels"),
    ],
)
def test_what_holds_no_image_says_what_it_is(tmp_path: Path, uid: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_scan(write_dicom(tmp_path / "a.dcm", RAMP, PixelData=None, SOPClassUID=uid))


def test_a_segmentation_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds masks"):
        open_scan(write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint8), SOPClassUID=SegmentationStorage))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"PixelData": RAMP.tobytes()[:-2]}, "8 bytes, but 6 bytes of pixels are there"),
        ({"PixelData": RAMP.tobytes() * 2}, "8 bytes, but 16 bytes of pixels are there"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 10_000}, "65535x65535.*at most 64,000,000"),
        ({"NumberOfFrames": 2_000_000_000}, "2000000000 frames of 2x2"),
        ({"NumberOfFrames": -3}, "-3 frames"),
        ({"Rows": 0}, "2x0 pixels"),
        ({"Rows": None}, "no Rows"),
        ({"PhotometricInterpretation": "HSV"}, "unknown with 1 samples"),
        ({"PhotometricInterpretation": "RGB"}, "RGB with 1 samples"),
        ({"BitsAllocated": 7}, "7 bits allocated"),
    ],
)
def test_headers_that_lie(tmp_path: Path, elements: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_scan(write_dicom(tmp_path / "a.dcm", RAMP, **elements)).frame(0)


def test_uncompressed_pixels_called_compressed(tmp_path: Path) -> None:
    header = dicom(RAMP)
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    with (tmp_path / "a.dcm").open("wb") as file:
        out = pydicom.filebase.DicomFileLike(file)
        out.is_little_endian, out.is_implicit_VR = True, False
        out.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(out, header.file_meta, enforce_standard=False)
        pydicom.filewriter.write_dataset(out, header)
    with pytest.raises(DataError, match=r"says JPEG Baseline.*not compressed"):
        open_scan(tmp_path / "a.dcm")


def test_compressed_pixels_called_uncompressed(tmp_path: Path) -> None:
    header = dicom(np.zeros((16, 16), np.uint8))
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header["PixelData"].is_undefined_length = True
    header.save_as(tmp_path / "a.dcm", enforce_file_format=False)
    with pytest.raises(DataError, match="says Explicit VR Little Endian, but its pixels are compressed"):
        open_scan(tmp_path / "a.dcm")


def test_more_compressed_frames_than_there_are_bytes(tmp_path: Path) -> None:
    header = dicom(np.zeros((16, 16), np.uint8))
    header.compress(RLELossless)
    header.NumberOfFrames = 1000
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"1000 frames of 16x16, too many for [\d,]+ bytes"):
        open_scan(tmp_path / "a.dcm")


def test_pixels_compressed_otherwise_than_the_header_says(tmp_path: Path) -> None:
    header = dicom(np.zeros((16, 16), np.uint8))
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"frame 1 cannot be decoded as JPEG 2000.*no decoder understands it"):
        open_scan(tmp_path / "a.dcm").frame(0)


def test_a_video_syntax_and_a_missing_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = dicom(np.zeros((16, 16), np.uint8))
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = MPEG4HP41
    header.save_as(tmp_path / "a.dcm")
    with pytest.raises(DataError, match=r"MPEG-4.*cannot be decoded; export the image"):
        open_scan(tmp_path / "a.dcm")
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    header.save_as(tmp_path / "b.dcm")
    monkeypatch.setattr(pydicom.pixels.common.CoderBase, "is_available", False)
    with pytest.raises(DataError, match=r"JPEG-LS.*pip install '\.\[dicom\]' in a checkout"):
        open_scan(tmp_path / "b.dcm")


def test_a_deflated_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2000, 2000), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("tpseg.imaging.reading.guarding.MAX_VOLUME_BYTES", 2**20)
    with pytest.raises(DataError, match="export it again without deflation"):
        open_scan(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 132, b"\x89PNG\r\n\x1a\n" + b"\0" * 300])
def test_what_is_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(DataError, match="not a DICOM file"):
        open_scan(tmp_path / "a.dcm")


def test_an_unknown_window_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="window 'lungs'"):
        open_scan(write_dicom(tmp_path / "a.dcm", RAMP), window="lungs")


def test_odd_values_in_a_header_are_not_quoted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pydicom would warn of them, with the value."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, StudyDate="20010203", WindowWidth="1234", WindowCenter="1")
    path.write_bytes(path.read_bytes().replace(b"1234", b"wide").replace(b"20010203", PATIENT.encode()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"pydicom\.")  # as importing tpseg.imaging.reading.dicom_file does outside of pytest
        with pytest.raises(DataError) as raised:
            open_scan(path).frame(0)
    assert "wide" not in str(raised.value)
    out, err = capfd.readouterr()
    assert PATIENT not in str(raised.value) + out + err


def test_every_file_that_comes_with_pydicom() -> None:
    """Each is shown, or refused in one sentence."""
    root = Path(pydicom.__file__).parent / "data"
    shown_files, sentences = 0, []
    for path in sorted(itertools.chain.from_iterable((root / name).rglob("*") for name in ("test_files", "charset_files", "palettes"))):
        if not path.is_file():
            continue
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"pydicom\.")
                scan = open_scan(path)
                for index in range(scan.frames):
                    frame = scan.frame(index)
                    assert frame.shape == (*scan.size, 3)
                    assert frame.dtype == np.uint8
            shown_files += 1
        except TPSegError as error:
            sentences.append(str(error).removeprefix(f"{path}: "))
    assert shown_files >= 98
    assert shown_files + len(sentences) >= 203
    assert not [sentence for sentence in sentences if "\n" in sentence or sentence.startswith("/")]


def test_pixels_as_pydicom_reads_them() -> None:
    """Independent of how frames are found in the file: pydicom's own array of the whole data set."""
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    compared = 0
    for path in sorted(root.glob("*.dcm")):
        try:
            file = dicom_file.DicomFile(path)
        except DataError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                whole = pydicom.pixels.pixel_array(pydicom.dcmread(path), raw=True)
            except (RuntimeError, NotImplementedError):
                continue
        for index in range(file.frames):
            assert np.array_equal(file.stored(index)[0], whole[index] if file.frames > 1 else whole), path.name
        compared += 1
    assert compared >= 54


def test_a_large_frame_is_shown_in_strips_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (50, 20)).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", values, RescaleSlope=2, RescaleIntercept=5)
    whole = open_scan(path).frame(0)
    monkeypatch.setattr(grey, "STRIP", 45)
    assert np.array_equal(open_scan(path).frame(0), whole)


def test_uids_of_copies_differ() -> None:
    """The builder gives each slice its own instance, or series would be full of copies."""
    assert dicom(RAMP, seed="1").SOPInstanceUID != dicom(RAMP, seed="2").SOPInstanceUID
    assert generate_uid(entropy_srcs=["a"]) == generate_uid(entropy_srcs=["a"])
