"""A look at a data set: some images of each task with the contours of their masks, as one picture or one page."""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import replacing, write_atomically
from tpseg.core.prefetch import ahead
from tpseg.data.manifest import SPLITS, Case, DataSet
from tpseg.data.pairs import read_pair
from tpseg.imaging.overlay import draw_overlay

SIDE = 224
"""Pixels: the longer side of a thumbnail."""
ACROSS = 8
"""Thumbnails in a row of the picture, at most."""
GAP, LINE = 10, 16
"""Pixels between thumbnails, and of a line of text."""
INK, SOFT = "#1d2630", "#59636d"
KINDS = (".png", ".html")


@dataclass(frozen=True)
class Tile:
    """One case: the image with its contour (h, w, 3) uint8, or None, and in `note` what there is to say of it."""

    case: Case
    picture: np.ndarray | None
    note: str = ""

    @property
    def caption(self) -> str:
        return f"{self.case.split} · {self.case.group}" if self.case.group else self.case.split

    @property
    def uri(self) -> str:
        """The picture for a page, '' where there is none; colours at full resolution, for contours are thin."""
        if self.picture is None:
            return ""
        buffer = io.BytesIO()
        Image.fromarray(self.picture).save(buffer, format="JPEG", quality=85, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_sheet(
    data: DataSet,
    out: Path,
    number: int = 8,
    split: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tile]:
    """Write `number` images of each task, of one split or spread over all, to a .png or a .html that needs no other file.

    The same seed chooses the same cases. Returns what is shown; a case that cannot be read stands there with the reason.
    Raises UsageError for another kind of file or a number under 1, DataError if there is nothing to show.
    """
    if out.suffix.lower() not in KINDS:
        raise UsageError(f"--out {out}: found '{out.suffix}', expected {' or '.join(KINDS)}")
    if number < 1:
        raise UsageError(f"--number: found {number}, expected 1 or more")
    if split is not None:
        data.split(split)  # raises if there is none
    cases = [case for task in data.tasks.names for case in choose(data, task, number, split, seed)]
    tiles = []
    with ThreadPoolExecutor(2) as pool:
        for tile in ahead(pool, _tile, cases, 4):
            tiles.append(tile)
            if progress:
                progress(len(tiles), len(cases))
    titles = {task.name: task.title for task in data.tasks}
    sections = [(titles[task], list(shown)) for task, shown in groupby(tiles, lambda tile: tile.case.task)]
    if out.suffix.lower() == ".html":
        environment = Environment(loader=PackageLoader("tpseg", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        page = environment.get_template("contact_sheet.html")
        write_atomically(out, page.render(name=data.source.resolve().parent.name, sections=sections))
    else:
        with replacing(out) as new:
            draw_sheet(sections).save(new, format="PNG")
    return tiles


def choose(data: DataSet, task: str, number: int, split: str | None = None, seed: int = 0) -> list[Case]:
    """Cases of a task, by split: as many of each split as there are, drawn by the seed, of as many groups as there are."""
    drawn = [_draw(data, task, name, seed) for name in SPLITS if split in (None, name)]
    in_turn = [case for turn in zip_longest(*drawn) for case in turn if case is not None]
    return sorted(in_turn[:number], key=lambda case: SPLITS.index(case.split))


def _draw(data: DataSet, task: str, split: str, seed: int) -> list[Case]:
    """The cases of one split in the order in which they are taken: a case of each group first, then a second one of each."""
    cases = [case for case in data.cases if (case.task, case.split) == (task, split)]
    random.Random(f"{seed} {task} {split}").shuffle(cases)
    seen: Counter[str] = Counter()
    turns = {}
    for case in cases:
        turns[id(case)] = seen[case.group] if case.group else 0
        seen[case.group] += 1
    return sorted(cases, key=lambda case: turns[id(case)])


def _tile(case: Case) -> Tile:
    try:
        image, mask = read_pair(case)
    except DataError as error:
        return Tile(case, None, f"cannot be shown: {error}")
    small, outline = thumbnail(image), shrink_mask(mask)
    return Tile(case, draw_overlay(small, np.zeros_like(outline), outline), "" if mask.any() else "no lesion")


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with its longer side brought to SIDE."""
    return np.asarray(Image.fromarray(image).resize(_small(image.shape), Image.Resampling.BILINEAR))


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool as small as its thumbnail, by area; even the smallest lesion keeps a pixel."""
    soft = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(_small(mask.shape), Image.Resampling.BOX))
    return soft >= min(0.5, soft.max()) if mask.any() else soft > 0


def _small(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) for Pillow."""
    scale = SIDE / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def draw_sheet(sections: Sequence[tuple[str, Sequence[Tile]]]) -> Image.Image:
    """Tasks below each other, under each title its tiles in rows, names and splits below them."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    plain, bold = (ImageFont.truetype(str(fonts / name), 12) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"))
    title_font = bold.font_variant(size=17)
    places = list(_places(sections))
    across = max(len(tiles[:ACROSS]) for _, tiles in sections)
    height = places[-1][2] + GAP
    sheet = Image.new("RGB", (GAP + across * (SIDE + GAP), height), "white")
    pen = ImageDraw.Draw(sheet)
    for what, x, y in places:
        if isinstance(what, str):
            pen.text((x, y), _fitting(what, title_font, sheet.width - 2 * GAP), INK, title_font)
        elif what is not None:
            if what.picture is not None:
                sheet.paste(Image.fromarray(what.picture), (x, y))
            else:
                pen.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=SOFT)
                pen.multiline_text((x + 6, y + 6), _wrapped(what.note, plain, SIDE - 12, SIDE // LINE - 1), INK, plain)
            below = y + (SIDE if what.picture is None else what.picture.shape[0]) + 3
            note = " · no lesion" if what.picture is not None and what.note else ""
            pen.text((x, below), _fitting(what.case.name, plain, SIDE, keep_end=True), INK, plain)
            pen.text((x, below + LINE), _fitting(what.caption + note, plain, SIDE), SOFT, plain)
    return sheet


def _places(sections: Sequence[tuple[str, Sequence[Tile]]]) -> Iterator[tuple[str | Tile | None, int, int]]:
    """Where each title and tile goes, (x, y) of its upper left corner; last None, at the lower end."""
    y = GAP
    for title, tiles in sections:
        yield title, GAP, y
        y += 28
        for start in range(0, len(tiles), ACROSS):
            row = tiles[start : start + ACROSS]
            for column, tile in enumerate(row):
                yield tile, GAP + column * (SIDE + GAP), y
            y += max(SIDE if tile.picture is None else tile.picture.shape[0] for tile in row) + 2 * LINE + 3 + GAP
    yield None, 0, y


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int, keep_end: bool = False) -> str:
    """The text cut to a width in pixels; of a path the end tells more than the beginning."""
    shown = text
    while font.getlength(shown) > width and len(text) > 1:
        text = text[1:] if keep_end else text[:-1]
        shown = f"…{text}" if keep_end else f"{text}…"
    return shown


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> str:
    """The text in lines of a width in pixels, broken anywhere, for paths have no spaces."""
    found = [""]
    for letter in text:
        if font.getlength(found[-1] + letter) > width:
            found.append("")
        found[-1] += letter
    return "\n".join(found[:lines])
