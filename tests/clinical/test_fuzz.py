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
import pytest
from PIL import Image
from seeds import dicom_seeds, itk_seeds, nifti_seeds, video_seeds

INPUTS = 520
"""Of each format."""
SECONDS = 10
MEMORY = 2 * 2**20
"""KiB."""


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
