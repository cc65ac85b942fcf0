"""`Segmenter`: a trained model that warns, where it was calibrated, of images it cannot be relied on for. What `tpseg.Segmenter` is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tpseg.calibration.collected_logits import look_at
from tpseg.calibration.confidence import Confidence, read_confidence
from tpseg.calibration.input_check import Advice, Adviser, adviser_or_warning, required_adviser
from tpseg.core.tasks import AUTO
from tpseg.imaging.reading.opening import open_scan
from tpseg.inference import segmenter
from tpseg.inference.images import ImageLike
from tpseg.inference.segmenter import Answer


@dataclass(frozen=True)
class Prediction(segmenter.Prediction):
    """What the model says of one image for one task, and what it makes of the image."""

    advice: Advice | None = None
    """The ranking of the model's tasks, and warnings; None for a model that was not calibrated."""
    expected_dice: float | None = None
    """What the mask's Dice is expected to be; None for a model that was not calibrated, or not for this `tta`, and where the advice
    warns: what it expects was fitted on images like those of val."""


@dataclass(frozen=True)
class ScanPrediction(segmenter.ScanPrediction):
    """What the model says of a scan for one task, frame by frame, and what it makes of the scan."""

    advice: Advice | None = None
    """As that of a Prediction, of some of the frames together."""


class Segmenter(segmenter.Segmenter):
    """A trained model with its preprocessing and, where 'tpseg calibrate' was run on it, with what it knows of its limits.

    >>> segment = Segmenter("runs/demo/model")              # a folder, a hub id, an exported file or a model
    >>> prediction = segment("photo.jpg", task="skin_lesion")
    >>> prediction.mask                                     # (H, W) bool, of the photo's size
    >>> segment.scan("ct.nii.gz", task="lung_infection").masks    # (N, H, W) bool, of a volume, a series or a video

    A calibrated model logs a warning, which is in `advice` too, for an image that looks like another task or like none. With it the
    task may be `auto`, the one that the image looks most like; for an image that looks like no task that raises DataError.
    """

    @cached_property
    def adviser(self) -> Adviser | None:
        """Judges images by what calibration found; None for a model that was not calibrated, and, with a warning, for a record that
        does not fit the model.
        """
        return adviser_or_warning(self)

    @cached_property
    def confidence(self) -> dict[str, Confidence]:
        """How sure masks of each task are, as calibration found: `confidence[task].calibrate(prediction.probability)`.

        Empty for a model that was not calibrated, or not for this `tta`.
        """
        found = {} if self.adviser is None else read_confidence(self.adviser.trust.confidence)
        return {name: one for name, one in found.items() if one.augmented == self.augmented}

    def rank(self, image: ImageLike, *, window: str | None = None) -> list[tuple[str, float]]:
        """Every task with the calibrated probability that the image is one of it, the most likely first; needs a calibrated model."""
        return list(required_adviser(self).judge([self.load(image, window or "")]).ranking)

    def __call__(self, image: ImageLike, task: str, *, window: str | None = None) -> Prediction:
        return self.tasks_of(image, [task], window=window)[0]

    def tasks_of(self, image: ImageLike, tasks: Sequence[str], *, window: str | None = None) -> list[Prediction]:
        adviser, advice = self._adviser_for(tasks), None
        if adviser is not None:
            name = str(image) if isinstance(image, (str, Path)) else ""
            advice = self._said(adviser.advise([self.load(image, window or "")], tasks, name))
            tasks = advice.tasks
        sure = advice is None or not advice.warnings
        return [
            Prediction(**vars(answer.prediction()), advice=advice, expected_dice=self._expected_dice(answer) if sure else None)
            for answer in self.answers_of(image, tasks, window)
        ]

    def scan(self, path: Path | str, task: str, *, window: str | None = None, axis: str = "", batch_size: int = 8) -> ScanPrediction:
        adviser, advice = self._adviser_for([task]), None
        if adviser is not None:
            advice = self._said(adviser.advise_scan(open_scan(Path(path), window=window or "", axis=axis), [task]))
            (task,) = advice.tasks
        return ScanPrediction(**vars(super().scan(path, task, window=window, axis=axis, batch_size=batch_size)), advice=advice)

    def _adviser_for(self, tasks: Sequence[str]) -> Adviser | None:
        return required_adviser(self) if AUTO in tasks else self.adviser

    def _said(self, advice: Advice) -> Advice:
        advice.check_chosen()
        advice.log()
        return advice

    def _expected_dice(self, answer: Answer) -> float | None:
        return self.confidence[answer.task].expected_dice(look_at(answer)) if answer.task in self.confidence else None
