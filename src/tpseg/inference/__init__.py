"""Using a trained model: `Segmenter` in Python, `predict_files` for files and folders; `ray/` for very many."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpseg.inference.files import Wanted, choose_tasks, predict_files
    from tpseg.inference.images import ImageLike, as_rgb
    from tpseg.inference.jobs import Declined, Failure
    from tpseg.inference.segmenter import Answer, Loaded, Prediction, ScanPrediction, Segmenter

__all__ = [
    "Answer", "Declined", "Failure", "ImageLike", "Loaded", "Prediction", "ScanPrediction", "Segmenter", "Wanted", "as_rgb", "choose_tasks",
    "predict_files",
]  # fmt: skip

_LAZY = {
    **dict.fromkeys(("Wanted", "choose_tasks", "predict_files"), "tpseg.inference.files"),
    **dict.fromkeys(("ImageLike", "as_rgb"), "tpseg.inference.images"),
    **dict.fromkeys(("Declined", "Failure"), "tpseg.inference.jobs"),
    **dict.fromkeys(("Answer", "Loaded", "Prediction", "ScanPrediction", "Segmenter"), "tpseg.inference.segmenter"),
}
"""Imported when first used: a process that decodes for Ray needs no model's libraries."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'tpseg.inference' has no attribute '{name}'")
