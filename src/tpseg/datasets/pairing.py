"""Which files of a folder are images and which their masks: patterns that the user gives, or that the files' names suggest.

A pattern is a path with stars: `*_mask` or `*/scan.png`. What its stars stand for, folders too, is the key by which an image and its
masks find each other; a pattern whose last part has no suffix takes any.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import PurePosixPath
from string import digits

from tpseg.core.errors import DataError
from tpseg.data.left_out import MAX_LEFT_OUT, accepted
from tpseg.data.splits import MASK_ENDING
from tpseg.datasets.layout import path_key, stem_of

MASK_WORD = re.compile(r"mask|label|segm|annot|truth|contour|(?<![a-z])(seg|gt|roi)(?![a-z])", re.IGNORECASE)
"""What a folder or an ending is called that says: masks."""
TAIL = re.compile(r"(.+)([_. -])([^_. -]*[^\W\d_][^_. -]*)([_. -]?\d{1,2})?")
"""A stem with an ending of letters, and perhaps the number of one of several: `a_mask`, `a_mask_2`."""
HEAD = re.compile(r"([^_. -]*[^\W\d_][^_. -]*[_. -])(.+)")
"""A stem with a beginning of letters: `mask_a`."""
JPEG = (".jpg", ".jpeg")
"""No format for masks: beside a picture of another one it is the image."""
TEMPLATES = 24
"""Patterns that are tried against each other, those of most files."""
TRIED = 40
"""Pairs of patterns that are tried on the files, those with most keys in common."""

Keyed = dict[str, list[PurePosixPath]]
"""Files by the key of their case, which is written as a path."""


@dataclass(frozen=True)
class Fit:
    """Two patterns, and what they make of the files."""

    images: str
    masks: str
    sure: bool
    """Whether names say which of the two are the masks."""
    found: tuple[Keyed, Keyed]

    @property
    def pairs(self) -> int:
        """Images that have a mask and their key to themselves."""
        return len(self.paired(0))

    @property
    def alone(self) -> int:
        """Files that are in no pair."""
        paired = {key for key in self.found[0] if key in self._mask_keys}
        return sum(len(files) for part in self.found for key, files in part.items() if key not in paired)

    def paired(self, part: int) -> list[PurePosixPath]:
        """The images, part 0, or the masks, part 1, that are in a pair."""
        if part == 0:
            return [files[0] for key, files in self.found[0].items() if len(files) == 1 and key in self._mask_keys]
        return [file for key, files in self.found[1].items() if self._image_key(key) in self.found[0] for file in files]

    def _image_key(self, key: str) -> str:
        """The key of the image that a mask's key means."""
        return key if key in self.found[0] else MASK_ENDING.sub("", key)

    @cached_property
    def _mask_keys(self) -> set[str]:
        return {self._image_key(key) for key in self.found[1]}


PEEKED = 3
"""Files of a kind that are looked into where names do not say which are masks."""


class Unclear(DataError):
    """Names do not say which files are images and which masks; with `options` the command would work."""

    def __init__(self, message: str, options: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.options = list(options)


class Pattern:
    """A path with stars."""

    def __init__(self, text: str) -> None:
        """text: a pattern, or a folder, which stands for all files below it."""
        text = text if "*" in text else f"{text}/*"
        self.text = re.sub(r"\*+", "*", text.replace("\\", "/").strip("/"))
        self.stars = self.text.count("*")
        last = self.text.rsplit("/", 1)[-1].rsplit("*", 1)[-1]
        self._any_suffix = "." not in last
        self.literal = len(self.text) - self.stars - (0 if self._any_suffix else len(last) - last.index("."))
        """Letters that must be there before the suffix: of two patterns that both fit, the one with more is meant."""
        self._expression = re.compile(re.escape(self.text).replace(r"\*", "(.*)"), re.IGNORECASE)

    def key(self, file: PurePosixPath) -> tuple[str, ...] | None:
        """What the stars stand for in a file's path; None if it does not fit."""
        match = self._expression.fullmatch(path_key(file) if self._any_suffix else str(file))
        return match.groups() if match else None


def by_patterns(files: Iterable[PurePosixPath], images: str, masks: str) -> tuple[Keyed, Keyed]:
    """The images and masks that fit two patterns; of one with more stars than the other the first ones are the key."""
    of_images, of_masks = Pattern(images), Pattern(masks)
    stars = min(of_images.stars, of_masks.stars)
    found: tuple[Keyed, Keyed] = (defaultdict(list), defaultdict(list))
    for file in files:
        keys = of_images.key(file), of_masks.key(file)
        part = 1 if keys[1] is not None and (keys[0] is None or of_masks.literal >= of_images.literal) else 0
        key = keys[part]
        if key is not None:
            found[part][_joined(key[:stars])].append(file)
    return dict(found[0]), dict(found[1])


def fitting(files: Sequence[PurePosixPath]) -> list[Fit]:
    """Pairs of patterns that fit the files, the best first: that pairs most images, and leaves fewest files alone."""
    keys: dict[str, dict[str, PurePosixPath]] = defaultdict(dict)
    for file in files:
        for pattern, key in _templates(file):
            keys[pattern][key] = file
    common = sorted(keys, key=lambda pattern: -len(keys[pattern]))[:TEMPLATES]
    promising: list[tuple[int, str, str, bool]] = []
    for images, masks in permutations(common, 2):
        shared = sum(keys[images][key] != keys[masks][key] for key in keys[images].keys() & keys[masks].keys())
        says = [bool(MASK_WORD.search(pattern)) for pattern in (images, masks)]
        jpeg = [PurePosixPath(pattern).suffix.lower() in JPEG for pattern in (images, masks)]
        if shared and says != [True, False] and (jpeg != [False, True] or says == [False, True]):
            promising.append((shared, images, masks, says == [False, True] or jpeg == [True, False]))
    promising.sort(key=lambda one: -one[0])
    fits = [Fit(images, masks, sure, by_patterns(files, images, masks)) for _, images, masks, sure in promising[:TRIED]]
    least = min(2, len(files) // 2)
    return sorted((fit for fit in fits if fit.pairs >= least), key=lambda fit: (-fit.pairs, fit.alone, -len(fit.images + fit.masks)))


def choose(files: Sequence[PurePosixPath], looks_like_a_mask: Callable[[PurePosixPath], bool], place: str) -> tuple[Keyed, Keyed]:
    """The images and masks by the patterns that fit best, none if none do.

    Raises Unclear, which begins with `place`, where names do not say which are the masks, or say it of two kinds, or where there are
    two kinds of images. What is proposed is decided by a look into the first files, or, of two kinds of images, is what has no ending.
    """
    fits = fitting(files)
    if not fits:
        return {}, {}
    equal = [fit for fit in fits if fit.pairs >= (1 - MAX_LEFT_OUT) * fits[0].pairs]  # a loss that would be no reason to refuse
    sure = [fit for fit in equal if fit.sure]
    sure = [fit for fit in sure if MASK_WORD.search(fit.masks)] or sure
    if sure:
        best, said = sure[0], ""
        for part, (text, word) in enumerate(((best.images, "images"), (best.masks, "masks"))):
            taken = set(best.paired(part))
            other = next((fit for fit in sure[1:] if not taken.intersection(fit.paired(part))), None)
            if other is not None:
                said = f"'{text}' and '{other.masks if part else other.images}' may both be {word}"
                best = best if part else min(sure, key=lambda fit: (Pattern(fit.images).literal, fit.alone))
        if not said:
            return best.found
    else:
        best, said = max(equal, key=lambda fit: _likelihood(fit, looks_like_a_mask)), "names do not say which are masks"
    options, gives = ["--images", best.images, "--masks", best.masks], f"{best.pairs} images with masks"
    if (share := best.alone / (best.alone + best.pairs)) > MAX_LEFT_OUT:
        options += ["--max-left-out", accepted(share)]
        gives += f" and leave out {best.alone} files"
    raise Unclear(f"{place}: {said}; {shlex.join(options)} would give {gives}", options)


def _likelihood(fit: Fit, looks_like_a_mask: Callable[[PurePosixPath], bool]) -> int:
    images, masks = (sum(map(looks_like_a_mask, fit.paired(part)[:PEEKED])) for part in range(2))
    return masks - images


def _templates(file: PurePosixPath) -> Iterator[tuple[str, str]]:
    """The patterns that a file may be meant by, each with the file's key."""
    key, stem = path_key(file), stem_of(file)
    folder = file.parent.as_posix().removeprefix(".")
    yield "*", key
    yield f"*{file.name[len(stem) :].lower()}", key
    if tail := TAIL.fullmatch(stem):
        ending = f"{tail[3].rstrip(digits)}*" if MASK_WORD.search(tail[3]) else tail[3]
        yield f"*{tail[2]}{ending}", _joined((folder, tail[1]))
    if head := HEAD.fullmatch(stem):
        yield f"{'*/' if folder else ''}{head[1]}*", _joined((folder, head[2]))
    if folder:
        yield f"*/{stem}", folder
        if not MASK_WORD.search(stem):
            yield "*/*", folder
        yield "*/*", key
    for depth, name in enumerate(file.parts[:-1]):
        above, below = "/".join(file.parts[:depth]), "/".join((*file.parts[depth + 1 : -1], MASK_ENDING.sub("", stem)))
        yield f"{'*/' if above else ''}{name}/*", _joined((above, below))
        if tail := TAIL.fullmatch(name):  # train_masks beside train, test_masks beside test
            yield f"{'*/' if above else ''}*{tail[2]}{tail[3]}/*", _joined((above, tail[1], below))


def _joined(parts: Sequence[str]) -> str:
    return "/".join(part for part in parts if part)
