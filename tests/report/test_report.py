"""The report: one page that stands alone, tells the truth about a run, and says what a run does not have."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.core.config import Config, load_config
from tpseg.core.errors import DataError, UsageError
from tpseg.core.figures import in_lines
from tpseg.data.manifest import read_dataset
from tpseg.data.pairs import read_pair
from tpseg.evaluation.evaluate import Predicted, read_rows, score_cases, summarise, write_evaluation
from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.inference import Segmenter
from tpseg.models.tpseg.network import TPSeg
from tpseg.report import write_report
from tpseg.report.figures import draw_task_dice, legend_height, render
from tpseg.report.pictures import fit, fit_mask, pick_cases, similarity_colours
from tpseg.report.prototypes import correlation_sentence, foreground_cosines, separation
from tpseg.report.tables import score_table, setting_tables, with_interval

TASKS = {"skin": ("dermoscopy", "Skin <i>lesion</i>"), "polyp": ("endoscopy", "")}
ODD_NAME = "<img src=x onerror=alert(1)>.png"
TINY = {
    "trunk": "tiny", "weights": None, "freeze": False, "image_size": 64, "rank": 4,
    "neck_widths": [8, 8, 16, 16], "decoder_widths": [16, 8, 8], "attention_heads": 4,
}  # fmt: skip


def write_discs(folder: Path) -> Path:
    """A `tasks.yaml` with two tasks, each 3 train, 1 val and 3 test images of bright discs on noise."""
    rng = np.random.default_rng(0)
    entries = {}
    for task, (modality, description) in TASKS.items():
        (folder / task).mkdir(parents=True)
        lines = ["image,mask,split,group"]
        for number, split in enumerate(["train"] * 3 + ["val"] + ["test"] * 3):
            rows, columns = np.mgrid[:60, :90]
            truth = (rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(30, 60)) ** 2 < rng.integers(60, 200)
            image = rng.integers(0, 120, (60, 90, 3)) + 120 * truth[..., None]
            name = ODD_NAME if (task, number) == ("skin", 4) else f"{number}.png"
            Image.fromarray(image.astype(np.uint8)).save(folder / task / name)
            Image.fromarray(truth.astype(np.uint8) * 255).save(folder / task / f"mask{number}.png")
            lines.append(f"{name},mask{number}.png,{split},")
        (folder / task / "split.csv").write_text("\n".join(lines) + "\n")
        entries[task] = {"modality": modality, "data": f"{task}/split.csv", "description": description}
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}, sort_keys=False))
    return folder / "tasks.yaml"


def write_run(run: Path, data: Path, **model_settings: object) -> Path:
    """A run of a tiny untrained model: settings, model, curves of three epochs, scores of the model's own predictions."""
    config = load_config([], {"model": {**TINY, **model_settings}, "training": {"epochs": 3}})
    dataset = read_dataset(data)
    torch.manual_seed(0)
    model = TPSeg(config.model, dataset.tasks).eval()
    counts = {task: {"train": 3, "val": 1, "test": 3} for task in TASKS}
    provenance = {
        "date": "2026-01-02",
        "seed": 42,
        "data": {"cases": counts},
        "training": {"epoch": 2, "step": 20, "metrics": {}, "splits": {}},
    }
    save_model(model, run / "model", provenance)
    (run / "settings.yaml").write_text(yaml.safe_dump({**config.to_dict(), "run": {"data": str(data), "steps": 30}}))
    history = pd.DataFrame({"epoch": [1, 2, 3], "step": [10, 20, 30], "train/loss": [1.5, 1.2, 1.1], "val/loss": [1.6, 1.3, 1.4]})
    history["val/dice"] = history["val/dice/skin"] = history["val/dice/polyp"] = [0.1, 0.4, 0.3]
    if model.splits():
        history["split/skin"], history["split/polyp"] = [5, 6, 6], [5, 5, 5]
    (run / "logs").mkdir()
    history.to_csv(run / "logs" / "metrics.csv", index=False)
    cases = dataset.split("test")
    segmenter = Segmenter(model, device="cpu")
    rows = score_cases(cases, [Predicted(segmenter(read_pair(case)[0], case.task).probability) for case in cases], 64)
    write_evaluation(rows, summarise(rows, ["all"]), run / "evaluation", "test")
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/tasks.yaml` and the run `full`, its report written."""
    folder = tmp_path_factory.mktemp("report")
    write_report(write_run(folder / "full", write_discs(folder / "data")))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, for a test to take things out of."""
    return Path(shutil.copytree(made / "full", tmp_path / "a run"))


def pictures(page: str, kind: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(rf"data:image/{re.escape(kind)};base64,([^\"]+)", page)]


def test_images_that_the_model_has_seen_are_told_beside_the_scores(run: Path) -> None:
    path = run / "evaluation" / "test.json"
    summary = json.loads(path.read_text())
    for numbers in summary.values():
        numbers |= {"seen": {"train": ["skin a.png"]}, "warnings": ["1 of 6 test images were seen"], "notes": ["the split has changed"]}
    path.write_text(json.dumps(summary))
    page = write_report(run).read_text(encoding="utf-8")
    assert "1 of 6 test images were seen. The split has changed. Images without a lesion" in page


def test_the_page_stands_alone(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'\ssrc="([^:]+):', page)) == {"data"}
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert {f"#{anchor}" for anchor in re.findall(r'id="([^"]*)"', page)} == set(re.findall(r'href="([^"]*)"', page))


def test_headline_and_tables_show_the_numbers_of_the_evaluation_with_their_protocols(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    summary = json.loads((made / "full" / "evaluation" / "test.json").read_text())
    assert list(summary) == list(PROTOCOLS)
    average = summary["default"]["average"]
    low, high = average["dice_interval"]
    assert f"<b>{100 * average['dice']:.1f} %</b>mean test Dice" in page
    assert f"95 % interval {100 * low:.1f}–{100 * high:.1f}; protocol <i>default</i>" in page
    for name, numbers in summary.items():
        assert f"<b>{name}</b>: {PROTOCOLS[name].definition}." in page
        for entry in numbers["tasks"].values():
            assert f'<td class="number">{with_interval(entry["dice"], entry["dice_interval"])}</td>' in page
    assert "Research software" in page


def test_every_task_shows_its_best_median_and_worst_case_with_image_overlay_and_similarity(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    assert [page.count(f'<div class="verdict">{title}') for title in ("Best", "Median", "Worst")] == [2, 2, 2]
    assert page.count('alt="similarity D"') == page.count('alt="truth and prediction"') == page.count('alt="image"') == 6
    rows = read_rows(made / "full" / "evaluation" / "test.csv")
    for dice in rows["dice"]:  # three images a task: each is best, median or worst
        assert f"<b>{100 * dice:.1f} %</b> Dice" in page
    assert "evaluate it again" not in page


def test_pictures_are_small_and_their_text_is_at_least_11_pixels_high(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    photos = [Image.open(io.BytesIO(photo)) for photo in pictures(page, "jpeg")]
    assert len(photos) == 2 * 2 + 2 * 3 * 3  # examples; cases x tasks x pictures
    assert {max(photo.size) for photo in photos} == {256}
    for drawing in pictures(page, "svg+xml"):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawing.decode())]  # SVG units are points here
        assert sizes
        assert min(sizes) * 96 / 72 >= 11


def test_names_from_files_cannot_become_html(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    assert ODD_NAME not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<i>lesion" not in page
    assert "Skin &lt;i&gt;lesion&lt;/i&gt;" in page


def test_gates_splits_and_prototypes_are_drawn_for_each_task_and_pgtd(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    drawings = [drawing.decode() for drawing in pictures(page, "svg+xml")]
    splits = load_model(made / "full").splits()
    assert sum(f">b* = {splits['skin']}<" in drawing for drawing in drawings) == len(TASKS)  # both start at the same block
    assert page.count('alt="cosines between the foreground prototypes') == 3
    assert page.count('alt="separation of foreground and background at') == 3
    assert "n = 2 tasks: too few for a correlation." in page
    assert 'alt="split block of each task over epochs"' in page


def test_a_baseline_says_in_a_sentence_that_it_has_no_gate_prototypes_or_similarity(made: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "baseline", made / "data" / "tasks.yaml", adapter="none", pgtds=())
    page = write_report(run).read_text(encoding="utf-8")
    for sentence in (
        "has no split gate: none of its blocks",
        "decoder has no prototypes",
        "so there are no similarity maps",
        "no split b* was learned",
    ):
        assert sentence in page
    assert page.count('alt="truth and prediction"') == 6
    assert "similarity D" not in page


def test_without_an_evaluation_the_page_names_the_command_and_shows_the_rest(run: Path, made: Path) -> None:
    shutil.rmtree(run / "evaluation")
    page = write_report(run).read_text(encoding="utf-8")
    assert f"tpseg evaluate &#39;{run}&#39; --data {made / 'data' / 'tasks.yaml'} --split test" in page
    assert "mean test Dice" not in page
    assert page.count('alt="cosines between') == 3
    assert "mean validation Dice over epochs" in page


def test_without_a_model_or_curves_the_page_still_shows_the_scores(run: Path) -> None:
    shutil.rmtree(run / "model")
    (run / "logs" / "metrics.csv").unlink()
    page = write_report(run).read_text(encoding="utf-8")
    assert "mean test Dice" in page
    assert "This run has no model yet" in page
    assert "No epoch of this run has ended yet" in page


def test_a_task_without_val_images_is_named_beside_the_epoch_that_was_kept(run: Path) -> None:
    assert "no val images" not in (run / "report.html").read_text(encoding="utf-8")
    path = run / "model" / "provenance.json"
    content = json.loads(path.read_text())
    content["data"]["cases"]["polyp"]["val"] = 0
    path.write_text(json.dumps(content))
    page = write_report(run).read_text(encoding="utf-8")
    assert "There are no val images of polyp: the epoch was picked by the other tasks alone." in page


def test_moved_data_is_asked_for_and_then_used(run: Path, made: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    settings["run"]["data"] = "gone/tasks.yaml"
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    without = write_report(run).read_text(encoding="utf-8")
    assert "say where it is with --data" in without
    assert '<td class="number">14</td>' in without  # all cases, as provenance.json recorded them
    assert not pictures(without, "jpeg")
    with_data = write_report(run, Path(shutil.copytree(made / "data", tmp_path / "moved")) / "tasks.yaml").read_text(encoding="utf-8")
    assert len(pictures(with_data, "jpeg")) == 22


def test_an_image_that_cannot_be_read_costs_its_own_picture_only(run: Path, made: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(made / "data", tmp_path / "moved"))
    (data / "polyp" / "5.png").write_bytes(b"no image")
    page = write_report(run, data / "tasks.yaml").read_text(encoding="utf-8")
    assert page.count("Cannot be shown:") == 1
    assert page.count('alt="truth and prediction"') == 5


def test_scores_of_another_model_are_noticed(run: Path) -> None:
    rows = read_rows(run / "evaluation" / "test.csv")
    rows["dice"] = 1 - rows["dice"] / 2  # the untrained model is far from this
    rows.to_csv(run / "evaluation" / "test.csv", index=False)
    assert write_report(run).read_text(encoding="utf-8").count("evaluate it again") == 6


def test_damaged_files_are_named_and_leave_the_old_report_alone(run: Path) -> None:
    before = (run / "report.html").read_bytes()
    (run / "evaluation" / "test.json").write_text('{"default": {"tasks": {}}}')
    with pytest.raises(DataError, match=r"test\.json: not a summary written by 'tpseg evaluate'"):
        write_report(run)
    (run / "evaluation" / "test.json").write_text("{")
    with pytest.raises(DataError, match=r"test\.json: cannot be read as JSON"):
        write_report(run)
    shutil.rmtree(run / "evaluation")
    (run / "logs" / "metrics.csv").write_text("epoch,val/dice\n1,high\n")
    with pytest.raises(DataError, match=r"metrics\.csv: expected a table written by 'tpseg train'"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_wrong_arguments_are_usage_errors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="unknown split 'tests'; did you mean 'test'"):
        write_report(run, split="tests")
    with pytest.raises(DataError, match="nowhere"):
        write_report(run, tmp_path / "nowhere.yaml")


def test_of_equal_scores_the_larger_lesion_is_shown() -> None:
    rows = pd.DataFrame({"image": list("abcdef"), "dice": [1.0, 1.0, 0.0, 0.0, 0.7, 0.4], "true_area": [0.0, 0.2, 0.1, 0.3, 0.1, 0.1]})
    picked = {title: row["image"] for title, row in pick_cases(rows).items()}
    assert picked == {"Best": "b", "Median": "f", "Worst": "d"}  # by Dice: b a e | f d c, the lower of the middle two
    assert list(pick_cases(rows[:1])) == ["Best"]
    assert {title: row["image"] for title, row in pick_cases(rows[:2]).items()} == {"Best": "b", "Worst": "a"}


def test_prototype_distances_by_hand() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    prototypes = np.array([[east, east], [north, [0.0, -1.0]], [[0.6, 0.8], [0.8, -0.6]]])  # (3, 2, 2): alike, opposite, at right angles
    assert separation(prototypes).tolist() == pytest.approx([0, 2, 1])
    assert foreground_cosines(prototypes).tolist() == [pytest.approx(row) for row in ([1, 0, 0.6], [0, 1, 0.8], [0.6, 0.8, 1])]


def test_a_correlation_is_stated_with_its_interval_and_the_number_of_tasks() -> None:
    # x = 1..5, y = 2, 1, 4, 3, 5: covariance 8, both squares 10, r = 0.8; Fisher: tanh(atanh 0.8 -+ 1.96 / sqrt 2)
    sentence = correlation_sentence(np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5]))
    assert sentence.startswith("Pearson r = 0.80 (95 % −0.28 to 0.99), n = 5 tasks")
    assert correlation_sentence(np.arange(3.0), np.arange(3.0)) == "n = 3 tasks: too few for a correlation."
    assert "no correlation" in correlation_sentence(np.ones(5), np.arange(5.0))


def test_settings_show_first_what_differs_from_the_defaults() -> None:
    changed, same = setting_tables(load_config([], {"training": {"epochs": 7}, "model": {"weights": None, "freeze": False}}), steps=None)
    assert changed.rows == [
        ["model.weights", "null", "facebook/sam2-hiera-large"],
        ["model.freeze", "false", "true"],
        ["training.epochs", "7", "30"],
    ]
    assert ["model.rank", "64"] in same.rows
    assert (changed.names, same.names) == (3, 2)  # all columns are words
    assert setting_tables(Config(), steps=5)[0].rows == [["--steps", "5", "null"]]


def test_shrinking_keeps_the_shape_and_the_smallest_lesion() -> None:
    mask = np.zeros((1000, 2000), bool)
    mask[500, 700] = True
    small = fit_mask(mask)
    assert small.shape == (128, 256)
    assert np.argwhere(small).tolist() == [[64, 89]]  # 500 / 7.8125, 700 / 7.8125
    assert not fit_mask(np.zeros((1000, 2000), bool)).any()
    assert fit(np.zeros((30, 15, 3), np.uint8)).shape == (256, 128, 3)


def test_the_similarity_map_is_orange_above_0_purple_below_and_pale_at_0() -> None:
    below, zero, above = similarity_colours(np.array([[-0.5, 0.0, 0.5]]), limit=0.5)[0].astype(int)
    assert below[2] > below[1] + 50
    assert above[0] > above[2] + 50
    assert zero.min() > 240


def test_task_titles_may_hold_dollars_other_scripts_and_markup() -> None:
    history = pd.DataFrame({"epoch": [1], "val/dice/a": [0.5], "val/dice/b": [0.6]})
    uri = render(draw_task_dice, history, {"a": "cost $5 $^x", "b": "皮膚 <病変>"}, None)
    texts = {element.text for element in ElementTree.fromstring(base64.b64decode(uri.partition(",")[2])).iter() if element.text}
    assert {"cost $5 $^x", "皮膚 <病変>"} <= texts


# A run that has not ended


def test_an_unfinished_run_says_so_on_top(tmp_path: Path) -> None:
    """After each of its three epochs; by steps, by early stopping; and before the first epoch has ended."""
    run = write_run(tmp_path / "run", write_discs(tmp_path / "data"))
    history, settings = pd.read_csv(run / "logs" / "metrics.csv"), yaml.safe_load((run / "settings.yaml").read_text())

    def banner(epochs: int, steps: int | None = None, patience: int | None = None) -> str:
        settings["run"]["steps"], settings["training"]["early_stopping"] = steps, patience
        (run / "settings.yaml").write_text(yaml.safe_dump(settings))
        history[:epochs].to_csv(run / "logs" / "metrics.csv", index=False)
        page = write_report(run).read_text(encoding="utf-8")
        found = re.search(r'<p class="sentence banner">(.*?)</p>.*?<div class="facts">', page, re.DOTALL)
        return found[1] if found else ""

    assert banner(3) == ""
    assert "not come to its end: epoch 2 of 3 is done, step 20." in banner(2)
    assert "step 20 of 25." in banner(2, steps=25)
    assert banner(2, steps=20) == ""
    assert "epoch 1 of 3" in banner(1, patience=1)
    settings["training"]["epochs"] = 5
    assert "epoch 3 of 5" in banner(3)
    assert banner(3, patience=1) == ""  # the best of 0.1, 0.4, 0.3 was the second
    (run / "logs" / "metrics.csv").unlink()
    assert "no epoch has ended yet" in write_report(run).read_text(encoding="utf-8")


# What a phone and long names need


def test_all_protocols_but_the_first_are_folded_so_that_pictures_come_soon(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    folded = re.search(r"<details><summary>Under ([\w, ]+)</summary>(.*?)</details>", page, re.DOTALL)
    assert folded
    assert folded[1] == "tpseg, spider, pranet, nnunet"
    assert folded[2].count("<table") == 4
    scores = page[page.index('id="scores"') : folded.start()]
    assert scores.count("<table") == 1


def test_on_a_narrow_screen_names_wrap_and_stay_while_numbers_move(made: Path) -> None:
    page = (made / "full" / "report.html").read_text(encoding="utf-8")
    narrow = page[page.index("@media (max-width: 600px)") : page.index("</style>")]
    assert re.search(r"td:not\(\.number\)[^{]*\{[^}]*white-space: normal;[^}]*max-width: 30vw", narrow)
    assert re.search(r"td:first-child[^{]*\{[^}]*position: sticky", narrow)


def test_long_names_stand_in_several_lines_and_none_is_cut() -> None:
    title = "Wet age-related macular degeneration, subretinal fluid"
    assert "…" not in in_lines(title)
    assert " ".join(in_lines(title).split("\n")) == title
    assert max(map(len, in_lines(title).split("\n"))) <= 22
    assert in_lines("a_name_without_any_space_in_it_at_all").replace("\n", "") == "a_name_without_any_space_in_it_at_all"
    assert in_lines("x " * 500).endswith("…")  # four lines at most
    assert legend_height([title] * 4) > legend_height(["short"] * 4)
    history = pd.DataFrame({"epoch": [1, 2], "val/dice/oct": [0.1, 0.4]})
    svg = base64.b64decode(render(draw_task_dice, history, {"oct": title}, None).split(",")[1]).decode()
    assert all(line in svg for line in in_lines(title).split("\n"))


def test_what_calibration_drew_is_on_the_page_with_its_verdict(run: Path) -> None:
    assert f"has not been calibrated. Do so with: tpseg calibrate {shlex.quote(str(run))} --data" in unescape(
        write_report(run).read_text(encoding="utf-8")
    )
    (run / "trust").mkdir()
    for split, names in (("val", ("review", "reliability")), ("test", ("review",))):
        (run / "trust" / f"verdict_{split}.txt").write_text(f"Verdict of {split}.\nAnd <more>.\n")
        for name in names:
            (run / "trust" / f"{name}_{split}.svg").write_text(f"<svg>{name} {split}</svg>")
            (run / "trust" / f"{name}_{split}.txt").write_text(f"Caption of {name}, {split}.")
    page = write_report(run).read_text(encoding="utf-8")
    part = page[page.index('id="calibration"') : page.index('id="settings"')]
    assert "<li>Verdict of test.</li><li>And &lt;more&gt;.</li>" in part.replace("\n", "")
    assert "Caption of review, test." in part
    assert base64.b64encode(b"<svg>review test</svg>").decode() in part
    assert "val" not in part
    (run / "trust" / "review_test.svg").unlink()  # a data set without test images
    part = write_report(run).read_text(encoding="utf-8").split('id="calibration"')[1]
    assert "Caption of review, val." in part
    assert "Caption of reliability, val." in part


def test_distances_are_in_pixels_and_shares_in_percent() -> None:
    entry = {"images": 3, "dice": 0.5, "iou": 0.4, "dice_interval": [0.4, 0.6], "iou_interval": [0.3, 0.5]}
    entry |= {"hd95": 12.34, "assd": None, "sensitivity": 0.875, "precision": None}
    table = score_table("default", {"tasks": {"skin": entry}, "average": entry}, {})
    assert table.headings[4:] == ["HD95 px", "ASSD px", "Sensitivity %", "Precision %"]
    assert table.rows[0][4:] == ["12.3", "–", "87.5", "–"]
