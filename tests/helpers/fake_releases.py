"""Made-up releases of the eight public sets: laid out, named and damaged as the real ones are, computed, a few pixels large.

`write_release(name, folder)` gives the path for --source; `MADE` says what a converter must find in it.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

Put = Callable[[str, bytes], None]
"""Puts a file into a release."""


@dataclass(frozen=True)
class Made:
    """What is in a fake: usable images of the training part and of the reported one, and what must be left out, by words of the reason."""

    train: int
    reported: int
    left_out: dict[str, int] = field(default_factory=dict)


MADE = {
    "amd-sd": Made(11, 5, {"in neither": 1, "not in the download": 1, "cannot be used": 1, "reported part too": 1}),
    "btd": Made(8, 3, {"unreadable": 1, "cannot be used": 1, "reported part too": 2}),
    "ebhi-seg": Made(16, 4, {"no partner": 2, "another class": 4}),
    "tnui-2021": Made(10, 4, {"no partner": 1, "test part": 3, "cannot be used": 1}),
    "polyps": Made(11, 10, {"reported part too": 1}),
    "covid-19": Made(10, 5, {"no partner": 2, "a second file": 1}),
    "busi": Made(12, 4, {"normal": 2, "no partner": 1}),
    "isic2018": Made(11, 5, {"test part": 2, "no partner": 1}),
}


def write_release(name: str, folder: Path) -> Path:
    """A release with every oddity that its set is known for."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "amd-sd": amd_sd,
        "btd": btd,
        "ebhi-seg": ebhi_seg,
        "tnui-2021": tnui_2021,
        "polyps": polyps,
        "covid-19": covid_19,
        "busi": busi,
        "isic2018": isic2018,
    }[name](folder)


# pictures and files


def case(number: int, height: int = 40, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture (H, W) uint8 with a bright disc, and the disc (H, W) bool; every number gives another."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    radius = int(rng.integers(5, min(height, width) // 3))
    row, column = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
    mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    image = rng.normal(90, 12, (height, width))
    image[mask] += 90
    return image.clip(0, 255).astype(np.uint8), mask


def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: int) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def png16(values: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write: grey and alpha (H, W, 2), RGB (H, W, 3) or RGBA (H, W, 4).

    extra: chunks that go before the pixels. Every second row holds differences from the pixel to the left.
    """
    height, width, channels = values.shape
    rows = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, width, 2 * channels)
    body = b""
    for number, row in enumerate(rows):
        filtered = row if number % 2 == 0 else np.diff(row, axis=0, prepend=np.zeros_like(row[:1]))
        body += bytes([number % 2]) + filtered.tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = b"".join(png_chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + parts[:25] + extra + parts[25:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def rgb(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., None], 3, axis=2)


def grey_mask(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def rgb_mask(mask: np.ndarray) -> np.ndarray:
    return rgb(grey_mask(mask))


def bit_mask(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask)


def palette_mask(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def soft_mask(mask: np.ndarray) -> np.ndarray:
    """As JPEG leaves it: values near 0 and near 255, and others at the edge; cut at 128 it is the mask again."""
    lossy = np.asarray(Image.open(io.BytesIO(encode(grey_mask(mask), "JPEG", quality=60))))
    return np.where(mask, lossy.clip(128), lossy.clip(max=127))


KINDS: tuple[Callable[[np.ndarray], np.ndarray | Image.Image], ...] = (grey_mask, rgb_mask, bit_mask, palette_mask)


@contextmanager
def zipped(path: Path) -> Iterator[Put]:
    with zipfile.ZipFile(path, "w") as archive:
        yield archive.writestr


def in_folder(folder: Path) -> Put:
    def put(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return put


def rar(files: dict[str, bytes], method: int = 0x30, mode: int = 0o100644) -> bytes:
    """A rar archive, version 3, of files stored as they are, mode as of Unix; another method only claims to be compressed."""

    def block(kind: int, flags: int, content: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(content)) + content
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    blocks = [b"Rar!\x1a\x07\x00", block(0x73, 0, bytes(6))]
    for name, data in files.items():
        encoded = name.encode()
        sizes = struct.pack("<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x5A000000, 20, method, len(encoded), mode)
        blocks.append(block(0x74, 0x8000, sizes + encoded, data))
    return b"".join([*blocks, block(0x7B, 0x4000, b"")])


# the eight sets


def amd_sd(folder: Path) -> Path:
    """AMD-SD.zip: two panels in a PNG with colours that are off by a few, a folder for each patient, two text files."""
    colours = ((250, 6, 249), (3, 252, 1), (255, 0, 9), (248, 255, 2), (0, 5, 251))
    with zipped(folder / "AMD-SD.zip") as put:

        def panels(path: str, number: int, empty: bool = False) -> None:
            image, mask = case(10_000 + number, 38, 57)
            label = np.zeros((38, 57, 3), np.uint8)
            if not empty:
                label[mask] = colours[number % 5]
                label[mask & (np.arange(57) % 2 == 0)] = colours[(number + 1) % 5]
            label[:3, :3] = 255  # a white mark is no lesion
            put(f"AMD-SD/images/{path}.png", encode(np.concatenate([rgb(image), label], axis=1)))

        train, val = [], []
        for patient in range(4):
            for number in range(3):
                path = f"{100 + patient}/{patient + 1}_{number}"
                panels(path, patient * 3 + number - (patient == 1 and number == 2), empty=(patient, number) == (0, 0))
                train.append(path)  # 101/2_2 shows the same picture as 101/2_1
        for number in range(5):
            panels(f"{200 + number % 2}/{9 - number % 2}_{number}", 50 + number)
            val.append(f"{200 + number % 2}/{9 - number % 2}_{number}")
        train.remove("103/4_2")  # in neither list
        panels("300/7_0", 50)  # the first reported picture once more, to train on
        put("AMD-SD/images/301/7_1.png", encode(np.zeros((38, 57), np.uint8)))  # no two panels
        train += ["300/7_0", "301/7_1", "302/7_2"]  # the last is not there
        put("AMD-SD/training.txt", "\r\n".join(f"{path}.png" for path in train).encode("utf-8-sig"))
        put("AMD-SD/validation.txt", "\n".join(f"images/{path}.png" for path in val).encode())
    return folder / "AMD-SD.zip"


def matlab(image: np.ndarray, mask: np.ndarray, patient: str, label: int = 2) -> bytes:
    """A MATLAB v7.3 file as h5py sees it: transposed, text as a column of uint16."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("cjdata")
        group["label"] = np.array([[float(label)]])
        group["PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        group["image"] = image.T
        group["tumorMask"] = mask.T.astype(np.uint8)
        group["tumorBorder"] = np.zeros((1, 8))
    return stream.getvalue()


def slice16(number: int, height: int = 40, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    image, mask = case(20_000 + number, height, width)
    return image.astype(np.int16) * 20 - 300, mask


def btd(folder: Path) -> Path:
    """1512427.zip: four archives in one, of which the last is reported; two sizes; a patient of the third who is in the fourth too."""
    files: dict[str, dict[str, bytes]] = {}
    for fold, patients in enumerate((("100360", "100361"), ("MR0402", "101016"), ("102345", "103456"), ("103456", "104567"))):
        first = 766 * fold + 1
        slices = {}
        for place in range(4 if fold < 3 else 3):
            size = (24, 32) if place == 1 else (40, 48)
            slices[f"{first + place}.mat"] = matlab(*slice16(first + place, *size), patients[place // 2], 1 + place % 3)
        files[f"brainTumorDataPublic_{first}-{first + 765}.zip"] = slices
    first_zip, second_zip = list(files)[:2]
    files[first_zip]["4.mat"] = files[first_zip]["4.mat"][:400]  # cut short
    image, mask = slice16(770)
    files[second_zip]["770.mat"] = matlab(image, mask[:24], "101016")  # a mask of another size
    with zipped(folder / "1512427.zip") as put:
        for name, slices in files.items():
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
                for path, content in slices.items():
                    archive.writestr(path, content)
            put(name, inner.getvalue())
        put("cvind.mat", matlab(*slice16(0), "0"))
        put("README.txt", b"four folds")
    return folder / "1512427.zip"


def ebhi_seg(folder: Path) -> Path:
    """EBHI-SEG.rar: six classes with spaces in their names, labels grey, RGB, of 1 bit and with a palette."""
    files: dict[str, bytes] = {}

    def pair(kind: str, name: str, number: int) -> None:
        image, mask = case(30_000 + number, 32, 32)
        files[f"EBHI-SEG/{kind}/image/{name}.png"] = encode(rgb(image))
        files[f"EBHI-SEG/{kind}/label/{name}.png"] = encode(KINDS[number % 4](mask))

    for number in range(20):
        pair("Adenocarcinoma", f"GT20121{number // 2:02d}-1-400-{number % 2 + 1:03d}", number)
    for number, kind in enumerate(("High-grade IN", "Low-grade IN", "Serrated adenoma", "Normal")):
        pair(kind, "GT2000000-1-400-001", 90 + number)
    pair("Adenocarcinoma", "GT2999999-1-400-001", 99)
    files["EBHI-SEG/Adenocarcinoma/label/GT2999998-1-400-001.png"] = files.pop("EBHI-SEG/Adenocarcinoma/label/GT2999999-1-400-001.png")
    (folder / "EBHI-SEG.rar").write_bytes(rar(files))
    return folder / "EBHI-SEG.rar"


def tnui_2021(folder: Path) -> Path:
    """The repository's zip: the same names in train, val and test, soft masks, a truncated picture."""
    with zipped(folder / "TNUI-2021--master.zip") as put:
        for offset, (part, count) in enumerate((("train", 11), ("val", 4), ("test", 3))):
            for number in range(count):
                image, mask = case(40_000 + 100 * offset + number)
                root, name = f"TNUI-2021--master/thyroid_data/{part}", f"{number:03d}.png"
                content = encode(image)
                put(f"{root}/images/{name}", content[:200] if (part, number) == ("train", 10) else content)
                put(f"{root}/masks/{name}", encode(soft_mask(mask)))
        put("TNUI-2021--master/thyroid_data/train/images/900.png", encode(case(40_900)[0]))
        put("TNUI-2021--master/README.md", b"# TNUI-2021")
    return folder / "TNUI-2021--master.zip"


def polyps(folder: Path) -> Path:
    """TrainDataset.zip with singular folder names beside TestDataset/ unpacked, with plural ones; sizes vary; a test image in train."""
    with zipped(folder / "TrainDataset.zip") as put:
        for number in range(12):
            image, mask = case(50_000 + number, 36 + number % 3, 48)
            if number == 11:
                image, mask = case(50_500)  # the first picture of CVC-300
            put(f"TrainDataset/image/{number}.png", encode(rgb(image)))
            put(f"TrainDataset/mask/{number}.png", encode(soft_mask(mask)))
        put("__MACOSX/TrainDataset/image/._0.png", b"nothing")
    put = in_folder(folder / "TestDataset")
    for offset, name in enumerate(("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir")):
        for number in range(2):
            image, mask = case(50_500 + 10 * offset + number)
            put(f"{name}/images/{number + 1}.png", encode(rgb(image)))
            put(f"{name}/masks/{number + 1}.png", encode(rgb_mask(mask)))
    return folder


def _covid(number: int) -> str:
    """Slices of two scans, and single ones."""
    return f"00{1 + number % 2} a_{number}" if number < 8 else f"{number}_tiny"


def covid_19(folder: Path) -> Path:
    """JPEG images, PNG masks, a picture that is there as JPEG and as PNG, one without a mask, and what Windows leaves behind."""
    put = in_folder(folder)
    for root, offset, count in (("COVID-19_Lung_Infection_train", 0, 10), ("COVID-19_Lung_Infection_test/COVID", 100, 5)):
        for number in range(count):
            image, mask = case(60_000 + offset + number)
            put(f"{root}/images/{_covid(number)}.jpg", encode(image, "JPEG"))
            put(f"{root}/masks/{_covid(number)}.png", encode(grey_mask(mask if number else np.zeros_like(mask))))
        put(f"{root}/images/Thumbs.db", b"nothing")
    put(f"COVID-19_Lung_Infection_train/images/{_covid(3)}.png", encode(case(60_003)[0]))
    put("COVID-19_Lung_Infection_train/images/77_tiny.jpg", encode(case(60_077)[0], "JPEG"))
    put("COVID-19_Lung_Infection_test/COVID/masks/78_tiny.png", encode(grey_mask(case(60_078)[1])))
    return folder


def busi(folder: Path) -> Path:
    """Names with spaces and parentheses, up to three masks an image, masks grey, RGB, of 1 bit and with a palette, one picture twice."""
    with zipped(folder / "Dataset_BUSI.zip") as put:
        for kind, offset, count in (("benign", 0, 10), ("malignant", 100, 6)):
            for number in range(1, count + 1):
                image, mask = case(
                    70_002 if (kind, number) == ("malignant", 4) else 70_000 + offset + number
                )  # malignant (4) is benign (2)
                name = f"Dataset_BUSI_with_GT/{kind}/{kind} ({number})"
                parts = np.array_split(np.arange(mask.shape[1]), 3) if number == 1 else [np.arange(mask.shape[1])]
                put(f"{name}.png", encode(rgb(image)))
                for position, part in enumerate(parts):
                    piece = np.zeros_like(mask)
                    piece[:, part] = mask[:, part]
                    put(f"{name}_mask{f'_{position}' if position else ''}.png", encode(KINDS[(number + position) % 4](piece)))
        for number in (1, 2):
            image, mask = case(70_200 + number)
            put(f"Dataset_BUSI_with_GT/normal/normal ({number}).png", encode(rgb(image)))
            put(f"Dataset_BUSI_with_GT/normal/normal ({number})_mask.png", encode(grey_mask(np.zeros_like(mask))))
        put("Dataset_BUSI_with_GT/benign/benign (99).png", encode(rgb(case(70_099)[0])))
    return folder / "Dataset_BUSI.zip"


def isic2018(folder: Path) -> Path:
    """Six archives, texts of one name in all, super-pixels beside the images, an image without a mask."""
    for part, first, count in (("Training", 0, 14), ("Validation", 100, 2), ("Test", 200, 2)):
        numbers = range(first, first + count)
        with zipped(folder / f"ISIC2018_Task1-2_{part}_Input.zip") as put:
            put(f"ISIC2018_Task1-2_{part}_Input/LICENSE.txt", b"CC BY-NC")
            for number in numbers:
                image, _ = case(80_000 + number, 40, 48 + number % 3)
                put(f"ISIC2018_Task1-2_{part}_Input/ISIC_{number:07d}.jpg", encode(rgb(image), "JPEG"))
                put(f"ISIC2018_Task1-2_{part}_Input/ISIC_{number:07d}_superpixels.png", encode(image))
            if part == "Training":
                put("ISIC2018_Task1-2_Training_Input/ISIC_0009999.jpg", encode(rgb(case(89_999)[0]), "JPEG"))
        with zipped(folder / f"ISIC2018_Task1_{part}_GroundTruth.zip") as put:
            put("LICENSE.txt", part.encode())
            for number in numbers:
                _, mask = case(80_000 + number, 40, 48 + number % 3)
                put(f"ISIC2018_Task1_{part}_GroundTruth/ISIC_{number:07d}_segmentation.png", encode(grey_mask(mask)))
    return folder


# the eight sets with the paper's counts


def write_full_release(name: str, folder: Path) -> Path:
    """A plain release with as many images as the paper has, of 64 px, in one archive without compression."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:64, :64]
    disc = (rows - 32) ** 2 + (columns - 30) ** 2 < 200
    base = (rows * 2 + disc * 90).astype(np.uint8)
    mask = encode(grey_mask(disc))

    def unique(number: int) -> np.ndarray:
        picture = base.copy()
        for digit in range(6):  # blocks that JPEG keeps
            picture[:8, 8 * digit : 8 * digit + 8] = 60 * (number // 4**digit % 4)
        return picture

    def image(number: int, kind: str = "PNG") -> bytes:
        return encode(unique(number), kind)

    def folders(parts: dict[str, tuple[str, int]], images: str = "images", masks: str = "masks", kind: str = "PNG") -> None:
        """`parts`: folder to the pattern of its names and the number of its images."""
        number = 0
        for part, (pattern, count) in parts.items():
            for place in range(count):
                put(f"{part}/{images}/{pattern.format(place)}.{'jpg' if kind == 'JPEG' else 'png'}", image(number, kind))
                put(f"{part}/{masks}/{pattern.format(place)}.png", mask)
                number += 1

    with zipped(folder / f"{name}.zip") as put:
        if name == "amd-sd":
            label = np.where(disc[..., None], np.uint8([255, 0, 255]), np.uint8(0))
            lists: dict[str, list[str]] = {"training.txt": [], "validation.txt": []}
            for number in range(2346 + 703):
                train = number < 2346
                path = f"{(number if train else number - 2346 + 100_000) // 22}/1_{number}.png"
                put(f"AMD-SD/images/{path}", encode(np.concatenate([rgb(unique(number)), label], axis=1)))
                lists["training.txt" if train else "validation.txt"].append(path)
            for text, lines in lists.items():
                put(f"AMD-SD/{text}", "\n".join(lines).encode())
        elif name == "btd":
            for number in range(1, 3065):
                patient = f"{(number - 1) // 766}{(number - 1) % 766 // 13:03d}"
                put(f"{number}.mat", matlab(unique(number).astype(np.int16), disc, patient))
        elif name == "ebhi-seg":
            names = [f"GT2{number // 3:06d}-1-400-{number % 3:03d}" for number in range(795)]
            for number, stem in enumerate(names):
                put(f"EBHI-SEG/Adenocarcinoma/image/{stem}.png", image(number))
                put(f"EBHI-SEG/Adenocarcinoma/label/{stem}.png", mask)
        elif name == "tnui-2021":
            folders({f"thyroid_data/{part}": ("{:03d}", count) for part, count in (("train", 966), ("val", 276), ("test", 139))})
        elif name == "polyps":
            sets = {"CVC-300": 60, "CVC-ClinicDB": 62, "CVC-ColonDB": 380, "ETIS-LaribPolypDB": 196, "Kvasir": 100}
            folders({"TrainDataset": ("{}", 1450), **{f"TestDataset/{one}": ("{}", count) for one, count in sets.items()}})
        elif name == "covid-19":
            root = "COVID-19_Lung_Infection_"
            folders({f"{root}train": ("{}", 894), f"{root}test/COVID": ("{}", 385)}, kind="JPEG")
        elif name == "busi":
            for kind, first, count in (("benign", 0, 437), ("malignant", 437, 210), ("normal", 647, 133)):
                for number in range(1, count + 1):
                    put(f"Dataset_BUSI_with_GT/{kind}/{kind} ({number}).png", image(first + number))
                    put(f"Dataset_BUSI_with_GT/{kind}/{kind} ({number})_mask.png", mask)
        else:
            for part, first, count in (("Training", 0, 2594), ("Validation", 2594, 100)):
                for number in range(first, first + count):
                    put(f"ISIC2018_Task1-2_{part}_Input/ISIC_{number:07d}.jpg", image(number, "JPEG"))
                    put(f"ISIC2018_Task1_{part}_GroundTruth/ISIC_{number:07d}_segmentation.png", mask)
    return folder / f"{name}.zip"
