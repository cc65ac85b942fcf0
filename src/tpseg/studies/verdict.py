"""Which of the paper's claims hold here: a line for each of claims.yaml, judged by the tables that studies have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tpseg.core.errors import DataError
from tpseg.core.untrusted import read_json, read_yaml
from tpseg.studies.plan import HERE, Row, Study, read_study
from tpseg.studies.statistics import AVERAGE
from tpseg.studies.table_formats import DASH, Cell, Heading, Line, Table

CLAIMS = HERE / "claims.yaml"
SETTING = "setting.json"
"""Beside a study's table: what its models had in common."""
HOLDS, NOT_SHOWN, REVERSED, UNTESTABLE, NOT_RUN = "holds", "not shown", "reversed", "cannot be tested here", "not run"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper's, and what speaks to it."""

    claim: str
    place: str
    """Where the paper says so."""
    study: str = ""
    row: str = ""
    frozen: bool = False
    """It is about adapting a frozen trunk: models whose trunk was trained say nothing of it."""
    untestable: str = ""


@dataclass(frozen=True)
class Judged:
    """What we found of a claim. Differences in percentage points of average Dice: the row less its study's reference."""

    claim: Claim
    paper: float | None
    ours: float | None
    low: float | None
    high: float | None
    seeds: int
    verdict: str
    why: str = ""


def read_claims() -> list[Claim]:
    return [Claim(**entry) for entry in read_yaml(CLAIMS)]


def judge(paper: float, low: float, high: float) -> str:
    """What an interval says of a difference that the paper gives as `paper`: whether all of it lies on the paper's side of 0."""
    if low > 0 or high < 0:
        return HOLDS if (low > 0) == (paper > 0) else REVERSED
    return NOT_SHOWN


def judged(claim: Claim, tables: Path) -> Judged:
    """A claim by the table that `tables`/STUDY holds, where there is one."""
    if claim.untestable:
        return Judged(claim, None, None, None, None, 0, UNTESTABLE, claim.untestable)
    study = read_study(claim.study)
    row, reference = _row(study, claim.row), _row(study, study.reference)
    paper = float(row.paper["dice"]) - float(reference.paper["dice"])
    found = _average(tables / claim.study / f"{claim.study}.csv", claim.row)
    if found is None:
        return Judged(claim, paper, None, None, None, 0, NOT_RUN)
    ours, low, high = (float(found[key]) for key in ("difference", "difference_low", "difference_high"))
    result, why = judge(paper, low, high), ""
    if claim.frozen and not read_setting(tables / claim.study)["frozen"]:
        result, why = UNTESTABLE, "it is about adapting a frozen trunk, and the trunk of these models was trained"
    return Judged(claim, paper, ours, low, high, int(found["seeds"]), result, why)


def _row(study: Study, name: str) -> Row:
    return next(row for row in study.rows if row.id == name)


def _average(table: Path, row: str) -> Mapping[Any, Any] | None:
    """The line of a study's table on a row's average Dice; None where it was not run, or not beside the reference."""
    if not table.is_file():
        return None
    lines = pd.read_csv(table)
    found = lines[(lines["row"] == row) & (lines["task"] == AVERAGE) & (lines["metric"] == "dice")].dropna(subset="difference")
    return None if found.empty else found.iloc[0].to_dict()


def read_setting(folder: Path) -> dict[str, Any]:
    """What the models of a study had in common; raises DataError where its table does not say."""
    try:
        return dict(read_json(folder / SETTING))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / SETTING}: cannot be read ({error}); expected it beside the table: run the study once more") from error


def verdict_table(tables: Path) -> Table:
    """The claims with the paper's difference, ours with its interval, and what follows; raises DataError if `tables` has no study."""
    found = [judged(claim, tables) for claim in read_claims()]
    if all(one.ours is None for one in found):
        studies = ", ".join(sorted({one.claim.study for one in found} - {""}))
        raise DataError(f"{tables}: holds no table of {studies}; run one of them with --out {tables} first")
    lines = [
        Line(
            "",
            (one.claim.claim, one.claim.place),
            [Cell(_points(one.paper)), Cell(_interval(one)), Cell(str(one.seeds) if one.ours is not None else DASH), Cell(one.verdict)],
        )
        for one in found
    ]
    headings = [Heading("", text) for text in ("paper", "ours (95 %)", "seeds", "verdict")]
    tidy = pd.DataFrame([vars(one.claim) | {key: value for key, value in vars(one).items() if key != "claim"} for one in found])
    return Table("verdict", "Which of the paper's claims hold here", ("claim", "where"), headings, lines, _notes(found, tables), tidy)


def _notes(found: list[Judged], tables: Path) -> list[str]:
    notes = [
        "Differences in average Dice, in percentage points: what is claimed to be better less what it is compared with. "
        "Holds: the whole interval, over seeds and test images, lies on the paper's side of 0; reversed: on the other; not shown: "
        "0 lies in it."
    ]
    for why in dict.fromkeys(one.why for one in found if one.why):
        places = ", ".join(one.claim.place for one in found if one.why == why)
        notes.append(f"{UNTESTABLE[0].upper()}{UNTESTABLE[1:]} ({places}): {why}.")
    for study in sorted({one.claim.study for one in found if one.ours is not None}):
        setting = read_setting(tables / study)
        size, trunk = f"{setting['image_size']} px", "frozen" if setting["frozen"] else "trained from scratch"
        notes.append(f"{study}: budget {setting['budget']}, {size}, {setting['steps']} steps, trunk {setting['trunk']} {trunk}.")
        notes += [f"{study}: {setting['caveat']}"] if "caveat" in setting else []
    return notes


def _points(value: float | None) -> str:
    """The claim's own side positive: what is claimed to be better comes first."""
    return DASH if value is None else f"{-value:+.1f}".replace("-", "−")


def _interval(one: Judged) -> str:
    if one.ours is None or one.low is None or one.high is None:
        return DASH
    return f"{_points(one.ours)} ({_points(one.high)} to {_points(one.low)})"
