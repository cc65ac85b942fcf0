"""Using a model: whatever holds the image, whatever its size, the same mask in the image's own size."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import disc
from PIL import Image

import tpseg.inference.network
import tpseg.inference.segmenter
from tpseg.core.errors import DataError, UsageError
from tpseg.core.memory import OutOfMemory
from tpseg.data.manifest import read_dataset
from tpseg.imaging.overlay import RESEARCH, strip
from tpseg.imaging.pictures.formats import open_image, read_image, read_mask
from tpseg.imaging.reading.opening import Found, find_scans, name_of
from tpseg.inference import Failure, Segmenter, as_rgb, choose_tasks, predict_files
from tpseg.inference.files import output_names

pytestmark = pytest.mark.usefixtures("miniature_trunk", "in_32_bit")


@pytest.fixture
def in_32_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpseg.inference.network, "autocast", lambda device: nullcontext())
    monkeypatch.setattr(tpseg.inference.network, "bf16_is_native", lambda device: False)


@pytest.fixture
def segmenter(trained) -> Segmenter:
    return Segmenter(trained, device="cpu")


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    return disc("bright_disc", np.random.default_rng(8), height, width)[0]


# One image


def test_it_finds_the_disc(segmenter, discs):
    for case in read_dataset(discs).split("test"):
        prediction, truth = segmenter(case.image, case.task), read_mask(case.mask).mask
        assert 2 * (prediction.mask & truth).sum() / (prediction.mask.sum() + truth.sum()) > 0.6  # over 0.85 on every processor tried


def test_a_prediction_has_the_images_size_and_its_mask_is_the_probability_over_one_half(segmenter):
    prediction = segmenter(picture(50, 70), "bright_disc")
    assert prediction.mask.shape == prediction.probability.shape == prediction.similarity.shape == (50, 70)
    assert prediction.mask.dtype == np.bool_
    assert prediction.probability.dtype == prediction.similarity.dtype == np.float32
    assert np.array_equal(prediction.mask, prediction.probability > 0.5)
    assert 0 <= prediction.probability.min() < prediction.probability.max() <= 1
    assert -2 <= prediction.similarity.min() < prediction.similarity.max() <= 2
    assert prediction.task == "bright_disc"


def test_everything_that_holds_the_image_gives_the_same_mask(segmenter, tmp_path):
    pixels = picture()
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.full((48, 64), 9, np.uint8)
    likes = [
        *(path, str(path), open_image(path), Image.fromarray(pixels).convert("RGBA")),
        *(pixels, np.dstack([pixels, opaque]), pixels / 255, (pixels / 255).astype(np.float32)),
        *(tensor, tensor / 255),
    ]
    expected = segmenter(pixels, "bright_disc")
    for like in likes:
        assert np.array_equal(segmenter(like, "bright_disc").probability, expected.probability), type(like)


def test_grey_arrays_are_taken_as_grey_pictures():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.repeat(grey[..., None], 3, axis=2)
    for like in (grey, grey[..., None], grey / 255, torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert np.array_equal(as_rgb(like), expected)
    assert np.array_equal(as_rgb(grey > 5), np.where(expected > 5, 255, 0))


def test_16_bit_and_hounsfield_numbers_are_stretched():
    assert as_rgb(np.array([[0, 1000], [500, 250]], np.uint16))[..., 0].tolist() == [[0, 255], [128, 64]]
    assert as_rgb(np.array([[-1000, 1000]], np.int16))[..., 0].tolist() == [[0, 255]]
    assert as_rgb(np.array([[-3.0, 3.0]]))[..., 0].tolist() == [[0, 255]]


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 20000), (20000, 16), (33, 65), (31, 100)])
def test_every_size_is_segmented_in_its_own_size(segmenter, size):
    assert segmenter(np.full((*size, 3), 90, np.uint8), "dark_disc").mask.shape == size


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_file_is_segmented(segmenter, tmp_path, mode):
    image = Image.fromarray(picture())
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.tif")
    prediction = segmenter(tmp_path / "image.tif", "bright_disc")
    assert prediction.mask.shape == (48, 64)
    assert np.isfinite(prediction.probability).all()


def test_the_mask_is_upright_as_the_picture_is_seen(segmenter, tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6  # shown turned by 90°
    Image.fromarray(picture()).save(tmp_path / "photo.png", exif=tag)
    found = segmenter(tmp_path / "photo.png", "bright_disc")
    assert found.mask.shape == (64, 48)
    assert np.array_equal(found.mask, segmenter(np.rot90(picture(), -1), "bright_disc").mask)


def test_a_constant_image_is_no_error(segmenter):
    for value in (0, 255):
        assert np.isfinite(segmenter(np.full((40, 40), value, np.uint8), "dark_disc").probability).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
        (torch.full((3, 4, 4), torch.nan), "NaN"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\); expected"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "expected"),
        (torch.zeros(4, 4), r"tensor of shape \(4, 4\)"),
        (np.full((4, 4, 3), 300.0), r"values 300\.0 to 300\.0; expected uint8, or floats in \[0, 1\]"),
        ("nowhere.png", "no such file"),
        (__file__, "neither DICOM nor a file of a known suffix"),
    ],
)
def test_what_is_no_image_is_refused(segmenter, image, message):
    with pytest.raises(DataError, match=message):
        segmenter(image, "dark_disc")


def test_an_unknown_task_lists_those_there_are_and_names_the_nearest(segmenter):
    with pytest.raises(UsageError, match=r"'dark_disk'; did you mean 'dark_disc'\? \(tasks: bright_disc, dark_disc\)"):
        segmenter(picture(), "dark_disk")


def test_the_task_decides(segmenter):
    dark = disc("dark_disc", np.random.default_rng(4))[0]
    assert not np.array_equal(segmenter(dark, "dark_disc").probability, segmenter(dark, "bright_disc").probability)


# Many images


def test_the_batch_does_not_change_a_prediction(segmenter):
    rng = np.random.default_rng(1)
    tasks = ["bright_disc", "dark_disc", "dark_disc", "bright_disc", "dark_disc"]
    images = [disc(task, rng, 30 + 7 * number, 50)[0] for number, task in enumerate(tasks)]
    alone = [segmenter(image, task) for image, task in zip(images, tasks, strict=True)]
    for size in (1, 2, 5, 64):
        together = list(segmenter.predict(images, tasks, batch_size=size))
        assert [one.task for one in together] == tasks
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.probability, other.probability, rtol=0, atol=1e-5)


def test_images_are_read_as_they_are_needed(segmenter):
    read = []

    def images():
        for number in range(6):
            read.append(number)
            yield picture()

    results = segmenter.predict(images(), ["dark_disc"] * 6, batch_size=2)
    next(results)
    assert read == [0, 1]


# Files


@pytest.fixture
def folder(tmp_path) -> Path:
    """a.png, sub/b.jpg, sub/c.TIF, a text, and a PNG cut short."""
    place = tmp_path / "in"
    (place / "sub").mkdir(parents=True)
    for name, size in (("a.png", (48, 64)), ("sub/b.jpg", (30, 41)), ("sub/c.TIF", (64, 20))):
        Image.fromarray(picture(*size)).save(place / name)
    (place / "notes.txt").write_text("no image")
    (place / "broken.png").write_bytes((place / "a.png").read_bytes()[:300])
    return place


def test_files_become_masks_of_their_size_and_bad_ones_are_reported(segmenter, folder, tmp_path):
    results = list(predict_files(segmenter, find_scans([str(folder)]), ["bright_disc"], tmp_path / "out", batch_size=2))
    failures = [result for result in results if isinstance(result, Failure)]
    assert [failure.file.name for failure in failures] == ["broken.png"]
    assert "broken.png: cannot be decoded" in failures[0].reason
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]
    for source, name in (("a.png", "a"), ("sub/b.jpg", "b"), ("sub/c.TIF", "c")):
        mask = open_image(tmp_path / "out" / f"{name}.png")
        assert mask.mode == "L"
        assert mask.size == open_image(folder / source).size
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(np.asarray(mask) == 255, segmenter(folder / source, "bright_disc").mask)


def test_probabilities_are_16_bit_and_overlays_show_the_picture(segmenter, folder, tmp_path):
    source = folder / "a.png"
    list(predict_files(segmenter, [source], ["bright_disc"], tmp_path / "out", probability=True, overlay=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "a_overlay.png", "a_probability.png"]
    values = np.asarray(open_image(tmp_path / "out" / "a_probability.png"))
    assert values.dtype == np.uint16
    prediction = segmenter(source, "bright_disc")
    np.testing.assert_allclose(values / 65535, prediction.probability, atol=1e-5)
    overlay, original = read_image(tmp_path / "out" / "a_overlay.png"), read_image(source)
    below, overlay = overlay[len(original) :], overlay[: len(original)]
    assert np.array_equal(below, strip(original.shape[1], f"bright_disc · {segmenter.identity.words} · {RESEARCH}"))
    assert np.array_equal(overlay[~prediction.mask], original[~prediction.mask])
    assert prediction.mask.any()
    assert (overlay[prediction.mask] != original[prediction.mask]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("letter", ["y", "字"])
def test_a_name_too_long_for_a_result_is_cut_aloud(segmenter, tmp_path, caplog, letter):
    """Nothing is lost for its name: the mask of NAME and NAME_probability both need room in 255 bytes."""
    long = letter * (251 // len(letter.encode()))
    (tmp_path / "in").mkdir()
    for name in ("a", long, long[:-1], "字z"):
        Image.fromarray(picture()).save(tmp_path / "in" / f"{name}.png")
    results = list(predict_files(segmenter, find_scans([str(tmp_path / "in")]), ["bright_disc"], tmp_path / "out", probability=True))
    assert not [result for result in results if isinstance(result, Failure)]
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(found) == 8
    assert {"a.png", "a_probability.png", "字z.png", "字z_probability.png"} < set(found)
    (shorter, other) = (name for name in found if name.startswith(letter * 20) and not name.endswith("_probability.png"))
    assert max(len(shorter.encode()), len(other.encode())) <= 224
    said = [record.getMessage() for record in caplog.records]
    assert sum(f"{long}.png: its results have no room for so long a name; they are called {letter * 20}" in line for line in said) == 1
    assert len(said) == 2


@pytest.mark.parametrize(
    ("number", "ends"),
    [(errno.ENAMETOOLONG, False), (errno.EINVAL, False), (errno.EISDIR, False), (errno.ENOSPC, True), (errno.ESTALE, True)],
)
def test_what_the_disk_says_of_one_result_ends_the_run_only_if_it_holds_for_all(segmenter, folder, tmp_path, monkeypatch, number, ends):
    """A share refuses names that others take; a full disk takes nothing any more."""
    replace = os.replace

    def refusing(source, target):
        if Path(target).name == "a.png":
            raise OSError(number, os.strerror(number), str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    results = predict_files(segmenter, find_scans([str(folder / "a.png"), str(folder / "sub")]), ["bright_disc"], tmp_path / "out")
    if ends:
        with pytest.raises(OSError, match=os.strerror(number)):
            list(results)
    else:
        first, *others = results
        assert isinstance(first, Failure)
        assert first.reason.startswith(f"{folder / 'a.png'}: its results cannot be written: ")
        assert "a.png" in first.reason.partition("written: ")[2]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "c.png"]
        assert len(others) == 2


# Too little memory


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


class Small:
    """A network with room for so many pairs of image and task in a pass."""

    def __init__(self, network, room: int, says: str = NO_MEMORY) -> None:
        self.network, self.room, self.says = network, room, says
        self.tasks, self.image_size = network.tasks, network.image_size

    def __call__(self, image, task, rows):
        if len(task) > self.room:
            raise RuntimeError(self.says)
        return self.network(image, task, rows)


@pytest.mark.parametrize(
    ("room", "sentence"),
    [
        (5, "memory ran out with 8 at a time at 64x64 pixels; 4 fit, tried just now: --batch-size 4"),
        (1, "memory ran out with 8 at a time at 64x64 pixels; 1 fit, tried just now: --batch-size 1"),
        (0, "not even one image fits at 64x64 pixels, which the model asks for; take a machine with more memory, or --device cpu"),
    ],
)
def test_out_of_memory_names_the_batch_that_fits(segmenter, tmp_path, room, sentence):
    """Of images, and of images and tasks: what a pass needs memory for are pairs."""
    segmenter.network = Small(segmenter.network, room)
    with pytest.raises(OutOfMemory, match=sentence):
        list(segmenter.predict([picture()] * 8, ["bright_disc"] * 8))
    for number in range(4):
        Image.fromarray(picture()).save(tmp_path / f"{number}.png")
    with pytest.raises(OutOfMemory, match=sentence):
        list(predict_files(segmenter, [tmp_path], ["bright_disc", "dark_disc"], tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_the_batch_that_is_advised_does(segmenter):
    segmenter.network = Small(segmenter.network, 5)
    assert len(list(segmenter.predict([picture()] * 8, ["bright_disc"] * 8, batch_size=4))) == 8


def test_other_errors_of_the_network_stay_what_they_are(segmenter):
    segmenter.network = Small(segmenter.network, 0, "a tensor of the wrong shape")
    with pytest.raises(RuntimeError, match="wrong shape"):
        segmenter(picture(), "bright_disc")


def test_a_picture_too_large_for_the_memory_is_named_with_the_tiles_that_help(segmenter, folder, tmp_path, monkeypatch):
    resize = tpseg.inference.segmenter.resize_map

    def resize_small(logits, size):
        if size == (48, 64):
            raise RuntimeError(NO_MEMORY)
        return resize(logits, size)

    monkeypatch.setattr(tpseg.inference.segmenter, "resize_map", resize_small)
    scans = find_scans([str(folder / "a.png"), str(folder / "sub")])
    first, *others = predict_files(segmenter, scans, ["bright_disc"], tmp_path / "out")
    assert first == Failure(folder / "a.png", f"{folder / 'a.png'}: is too large for the memory there is; segment it in tiles: --tile 256")
    assert others == [folder / "sub" / "b.jpg", folder / "sub" / "c.TIF"]
    with pytest.raises(OutOfMemory, match="memory ran out on a map of 64x48 pixels"):
        segmenter(folder / "a.png", "bright_disc")


def test_several_tasks_have_a_folder_each(segmenter, folder, tmp_path):
    list(predict_files(segmenter, [folder / "a.png"], ["bright_disc", "dark_disc"], tmp_path / "out"))
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*.png")) == [
        "bright_disc/a.png",
        "dark_disc/a.png",
    ]


def found(*paths: str) -> list[Found]:
    return [Found(Path(path), (Path(path),), name_of(Path(path))) for path in paths]


def test_names_that_clash_are_told_apart():
    names = output_names(found("x/a.png", "y/a.png", "y/b.png", "y/a.jpg", "y/a.nii.gz"))
    assert names == ["x_a_png", "y_a_png", "b", "y_a_jpg", "y_a_nii_gz"]
    assert len(set(output_names(found("p/x/a.png", "q/x/a.png")))) == 2
    assert len(set(output_names(found("a.png", "b/a.png", "b_a_png.png")))) == 3


def test_an_image_is_never_overwritten_by_its_mask(segmenter, folder):
    before = (folder / "a.png").read_bytes()
    with pytest.raises(UsageError, match=r"a\.png.*--out"):
        list(predict_files(segmenter, [folder / "sub" / "b.jpg", folder / "a.png"], ["bright_disc"], folder))
    assert (folder / "a.png").read_bytes() == before
    assert not (folder / "b.png").exists()  # found out before anything is written


def test_an_image_called_like_anothers_probability_is_told_apart(segmenter, folder, tmp_path):
    twin = folder / "a_probability.png"
    twin.write_bytes((folder / "a.png").read_bytes())
    list(predict_files(segmenter, [folder / "a.png", twin], ["bright_disc"], tmp_path / "out", probability=True))
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_which_task():
    from tpseg.core.tasks import Task, TaskSet

    two, one = TaskSet([Task("a"), Task("b")]), TaskSet([Task("a")])
    assert choose_tasks(two, "b", False) == ["b"]
    assert choose_tasks(two, None, True) == ["a", "b"]
    assert choose_tasks(one, None, False) == ["a"]
    with pytest.raises(UsageError, match=r"which task\? Give --task NAME or --all-tasks \(tasks: a, b\)"):
        choose_tasks(two, None, False)
    with pytest.raises(UsageError, match="exclude each other"):
        choose_tasks(two, "a", True)


def test_a_device_that_is_not_there_is_refused(trained):
    with pytest.raises(UsageError, match="device 'gpu7' is not available here"):
        Segmenter(trained, device="gpu7")
