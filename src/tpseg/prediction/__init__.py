"""Using a trained model: `Segmenter` in Python, `predict_files` for files and folders."""

from tpseg.prediction.files import Failure, Wanted, choose_tasks, predict_files
from tpseg.prediction.images import ImageLike, as_rgb
from tpseg.prediction.segmenter import Answer, Loaded, Prediction, ScanPrediction, Segmenter

__all__ = [
    "Answer", "Failure", "ImageLike", "Loaded", "Prediction", "ScanPrediction", "Segmenter", "Wanted", "as_rgb", "choose_tasks",
    "predict_files",
]  # fmt: skip
