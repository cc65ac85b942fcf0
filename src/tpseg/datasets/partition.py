"""Who is in which split: what a release says, what is drawn, and nobody in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from tpseg.data.splits import assign_splits

Protocol = Literal["tpseg", "paper"]
"""tpseg: train, val cut from the training images, and test, the images that the paper reports on. paper: its two parts, called train
and val, for it picks its best epoch on the images it reports on; there is no test."""

VAL_SHARE = 0.1
"""Of the training images, where a release names no validation part of its own."""
FRACTIONS = (0.7, 0.1, 0.2)
"""Train, val and test where neither the release nor a paper says anything."""
LEAK = "of a patient, case or picture that is in the reported part too"


@dataclass(frozen=True)
class Member:
    """A case to be put into a split."""

    name: str
    split: str
    """As the release says; '' if it does not."""
    group: str
    digest: str
    """Of its picture; '' for one that must not be compared."""


def partition(
    members: Sequence[Member], counts: Mapping[str, int], protocol: Protocol = "tpseg", seed: int = 0
) -> tuple[list[Member], list[Member]]:
    """The members that stay, in order, with their split and group, and what of the training part belongs with a reported image.

    `counts` are the paper's of its two parts, empty for a layout that no paper has drawn. Members of one group, or with the same
    picture, stay together; the group they share is written down. A release's own parts are kept, and so there may be members that
    belong to both: those of the training part do not stay, except under the paper's protocol, which has them. Parts that a release
    does not name are drawn, in the paper's proportion if there is one.
    """
    units = _units(members)
    grouped = _with_groups(members, units)
    drawn = _draw(grouped, units, counts, seed) if not any(member.split for member in members) else grouped
    reported = {units[one.name] for one in drawn if one.split == "test"}
    leaks = [one for one in drawn if one.split != "test" and units[one.name] in reported]
    if protocol == "paper":
        return [replace(one, split="val" if one.split == "test" else "train") for one in drawn], leaks
    kept = [one for one in drawn if one.split == "test" or units[one.name] not in reported]
    if not any(one.split == "val" for one in kept):
        kept = _cut_val(kept, units, seed)
    return kept, leaks


def _units(members: Sequence[Member]) -> dict[str, str]:
    """For each member the name of its unit: the first member of those that share a group or a picture with it, however indirectly."""
    parent = {member.name: member.name for member in members}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[tuple[str, str], str] = {}
    for member in members:
        for key in (("group", member.group), ("picture", member.digest)):
            if key[1]:
                other = first.setdefault(key, member.name)
                parent[root(member.name)] = root(other)
    return {name: root(name) for name in parent}


def _with_groups(members: Sequence[Member], units: Mapping[str, str]) -> list[Member]:
    """Members with the group of their unit: its first group's name, or, of pictures without a group, the first one's own."""
    names: dict[str, str] = {}
    for member in members:
        if member.group:
            names.setdefault(units[member.name], member.group)
    sizes = Counter(units.values())
    for unit, size in sizes.items():
        names.setdefault(unit, PurePosixPath(unit).stem if size > 1 else "")
    return [replace(one, group=names[units[one.name]]) for one in members]


def _draw(members: Sequence[Member], units: Mapping[str, str], counts: Mapping[str, int], seed: int) -> list[Member]:
    total = sum(counts.values())
    fractions = (counts["train"] / total, 0.0, counts["val"] / total) if total else FRACTIONS
    sizes: Counter[Hashable] = Counter(units[member.name] for member in members)
    assigned = assign_splits(sizes, fractions, seed)
    return [replace(member, split=assigned[units[member.name]]) for member in members]


def _cut_val(members: Sequence[Member], units: Mapping[str, str], seed: int) -> list[Member]:
    """Some of the training units become val."""
    sizes: Counter[Hashable] = Counter(units[member.name] for member in members if member.split == "train")
    assigned = assign_splits(sizes, (1 - VAL_SHARE, VAL_SHARE, 0.0), seed)
    return [replace(one, split=assigned[units[one.name]]) if one.split == "train" else one for one in members]
