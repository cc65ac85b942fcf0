"""`tpseg export`: the file, the report on its agreement, what hardening and int8 cost, and what it refuses."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from exportable import LIGHT, TRUNK, make_model, noise
from onnx import TensorProto

from tpseg.checkpoints.model_folder import save_model
from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.core.hardware import bf16_is_native
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import read_dataset
from tpseg.data.preprocessing import preprocess
from tpseg.export import exporting as conduct
from tpseg.export.parity import Comparison, Report, Sample, as_function, compare, dice, parity, phantoms, read_samples
from tpseg.export.quantise import quantise
from tpseg.export.traceable import hardened_part
from tpseg.inference.exported import ExportedNetwork
from tpseg.models.trunks.hiera import TRUNK_SIZES


@pytest.fixture(scope="module")
def run(discs, tmp_path_factory):
    """The folder where `tpseg export` of one task has worked, what it printed, and the model."""
    folder = tmp_path_factory.mktemp("verb")
    model = make_model(**LIGHT)
    model.tasks = TaskSet([Task("bright_disc"), Task("dark_disc", "ultrasound"), Task("other")])
    save_model(model, folder / "model")
    words = ["--tasks", "dark_disc", "--out", str(folder / "dark.onnx"), "--data", str(discs), "--int8"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as printed:
        patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
        assert main(["export", str(folder / "model"), *words, "--check-sizes", "64,96", "--check-batches", "2", "--json"]) == 0
    (folder / "said.json").write_text(said.getvalue())  # capsys lives for one test only
    return folder, printed.getvalue(), model


def test_the_verb_writes_a_file_its_int8_version_and_a_report_of_each(run):
    folder, printed, _ = run
    for file, precision in ((folder / "dark.onnx", "float32"), (folder / "dark.int8.onnx", "int8")):
        report = json.loads(file.with_suffix(".json").read_text())
        assert report["precision"] == ExportedNetwork(file).description.precision == precision
        assert [(one["height"], one["batch"]) for one in report["comparisons"]] == [(64, 2), (96, 2)]
        in_16_bit = ["torch_bf16"] if bf16_is_native(torch.device("cpu")) else []
        assert list(report["comparisons"][0]["seconds"]) == ["exported", "torch", *in_16_bit]
        assert set(report["accuracy"]) == {"trained", "hardened", "exported"}
        assert report["images"] == 2  # of split val
        assert f"wrote {file}" in printed
        assert report["same"] == (precision == "float32")  # 8 bit are not 32
    assert report["comparisons"][0]["dice"] > 0.5
    assert "Dice against the truth, mean of 2 images" in printed
    outputs = json.loads((folder / "said.json").read_text())["outputs"]
    assert [(one["file"], one["precision"]) for one in outputs] == [
        (str(folder / "dark.onnx"), "float32"), (str(folder / "dark.int8.onnx"), "int8"),
    ]  # fmt: skip


def test_a_file_of_one_task_needs_no_task_and_equals_pytorch(run):
    folder, _, model = run
    assert [value.name for value in onnx.load(folder / "dark.onnx").graph.input] == ["image"]
    network = ExportedNetwork(folder / "dark.onnx")
    assert network.tasks.names == ["dark_disc"]
    for size in ((64, 64), (33, 100)):
        maps = network(noise(3, 3, *size), torch.zeros(3, dtype=torch.int64), torch.arange(3))
        expected = hardened_part(model)(noise(3, 3, *size), torch.ones(3, dtype=torch.int64)).logits
        torch.testing.assert_close(maps.logits, expected, rtol=0, atol=1e-3)


def test_int8_computes_its_products_in_8_bit(run):
    graph = onnx.load(run[0] / "dark.int8.onnx").graph
    eight = {value.name for value in graph.initializer if value.data_type == TensorProto.INT8}
    kernels = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in eight]
    assert len(kernels) >= 6 * 4  # four linear layers in each of the six blocks


def test_a_file_of_other_weights_is_not_the_same(onnx_file, model):
    assert parity(onnx_file, model, batches=[1]).same
    other = make_model(seed=5)
    report = parity(onnx_file, other, batches=[1])
    assert report.comparisons[0].difference > 1e-3
    assert not report.same


def test_the_dice_of_the_hardened_gate_is_measured_against_the_truth(onnx_file, model):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    network = ExportedNetwork(onnx_file)
    mask = network(preprocess(pixels, 64)[None], torch.tensor([1]), torch.tensor([0])).logits[0, 0].numpy() > 0
    report = parity(onnx_file, model, [Sample(pixels, "breast_lesion", mask)], batches=[1])
    assert report.accuracy["exported"] == 1
    assert report.accuracy["hardened"] > 0.999
    assert report.accuracy["trained"] < report.accuracy["hardened"]  # the soft gate draws another mask
    cells = [list(column.cells) for column in report.tables()[1].columns]
    assert cells[0] == ["as trained", "gate hardened", "exported, float32"]
    assert cells[2][1].startswith("-")  # hardening costs less than nothing, for the truth is the hardened model's own mask


@pytest.mark.parametrize(("difference", "overlap", "same"), [(1e-3, 0.999, True), (1.1e-3, 1.0, False), (0.0, 0.998, False)])
def test_logits_and_masks_both_have_to_agree_at_every_size(difference, overlap, same):
    one = Comparison(64, 64, 1, difference, 9.0, overlap, {})
    assert one.same == same
    assert Report("a.onnx", "float32", "phantoms", [replace(one, difference=0.0, dice=1.0), one], None, 0).same == same


@pytest.mark.parametrize("change", [-0.5, 0.5])
def test_the_difference_of_logits_is_absolute_and_the_largest(change):
    part = hardened_part(make_model(**LIGHT))

    def file(image, task):
        logits = as_function(part)(image, task).clone()
        logits[0, 0, 0, 0] += change
        return logits

    found = compare(file, part, part, phantoms(part.tasks, 2), 64, 2)
    assert found.difference == pytest.approx(0.5)
    assert (found.height, found.width, found.batch) == (64, 64, 2)


def test_phantoms_stand_in_for_pictures_and_are_for_every_task():
    samples = phantoms(TaskSet([Task("a"), Task("b"), Task("c")]))
    assert {sample.task for sample in samples} == {"a", "b", "c"}
    assert all(sample.mask is None and sample.image.dtype == np.uint8 and sample.image.shape[2] == 3 for sample in samples)


def test_samples_are_spread_over_the_cases_of_the_files_tasks(tiny_dataset):
    cases = read_dataset(tiny_dataset).split("train")
    samples = read_samples(cases, TaskSet([Task("breast_lesion")]), 3)
    assert [sample.task for sample in samples] == ["breast_lesion"] * 3
    assert not np.array_equal(samples[0].image, samples[-1].image)
    assert len(read_samples(cases, TaskSet([Task("breast_lesion"), Task("skin_lesion")]), 99)) == 12


def test_dice_by_hand():
    one, other = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert dice(one, other) == 0.5
    assert dice(one & ~one, one & ~one) == 1


def test_int8_is_made_from_images_and_an_onnx_file(onnx_file, torch_file, tmp_path):
    with pytest.raises(UsageError, match="needs calibration images"):
        quantise(onnx_file, tmp_path / "int8.onnx", [], [])
    with pytest.raises(UsageError, match="made from an ONNX file"):
        quantise(torch_file, tmp_path / "int8.onnx", [noise(3, 64, 64)], [0])


def test_the_ranges_of_int8_are_those_of_training_images_which_no_report_is_about(discs, monkeypatch):
    data = read_dataset(discs)
    asked: list[str] = []
    monkeypatch.setattr(conduct, "ExportedNetwork", lambda *arguments, **options: SimpleNamespace(tasks=data.tasks))
    monkeypatch.setattr(conduct, "read_samples", lambda cases, tasks, number: asked.extend(case.split for case in cases) or [])
    with pytest.raises(DataError, match="no case of split 'train'"):
        conduct.quantise_from(Path("model.onnx"), Path("int8.onnx"), data, 4)
    assert set(asked) == {"train"}


@pytest.mark.usefixtures("exportable_trunk")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "torch", "--int8"], "--int8 is made from an ONNX file; found --format torch"),
        (["--int8"], "--int8 takes its ranges from training images: give --data tasks.yaml"),
        (["--check-sizes", "0"], "--check-sizes: found 0; expected numbers of 1 or more"),
        (["--out", "model.bin"], "a file of format onnx ends in .onnx"),
        (["--tasks", "polp"], "did you mean 'polyp'?"),
        (["--format", "onx"], "onx"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    save_model(make_model(**LIGHT), tmp_path / "model")
    assert main(["export", "model", *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
