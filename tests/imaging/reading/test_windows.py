"""Windows: DICOM PS3.3 C.11.2, and the range of a volume that has none."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels import apply_windowing

from tpseg.core.errors import UsageError
from tpseg.imaging.reading import windows
from tpseg.imaging.reading.windows import WINDOWS, Window, parse_window, volume_range


def test_linear_counts_whole_grey_values() -> None:
    """Centre 2048 and width 4096 take 0 to 4095 over the whole range, as the standard's note says; outside is black and white."""
    values = np.array([[-5, 0, 1, 2047, 2048, 4095, 9999]])
    assert Window(2048, 4096).grey(values).tolist() == [[0, 0, 0, 127, 128, 255, 255]]


def test_linear_by_hand() -> None:
    """Brain, 40 and 80: black at 39.5 - 39.5 = 0, white from 79 on, 20 is 20/79 of white."""
    assert WINDOWS["brain"].grey(np.array([[-1000, 0, 20, 79, 80]])).tolist() == [[0, 0, 65, 255, 255]]


def test_a_width_of_one_is_a_threshold() -> None:
    """PS3.3 C.11.2.1.2.1: up to centre - 0.5 black, above white."""
    assert Window(10, 1).grey(np.array([[9, 9.5, 9.6, 10]])).tolist() == [[0, 0, 255, 255]]


def test_linear_exact_and_sigmoid_by_hand() -> None:
    """C.11.2.1.3: exactly from c - w/2 to c + w/2; 1 / (1 + exp(-4 (x - c) / w)) with x = c + w/4 is 1 / (1 + 1/e)."""
    assert Window(50, 100, "LINEAR_EXACT").grey(np.array([[-1, 0, 20, 100, 101]])).tolist() == [[0, 0, 51, 255, 255]]
    assert Window(100, 40, "SIGMOID").grey(np.array([[-1e9, 100, 110, 1e9]])).tolist() == [[0, 128, 186, 255]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_pydicom_gives_the_same(function: str) -> None:
    header = Dataset()
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = -600, 1500, function
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 1
    values = np.arange(-2000, 1000, dtype=np.int16)[None]
    ours = Window(-600, 1500, function).grey(values).astype(float)
    theirs = (apply_windowing(values, header) + 2**15) / (2**16 - 1) * 255
    assert np.abs(ours - theirs).max() < 0.51


def test_a_frame_larger_than_a_strip_is_shown_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (37, 11))
    whole = WINDOWS["lung"].grey(values)
    monkeypatch.setattr(windows, "STRIP", 30)
    assert np.array_equal(WINDOWS["lung"].grey(values), whole)


def test_between_takes_low_to_black_and_high_to_white() -> None:
    assert Window.between(-3, 7).grey(np.array([[-4, -3, 2, 7, 8]])).tolist() == [[0, 0, 128, 255, 255]]
    assert Window.between(5, 5).grey(np.array([[5.0, 5.0]])).tolist() == [[0, 0]], "a constant image is black"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lung", Window(-600, 1500)),
        ("Soft Tissue", Window(40, 400)),
        ("soft-tissue", Window(40, 400)),
        ("-600,1500", Window(-600, 1500)),
        (" 40.5, 80 ", Window(40.5, 80)),
    ],
)
def test_windows_are_named_or_given(text: str, expected: Window) -> None:
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["lungs", "", "40", "40,0", "40,-3", "nan,5", "1,inf", "40,80,90", "a,b"])
def test_anything_else_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"lung.*CENTRE,WIDTH"):
        parse_window(text)


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean 'mediastinum'"):
        parse_window("mediastinm")


def test_the_range_of_a_volume_leaves_out_its_extremes() -> None:
    """Of 0 to 1000, the percentiles 0.5 and 99.5 are 5 and 995, in whatever order they lie."""
    values = np.random.default_rng(0).permutation(1001).reshape(7, 11, 13)
    assert volume_range(values) == (5.0, 995.0)
    assert volume_range(np.asfortranarray(values).astype(np.float32)) == (5.0, 995.0)


def test_the_range_ignores_what_is_no_number() -> None:
    values = np.append(np.arange(1001.0), [np.nan, np.inf, -np.inf])
    assert volume_range(values) == (5.0, 995.0)
    assert volume_range(np.array([np.nan])) == (0.0, 0.0)


def test_the_range_of_a_large_volume_is_taken_from_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not from one column of voxels: each column here holds one value."""
    monkeypatch.setattr(windows, "SAMPLES", 5_000)
    columns = np.broadcast_to(np.arange(100.0), (1000, 100)).copy()
    low, high = volume_range(columns)
    assert low <= 1
    assert high >= 98
    assert windows.sample(columns).size <= 5_000


def test_the_narrowest_window_is_1_wide():
    assert parse_window("40,1") == Window(40, 1)
