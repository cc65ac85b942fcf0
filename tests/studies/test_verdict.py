"""The verdicts on the paper's claims: the rule, what it is read from, and that the documentation says what the command says."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tpseg.cli import main
from tpseg.core.errors import DataError
from tpseg.studies.plan import definition_names, read_study
from tpseg.studies.verdict import CLAIMS, HOLDS, NOT_RUN, NOT_SHOWN, REVERSED, SETTING, UNTESTABLE, judge, read_claims, verdict_table

DOCS = Path(__file__).parents[2] / "docs"
RECORD = DOCS / "results" / "2026-11-22"


def tables(folder: Path, frozen: bool, rows: dict[str, tuple[float, float, float]]) -> Path:
    """A folder as a study of table3 leaves it: row to difference, low, high in points."""
    place = folder / "table3"
    place.mkdir()
    lines = [
        {"row": row, "task": task, "metric": "dice", "seeds": 3, "difference": d, "difference_low": low, "difference_high": high}
        for row, (d, low, high) in rows.items()
        for task in ("average", "skin_lesion")
    ]
    lines.append({"row": "A4", "task": "average", "metric": "dice", "seeds": 3})
    pd.DataFrame(lines).to_csv(place / "table3.csv", index=False)
    (place / SETTING).write_text(json.dumps({"budget": "small", "image_size": 64, "steps": 9, "trunk": "tiny", "frozen": frozen}))
    return folder


def verdicts(folder: Path) -> dict[str, str]:
    return {f"{one['study']} {one['row']}": one["verdict"] for one in verdict_table(folder).tidy.to_dict("records")}


@pytest.mark.parametrize(
    ("paper", "low", "high", "verdict"),
    [
        (-7.9, -6.5, -0.8, HOLDS),
        (-7.9, 0.1, 2, REVERSED),
        (7.9, 0.1, 2, HOLDS),
        (7.9, -2, -0.1, REVERSED),
        (-7.9, -1, 1, NOT_SHOWN),
        (1, 0, 2, NOT_SHOWN),
    ],
)
def test_a_claim_holds_if_the_whole_interval_lies_on_the_papers_side(paper: float, low: float, high: float, verdict: str) -> None:
    assert judge(paper, low, high) == verdict


def test_every_claim_is_about_a_row_with_a_number_of_the_papers_or_says_why_it_cannot_be_tested() -> None:
    claims = read_claims()
    assert len({one.claim for one in claims}) == len(claims) > 10
    for one in claims:
        assert bool(one.untestable) != bool(one.study), one
        if one.study:
            assert one.study in definition_names()
            rows = {row.id: row for row in read_study(one.study).rows}
            assert rows[one.row].paper["dice"] < rows[read_study(one.study).reference].paper["dice"], one


def test_what_adapts_a_frozen_trunk_is_judged_on_frozen_trunks_only(tmp_path: Path) -> None:
    rows = {"A1": (-3.0, -5, -1), "A2": (-2.0, -4, -1), "A3": (2.0, 1, 4), "A5": (0.5, -1, 2)}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    trained, frozen = verdicts(tables(tmp_path / "one", False, rows)), verdicts(tables(tmp_path / "two", True, rows))
    assert [trained[f"table3 {row}"] for row in ("A1", "A2", "A3", "A5", "B1")] == [HOLDS, UNTESTABLE, REVERSED, NOT_SHOWN, NOT_RUN]
    assert frozen["table3 A2"] == HOLDS
    assert {key: value for key, value in frozen.items() if key != "table3 A2"} == {
        key: value for key, value in trained.items() if key != "table3 A2"
    }


def test_the_table_gives_differences_from_the_claims_side_and_says_what_was_measured(tmp_path: Path) -> None:
    text = verdict_table(tables(tmp_path, False, {"A1": (-3.0, -5, 1)})).to_markdown()
    assert "| The full model is ahead of the baseline | Table 3, A1 | +7.9 | +3.0 (−1.0 to +5.0) | 3 | not shown |" in text
    assert "table3: budget small, 64 px, 9 steps, trunk tiny trained from scratch." in text


def test_without_tables_or_their_setting_the_reason_is_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table of table2, table3, table4"):
        verdict_table(tmp_path)
    folder = tables(tmp_path, False, {"A1": (-3.0, -5, -1)})
    (folder / "table3" / SETTING).unlink()
    with pytest.raises(DataError, match=r"setting\.json: cannot be read"):
        verdict_table(folder)


def test_the_documentation_has_the_table_that_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for study in ("table2", "table3"):
        (tmp_path / study).mkdir()
        for file in (RECORD / study).iterdir():
            (tmp_path / study / file.name).write_bytes(file.read_bytes())
    assert main(["study", "verdict", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'verdict'}" in said.replace("\n", "")
    assert max(map(len, said.splitlines()[1:5])) == 80
    assert all(f" {words} " in said for words in ("Table 3, A1", "(+0.8", "holds", "not shown", "cannot be"))
    written = (tmp_path / "verdict" / "verdict.md").read_text()
    assert written.partition("\n\n")[2] in (DOCS / "results.md").read_text()
    assert CLAIMS.is_file()
