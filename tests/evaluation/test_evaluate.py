"""From files to a summary: the table, the averages, what is written, and predictions that do not fit."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.data.manifest import Case, read_dataset
from tpseg.data.pairs import read_pair
from tpseg.evaluation.evaluate import (
    Predicted,
    evaluate_model,
    evaluate_predictions,
    read_rows,
    score_cases,
    summarise,
    summary_table,
    write_evaluation,
)  # fmt: skip
from tpseg.evaluation.metrics import confusion, truth_at_input_size
from tpseg.evaluation.predictions import read_predictions
from tpseg.inference import Segmenter
from tpseg.inference.network import TorchNetwork

# Four masks of 4 x 4 pixels: tasks `wa` (two images of one patient, one of another) and `bl` (an empty mask).
LEFT = np.array([[1, 1, 0, 0]] * 4, bool)
TOP = LEFT.T
NONE = np.zeros((4, 4), bool)
MASKS = {"wa": {"a": LEFT, "b": TOP, "c": LEFT}, "bl": {"a": NONE}}
GROUPS = {"a": "p1", "b": "p1", "c": ""}


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def eight_bit(mask):
    return mask.astype(np.uint8) * 255


@pytest.fixture
def data(tmp_path):
    root, entries = tmp_path / "data", []
    for task, masks in MASKS.items():
        lines = ["image,mask,split,group"]
        for name, mask in masks.items():
            save(root / task / f"{name}.png", eight_bit(mask))
            lines.append(f"images/{name}.jpg,{name}.png,test,{GROUPS[name]}")
        (root / task / "split.csv").write_text("\n".join(lines))
        entries.append(f"  {task}: {{modality: OCT, data: {task}/split.csv}}")
    (root / "tasks.yaml").write_text("\n".join(["tasks:", *entries]))
    return read_dataset(root)


@pytest.fixture
def rows(data):
    """wa: a perfect, b half found (Dice 2/3, IoU 1/2), c missed; bl: empty, found empty."""
    maps = [LEFT * 1.0, (TOP & LEFT) * 0.9, NONE * 1.0, NONE * 1.0]
    return score_cases(data.cases, map(Predicted, maps), input_size=4)


@pytest.fixture
def predictions(tmp_path):
    """Perfect masks of every kind: {0, 255}, {0, 1}, 16 bit, JPEG."""
    folder = tmp_path / "predictions"
    save(folder / "wa/a.png", eight_bit(LEFT))
    save(folder / "wa/b.TIF", TOP.astype(np.uint8))
    save(folder / "wa/c.png", LEFT.astype(np.uint16) * 40000)
    save(folder / "bl/a.bmp", eight_bit(NONE))
    return folder


def test_the_table_has_a_row_per_image(rows):
    assert list(rows.columns[:8]) == ["task", "image", "split", "group", "set", "height", "width", "tp"]
    assert rows["image"].tolist() == ["images/a.jpg", "images/b.jpg", "images/c.jpg", "images/a.jpg"]
    assert rows["task"].tolist() == ["wa", "wa", "wa", "bl"]
    assert rows["dice"].tolist() == pytest.approx([1, 2 / 3, 0, 1])


def test_summary_by_hand(rows):
    summary = summarise(rows, ["default", "tpseg", "nnunet"])
    wa, bl = summary["default"]["tasks"].values()
    assert list(summary["default"]["tasks"]) == ["wa", "bl"]
    assert (wa["dice"], wa["iou"], wa["images"]) == (pytest.approx(5 / 9), pytest.approx(1 / 2), 3)
    assert (wa["sensitivity"], wa["precision"]) == (pytest.approx((1 + 1 / 2 + 0) / 3), 1)  # c has no precision
    assert (wa["empty_share"], wa["undefined_distances"]) == (0, 1)
    assert (bl["dice"], bl["empty_share"], bl["undefined_distances"]) == (1, 1, 1)
    assert bl["hd95"] is bl["sensitivity"] is None
    average = summary["default"]["average"]
    assert average["dice"] == pytest.approx((5 / 9 + 1) / 2)
    assert (average["hd95"], average["precision"]) == (wa["hd95"], 1)
    # Pooled over wa: tp 8 + 4 + 0, fn 0 + 4 + 8, fp 0, tn 8·3; foreground 12/24, background 24/36.
    assert summary["tpseg"]["tasks"]["wa"]["iou"] == pytest.approx((12 / 24 + 24 / 36) / 2)
    # nnU-Net leaves out bl's only image, and so the task.
    assert summary["nnunet"]["tasks"]["bl"]["dice"] is None
    assert summary["nnunet"]["average"]["dice"] == pytest.approx(5 / 9)


def test_intervals(rows):
    """wa has two units, {a, b} and {c}: a resample's Dice is 5/6, 5/9 or 0; bl's one image has no interval."""
    entries = summarise(rows, ["default"])["default"]
    assert entries["tasks"]["wa"]["dice_interval"] == pytest.approx([0, 5 / 6])
    assert entries["tasks"]["bl"]["dice_interval"] == [None, None]
    assert entries["average"]["dice_interval"] == [None, None]
    perfect = rows.assign(dice=1.0, iou=1.0, group="").iloc[[0, 1, 2, 3, 3]]
    assert summarise(perfect, ["default"])["default"]["average"]["dice_interval"] == pytest.approx([1, 1])


def test_tasks_are_resampled_independently(rows):
    """Two tasks with the same numbers: the average's interval is narrower than each task's, by about root two."""
    wa = rows[rows["task"] == "wa"].sample(60, replace=True, random_state=0).assign(group="")
    both = summarise(pd.concat([wa, wa.assign(task="twin")]), ["default"])["default"]
    low, high = both["average"]["dice_interval"]
    task_low, task_high = both["tasks"]["wa"]["dice_interval"]
    assert high - low == pytest.approx((task_high - task_low) / 2**0.5, rel=0.1)


def test_a_task_of_several_sets_is_reported_for_each_and_as_their_mean(rows):
    """Papers give polyps so: here two images of one set and one of another, which weighs as much."""
    three = rows.iloc[:3].assign(task="cp", set=["Kvasir", "Kvasir", "ETIS"], dice=[0.5, 0.7, 0.2])
    entry = summarise(three, ["default"])["default"]["tasks"]["cp"]
    assert entry["sets"]["Kvasir"]["dice"] == pytest.approx(0.6)
    assert entry["sets"]["Kvasir"]["images"] == 2
    assert entry["mean_over_sets"]["dice"] == pytest.approx(0.4)
    assert entry["dice"] == pytest.approx(1.4 / 3)
    assert "sets" not in summarise(three.assign(set=""), ["default"])["default"]["tasks"]["cp"]


def test_summaries_are_the_same_every_time(rows):
    assert summarise(rows, ["all"]) == summarise(rows, ["all"])


def test_csv_and_json_round_trip(rows, tmp_path):
    rows["group"] = ["p1", "", "NA", "p1"]  # a patient may be called NA
    summary = summarise(rows, ["all"])
    write_evaluation(rows, summary, tmp_path / "out", "test")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.csv", "test.json"]

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads((tmp_path / "out/test.json").read_text(), parse_constant=no_constant) == summary
    read = read_rows(tmp_path / "out/test.csv")
    assert summarise(read, ["all"]) == summary
    assert read["group"].tolist() == ["p1", "", "NA", "p1"]
    pd.testing.assert_frame_equal(read, rows, check_dtype=False, check_exact=True)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text('x,"y\nz"\n1,2\n')
    (tmp_path / "ragged.csv").write_text("x,y\n1,2\n1,2,3\n")
    for name in ("other.csv", "ragged.csv", "absent.csv"):
        with pytest.raises(DataError, match=name) as caught:
            read_rows(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_tables_name_their_protocol(rows):
    summary = summarise(rows, ["all"])

    def shown(protocol):
        console = Console(width=200)
        with console.capture() as capture:
            console.print(summary_table(summary, protocol))
        return capture.get()

    default = shown("default")
    for text in ("Protocol: default", "both empty 1", "55.6 (0.0–83.3)", "50.0 (0.0–75.0)", "77.8", "bl 100.0 %", "left out on 2 images"):
        assert text in " ".join(default.split()), text
    assert "Protocol: nnunet" in shown("nnunet")
    assert "HD95" not in shown("nnunet")


def test_a_map_that_does_not_fit_its_mask_names_the_image(data):
    with pytest.raises(DataError, match=r"a\.jpg: .*\(5, 4\).*\(4, 4\)"):
        score_cases(data.cases[:1], [Predicted(np.zeros((5, 4)))], 4)
    with pytest.raises(DataError, match=r"a\.jpg: .*\(3, 4\).*\(4, 4\)"):
        score_cases(data.cases[:1], [Predicted(np.zeros((4, 4)), np.zeros((3, 4)))], 4)
    with pytest.raises(DataError, match="empty"):
        score_cases([], [], 4)


def test_predictions_of_every_kind(data, predictions, tmp_path):
    summary = evaluate_predictions(predictions, data, "test", ["default", "nnunet"], tmp_path / "out", input_size=8)
    assert list(summary) == ["default", "nnunet"]
    assert [entry["dice"] for entry in summary["default"]["tasks"].values()] == [1, 1]
    assert json.loads((tmp_path / "out/test.json").read_text()) == summary


def test_a_wrong_protocol_costs_no_run(data, tmp_path):
    with pytest.raises(UsageError, match="nnunet"):
        evaluate_predictions(tmp_path / "absent", data, "test", ["nnunets"], tmp_path)


def one_map(tmp_path, image, name="a.png"):
    """What read_predictions makes of one file; its mask has the same size."""
    image.save(tmp_path / name)
    Image.new("L", image.size).save(tmp_path / "mask.bmp")
    case = Case("wa", tmp_path / "a.jpg", tmp_path / "mask.bmp", "test", "", "a.jpg")
    return next(read_predictions(tmp_path, [case]))


def grey(values, dtype=np.uint8):
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (grey([0, 1]), [0, 1]),
        (grey([0, 255]), [0, 1]),
        (grey([255, 255]), [1, 1]),
        (grey([0, 0]), [0, 0]),
        (grey([51, 255]), [0.2, 1]),
        (grey([0, 51, 255]).convert("RGB"), [0, 0.2, 1]),
        (grey([0, 51]).convert("LA"), [0, 0.2]),
        (grey([0, 255]).convert("1"), [0, 1]),
        (grey([0, 13107, 65535], np.uint16), [0, 0.2, 1]),
        (grey([0, 1], np.uint16), [0, 1]),
        (grey([0, 255], np.uint16), [0, 1]),
    ],
)
def test_grey_values_become_probabilities(tmp_path, image, expected):
    found = one_map(tmp_path, image)
    assert found.shape == (1, len(expected))
    assert found[0] == pytest.approx(expected)


def test_float_maps_are_taken_as_they_are(tmp_path):
    assert one_map(tmp_path, grey([0.25, 0.5], np.float32), "a.tif")[0] == pytest.approx([0.25, 0.5])
    with pytest.raises(DataError, match=r"a\.tif: values from -3\.0 to 2\.0; expected 0 to 1"):
        one_map(tmp_path, grey([-3, 2], np.float32), "a.tif")


def several_maps(tmp_path, *images):
    """What read_predictions makes of a task's files together."""
    cases = []
    for number, image in enumerate(images):
        name = f"{number}.{'tif' if isinstance(image, np.ndarray) else 'png'}"
        if isinstance(image, np.ndarray):
            tifffile.imwrite(tmp_path / name, image)
        else:
            image.save(tmp_path / name)
        Image.new("L", (2, 1)).save(tmp_path / "mask.bmp")
        cases.append(Case("wa", tmp_path / name, tmp_path / "mask.bmp", "test", "", f"{number}.jpg"))
    return [found[0].tolist() for found in read_predictions(tmp_path, cases)]


@pytest.mark.parametrize(
    ("images", "shown"),
    [
        ([grey([0, 2])], "0.png: values 0, 2; "),
        ([grey([0, 1]), grey([0, 2])], "1.png: values 0, 2; "),
        ([grey([0, 1]), grey([1, 2]), grey([0, 255])], "1.png: values 1, 2; "),  # 255 is the usual 'ignore' value
        ([grey([0, 1]), grey([0, 31])], "1.png: values 0, 31; "),
        ([grey([51, 254], np.uint16)], "0.png: values 51, 254; "),  # 8-bit values in 16 bits
        ([grey([0, 2], np.uint16), grey([0, 1], np.uint16)], "0.png: values 0, 2; "),
        ([grey([0, 2]).convert("RGB")], "0.png: values 0, 2; "),
        ([np.array([[0, 2]], np.int32)], "0.tif: values 0, 2 of type int32; "),
        ([np.array([[0, 7]], np.int8)], "0.tif: values 0, 7 of type int8; "),
        ([np.array([[0, 2]], np.float64)], "0.tif: values from 0.0 to 2.0; expected 0 to 1"),
    ],
)
def test_class_ids_and_values_on_another_scale_are_no_probabilities(tmp_path, images, shown):
    with pytest.raises(DataError, match=re.escape(shown)) as caught:
        several_maps(tmp_path, *images)
    assert "Convert class ids" in str(caught.value) or "expected 0 to 1" in str(caught.value)


def test_what_0_and_1_mean_is_told_by_the_task_s_other_files(tmp_path):
    """Of a map of probabilities, too, nothing may exceed 1/255: of an image without lesion."""
    assert several_maps(tmp_path, grey([0, 1]), grey([0, 255]), grey([0, 1], np.uint16)) == [[0, 1]] * 3
    first, second = several_maps(tmp_path, grey([0, 1]), grey([12, 204]))
    assert first == pytest.approx([0, 1 / 255])
    assert second == pytest.approx([12 / 255, 0.8])


def test_masks_drawn_in_a_dark_grey_are_pointed_out_where_none_of_a_task_is_lighter(tmp_path, caplog):
    assert several_maps(tmp_path, grey([0, 100]), grey([0, 100]))[0] == pytest.approx([0, 100 / 255])
    assert "no prediction exceeds 100 of 255" in caplog.text
    caplog.clear()
    several_maps(tmp_path, grey([0, 100]), grey([0, 128]))
    assert not caplog.text


@pytest.mark.parametrize("values", [[0, 1], [0, 255], [0, 65535]])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.float64])
def test_a_mask_is_one_in_any_number_type(tmp_path, values, kind):
    assert several_maps(tmp_path, np.array([values], kind)) == [[0, 1]]


def test_a_prediction_drawn_in_the_alpha_channel_is_refused(tmp_path):
    for number, (black, alpha) in enumerate([([0, 0], [0, 255]), ([255, 255], [0, 255]), ([0, 200], [255, 0])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(DataError, match=r"0\.png: its alpha channel (varies|hides).*flatten it"):
            several_maps(folder, Image.merge("LA", [grey(black), grey(alpha)]))


def test_a_palette_of_two_is_a_mask_and_colours_are_not(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert one_map(tmp_path, palette)[0].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"a\.png: a coloured image"):
        one_map(tmp_path, Image.new("RGB", (2, 1), (200, 0, 0)))


def test_all_missing_files_are_counted_before_any_is_read(data, predictions):
    (predictions / "wa/a.png").unlink()
    (predictions / "bl/a.bmp").unlink()
    (predictions / "wa/b.TIF").write_bytes(b"damaged, but not reached")
    with pytest.raises(DataError, match=r"2 of 4 predictions are missing.*wa.a\.\*.*bl.a\.\*"):
        read_predictions(predictions, data.cases)
    with pytest.raises(DataError, match="no such folder"):
        read_predictions(predictions / "absent", data.cases)


def test_a_flat_folder_serves_one_task_only(data, tmp_path):
    for name, mask in MASKS["wa"].items():
        save(tmp_path / f"flat/{name}.png", eight_bit(mask))
    cases = data.only(["wa"]).split("test")
    assert [found.sum() for found in read_predictions(tmp_path / "flat", cases)] == [8, 8, 8]
    with pytest.raises(DataError, match="4 of 4"):
        read_predictions(tmp_path / "flat", data.cases)


def test_two_candidates_are_refused(data, predictions):
    save(predictions / "wa/a.tif", eight_bit(LEFT))
    with pytest.raises(DataError, match=r"a\.png and .*a\.tif.*remove one"):
        read_predictions(predictions, data.cases)


def test_a_prediction_of_another_size_is_refused(data, predictions):
    save(predictions / "wa/b.TIF", np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match=r"b\.TIF: 5 x 4 pixels.*expected 4 x 4 as .*b\.png"):
        list(read_predictions(predictions, data.cases))


def cases_called(data, *names):
    return [Case("wa", case.image, case.mask, "test", "", name) for case, name in zip(data.cases, names, strict=False)]


def test_images_that_share_a_stem_are_found_by_their_path(data, tmp_path):
    cases = cases_called(data, "../x/a.png", "../y/a.png")
    save(tmp_path / "p/wa/a.png", eight_bit(NONE))
    with pytest.raises(DataError, match=r"2 of 2 predictions are missing.*wa.x.a\.\*"):
        read_predictions(tmp_path / "p", cases)
    save(tmp_path / "p/wa/x/a.png", eight_bit(LEFT))
    save(tmp_path / "p/wa/y/a.png", eight_bit(TOP))
    first, second = read_predictions(tmp_path / "p", cases)
    assert (first == LEFT).all()
    assert (second == TOP).all()


def test_images_that_differ_in_their_suffix_only_are_refused(data, tmp_path):
    save(tmp_path / "a.png", eight_bit(LEFT))
    with pytest.raises(DataError, match=r"task 'wa': several cases are called 'a'"):
        read_predictions(tmp_path, cases_called(data, "a.jpg", "a.png"))


def test_a_model_is_scored_by_tpseg_on_its_own_maps(trained, discs, tmp_path, miniature_trunk):
    """Images of 48x64 and a model of 64x64: its map is not brought to 48 rows and back."""
    segmenter, data = Segmenter(trained / "model"), read_dataset(discs)
    evaluate_model(segmenter, data, "test", ["tpseg"], tmp_path / "out")
    rows = read_rows(tmp_path / "out/test.csv")
    cases = data.split("test")
    images = [segmenter.load(read_pair(case)[0]) for case in cases]
    own = [answer.logits[0].numpy() > 0 for answer in segmenter.answers(images, [[case.task] for case in cases])]
    truth = [truth_at_input_size(read_pair(case)[1], 64) for case in cases]
    for name, counts in zip(("tp", "fp", "fn", "tn"), zip(*map(confusion, own, truth), strict=True), strict=True):
        assert rows[f"tpseg_{name}"].tolist() == list(counts)


def test_out_of_memory_is_one_sentence_with_the_batch_that_fits(trained, discs, tmp_path, miniature_trunk, monkeypatch, capsys):
    call = TorchNetwork.__call__

    def small(network, image, task, rows):
        if len(task) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: tried 9 bytes")
        return call(network, image, task, rows)

    monkeypatch.setattr(TorchNetwork, "__call__", small)
    assert main(["evaluate", str(trained / "model"), "--data", str(discs), "--batch-size", "4", "--out", str(tmp_path / "out")]) == 1
    assert "memory ran out with 4 at a time at 64x64 pixels; 2 fit, tried just now: --batch-size 2" in capsys.readouterr().err
    assert main(["evaluate", str(trained / "model"), "--data", str(discs), "--batch-size", "2", "--out", str(tmp_path / "out")]) == 0


# What the model's record of its training data tells of the images


@pytest.fixture
def scored(trained, discs, tmp_path, miniature_trunk):
    """A function that scores a copy of the run's model on a copy of its data after `change(data folder, model folder)`."""

    def score(change=lambda data, model: None, split="test"):
        data, model = tmp_path / "copy", tmp_path / "model"
        shutil.copytree(discs.parent, data)
        shutil.copytree(trained / "model", model)
        change(data, model)
        summary = evaluate_model(Segmenter(model), read_dataset(data), split, ["all"], tmp_path / "out")
        assert json.loads((tmp_path / f"out/{split}.json").read_text()) == summary
        for numbers in summary.values():  # one finding, beside the numbers of every protocol
            assert [numbers[key] for key in ("seen", "warnings", "notes")] == [
                summary["default"][key] for key in ("seen", "warnings", "notes")
            ]
        return summary["default"]

    return score


def test_a_test_split_that_the_model_has_not_seen_has_nothing_to_tell(scored):
    numbers = scored()
    assert (numbers["seen"], numbers["warnings"], numbers["notes"]) == ({}, [], [])


def test_a_test_image_that_was_trained_on_is_a_warning_that_names_it(scored):
    numbers = scored(lambda data, model: shutil.copy(data / "dark_disc/00.png", data / "dark_disc/08.png"))
    assert numbers["seen"] == {"train": ["dark_disc 08.png"]}
    assert numbers["warnings"] == [
        "1 of 6 test images are among those the model was trained on, so these scores are too good: dark_disc 08.png"
    ]
    assert numbers["notes"] == ["the test split has changed since training: 1 images are new, 1 images are gone"]


def test_a_model_from_before_there_was_a_record_is_scored_with_a_note(scored):
    numbers = scored(lambda data, model: (model / "data.csv").unlink())
    assert numbers["average"]["dice"] > 0.5
    assert numbers["notes"] == [
        "this model has no data.csv with the images it was trained on: none of these could be looked for among them"
    ]


def test_a_record_that_was_changed_is_not_believed(scored):
    numbers = scored(lambda data, model: (model / "data.csv").write_text("task,split,image_sha256,mask_sha256\n"))
    assert numbers["seen"] == {}
    assert numbers["notes"] == ["the model's data.csv is not the one its provenance.json names: what it was trained on is not known"]


def test_notes_stand_under_the_table(scored):
    numbers = scored(lambda data, model: (model / "data.csv").unlink())
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary_table({"default": numbers}, "default"))
    assert "This model has no data.csv" in " ".join(capture.get().split())


def test_the_command_line_warns_of_images_that_were_trained_on(trained, discs, tmp_path, miniature_trunk, capsys):
    code = main(["evaluate", str(trained), "--data", str(discs), "--split", "train", "--out", str(tmp_path)])
    assert code == 0
    assert "warning: 12 of 12 train images are among those the model was trained on" in capsys.readouterr().err


def test_masks_of_another_program_have_no_record_and_no_note(data, predictions, tmp_path):
    assert "notes" not in evaluate_predictions(predictions, data, "test", ["default"], tmp_path / "out", input_size=8)["default"]
