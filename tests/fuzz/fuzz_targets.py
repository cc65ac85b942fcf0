"""What is fuzzed: each reader of foreign files, the whole files that it starts from, and what stands around such a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_seeds as seeds
import numpy as np
from clinical_files import dicom_seeds, itk_seeds, nifti_seeds, video_seeds

from tpseg.calibration.record import load_trust, model_sha256
from tpseg.checkpoints.model_folder import load_model
from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.core.config import ModelConfig, build_config, read_source
from tpseg.core.errors import DataError
from tpseg.core.files import file_sha256, read_json_object
from tpseg.core.tasks import TaskSet
from tpseg.data.hashes import read_record
from tpseg.data.manifest import read_dataset, read_split
from tpseg.datasets.btd import read_array, read_facts
from tpseg.datasets.coco import CocoSource
from tpseg.datasets.labelme import LabelmeSource
from tpseg.datasets.nnunet import NnunetSource
from tpseg.datasets.pictures import decode, lesion
from tpseg.datasets.release import Release
from tpseg.datasets.source import Pair, Source
from tpseg.evaluation.evaluate import read_rows
from tpseg.imaging.pictures.formats import open_image, to_mask
from tpseg.imaging.reading.opening import open_scan
from tpseg.inference.exported_description import Description
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk
from tpseg.studies.plan import read_budget, read_study
from tpseg.training.run_folder import read_settings


@dataclass(frozen=True)
class Target:
    """A reader. All that it may do with a file is return, or raise a TPSegError."""

    seeds: Callable[[Path], None]
    """Writes files into a folder; the target starts from each of them. All are read, but for those whose names begin with `refused`."""
    read: Callable[[Path, Path], object]
    """Reads a file; the second path is the folder that `around` filled."""
    kind: str = "bytes"
    """What the file is to the mutator: bytes, json, yaml, csv, png or zip."""
    around: Callable[[Path], None] = lambda folder: None
    own_words: bool = False
    """Whether the file counts as the user's own words, see SECURITY.md: to read what it names, wherever it lies, is then no escape."""


def picture(path: Path, around: Path) -> None:
    failures = []
    for read in (
        lambda path: scan(path, around),
        lambda path: to_mask(open_image(path), path),
        lambda path: lesion(decode(path.read_bytes(), path.name), "mask"),
    ):
        try:
            read(path)
        except DataError as error:
            failures.append(error)
    if len(failures) == 3:
        raise failures[0]


def scan(path: Path, around: Path) -> None:
    found = open_scan(path)
    for index in sorted({0, found.frames // 2, found.frames - 1}):
        frame = found.frame(index)
        assert frame.dtype == np.uint8
        assert frame.shape == (*found.size, 3)


def pairs_of(source: Callable[[], Source]) -> Callable[[Path, Path], None]:
    def read(path: Path, around: Path) -> None:
        with Release(path if path.suffix != ".json" else around, scratch=path.parent / "unpacked") as release:
            for one in source().pairs(release):
                if isinstance(one, Pair):
                    one.image()
                    one.mask()

    return read


def annotation(source: Callable[[], Source], name: str) -> Callable[[Path, Path], None]:
    def read(path: Path, around: Path) -> None:
        shutil.copyfile(path, around / name)
        pairs_of(source)(around / name, around)

    return read


def archive(path: Path, around: Path) -> None:
    with Release(path, scratch=path.parent / "unpacked") as release:
        for name in release.files:
            release.read(name)
            release.path_of(name)


def matlab(path: Path, around: Path) -> None:
    shutil.copyfile(path, around / "1.mat")
    with Release(around) as release:
        name = release.files[0]
        read_facts(release, name)
        for field in ("image", "tumorMask"):
            read_array(release, name, field)


def model_file(name: str, read: Callable[[Path], object] = load_model) -> Callable[[Path, Path], object]:
    """Puts the file into a whole model folder, under its name."""

    def run(path: Path, around: Path) -> object:
        shutil.copyfile(path, around / "model" / name)
        for beside, key in (("config.json", "weights_sha256"), ("trust.json", "tensors_sha256"), ("trust.json", "weights_sha256")):
            if name.endswith(".safetensors"):  # who forges weights forges their checksums too
                resum(around / "model", beside, key)
        return read(around / "model")

    return run


def resum(folder: Path, beside: str, key: str) -> None:
    if (folder / beside).is_file():
        content = json.loads((folder / beside).read_text())
        if key == "tensors_sha256":
            content[key] = file_sha256(folder / "trust.safetensors")
        else:
            content[key] = file_sha256(folder / "model.safetensors") if beside == "config.json" else model_sha256(folder)
        (folder / beside).write_text(json.dumps(content))


def model_seed(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        seeds.model(folder)
        for path in list((folder / "model").iterdir()):
            if path.name == name:
                path.rename(folder / name)
        shutil.rmtree(folder / "model")

    return write


def trunk(path: Path, around: Path) -> None:
    load_trunk_weights(Trunk("tiny"), str(path))


def config(path: Path, around: Path) -> None:
    build_config(read_source(path))


def settings(path: Path, around: Path) -> None:
    shutil.copyfile(path, around / "settings.yaml")
    read_settings(around)


def tasks_yaml(path: Path, around: Path) -> None:
    shutil.copyfile(path, around / "tasks.yaml")
    read_dataset(around / "tasks.yaml").sha256()


def split(path: Path, around: Path) -> None:
    for case in read_split(path, "lesion", [around]):
        if case.image.is_file():
            open_image(case.image)


def model_config(folder: Path) -> None:
    load_model(folder)
    content = json.loads((folder / "config.json").read_text())
    build_config(content["model"], ModelConfig)


TARGETS: dict[str, Target] = {
    "png": Target(lambda folder: seeds.picture(folder, "png"), picture, "png"),
    "jpeg": Target(lambda folder: seeds.picture(folder, "jpg"), picture),
    "tiff": Target(lambda folder: seeds.picture(folder, "tif"), picture),
    "bmp": Target(lambda folder: seeds.picture(folder, "bmp"), picture),
    "dicom": Target(dicom_seeds, scan),
    "nifti": Target(nifti_seeds, scan),
    "nrrd": Target(lambda folder: itk_seeds(folder, "nrrd"), scan),
    "metaimage": Target(lambda folder: itk_seeds(folder, "mha"), scan),
    "video": Target(video_seeds, scan),
    "matlab": Target(seeds.matlab, matlab),
    "zip": Target(seeds.zipped, archive, "zip"),
    "tar": Target(seeds.tarred, archive),
    "rar": Target(seeds.rarred, archive),
    "split.csv": Target(seeds.split, split, "csv", seeds.pictures_around),
    "scores.csv": Target(seeds.scores, lambda path, around: read_rows(path), "csv"),
    "data.csv": Target(seeds.record, lambda path, around: read_record(path.read_text(errors="replace")), "csv"),
    "tasks.yaml": Target(seeds.tasks, tasks_yaml, "yaml", seeds.data_set, own_words=True),
    "config.yaml": Target(seeds.config, config, "yaml"),
    "settings.yaml": Target(seeds.settings_of_run, settings, "yaml"),
    "study.yaml": Target(seeds.study, lambda path, around: read_study(str(path)), "yaml"),
    "budget.yaml": Target(seeds.budget, lambda path, around: read_budget(str(path)), "yaml"),
    "coco": Target(seeds.coco, annotation(CocoSource, "0.json"), "json", seeds.pictures_around),
    "labelme": Target(seeds.labelme, annotation(LabelmeSource, "0.json"), "json", seeds.pictures_around),
    "nnunet": Target(seeds.nnunet, annotation(NnunetSource, "dataset.json"), "json", seeds.nnunet_around),
    "config.json": Target(model_seed("config.json"), model_file("config.json", model_config), "json", seeds.model),
    "tasks.json": Target(
        model_seed("tasks.json"), model_file("tasks.json", lambda folder: TaskSet.load(folder / "tasks.json")), "json", seeds.model
    ),
    "provenance.json": Target(
        model_seed("provenance.json"),
        model_file("provenance.json", lambda folder: read_json_object(folder / "provenance.json", "not one")),
        "json",
        seeds.model,
    ),
    "trust.json": Target(seeds.trust_json, model_file("trust.json", load_trust), "json", seeds.trusted_model),
    "description": Target(seeds.description, lambda path, around: Description.from_json(path.read_text(errors="replace"), path), "json"),
    "model.safetensors": Target(model_seed("model.safetensors"), model_file("model.safetensors"), "bytes", seeds.model),
    "trust.safetensors": Target(seeds.trust_tensors, model_file("trust.safetensors", load_trust), "bytes", seeds.trusted_model),
    "trunk.pt": Target(lambda folder: seeds.trunk(folder, "pt"), trunk),
    "trunk.safetensors": Target(lambda folder: seeds.trunk(folder, "safetensors"), trunk),
}  # fmt: skip

TRUNK_SIZES["tiny"] = seeds.TRUNK
