"""Videos made by code."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

FRAMES = 24


def write_video(path: Path, frames: np.ndarray, codec: str = "mpeg4", pixels: str = "yuv420p") -> Path:
    """Frames (N, H, W, 3) uint8 as a video file of 10 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def ramp(count: int = FRAMES, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that get brighter, 10 a step."""
    return np.full((count, height, width, 3), 5, np.uint8) + 10 * np.arange(count, dtype=np.uint8)[:, None, None, None]
