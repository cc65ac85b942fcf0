"""`tpseg predict` on what a clinic has: whatever kind goes in, the same kind comes out, with the masks of its own frames."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import av
import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from dicom_factory import PATIENT, write_dicom, write_nifti, write_series
from miniature import disc
from monai.inferers import sliding_window_inference
from PIL import Image

import tpseg.inference.network
from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.preprocessing import resize_map
from tpseg.imaging.pictures.formats import open_image, read_image
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.video import VideoScan
from tpseg.imaging.tiles import OVERLAP, Tiling
from tpseg.inference import Failure, Segmenter, predict_files

pytestmark = pytest.mark.usefixtures("miniature_trunk", "in_32_bit")

Run = Callable[..., tuple[int, str, str]]
BOTH = ["bright_disc", "dark_disc"]


@pytest.fixture
def in_32_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpseg.inference.network, "autocast", lambda device: nullcontext())
    monkeypatch.setattr(tpseg.inference.network, "bf16_is_native", lambda device: False)


@pytest.fixture
def segmenter(trained: Path) -> Segmenter:
    return Segmenter(trained, device="cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: Path) -> Run:
    """`tpseg predict` with the trained model in this process: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["predict", str(trained), *(str(word) for word in words), "--device", "cpu"])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert PATIENT.split("^")[0] not in said.out + said.err
        return code, said.out, said.err

    return call


def picture(number: int = 8, height: int = 48, width: int = 64, task: str = "bright_disc") -> np.ndarray:
    return disc(task, np.random.default_rng(number), height, width)[0]


def hounsfield(frames: int = 5) -> np.ndarray:
    """A volume (N, 48, 64) int16 of bright discs, and of dark ones in every second frame."""
    greys = [picture(n, task=BOTH[n % 2]).mean(axis=2) for n in range(frames)]
    return (np.stack(greys) * 6 - 700).astype(np.int16)


def expected(segmenter: Segmenter, path: Path, task: str, **how: str) -> np.ndarray:
    """(N, H, W): each frame segmented by itself."""
    scan = open_scan(path, **how)
    masks = np.stack([segmenter(scan.frame(index), task).mask for index in range(scan.frames)])
    assert masks.any()
    assert not masks.all()
    return masks


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def frames_of(path: Path, form: str) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=form) for frame in container.decode(video=0)])


def write_video(path: Path, count: int = 7, rate: int = 12) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        container.mux(stream.encode(None))
    return path


# DICOM


def test_a_series_becomes_one_segmentation_with_a_segment_for_each_task(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    write_series(tmp_path / "liver", hounsfield())
    code, out, _ = run(tmp_path / "liver", "--all-tasks", "--out", tmp_path / "out", "--window", "0,1500")
    assert (code, "segmented 1 of 1" in out) == (0, True)
    assert files(tmp_path / "out") == ["liver.dcm"]
    found = highdicom.seg.segread(tmp_path / "out" / "liver.dcm")
    assert [found.get_segment_description(number).tracking_id for number in (1, 2)] == BOTH
    scan = open_scan(tmp_path / "liver", window="0,1500")
    uids = [header.SOPInstanceUID for header in scan.headers]
    pixels = found.get_pixels_by_source_instance(uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    for number, task in enumerate(BOTH):
        assert np.array_equal(pixels[..., number] > 0, expected(segmenter, tmp_path / "liver", task, window="0,1500"))


def test_a_file_of_many_colour_frames_becomes_one_segmentation(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    values = np.stack([picture(n) for n in range(3)])
    write_dicom(tmp_path / "clip.dcm", values, SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", Modality="US", FrameOfReferenceUID=None)
    assert run(tmp_path / "clip.dcm", "--task", "bright_disc", "--out", tmp_path / "out")[0] == 0
    found = highdicom.seg.segread(tmp_path / "out" / "clip.dcm")
    uid = open_scan(tmp_path / "clip.dcm").headers[0].SOPInstanceUID
    pixels = found.get_pixels_by_source_frame(uid, [1, 2, 3], ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(pixels[..., 0] > 0, expected(segmenter, tmp_path / "clip.dcm", "bright_disc"))


def test_a_report_gives_the_measures(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "liver", hounsfield(3))
    assert run(tmp_path / "liver", "--task", "bright_disc", "--out", tmp_path / "out", "--sr")[0] == 0
    assert files(tmp_path / "out") == ["liver.dcm", "liver_report.dcm"]
    report = highdicom.sr.srread(tmp_path / "out" / "liver_report.dcm")
    assert report.Modality == "SR"
    assert report.PatientName == PATIENT
    said = str(report)
    assert highdicom.seg.segread(tmp_path / "out" / "liver.dcm").SOPInstanceUID in said
    assert "mm2" in said


def test_png_masks_of_a_series_on_request(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    write_series(tmp_path / "liver", hounsfield(3))
    write_dicom(tmp_path / "one.dcm", hounsfield(1)[0])
    run(tmp_path / "liver", tmp_path / "one.dcm", "--task", "bright_disc", "--out", tmp_path / "out", "--format", "png")
    assert files(tmp_path / "out") == ["liver/0000.png", "liver/0001.png", "liver/0002.png", "one.png"]
    masks = np.stack([np.asarray(open_image(tmp_path / "out" / "liver" / f"000{n}.png")) for n in range(3)])
    assert np.array_equal(masks == 255, expected(segmenter, tmp_path / "liver", "bright_disc"))


def test_a_damaged_frame_fails_its_scan_and_no_other(run: Run, tmp_path: Path) -> None:
    *_, last = write_series(tmp_path / "in" / "bad", hounsfield())
    last.write_bytes(last.read_bytes()[:-2000])
    write_series(tmp_path / "in" / "good", hounsfield(), seed="good")
    code, out, err = run(tmp_path / "in", "--task", "bright_disc", "--out", tmp_path / "out", "--overlay")
    assert code == 1
    assert "segmented 1 of 2" in out
    assert err.count("skipped:") == 1
    assert last.name in err
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"good.dcm", "good_overlay"}
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_mixed_folder_gives_each_its_own_and_names_what_is_broken(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_dicom(folder / "scan.dcm", hounsfield(1)[0])
    write_nifti(folder / "volume.nii", hounsfield(2).transpose(2, 1, 0))
    Image.fromarray(picture()).save(folder / "photo.jpg")
    broken = write_dicom(folder / "broken.dcm", hounsfield(1)[0], seed="broken", SeriesInstanceUID="1.2.3")
    broken.write_bytes(broken.read_bytes()[:-2000])
    (folder / "broken.png").write_bytes(b"no picture")
    code, out, err = run(folder, "--task", "bright_disc", "--out", tmp_path / "out", "--sr")
    assert code == 1
    assert "segmented 3 of 5" in out
    assert err.count("skipped:") == 2
    assert all(name in err for name in ("broken.dcm", "broken.png"))
    assert files(tmp_path / "out") == ["photo.png", "scan.dcm", "scan_report.dcm", "volume.nii.gz"]
    assert np.array_equal(
        np.asarray(open_image(tmp_path / "out" / "photo.png")) == 255, segmenter(folder / "photo.jpg", "bright_disc").mask
    )


# Volumes


def test_a_nifti_becomes_a_nifti_on_the_same_grid(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    affine = np.array([[0, -0.7, 0, 11], [0.6, 0, 0, -5], [0, 0, 4, 2], [0, 0, 0, 1.0]])
    path = write_nifti(tmp_path / "brain.nii.gz", hounsfield().transpose(2, 1, 0), affine)
    code, *_ = run(path, "--task", "dark_disc", "--out", tmp_path / "out", "--probability", "--overlay")
    assert code == 0
    shown = [f"brain_overlay/000{n}.png" for n in range(5)]
    assert files(tmp_path / "out") == ["brain.nii.gz", *shown, "brain_probability.nii.gz"]
    scan = open_scan(path)
    mask, probability = (nib.load(tmp_path / "out" / f"brain{ending}.nii.gz") for ending in ("", "_probability"))
    for image in (mask, probability):
        assert np.array_equal(image.affine, nib.load(path).affine)
        assert image.shape == (64, 48, 5)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(mask.dataobj), scan.to_voxels(expected(segmenter, path, "dark_disc")))
    values = np.asarray(probability.dataobj)
    assert probability.get_data_dtype() == np.float32
    assert np.array_equal(values > 0.5, np.asarray(mask.dataobj) == 1)
    height, *rest = read_image(tmp_path / "out" / "brain_overlay" / "0003.png").shape
    assert (height > scan.size[0], rest) == (True, [scan.size[1], 3])  # the caption is below


def test_a_volume_is_cut_along_the_axis_asked_for(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "brain.nii", hounsfield().transpose(0, 2, 1))  # the frames lie across the first axis
    for axis in ("sagittal", "axial"):
        assert run(path, "--task", "bright_disc", "--out", tmp_path / axis, "--axis", axis)[0] == 0
        found = np.asarray(nib.load(tmp_path / axis / "brain.nii.gz").dataobj)
        scan = open_scan(path, axis=axis)
        masks = np.stack([segmenter(scan.frame(index), "bright_disc").mask for index in range(scan.frames)])
        assert np.array_equal(found, scan.to_voxels(masks)), axis


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_nrrd_and_metaimage_keep_their_kind(run: Run, segmenter: Segmenter, tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(hounsfield(3))
    image.SetSpacing((0.5, 0.6, 3))
    image.SetOrigin((1, 2, 3))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    assert run(tmp_path / f"a{suffix}", "--task", "bright_disc", "--out", tmp_path / "out")[0] == 0
    found = sitk.ReadImage(str(tmp_path / "out" / f"a{suffix}"))
    assert found.GetSpacing() == image.GetSpacing()
    assert found.GetOrigin() == image.GetOrigin()
    masks = expected(segmenter, tmp_path / f"a{suffix}", "bright_disc")
    assert np.array_equal(sitk.GetArrayFromImage(found), open_scan(tmp_path / f"a{suffix}").to_voxels(masks))


# Video


def test_a_video_becomes_a_lossless_one_and_an_overlay_to_look_at(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_video(tmp_path / "colon.mp4")
    assert run(path, "--task", "bright_disc", "--out", tmp_path / "out", "--overlay", "--batch-size", 2)[0] == 0
    assert files(tmp_path / "out") == ["colon.mkv", "colon_overlay.mp4"]
    masks = expected(segmenter, path, "bright_disc")
    assert np.array_equal(frames_of(tmp_path / "out" / "colon.mkv", "gray"), masks * 255)
    shown = frames_of(tmp_path / "out" / "colon_overlay.mp4", "rgb24")
    assert (len(shown), shown.shape[1] > 48, *shown.shape[2:]) == (7, True, 64, 3)  # the caption is below
    assert shown[:, 48:].mean() < 100 < shown[:, :48].mean()
    for name in ("colon.mkv", "colon_overlay.mp4"):
        with av.open(str(tmp_path / "out" / name)) as container:
            assert container.streams.video[0].average_rate == 12


def test_a_video_with_a_damaged_frame_leaves_nothing_behind(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "colon.mp4", count=30)
    whole = VideoScan.frame

    def frame(self: VideoScan, index: int) -> np.ndarray:
        if index == 20:
            raise DataError(f"{self.path}: frame 21 is damaged")
        return whole(self, index)

    monkeypatch.setattr(VideoScan, "frame", frame)
    code, _, err = run(path, "--task", "bright_disc", "--out", tmp_path / "out", "--overlay", "--probability", "--batch-size", 2)
    assert code == 1
    assert "skipped: " in err
    assert "colon.mp4: frame 21 is damaged" in err
    assert list((tmp_path / "out").iterdir()) == []


# Windows


def test_each_task_sees_the_scan_through_its_own_window(segmenter: Segmenter, tmp_path: Path) -> None:
    write_series(tmp_path / "chest", hounsfield(4))
    segmenter.tasks = TaskSet([Task("bright_disc", window="0,1500"), Task("dark_disc", window="100,600")])
    list(predict_files(segmenter, [tmp_path / "chest"], BOTH, tmp_path / "own", png=True))
    for task, window in (("bright_disc", "0,1500"), ("dark_disc", "100,600")):
        found = np.stack([np.asarray(open_image(tmp_path / "own" / task / "chest" / f"000{n}.png")) == 255 for n in range(4)])
        assert np.array_equal(found, expected(segmenter, tmp_path / "chest", task, window=window))
        assert np.array_equal(segmenter.scan(tmp_path / "chest", task).masks, found)
    one, other = (expected(segmenter, tmp_path / "chest", "dark_disc", window=window) for window in ("0,1500", "100,600"))
    assert not np.array_equal(one, other)
    assert np.array_equal(segmenter.scan(tmp_path / "chest", "dark_disc", window="0,1500").masks, one)


def test_a_picture_is_decoded_once_whatever_the_windows(segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    segmenter.tasks = TaskSet([Task("bright_disc", window="lung"), Task("dark_disc", window="brain")])
    decoded = []
    monkeypatch.setattr("tpseg.imaging.reading.picture.read_image", lambda path: decoded.append(path) or read_image(path))
    list(predict_files(segmenter, [tmp_path / "photo.png"], BOTH, tmp_path / "out"))
    assert len(decoded) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "lungs"], "window 'lungs'.*did you mean 'lung'"),
        (["--axis", "up"], "axis 'up'"),
        (["--tile", "5"], "--tile 5: expected 32"),
        (["--sr", "--format", "png"], "--sr and --format png exclude each other"),
        (["--engine", "ray", "--tile", "64"], "belong to --engine local"),
    ],
)
def test_options_that_fit_nothing_are_refused(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    path = write_nifti(tmp_path / "a.nii", hounsfield(2))
    code, _, err = run(path, "--task", "bright_disc", "--out", tmp_path / "out", *words)
    assert code == 2
    assert re.search(message, err)
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


# What is never overwritten


def test_masks_never_land_in_the_folder_of_their_series(run: Run, tmp_path: Path) -> None:
    write_series(tmp_path / "liver", hounsfield(2))
    before = files(tmp_path)
    for out in (tmp_path / "liver", tmp_path / "liver" / "masks"):
        code, _, err = run(tmp_path / "liver", "--task", "bright_disc", "--out", out)
        assert (code, "choose another --out" in err) == (2, True)
    code, _, err = run(tmp_path / "liver", "--task", "bright_disc", "--out", tmp_path, "--format", "png")  # liver/0000.png
    assert (code, "choose another --out" in err) == (2, True)
    assert files(tmp_path) == before


def test_a_volume_is_never_overwritten_by_its_mask(run: Run, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", hounsfield(2))
    before = path.read_bytes()
    code, _, err = run(path, "--task", "bright_disc", "--out", tmp_path)
    assert (code, "a.nii.gz: would be overwritten" in err) == (2, True)
    assert path.read_bytes() == before


def test_a_folder_that_holds_other_files_is_not_replaced(run: Run, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", hounsfield(2))
    words = (path, "--task", "bright_disc", "--out", tmp_path / "out", "--format", "png")
    assert run(*words)[0] == run(*words)[0] == 0  # an earlier run's frames are
    (tmp_path / "out" / "a" / "notes.txt").write_text("mine")
    code, _, err = run(*words)
    assert (code, "holds other files" in err) == (2, True)
    assert (tmp_path / "out" / "a" / "notes.txt").read_text() == "mine"


# Tiles


def test_tiles_give_what_monai_s_sliding_window_gives(run: Run, segmenter: Segmenter, tmp_path: Path) -> None:
    pixels = np.concatenate([np.concatenate([picture(3 * row + column, 60, 70) for column in range(3)], axis=1) for row in range(3)])
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    words = (tmp_path / "slide.png", "--all-tasks", "--tile", 80, "--out", tmp_path / "out", "--probability", "--overlay")
    assert run(*words)[0] == 0

    def network(tiles: torch.Tensor) -> torch.Tensor:  # (1, 3, 80, 80) -> (1, 1, 80, 80)
        loaded = segmenter.load(tiles[0].permute(1, 2, 0).numpy().astype(np.uint8))
        (answer,) = segmenter.answers([loaded], [[task]])
        return resize_map(answer.logits, (80, 80))[None, None]

    weight = torch.from_numpy(Tiling(pixels.shape[:2], 80).weight)
    for task in BOTH:
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        logits = sliding_window_inference(image, 80, 1, network, overlap=OVERLAP, roi_weight_map=torch.outer(weight, weight))[0, 0]
        probability = np.asarray(open_image(tmp_path / "out" / task / "slide_probability.png")) / 65535
        np.testing.assert_allclose(probability, torch.sigmoid(logits).numpy(), atol=1e-4)
        mask = np.asarray(open_image(tmp_path / "out" / task / "slide.png")) == 255
        assert np.array_equal(mask, probability > 0.5)
        assert 0 < mask.mean() < 0.9
        overlay = read_image(tmp_path / "out" / task / "slide_overlay.png")[: len(mask)]
        assert np.array_equal(overlay[~mask], pixels[~mask])


def test_tiles_of_a_volume(run: Run, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", hounsfield(3).transpose(2, 1, 0))
    for tile in (64, 32):
        assert run(path, "--task", "bright_disc", "--out", tmp_path / str(tile), "--tile", tile, "--overlay")[0] == 0
        assert np.asarray(nib.load(tmp_path / str(tile) / "a.nii.gz").dataobj).any(axis=(0, 1)).sum() >= 1
        assert len(list((tmp_path / str(tile) / "a_overlay").iterdir())) == 3


def test_an_image_much_larger_than_the_model_s_gets_one_hint(
    segmenter: Segmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, side in (("a", 513), ("b", 600), ("small", 512)):
        Image.new("L", (700, side)).save(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        list(predict_files(segmenter, [tmp_path / "small.png"], ["bright_disc"], tmp_path / "out"))
        list(predict_files(segmenter, [tmp_path / "a.png"], ["bright_disc"], tmp_path / "out", tile=256))
        assert not caplog.messages
        list(predict_files(segmenter, [tmp_path / "a.png", tmp_path / "b.png"], ["bright_disc"], tmp_path / "out"))
    assert len(caplog.messages) == 1
    assert "--tile" in caplog.messages[0]


# In Python, and 16 bits


def test_a_single_frame_is_segmented_like_a_picture(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "scan.dcm", hounsfield(1)[0])
    assert np.array_equal(segmenter(path, "bright_disc").mask, expected(segmenter, path, "bright_disc")[0])
    windowed = segmenter(str(path), "bright_disc", window="100,600")
    assert np.array_equal(windowed.mask, expected(segmenter, path, "bright_disc", window="100,600")[0])
    many = write_nifti(tmp_path / "many.nii", hounsfield(3).transpose(2, 1, 0))
    with pytest.raises(DataError, match=r"many\.nii: holds 3 frames; .* Segmenter\.scan"):
        segmenter(many, "bright_disc")


def test_a_scan_in_python_has_masks_and_spacing(segmenter: Segmenter, tmp_path: Path) -> None:
    write_series(tmp_path / "liver", hounsfield())
    found = segmenter.scan(tmp_path / "liver", "dark_disc", batch_size=2)
    assert np.array_equal(found.masks, expected(segmenter, tmp_path / "liver", "dark_disc"))
    assert found.scan.spacing == (0.5, 0.75)
    assert found.task == "dark_disc"


def test_a_model_that_lies_nowhere_makes_no_dicom(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "scan.dcm", hounsfield(1)[0])
    unnamed = Segmenter(segmenter.network.model, device="cpu")
    with pytest.raises(UsageError, match="a model in memory has no name"):
        list(predict_files(unnamed, [path], ["bright_disc"], tmp_path / "out"))


@pytest.mark.parametrize("tile", [[], ["--tile", 64]], ids=["whole", "tiles"])
def test_a_16_bit_tiff_gives_a_mask_of_its_size(run: Run, segmenter: Segmenter, tmp_path: Path, tile: list) -> None:
    values = (hounsfield(1)[0].astype(np.int32) + 2000).astype(np.uint16).repeat(2, axis=0).repeat(2, axis=1)[:95]
    assert values.max() > 255
    tifffile.imwrite(tmp_path / "deep.tif", values)
    assert run(tmp_path / "deep.tif", "--task", "bright_disc", "--out", tmp_path / "out", *tile)[0] == 0
    mask = np.asarray(open_image(tmp_path / "out" / "deep.png"))
    assert mask.shape == (95, 128)
    assert set(np.unique(mask)) <= {0, 255}
    if not tile:
        assert np.array_equal(mask == 255, segmenter(tmp_path / "deep.tif", "bright_disc").mask)


def test_failures_name_the_scan(segmenter: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"x" * 400)
    (result,) = predict_files(segmenter, [tmp_path / "a.nii"], ["bright_disc"], tmp_path / "out")
    assert isinstance(result, Failure)
    assert result.file == tmp_path / "a.nii"


# The summary


@pytest.mark.parametrize("case", ["series", "one DICOM file", "at the detector", "volume", "video"])
def test_the_summary_has_areas_and_volumes_where_known_and_names_every_file_that_was_written(run: Run, tmp_path: Path, case: str) -> None:
    """A pixel is 0.5 x 0.75 mm, a slice 3 mm from the next; at the detector the patient is shown magnified, and a video says nothing."""
    out, options = tmp_path / "out", ["--overlay"]
    if case == "series":
        write_series(tmp_path / "in", hounsfield())
        options += ["--sr", "--window", "0,1500"]
    elif case == "volume":
        write_nifti(tmp_path / "in" / "a.nii.gz", hounsfield().transpose(2, 1, 0), np.diag([-0.75, -0.5, 3, 1]))
        options += ["--probability"]
    elif case == "video":
        pytest.importorskip("av")
        (tmp_path / "in").mkdir()
        write_video(tmp_path / "in" / "a.mp4")
    else:
        element = "PixelSpacing" if case == "one DICOM file" else "ImagerPixelSpacing"
        write_dicom(tmp_path / "in" / "a.dcm", hounsfield()[0], **{element: [0.5, 0.75]})
        options += ["--format", "png"]
    code, said, _ = run(tmp_path / "in", "--task", "bright_disc", "--out", out, "--json", *options)
    (image,) = json.loads(said)["images"]
    assert code == 0
    written = {path for place in image["outputs"] for path in ([Path(place)] if Path(place).is_file() else Path(place).iterdir())}
    assert written == {path for path in out.rglob("*") if path.is_file()}
    (found,) = image["tasks"]
    assert found["pixels"] > 100
    area = found["pixels"] * 0.5 * 0.75
    known = {"one DICOM file": (area, None), "series": (None, 3 * area), "volume": (None, 3 * area)}
    assert (found["area_mm2"], found["volume_mm3"]) == pytest.approx(known.get(case, (None, None)))
