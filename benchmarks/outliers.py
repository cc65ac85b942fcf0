"""How well a calibrated model tells what it does not know: pictures, pages and noise against a data set's test split.

    python -m benchmarks.outliers MODEL --data tasks.yaml

prints AUROC and the share that is flagged, for each kind and together, then for each task of the data set with its own images
left out of what the model knows, and the seconds of describing an image beside those of segmenting it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import skimage
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from tpseg.calibration.calibrate import IMAGES, group_numbers, some_of_each
from tpseg.calibration.features import describe_all, describe_with
from tpseg.calibration.outliers import auroc, fit_outliers
from tpseg.calibration.record import Trust, load_trust
from tpseg.calibration.space import fit_space
from tpseg.checkpoints.model_folder import find_model
from tpseg.core.errors import DataError
from tpseg.data.manifest import Case, DataSet, read_dataset
from tpseg.imaging.pictures.formats import read_image
from tpseg.inference import Segmenter

console = Console(markup=False, highlight=False, soft_wrap=True)

SKIMAGE = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "color.png", "grass.png",
    "gravel.png", "horse.png", "hubble_deep_field.jpg", "logo.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg",
)  # fmt: skip
"""Pictures that come with scikit-image and show neither tissue nor text; those of cells, retinas and slides are left out."""
MATPLOTLIB = ("grace_hopper.jpg", "logo2.png", "Minduka_Present_Blue_Pack.png")
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
CROPS = 6
PAGES = 60
NOISES = 12


def natural(rng: np.random.Generator) -> list[np.ndarray]:
    """Pictures that come with scikit-image and matplotlib, each whole and in six square crops of 128 pixels or more."""
    samples = Path(matplotlib.get_data_path()) / "sample_data"
    pictures = [read_image(of_skimage(name)) for name in SKIMAGE] + [read_image(samples / name) for name in MATPLOTLIB]
    return [part for picture in pictures for part in (picture, *crops(picture, CROPS, rng))]


def text(rng: np.random.Generator) -> list[np.ndarray]:
    """Scans of text: two that come with scikit-image, crops of one, and pages of random letters, turned a little, with grain."""
    page = read_image(of_skimage("page.png"))
    written = [random_page(number, rng) for number in range(PAGES)]
    return [page, read_image(of_skimage("text.png")), *crops(page, CROPS, rng), *written]


def noise(rng: np.random.Generator) -> list[np.ndarray]:
    """Uniform colours, Gaussian grey, pink, brown, salt and pepper, coloured blocks, one colour, smooth ramps; twelve of each."""
    return [make(int(rng.integers(100, 400)), rng) for _ in range(NOISES) for make in NOISE]


def of_skimage(name: str) -> Path:
    return Path(skimage.__file__).parent / "data" / name


def crops(picture: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Square parts, of 128 pixels to two thirds of the shorter side."""
    shorter = min(picture.shape[:2])
    found = []
    for _ in range(count):
        side = int(rng.integers(min(128, shorter), max(min(128, shorter), shorter * 2 // 3) + 1))
        row, column = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
        found.append(picture[row : row + side, column : column + side])
    return found


def random_page(number: int, rng: np.random.Generator) -> np.ndarray:
    """Lines of random words, dark on light."""
    width, height, size = (int(rng.integers(low, high)) for low, high in ((300, 1000), (300, 1000), (9, 30)))
    paper, ink, margin = int(rng.integers(200, 256)), int(rng.integers(0, 90)), int(rng.integers(5, 60))
    page = Image.new("L", (width, height), paper)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[number % len(FONTS)]), size)
    letters = list("abcdefghijklmnopqrstuvwxyz     ")
    for line in range(margin, height - margin, int(size * 1.4)):
        words = "".join(rng.choice(letters, size=int((width - 2 * margin) / size * 1.7)))
        ImageDraw.Draw(page).text((margin, line), words, fill=ink, font=font)
    grainy = np.asarray(page) + rng.normal(0, rng.uniform(0, 12), (height, width))
    turned = Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).rotate(rng.uniform(-4, 4), fillcolor=paper)
    return np.asarray(turned.convert("RGB"))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def coloured(side: int, power: float, rng: np.random.Generator) -> np.ndarray:
    """Grey noise whose amplitude falls with frequency to a power: 1 is pink, 2 brown."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    values = np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**power, s=(side, side))
    return grey(255 * (values - values.min()) / (values.max() - values.min()))


def enlarged(count: int, side: int, how: Image.Resampling, rng: np.random.Generator) -> np.ndarray:
    """A few random colours, stretched."""
    return np.asarray(Image.fromarray(rng.integers(0, 256, (count, count, 3), dtype=np.uint8)).resize((side, side), how))


NOISE = (
    lambda side, rng: rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
    lambda side, rng: grey(rng.normal(128, rng.uniform(10, 70), (side, side))),
    lambda side, rng: coloured(side, 1, rng),
    lambda side, rng: coloured(side, 2, rng),
    lambda side, rng: grey(rng.choice([0, 128, 255], size=(side, side), p=[0.1, 0.8, 0.1])),
    lambda side, rng: enlarged(8, side, Image.Resampling.NEAREST, rng),
    lambda side, rng: np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8),
    lambda side, rng: enlarged(2, side, Image.Resampling.BICUBIC, rng),
)
KINDS = {"natural images": natural, "text scans": text, "noise": noise}


def against_test(segmenter: Segmenter, trust: Trust, data: DataSet, seed: int) -> Iterator[str]:
    """A line for the test split, one for each kind of strange image, and one for all of these together."""
    known = trust.outliers.scores(trust.space(described(segmenter, data.split("test"))))
    yield f"{len(known)} test images: {flagged(known)} flagged (limit set for {trust.outliers.false_alarms:.0%})"
    together = []
    for kind, make in KINDS.items():
        pixels = (segmenter.load(image).pixels for image in make(np.random.default_rng(seed)))
        scores = trust.outliers.scores(trust.space(describe_all(segmenter.network, pixels)))
        together.append(scores)
        yield f"{kind}: {len(scores)} images, AUROC {auroc(scores, known):.3f}, {flagged(scores)} flagged"
    yield f"together: AUROC {auroc(torch.cat(together), known):.3f}"


def left_out(segmenter: Segmenter, data: DataSet, seed: int) -> Iterator[str]:
    """A line for each task: its test images as outliers of what the other tasks' training images tell."""
    splits = {split: data.split(split) for split in ("train", "val", "test")}
    splits["train"] = some_of_each(splits["train"], IMAGES, seed)
    groups = group_numbers(splits["train"])
    vectors = {split: described(segmenter, cases) for split, cases in splits.items()}
    for name in segmenter.tasks.names:
        other = {split: torch.tensor([case.task != name for case in cases]) for split, cases in splits.items()}
        ids = torch.tensor([segmenter.tasks.id(case.task) for case in splits["train"] if case.task != name])
        ids = torch.unique(ids, return_inverse=True)[1]  # from 0 without a gap
        train = vectors["train"][other["train"]]
        space = fit_space(train, ids)
        outliers = fit_outliers(train, ids, groups[other["train"]], space, vectors["val"][other["val"]], seed=seed)
        scores = outliers.scores(space(vectors["test"]))
        mine, others = scores[~other["test"]], scores[other["test"]]
        yield f"{name} left out: AUROC {auroc(mine, others):.3f}, {flagged(mine)} flagged"


def described(segmenter: Segmenter, cases: Sequence[Case]) -> torch.Tensor:
    return describe_all(segmenter.network, (segmenter.load(read_image(case.image)).pixels for case in cases))


def flagged(scores: torch.Tensor) -> str:
    return f"{100 * float((scores > 1).double().mean()):.1f} %"


def seconds(segmenter: Segmenter, runs: int = 20) -> tuple[float, float]:
    """Median seconds of describing and of segmenting one image."""
    pixels = torch.randn(1, 3, segmenter.image_size, segmenter.image_size)
    works = (lambda: describe_with(segmenter.network, pixels), lambda: segmenter.network(pixels, torch.tensor([0]), torch.tensor([0])))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, of_work in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            of_work.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model or run folder that tpseg calibrate has been run on")
    parser.add_argument("--data", required=True, help="the tasks.yaml it was calibrated with")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    trust = load_trust(find_model(chosen.model))
    if trust is None:
        raise DataError(f"{chosen.model}: not calibrated; run 'tpseg calibrate' first")
    segmenter, data = Segmenter(chosen.model), read_dataset(chosen.data)
    for line in (*against_test(segmenter, trust, data, chosen.seed), *left_out(segmenter, data, chosen.seed)):
        console.print(line)
    describing, segmenting = seconds(segmenter)
    console.print(f"an image: {1000 * describing:.1f} ms to describe, {1000 * segmenting:.1f} to segment ({describing / segmenting:.0%})")


if __name__ == "__main__":
    main()
