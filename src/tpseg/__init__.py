"""tpseg: one model for many medical lesion segmentation tasks (TP-Seg, CVPR 2026 Findings).

>>> from tpseg import Segmenter
>>> prediction = Segmenter("runs/demo/model")("photo.jpg", task="skin_lesion")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpseg.errors import DataError, TPSegError, UsageError
from tpseg.tasks import Task, TaskSet

if TYPE_CHECKING:
    from tpseg.config import Config, ModelConfig, load_config
    from tpseg.data.manifest import read_dataset
    from tpseg.models.tpseg import TPSeg
    from tpseg.prediction import Prediction, Segmenter

__version__ = "0.1.0"

_LAZY = {
    "Config": "tpseg.config",
    "ModelConfig": "tpseg.config",
    "load_config": "tpseg.config",
    "read_dataset": "tpseg.data.manifest",
    "TPSeg": "tpseg.models.tpseg",
    "Prediction": "tpseg.prediction",
    "Segmenter": "tpseg.prediction",
}
"""Names that need PyTorch: imported when first used, so that `tpseg --help` answers at once."""

__all__ = [
    "Config", "DataError", "ModelConfig", "Prediction", "Segmenter", "TPSeg", "TPSegError", "Task", "TaskSet",
    "UsageError", "load_config", "read_dataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tpseg' has no attribute '{name}'")
