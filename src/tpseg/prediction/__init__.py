"""Using a trained model: `Segmenter` in Python, `predict_files` for files and folders."""

from tpseg.prediction.files import Wanted, choose_tasks, predict_files
from tpseg.prediction.images import ImageLike, as_rgb
from tpseg.prediction.jobs import Declined, Failure
from tpseg.prediction.segmenter import Answer, Loaded, Prediction, ScanPrediction, Segmenter

__all__ = [
    "Answer", "Declined", "Failure", "ImageLike", "Loaded", "Prediction", "ScanPrediction", "Segmenter", "Wanted", "as_rgb", "choose_tasks",
    "predict_files",
]  # fmt: skip
