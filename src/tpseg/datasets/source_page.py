"""SOURCE.md: where prepared data come from, under which licence, how they were made and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from tpseg.core.untrusted import markdown
from tpseg.data.left_out import LeftOut, by_reason, named
from tpseg.data.manifest import SPLITS
from tpseg.datasets.partition import LEAK, VAL_SHARE
from tpseg.datasets.source import Source


@dataclass(frozen=True)
class Counts:
    """Images by part beside the paper's: `train` has the validation part that was cut from it."""

    splits: Mapping[str, int]
    """By split, as in split.csv."""
    train: int
    reported: int
    paper_train: int | None
    paper_reported: int | None
    leaks: int = 0
    """Training images kept for the paper's sake, of a patient or a picture that is reported too."""

    def __str__(self) -> str:
        """`train 2346 (of these 235 val), reported 703, as in the paper`."""
        if self.paper_train is None:
            return ", ".join(f"{split} {number}" for split, number in self.splits.items())
        cut = f" ({self.splits['val']} of them val)" if self.splits.get("test") and self.splits.get("val") else ""
        leaks = f"; {self.leaks} of the training images are {LEAK}" if self.leaks else ""
        found = f"training {self.train}{cut}, reported {self.reported}"
        if (self.train, self.reported) == (self.paper_train, self.paper_reported):
            return f"{found}, as in the paper{leaks}"
        return f"{found}; the paper has {self.paper_train} and {self.paper_reported}{leaks}"


def count(splits: Sequence[str], counts: Mapping[str, int], protocol: str, leaks: int) -> Counts:
    """Splits of the cases, counted beside the paper's counts (`train`, `val`; empty if there are none); `leaks` belong to both parts."""
    found = Counter(splits)
    by_split = {split: found[split] for split in SPLITS if found[split]}
    reported = found["val" if protocol == "paper" else "test"]
    kept_leaks = leaks if protocol == "paper" else 0
    return Counts(by_split, len(splits) - reported, reported, counts.get("train"), counts.get("val"), kept_leaks)


def source_page(
    source: Source, settings: Mapping[str, object], counts: Counts, shared: int, left_out: Sequence[LeftOut], command: str, hint: str = ""
) -> str:
    """The text of SOURCE.md; `shared` is the number of pictures that the release has more than once, `hint` what is said of groups."""
    facts = source.facts
    lines = [f"# {facts.title if facts else source.task.title}", ""]
    if facts:
        lines += [
            f"- Licence: {facts.licence}",
            f"- Page: {facts.page}",
            f"- Please cite: {facts.citation}",
            f"- Split: {facts.split}",
        ]
    else:
        lines.append("- Licence: that of your data; note it here")
    lines += [
        f"- Groups: {source.groups or 'none named in the release'}",
        f"- Prepared on {datetime.now(timezone.utc):%Y-%m-%d} with `{command}`",
        f"- Protocol {settings['protocol']}: {_protocol(str(settings['protocol']))}; seed {settings['seed']}",
        f"- SHA-256 of the download ({settings['hashed']}): {settings['release']}",
        f"- Images: {counts}; by split {', '.join(f'{split} {number}' for split, number in counts.splits.items())}",
    ]
    if lost := [one for one in left_out if not one.meant]:
        lines.append(f"- Lost: {len(lost)} that should have been cases or parts of one, see below")
    if hint:
        lines.append(f"- Warning: {markdown(hint)}")
    if shared:
        lines.append(f"- {shared} images show a picture that is there more than once; the copies have one group")
    lines += ["", "## Left out", ""]
    for reason, ones in by_reason(left_out).items():
        lines += [f"### {len(ones)}: {markdown(reason)}", "", *(f"- {markdown(named(one))}" for one in ones), ""]
    if not left_out:
        lines += ["Nothing.", ""]
    return "\n".join(lines)


def _protocol(protocol: str) -> str:
    if protocol == "paper":
        return "the paper's two parts; its val, on which it picks its best epoch and reports, is split val, and there is no test"
    val = f"val is {VAL_SHARE:.0%} of the training images, drawn by group, unless the release has one"
    return f"what is reported is split test; {val}; a training image {LEAK} is left out"
