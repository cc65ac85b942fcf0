"""Where results go: whole or not at all, each under its own name, nothing of a scan that failed."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tpseg.core.errors import UsageError
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.writing.results import Map, Part, PngSink, Target, VideoSink, refuse_foreign
from tpseg.imaging.writing.video import Video, rate_of


class Frames(Scan):
    """So many black frames."""

    def __init__(self, frames: int) -> None:
        self.path, self.name, self.frames, self.size, self.spacing = Path("frames"), "frames", frames, (6, 8), None

    def frame(self, index: int) -> np.ndarray:
        return np.zeros((6, 8, 3), np.uint8)


def part(index: int, task: str = "polyp") -> Part:
    mask = np.zeros((6, 8), bool)
    mask[index % 6] = True
    return Part(index, {task: Map(mask, np.where(mask, 0.75, 0.25).astype(np.float32))}, np.full((6, 8, 3), 9, np.uint8))


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("clip", {"polyp": tmp_path}, tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_frame_is_files_and_several_are_folders(target: Target) -> None:
    one = PngSink(Frames(1), target, ["", "_probability", "_overlay"])
    one.write(part(0))
    one.finish()
    assert names(target.out) == ["clip.png", "clip_overlay.png", "clip_probability.png"]
    several = PngSink(Frames(3), target, [""])
    for index in (2, 0, 1):  # threads finish in any order
        several.write(part(index))
    several.finish()
    assert [name for name in names(target.out) if "/" in name] == ["clip/0000.png", "clip/0001.png", "clip/0002.png"]
    assert np.array_equal(np.asarray(Image.open(target.out / "clip" / "0002.png")), part(2).maps["polyp"].mask * np.uint8(255))


def test_a_probability_is_16_bit(target: Target) -> None:
    sink = PngSink(Frames(1), target, ["_probability"])
    sink.write(part(0))
    sink.finish()
    values = np.asarray(Image.open(target.out / "clip_probability.png"))
    assert values.dtype == np.uint16
    assert set(np.unique(values)) == {round(0.25 * 65535), round(0.75 * 65535)}


def test_numbers_have_room_for_all_frames(target: Target) -> None:
    sink = PngSink(Frames(10001), target, [""])
    sink.write(part(3))
    sink.finish()
    assert names(target.out) == ["clip/00003.png"]


def test_what_is_cancelled_leaves_nothing_and_what_was_there_before(target: Target) -> None:
    for count in (2, 3):
        sink = PngSink(Frames(count), target, [""])
        for index in range(count):
            sink.write(part(index))
        if count == 2:
            sink.finish()
        else:
            sink.cancel()
    assert names(target.out) == ["clip/0000.png", "clip/0001.png"]
    assert len(list(target.out.iterdir())) == 1


def test_a_picture_whose_second_result_cannot_be_named_has_none(target: Target) -> None:
    long = Target("x" * 251, target.folders, target.out)
    with pytest.raises(OSError, match="too long"):
        PngSink(Frames(1), long, ["", "_probability"])
    assert names(target.out) == []


def test_only_frames_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "nowhere")
    (tmp_path / "0000.png").touch()
    (tmp_path / "12345.png").touch()
    refuse_foreign(tmp_path)
    (tmp_path / "001.png").touch()
    with pytest.raises(UsageError, match="holds other files"):
        refuse_foreign(tmp_path)


def test_an_overlay_of_a_large_frame_is_as_small_as_its_picture() -> None:
    mask = np.zeros((12, 20), bool)
    mask[:6, :10] = True
    drawn = Part(0, {"polyp": Map(mask, None)}, np.zeros((3, 5, 3), np.uint8), 4).overlay("polyp")
    assert drawn.shape == (3, 5, 3)
    assert drawn.any(axis=2).tolist() == [
        [True, True, True, False, False],
        [True, True, False, False, False],
        [False] * 5,
    ]  # half is enough


def write_video(path: Path, values: np.ndarray, rate: int) -> None:
    video = Video(path, rate, lossless=values.ndim == 3)
    for frame in values:
        video.add(frame)
    video.close()


def read_video(path: Path, form: str) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=form) for frame in container.decode(video=0)])


def test_masks_survive_a_video_to_the_last_pixel(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).integers(0, 2, (9, 33, 47), dtype=np.uint8) * np.uint8(255)
    write_video(tmp_path / "a.mkv", masks, 30)
    assert np.array_equal(read_video(tmp_path / "a.mkv", "gray"), masks)
    assert rate_of(tmp_path / "a.mkv") == 30


def test_overlays_of_odd_sizes_are_continued_by_one_pixel(tmp_path: Path) -> None:
    frames = np.full((4, 33, 47, 3), (200, 60, 60), np.uint8)
    write_video(tmp_path / "a.mp4", frames, 10)
    found = read_video(tmp_path / "a.mp4", "rgb24")
    assert found.shape == (4, 34, 48, 3)
    assert np.abs(found.astype(int) - (200, 60, 60)).max() < 12


def test_a_cancelled_video_leaves_nothing(target: Target, tmp_path: Path) -> None:
    scan = Frames(9)
    scan.path = tmp_path / "source.mkv"
    write_video(scan.path, np.zeros((2, 6, 8), np.uint8), 25)
    for kind in ("", "_overlay"):
        for index in (0, 4):  # before any frame, and after some
            sink = VideoSink(scan, target, kind)
            for number in range(index):
                sink.write(part(number))
                sink.append(part(number))
            sink.cancel()
    assert names(tmp_path) == ["source.mkv"]
