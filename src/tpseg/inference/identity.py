"""What files call a model: the hash of its weights."""

from __future__ import annotations

from pathlib import Path

from tpseg.checkpoints.model_folder import find_model
from tpseg.core.errors import DataError
from tpseg.core.files import file_sha256
from tpseg.imaging.writing.identity import ModelIdentity


def identify(source: Path | str) -> ModelIdentity:
    """The identity of a model folder, a run folder, a hub id or an exported file; reads the weights once, to hash them."""
    path = Path(source)
    if not path.is_file():
        path = find_model(source) / "model.safetensors"
    elif path.suffix == ".xml":
        path = path.with_suffix(".bin")  # OpenVINO keeps the weights beside the network
    try:
        return ModelIdentity(file_sha256(path))
    except OSError as error:
        raise DataError(f"{path}: the model's weights cannot be read ({error.strerror})") from error
