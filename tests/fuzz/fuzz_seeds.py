"""Whole files of each format, made by code: what fuzzing starts from, and what stands around a file in its folder."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
import yaml
from dicom_factory import write_nifti
from fake_releases import png16, rar
from fuzz_mutation import CANARY
from miniature import SETTINGS, TRUNK, settings
from PIL import Image
from safetensors.torch import save_file

from tpseg.calibration.nearest_mean import Recognition
from tpseg.calibration.outliers import Outliers
from tpseg.calibration.record import Trust, save_trust
from tpseg.calibration.space import Space
from tpseg.checkpoints.model_folder import save_model
from tpseg.core.config import ModelConfig, build_config
from tpseg.core.tasks import Task, TaskSet
from tpseg.inference.exported_description import Description
from tpseg.models.catalogue import create
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk

SQUARE = [[2, 3, 6, 3, 6, 5, 2, 5]]
TASKS = TaskSet([Task("bright_disc", "test"), Task("dark_disc", "ultrasound")])


def png(folder: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / name)


def picture(folder: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    png(folder, f"rgb.{suffix}", colours)
    png(folder, f"grey.{suffix}", colours[..., 0])
    png(folder, f"mask.{suffix}", ((np.indices((40, 30)).sum(0) < 30) * 255).astype(np.uint8))
    if suffix == "tif":
        Image.fromarray(colours).save(folder / "deflated.tif", compression="tiff_adobe_deflate")
        Image.fromarray(colours[..., 0].astype(np.uint16) * 200).save(folder / "deep.tif", compression="tiff_lzw")
        Image.fromarray(colours).save(folder / "pages.tif", save_all=True, append_images=[Image.fromarray(colours[:20, :15])])
        tifffile.imwrite(folder / "planes.tif", np.moveaxis(colours, 2, 0) * np.uint16(200), photometric="rgb", planarconfig="separate")
        tifffile.imwrite(folder / "double.tif", colours[..., 0] / 7, compression="zlib", rowsperstrip=9)
        tifffile.imwrite(folder / "signed.tif", colours[..., 0].astype(np.int64), tile=(16, 16), compression="zlib")
    if suffix == "png":
        png(folder, "deep.png", colours[..., 0].astype(np.uint16) * 200)
        for channels, name in ((2, "grey_alpha"), (3, "colours"), (4, "colours_alpha")):
            values = np.random.default_rng(1).integers(0, 4096, (40, 30, channels), dtype=np.uint16)
            (folder / f"deep_{name}.png").write_bytes(png16(values))
        Image.fromarray(colours).quantize(16).save(folder / "palette.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(colours).save(folder / "turned.png", exif=exif)
    if suffix == "jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(colours).save(folder / "turned.jpg", exif=exif, progressive=True)


def matlab(folder: Path) -> None:
    with h5py.File(folder / "1.mat", "w") as file:
        group = file.create_group("cjdata")
        group["label"] = np.array([[1.0]])
        group["PID"] = np.frombuffer("100360".encode("utf-16-le"), np.uint16)[:, None]
        group["image"] = np.random.default_rng(0).integers(0, 900, (16, 12)).astype(np.int16)
        group.create_dataset("tumorMask", data=np.eye(16, 12, dtype=np.uint8), compression="gzip")
        group["tumorBorder"] = np.arange(8.0)[None]


CONTENT = {"set/images/a.png": b"\x89PNG" * 20, "set/masks/a.png": bytes(500), "read me.txt": "grün".encode()}


def zipped(folder: Path) -> None:
    for name, method in (
        ("stored", zipfile.ZIP_STORED),
        ("deflated", zipfile.ZIP_DEFLATED),
        ("refused_bzip2", zipfile.ZIP_BZIP2),
        ("refused_lzma", zipfile.ZIP_LZMA),
    ):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", method) as archive:
            for member, content in CONTENT.items():
                archive.writestr(member, content)
    with zipfile.ZipFile(folder / "nested.zip", "w") as archive:
        archive.write(folder / "deflated.zip", "inner.zip")


def tarred(folder: Path) -> None:
    for name, mode in (("a.tar", "w:"), ("b.tar.gz", "w:gz"), ("c.tar.bz2", "w:bz2"), ("d.tar.xz", "w:xz")):
        with tarfile.open(folder / name, mode) as archive:  # type: ignore[call-overload]
            for member, content in CONTENT.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    with tarfile.open(folder / "refused_links.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind!r}")
            info.type, info.linkname = kind, f"../{CANARY}.png"
            archive.addfile(info)


def rarred(folder: Path) -> None:
    (folder / "a.rar").write_bytes(rar(CONTENT))


def pictures_around(folder: Path) -> None:
    """Two pictures and their masks; and one outside, that nothing may open."""
    for number in range(2):
        png(folder, f"{number}.png", np.full((8, 10, 3), 90 * number, np.uint8))
    png(folder.parent, f"{CANARY}.png", np.zeros((8, 10, 3), np.uint8))


def split(folder: Path) -> None:
    (folder / "split.csv").write_text("image,mask,split,group\n0.png,0.png,train,p1\n1.png,1.png,val,\na/../0.png,1.png,test,p2\n")


def scores(folder: Path) -> None:
    (folder / "test.csv").write_text(
        "task,image,split,group,set,dice,iou,hd95\nlesion,a.png,test,p1,s1,0.5,0.4,3\nlesion,b.png,test,,,1.0,,\n"
    )


def record(folder: Path) -> None:
    (folder / "data.csv").write_text("task,split,image_sha256,mask_sha256\nlesion,train,ab,cd\nlesion,val,12,34\n")


def tasks(folder: Path) -> None:
    entries = {
        "lesion": {"modality": "CT", "data": "split.csv", "description": "Lesion", "window": "lung"},
        "other": {"modality": "MR", "data": "split.csv", "finding": "SCT:126952004:Neoplasm of brain", "root": "."},
    }
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}))


def data_set(folder: Path) -> None:
    pictures_around(folder)
    split(folder)


def config(folder: Path) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(SETTINGS))


def settings_of_run(folder: Path) -> None:
    content = settings() | {"run": {"data": "tasks.yaml", "steps": None, "tasks": None}}
    (folder / "settings.yaml").write_text(yaml.safe_dump(content))


def study(folder: Path) -> None:
    rows = {"A1": {"name": "one", "model": {"pgtds": []}, "paper": {"mean": 1.0}}, "A2": {"config": "small", "separate": True}}
    (folder / "study.yaml").write_text(yaml.safe_dump({"title": "Mine", "reference": "A1", "rows": rows, "figures": ["gates"]}))


def budget(folder: Path) -> None:
    (folder / "budget.yaml").write_text(yaml.safe_dump({"steps": 10, "validations": 2, "config": "small", "training": {"batch_size": 2}}))


def coco(folder: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png", "width": 10, "height": 8} for number in range(2)]
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"counts": [4, 3, 73], "size": [8, 10]}, "iscrowd": 1},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "lesion"}]}
    (folder / "coco.json").write_text(json.dumps(content))


def labelme(folder: Path) -> None:
    shapes = [
        {"label": "lesion", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"},
        {"label": "lesion", "points": [[5, 4], [5, 2]], "shape_type": "circle"},
        {"label": "lesion", "points": [[1, 1], [3, 3]], "shape_type": "rectangle"},
    ]
    content = {"shapes": shapes, "imagePath": "0.png", "imageData": None, "imageHeight": 8, "imageWidth": 10}
    (folder / "labelme.json").write_text(json.dumps(content))


def nnunet(folder: Path) -> None:
    content = {
        "labels": {"background": 0, "tumour": 1, "whole": [1, 2]},
        "channel_names": {"0": "CT"},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def nnunet_around(folder: Path) -> None:
    values = np.zeros((6, 5, 3), np.uint8)
    values[2:4, 2:4, 1] = 1
    write_nifti(folder / "imagesTr" / "case_0000.nii.gz", values.astype(np.int16) * 100)
    write_nifti(folder / "labelsTr" / "case.nii.gz", values)


def model(folder: Path) -> None:
    """A whole folder model/, its weights drawn at random."""
    TRUNK_SIZES["tiny"] = TRUNK
    torch.manual_seed(0)
    made = create(build_config(SETTINGS["model"], ModelConfig), TASKS)
    save_model(
        made, folder / "model", {"date": "2026-11-22", "seed": 1, "training": {"metrics": {"val/dice/bright_disc": 0.5}, "epoch": 1}}
    )


def trusted_model(folder: Path) -> None:
    model(folder)
    rng = torch.Generator().manual_seed(0)
    space = Space(torch.randn(12, generator=rng), torch.randn(12, 4, generator=rng))
    recognition = Recognition(torch.randn(2, 4, generator=rng), 1.0, 0.5)
    bank, task = torch.randn(6, 4, generator=rng), torch.tensor([0, 0, 0, 1, 1, 1])
    save_trust(Trust(TASKS_NAMES, space, recognition, Outliers(bank, task, torch.ones(6), 2.0, 0.05), {}, {"seed": 1}), folder / "model")


TASKS_NAMES = tuple(TASKS.names)


def _one_of(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        trusted_model(folder)
        (folder / "model" / name).rename(folder / name)
        shutil.rmtree(folder / "model")

    return write


trust_json, trust_tensors = _one_of("trust.json"), _one_of("trust.safetensors")


def description(folder: Path) -> None:
    (folder / "tpseg.json").write_text(Description(TASKS, True, 64).to_json())


def trunk(folder: Path, suffix: str) -> None:
    TRUNK_SIZES["tiny"] = TRUNK
    torch.manual_seed(0)
    state = {f"image_encoder.trunk.{key}": value.half().contiguous() for key, value in Trunk("tiny").own_state().items()}
    if suffix == "safetensors":
        save_file(state, folder / "trunk.safetensors")
    else:
        torch.save({"model": state}, folder / "trunk.pt")
        torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
