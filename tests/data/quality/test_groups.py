"""Groups are suggested where names repeat like patients', and nowhere else; the expression suggested is one that works."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from tpseg.data.quality.groups import suggest_groups
from tpseg.data.splits import draw_split


def suggested(names: list[str]) -> str:
    said = suggest_groups(names)
    return re.search("--group '(.*)'$", said)[1] if said else ""  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("p{0:02d}_{1}", ["p00", "p01", "p02", "p03"]),
        ("patient{0}-slice{1}", ["patient0", "patient1", "patient2", "patient3"]),
        ("{0:03d}_{1:03d}", ["000", "001", "002", "003"]),
        ("study2_case{0}_{1}", [f"study2_case{number}" for number in range(4)]),
        ("P{0}S{1}", ["P0", "P1", "P2", "P3"]),
        ("1.2.84.{0}/IM{1}", [f"1.2.84.{number}" for number in range(4)]),
        ("p{0}/{1}", ["p0", "p1", "p2", "p3"]),
    ],
)
def test_names_of_patients_are_seen_and_the_expression_finds_them(name: str, groups: list[str]) -> None:
    names = [name.format(patient, number) for patient in range(4) for number in range(5)]
    pattern = suggested(names)
    assert [re.search(pattern, one)[1] for one in names[::5]] == groups  # type: ignore[index]


@pytest.mark.parametrize(
    "names",
    [
        [f"ISIC_{number:07d}" for number in range(30)],
        [f"img{number}" for number in range(30)],
        [f"{kind} ({number})" for kind in ("benign", "malignant", "normal") for number in range(10)],
        [f"ISIC2018_{number}" for number in range(30)],
        [f"{part}/{number}" for part in ("train", "val", "test") for number in range(10)],
        [f"{number}_mask" for number in range(30)],
        ["a1_1", "a2_1", "a3_1", *(f"set7_{number}" for number in range(30))],  # a prefix, not a patient
        [],
    ],
)
def test_other_names_are_left_alone(names: list[str]) -> None:
    assert suggest_groups(names) == ""


def test_the_sentence_counts() -> None:
    said = suggest_groups([f"p{number // 5}_{number}" for number in range(20)])
    assert "20 images of 4 (p0, p1, p2 and 1 more)" in said


def test_an_expression_for_names_of_which_some_are_others_matches_all() -> None:
    names = [f"p{number // 5}_{number}.png" for number in range(20)] + ["extra.png"]
    pattern = suggested([name.removesuffix(".png") for name in names])
    drawn = draw_split(pd.DataFrame({"image": names, "mask": names}), group=pattern)
    assert set(drawn["group"]) == {"p0", "p1", "p2", "p3", "extra"}
