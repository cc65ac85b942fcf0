"""The check finds what hurts users most, names the file and says what to do; a clean data set passes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tpseg.cli import main
from tpseg.data.manifest import read_dataset
from tpseg.data.quality import check
from tpseg.data.quality.check import CheckReport, Problem, check_dataset

MakePairs = Callable[..., Path]
REAL8 = Path(os.environ.get("TPSEG_REAL8", Path(__file__).resolve().parents[4] / "shared" / "data" / "real8"))
ROWS = ["train", "train", "train", "val", "val", "test", "test", "test"]


@pytest.fixture
def folder(tmp_path: Path, make_pairs: MakePairs) -> Path:
    """One task `lesion`, eight sound cases: 3 train, 2 val, 3 test."""
    make_pairs(tmp_path / "lesion", count=len(ROWS))
    (tmp_path / "tasks.yaml").write_text("tasks:\n  lesion: {modality: CT, data: lesion/split.csv}\n")
    list_cases(tmp_path)
    return tmp_path / "lesion"


def list_cases(root: Path, *extra: str, splits: list[str] = ROWS, groups: str = "        ") -> None:
    rows = [f"images/case{n:02d}.png,masks/case{n:02d}.png,{split},{groups[n].strip()}" for n, split in enumerate(splits)]
    (root / "lesion" / "split.csv").write_text("\n".join(["image,mask,split,group", *rows, *extra, ""]))


def checked(folder: Path) -> CheckReport:
    return check_dataset(read_dataset(folder.parent))


def only(report: CheckReport) -> Problem:
    """The one problem of a report."""
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


def image(folder: Path, number: int, kind: str = "images") -> Path:
    return folder / kind / f"case{number:02d}.png"


mask = partial(image, kind="masks")


def printed(report: CheckReport) -> str:
    file = io.StringIO()
    Console(file=file, width=300).print(report)
    return file.getvalue()


def test_a_sound_data_set_has_no_problems_and_its_counts_are_right(folder: Path) -> None:
    report = checked(folder)
    assert (report.ok, report.problems) == (True, [])
    headings = next(line for line in printed(report).splitlines() if "mean lesion" in line)
    assert [word.strip() for word in headings.strip("┃").split("┃")] == [
        "task", "train", "val", "test", "empty", "median size", "mean lesion",
    ]  # fmt: skip
    counts = report.tasks["lesion"]
    assert (counts.train, counts.val, counts.test, counts.empty_masks) == (3, 2, 3, 0)
    assert (counts.median_height, counts.median_width) == (24, 32)
    assert counts.mean_lesion_share == pytest.approx(64 / (24 * 32))


def test_median_size_is_over_images(folder: Path) -> None:
    for number, (width, height) in enumerate([(10, 40)] * 5):
        for path in (image(folder, number), mask(folder, number)):
            Image.open(path).resize((width, height), Image.Resampling.NEAREST).save(path)
    counts = checked(folder).tasks["lesion"]
    assert (counts.median_height, counts.median_width) == (40, 10)  # five of eight


def test_missing_image_is_an_error(folder: Path) -> None:
    image(folder, 2).unlink()
    assert only(checked(folder)) == Problem("error", "missing file", "lesion", "lesion/images/case02.png", "no such file")


def test_truncated_image_and_renamed_text_mask_are_errors_and_come_before_warnings(folder: Path) -> None:
    Image.new("L", (32, 24), 255).save(mask(folder, 0))
    image(folder, 0).write_bytes(image(folder, 0).read_bytes()[:800])
    mask(folder, 1).write_text("not an image")
    report = checked(folder)
    assert not report.ok
    assert [(p.level, p.kind, p.file) for p in report.problems] == [
        ("error", "unreadable file", "lesion/images/case00.png"),
        ("error", "unreadable file", "lesion/masks/case01.png"),
        ("warning", "full mask", "lesion/masks/case00.png"),
    ]
    assert all("is it complete and really a .png file?" in p.message for p in report.problems[:2])


def test_image_and_mask_of_different_size_are_an_error_with_both_sizes(folder: Path) -> None:
    Image.new("L", (30, 24), 0).save(mask(folder, 0))
    problem = next(p for p in checked(folder).problems if p.level == "error")
    assert (problem.kind, problem.file) == ("size mismatch", "lesion/images/case00.png")
    assert problem.message == "image 32x24, mask lesion/masks/case00.png 30x24; is it this image's mask?"


def test_an_image_turned_by_its_exif_tag_against_its_mask_is_explained(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(image(folder, 0)).save(image(folder, 0), exif=exif)
    message = only(checked(folder)).message
    assert message.startswith("image 24x32, mask lesion/masks/case00.png 32x24;")
    assert "EXIF" in message


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 3]])
def test_class_id_mask_is_an_error(values: list[int], folder: Path) -> None:
    Image.fromarray(np.resize(np.array(values, np.uint8), (24, 32))).save(mask(folder, 0))
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("error", "mask values", "lesion/masks/case00.png")
    assert problem.message.startswith(f"mask values {', '.join(map(str, values))}; expected 0 and 255")


@pytest.mark.parametrize(("mode", "note"), [("P", "palette"), ("RGB", "rgb"), ("RGBA", "rgb")])
def test_palette_and_rgb_masks_are_warnings(mode: str, note: str, folder: Path) -> None:
    Image.open(mask(folder, 0)).convert(mode).save(mask(folder, 0))
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("warning", "mask format", "lesion/masks/case00.png")
    assert problem.message.endswith(f"({note}); to be sure, save it as 8-bit grey PNG with 0 and 255")


def test_jpeg_mask_is_a_warning(folder: Path) -> None:
    Image.open(mask(folder, 0)).save(folder / "masks" / "soft.jpg", quality=90)
    split = folder / "split.csv"
    split.write_text(split.read_text().replace("masks/case00.png", "masks/soft.jpg"))
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("warning", "mask format", "lesion/masks/soft.jpg")
    assert "soft edges" in problem.message


def test_empty_masks_are_one_warning_per_task_with_their_share(folder: Path) -> None:
    for number in (1, 4):
        Image.new("L", (32, 24), 0).save(mask(folder, number))
    report = checked(folder)
    problem = only(report)
    assert (problem.level, problem.kind, problem.task, problem.file) == ("warning", "empty masks", "lesion", "")
    assert problem.message.startswith("2 of 8 masks (25.0%) hold no lesion: lesion/masks/case01.png, lesion/masks/case04.png;")
    assert report.tasks["lesion"].empty_masks == 2
    assert report.ok


def test_full_mask_is_a_warning(folder: Path) -> None:
    Image.new("L", (32, 24), 255).save(mask(folder, 1))
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("warning", "full mask", "lesion/masks/case01.png")


def test_constant_images_are_warnings_and_no_duplicates_of_each_other(folder: Path) -> None:
    for number in (0, 7):  # train and test
        Image.new("RGB", (32, 24), (200, 10, 10)).save(image(folder, number))
    report = checked(folder)
    assert {(p.level, p.kind) for p in report.problems} == {("warning", "constant image")}
    assert [p.file for p in report.problems] == ["lesion/images/case00.png", "lesion/images/case07.png"]


def test_nan_image_is_an_error(folder: Path) -> None:
    values = np.random.default_rng(0).random((24, 32)).astype(np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(folder / "images" / "nan.tif")
    list_cases(folder.parent, "images/nan.tif,masks/case00.png,train,")
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("error", "image values", "lesion/images/nan.tif")
    assert problem.message == "holds NaN or infinite pixels; replace them before use"


def test_same_picture_in_two_splits_is_an_error_whatever_its_format(folder: Path) -> None:
    Image.open(image(folder, 0)).save(folder / "images" / "copy.bmp")  # the same pixels in other bytes
    list_cases(folder.parent, "images/copy.bmp,masks/case01.png,test,")
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("error", "duplicate across splits", "lesion/images/case00.png")
    assert problem.message == "in train, and the same picture again: lesion/images/copy.bmp (lesion, test); keep it in one split"


def test_same_picture_twice_in_a_split_is_a_warning(folder: Path) -> None:
    shutil.copy(image(folder, 0), image(folder, 1))
    message = "the same picture as lesion/images/case01.png; keep one"
    assert only(checked(folder)) == Problem("warning", "duplicate", "lesion", "lesion/images/case00.png", message)


def test_one_changed_pixel_makes_another_picture(folder: Path) -> None:
    pixels = np.array(Image.open(image(folder, 0)))
    pixels[5, 5, 1] ^= 1
    Image.fromarray(pixels).save(image(folder, 7))
    assert [p.kind for p in checked(folder).problems] == ["near-duplicate across splits"]


def test_same_bytes_in_another_shape_are_another_picture(folder: Path) -> None:
    pixels = np.array(Image.open(image(folder, 0))).reshape(32, 24, 3)
    Image.fromarray(pixels).save(image(folder, 7))
    Image.new("L", (24, 32), 255).save(mask(folder, 7))
    assert not [p for p in checked(folder).problems if "duplicate" in p.kind]


def test_two_tasks_may_share_an_image_but_not_across_splits(tiny_dataset: Path) -> None:
    first, second = (tiny_dataset.parent / task / "images" for task in ("skin_lesion", "breast_lesion"))
    shutil.copy(first / "case00.png", second / "case01.png")  # both train
    assert check_dataset(read_dataset(tiny_dataset)).problems == []
    shutil.copy(first / "case02.png", second / "case09.png")  # train and test
    message = only(check_dataset(read_dataset(tiny_dataset))).message
    assert message.startswith("in train, and the same picture again: breast_lesion/images/case09.png (breast_lesion, test);")


def test_an_altered_copy_in_another_split_is_a_warning_with_both_files_and_their_distance(folder: Path) -> None:
    smooth = Image.fromarray(np.random.default_rng(8).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((256, 192))
    smooth.save(image(folder, 0))
    smooth.resize((128, 96)).save(folder / "images" / "copy.jpg", quality=90)
    for size, name in (((256, 192), "case00.png"), ((128, 96), "copy.png")):
        Image.open(mask(folder, 0)).resize(size, Image.Resampling.NEAREST).save(folder / "masks" / name)
    list_cases(folder.parent, "images/copy.jpg,masks/copy.png,test,")
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.task, problem.file) == (
        "warning", "near-duplicate across splits", "lesion", "lesion/images/copy.jpg",
    )  # fmt: skip
    assert problem.message.startswith("in test, and almost the same as lesion/images/case00.png (lesion, train): ")
    assert 0 <= int(problem.message.split("train): ")[1].split(" of 256 bits")[0]) <= 32


def test_near_duplicates_of_one_group_or_one_split_are_no_further_problem(folder: Path) -> None:
    pixels = np.array(Image.open(image(folder, 0)))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image(folder, 1))  # both train
    Image.fromarray(pixels ^ 2).save(image(folder, 7))  # test
    assert [p.kind for p in checked(folder).problems] == ["near-duplicate across splits"]
    list_cases(folder.parent, groups="pp     p")
    assert [p.kind for p in checked(folder).problems] == ["group across splits"]


def test_image_listed_with_two_masks_is_an_error(folder: Path) -> None:
    list_cases(folder.parent, "images/case00.png,masks/case01.png,train,")
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("error", "two masks", "lesion/images/case00.png")
    assert "lesion/masks/case00.png, lesion/masks/case01.png; unite them" in problem.message


def test_row_listed_twice_is_a_warning_in_one_split_and_an_error_in_two(folder: Path) -> None:
    row = "images/case00.png,masks/case00.png"
    list_cases(folder.parent, f"{row},train,")
    assert [(p.level, p.kind) for p in checked(folder).problems] == [("warning", "listed twice")]
    list_cases(folder.parent, f"{row},test,")
    assert [(p.level, p.kind) for p in checked(folder).problems] == [("error", "duplicate across splits")]


def test_group_across_splits_is_an_error(folder: Path) -> None:
    list_cases(folder.parent, groups="ppq  rrp")  # p: two of train and one of test
    problem = only(checked(folder))
    assert (problem.level, problem.kind) == ("error", "group across splits")
    assert problem.message.startswith("group 'p' is in train (2), test (1);")


def test_two_tasks_may_use_the_same_group_name(tiny_dataset: Path) -> None:
    for task, split in (("skin_lesion", "train"), ("breast_lesion", "test")):
        path = tiny_dataset.parent / task / "split.csv"
        path.write_text(path.read_text().replace(f",{split},", f",{split},p1"))
    assert check_dataset(read_dataset(tiny_dataset)).problems == []


def test_empty_train_split_is_an_error_and_empty_val_and_test_are_warnings(folder: Path) -> None:
    list_cases(folder.parent, splits=["train"] * 8)
    assert [(p.level, p.kind, p.message.split(":")[0]) for p in checked(folder).problems] == [
        ("warning", "empty split", "no case has split 'val'"),
        ("warning", "empty split", "no case has split 'test'"),
    ]
    list_cases(folder.parent, splits=["val"] * 4 + ["test"] * 4)
    problem = only(checked(folder))
    assert (problem.level, problem.message.split(":")[0]) == ("error", "no case has split 'train'")


@pytest.mark.parametrize(("count", "warned"), [(30, False), (31, True)])
def test_tasks_of_very_different_size_are_a_warning(count: int, warned: bool, folder: Path, make_pairs: MakePairs) -> None:
    root = folder.parent
    make_pairs(root / "large", count=count + 2, height=16, width=16, seed=9)
    splits = ["train"] * count + ["val", "test"]
    rows = [f"images/case{n:02d}.png,masks/case{n:02d}.png,{split}" for n, split in enumerate(splits)]
    (root / "large" / "split.csv").write_text("\n".join(["image,mask,split", *rows, ""]))
    with (root / "tasks.yaml").open("a") as file:
        file.write("  large: {modality: CT, data: large/split.csv}\n")
    report = checked(folder)  # the other task has 3 train cases
    assert report.ok
    assert [p.kind for p in report.problems] == ["unbalanced tasks"] * warned
    assert all("31 train cases of 'large', 3 of 'lesion'; the sampler" in p.message for p in report.problems)


def test_names_that_differ_only_in_suffix_or_case_are_a_warning(folder: Path) -> None:
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (24, 32), dtype=np.uint8)).save(folder / "images" / "CASE00.bmp")
    list_cases(folder.parent, "images/CASE00.bmp,masks/case01.png,train,")
    problem = only(checked(folder))
    assert (problem.level, problem.kind, problem.file) == ("warning", "name clash", "lesion/images/case00.png")
    assert "lesion/images/CASE00.bmp" in problem.message


def test_tasks_whose_names_differ_only_in_case_are_a_warning(tiny_dataset: Path) -> None:
    tiny_dataset.write_text(tiny_dataset.read_text().replace("  breast_lesion:", "  Skin_Lesion:"))
    problem = only(check_dataset(read_dataset(tiny_dataset)))
    assert (problem.level, problem.kind) == ("warning", "name clash")
    assert "skin_lesion, Skin_Lesion" in problem.message


def test_nothing_readable_still_gives_a_report(folder: Path) -> None:
    for path in [*folder.glob("images/*"), *folder.glob("masks/*")]:
        path.write_bytes(b"")
    report = checked(folder)
    assert len(report.problems) == 16
    assert report.tasks["lesion"].median_width is None
    assert report.tasks["lesion"].mean_lesion_share is None
    assert "errors: 16, warnings: 0" in printed(report)


def test_every_file_is_decoded_once_and_progress_counts_them(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = tiny_dataset.parent / "skin_lesion" / "split.csv"
    split.write_text(split.read_text() + "images/case00.png,masks/case00.png,train,\n")  # named twice
    opened: list[Path] = []
    decode = check.open_image
    monkeypatch.setattr(check, "open_image", lambda path: opened.append(path) or decode(path))
    steps: list[tuple[int, int]] = []
    check_dataset(read_dataset(tiny_dataset), progress=lambda done, total: steps.append((done, total)))
    assert len(opened) == len(set(opened)) == 40
    assert steps == [(done, 40) for done in range(1, 41)]


@pytest.mark.usefixtures("ctrl_c_heeded")
def test_an_interrupt_does_not_wait_for_the_files_still_queued(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(check, "MAX_WORKERS", 1)
    monkeypatch.setattr(check, "open_image", lambda path: time.sleep(0.1) or opened.append(path) or Image.open(path))
    with pytest.raises(KeyboardInterrupt):
        check_dataset(read_dataset(tiny_dataset), progress=lambda done, total: signal.raise_signal(signal.SIGINT))
    assert len(opened) < 40


def test_json_holds_every_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        mask(folder, number).unlink()
    capsys.readouterr()
    assert main(["data", "check", str(folder.parent / "tasks.yaml"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [p["file"] for p in report["problems"]] == [f"lesion/masks/case{n:02d}.png" for n in range(8)]
    assert report["tasks"]["lesion"]["train"] == 3
    assert report["source"].endswith("tasks.yaml")


def test_the_table_shows_five_of_a_kind_and_counts_the_others(folder: Path) -> None:
    for number in range(8):
        mask(folder, number).unlink()
    text = printed(checked(folder))
    assert text.count(": no such file") == 5
    assert "and 3 more like these" in text
    assert "errors: 8, warnings: 0" in text
    assert "32x24" in text  # width x height


def test_file_names_in_brackets_are_printed_as_they_are(folder: Path) -> None:
    list_cases(folder.parent, "images/[red]scan[/red].png,masks/case00.png,train,")
    assert "lesion/images/[red]scan[/red].png: no such file" in printed(checked(folder))


@pytest.mark.skipif(not REAL8.is_dir(), reason="the eight real tasks are not on this machine (TPSEG_REAL8)")
def test_eight_real_tasks_pass(tmp_path: Path) -> None:
    splits = sorted(REAL8.resolve().glob("*/split.csv"))
    lines = [f"  {path.parent.name}: {{modality: real, data: {json.dumps(str(path))}}}" for path in splits]
    (tmp_path / "tasks.yaml").write_text("\n".join(["tasks:", *lines, ""]))
    report = check_dataset(read_dataset(tmp_path))
    assert len(report.tasks) == 8
    assert report.ok, [p for p in report.problems if p.level == "error"]
    assert sum(counts.train + counts.val + counts.test for counts in report.tasks.values()) == 2451
    assert not [p for p in report.problems if "duplicate" in p.kind]  # its splits are by patient, or by cluster of look-alikes
