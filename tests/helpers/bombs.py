"""A process that opens small files which ask for much: bombs, giant headers, absurd JSON and YAML. Run by test_bombs.

Usage: python bombs.py FOLDER. For each bomb a line of JSON: name, outcome, most memory in MiB beyond what
the process had, seconds of the processor, message.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_factory import dicom, write_nifti
from miniature import SETTINGS, TRUNK
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.core.config import ModelConfig, build_config, read_source
from tpseg.core.errors import TPSegError
from tpseg.core.files import read_json_object
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import read_dataset
from tpseg.datasets.coco import CocoSource
from tpseg.datasets.folder import FolderSource
from tpseg.datasets.release import Release
from tpseg.imaging.pictures.formats import read_image, read_mask
from tpseg.imaging.reading.opening import open_scan
from tpseg.inference.exported_description import Description
from tpseg.models.catalogue import create
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk
from tpseg.training.run_folder import read_settings

TRUNK_SIZES["tiny"] = TRUNK
Reading = Callable[[], object]
"""Opens the bomb, once it is made."""
BOMBS: dict[str, Callable[[Path], Reading]] = {}


def bomb(make: Callable[[Path], Reading]) -> Callable[[Path], Reading]:
    BOMBS[make.__name__] = make
    return make


def opening(read: Callable[[Path], object], path: Path) -> Reading:
    return lambda: read(path)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(path: Path, side: int, body: bytes, between: bytes = b"") -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


def frames(path: Path) -> None:
    open_scan(path).frame(0)


@bomb
def png_header(folder: Path) -> Reading:
    return opening(read_image, png(folder / "a.png", 25_000, zlib.compress(bytes(1000))))


@bomb
def png_mask_header(folder: Path) -> Reading:
    return opening(read_mask, png(folder / "a.png", 25_000, zlib.compress(bytes(1000))))


@bomb
def png_in_a_download(folder: Path) -> Reading:
    for name in ("images", "masks"):
        (folder / name).mkdir()
        png(folder / name / "a.png", 25_000, zlib.compress(bytes(1000)))

    def read() -> None:
        with Release(folder) as release:
            for pair in FolderSource().pairs(release):
                pair.mask()  # type: ignore[union-attr]

    return read


@bomb
def png_of_a_billion_pixels(folder: Path) -> Reading:
    return opening(read_image, png(folder / "a.png", 2**31 - 1, bytes(1 << 20)))


@bomb
def png_with_a_hundred_thousand_texts(folder: Path) -> Reading:
    texts = b"".join(chunk(b"tEXt", b"k%d\0v" % number) for number in range(100_000))
    return opening(read_image, png(folder / "a.png", 8, zlib.compress(bytes(8 * 25)), texts))


@bomb
def png_with_a_text_that_inflates(folder: Path) -> Reading:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(500_000_000)))
    return opening(read_image, png(folder / "a.png", 8, zlib.compress(bytes(8 * 25)), text))


@bomb
def png_with_a_profile_that_inflates(folder: Path) -> Reading:
    text = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(500_000_000)))
    return opening(read_image, png(folder / "a.png", 8, zlib.compress(bytes(8 * 25)), text))


def tiff(entries: list[tuple[int, int, int, int]], following: int, rest: bytes = b"") -> bytes:
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + body + rest


@bomb
def tiff_header(folder: Path) -> Reading:
    tags = [(256, 4, 1, 40_000), (257, 4, 1, 9_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    tags += [(278, 4, 1, 9_000), (279, 4, 1, 360_000_000)]
    (folder / "a.tif").write_bytes(tiff(tags, 0))
    return opening(read_image, folder / "a.tif")


def tiff_of_doubles(folder: Path, side: int, content: bytes) -> Reading:
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 64), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8 + 2 + 12 * 10 + 4)]
    tags += [(277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, len(content)), (339, 3, 1, 3)]
    (folder / "a.tif").write_bytes(tiff(tags, 0, content))
    return opening(read_image, folder / "a.tif")


@bomb
def tiff_header_of_doubles(folder: Path) -> Reading:
    return tiff_of_doubles(folder, 25_000, zlib.compress(bytes(2000)))


@bomb
def tiff_of_doubles_that_inflates(folder: Path) -> Reading:
    return tiff_of_doubles(folder, 8, zlib.compress(bytes(500_000_000)))


@bomb
def tiff_of_doubles_in_a_circle(folder: Path) -> Reading:
    tiff_of_doubles(folder, 8, zlib.compress(bytes(8 * 8 * 8)))
    content = (folder / "a.tif").read_bytes()
    (folder / "a.tif").write_bytes(content[:130] + (8).to_bytes(4, "little") + content[134:])
    return opening(read_image, folder / "a.tif")


@bomb
def tiff_pages_in_a_circle(folder: Path) -> Reading:
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, 64)]
    (folder / "a.tif").write_bytes(tiff(tags, 8, bytes(100)))
    return opening(read_image, folder / "a.tif")


@bomb
def tiff_with_a_count_of_billions(folder: Path) -> Reading:
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 2**31, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 2**30, 8), (279, 4, 2**30, 64)]
    (folder / "a.tif").write_bytes(tiff(tags, 0, bytes(100)))
    return opening(read_image, folder / "a.tif")


@bomb
def bmp_header(folder: Path) -> Reading:
    header = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 28_000, 28_000, 1, 24, 0, 0, 0, 0, 0, 0)
    (folder / "a.bmp").write_bytes(header + bytes(100))
    return opening(read_image, folder / "a.bmp")


@bomb
def bmp_of_run_lengths(folder: Path) -> Reading:
    """Each four bytes skip 255 rows, which Pillow fills in."""
    side, skips = 28_000, bytes([0, 2, 0, 255]) * 110
    header = b"BM" + struct.pack("<IHHI", 1078 + len(skips), 0, 0, 1078)
    header += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(skips), 0, 0, 256, 256) + bytes(range(256)) * 4
    (folder / "a.bmp").write_bytes(header + skips)
    return opening(read_image, folder / "a.bmp")


def nifti(path: Path, dims: tuple[int, ...], content: bytes) -> Path:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    raw = bytearray(header.binaryblock)
    raw[40:56] = struct.pack("<8h", len(dims), *dims, *[1] * (7 - len(dims)))
    raw[108:112] = struct.pack("<f", 352)
    data = bytes(raw) + b"\0\0\0\0" + content
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@bomb
def nifti_of_32767_cubed(folder: Path) -> Reading:
    return opening(frames, nifti(folder / "a.nii", (32767, 32767, 32767), bytes(1000)))


@bomb
def nifti_gz_of_32767_cubed(folder: Path) -> Reading:
    return opening(frames, nifti(folder / "a.nii.gz", (32767, 32767, 32767), bytes(1000)))


@bomb
def nifti_gz_that_inflates(folder: Path) -> Reading:
    return opening(frames, nifti(folder / "a.nii.gz", (1000, 1000, 500), bytes(1_000_000_000)))


@bomb
def nifti_of_seven_dimensions(folder: Path) -> Reading:
    return opening(frames, nifti(folder / "a.nii", (32767,) * 7, bytes(1000)))


@bomb
def dicom_rows_and_columns(folder: Path) -> Reading:
    dicom(np.zeros((8, 8), np.uint16), Rows=65535, Columns=65535).save_as(folder / "a.dcm", enforce_file_format=True)
    return opening(frames, folder / "a.dcm")


@bomb
def dicom_of_a_billion_frames(folder: Path) -> Reading:
    dicom(np.zeros((8, 8), np.uint16), NumberOfFrames=999_999_999).save_as(folder / "a.dcm", enforce_file_format=True)
    return opening(frames, folder / "a.dcm")


@bomb
def dicom_deflated(folder: Path) -> Reading:
    made = dicom(np.zeros((8, 8), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    made.ImageComments = "x"
    made.save_as(folder / "a.dcm", enforce_file_format=True)
    content = (folder / "a.dcm").read_bytes()
    length = struct.unpack("<I", content[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(struct.pack("<HH2sHI", 0x0011, 0x1000, b"OB", 0, 1_500_000_000))
    body += b"".join(packer.compress(bytes(10_000_000)) for _ in range(150)) + packer.flush()
    (folder / "a.dcm").write_bytes(content[: 144 + length] + body)
    return opening(frames, folder / "a.dcm")


@bomb
def nrrd_header(folder: Path) -> Reading:
    (folder / "a.nrrd").write_text("NRRD0004\ntype: double\ndimension: 3\nsizes: 90000 90000 90000\nencoding: raw\nendian: little\n\nxx")
    return opening(frames, folder / "a.nrrd")


@bomb
def metaimage_header(folder: Path) -> Reading:
    text = "ObjectType = Image\nNDims = 3\nDimSize = 90000 90000 90000\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\nxx"
    (folder / "a.mha").write_text(text)
    return opening(frames, folder / "a.mha")


def unpacked(path: Path) -> None:
    with Release(path) as release:
        for name in release.files:
            release.read(name)


@bomb
def zip_that_inflates(folder: Path) -> Reading:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(800_000_000))
    return opening(unpacked, folder / "a.zip")


def lying_zip(folder: Path, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", kind) as archive:
        archive.writestr("a.png", bytes(800_000_000))
    content = (folder / "a.zip").read_bytes().replace(struct.pack("<I", 800_000_000), struct.pack("<I", 1000))
    (folder / "a.zip").write_bytes(content)
    return folder / "a.zip"


@bomb
def zip_whose_size_lies(folder: Path) -> Reading:
    return opening(unpacked, lying_zip(folder))


@bomb
def zip_of_bzip2_whose_size_lies(folder: Path) -> Reading:
    return opening(unpacked, lying_zip(folder, zipfile.ZIP_BZIP2))


@bomb
def zip_whose_size_lies_to_the_disk(folder: Path) -> Reading:
    path = lying_zip(folder)

    def read() -> None:
        with Release(path) as release:
            release.path_of("a.png")

    return read


@bomb
def zip_in_zip_in_zip(folder: Path) -> Reading:
    content, name = bytes(9_000_000), "a.png"
    for level in range(3):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for copy in range(12):
                archive.writestr(f"{copy}/{name}", content)
        content, name = out.getvalue(), f"{level}.zip"
    (folder / "a.zip").write_bytes(content)
    return opening(unpacked, folder / "a.zip")


@bomb
def tar_gz_that_inflates(folder: Path) -> Reading:
    with tarfile.open(folder / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 800_000_000
        archive.addfile(info, io.BytesIO(bytes(800_000_000)))
    return opening(unpacked, folder / "a.tar.gz")


def model(folder: Path) -> Path:
    save_model(create(build_config(SETTINGS["model"], ModelConfig), TaskSet([Task("a"), Task("b")])), folder / "model", {})
    return folder / "model"


@bomb
def safetensors_header_of_90_megabytes(folder: Path) -> Reading:
    header = json.dumps({f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(1_400_000)}).encode()
    path = model(folder) / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return opening(load_model, folder / "model")


@bomb
def safetensors_that_claims_terabytes(folder: Path) -> Reading:
    header = json.dumps({"trunk.pos_embed_window": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return lambda: load_trunk_weights(Trunk("tiny"), str(folder / "a.safetensors"))


def resized(key: str, value: object) -> Callable[[Path], Reading]:
    def run(folder: Path) -> Reading:
        path = model(folder) / "config.json"
        content = json.loads(path.read_text())
        content["model"][key] = value
        path.write_text(json.dumps(content))
        return opening(load_model, folder / "model")

    return run


BOMBS |= {
    "config_with_a_giant_rank": resized("rank", 10**9),
    "config_with_a_wide_rank": resized("rank", 4096),
    "config_with_wide_necks": resized("neck_widths", [4096] * 4),
    "config_with_wide_decoders": resized("decoder_widths", [4096] * 3),
    "config_with_many_experts": resized("experts", 4096),
    "config_with_a_large_trunk": resized("trunk", "large"),
    "config_of_another_system": resized("architecture", "monai_unet"),
    "config_with_a_giant_size": resized("image_size", 10**9),
    "config_with_a_size_of_gigabytes": resized("image_size", 16_384),
}


@bomb
def tasks_json_of_ten_thousand_tasks(folder: Path) -> Reading:
    path = model(folder) / "tasks.json"
    path.write_text(json.dumps({"tasks": [{"name": f"t{number}"} for number in range(10_000)]}))
    return opening(load_model, folder / "model")


def json_file(text: str) -> Callable[[Path], Reading]:
    def run(folder: Path) -> Reading:
        (folder / "a.json").write_text(text)
        return lambda: read_json_object(folder / "a.json", "not one")

    return run


BOMBS |= {
    "json_nested": json_file("[" * 2_000_000),
    "json_nested_objects": json_file('{"a":' * 500_000),
    "json_nested_a_little": json_file('{"a":' * 40 + "1" + "}" * 40),
    "json_of_a_hundred_megabytes": json_file("[" + "0," * 50_000_000 + "0]"),
    "json_with_a_key_twice": json_file('{"a": 1, "a": 2}'),
    "json_with_a_giant_number": json_file('{"a": ' + "9" * 3_000_000 + "}"),
    "json_with_a_giant_float": json_file('{"a": 1e999}'),
    "json_with_a_million_keys": json_file("{" + ",".join(f'"{number}":0' for number in range(1_000_000)) + "}"),
}


@bomb
def description_of_a_hundred_megabytes(folder: Path) -> Reading:
    text = "[" + "0," * 50_000_000 + "0]"
    return lambda: Description.from_json(text, folder / "a.onnx")


@bomb
def coco_nested(folder: Path) -> Reading:
    (folder / "a.json").write_text("[" * 2_000_000)

    def read() -> None:
        with Release(folder) as release:
            list(CocoSource(annotations="a.json").pairs(release))

    return read


def yaml_file(text: str) -> Callable[[Path], Reading]:
    def run(folder: Path) -> Reading:
        for name in ("tasks.yaml", "settings.yaml"):
            (folder / name).write_text(text)
        readers = (lambda: read_dataset(folder), lambda: read_settings(folder), lambda: build_config(read_source(folder / "tasks.yaml")))

        def read() -> None:
            for one in readers[:2]:
                try:
                    one()
                except TPSegError:
                    continue
                raise AssertionError("one of the readers took it")
            readers[2]()

        return read

    return run


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{letter}: &{letter} [{','.join(['*' + chr(ord(letter) - 1)] * 9)}]\n" for letter in "bcdefghi"
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{letter}: &{letter} {{<<: [{','.join(['*' + chr(ord(letter) - 1)] * 9)}]}}\n" for letter in "bcdefghij"
)
BOMBS |= {
    "yaml_laughs": yaml_file(LAUGHS),
    "yaml_merges": yaml_file(MERGES),
    "yaml_nested": yaml_file("[" * 100_000),
    "yaml_nested_keys": yaml_file("\n".join(" " * depth + "a:" for depth in range(600))),
    "yaml_that_contains_itself": yaml_file("tasks: &a {x: *a}"),
    "yaml_with_a_key_twice": yaml_file("tasks: {}\ntasks: {}"),
    "yaml_with_eighty_thousand_keys": yaml_file("\n".join(f"k{number}:" for number in range(80_000))),
    "yaml_with_a_number_of_base_60": yaml_file("a: " + "59:" * 80_000 + "1"),
    "yaml_with_a_giant_number": yaml_file("a: " + "9" * 9_000),
    "yaml_with_a_date_that_is_none": yaml_file("a: 2001-99-99"),
    "yaml_of_ten_megabytes": yaml_file("# " + "x" * 10_000_000),
}


def memory(key: str) -> int:
    """A number of /proc/self/status in KiB, 0 where there is none."""
    file = Path("/proc/self/status")
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines()) if file.exists() else {}
    return int(lines[key].split()[0]) if key in lines else 0


def reset_peak() -> None:
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    root = Path(sys.argv[1])
    frames(write_nifti(root / "warm.nii", np.zeros((4, 4, 4), np.int16)))
    load_model(model(root))  # what the bombs are made of is whole
    for number, (name, make) in enumerate(BOMBS.items()):
        folder = root / str(number)
        folder.mkdir()
        read = make(folder)
        reset_peak()
        before, began = memory("VmRSS"), time.process_time()
        try:
            read()
            outcome, message = "read", ""
        except TPSegError as error:
            outcome, message = "refused", str(error)
        except BaseException as error:
            outcome, message = "stack-trace", repr(error)
        seconds, peak = time.process_time() - began, (memory("VmHWM") - before) / 1024
        sys.stdout.write(json.dumps([name, outcome, peak, seconds, message.replace(str(root), "")]) + "\n")
        sys.stdout.flush()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
