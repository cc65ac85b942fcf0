"""Trunk weights from Meta's files and from Hugging Face, with a clear refusal of anything else."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tpseg.checkpoints.hub import NotFromHub, fetch, is_hub_id
from tpseg.core.errors import DataError
from tpseg.core.untrusted import short
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk

PREFIXES = ("image_encoder.trunk.", "vision_encoder.backbone.", "backbone.", "trunk.", "")
"""Where the trunk's keys lie: Meta's SAM 2 files, Hugging Face's SAM 2 models, parts of either."""
META_NAMES = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
)
"""Meta's key names and transformers'."""


FILES = (".pt", ".pth", ".safetensors")
"""What files of weights end in, and no hub id."""
WEIGHTS = "model.safetensors"
"""The weights in a folder of Hugging Face's, and in a model's."""
VARIABLE = "TPSEG_WEIGHTS"
"""Environment variable that says where the files of frozen trunks lie."""
NO_NAMES = ("", ".", "..")
MAX_HEADER = 8 << 20
"""Bytes of a .safetensors file's list of tensors: Hiera-L with eight tasks takes a fifth of one MiB."""


def load_trunk_weights(trunk: Trunk, source: str) -> None:
    """Load weights into a trunk, in place.

    source: a `.pt` file in Meta's layout, a `.safetensors` file, a Hugging Face folder, or a hub id. Files are read
    as plain tensors, never as code. Raises DataError that names the file, what was found and what was expected.
    """
    path = find_weights(source)
    state = trunk_keys(read_tensors(path), path)
    expected = trunk.own_state()
    found = guess_size(state)
    if found != trunk.size:
        hint = (
            f"holds the '{found}' trunk; set model.trunk to {found}, or give the file of the '{trunk.size}' one"
            if found
            else (f"is no SAM 2 Hiera trunk of a known size; expected the '{trunk.size}' one, {len(expected)} tensors")
        )
        raise DataError(f"{path}: {hint}")
    missing = sorted(expected.keys() - state.keys())
    wrong = sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)
    if missing or wrong:
        raise DataError(
            f"{path}: not a complete '{trunk.size}' trunk: of {len(expected)} tensors {len(missing)} are missing and {len(wrong)} have "
            f"another shape (first: {(missing + wrong)[0]}); download it again"
        )
    with torch.no_grad():
        for key, tensor in expected.items():
            tensor.copy_(state[key])


def find_weights(source: str) -> Path:
    """The file that a path, a folder or a hub id stands for."""
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return _weights_in(path)
    if path.parent.exists() or not is_on_hub(source):
        raise DataError(f"{source}: no such file or folder; expected trunk weights such as sam2_hiera_large.pt (model.weights)")
    return _from_hub(source, "give a file such as sam2_hiera_large.pt (--model.weights FILE), or train without weights (--config small)")


def find_named_weights(folder: Path, name: str) -> Path:
    """The file of the trunk that a model folder names and does not hold.

    Strangers write model folders: of what they name only a file inside the folder is opened, or fetched what the hub has under that id;
    other files the user has to name, in the environment variable TPSEG_WEIGHTS or when loading. Raises DataError that says how.
    """
    base = base_name(name)
    given = os.environ.get(VARIABLE)
    if given:
        named = Path(given) / base
        if base not in NO_NAMES and named.exists():
            return find_weights(str(named))
        if not Path(given).is_dir() or (Path(given) / WEIGHTS).is_file():
            return find_weights(given)
    inside = folder / base
    if base not in (*NO_NAMES, WEIGHTS) and inside.exists() and _lies_in(inside, folder):
        return find_weights(str(inside))
    how = f"say where it lies: --weights FILE (in Python weights=FILE), or, for all commands, {VARIABLE}=FILE or the folder of such files"
    if is_on_hub(name):
        return _from_hub(name, how)
    raise DataError(
        f"{folder}/config.json: the model needs the file of its frozen trunk, which it calls {short(base)}; a model folder may name a file "
        f"inside it or a hub id, no other place. {how[0].upper()}{how[1:]}; or copy it into the model's folder"
    )


def base_name(name: str) -> str:
    """The last part of a path of any system's."""
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1]


def is_on_hub(name: str) -> bool:
    """Whether a name of weights is taken for a hub id and not for a file's."""
    return is_hub_id(name) and Path(name).suffix not in FILES


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether links lead no further than the folder; what the hub's client fetched links to blobs beside its snapshots."""
    top = folder.resolve()
    return path.resolve().is_relative_to(top.parent.parent if top.parent.name == "snapshots" else top)


def _from_hub(name: str, otherwise: str) -> Path:
    try:
        return _weights_in(fetch(name, ["*.json", "*.safetensors"]))
    except NotFromHub as error:
        raise DataError(f"{name}: cannot be had from the Hugging Face hub ({error}). Without a network, {otherwise}") from error


def _weights_in(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{folder}: no model.safetensors in this folder; expected a Hugging Face SAM 2 model")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by key; never runs code from it."""
    try:
        if path.suffix == ".safetensors":
            refuse_long_header(path)
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused, for it holds more than tensors (or is no PyTorch file); expected SAM 2 weights as published"
        ) from error
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the unpickler raise whatever its bytes spell
        raise DataError(
            f"{path}: cannot be read as weights; truncated or of another kind ({' '.join(str(error).split())[:160]})"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise DataError(f"{path}: holds no tensors by name; expected SAM 2 weights, e.g. sam2_hiera_large.pt")
    return tensors


def refuse_long_header(path: Path) -> None:
    """Raise DataError for a .safetensors file whose list of tensors alone would take gigabytes to read."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > MAX_HEADER:
        raise DataError(
            f"{path}: cannot be read as weights; truncated or of another kind (its header claims {size:,} bytes; "
            f"at most {MAX_HEADER:,} are read)"
        )


def trunk_keys(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The trunk's tensors under transformers' names; raises DataError if there are none."""
    for prefix in PREFIXES:
        found = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if "pos_embed_window" in found:
            return {rename(key): value for key, value in found.items()}
    shown = ", ".join(list(tensors)[:3])
    raise DataError(f"{path}: no SAM 2 image encoder in it (keys such as {shown}); expected keys under 'image_encoder.trunk.'")


def rename(key: str) -> str:
    """Meta's key name to transformers'; the latter stays as it is."""
    for pattern, replacement in META_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def guess_size(state: Mapping[str, Tensor]) -> str | None:
    """Which of the four trunks has this width and this number of blocks."""
    if state["pos_embed_window"].ndim != 4:
        return None
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    width = state["pos_embed_window"].shape[1]
    for name, spec in TRUNK_SIZES.items():
        if spec.width == width and sum(spec.blocks) == blocks:
            return name
    return None


def trunk_sha256(trunk: Trunk) -> str:
    """Hash of the trunk's numbers as float32, the same whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(trunk.own_state().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
