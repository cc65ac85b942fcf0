"""Reading video: frames in order, counted honestly, upright."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import FRAMES, ramp, write_video

from tpseg.core.errors import DataError
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.video import KEPT, VideoScan


def brightness(scan: VideoScan, index: int) -> int:
    """Which frame of `ramp` this is."""
    return round((float(scan.frame(index).mean()) - 5) / 10)


def opened(path: Path) -> VideoScan:
    scan = open_scan(path)
    assert isinstance(scan, VideoScan)
    return scan


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "mpeg4"), ("mp4", "libx264"), ("avi", "mpeg4"), ("mov", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")],
)
def test_every_frame_in_order(tmp_path: Path, suffix: str, codec: str) -> None:
    """Also where the codec stores them in another order than they are shown in (B frames)."""
    scan = opened(write_video(tmp_path / f"a.{suffix}", ramp(), codec))
    assert (scan.frames, scan.size, scan.spacing, scan.name) == (FRAMES, (48, 64), None, "a")
    assert [brightness(scan, n) for n in range(FRAMES)] == list(range(FRAMES))


def test_lossless_frames_come_back_exactly(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    scan = opened(write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0"))
    assert all(np.array_equal(scan.frame(n), frames[n]) for n in range(5))


def test_any_frame_at_any_time(tmp_path: Path) -> None:
    scan = opened(write_video(tmp_path / "a.mp4", ramp(), "libx264"))
    for index in (20, 3, 4, 23, 0, 23, 12):
        assert brightness(scan, index) == index


def test_frames_in_order_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when threads ask a little out of order."""
    scan = opened(write_video(tmp_path / "a.mp4", ramp()))
    starts = []
    decode = VideoScan._decode
    monkeypatch.setattr(VideoScan, "_decode", lambda self: starts.append(1) or decode(self))
    order = [n ^ 3 for n in range(FRAMES)]  # 3, 2, 1, 0, 7, 6, 5, 4, ...
    assert max(order[n] - n for n in range(FRAMES)) < KEPT
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: brightness(scan, n), order)) == order
    assert not starts


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
)
def test_frames_are_turned_upright(tmp_path: Path, matrix: tuple, corner: tuple) -> None:
    """The matrix of an MP4 track maps x, y to a x + c y, b x + d y: with b = 1, c = -1 what is top left is shown top right."""
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    frames[:, :24, :32] = 255
    path = write_video(tmp_path / "a.mp4", frames)
    raw = bytearray(path.read_bytes())
    start = raw.index(b"tkhd") + 44
    a, b, c, d = matrix
    raw[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(raw)
    scan = opened(path)
    turned = b != 0
    assert scan.size == ((64, 48) if turned else (48, 64))
    frame = scan.frame(2)
    assert frame[corner].mean() > 250
    assert sum(frame[y, x].mean() > 128 for y in (0, -1) for x in (0, -1)) == 1


def test_a_header_that_miscounts(tmp_path: Path) -> None:
    """The AVI header's number of frames is not believed."""
    path = write_video(tmp_path / "a.avi", ramp())
    raw = bytearray(path.read_bytes())
    start = raw.index(b"avih") + 8 + 16
    assert struct.unpack("<I", raw[start : start + 4]) == (FRAMES,)
    raw[start : start + 4] = struct.pack("<I", 10_000)
    start = raw.index(b"strh") + 8 + 32
    raw[start : start + 4] = struct.pack("<I", 10_000)
    path.write_bytes(raw)
    assert opened(path).frames == FRAMES


def test_a_video_cut_short(tmp_path: Path) -> None:
    """Matroska can be read up to where it ends; MP4 keeps its index at the end and cannot."""
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    scan = opened(path)
    assert 8 <= scan.frames <= 13
    scan.frame(scan.frames - 2)
    path = write_video(tmp_path / "a.mp4", ramp())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"a\.mp4: cannot be read"):
        open_scan(path)


def test_fewer_frames_than_counted(tmp_path: Path) -> None:
    scan = opened(write_video(tmp_path / "a.mp4", ramp()))
    scan.frames = FRAMES + 5
    with pytest.raises(DataError, match=f"ends after {FRAMES} of {FRAMES + 5} frames"):
        scan.frame(FRAMES + 2)


def test_no_video_in_it(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match="holds no video"):
        open_scan(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="really a video file"):
        open_scan(tmp_path / "b.mp4")


def test_frames_larger_than_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", ramp())
    monkeypatch.setattr("tpseg.imaging.reading.guarding.MAX_FRAME_PIXELS", 1000)
    with pytest.raises(DataError, match="64x48 pixels"):
        open_scan(path)


def test_a_frame_larger_than_can_be_read_within_a_small_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame of motion JPEG tells its own size; one that is too large is refused by the decoder, before it takes memory for it."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number, side in enumerate((64, 2000)):
            picture = io.BytesIO()
            Image.new("RGB", (side, side * 3 // 4)).save(picture, "jpeg")
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            container.mux(packet)
    with pytest.raises(DataError, match="frame 2 is 2000x1500, the first 64x48"):
        opened(tmp_path / "a.avi").frame(1)
    monkeypatch.setattr("tpseg.imaging.reading.video.MAX_FRAME_PIXELS", 1_000_000)
    with pytest.raises(DataError, match=r"a\.avi: cannot be read"):
        opened(tmp_path / "a.avi").frame(1)
