"""`tpseg data prepare --preview`: the pairs that would be made, and what would be left out; nothing is decoded, nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tpseg.core.errors import DataError
from tpseg.data.left_out import MAX_LEFT_OUT, LeftOut, check_share, left_out_lines, refuse_losses
from tpseg.datasets.prepare import find_cases, hint_of, units
from tpseg.datasets.release import Release
from tpseg.datasets.source import Pair, Source

SHOWN = 20
"""Pairs on the screen."""


@dataclass(frozen=True)
class Preview:
    """What `prepare` would make of a release, as far as names tell."""

    pairs: list[Pair]
    left_out: list[LeftOut]
    refusal: str
    """Why nothing would be written, or ''."""
    hint: str
    """Groups that the names suggest, or ''."""

    def lines(self) -> list[str]:
        """For people: the first pairs and the last, and what is left out."""
        shown = self.pairs if len(self.pairs) <= SHOWN else [*self.pairs[: SHOWN - 1], self.pairs[-1]]
        lines = [_line(pair) for pair in shown]
        if len(self.pairs) > SHOWN:
            lines.insert(-1, f"... {len(self.pairs) - SHOWN} more ...")
        return [*lines, *left_out_lines(self.left_out), f"{len(self.pairs)} cases; nothing was written"]


def preview(source: Source, release_path: Path, others: Sequence[Source] = (), most_left_out: float = MAX_LEFT_OUT) -> Preview:
    """The pairs of a release; raises DataError if it is no release of this source. What has to be unpacked lies in the system's folder."""
    check_share(most_left_out)
    with Release(release_path) as release:
        pairs, left_out = find_cases(source, release, others)
    refusal = ""
    try:
        refuse_losses(release_path, units(pairs), left_out, most_left_out)
    except DataError as error:
        refusal = str(error)
    return Preview(pairs, left_out, refusal, hint_of(pairs))


def _line(pair: Pair) -> str:
    image, *masks = (str(file) for file in pair.files) if pair.files else (pair.name,)
    told = ", ".join([*([f"split {pair.split}"] if pair.split else []), *([f"group {pair.group}"] if pair.group else [])])
    return f"{pair.name}: {image} + {', '.join(masks)}{f' ({told})' if told else ''}"
