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

_PLACES = {
    "files": ("Wanted", "choose_tasks", "predict_files"),
    "images": ("ImageLike", "as_rgb"),
    "jobs": ("Declined", "Failure"),
    "segmenter": ("Answer", "Loaded", "Prediction", "ScanPrediction", "Segmenter"),
}
"""Imported when first used: a process that decodes for Ray needs no model's libraries."""


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"tpseg.inference.{place}"), name)
    raise AttributeError(f"module 'tpseg.inference' has no attribute '{name}'")
