"""Tiles: where they lie, and that blending them gives what MONAI's sliding window gives with the whole image in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.inferers import sliding_window_inference
from PIL import Image

from tpseg.imaging.reading.picture import PictureScan
from tpseg.imaging.tiles import OVERLAP, Blend, TiledFrame, Tiling, starts

SIZES = [(100, 150), (64, 64), (33, 200), (40, 20), (65, 129)]
SIDE = 64


@pytest.mark.parametrize("length", [1, 63, 64, 65, 112, 113, 1000])
def test_tiles_cover_an_axis_overlap_and_end_where_it_ends(length: int) -> None:
    found = starts(length, SIDE)
    assert found[0] == 0
    assert found[-1] == max(0, length - SIDE)
    assert all(0 < after - before <= SIDE * (1 - OVERLAP) for before, after in pairwise(found))


def response(tile: torch.Tensor) -> torch.Tensor:
    """Stands for a network that sees each place differently from tile to tile: (B, 1, S, S) to logits."""
    height, width = tile.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (tile - tile.mean(dim=(2, 3), keepdim=True)) * 8 + torch.sin(rows * 0.3) * torch.cos(columns * 0.2)


@pytest.mark.parametrize("size", [size for size in SIZES if min(size) >= SIDE])
def test_blending_is_monai_s_sliding_window(size: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(3))
    tiling = Tiling(size, SIDE)
    blend = Blend(tiling, keep_probability=True)
    for top, left in tiling:
        blend.add(top, left, tiling.weigh(response(image[..., top : top + SIDE, left : left + SIDE])[0, 0].numpy()))
    blend.finish()
    weights = torch.from_numpy(np.outer(tiling.weight, tiling.weight))
    expected = sliding_window_inference(image, SIDE, 1, response, overlap=OVERLAP, roi_weight_map=weights)[0, 0]
    assert blend.probability is not None
    np.testing.assert_allclose(blend.probability, torch.sigmoid(expected).numpy(), atol=1e-5)
    assert 0.2 < blend.mask.mean() < 0.8
    assert ((expected > 0).numpy() != blend.mask).mean() < 1e-3  # but for roundings


@pytest.mark.parametrize("size", SIZES)
def test_what_every_tile_agrees_on_is_left_as_it_is(size: tuple[int, int]) -> None:
    truth = np.random.default_rng(0).normal(size=[length + SIDE for length in size]).astype(np.float32)
    tiling = Tiling(size, SIDE)
    blend = Blend(tiling)
    for top, left in tiling:
        blend.add(top, left, tiling.weigh(truth[top : top + SIDE, left : left + SIDE]))
    blend.finish()
    assert np.array_equal(blend.mask, truth[: size[0], : size[1]] > 0)
    assert blend.probability is None


def test_floats_are_held_for_one_band_only() -> None:
    blend = Blend(Tiling((4000, 300), SIDE))
    assert sum(value.nbytes for value in vars(blend).values() if isinstance(value, np.ndarray) and value.dtype != bool) == SIDE * 300 * 4


def test_a_frame_smaller_than_a_tile_is_continued_by_its_mirror_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    frame = TiledFrame(PictureScan(tmp_path / "small.png", "small"), 0, ["a"], SIDE, picture=True)
    (corner,) = frame.tiling
    tile = frame.cut(*corner)
    assert tile.shape == (SIDE, SIDE, 3)
    assert np.array_equal(tile[:20, :30], pixels)
    assert np.array_equal(tile[20:40, :30], pixels[::-1])
    assert np.array_equal(tile[:20, 30:60], pixels[:, ::-1])
    frame.add(*corner, {"a": frame.tiling.weigh(np.where(tile[..., 0] > 99, 1, -1).astype(np.float32))})
    blends = frame.finish()
    assert np.array_equal(blends["a"].mask, pixels[..., 0] > 99)
    assert np.array_equal(frame.picture, pixels)


def test_of_a_large_frame_a_small_picture_is_kept_to_look_at(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:600, :9000]
    pixels = np.stack([rows % 256, columns % 256, columns // 36], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png", compress_level=1)
    frame = TiledFrame(PictureScan(tmp_path / "wide.png", "wide"), 0, ["a"], 600, picture=True)
    for corner in frame.tiling:
        assert frame.picture is None
        frame.cut(*corner)
    assert frame.factor == 3
    assert frame.picture is not None
    assert frame.picture.shape == (200, 3000, 3)
    expected = pixels.reshape(200, 3, 3000, 3, 3).mean(axis=(1, 3))
    assert np.abs(frame.picture - expected).max() <= 0.5


CHILD = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from miniature import TRUNK
from tpseg.models.trunks.hiera import TRUNK_SIZES
from tpseg.inference import Segmenter, predict_files
TRUNK_SIZES["tiny"] = TRUNK
segmenter = Segmenter(sys.argv[2], device="cpu")
for image in sys.argv[4:]:
    print(*predict_files(segmenter, [Path(image)], ["bright_disc"], Path(sys.argv[3]), tile=600), file=sys.stderr)
    print(int(re.search("VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process alone is asked of /proc")
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_large_image_takes_bytes_a_pixel_not_floats(trained: Path, tmp_path: Path, suffix: str) -> None:
    """Of 30 million grey pixels more: decoded (of the TIFF a part), as a mask, and once again as the PNG that is written."""
    width, heights, images = 6000, (1000, 6000), []
    for height in heights:
        images.append(tmp_path / f"{height}.{suffix}")
        pixels = np.tile(np.arange(100, dtype=np.uint8) + 60, (height, width // 100))
        if suffix == "png":
            Image.fromarray(pixels).save(images[-1], compress_level=1)
        else:
            tifffile.imwrite(images[-1], pixels, tile=(256, 256), compression="zlib")
    command = [sys.executable, "-c", CHILD, Path(__file__).parents[1] / "helpers", trained, tmp_path / "out", *images]
    give_back = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # or the peak counts what was freed, by chance
    environment = {**os.environ, **give_back}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1200, env=environment)
    assert done.returncode == 0, done.stderr
    before, after = (int(line) for line in done.stdout.split())
    with Image.open(tmp_path / "out" / "6000.png") as mask:
        assert mask.size == (width, 6000)
    added = (heights[1] - heights[0]) * width / 2**20
    assert 0 < after - before < 4.5 * added  # 3 to 4 bytes; one array of floats beside them would make it 7
