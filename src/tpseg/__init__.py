"""tpseg: one model for many medical lesion segmentation tasks (TP-Seg, CVPR 2026 Findings).

>>> from tpseg import Segmenter
>>> prediction = Segmenter("runs/demo/model")("photo.jpg", task="skin_lesion")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.core.tasks import Task, TaskSet

if TYPE_CHECKING:
    from tpseg.calibration.segmenter import Prediction, Segmenter
    from tpseg.checkpoints.model_folder import load_model, save_model
    from tpseg.core.config import Config, ModelConfig, load_config
    from tpseg.data.manifest import read_dataset
    from tpseg.models.tpseg.network import TPSeg

__version__ = "0.1.0"

_LAZY = {
    "Config": "tpseg.core.config",
    "ModelConfig": "tpseg.core.config",
    "load_config": "tpseg.core.config",
    "read_dataset": "tpseg.data.manifest",
    "TPSeg": "tpseg.models.tpseg.network",
    "Prediction": "tpseg.calibration.segmenter",
    "Segmenter": "tpseg.calibration.segmenter",
    "load_model": "tpseg.checkpoints.model_folder",
    "save_model": "tpseg.checkpoints.model_folder",
}
"""Names that need PyTorch: imported when first used, so that `tpseg --help` answers at once."""

__all__ = [
    "Config", "DataError", "ModelConfig", "Prediction", "Segmenter", "TPSeg", "TPSegError", "Task", "TaskSet",
    "UsageError", "load_config", "load_model", "read_dataset", "save_model",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tpseg' has no attribute '{name}'")
