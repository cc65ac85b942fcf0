"""What an exported file says of itself: one JSON text under the key `tpseg`, the same in every format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tpseg
from tpseg.core.config import LARGEST
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.core.untrusted import parse_json, short
from tpseg.data.preprocessing import MEAN, STD
from tpseg.models.base import LesionModel

KEY = "tpseg"
"""Where the text is: in metadata_props of ONNX, rt_info of OpenVINO, and as the extra file tpseg.json of torch.export."""
FORMAT = 1
"""Version of the text; raised when an older tpseg could not read it."""


@dataclass(frozen=True)
class Description:
    """All that someone needs who has the file and nothing else."""

    tasks: TaskSet
    """A task's position is the number that the input `task` takes."""
    takes_task: bool
    """Whether the file has the input `task`; one for a single task has not."""
    image_size: int
    """Height and width in pixels that the model was trained at; the file accepts others."""
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    """Images are (RGB / 255 - mean) / std."""
    threshold: float = 0.5
    """Lesion is where the sigmoid of the logits is over this."""
    precision: str = "float32"
    """float32 or int8."""
    provenance_sha256: str = ""
    """SHA-256 of the model folder's provenance.json."""
    version: str = tpseg.__version__
    """tpseg's, which wrote the file."""

    @classmethod
    def of(cls, model: LesionModel) -> Description:
        provenance = json.dumps(dict(model.provenance), indent=2) + "\n"  # as save_model writes it
        digest = hashlib.sha256(provenance.encode()).hexdigest()
        return cls(model.tasks, len(model.tasks) > 1, model.config.image_size, provenance_sha256=digest)

    def as_int8(self) -> Description:
        return replace(self, precision="int8")

    def check(self) -> None:
        """Raise ValueError for a field that is not what it should be."""
        numbers = (*self.mean, *self.std, self.threshold)
        fits = {
            "takes_task": isinstance(self.takes_task, bool),
            "image_size": type(self.image_size) is int and 1 <= self.image_size <= LARGEST,
            "mean, std and threshold": len(numbers) == 7 and all(type(value) in (int, float) and abs(value) < 1e6 for value in numbers),
            "std": 0 not in self.std,
            "precision, provenance_sha256 and version": all(
                isinstance(text, str) for text in (self.precision, self.provenance_sha256, self.version)
            ),
        }
        wrong = [name for name, fit in fits.items() if not fit]
        if wrong:
            raise ValueError(f"{wrong[0]}: not what tpseg writes")

    def to_json(self) -> str:
        content = {name: value for name, value in vars(self).items() if name != "tasks"}
        return json.dumps({"format": FORMAT, "tasks": [asdict(task) for task in self.tasks], **content})

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> Description:
        """Raises DataError that names the file for a text that is missing, damaged or of a later tpseg."""
        if not text:
            raise DataError(f"{path}: not written by 'tpseg export' (it has no entry '{KEY}' with the tasks); export the model again")
        try:
            content: dict[str, Any] = parse_json(text)
            found, tasks = content.pop("format"), content.pop("tasks")
            if found != FORMAT:
                raise DataError(f"{path}: format {short(found)}; this tpseg reads format {FORMAT}; install a tpseg that fits")
            for name in ("mean", "std"):
                content[name] = tuple(content[name])
            described = cls(TaskSet([Task(**task) for task in tasks]), **content)
            described.check()
            return described
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise DataError(f"{path}: its entry '{KEY}' is damaged ({error}); export the model again") from error
