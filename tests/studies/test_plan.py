"""Studies, budgets and rows: what they unfold into, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from miniature import write_discs

from tpseg.core.config import Config, ModelConfig, SamplingConfig, TrainingConfig
from tpseg.core.errors import UsageError
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.studies.plan import Cell, Study, budget_names, cells, definition_names, read_budget, read_study


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return read_dataset(write_discs(tmp_path / "data"))


def unfold(name: str, data: DataSet, seeds: tuple[int, ...] = (42,), budget: str = "small") -> list[Cell]:
    return cells(read_study(name), read_budget(budget), data, data.sha256(), seeds)


def study_file(path: Path, **content: object) -> str:
    path.write_text(yaml.safe_dump({"rows": {"full": {}}, **content}))
    return str(path)


def test_the_papers_tables_and_figures_are_all_there() -> None:
    assert {"table2", "table3", "table4", "fig5", "fig6", "fig7", "fig8", "choices", "learned", "gate_cost"} == set(definition_names())
    assert {"tiny", "small", "medium", "full", "paper"} == set(budget_names())
    assert [row.id for row in read_study("table3").rows] == [
        *["A1", "A2", "A3", "A4", "A5", "B1", "B2", "B3", "B4", "C1", "C2", "C3", "C4", "C5", "C6"]
    ]
    table2 = read_study("table2").rows
    assert Counter(row.separate for row in table2) == {True: 8, False: 8}
    assert Counter(row.settings.get("model", {}).get("architecture", "tpseg") for row in table2).keys() == {
        "monai_unet", "unetplusplus", "attention_unet", "segresnet", "swin_unetr", "transunet", "sam2_unet", "tpseg",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "budget"), [*((name, "small") for name in definition_names()), *(("fig8", one) for one in budget_names())]
)
def test_every_study_unfolds_under_every_budget(name: str, budget: str, data: DataSet) -> None:
    found = unfold(name, data, (42, 43), budget)
    assert {cell.seed for cell in found} == {42, 43}
    assert all(cell.config.training.seed == cell.seed for cell in found)


def test_the_rows_of_table_3_are_what_they_say(data: DataSet) -> None:
    models = {cell.row: cell.config.model for cell in unfold("table3", data)}
    full = models["A4"]
    assert (full.adapter, full.gate, full.pgtds) == ("tca", "cumulative_sigmoid", (3, 2, 1))
    assert (full.reinforcement, full.modulation, full.experts) == (5.0, 0.5, 6)
    assert (models["A1"].adapter, models["A1"].pgtds) == ("none", ())
    assert (models["A2"].adapter, models["A2"].pgtds) == ("none", (3, 2, 1))
    assert (models["A3"].adapter, models["A3"].pgtds) == ("tca", ())
    assert models["A5"] == models["C6"] == full
    assert (models["B1"].adapter, models["B2"].adapter) == ("lora", "plain")
    assert (models["B3"].gate, models["B4"].gate) == ("shared_only", "none")
    grid = {row: (model.reinforcement, model.modulation, model.experts) for row, model in models.items() if row.startswith("C")}
    assert grid == {
        "C1": (2.5, 0.5, 6), "C2": (10.0, 0.5, 6), "C3": (5.0, 0.6, 8), "C4": (5.0, 0.5, 4), "C5": (5.0, 0.5, 8), "C6": (5.0, 0.5, 6),
    }  # fmt: skip


def test_table_4_takes_one_pgtd_away_at_a_time(data: DataSet) -> None:
    found = {cell.row: cell.config.model.pgtds for cell in unfold("table4", data)}
    assert found == {"no-pgtd": (), "no-pgtd1": (3, 2), "no-pgtd2": (3, 1), "no-pgtd3": (2, 1), "full": (3, 2, 1)}


def test_the_same_model_has_the_same_key_in_every_study_and_another_seed_another(data: DataSet) -> None:
    by_row = {cell.row: cell.key for cell in unfold("table3", data)}
    assert by_row["A4"] == by_row["C6"] == {cell.row: cell.key for cell in unfold("table4", data)}["full"]
    assert len(set(by_row.values())) == len(by_row) - 1
    assert by_row["A4"] not in {cell.key for cell in unfold("table3", data, (43,))}


def test_the_key_of_a_model_trained_before_a_setting_existed_stays(data: DataSet) -> None:
    """Row A4, seed 42, of the study in docs/results.md: eight tasks of real images, 160 steps of 16 at 128 px."""
    model = ModelConfig(
        trunk="tiny", weights=None, freeze=False, image_size=128, rank=32, neck_widths=(32, 64, 128, 256), decoder_widths=(128, 64, 64)
    )
    sampling = SamplingConfig(augmentation="flip", epoch_images=640, workers=0)
    tasks = ("wet_amd", "brain_tumor", "adenocarcinoma", "thyroid_nodule", "colon_polyp", "lung_infection", "breast_lesion", "skin_lesion")
    sha256 = "ad67e12888ed4f466d89d8fcf6e4af23f6abbe3d943a3f6f0abb6a3cdb37bcb3"

    def key(**changes: float) -> str:
        training = TrainingConfig(batch_size=16, weight_decay=0.05, epochs=4, **changes)  # type: ignore[arg-type]
        return Cell("A4", 42, tasks, Config(model, sampling, training), sha256).key

    assert key() == key(gate_cost=0.0) == "8994fa87b5"
    assert key(gate_cost=0.1) != key()


def test_other_images_give_another_key(data: DataSet) -> None:
    before = unfold("table4", data)[0].key
    image = data.cases[0].image
    image.write_bytes(image.read_bytes() + b" ")
    assert unfold("table4", data)[0].key != before


def test_models_for_one_task_share_the_steps_out(data: DataSet) -> None:
    """160 steps for all in 4 validations of 40; for two separate models 80 each, 4 of 20."""
    found = [cell for cell in unfold("table3", data) if cell.row in ("A4", "A5")]
    assert [(cell.tasks, cell.steps()) for cell in found] == [
        (("bright_disc", "dark_disc"), 160),
        (("bright_disc",), 80),
        (("dark_disc",), 80),
    ]
    assert {cell.config.training.epochs for cell in found} == {4}


def test_a_budget_of_epochs_counts_the_training_images(data: DataSet) -> None:
    """12 training images in batches of 16 are one step an epoch: 40 steps in 20 validations."""
    assert unfold("table4", data, budget="medium")[0].steps() == 40


def test_a_users_own_study_is_a_few_lines(tmp_path: Path, data: DataSet) -> None:
    rows = {"base": {"config": "baseline"}, "wide": {"name": "rank 128", "model": {"rank": 128}, "training": {"learning_rate": 1e-3}}}
    study = read_study(study_file(tmp_path / "mine.yaml", rows=rows, reference="wide"))
    assert (study.name, study.title, study.reference, study.layout) == ("mine", "mine", "wide", "tasks")
    base, wide = cells(study, read_budget("small"), data, data.sha256(), [1])
    assert (base.config.model.pgtds, base.config.training.learning_rate) == ((), 5e-4)
    assert (wide.config.model.rank, wide.config.training.learning_rate, wide.config.model.image_size) == (128, 1e-3, 128)


def test_only_keeps_the_reference() -> None:
    study: Study = read_study("table3").only(["B2", "A1"])
    assert [row.id for row in study.rows] == ["A1", "A4", "B2"]
    with pytest.raises(UsageError, match=r"no row 'B9'; did you mean 'B"):
        read_study("table3").only(["B9"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rows": {}}, "expected 'rows:'"),
        ({"rowz": {}}, "unknown key 'rowz'; did you mean 'rows'"),
        ({"rows": {"a": {"modle": {}}}}, r"unknown key 'rows\.a\.modle'; did you mean 'model'"),
        ({"rows": {"a": {"model": {"rnak": 3}}}}, r"unknown key 'rows\.a\.model\.rnak'; did you mean 'rank'"),
        ({"rows": {"a": {"config": "smal"}}}, "no preset or file 'smal'; did you mean 'small'"),
        ({"rows": {"a": {"model": {"architecture": "monai_unit"}}}}, "did you mean 'monai_unet'"),
        ({"reference": "ful"}, "reference: no row 'ful'; did you mean 'full'"),
        ({"layout": "wide"}, "layout: found 'wide', expected tasks or averages"),
        ({"figures": ["fig9"]}, "figures: unknown 'fig9'"),
        ({"figures": 5}, "figures: found 5, expected a list"),
    ],
)
def test_a_wrong_study_file_is_refused_by_its_key(content: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_study(study_file(tmp_path / "mine.yaml", **content))


def test_a_wrong_type_names_the_row(tmp_path: Path, data: DataSet) -> None:
    study = read_study(study_file(tmp_path / "mine.yaml", rows={"a": {"model": {"rank": "many"}}}))
    with pytest.raises(UsageError, match=r"study mine, row a.*rank"):
        cells(study, read_budget("small"), data, data.sha256(), [1])


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="no study or file 'tabel3'; did you mean 'table3'"):
        read_study("tabel3")
    with pytest.raises(UsageError, match="no budget or file 'smal'; did you mean 'small'"):
        read_budget("smal")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "either 'steps' or 'epochs', found neither"),
        ({"steps": 1, "epochs": 1}, "found both"),
        ({"steps": 0}, "steps: found 0"),
        ({"steps": 1, "config": "a" * 5000}, "no preset or file 'aaaa"),
        ({"steps": 5, "sampling": {"balanse": True}}, "did you mean 'balance'"),
    ],
)
def test_a_wrong_budget_is_refused_by_its_key(content: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message):
        read_budget(str(tmp_path / "mine.yaml"))
