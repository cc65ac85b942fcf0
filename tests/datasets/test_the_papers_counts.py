"""The eight sets, each made with as many images as the paper has: the statistics give the paper's Table 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_releases import write_full_release

from tpseg.cli import main
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.statistics import measure_dataset
from tpseg.datasets import PUBLIC
from tpseg.datasets.prepare import prepare

TABLE_1 = {
    "wet_amd": ("OCT", 2346, 703),
    "brain_tumor": ("MR", 2298, 766),
    "adenocarcinoma": ("pathology", 636, 159),
    "thyroid_nodule": ("ultrasound", 966, 276),
    "colon_polyp": ("endoscopy", 1450, 798),
    "lung_infection": ("CT", 894, 385),
    "breast_lesion": ("ultrasound", 486, 161),
    "skin_lesion": ("dermoscopy", 1886, 808),
}


@pytest.mark.slow
def test_the_eight_tasks_have_table_1_s_counts_under_the_paper_s_protocol_and_reported_ones_under_ours(tmp_path: Path) -> None:
    for name, kind in PUBLIC.items():
        done = prepare(kind(), write_full_release(name, tmp_path / name), tmp_path / "paper", protocol="paper")
        assert str(done.counts).endswith(", as in the paper"), str(done.counts)
    table = measure_dataset(read_dataset(tmp_path / "paper")).table.set_index("task")
    assert {task: (row.modality, row.train, row.val) for task, row in table.iterrows() if task in TABLE_1} == TABLE_1
    assert table.loc["all tasks", ["train", "val", "test"]].tolist() == [10_962, 4056, 0]
    assert (table["read"] == table["total"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ebhi-seg", "busi"])
def test_our_protocol_reports_on_the_same_number_and_cuts_a_tenth_from_training(name: str, tmp_path: Path) -> None:
    path = write_full_release(name, tmp_path / "download")
    assert main(["data", "prepare", name, "--source", str(path), "--out", str(tmp_path / "out")]) == 0
    row = measure_dataset(read_dataset(tmp_path / "out")).table.iloc[0]
    _, train, reported = TABLE_1[row["task"]]
    assert row["test"] == reported
    assert row["train"] + row["val"] == train
    assert row["val"] == pytest.approx(train / 10, abs=3)
