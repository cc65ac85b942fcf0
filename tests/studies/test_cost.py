"""What models cost: counts against the paper's Table 5 and docs/paper.md, percentages by hand, measurements of a small model."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from miniature import config as miniature
from rich.console import Console

from tpseg.core.config import ModelConfig, load_config
from tpseg.core.errors import UsageError
from tpseg.studies import measuring
from tpseg.studies.cost import macs_by_part, once_for_equals, skeleton, training_macs
from tpseg.studies.measuring import Measurement, Measuring, Pace, size_ladder, time_runs, training_seconds
from tpseg.studies.table5 import (
    NOTABLE,
    PRINTED,
    beside_the_paper,
    cost_table,
    measured_table,
    read_printed,
    table5,
)
from tpseg.studies.table_formats import write_table


@pytest.fixture(scope="module")
def costs() -> dict[str, pd.DataFrame]:
    return {name: cost_table(load_config([name]).model) for name in ("release", "paper")}


def ours(table: pd.DataFrame, module: str, quantity: str = "Parameters") -> float:
    return table.set_index(["module", "quantity"])["ours"][module, quantity]


def shown(renderable: object) -> str:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_release_counts_as_in_docs_paper(costs):
    table = costs["release"]
    assert ours(table, "Full model (1 task)") == 263_921_843
    assert ours(table, "Full model (8 tasks)") == 287_540_480
    assert ours(table, "TCA") == 3_425_760
    assert ours(table, "TCA", "Growth/task") == 3_373_056
    assert ours(table, "Trunk") == 212_149_296
    assert ours(table, "Neck") == 36_324_480
    assert ours(table, "PGTD decoder") == 12_022_307
    assert ours(table, "Full model (1 task)", "Growth/task") == 3_374_091


def test_the_paper_preset_has_a_second_route_and_48_gate_steps_a_task(costs):
    table = costs["paper"]
    assert ours(table, "Full model (8 tasks)") == 290_904_152
    assert ours(table, "TCA") == 3_425_760 + 3_373_056 + 48
    assert ours(table, "TCA", "Growth/task") == 3_373_056 + 48
    assert ours(table, "TCA", "MACs") == 2 * ours(costs["release"], "TCA", "MACs")


def test_multiply_adds_are_those_of_docs_paper(costs):
    assert ours(costs["release"], "Full model (1 task)", "MACs") == pytest.approx(250.0e9, rel=5e-4)
    assert ours(costs["paper"], "Full model (1 task)", "MACs") == pytest.approx(254.7e9, rel=5e-4)


@pytest.mark.parametrize("quantity", ["Parameters", "MACs"])
@pytest.mark.parametrize("preset", ["release", "paper"])
def test_the_parts_add_up_to_the_whole(costs, preset, quantity):
    parts = [ours(costs[preset], part, quantity) for part in ("TCA", "PGTD decoder", "Trunk", "Neck")]
    assert sum(parts) == ours(costs[preset], "Full model (1 task)", quantity)


def test_an_adapter_route_takes_two_products_a_token_worked_by_hand(costs):
    """2·r·C for each token; a block that begins a stage still sees the tokens of the stage before, hence 3, 6, 36, 3 blocks."""
    blocks = [(144, 128, 3), (288, 64, 6), (576, 32, 36), (1152, 16, 3)]
    assert sum(count for *_, count in blocks) == 48
    assert ours(costs["release"], "TCA", "MACs") == sum(2 * 64 * width * side**2 * count for width, side, count in blocks)


def test_percentages_worked_by_hand(costs):
    table = costs["release"].set_index(["module", "quantity"])
    assert table["ours"]["TCA", "Growth %"] == pytest.approx(3_373_056 / 263_921_843)
    assert table["difference"]["Full model (1 task)", "Parameters"] == pytest.approx(-0.003467, abs=1e-6)  # 263.921843 / 264.84 - 1
    assert table["difference"]["Full model (8 tasks)", "MACs"] == pytest.approx(250.034 / 254.23 - 1, abs=1e-5)


def test_an_image_costs_the_same_however_many_tasks_there_are(costs):
    assert ours(costs["paper"], "TCA", "MACs growth/task") == 0
    assert ours(costs["paper"], "Full model (8 tasks)", "MACs") == ours(costs["paper"], "Full model (1 task)", "MACs")


def test_the_papers_figures_are_printed_unchanged(costs):
    assert PRINTED["TCA"] == ("3.37 M", "+3.37 M", "1.27 %", "1.85 G", "0.028 G", "0.01 %")
    table = beside_the_paper(costs)
    printed = [line.cells[0].value for line in table.lines]
    for figures in (
        ("0.46 M", "+0.001 M", "0.17 %"),
        ("12.03 M",),
        ("10.31 G",),
        ("264.84 M",),
        ("254.00 G",),
        ("288.46 M",),
        ("254.23 G",),
    ):
        assert set(figures) <= set(printed)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert {row["preset"] for row in rows} == {"release", "paper"}
    assert float(next(row for row in rows if row["printed"] == "288.46 M")["paper"]) == pytest.approx(288.46e6)


@pytest.mark.parametrize(
    ("text", "number"), [("3.37 M", 3.37e6), ("+0.001 M", 1e3), ("1.27 %", 0.0127), ("10.31 G", 10.31e9), ("~0", 0), ("-", np.nan)]
)
def test_printed_numbers_are_read(text, number):
    assert read_printed(text) == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("preset", ["release", "paper"])
def test_every_notable_difference_is_explained(costs, preset):
    for _, row in costs[preset].iterrows():
        if abs(row["difference"]) > NOTABLE or (row["paper"] == 0 and row["ours"] != 0):
            assert len(row["why"]) > 20, row.to_dict()


def test_with_another_number_of_tasks_there_is_nothing_to_compare_the_total_with():
    table = cost_table(load_config(["release"]).model, tasks=3)
    assert ours(table, "Full model (3 tasks)") == 263_921_843 + 2 * 3_374_091
    assert set(table.loc[table["module"] == "Full model (3 tasks)", "printed"]) == {""}


@pytest.mark.parametrize("change", [{"architecture": "monai_unet"}, {"adapter": "none"}, {"gate": "shared_only"}, {"pgtds": (3, 2)}])
def test_models_that_table_5_has_no_rows_for_are_refused(change):
    with pytest.raises(UsageError, match="model"):
        cost_table(replace(load_config(["small"]).model, **change))


@pytest.mark.usefixtures("miniature_trunk")
def test_a_model_of_another_size_is_not_explained_by_the_papers_numbers():
    table = cost_table(miniature().model, tasks=2)
    assert table["why"][table["why"] != ""].str.startswith("Another model").all()


@pytest.fixture
def rows() -> list[tuple[str, ModelConfig]]:
    full = miniature().model
    return [("full", full), ("no adapters", replace(full, adapter="none")), ("U-Net", replace(full, architecture="monai_unet"))]


@pytest.mark.usefixtures("miniature_trunk")
def test_rows_that_differ_in_what_costs_nothing_are_counted_once():
    full = miniature().model
    counted = []
    configs = {"one": full, "other": replace(full, reinforcement=1.0, modulation=0.0), "more": replace(full, experts=8)}
    assert once_for_equals(configs, lambda config: counted.append(config) or config.experts) == {"one": 6, "other": 6, "more": 8}
    assert counted == [full, configs["more"]]


def test_a_constructor_that_reads_numbers_back_is_counted_too():
    """MONAI's Swin cannot be built without memory."""
    swin = replace(load_config(["small"]).model, architecture="swin_unetr", image_size=64)
    state = torch.get_rng_state()
    model = skeleton(swin, 2)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(macs_by_part(model, 64).values()) > 0
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("miniature_trunk")
def test_a_frozen_trunk_saves_the_gradients_of_its_weights():
    full = miniature().model

    def work(**changes: object) -> tuple[int, int, int]:
        model = skeleton(replace(full, **changes), 2)
        parts = macs_by_part(model, 64)
        return training_macs(model, 64), parts["trunk"], sum(parts.values())

    trained, _, whole = work()
    assert trained == 3 * whole
    frozen, trunk, _ = work(freeze=True)
    assert frozen == 3 * whole - trunk
    blind, trunk, whole = work(freeze=True, adapter="none")
    assert blind == 3 * whole - 2 * trunk
    lora, trunk, whole = work(freeze=True, adapter="lora")
    assert lora == 3 * whole - trunk


def test_a_size_is_left_for_a_larger_one_only_while_the_time_lasts(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    seen: list[int] = []

    def step(size: int) -> None:
        seen.append(size)
        now[0] += size / 64  # 1, 2 and 4 seconds

    macs = [(64, 10), (128, 20), (256, 40)]
    assert time_runs(step, macs, seconds=100, runs=3) == (256, 4.0, 3)
    assert seen == [64, 128, 256, 256, 256, 256]  # the first at a size warms it up
    assert time_runs(step, macs, seconds=4, runs=3) == (128, 2.0, 1)  # 1 + 2, and 4 more would be too long
    assert time_runs(step, macs, seconds=0, runs=3) == (64, 1.0, 1)


def test_sizes_measured_are_multiples_of_the_stride():
    assert size_ladder(512, 32) == [128, 256, 512]
    assert size_ladder(100, 32) == [32, 64, 100]
    assert size_ladder(32, 32) == [32]


def test_time_and_memory_are_measured_in_a_process_of_their_own():
    small = replace(load_config(["small"]).model, image_size=64)
    found = Measuring(small, tasks=2, runs=1, checkpointing=True, device="cpu").finish(600)
    works = [one.work for one in found]
    assert {"prediction", "training step", "training step, recomputing"} == set(works)
    assert all(one.seconds > 0 and one.size == 64 and one.full_seconds == one.seconds and one.runs >= 1 for one in found)
    memory = {(one.work, one.precision): one.memory for one in found}
    weights = 4 * sum(parameter.numel() for parameter in skeleton(small, 2).parameters())
    prediction = memory["prediction", "float32"]
    assert prediction is not None
    assert prediction > 0.9 * weights
    training = next(one.memory for one in found if one.work == "training step")
    assert training is not None
    assert training > prediction + weights


def test_what_there_is_no_time_for_is_left_out_and_said(caplog):
    assert Measuring(replace(load_config(["small"]).model, image_size=64), device="cpu").finish(0.01) == []
    assert "0.01 seconds did not last" in caplog.text
    assert "Not measured" in shown(measured_table([], "small", 64).to_terminal())


def test_a_smaller_size_than_the_models_is_said():
    half = Measurement("prediction", "float32", 256, 2.0, 8.1, 1, 10**9, "cpu", 1, 0.5)
    text = shown(measured_table([half], "release", 512).to_terminal())
    assert "256 px" in text
    assert "about 8.1 s" in text
    assert "1.00 GB" in text


@pytest.mark.usefixtures("miniature_trunk")
def test_training_time_is_estimated_by_multiply_adds(rows):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    pace = training_seconds(dict(rows), "full", device="cpu")
    seconds = pace.per_image
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    macs = {name: training_macs(skeleton(one, 8), one.image_size) for name, one in rows}
    assert seconds["full"] == pytest.approx(pace.seconds / 2)
    assert pace.runs >= 1
    assert seconds["U-Net"] / seconds["full"] == pytest.approx(macs["U-Net"] / macs["full"])


def test_an_estimate_says_what_it_was_measured_on_and_whether_the_processor_was_busy(monkeypatch):
    monkeypatch.setattr(measuring, "processors", lambda: 2)
    busy = Pace({}, 300.0, 2, 512, 1, "cpu", 1, 14.0)
    assert busy.basis() == (
        "300 s a step of 2 images of 512 px on cpu with 1 thread, one step, measured at load 14.0: the processor (2 cores) was busy, on an "
        "idle one it is less."
    )
    idle = replace(busy, seconds=0.25, runs=3, load=0.1).basis()
    assert idle == "0.25 s a step of 2 images of 512 px on cpu with 1 thread, median of 3 steps, measured at load 0.1: idle."
    assert replace(busy, device="cuda", load=None).basis() == "300 s a step of 2 images of 512 px on cuda, one step."


@pytest.mark.usefixtures("miniature_trunk")
def test_table_5_is_written_in_four_formats_beside_what_is_on_screen(tmp_path, costs):
    write_table(tmp_path / "out", beside_the_paper(costs))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["table5.csv", "table5.html", "table5.md", "table5.tex"]
    for path in (tmp_path / "out").iterdir():
        assert "264.84" in path.read_text()
    text = shown(beside_the_paper(costs).to_terminal())
    assert "3,373,056" in text
    assert "−0.35 %" in text


def test_counts_alone_take_no_measuring(tmp_path: Path):
    (part,) = table5(tmp_path, presets=["release"], seconds=0)
    text = shown(part)
    assert "263.92 M" in text
    assert "Measured" not in text
    assert (tmp_path / "table5.md").is_file()
