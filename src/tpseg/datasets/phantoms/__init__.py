"""Phantoms: eight synthetic lesion tasks that need no download and hold no patient data.

Every picture is computed from a seed by the formulas in this package, one file per modality. They look like their
modalities so that a pipeline can be tried, demonstrated and tested; numbers reached on them say nothing about patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.datasets.phantoms.ct import lung_infection
from tpseg.datasets.phantoms.dermoscopy import skin_lesion
from tpseg.datasets.phantoms.drawing import Array, Drawing
from tpseg.datasets.phantoms.endoscopy import colon_polyp
from tpseg.datasets.phantoms.mr import brain_tumor
from tpseg.datasets.phantoms.oct import wet_amd
from tpseg.datasets.phantoms.pathology import adenocarcinoma
from tpseg.datasets.phantoms.ultrasound import breast_lesion, thyroid_nodule

PHANTOM_TASKS = TaskSet(
    [
        Task("wet_amd", "OCT", "Wet macular degeneration (phantom)"),
        Task("brain_tumor", "MR", "Brain tumour (phantom)"),
        Task("adenocarcinoma", "pathology", "Adenocarcinoma glands (phantom)"),
        Task("thyroid_nodule", "ultrasound", "Thyroid nodule (phantom)"),
        Task("colon_polyp", "endoscopy", "Colon polyp (phantom)"),
        Task("lung_infection", "CT", "Lung infection (phantom)"),
        Task("breast_lesion", "ultrasound", "Breast lesion (phantom)"),
        Task("skin_lesion", "dermoscopy", "Skin lesion (phantom)"),
    ]
)
IMAGES_PER_PATIENT = 2
MIN_CASES, MIN_SIZE = 10, 64
JPEG_QUALITY = 92
SEED_STRIDE = 1_000_000
"""Distance between the first case seeds of two data sets, so that data sets of different seeds share no patient."""


@dataclass(frozen=True)
class _Kind:
    """How a task is drawn and stored."""

    draw: Callable[[np.random.Generator, np.random.Generator, int], Drawing]
    suffix: str = ".png"
    bits: int = 8


_KINDS = {
    "wet_amd": _Kind(wet_amd),
    "brain_tumor": _Kind(brain_tumor, bits=16),
    "adenocarcinoma": _Kind(adenocarcinoma),
    "thyroid_nodule": _Kind(thyroid_nodule),
    "colon_polyp": _Kind(colon_polyp, ".jpg"),
    "lung_infection": _Kind(lung_infection, ".tif", bits=16),
    "breast_lesion": _Kind(breast_lesion),
    "skin_lesion": _Kind(skin_lesion, ".jpg"),
}

README = """Phantoms: synthetic pictures for trying tpseg
=============================================

Computed by tpseg.datasets.phantoms; no patient, no photograph and no scan went into them, so they may be shared freely.
They look like eight lesion tasks but are much easier: a score reached here says nothing about real images.

tasks.yaml                 the tasks, to be given to 'tpseg train' and the other commands
TASK/images, TASK/masks    pictures in the mixed formats users have, and masks with 0 and 255
TASK/split.csv             image, mask, split (train, val, test) and group (the synthetic patient, two pictures each)

Cases per task: {cases}    height in pixels: {size}    seed: {seed}
"""


def phantom(task: str, seed: int, size: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """One synthetic picture: image (H, W) or (H, W, 3) uint8 and lesion mask (H, W) bool, H = `size`.

    Seeds 2k and 2k + 1 show the same patient twice, with different pose and noise. OCT and CT are wider than high.
    Raises UsageError for an unknown task, a negative seed or a size below 64.
    """
    image, mask = _draw(task, seed, size)
    return _quantised(image, 8), mask


def write_phantoms(out: Path, cases: int = 48, size: int = 192, seed: int = 0) -> Path:
    """Write a data set of all eight tasks, `cases` pictures each, and return the path of its tasks.yaml.

    About 60/15/25 % of the patients go to train/val/test. The same arguments write the same bytes.
    Raises UsageError for fewer than 10 cases, a size below 64, a negative seed, or a folder that is not empty.
    """
    if cases < MIN_CASES:
        raise UsageError(f"cases: found {cases}; expected at least {MIN_CASES} per task, so that every split gets some")
    _check(seed, size)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not an empty folder; name a new folder or remove this one first")
    out.mkdir(parents=True, exist_ok=True)
    for task in PHANTOM_TASKS:
        _write_task(out / task.name, task.name, cases, size, seed * SEED_STRIDE)
    (out / "README.txt").write_text(README.format(cases=cases, size=size, seed=seed), encoding="utf-8")
    entries = {
        task.name: {"modality": task.modality, "data": f"{task.name}/split.csv", "description": task.description} for task in PHANTOM_TASKS
    }
    path = out / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": entries}, sort_keys=False), encoding="utf-8")
    return path


def _write_task(folder: Path, task: str, cases: int, size: int, first_seed: int) -> None:
    """Pictures, masks and split.csv of one task."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    splits = _patient_splits(-(-cases // IMAGES_PER_PATIENT))
    rows = []
    for case in range(cases):
        image, mask = _draw(task, first_seed + case, size)
        kind, patient = _KINDS[task], case // IMAGES_PER_PATIENT
        row = (f"images/{case:03d}{kind.suffix}", f"masks/{case:03d}.png", splits[patient], f"patient_{patient:03d}")
        Image.fromarray(_quantised(image, kind.bits)).save(folder / row[0], quality=JPEG_QUALITY)  # only JPEG heeds it
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / row[1])
        rows.append(row)
    pd.DataFrame(rows, columns=["image", "mask", "split", "group"]).to_csv(folder / "split.csv", index=False)


def _patient_splits(patients: int) -> list[str]:
    """The split of each patient, about 60/15/25 % and at least one of each."""
    val, test = max(1, round(0.15 * patients)), max(1, round(0.25 * patients))
    return ["train"] * (patients - val - test) + ["val"] * val + ["test"] * test


def _draw(task: str, seed: int, size: int) -> Drawing:
    """Image in [0, 1] and mask; anatomy comes from the patient's generator, pose and noise from the picture's own."""
    number = PHANTOM_TASKS.id(task)
    _check(seed, size)
    patient, picture = divmod(seed, IMAGES_PER_PATIENT)
    anatomy = np.random.default_rng(np.random.SeedSequence(patient, spawn_key=(number,)))
    capture = np.random.default_rng(np.random.SeedSequence(patient, spawn_key=(number, picture)))
    return _KINDS[task].draw(anatomy, capture, size)


def _check(seed: int, size: int) -> None:
    if seed < 0:
        raise UsageError(f"seed: found {seed}; expected 0 or more")
    if size < MIN_SIZE:
        raise UsageError(f"size: found {size} pixels; expected at least {MIN_SIZE}, below that lesions are lost")


def _quantised(image: Array, bits: int) -> np.ndarray:
    """Values in [0, 1] as uint8, or as the 12 used bits of a uint16 that scanners write."""
    return np.round(image * 255).astype(np.uint8) if bits == 8 else np.round(image * 4095).astype(np.uint16)
