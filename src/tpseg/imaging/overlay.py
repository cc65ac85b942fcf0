"""Drawing masks over images, for people to look at, with a line below that says what they see."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

FOUND = (255, 196, 0)
TRUE = (0, 200, 255)
"""Colours that people with colour-blindness tell apart: amber for the prediction, cyan for the truth."""
RESEARCH = "research only, not for diagnosis"
STRIP, INK = (24, 24, 24), (235, 235, 235)
LETTERS_A_LINE = 90
"""That the image's width has room for, as long as they can be read."""
LETTERS = (10, 40)
"""Smallest and largest height of a caption's letters in pixels."""


def contour(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask within `width` of its edge, (H, W) bool."""
    return mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)


def draw_overlay(image: np.ndarray, found: np.ndarray, true: np.ndarray | None = None) -> np.ndarray:
    """Contours over an image: prediction amber with a light tint, truth cyan; (H, W, 3) uint8 in and out."""
    width = max(1, round(max(image.shape[:2]) / 120))
    drawn = image.astype(np.float32)
    drawn[found] = 0.82 * drawn[found] + 0.18 * np.array(FOUND)
    if true is not None:
        drawn[contour(true, width)] = TRUE
    drawn[contour(found, width)] = FOUND
    return drawn.round().astype(np.uint8)


def with_caption(image: np.ndarray, task: str, model: str) -> np.ndarray:
    """An overlay (H, W, 3) uint8 that leaves the program, with task, model and RESEARCH in a strip below: (H + strip, W, 3)."""
    return np.concatenate([image, strip(image.shape[1], " · ".join(words for words in (task, model, RESEARCH) if words))])


@lru_cache(maxsize=64)
def strip(width: int, words: str) -> np.ndarray:
    """Words in as many lines as the width asks for, (h, width, 3) uint8."""
    smallest, largest = LETTERS
    size = min(max(2 * width // LETTERS_A_LINE, smallest), largest)
    font, margin = ImageFont.load_default(size), size // 3
    lines = broken(words, font, width - 2 * margin)
    step = size + margin
    picture = Image.new("RGB", (width, len(lines) * step + margin), STRIP)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((margin, margin // 2 + number * step), line, fill=INK, font=font)
    return np.asarray(picture)


def broken(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> list[str]:
    """Words in lines of so many pixels, broken at spaces, and inside a word only where it is longer than a line."""
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    return lines
