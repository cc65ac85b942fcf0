"""What a model says of images whose truth is known, reduced to what calibration needs: 16 kB an image, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from tpseg.calibration.expected_dice import Look, look
from tpseg.calibration.logit_counts import border_band, count_by_truth, count_logits
from tpseg.core.prefetch import THREADS, ahead
from tpseg.data.manifest import Case
from tpseg.data.pairs import read_pair
from tpseg.data.preprocessing import resize_map
from tpseg.imaging.pictures.formats import read_mask
from tpseg.inference import Answer, Segmenter

Watch = Callable[[Iterable[Case], int, str], Iterable[Case]]
"""Gets cases, their number and what is done with them; gives the cases on."""


@dataclass(frozen=True)
class Observed:
    """An image of a split as the model sees it."""

    task: str
    name: str
    counts: np.ndarray
    """(2, B): pixels of the image, in its own size, by logit, outside and inside the lesion."""
    band: np.ndarray
    """(2, B): likewise, near the lesion's border."""
    look: Look


def look_at(answer: Answer, cut: float = 0.0) -> Look:
    """What is kept of an answer, its logits less by a cut, to judge its mask."""
    return look(count_logits(answer.logits + cut), answer.logits[0].numpy() > 0)


def observe(
    segmenter: Segmenter,
    cases: Sequence[Case],
    description: str,
    *,
    batch_size: int = 8,
    watch: Watch = lambda cases, total, description: cases,
) -> list[Observed]:
    """Segment images and compare with their truth, in order. Raises DataError for a file that cannot be read."""
    with ThreadPoolExecutor(THREADS) as pool:
        watched = watch(cases, len(cases), description)
        loaded = ahead(pool, lambda case: segmenter.load(read_pair(case)[0]), watched, 2 * batch_size)
        answers = segmenter.answers(loaded, ([case.task] for case in cases), batch_size)
        return list(ahead(pool, _observe, _pairs(cases, answers), batch_size))


def _pairs(cases: Iterable[Case], answers: Iterable[Answer]) -> Iterator[tuple[Case, Answer]]:
    yield from zip(cases, answers, strict=True)


def _observe(pair: tuple[Case, Answer]) -> Observed:
    case, answer = pair
    mask = read_mask(case.mask).mask
    truth, band = torch.from_numpy(mask), torch.from_numpy(border_band(mask))
    logits = resize_map(answer.logits, answer.size)
    counts, near = count_by_truth(logits, truth), count_by_truth(logits[band], truth[band])
    return Observed(case.task, case.name, counts.astype(np.int32), near.astype(np.int32), look_at(answer))
