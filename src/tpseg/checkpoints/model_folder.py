"""Models on disk: a folder with config.json, model.safetensors, tasks.json, provenance.json, data.csv and README.md (a model card).

data.csv has the hashes of the images and masks the model was trained with; a model that was not trained has none.
A frozen trunk is not stored again: config.json names its source and its SHA-256, which is checked on loading.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tpseg.checkpoints.card import CARD, render_card
from tpseg.checkpoints.hub import NotFromHub, fetch, is_hub_id
from tpseg.checkpoints.trunk_weights import find_named_weights, find_weights, load_trunk_weights, read_tensors, trunk_sha256
from tpseg.core.config import ModelConfig, build_config
from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import file_sha256, read_json_object, replacing_folder, write_atomically
from tpseg.core.tasks import TaskSet
from tpseg.core.untrusted import read_json, short
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create, create_without_memory
from tpseg.models.trunks.hiera import Trunk, is_own

FORMAT = 2
"""Version of the model folder; raised when an older tpseg could not read it."""

RECORD = "data.csv"


def save_model(model: LesionModel, folder: Path, provenance: Mapping[str, Any] | None = None, record: str | None = None) -> None:
    """Write a model folder, whole or not at all: on any error an older folder of that name is still there.

    provenance, and record, the text of data.csv: by default what the model was loaded with.
    """
    provenance = model.provenance if provenance is None else provenance
    record = model.data_record if record is None else record
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    trunk_hash = None
    if model.trunk is not None and holds_only_a_name(model.config, model.trunk):
        trunk_hash = trunk_sha256(model.trunk)
        state = {key: value for key, value in state.items() if not is_trunk(key)}
    config = {"format": FORMAT, "model": asdict(model.config), "trunk_sha256": trunk_hash}
    with replacing_folder(folder, durable=True) as new:
        model.tasks.save(new / "tasks.json")
        (new / "provenance.json").write_text(json.dumps(dict(provenance), indent=2) + "\n")
        if record:
            (new / RECORD).write_text(record, encoding="utf-8")
        (new / CARD).write_text(render_card(model.config, model.tasks, provenance), encoding="utf-8")
        try:
            save_file(state, new / "model.safetensors")
        except SafetensorError as error:  # a full disk, for one
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), f"{folder}/model.safetensors") from error
        config["weights_sha256"] = file_sha256(new / "model.safetensors")
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_model(source: Path | str, *, weights: str | None = None) -> LesionModel:
    """Read a model folder or a hub id, ready for prediction.

    weights: where the file of the frozen trunk lies, if neither in the folder nor on the hub nor where TPSEG_WEIGHTS says. Raises
    UsageError if there is no such model, DataError if it is damaged.
    """
    folder = find_model(source)
    config, trunk_hash = read_model_config(folder)
    tasks = TaskSet.load(folder / "tasks.json")
    state = read_tensors(folder / "model.safetensors")
    refuse_misfit(folder, state, create_without_memory(config, tasks), trunk_hash is not None)
    refuse_damage(folder)
    model = create(config, tasks)
    if trunk_hash is not None and model.trunk is not None:
        place = find_weights(weights) if weights else find_named_weights(folder, config.weights or "")
        load_trunk_weights(model.trunk, str(place))
        if trunk_sha256(model.trunk) != trunk_hash:
            raise DataError(f"{place}: not the trunk this model was trained on ({folder}/config.json has its SHA-256)")
    model.load_state_dict(state, strict=False)
    model.provenance = read_provenance(folder / "provenance.json")
    model.data_record = read_data_record(folder / RECORD)
    return model.eval()


def refuse_misfit(folder: Path, state: Mapping[str, Tensor], sketch: LesionModel, without_trunk: bool) -> None:
    """Raise DataError for weights that are not those of a model like `sketch`, before memory is taken for it.

    What config.json asks for is then no more than what the file of weights holds.
    """
    expected = {key: value.shape for key, value in sketch.state_dict().items() if not (without_trunk and is_trunk(key))}
    place = f"{folder}/model.safetensors"
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())
        raise DataError(f"{place}: does not fit config.json and tasks.json, {len(odd)} tensors differ (first: {odd[0]})")
    for key, shape in expected.items():
        if state[key].shape != shape:
            raise DataError(f"{place}: does not fit config.json ({key} is {tuple(state[key].shape)}; expected {tuple(shape)})")


def refuse_damage(folder: Path) -> None:
    """Raise DataError for weights of which a bit is not as it was written. A model of an older tpseg has no sum to compare with."""
    wanted = read_json_object(folder / "config.json", "not a model configuration written by tpseg").get("weights_sha256")
    if wanted is not None and file_sha256(folder / "model.safetensors") != wanted:
        raise DataError(
            f"{folder}/model.safetensors: damaged: its SHA-256 is not the one in config.json; copy the folder again from where it was whole"
        )


def holds_only_a_name(config: ModelConfig, trunk: Trunk) -> bool:
    """Whether the trunk's numbers are still those of the file that the settings name, so that its name will do in a model's folder.

    What the settings call frozen, not what takes no gradient now: a fine-tuned model that is exported or grown takes none either.
    """
    return config.freeze and config.weights is not None and trunk.frozen


def is_trunk(key: str) -> bool:
    """Whether a tensor of a model is the trunk's own, which a frozen trunk's file holds already."""
    return key.startswith("trunk.") and is_own(key)


def find_model(source: Path | str) -> Path:
    """The model folder that a path, a run folder or a hub id stands for."""
    folder = Path(source)
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    if folder.parent.exists() or not is_hub_id(str(source)):
        raise UsageError(f"{source}: not a model folder (no config.json in it); expected what 'tpseg train' writes to RUN/model")
    try:
        return fetch(str(source))
    except NotFromHub as error:
        raise UsageError(f"{source}: no such folder here, and the Hugging Face hub did not have it ({error})") from error


def read_provenance(path: Path) -> dict[str, Any]:
    """Where a model comes from; raises DataError if the file is damaged."""
    return read_json_object(path, "not a provenance file written by tpseg")


def read_data_record(path: Path) -> str:
    """The text of data.csv, or '' for a model that has none; what it says is read by tpseg.data.hashes."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table of hashes written by tpseg ({error})") from error


def read_model_config(folder: Path) -> tuple[ModelConfig, str | None]:
    """Settings of a model folder and the hash of its frozen trunk, if it has one."""
    path = folder / "config.json"
    try:
        content = read_json(path)
        found, settings, trunk_hash = content["format"], content["model"], content["trunk_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a model configuration written by tpseg ({error})") from error
    if found != FORMAT:
        raise DataError(f"{path}: format {short(found)}; this tpseg reads format {FORMAT}; install a tpseg that fits")
    try:
        return build_config(settings, ModelConfig, str(path)), trunk_hash
    except UsageError as error:  # of a file that a program wrote
        said = str(error)
        raise DataError(said if said.startswith(str(path)) else f"{path}: {said}") from error


def refresh_card(folder: Path, evaluation: Path | None = None) -> None:
    """Write the card of a model folder anew, with the scores of `evaluation`, a test.json, and with its trust.json if there is one.

    Raises DataError for files that tpseg did not write.
    """
    config, _ = read_model_config(folder)
    found = [
        read_json_object(path, "not a file written by tpseg") if path is not None and path.is_file() else None
        for path in (evaluation, folder / "trust.json")
    ]
    tasks, provenance = TaskSet.load(folder / "tasks.json"), read_provenance(folder / "provenance.json")
    try:
        text = render_card(config, tasks, provenance, *found)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    write_atomically(folder / CARD, text)
