"""Damaged files of every format: a frame or one sentence, within 10 seconds and 2 GiB, and the process lives."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made import item, write_dicom, write_nifti
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from test_video import ramp, write_video

INPUTS = 520
"""Of each format."""
SECONDS = 10
MEMORY = 2 * 2**20
"""KiB."""


def dicom_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 4096, (64, 48)).astype(np.uint16)
    plain = write_dicom(folder / "plain.dcm", grey, RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.5])
    write_dicom(folder / "deflated.dcm", grey, syntax=DeflatedExplicitVRLittleEndian)
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


def picture_seeds(folder: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / f"rgb.{suffix}")
    Image.fromarray(colours[..., 0]).save(folder / f"grey.{suffix}")
    if suffix == "tif":
        Image.fromarray(colours).save(folder / "deflated.tif", compression="tiff_adobe_deflate")
        Image.fromarray(colours[..., 0].astype(np.uint16) * 200).save(folder / "deep.tif", compression="tiff_lzw")
    if suffix == "png":
        Image.fromarray(colours[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
        Image.fromarray(colours).quantize(16).save(folder / "palette.png")


def video_seeds(folder: Path) -> None:
    codecs = {"a.mp4": "mpeg4", "b.mp4": "libx264", "c.avi": "mpeg4", "d.mkv": "libx264", "e.webm": "libvpx-vp9", "f.mov": "mjpeg"}
    for name, codec in codecs.items():
        write_video(folder / name, ramp(8), codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")


FORMATS = {
    "dicom": dicom_seeds,
    "nifti": nifti_seeds,
    "nrrd": lambda folder: itk_seeds(folder, "nrrd"),
    "mha": lambda folder: itk_seeds(folder, "mha"),
    "png": lambda folder: picture_seeds(folder, "png"),
    "jpg": lambda folder: picture_seeds(folder, "jpg"),
    "tif": lambda folder: picture_seeds(folder, "tif"),
    "bmp": lambda folder: picture_seeds(folder, "bmp"),
    "video": video_seeds,
}


def outcomes(seeds: Path, scratch: Path) -> Iterator[tuple[int, str, int, float]]:
    """Number, outcome, peak memory in KiB and seconds of each input; a process that dies or hangs is replaced by another."""
    first = 0
    while first < INPUTS:
        command = [sys.executable, str(Path(__file__).with_name("fuzzing.py")), str(seeds), str(scratch), str(first), str(INPUTS)]
        errors = (scratch.parent / "stderr").open("ab")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
            assert child.stdout is not None
            last, began, buffer = first, time.monotonic() + 60, b""  # its imports take a while
            while True:
                ready, _, _ = select.select([child.stdout], [], [], max(0.0, began + SECONDS - time.monotonic()))
                if not ready:
                    child.kill()
                    yield last, "hang", 0, SECONDS
                    break
                read = os.read(child.stdout.fileno(), 65536)
                if not read:
                    if child.wait() != 0:
                        yield last, f"died({child.returncode})", 0, 0.0
                    else:
                        last = INPUTS
                    break
                *lines, buffer = (buffer + read).split(b"\n")
                for line in lines:
                    words = line.decode().split()
                    if words[0] == "end":
                        yield int(words[1]), words[2], int(words[3]), float(words[4])
                    else:
                        last, began = int(words[1]), time.monotonic()
            first = last + 1
        errors.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    seeds, scratch = tmp_path / "seeds", tmp_path / "scratch"
    seeds.mkdir()
    scratch.mkdir()
    FORMATS[name](seeds)
    found = list(outcomes(seeds, scratch))
    counts = Counter(outcome for _, outcome, _, _ in found)
    peak, slowest = max(peak for *_, peak, _ in found), max(seconds for *_, seconds in found)
    summary = f"{name}: {dict(counts)}, peak {peak / 2**20:.2f} GiB, slowest {slowest:.2f} s"
    (tmp_path / "summary").write_text(summary)
    bad = {number: outcome for number, outcome, _, _ in found if outcome not in ("shown", "refused")}
    assert not bad, f"{summary}; inputs {bad}"
    assert sorted(number for number, *_ in found) == list(range(INPUTS))
    assert counts["shown"] >= 10, "seeds that were never shown would make the test empty"
    assert counts["refused"] >= 10
    assert peak < MEMORY, summary
    assert slowest < SECONDS, summary
