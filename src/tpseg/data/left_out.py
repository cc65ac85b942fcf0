"""What a data set leaves out: named, counted, and refused where it is more than a few percent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tpseg.core.errors import DataError, UsageError, few

MAX_LEFT_OUT = 0.05
"""Share of the cases that may be lost before a data set is refused; a user who knows better gives `--max-left-out`."""


@dataclass(frozen=True)
class LeftOut:
    """A file or a case that becomes no part of a data set, and why."""

    name: str
    reason: str
    """The same words for all of a kind: they are counted by it."""
    detail: str = ""
    """What was wrong with this one."""
    meant: bool = False
    """Left out by what the layout, the paper or the user says, or nobody's case: no loss."""


def by_reason(left_out: Sequence[LeftOut]) -> dict[str, list[LeftOut]]:
    """What is left out by its reason, losses first."""
    grouped: dict[str, list[LeftOut]] = defaultdict(list)
    for one in sorted(left_out, key=lambda one: one.meant):
        grouped[one.reason].append(one)
    return dict(grouped)


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """`133 left out, normal: ...: a, b, c and 130 more`: a line for each reason."""
    return [f"{len(ones)} left out, {reason}: {few([named(one) for one in ones], 3)}" for reason, ones in by_reason(left_out).items()]


def named(one: LeftOut) -> str:
    """`name (detail)`."""
    return f"{one.name} ({one.detail})" if one.detail else one.name


def check_share(share: float) -> None:
    """Raises UsageError for what is no share from 0 to 1."""
    if not 0 <= share <= 1:
        raise UsageError(f"max left out: found {share:g}, expected a share of the cases from 0 to 1")


def accepted(share: float) -> str:
    """What to give to `--max-left-out` for a share that is lost: rounded up, for what the user types must suffice."""
    return f"{min(1.0, -(-100 * share // 1) / 100):g}"


def refuse_losses(place: object, kept: int, left_out: Sequence[LeftOut], most: float = MAX_LEFT_OUT) -> None:
    """Raises DataError that begins with `place` where more than the share `most` of the cases is lost, or all; `kept` are the others.

    A volume of many slices counts as one.
    """
    lost = [one for one in left_out if not one.meant]
    share = len(lost) / max(1, kept + len(lost))
    if not kept:
        listed = "; ".join(left_out_lines(lost or left_out))
        raise DataError(f"{place}: nothing in it can be used{': ' if listed else ''}{listed}")
    if share > most:
        raise DataError(
            f"{place}: {len(lost)} of {kept + len(lost)} would be left out, more than {most:.0%}; "
            f"mend them, or accept it with --max-left-out {accepted(share)}: {'; '.join(left_out_lines(lost))}"
        )
