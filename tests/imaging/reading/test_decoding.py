"""The process that decodes compressed frames: what kills it costs one frame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import write_dicom
from pydicom.uid import JPEG2000Lossless

from tpseg.core.errors import DataError
from tpseg.imaging.reading import decoding
from tpseg.imaging.reading.decoding import decoders
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.scan import Scan

FRAMES = np.random.default_rng(0).integers(0, 4096, (3, 64, 48)).astype(np.uint16)


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    """Three frames of JPEG 2000, shown as stored in a window of 4096 values; the first has been decoded."""
    packed = pydicom.dcmread(write_dicom(tmp_path / "plain.dcm", FRAMES, BitsStored=12, HighBit=11))
    packed.compress(JPEG2000Lossless)
    packed.save_as(tmp_path / "a.dcm")
    opened = open_scan(tmp_path / "a.dcm", window="2048,4096")
    opened.frame(0)
    yield opened
    decoders().close()


def assert_right(scan: Scan, index: int) -> None:
    assert np.array_equal(scan.frame(index)[..., 0], np.round(FRAMES[index] / 4095 * 255))


def test_a_decoder_that_crashes(scan: Scan) -> None:
    """One sentence for its frame; the next finds a new process."""
    process = decoders()._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(DataError, match=r"a\.dcm: frame 2 cannot be decoded as JPEG 2000.*the decoder crashed"):
        scan.frame(1)
    assert_right(scan, 1)
    assert decoders()._process is not process


@pytest.mark.skipif(sys.platform == "win32", reason="no signal stops a process there")
def test_a_decoder_that_sleeps(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes nothing of the processor's time, so that a clock on the wall ends it."""
    process = decoders()._process
    assert process is not None
    monkeypatch.setattr(decoding, "SECONDS", 0.1)
    monkeypatch.setattr(decoding, "WAITING", 3.0)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(DataError, match=r"the decoder did not end within 0\.3\d* s"):
        scan.frame(1)
    monkeypatch.undo()
    assert_right(scan, 2)


BEFORE = """
import sys, time
from tpseg.imaging.reading import decoder_process as process
frame = process.frame
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


@pytest.fixture
def odd_process(scan: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes decoders that run some lines before they serve, and may take 0.3 s."""

    def start(lines: str) -> None:
        decoders().close()
        script = tmp_path / "process.py"
        script.write_text(f"{BEFORE}{lines}\nprocess.main()\n")
        monkeypatch.setattr(decoding, "PROCESS", (sys.executable, str(script)))
        monkeypatch.setattr(decoding, "SECONDS", 0.3)

    return start


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no clock of a process's own time that ends it")
def test_a_decoder_that_never_ends(scan: Scan, odd_process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    odd_process("process.REQUESTS['frame'] = lambda *arguments: burn(1e9)")
    with pytest.raises(DataError, match=r"the decoder took more than 0\.3\d* s of the processor's time"):
        scan.frame(1)
    monkeypatch.undo()
    assert_right(scan, 2)


def test_other_processes_work_is_not_in_a_decoders_time(scan: Scan, odd_process: Callable[[str], None]) -> None:
    """On a machine ten times as busy a frame takes ten times as long: the processor's time stays."""
    odd_process("process.REQUESTS['frame'] = lambda *arguments: time.sleep(0.7) or frame(*arguments)")
    assert_right(scan, 1)


def test_imports_are_not_in_a_decoders_time(scan: Scan, odd_process: Callable[[str], None], tmp_path: Path) -> None:
    """pydicom and its decoders take seconds to import on a busy machine, a frame a thousandth of one to decode."""
    (tmp_path / "large_library.py").write_text("import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass\n")
    odd_process(
        f"sys.path.append({str(tmp_path)!r})\nprocess.LIBRARIES['frame'] += ('large_library',)\n"
        "process.REQUESTS['frame'] = lambda *arguments: __import__('large_library') and frame(*arguments)"
    )
    assert_right(scan, 1)


def test_all_that_decoding_needs_is_imported_before_the_clock_runs(scan: Scan, tmp_path: Path) -> None:
    """Whatever a later version of pydicom imports lazily would be in a frame's time."""
    script = tmp_path / "modules.py"
    script.write_text(
        f"{BEFORE}"
        "known = set()\n"
        "def watched(*arguments):\n"
        "    known.update(sys.modules)\n"
        "    answer = frame(*arguments)\n"
        "    watched = ('pydicom', 'gdcm', 'openjpeg', 'libjpeg', 'rle')\n"
        "    new = sorted(name for name in set(sys.modules) - known if name.split('.')[0] in watched)\n"
        "    return ({**answer[0], 'photometric': ' '.join(new)}, *answer[1:])\n"
        "process.REQUESTS['frame'] = watched\n"
        "process.main()\n"
    )
    decoders().close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "PROCESS", (sys.executable, str(script)))
        header = pydicom.dcmread(scan.path)
        stream = next(pydicom.encaps.generate_frames(header.PixelData))
        options = {"rows": 64, "columns": 48, "samples_per_pixel": 1, "number_of_frames": 1, "bits_allocated": 16, "bits_stored": 12}
        options |= {"pixel_representation": 0, "photometric_interpretation": "MONOCHROME2", "pixel_keyword": "PixelData"}
        values, imported = decoders().frame(str(JPEG2000Lossless), stream, options)
    assert imported == ""
    assert np.array_equal(values, FRAMES[0])


def test_a_damaged_stream_leaves_the_process_alive(scan: Scan) -> None:
    process = decoders()._process
    content = bytearray(scan.path.read_bytes())
    start = content.index(b"\xff\x4f\xff\x51")  # the first frame's
    content[start : start + 60] = bytes(60)
    scan.path.write_bytes(content)
    with pytest.raises(DataError, match="frame 1 cannot be decoded"):
        scan.frame(0)
    assert_right(scan, 1)
    assert decoders()._process is process


@pytest.mark.skipif(sys.platform != "linux", reason="no other system limits a process's memory")
def test_more_memory_than_the_process_may_have(tmp_path: Path) -> None:
    """4 GB of voxels, 10 kB of them in the file: the request fails, the process stays."""
    body = zlib.compress(bytes(10_000_000))
    head = "ObjectType = Image\nNDims = 3\nDimSize = 1000 1000 2000\nElementType = MET_SHORT\nCompressedData = True\n"
    (tmp_path / "a.mha").write_bytes(f"{head}CompressedDataSize = {len(body)}\nElementDataFile = LOCAL\n".encode() + body)
    with pytest.raises(ValueError, match="Failed to allocate memory"):
        decoders().volume(tmp_path / "a.mha", 50_000_000)  # seconds enough, and no more
    assert decoders()._process is not None
    decoders().close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_fork_starts_its_own(scan: Scan, tmp_path: Path) -> None:
    """Two processes on one pipe would get each other's frames."""
    script = tmp_path / "forks.py"
    script.write_text(
        "import os, sys, warnings\n"
        "from tpseg.imaging.reading.decoding import decoders\n"
        "from tpseg.imaging.reading.opening import open_scan\n"
        "scan = open_scan(sys.argv[1])\n"
        "scan.frame(0)\n"
        "before = decoders()._process.pid\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "scan.frame(1)\n"
        "if child == 0:\n"
        "    os._exit(0 if decoders()._process.pid != before else 3)\n"
        "scan.frame(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert decoders()._process.pid == before\n"
    )
    subprocess.run([sys.executable, str(script), str(scan.path)], check=True, timeout=600)


def test_a_fork_leaves_its_parent_s_decoder_alone(scan: Scan) -> None:
    assert_right(scan, 0)
    mine = decoders()
    process, owner = mine._process, mine._owner
    assert process is not None
    mine._owner = owner + 1  # what a fork finds: a decoder that another process has started
    mine.close()
    assert process.poll() is None
    mine._process, mine._owner = process, owner
    mine.close()
    assert process.poll() is not None
