"""`tpseg reproduce`: a run says enough of itself to be repeated, and the repetition is compared bit by bit."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from miniature import train_miniature, write_discs
from PIL import Image
from safetensors.torch import load_file, save_file

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.training.reproduce import compare_metrics, compare_weights, reproduce

pytestmark = pytest.mark.usefixtures("miniature_trunk")


@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None) -> Path:
    return train_miniature(discs, tmp_path_factory.mktemp("run") / "run", steps=2)


def change(path: Path, *keys: str, to: object) -> None:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(content))


def test_a_run_is_repeated_from_what_it_says_of_itself_to_the_same_bits(run, tmp_path, capsys):
    assert main(["reproduce", str(run), "--out", str(tmp_path / "again")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "reproduced: all" in said
    assert "tensors are the same, bit for bit, and so are the metrics" in said
    assert (tmp_path / "again" / "model" / "model.safetensors").read_bytes() == (run / "model" / "model.safetensors").read_bytes()


def test_a_model_folder_and_the_data_are_enough(run, discs, tmp_path):
    shutil.copytree(run / "model", tmp_path / "alone")
    with pytest.raises(UsageError, match="give --data"):
        reproduce(tmp_path / "alone", bar=False)
    found = reproduce(tmp_path / "alone", discs, tmp_path / "again", bar=False)
    assert found.same
    assert found.circumstances == {}


def test_another_weight_is_found_and_ends_with_exit_code_1(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    state = load_file(weights)
    name = next(iter(state))
    state[name].view(-1)[0] += 0.25
    save_file(state, weights)
    assert main(["reproduce", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"1 of {len(state)} tensors differ, by up to 0.25" in said
    assert (tmp_path / "run-again" / "model").is_dir()


def test_other_data_are_refused_before_training_with_how_many_cases_differ(run, tmp_path):
    data = write_discs(tmp_path / "data")
    Image.new("RGB", (64, 48)).save(tmp_path / "data" / "dark_disc" / "03.png")
    with pytest.raises(DataError, match="1 of its cases are not there as they were, 1 others are"):
        reproduce(run, data, tmp_path / "again", bar=False)
    assert not (tmp_path / "again").exists()


def test_other_versions_are_listed_and_the_run_is_repeated_all_the_same(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    change(tmp_path / "run" / "model" / "provenance.json", "versions", "torch", to="1.0")
    found = reproduce(tmp_path / "run", bar=False)
    assert found.circumstances == {"torch": ("1.0", version("torch"))}
    assert found.same


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("run",), {}, "does not say how the run was conducted"),
        (("run",), {"settings": {}, "devices": 1, "nodes": 1}, "does not say how the run was conducted"),
        (("machine",), {}, "does not say how the run was conducted"),
        (("machine", "threads"), -3, "does not say how the run was conducted .threads: -3"),
        (("versions",), "new", "does not say how the run was conducted"),
        (("data",), [], "does not say how the run was conducted"),
        (("run", "from_model"), True, "was grown from another model"),
    ],
)
def test_what_cannot_be_repeated_is_refused(run, tmp_path, keys, value, message):
    shutil.copytree(run, tmp_path / "run")
    change(tmp_path / "run" / "model" / "provenance.json", *keys, to=value)
    with pytest.raises(UsageError, match=message):
        reproduce(tmp_path / "run", bar=False)


def test_weights_are_compared_by_their_bits():
    one = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([float("nan")])}
    assert compare_weights(one, {"a": torch.tensor([0.0, 1.5]), "b": torch.tensor([float("nan")])}) == {"a": 0.5}
    assert compare_weights(one, {"a": torch.tensor([-0.0, 1.0]), "b": torch.tensor([1])}) == {"a": 0.0, "b": float("inf")}


def test_metrics_are_compared_by_column(tmp_path):
    (tmp_path / "one.csv").write_text("epoch,val/dice\n1,0.5\n2,0.6\n")
    (tmp_path / "other.csv").write_text("epoch,val/dice\n1,0.5\n2,0.7\n")
    assert compare_metrics(tmp_path / "one.csv", tmp_path / "other.csv") == {"val/dice": pytest.approx(0.1)}
