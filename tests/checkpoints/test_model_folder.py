"""A model on disk: whole or not at all, the frozen trunk named and checked instead of stored, every damage a clear sentence."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from miniature_models import TASKS, TRUNK, miniature_model, noise, perturb, predict, save_meta_file
from safetensors.torch import load_file, save_file

import tpseg.checkpoints.model_folder as checkpoint
import tpseg.checkpoints.trunk_weights as trunk_weights
from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.models.task_ownership import extract
from tpseg.models.tpseg.network import TPSeg
from tpseg.models.trunks.hiera import Trunk

pytestmark = pytest.mark.usefixtures("miniature_trunk")

FILES = {"README.md", "config.json", "model.safetensors", "provenance.json", "tasks.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def trunk_file(folder: Path, seed: int = 0, name: str = "sam2_hiera_tiny.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    return save_meta_file(perturb(Trunk("tiny"), seed), folder / name)


def frozen_model(weights: Path, seed: int = 0) -> TPSeg:
    """A model as training leaves it, on a trunk that was loaded and frozen."""
    model = miniature_model(seed, weights=str(weights), freeze=True)
    load_trunk_weights(model.trunk, str(weights))
    return model


def assert_same_outputs(one: TPSeg, two: TPSeg) -> None:
    image = noise(2, 3, 64, 64)
    assert torch.equal(predict(one, image, [0, 2]).logits, predict(two, image, [0, 2]).logits)


def refusal(source: Path | str, kind: type[TPSegError] = DataError, **options: str) -> str:
    with pytest.raises(kind) as caught:
        load_model(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# what is written


def test_a_model_is_a_folder_of_five_files(tmp_path: Path) -> None:
    save_model(miniature_model(), tmp_path / "runs" / "model", {"seed": 7, "date": "2026-01-02", "training": {"metrics": {}}})
    assert set(os.listdir(tmp_path / "runs")) == {"model"}
    assert set(os.listdir(tmp_path / "runs" / "model")) == FILES
    assert json.loads((tmp_path / "runs" / "model" / "provenance.json").read_text())["seed"] == 7
    assert (tmp_path / "runs" / "model").stat().st_mode & 0o777 == 0o755


def test_the_record_of_the_training_data_travels_with_the_model(tmp_path: Path) -> None:
    record = "task,split,image_sha256,mask_sha256\npolyp,train,aa,bb\n"
    save_model(miniature_model(), tmp_path / "model", {}, record)
    assert (tmp_path / "model" / "data.csv").read_text() == record
    loaded = load_model(tmp_path / "model")
    save_model(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "data.csv").read_text() == record
    (tmp_path / "model" / "data.csv").write_bytes(b"\xff\xfe")
    assert "data.csv" in refusal(tmp_path / "model")


def test_the_card_names_tasks_and_their_val_dice_and_says_what_it_is_not(tmp_path: Path) -> None:
    save_model(miniature_model(), tmp_path / "model", {"training": {"metrics": {"val/dice/polyp": 0.8125}}})
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    for task in TASKS:
        assert f"`{task.name}` | {task.modality}" in card
    assert "0.812" in card
    assert "not a medical device" in card


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    save_model(miniature_model(0), tmp_path / "model")
    (tmp_path / "model" / "stray.txt").write_text("old")
    second = miniature_model(1)
    save_model(second, tmp_path / "model")
    assert set(os.listdir(tmp_path / "model")) == FILES
    assert os.listdir(tmp_path) == ["model"]
    assert_same_outputs(load_model(tmp_path / "model"), second)


def test_hardened_gate_temperature_and_prototypes_survive(tmp_path: Path) -> None:
    model = miniature_model()
    model.observe(model(noise(1, 3, 64, 64), torch.tensor([1])), (noise(1, 1, 64, 64) > 0).float(), torch.tensor([1]))
    model.move_prototypes()
    model.set_gate_temperature(0.3)
    model.harden()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.config.hardened
    assert loaded.adapters is not None
    assert loaded.adapters.hardened
    assert loaded.adapters.gate is not None
    assert loaded.adapters.gate.temperature == torch.tensor(0.3)
    assert loaded.splits() == model.splits()
    assert all(torch.equal(value, loaded.prototypes()[name]) for name, value in model.prototypes().items())
    assert_same_outputs(loaded, model)


# the frozen trunk


def test_a_frozen_trunk_is_not_stored_but_named_with_its_hash(tmp_path: Path) -> None:
    model = frozen_model(trunk_file(tmp_path))
    save_model(model, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert not [key for key in stored if key.startswith("trunk.")]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert len(config["trunk_sha256"]) == 64
    assert config["model"]["weights"] == str(tmp_path / "sam2_hiera_tiny.pt")
    whole = miniature_model()
    save_model(whole, tmp_path / "whole")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    trunk_bytes = 4 * sum(parameter.numel() for parameter in whole.trunk.parameters())
    assert size < (tmp_path / "whole" / "model.safetensors").stat().st_size - trunk_bytes
    loaded = load_model(tmp_path / "model", weights=str(tmp_path / "sam2_hiera_tiny.pt"))
    assert loaded.trunk.frozen
    assert_same_outputs(loaded, model)


def test_a_trained_trunk_is_stored(tmp_path: Path) -> None:
    model = miniature_model(weights=str(trunk_file(tmp_path)), freeze=False)
    save_model(model, tmp_path / "model")
    (tmp_path / "sam2_hiera_tiny.pt").unlink()
    assert_same_outputs(load_model(tmp_path / "model"), model)


def test_a_trained_trunk_is_stored_also_when_nothing_takes_a_gradient_any_more(tmp_path: Path) -> None:
    """A fine-tuned model that names the weights it began with, hardened and cut as for an export: its trunk is not that file's."""
    model = miniature_model(weights=str(trunk_file(tmp_path, seed=5)), freeze=False)
    model.harden()
    part = extract(model, model.tasks.names).requires_grad_(False)
    assert part.trunk.frozen
    save_model(part, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert_same_outputs(loaded, model)
    save_model(loaded, tmp_path / "again")
    assert_same_outputs(load_model(tmp_path / "again"), model)


def test_a_frozen_trunk_that_was_trained_all_the_same_is_stored(tmp_path: Path) -> None:
    model = frozen_model(trunk_file(tmp_path))
    model.trunk.requires_grad_(True)
    perturb(model.trunk)
    save_model(model, tmp_path / "model")
    assert_same_outputs(load_model(tmp_path / "model"), model)


def test_another_trunk_file_is_refused(tmp_path: Path) -> None:
    weights = trunk_file(tmp_path)
    save_model(frozen_model(weights), tmp_path / "model")
    trunk_file(tmp_path, seed=5)  # written over it
    message = refusal(tmp_path / "model", weights=str(weights))
    assert message.startswith(str(weights))
    assert "not the trunk this model was trained on" in message


def test_a_trunk_that_has_moved_is_found_with_weights(tmp_path: Path) -> None:
    weights = trunk_file(tmp_path)
    model = frozen_model(weights)
    save_model(model, tmp_path / "model")
    weights.rename(tmp_path / "moved.pt")
    assert_same_outputs(load_model(tmp_path / "model", weights=str(tmp_path / "moved.pt")), model)
    other = trunk_file(tmp_path, seed=5, name="other.pt")
    assert str(other) in refusal(tmp_path / "model", weights=str(other))


def test_no_file_is_opened_that_a_model_folder_names_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers write such folders. Not even the file it was trained on, which lies where it says: a user names files."""
    weights = trunk_file(tmp_path)
    save_model(frozen_model(weights), tmp_path / "run" / "model")
    opened: list[object] = []
    monkeypatch.setattr(trunk_weights, "read_tensors", opened.append)
    message = refusal(tmp_path / "run")
    assert message.startswith(f"{tmp_path}/run/model/config.json: the model needs the file of its frozen trunk, which it calls ")
    assert "--weights FILE" in message
    assert "TPSEG_WEIGHTS=FILE or the folder of such files" in message
    assert "or copy it into the model's folder" in message
    assert opened == []


@pytest.mark.parametrize("named", ["../secret.pt", "/dev/zero", "..", "", ".", "link.pt", r"C:\secret.pt", "model.safetensors"])
def test_nothing_outside_is_opened_by_any_name(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trunk_file(tmp_path, name="secret.pt")
    folder = tmp_path / "model"
    save_model(frozen_model(weights), folder)
    rewrite("config.json", lambda content: content["model"].update(weights=named))(folder)
    (folder / "link.pt").symlink_to("../secret.pt")
    monkeypatch.chdir(tmp_path)
    assert "needs the file of its frozen trunk" in refusal(folder)


@pytest.mark.parametrize("named", ["file", "folder", "beside"])
def test_a_trunk_elsewhere_is_named_once_for_all_or_lies_in_the_folder(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trunk_file(tmp_path / "run")
    model = frozen_model(weights)
    save_model(model, tmp_path / "model")
    if named == "beside":
        weights.rename(tmp_path / "model" / weights.name)
    else:
        (tmp_path / "trunks").mkdir()
        place = weights.rename(tmp_path / "trunks" / weights.name)
        trunk_file(tmp_path / "trunks", seed=5, name="another.pt")
        monkeypatch.setenv("TPSEG_WEIGHTS", str(place if named == "file" else place.parent))
    assert_same_outputs(load_model(tmp_path / "model"), model)


def test_what_tpseg_weights_does_not_have_may_still_lie_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trunk_file(tmp_path / "run")
    model = frozen_model(weights)
    save_model(model, tmp_path / "model")
    weights.rename(tmp_path / "model" / weights.name)
    monkeypatch.setenv("TPSEG_WEIGHTS", str(tmp_path / "run"))
    assert_same_outputs(load_model(tmp_path / "model"), model)
    monkeypatch.setenv("TPSEG_WEIGHTS", str(tmp_path / "nowhere"))
    assert f"{tmp_path}/nowhere: no such file or folder" in refusal(tmp_path / "model")


def test_a_hub_id_in_a_model_folder_is_asked_of_the_hub_and_never_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder here that happens to be called like it is none that anybody named."""
    model = frozen_model(trunk_file(tmp_path))
    save_model(model, tmp_path / "model")
    rewrite("config.json", lambda content: content["model"].update(weights="facebook/sam2-hiera-tiny"))(tmp_path / "model")
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    save_file(
        {f"vision_encoder.backbone.{key}": value for key, value in model.trunk.hiera.state_dict().items()}, fetched / "model.safetensors"
    )
    trunk_file(tmp_path / "facebook" / "sam2-hiera-tiny", seed=5, name="model.safetensors")
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(trunk_weights, "fetch", lambda name, patterns: (asked.append(name), fetched)[1])
    assert_same_outputs(load_model(tmp_path / "model"), model)
    assert asked == ["facebook/sam2-hiera-tiny"]


def test_the_trunk_may_come_in_another_layout(tmp_path: Path) -> None:
    """The hash is of the numbers: Meta's .pt in training, Hugging Face's .safetensors here."""
    model = frozen_model(trunk_file(tmp_path))
    save_model(model, tmp_path / "model")
    state = {f"vision_encoder.backbone.{key}": value for key, value in model.trunk.hiera.state_dict().items()}
    (tmp_path / "hf").mkdir()
    save_file(state, tmp_path / "hf" / "model.safetensors")
    assert_same_outputs(load_model(tmp_path / "model", weights=str(tmp_path / "hf")), model)


# writing that fails


def full_disk_after_the_first_bytes(state: object, path: Path) -> None:
    path.write_bytes(b"half a mod")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_leaves_the_older_folder_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(miniature_model(0), tmp_path / "model")
    before = contents(tmp_path / "model")
    monkeypatch.setattr(checkpoint, "save_file", full_disk_after_the_first_bytes)
    with pytest.raises(OSError, match="No space left"):
        save_model(miniature_model(1), tmp_path / "model")
    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_disk_on_the_first_save_leaves_no_folder_that_looks_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save_file", full_disk_after_the_first_bytes)
    with pytest.raises(OSError, match="No space left"):
        save_model(miniature_model(), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_limit_on_file_size_leaves_the_older_folder(tmp_path: Path) -> None:
    """The system itself refuses to write past 100 kB, a fifth of the weights."""
    save_model(miniature_model(0), tmp_path / "model")
    before, second = contents(tmp_path / "model"), miniature_model(1)
    assert len(before["model.safetensors"]) > 500_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(Exception, match="File too large"):
            save_model(second, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_in_the_very_last_step_leaves_the_older_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folder is moved away, then the new one cannot take its place: the old one has to come back."""
    save_model(miniature_model(0), tmp_path / "model")
    before, rename = contents(tmp_path / "model"), os.rename
    failures = [True]

    def fail_once(source: str | Path, target: str | Path) -> None:
        if Path(target) == tmp_path / "model" and failures:
            failures.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="Input/output error"):
        save_model(miniature_model(1), tmp_path / "model")
    assert not failures
    assert (tmp_path / "model").is_dir()
    assert contents(tmp_path / "model") == before


# folders that are no models


def test_a_run_folder_stands_for_its_model(tmp_path: Path) -> None:
    model = miniature_model()
    save_model(model, tmp_path / "run" / "model")
    assert_same_outputs(load_model(str(tmp_path / "run")), model)


@pytest.mark.parametrize("name", ["nowhere", "no/such/model", "a b", ""])
def test_what_is_no_model_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "not a model folder" in refusal(name, UsageError)


def test_an_empty_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path, UsageError)
    (tmp_path / "model.pt").write_text("x")
    assert "model.pt: not a model folder" in refusal(tmp_path / "model.pt", UsageError)


def test_a_hub_id_without_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refusal("somebody/tpseg-skin", UsageError)
    assert message.startswith("somebody/tpseg-skin")
    assert "hub" in message


def test_a_hub_repository_that_is_no_tpseg_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 768}')
    monkeypatch.setattr(checkpoint, "fetch", lambda source: tmp_path)
    assert "not a model configuration written by tpseg" in refusal("somebody/bert")


def rewrite(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


def truncate(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def no_tasks(content: dict) -> None:
    content["tasks"].pop()


def misspell(content: dict) -> None:
    content["model"]["gaet"] = content["model"].pop("gate")


def flip_the_last_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "config truncated": (truncate("config.json"), r"config\.json: not a model configuration"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: not a model configuration"),
    "config empty": (lambda folder: (folder / "config.json").write_text("{}"), r"config\.json: not a model configuration"),
    "config binary": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), r"config\.json: not a model configuration"),
    "another format": (rewrite("config.json", lambda c: c.update(format=1)), r"config\.json: format 1; this tpseg reads format 2"),
    "unknown key": (rewrite("config.json", misspell), r"config\.json: unknown key 'gaet'; did you mean 'gate'\?"),
    "wrong value": (rewrite("config.json", lambda c: c["model"].update(gate="maybe")), r"config\.json: .*gate"),
    "images of gigabytes": (
        rewrite("config.json", lambda c: c["model"].update(image_size=16_384)),
        r"config\.json: model\.image_size: found 16384, expected 32 to 2048",
    ),
    "settings a number": (rewrite("config.json", lambda c: c.update(model=3)), r"config\.json: .*found 3"),
    "other rank": (rewrite("config.json", lambda c: c["model"].update(rank=8)), r"model\.safetensors: does not fit config\.json"),
    "other decoder": (
        rewrite("config.json", lambda c: c["model"].update(pgtds=[])),
        r"model\.safetensors: does not fit config\.json",
    ),
    "task missing": (rewrite("tasks.json", no_tasks), r"model\.safetensors: does not fit config\.json and tasks\.json"),
    "tasks truncated": (truncate("tasks.json"), r"tasks\.json: not a task list"),
    "no tasks file": (lambda folder: (folder / "tasks.json").unlink(), r"tasks\.json: not a task list.*No such file"),
    "weights truncated": (truncate("model.safetensors"), r"model\.safetensors: cannot be read as weights; truncated"),
    "a bit of the weights": (flip_the_last_bit, r"model\.safetensors: damaged: its SHA-256 is not the one in config\.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: .*No such file"),
    "weights are text": (
        lambda folder: (folder / "model.safetensors").write_text("weights"),
        r"model\.safetensors: cannot be read as weights",
    ),
    "tensor missing": (
        edit_tensors(lambda s: s.pop("neck.stages.0.join.0.weight")),
        r"1 tensors? differ.*neck\.stages\.0\.join\.0\.weight",
    ),
    "tensor too many": (edit_tensors(lambda s: s.update(extra=torch.ones(1))), r"1 tensors? differ.*extra"),
    "tensor of other shape": (
        edit_tensors(lambda s: s.update({"neck.stages.0.join.0.weight": torch.ones(2, 2)})),
        r"model\.safetensors: does not fit config\.json .*neck\.stages\.0\.join\.0\.weight",
    ),
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tpseg.models.trunks.hiera import TRUNK_SIZES

    folder = tmp_path_factory.mktemp("healthy") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
        save_model(miniature_model(), folder)
    return folder


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_refused_in_one_sentence(damage: Callable[[Path], None], sentence: str, healthy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in contents(healthy).items():
        (folder / name).write_bytes(content)
    damage(folder)
    with pytest.raises(TPSegError, match=sentence) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
