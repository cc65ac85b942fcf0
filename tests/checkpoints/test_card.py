"""The model card says what is known, says what is not, and leaves to the owner what only the owner knows."""

from __future__ import annotations

import json
from pathlib import Path

from tpseg.checkpoints.card import OWNER, _score, render_card
from tpseg.checkpoints.model_folder import refresh_card, save_model
from tpseg.core.config import ModelConfig
from tpseg.core.tasks import Task, TaskSet

TASKS = TaskSet([Task("polyp", "endoscopy", "Polyp"), Task("nodule", "ultrasound", "a | <b>bold</b>\nlesion")])
PROVENANCE = {
    "date": "2026-01-02",
    "seed": 7,
    "data": {"sha256": "ab" * 32, "cases": {"polyp": {"train": 5, "val": 2, "test": 1}, "nodule": {"train": 6, "val": 0, "test": 3}}},
    "versions": {"tpseg": "9.9"},
    "training": {"epoch": 3, "step": 60, "metrics": {"val/dice/polyp": 0.8125}},
}
TEST = {"default": {"tasks": {"polyp": {"dice": 0.75, "dice_interval": [0.7, 0.8]}}}}


def card(**known: dict) -> str:
    return render_card(ModelConfig(), TASKS, PROVENANCE, **known)


def test_it_has_tasks_with_modality_counts_and_scores():
    lines = card(evaluation=TEST).splitlines()
    assert "| `polyp` | endoscopy | Polyp | 5 / 2 / 1 | 0.812 | 0.750 (0.700 to 0.800) |" in lines
    assert any(line.startswith("| `nodule` |") and line.endswith("| 6 / 0 / 3 | – | – |") for line in lines)  # neither val nor test
    assert "17 images" in card()
    assert "ab" * 32 in card()
    assert "Trained 2026-01-02, seed 7, epoch 3, step 60, with tpseg 9.9." in lines


def test_a_task_without_val_images_is_named_for_it_had_no_say_in_the_epoch():
    assert "No val images of nodule: the epoch was picked by the other tasks alone." in card()
    full = {"sha256": "ab" * 32, "cases": {"polyp": {"train": 5, "val": 2, "test": 1}}}
    assert "No val images" not in render_card(ModelConfig(), TASKS, {**PROVENANCE, "data": full})


def test_a_score_of_a_single_image_has_no_interval():
    assert _score({"dice": 0.75, "dice_interval": [None, None]}) == "0.750"
    assert _score({"dice": 0.75, "dice_interval": [0.7, 0.8]}) == "0.750 (0.700 to 0.800)"


def test_how_far_the_training_went_is_said_as_far_as_it_is_known():
    for training, said in (
        ({"epoch": 3, "step": 60}, "seed 7, epoch 3, step 60, with"),
        ({"epoch": 3}, "seed 7, epoch 3, with"),
        ({}, "seed 7, with"),
    ):
        assert said in render_card(ModelConfig(), TASKS, {**PROVENANCE, "training": training})


def test_a_frozen_trunk_that_lies_elsewhere_is_named_without_its_owner_s_folders():
    elsewhere = render_card(ModelConfig(weights="/home/jane/sam2_hiera_large.pt"), TASKS, PROVENANCE)
    assert "Hiera-large, frozen, sam2_hiera_large.pt" in elsewhere
    assert "the model needs the file sam2_hiera_large.pt" in elsewhere
    assert "jane" not in elsewhere
    assert "is not in this folder" not in card()  # the hub has it
    assert "frozen, facebook/sam2-hiera-large" in card()


def test_what_is_not_known_is_said():
    assert "Test Dice: not measured yet." in card()
    assert "Not calibrated: a high probability is no promise" in card()
    assert card().count(OWNER) == 3  # origin of the data, subgroups, licence
    assert "not a medical device" in card()


def test_calibration_is_stated_where_there_is_one():
    trust = {"provenance": {"date": "2026-02-03", "measured": {"test": {"accuracy": 0.98}}}, "confidence": {"polyp": {}}}
    said = card(trust=trust)
    assert "Calibrated 2026-02-03" in said
    assert "right for 98.0 % of the test images" in said
    assert "Probabilities are calibrated for: polyp." in said
    assert "Not calibrated" not in said


def test_words_of_the_task_list_add_neither_columns_nor_html():
    row = next(line for line in card().splitlines() if line.startswith("| `nodule`"))
    assert "a \\| " in row
    assert row.count(" | ") == 5
    assert "<b>" not in row.replace("\\<b\\>", "")


def test_an_evaluation_fills_in_the_card_of_a_model_folder(tmp_path: Path, miniature_trunk: None):
    from miniature_models import miniature_model

    model = miniature_model()
    save_model(model, tmp_path / "model", PROVENANCE)
    name = model.tasks[0].name
    scores = {"default": {"tasks": {name: {"dice": 0.5, "dice_interval": [0.25, 0.75]}}}}
    (tmp_path / "test.json").write_text(json.dumps(scores))
    refresh_card(tmp_path / "model", tmp_path / "test.json")
    assert "0.500 (0.250 to 0.750)" in (tmp_path / "model" / "README.md").read_text()
