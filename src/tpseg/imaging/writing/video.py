"""Writing a video frame by frame; needs PyAV, the extra `video`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tpseg.imaging.reading.video import open_video

UNKNOWN_RATE = 25
"""Frames a second where the file does not say."""


def rate_of(path: Path) -> Fraction:
    """Frames a second of a video file, on average."""
    with open_video(path) as container:
        return container.streams.video[0].average_rate or Fraction(UNKNOWN_RATE)


class Video:
    """A video file that is being written: lossless grey frames (FFV1 in Matroska), or colour to be looked at (H.264 in MP4)."""

    def __init__(self, path: Path, rate: Fraction, *, lossless: bool) -> None:
        """rate: frames a second."""
        self.lossless, self.sized = lossless, False
        self.container = av.open(f"file:{path}", "w", format="matroska" if lossless else "mp4")
        options = {"level": "3"} if lossless else {"crf": "20", "preset": "veryfast"}
        self.stream = self.container.add_stream("ffv1" if lossless else "libx264", rate=rate, options=options)
        self.stream.pix_fmt = "gray" if lossless else "yuv420p"

    def add(self, frame: np.ndarray) -> None:
        """The next frame: (H, W) uint8 if lossless, else (H, W, 3); all of one size."""
        if not self.lossless:
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")  # H.264 wants even sizes
        if not self.sized:
            self.sized = True
            self.stream.height, self.stream.width = frame.shape[:2]
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "gray" if self.lossless else "rgb24")
        self.container.mux(self.stream.encode(image))

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        self.container.mux(self.stream.encode(None))
        self.container.close()
