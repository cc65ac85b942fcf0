"""The phantoms: what a newcomer trains on first."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from tpseg.core.errors import UsageError
from tpseg.data.manifest import read_dataset
from tpseg.datasets.phantoms import PHANTOM_TASKS, phantom, write_phantoms
from tpseg.datasets.phantoms.drawing import Outline, axes, cells, clouds, ellipse, speckle
from tpseg.imaging.pictures.formats import read_image, read_mask

TASKS = ["wet_amd", "brain_tumor", "adenocarcinoma", "thyroid_nodule", "colon_polyp", "lung_infection", "breast_lesion", "skin_lesion"]
COLOURED = {"adenocarcinoma", "colon_polyp", "skin_lesion"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tasks.yaml of a small data set."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "demo", cases=12, size=64, seed=3)


def test_the_eight_tasks_of_the_paper_in_fixed_order() -> None:
    assert PHANTOM_TASKS.names == TASKS
    assert all(task.title.endswith("(phantom)") for task in PHANTOM_TASKS)
    assert [task.modality for task in PHANTOM_TASKS].count("ultrasound") == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_phantom_is_an_8_bit_picture_with_a_mask_of_its_size(task: str) -> None:
    image, mask = phantom(task, seed=0, size=96)
    assert image.dtype == np.uint8
    assert mask.dtype == np.bool_
    assert image.shape == mask.shape + ((3,) if task in COLOURED else ())
    assert mask.shape[0] == 96
    assert mask.shape[1] == {"wet_amd": 128, "lung_infection": 115}.get(task, 96)
    assert image.std() > 20, "a picture, not a flat field"


@pytest.mark.parametrize("task", TASKS)
def test_lesions_are_never_tiny_nor_most_of_the_picture(task: str) -> None:
    shares = [phantom(task, seed, 64)[1].mean() for seed in range(0, 60, 2)]
    assert min(shares) >= 0.015
    assert max(shares) <= 0.45
    assert max(shares) / min(shares) > 1.5, "sizes vary"


@pytest.mark.parametrize("task", TASKS)
def test_two_pictures_of_a_patient_are_alike_but_not_the_same(task: str) -> None:
    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    pairs = [(phantom(task, 2 * k, 64), phantom(task, 2 * k + 1, 64)) for k in range(8)]
    within = np.mean([overlap(first[1], second[1]) for first, second in pairs])
    between = np.mean([overlap(pairs[k][0][1], pairs[k - 1][0][1]) for k in range(8)])
    assert within > between + 0.05
    assert not any(np.array_equal(first[0], second[0]) for first, second in pairs)


@pytest.mark.parametrize("task", TASKS)
def test_a_larger_picture_shows_the_same_scene(task: str) -> None:
    small, large = phantom(task, 4, 64)[1], phantom(task, 4, 128)[1]
    shrunk = np.asarray(Image.fromarray(large).resize(small.shape[::-1]))
    assert 2 * (small & shrunk).sum() / (small.sum() + shrunk.sum()) > 0.85


def test_no_global_grey_threshold_solves_the_tasks() -> None:
    solved = [task for task in TASKS if best_threshold_dice(task) >= 0.75]
    assert len(solved) <= 2, solved


def best_threshold_dice(task: str) -> float:
    """Mean Dice of the best `grey >= c` or `grey < c`, c and direction picked on the very pictures it is scored on."""
    images, masks = zip(*(phantom(task, seed, 64) for seed in range(0, 24, 2)), strict=True)
    grey = np.stack([image.mean(axis=2) if image.ndim == 3 else image for image in images])  # (N, H, W)
    mask = np.stack(masks)
    best = 0.0
    for cut in range(0, 256, 5):
        for found in (grey >= cut, grey < cut):
            dice = 2 * (found & mask).sum((1, 2)) / (found.sum((1, 2)) + mask.sum((1, 2)))
            best = max(best, float(dice.mean()))
    return best


@pytest.mark.parametrize("task", TASKS)
def test_lesions_can_be_seen_against_what_surrounds_them(task: str) -> None:
    """In at least nine of ten pictures; a contrast of 1/3 is a third of the neighbourhood's own spread."""
    visible = [contrast(*phantom(task, seed, 96)) > 0.33 for seed in range(0, 20, 2)]
    assert np.mean(visible) >= 0.9


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Largest difference of mean or of roughness between a lesion and a ring around it, in standard deviations of the ring."""
    ring = ndimage.binary_dilation(mask, iterations=8) & ~mask
    channels = (image if image.ndim == 3 else image[..., None]).astype(float)
    inside, outside = channels[mask], channels[ring]
    spread = outside.std(axis=0) + 1e-6
    shift = np.abs(inside.mean(axis=0) - outside.mean(axis=0)) / spread
    return float(max(shift.max(), np.abs(np.log(inside.std(axis=0) / spread)).max()))


def test_written_data_reads_back_whole(written: Path) -> None:
    data = read_dataset(written)
    assert data.tasks == PHANTOM_TASKS
    assert len(data.cases) == 8 * 12
    for case in data.cases:
        image, reading = read_image(case.image), read_mask(case.mask)
        assert image.shape[:2] == reading.mask.shape
        assert reading.note == ""
        assert reading.mask.any()


def test_a_data_set_of_seed_s_starts_at_picture_1_000_000_s(written: Path) -> None:
    image, mask = phantom("adenocarcinoma", 3_000_005, 64)
    np.testing.assert_array_equal(read_image(written.parent / "adenocarcinoma/images/005.png"), image)
    np.testing.assert_array_equal(read_mask(written.parent / "adenocarcinoma/masks/005.png").mask, mask)


def test_formats_are_mixed_as_users_have_them(written: Path) -> None:
    found = {}
    for task in TASKS:
        first = sorted((written.parent / task / "images").iterdir())[0]
        with Image.open(first) as image:
            found[task] = (first.suffix, image.mode)
    assert found == {
        "wet_amd": (".png", "L"),
        "brain_tumor": (".png", "I;16"),
        "adenocarcinoma": (".png", "RGB"),
        "thyroid_nodule": (".png", "L"),
        "colon_polyp": (".jpg", "RGB"),
        "lung_infection": (".tif", "I;16"),
        "breast_lesion": (".png", "L"),
        "skin_lesion": (".jpg", "RGB"),
    }


def test_16_bit_pictures_use_more_than_8_bits(written: Path) -> None:
    values = np.asarray(Image.open(written.parent / "brain_tumor/images/000.png"))
    assert values.dtype == np.uint16
    assert 255 < values.max() <= 4095
    assert len(np.unique(values)) > 256


@pytest.mark.parametrize("cases", [11, 20])
def test_groups_never_cross_a_split_and_every_split_has_cases(cases: int, tmp_path: Path) -> None:
    table = pd.read_csv(write_phantoms(tmp_path / "out", cases=cases, size=64).parent / "wet_amd/split.csv")
    assert list(table.columns) == ["image", "mask", "split", "group"]
    assert len(table) == cases
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert table["group"].value_counts().max() == 2
    shares = table["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.60, abs=0.07)
    assert shares["val"] == pytest.approx(0.15, abs=0.07)
    assert shares["test"] == pytest.approx(0.25, abs=0.08)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(written: Path, tmp_path: Path) -> None:
    again = write_phantoms(tmp_path / "again", cases=12, size=64, seed=3).parent
    names = sorted(str(path.relative_to(again)) for path in again.rglob("*") if path.is_file())
    assert len(names) == 8 * (2 * 12 + 1) + 2
    same, different, errors = filecmp.cmpfiles(written.parent, again, names, shallow=False)
    assert (len(same), different, errors) == (len(names), [], [])
    other = write_phantoms(tmp_path / "other", cases=10, size=64, seed=4).parent
    seen = {path.read_bytes() for path in again.glob("*/images/*")}
    assert not seen & {path.read_bytes() for path in other.glob("*/images/*")}


def test_the_readme_says_that_no_patient_is_in_it(written: Path) -> None:
    assert "no patient" in (written.parent / "README.txt").read_text()


def test_mistakes_are_answered_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not an empty folder; name a new folder or remove"):
        write_phantoms(tmp_path)
    with pytest.raises(UsageError, match="found 9; expected at least 10"):
        write_phantoms(tmp_path / "new", cases=9)
    with pytest.raises(UsageError, match="found 32 pixels; expected at least 64"):
        write_phantoms(tmp_path / "new", size=32)
    with pytest.raises(UsageError, match="did you mean 'colon_polyp'"):
        phantom("colon_polyps", 0)
    with pytest.raises(UsageError, match="expected 0 or more"):
        phantom("colon_polyp", -1)
    assert not (tmp_path / "new").exists(), "a refused call leaves nothing behind"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_outline_without_waves_is_the_ellipse_it_was_made_from() -> None:
    """Distances by hand: a circle of radius 0.5 at the origin, and an ellipse turned by a right angle."""
    y, x = np.array([0.0, 0.5, 0.0]), np.array([0.0, 0.0, 0.75])
    np.testing.assert_allclose(ellipse(y, x, (0, 0), (0.5, 0.5)), [0.5, 0.0, -0.25])
    turned = ellipse(y, x, (0, 0), (0.75, 0.5), turn=np.pi / 2)
    np.testing.assert_allclose(turned[1:], [0.0, 0.0], atol=1e-12)


def test_points_at_a_depth_of_zero_lie_on_the_outline() -> None:
    outline = Outline.draw(np.random.default_rng(0), (0.2, -0.1), (0.4, 0.3), turn=0.7, rough=0.1)
    angles = np.linspace(0, 2 * np.pi, 50)
    np.testing.assert_allclose(outline.distance(*outline.points(angles, 0.0)), 0, atol=1e-12)
    assert (outline.distance(*outline.points(angles, 0.05)) > 0).all()


def test_cells_are_positive_at_their_centres_and_know_their_number() -> None:
    y, x = axes(64, 64)
    centres = np.array([[y[10, 10], x[10, 10]], [y[50, 40], x[50, 40]]])
    distance, number = cells(y, x, centres, np.full((2, 2), 0.1), np.zeros(2))
    assert distance[10, 10] == pytest.approx(0.1)
    assert distance[50, 40] == pytest.approx(0.1)
    assert (number[10, 10], number[50, 40]) == (0, 1)
    assert distance[32, 5] < 0


def test_noise_has_the_mean_and_spread_it_promises() -> None:
    y, x = axes(128, 128)
    noise = clouds(y, x, np.random.default_rng(0), cell=0.05, octaves=2)
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.15)
    grains = speckle((128, 128), np.random.default_rng(0), (0.03, 0.03))
    assert grains.mean() == pytest.approx(1)
    assert grains.min() > 0
