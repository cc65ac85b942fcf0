"""What a calibrated model says of an image before it segments it: its task, and whether it is like anything learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpseg.calibration.record import Trust
from tpseg.core.tasks import AUTO, TaskSet


@dataclass(frozen=True)
class Judgement:
    """What the model makes of an image, or of several frames of a scan together."""

    ranking: tuple[tuple[str, float], ...]
    """Every task with its calibrated probability, the most likely first."""
    strangeness: float
    """Distance from the training images in units of the limit: over 1 is unlike anything the model was trained on."""
    doubt: float
    """Below this probability of the task asked for, another one is suspected."""

    @property
    def task(self) -> str:
        """The most likely one."""
        return self.ranking[0][0]

    def choose(self, asked: Sequence[str]) -> tuple[str, ...]:
        """The tasks asked for, the most likely one in the place of `auto`; with `auto` an outlier has none, for it looks like no task."""
        if self.outlier and AUTO in asked:
            return ()
        return tuple(self.task if one == AUTO else one for one in asked)

    @property
    def outlier(self) -> bool:
        return self.strangeness > 1

    def probability(self, task: str) -> float:
        return dict(self.ranking)[task]

    def suspects(self, task: str) -> bool:
        """Whether the image looks like another task than the one asked for."""
        return task != self.task and self.probability(task) < self.doubt

    def warnings(self, asked: Sequence[str], tasks: TaskSet) -> list[str]:
        """What to tell whoever asked for these tasks, in sentences without the image's name; empty if all is well.

        Of an outlier nothing else is said: which task it looks like means little then. Where several tasks were asked for, as
        with --all-tasks, most of them are wrong and known to be. No tasks: `auto` chose none.
        """
        if not asked:
            return [
                f"unlike anything the model was trained on ({self.strangeness:.1f} times the limit): no task is chosen and no mask made; "
                "name a task to segment it all the same"
            ]
        if self.outlier:
            return [f"unlike anything the model was trained on ({self.strangeness:.1f} times the limit); do not rely on its mask"]
        if len(asked) != 1 or not self.suspects(asked[0]):
            return []
        found, other = tasks[tasks.id(self.task)], tasks[tasks.id(asked[0])]
        return [f"looks like {found.name} ({found.modality}, {self.ranking[0][1]:.0%}), not {other.name} ({other.modality})"]


def judge_together(trust: Trust, described: Tensor) -> Judgement:
    """One judgement of an image, (1, D), or of the frames of a scan, (N, D): mean probabilities, and the median of how strange they are."""
    points = trust.space(described)
    probabilities = trust.recognition.probabilities(points).mean(0)
    order = torch.argsort(probabilities, descending=True, stable=True).tolist()
    ranking = tuple((trust.tasks[one], float(probabilities[one])) for one in order)
    return Judgement(ranking, float(trust.outliers.scores(points).median()), trust.recognition.doubt)
