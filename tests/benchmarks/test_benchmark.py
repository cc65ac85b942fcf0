"""The benchmark: fair rounds, a process per case, the ratios, the tables, the figure and the JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import plan
from benchmarks.__main__ import bench, check_equality, parser, read_models
from benchmarks.plan import Case
from benchmarks.process import Failure, Found, measure_apart
from benchmarks.rounds import Results, run
from benchmarks.summary import LARGEST_DIFFERENCE, peaks, ratios, trunk_flops
from benchmarks.tables import Grid, by_batch
from tpseg.core.errors import UsageError

HEADLINE = {"one_image_one_task", "one_image_eight_tasks", "mixed_batch", "train_step", "train_memory"}
A, B = Case("loading", "a"), Case("loading", "b")


def found(seconds: Sequence[float] = (1.0,), memory: int = 1000, point: str = "") -> Found:
    return Found({point: list(seconds)}, memory, {}, 1)


def run_all(cases: Sequence[Case], answers: dict[Case, Found | Failure], rounds: int = 1, minutes: float = 1) -> Results:
    return run(cases, answers.__getitem__, lambda line: None, rounds=rounds, minutes=minutes)


def test_cases_take_turns_so_that_noise_hits_all_alike() -> None:
    order = []

    def measure(case: Case) -> Found:
        order.append(case.system)
        return found([len(order)])

    results = run([A, B], measure, lambda line: None, rounds=3, minutes=1)
    assert order == ["a", "b"] * 3
    assert results.of("loading", "b", "").seconds == [2, 4, 6]
    assert results.of("loading", "b", "").median == 4


def test_no_round_begins_that_the_time_does_not_last_for() -> None:
    assert run_all([A], {A: found()}, rounds=5, minutes=0).rounds == 1
    assert run_all([A], {A: found()}, rounds=5).rounds == 5


def test_what_is_done_once_does_not_count_for_the_next_rounds_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, took = [0.0], {A: 20.0, Case("loading", "slow", once=True): 30.0}
    monkeypatch.setattr("benchmarks.rounds.time.monotonic", lambda: clock[0])

    def measure(case: Case) -> Found:
        clock[0] += took[case]
        return found()

    assert run(list(took), measure, lambda line: None, rounds=9, minutes=95 / 60).rounds == 3  # 50, 70, 90; 110 would be too late


def test_what_fails_is_named_and_not_tried_again_and_what_needs_one_round_gets_one() -> None:
    once = Case("loading", "c", once=True)
    calls = []

    def measure(case: Case) -> Found | Failure:
        calls.append(case.system)
        return Failure("no memory") if case == A else found()

    results = run([A, B, once], measure, lambda line: None, rounds=2, minutes=1)
    assert calls == ["a", "b", "c", "b"]
    assert results.failures == {A: "no memory"}


def test_ratios_are_medians_of_ours_over_the_references() -> None:
    eight = str(plan.TASKS)
    answers = {
        Case(plan.ONE, "reference", "large"): found([9, 10, 90]),
        Case(plan.ONE, "tpseg", "large"): found([4]),
        Case(plan.EIGHT, "reference", "large"): found([80]),
        Case(plan.ASKED, "tpseg hardened", "large"): found([20], point=eight),
        Case(plan.MIXED, "reference", "large"): found([40]),
        Case(plan.MIXED, "tpseg", "large"): found([10]),
        Case(plan.TRAIN, "reference", "large"): found([100], 16_000),
        Case(plan.TRAIN, "tpseg", "large"): found([50], 8_000),
        Case(plan.TRAIN, "tpseg", "large", variant="recomputing"): found([60], 4_000),
    }
    assert ratios(run_all(list(answers), answers), "large") == {
        "one_image_one_task": 0.4,
        "one_image_eight_tasks": 0.25,
        "mixed_batch": 0.25,
        "train_step": 0.5,
        "train_step_recomputing": 0.6,
        "train_memory": 0.25,
        "train_memory_plain": 0.5,
    }


def test_the_peak_is_the_best_product_in_gflop_per_second() -> None:
    case = Case(plan.MATRIX, "PyTorch", variant="bf16")
    results = run_all([case], {case: Found({"4000000000": [2.0, 1.0], "9000000000": [3.0]}, None, {}, 1)})
    assert peaks(results) == {"bf16": 4.0}


def test_the_trunks_operations_are_those_measured_for_the_release() -> None:
    """220.3 GMACs with adapters at 512 px, of which one task's adapters are 4.64 (reference/systems.md §2.2)."""
    assert trunk_flops("large", 512) / 2e9 == pytest.approx(220.3 - 4.64, abs=0.1)


def test_the_plan_measures_each_model_and_a_gpu_gets_batch_sizes_and_compiling() -> None:
    models = {"large": 512, "tiny": 256}
    on_cpu, on_gpu = plan.plan(models, accelerator=False), plan.plan(models, accelerator=True)
    assert len(set(on_gpu)) == len(on_gpu)
    assert {case.work for case in on_cpu} == set(plan.WORKS) - {plan.PREDICT_BATCH, plan.TRAIN_BATCH}
    assert {case.work for case in on_gpu} == set(plan.WORKS) - {plan.EXPORT}
    assert {(case.trunk, case.size) for case in on_cpu if case.trunk} == set(models.items())
    assert plan.EXPORT not in {case.work for case in plan.plan(models, accelerator=False, quick=True)}
    emulated = plan.plan(models, accelerator=False, bf16=False)
    assert set(on_cpu) - set(emulated) == {case for case in on_cpu if case.variant == "bf16"} != set()
    assert any(case.variant == "compiled" for case in on_gpu)
    assert not any(case.variant == "compiled" for case in on_cpu)


def test_memory_by_batch_size_goes_into_a_table() -> None:
    case = Case(plan.TRAIN_BATCH, "tpseg", "tiny", 256, batch=8)
    grid = by_batch(run_all([case], {case: found([0.5], 3_000_000_000)}), "tiny", 256)
    assert grid.rows == [("training by batch", "tpseg", "8", "16.0", "3.0")]


def test_a_table_is_valid_markdown() -> None:
    text = Grid("Times", ("what", "seconds"), [("load", "1.5")]).to_markdown()
    assert text == "**Times**\n\n| what | seconds |\n| --- | ---: |\n| load | 1.5 |\n"


def test_a_reference_that_is_another_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_equality({"equality": {"large": {"largest difference": LARGEST_DIFFERENCE}}}) == 0
    for difference in (2 * LARGEST_DIFFERENCE, float("nan")):
        assert check_equality({"equality": {"large": {"largest difference": difference}}}) == 1
        assert "Hiera-large" in capsys.readouterr().err


@pytest.mark.parametrize("models", ["huge:512", "large", "large:500", "large:512,tiny:x"])
def test_a_wrong_model_is_a_usage_error(models: str) -> None:
    with pytest.raises(UsageError, match="--models"):
        read_models(models)


def test_a_misspelt_option_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="--quick"):
        parser().parse_args(["--quik"])


def test_each_case_has_a_process_whose_memory_is_its_own(tmp_path: Path, miniature_trunk: None) -> None:
    small = measure_apart(Case(plan.ONE, "reference", "tiny", 64), "cpu", 0.01, tmp_path)
    large = measure_apart(Case(plan.TRAIN, "reference", "tiny", 128, batch=8), "cpu", 0.01, tmp_path)
    again = measure_apart(Case(plan.ONE, "reference", "tiny", 64), "cpu", 0.01, tmp_path)
    assert isinstance(small, Found)
    assert isinstance(large, Found)
    assert isinstance(again, Found)
    assert small.seconds[""][0] > 0
    assert large.memory > 1.5 * small.memory
    assert again.memory == pytest.approx(small.memory, rel=0.2)


def test_a_process_that_fails_says_why(tmp_path: Path, miniature_trunk: None) -> None:
    too_large = measure_apart(Case(plan.ONE, "tpseg", "tiny", 32 * 10**7), "cpu", 0.01, tmp_path)
    assert isinstance(too_large, Failure)
    assert "memory" in too_large.reason


@pytest.mark.slow
def test_a_quick_benchmark_from_the_command_line_to_the_figure(
    tmp_path: Path, miniature_trunk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy.json"
    arguments = ["--quick", "--models", "tiny:64", "--rounds", "1", "--out", str(out), "--json", str(copy), "--device", "cpu"]
    assert bench(arguments) == 0
    content = json.loads(copy.read_text())
    assert content == json.loads((out / "results.json").read_text())
    assert content["failures"] == []
    assert set(content["ratio"]) >= HEADLINE
    assert all(0 < value < 100 for value in content["ratio"].values())
    assert set(content["peak"]) == {"fp32", *(["bf16"] if content["machine"]["bf16"] else [])}
    assert content["equality"]["tiny"]["largest difference"] <= LARGEST_DIFFERENCE
    assert content["equality"]["tiny"]["spread of the logits"] > 0.01
    assert {(one["work"], one["system"]) for one in content["cases"]} >= {("training step", "SAM2-UNet"), ("model load", "tpseg")}
    assert list(content["tasks"]["tiny"]["parameters_by_tasks_known"]) == ["1", "8", "32"]
    assert {"machine", "versions", "date", "seed", "rounds", "image_size"} <= set(content)
    assert "| training step" in (out / "table.md").read_text()
    assert "training step of four: time" in capsys.readouterr().out
    with Image.open(out / "tasks-tiny.png") as figure:
        assert figure.width > figure.height > 300
    assert (out / "tasks-tiny.svg").read_text().count("tasks asked for") == 1
