"""Video files as scans, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import av
import numpy as np

from tpseg.core.errors import DataError
from tpseg.imaging.reading.guarding import MAX_FRAME_PIXELS, guard_frame, reading
from tpseg.imaging.reading.scan import Scan

KEPT = 8
"""Decoded frames that are kept: threads that read ahead ask for neighbouring frames a little out of order."""
CONTAINED = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi"}
"""What FFmpeg may open: files, of the formats that hold their frames themselves. A list of other files may be called .mp4, too."""


def open_video(path: Path) -> av.container.InputContainer:
    """A video file to read; its name is that of a file whatever FFmpeg would make of it, such as `concat:a.mp4` or `http:host`."""
    return av.open(f"file:{path}", options=CONTAINED)


class VideoScan(Scan):
    """The frames of a file's first video stream, turned upright, in the order they are shown; without a spacing.

    Frames asked for in order are decoded once each; going back by more than KEPT frames starts again at the beginning.
    """

    spacing = None

    def __init__(self, path: Path, name: str) -> None:
        """Counts the frames without decoding them, but for the first. Raises DataError for a file without a video."""
        self.path, self.name = path, name
        self._lock = Lock()
        self._recent: deque[tuple[int, av.VideoFrame]] = deque(maxlen=KEPT)
        with reading(path, "video"), open_video(path) as container:
            stream = self._stream_of(container)
            guard_frame(path, stream.codec_context.height, stream.codec_context.width)
            self.frames = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        self._frames = self._decode()
        self._next = 0
        self.size = (0, 0)
        self.size = self.frame(0).shape[:2]

    def frame(self, index: int) -> np.ndarray:
        with self._lock:
            shown = self._seek(index)
        with reading(self.path, "video"):
            rgb: np.ndarray = shown.to_ndarray(format="rgb24")
        if shown.rotation % 90:
            raise DataError(f"{self.path}: turned by {shown.rotation} degrees; expected a multiple of 90")
        rgb = np.ascontiguousarray(np.rot90(rgb, shown.rotation // 90))  # both count counter-clockwise
        if self.size not in ((0, 0), rgb.shape[:2]):
            raise DataError(f"{self.path}: frame {index + 1} is {rgb.shape[1]}x{rgb.shape[0]}, the first {self.size[1]}x{self.size[0]}")
        return rgb

    def _seek(self, index: int) -> av.VideoFrame:
        for number, shown in self._recent:
            if number == index:
                return shown
        if index < self._next:
            self._frames, self._next = self._decode(), 0
            self._recent.clear()
        with reading(self.path, "video"):
            while self._next <= index:
                following = next(self._frames, None)
                if following is None:
                    raise DataError(f"{self.path}: ends after {self._next} of {self.frames} frames; is it complete?")
                self._recent.append((self._next, following))
                self._next += 1
        return self._recent[-1][1]

    def _decode(self) -> Iterator[av.VideoFrame]:
        with open_video(self.path) as container:
            stream = self._stream_of(container)
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # the size may change within a stream
            yield from container.decode(stream)

    def _stream_of(self, container: av.container.InputContainer) -> av.VideoStream:
        if not container.streams.video:
            raise DataError(f"{self.path}: holds no video")
        return container.streams.video[0]
