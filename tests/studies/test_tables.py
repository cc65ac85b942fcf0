"""The table of a small study in its two layouts and four formats."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.studies.plan import Row, Study
from tpseg.studies.statistics import compare, summarise
from tpseg.studies.table_formats import GREEK, LATEX, Cell
from tpseg.studies.tables import Table, study_table

TITLES = {"skin": "Skin Lesion", "breast": "Breast Lesion"}
PARTS, RATES = "(A) Each component", "(C) Hyper_parameters & 100 %"
ROWS = (
    Row("A1", "Baseline", PARTS, paper={"dice": 78.69, "miou": 78.02}),
    Row("A4", "Full | *TP-Seg*", PARTS, paper={"dice": 86.63, "miou": 86.44}),
    Row("C1", "λ_p = 2.5, α < 1", RATES, paper={"dice": 86.28, "note": "as the scan reads"}),
)
STUDY = Study("table_3", "Ablations & more", "A4", ROWS)
AVERAGES = Study("table4", "Decoders", "A4", ROWS, layout="averages")


def summary_line(row: str, task: str, dice: float, iou: float, seeds: int = 3) -> dict[str, object]:
    spread = 0.005 if seeds > 1 else float("nan")
    ends = {"dice_low": dice - 0.01, "dice_high": dice + 0.02, "iou_low": iou - 0.01, "iou_high": iou + 0.01}
    return {
        "row": row,
        "task": task,
        "seeds": seeds,
        "images": 9,
        "dice": dice,
        "dice_spread": spread,
        "iou": iou,
        "iou_spread": spread,
        **ends,
    }


def comparison_line(row: str, task: str, difference: float, p: float) -> dict[str, object]:
    ends = {"low": difference - 0.01, "high": difference + 0.0125}
    return {"row": row, "task": task, "seeds": 3, "difference": difference, **ends, "p": p / 2, "p_corrected": p, "seeds_ahead": "0/3"}


SUMMARY = pd.DataFrame(
    [
        summary_line("A1", "skin", 0.7, 0.6),
        summary_line("A1", "breast", 0.51234, 0.4),
        summary_line("A1", "average", 0.60617, 0.5),
        summary_line("A4", "skin", 0.8, 0.7),
        summary_line("A4", "breast", 0.51226, 0.5),
        summary_line("A4", "average", 0.65613, 0.6),
    ]
)
COMPARISON = pd.DataFrame([comparison_line("A1", "skin", -0.1, 0.01), comparison_line("A1", "average", -0.04996, 0.0004)])


@pytest.fixture
def table() -> Table:
    return study_table(STUDY, SUMMARY, COMPARISON, TITLES)


def column(table: Table, heading: str) -> list[Cell]:
    position = [str(one) for one in table.headings].index(heading)
    return [line.cells[position] for line in table.lines]


def markdown_row(table: Table, start: str) -> list[str]:
    line = next(line for line in table.to_markdown().splitlines() if line.startswith(f"| {start}"))
    return [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_columns_are_the_papers_then_ours(table):
    tasks = [f"{task} {metric}" for task in ("Skin Lesion", "Breast Lesion", "Average") for metric in ("Dice", "mIoU")]
    tests = ["Average Dice 95 % interval", "Average Dice less A4", "Average Dice corrected p"]
    assert [str(heading) for heading in table.headings] == [*tasks, *tests, "Paper Dice", "Paper mIoU"]


def test_best_and_second_are_marked_in_each_column(table):
    marks = [cell.mark for cell in column(table, "Skin Lesion Dice")]
    assert marks == ["second", "best", ""]
    assert not any(cell.mark for heading in ("Paper Dice", "Average Dice corrected p") for cell in column(table, heading))


def test_what_looks_the_same_is_marked_the_same(table):
    """0.51234 and 0.51226 are both 51.23: both are best, nothing is second."""
    assert column(table, "Breast Lesion Dice")[:2] == [Cell("51.23", "0.50", "best")] * 2


def test_second_is_the_next_number_after_a_tie():
    lines = [summary_line(row, "average", dice, 0.5) for row, dice in (("A1", 0.7), ("A4", 0.7), ("C1", 0.6))]
    table = study_table(STUDY, pd.DataFrame(lines), pd.DataFrame(), TITLES)
    assert [cell.mark for cell in column(table, "Average Dice")] == ["best", "best", "second"]


def test_a_lone_row_is_not_best():
    table = study_table(STUDY, SUMMARY.query("row == 'A1'"), pd.DataFrame(), TITLES)
    assert column(table, "Average Dice")[0] == Cell("60.62", "0.50", "")


def test_differences_intervals_and_p_as_text(table):
    assert [cell.value for cell in column(table, "Average Dice 95 % interval")] == ["59.62 to 62.62", "64.61 to 67.61", "–"]
    assert [cell.value for cell in column(table, "Average Dice less A4")] == ["−5.00 (−6.00 to −3.75)", "–", "–"]
    assert [cell.value for cell in column(table, "Average Dice corrected p")] == ["< 0.001", "–", "–"]
    gain = study_table(STUDY, SUMMARY, pd.DataFrame([comparison_line("A1", "average", 0.00001, 0.6244)]), TITLES)
    assert column(gain, "Average Dice less A4")[0].value == "0.00 (−1.00 to +1.25)"
    assert column(gain, "Average Dice corrected p")[0].value == "0.624"


def test_a_row_without_scores_is_dashes_and_named(table):
    assert [cell.value for cell in table.lines[2].cells] == ["–"] * 9 + ["86.28", "–"]
    assert "No scores (failed, or not run yet): C1 (λ_p = 2.5, α < 1)." in table.notes


def test_a_row_with_fewer_seeds_is_named():
    lines = [summary_line("A1", "average", 0.6, 0.5, 1), summary_line("A4", "average", 0.7, 0.6)]
    table = study_table(STUDY, pd.DataFrame(lines), pd.DataFrame(), TITLES)
    assert "Fewer than 3 seeds with all tasks: A1 (Baseline) 1." in table.notes
    assert [cell.spread for cell in column(table, "Average Dice")] == ["", "0.50", ""]


def test_the_notes_say_how_the_numbers_were_made(table):
    notes = " ".join(table.notes)
    assert "Best in bold, second best underlined" in notes
    said = (
        PROTOCOLS["tpseg"].definition,
        "3 seeds; ± is the standard deviation",
        "percentile bootstrap",
        "sign-flip",
        "Holm",
        "not to be compared",
    )
    for words in (*said, "Paper, C1 (λ_p = 2.5, α < 1): as the scan reads."):
        assert words in notes
    assert "default: mask at 1/2, original size" in " ".join(study_table(STUDY, SUMMARY, COMPARISON, TITLES, "default").notes)


def test_one_seed_is_said_and_has_no_spread():
    lines = [summary_line(row, "average", dice, 0.5, 1) for row, dice in (("A1", 0.7), ("A4", 0.6))]
    table = study_table(STUDY, pd.DataFrame(lines), pd.DataFrame(), TITLES)
    assert "1 seed; there is no spread over seeds." in table.notes[0]
    assert "±" not in table.to_markdown()


def test_without_the_papers_numbers_there_is_no_column_for_them():
    study = Study("own", "My rows", "A", (Row("A", "one"), Row("B", "two")))
    table = study_table(study, pd.DataFrame(), pd.DataFrame(), TITLES)
    assert not any(heading.over == "Paper" for heading in table.headings)
    assert not any("paper" in note for note in table.notes)


def test_markdown(table):
    text = table.to_markdown()
    assert text.startswith("**Ablations & more**\n\n| ID | Setting | Skin Lesion Dice | Skin Lesion mIoU | Breast Lesion Dice |")
    assert "\n| :-- | :-- | --: |" in text
    assert markdown_row(table, "A1")[:4] == ["A1", "Baseline", "<u>70.00</u> ± 0.50", "<u>60.00</u> ± 0.50"]
    assert markdown_row(table, "A4")[:4] == ["A4", r"Full \| \*TP-Seg\*", "**80.00** ± 0.50", "**70.00** ± 0.50"]
    assert markdown_row(table, "C1")[1] == r"λ_p = 2.5, α \< 1"
    assert [line.split(" |")[0] for line in text.splitlines() if line.startswith("| *")] == [f"| *{PARTS}*", f"| *{RATES}*"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")} == {14}


def columns_of(row: str) -> int:
    """Columns that a row of a LaTeX tabular fills."""
    spanned = sum(int(count) - 1 for count in re.findall(r"\\multicolumn\{(\d+)\}", row))
    return len(re.findall(r"(?<!\\)&", row)) + 1 + spanned


@pytest.mark.parametrize("study", [STUDY, AVERAGES])
def test_latex_rows_fill_the_columns_and_braces_close(study):
    table = study_table(study, SUMMARY, COMPARISON, TITLES)
    text = table.to_latex()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    letters = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert letters is not None
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert {columns_of(row) for row in rows} == {len(letters.group(1))}
    assert text.isascii()


def test_latex(table):
    text = table.to_latex()
    assert r"\caption{Ablations \& more}" in text
    assert r"\label{tab:table-3}" in text
    assert r"\multicolumn{2}{c}{Skin Lesion} & \multicolumn{2}{c}{Breast Lesion} &" in text
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}" in text
    assert r"\multicolumn{13}{l}{\textit{(C) Hyper\_parameters \& 100 \%}} \\" in text
    assert r"A1 & Baseline & \underline{70.00} $\pm$ 0.50 &" in text
    assert r"A4 & Full $|$ {*}TP-Seg{*} & \textbf{80.00} $\pm$ 0.50 &" in text
    assert r"C1 & $\lambda_{p}$ = 2.5, $\alpha$ $<$ 1 & -- &" in text
    assert r"$-$5.00 ($-$6.00 to $-$3.75) & $<$ 0.001 &" in text


def test_every_special_character_has_a_latex_form():
    """A name of all of them comes out as ASCII, in which only commands, mathematics and groups are left."""
    name = "".join([*LATEX, *GREEK])
    text = study_table(Study("t", name, "A", (Row("A", name),)), pd.DataFrame(), pd.DataFrame(), {}).to_latex()
    assert text.isascii()
    assert rf"\caption{{{''.join(LATEX.values())}$\alpha$$\beta$" in text


def test_csv_is_plain_numbers_in_percent(table):
    frame = pd.read_csv(io.StringIO(table.to_csv())).set_index(["row", "task", "metric"])
    assert len(frame) == 3 * 3 * 2
    average = frame.loc[("A1", "average", "dice")]
    assert average[["mean", "spread", "low", "high"]].tolist() == [60.617, 0.5, 59.617, 62.617]
    assert average[["difference", "difference_low", "difference_high", "p_corrected", "paper"]].tolist() == [
        -4.996,
        -5.996,
        -3.746,
        0.0004,
        78.69,
    ]
    assert frame.loc[("A1", "skin", "dice"), "p_corrected"] == 0.01
    assert frame.loc[("A1", "average", "iou"), "paper"] == 78.02
    assert frame.loc[("C1", "average", "dice"), ["mean", "seeds"]].isna().all()
    assert frame["name"].unique().tolist() == [row.name for row in ROWS]


def test_html_escapes_marks_and_loads_nothing(table):
    text = table.to_html()
    assert "<b>80.00</b>" in text
    assert "<u>70.00</u>" in text
    assert "λ_p = 2.5, α &lt; 1" in text
    assert text.count('<tr class="group">') == 2
    assert 'name="viewport"' in text
    assert not re.search(r"https?:|src=|href=|<script", text)


def test_averages_stand_rows_side_by_side():
    table = study_table(AVERAGES, SUMMARY, COMPARISON, TITLES)
    assert [heading.text for heading in table.headings] == [row.name for row in ROWS]
    labels = ["Average Dice", "Average mIoU", "Average Dice 95 % interval"]
    labels += ["Average Dice less Full | *TP-Seg*", "Average Dice corrected p", "Paper Dice", "Paper mIoU"]
    assert [line.labels[0] for line in table.lines] == labels
    assert table.lines[0].cells == [Cell("60.62", "0.50", "second"), Cell("65.61", "0.50", "best"), Cell()]
    assert [cell.value for cell in table.lines[3].cells] == ["−5.00 (−6.00 to −3.75)", "–", "–"]
    assert [cell.value for cell in table.lines[5].cells] == ["78.69", "86.63", "86.28"]
    assert markdown_row(table, "Average Dice")[1:] == ["<u>60.62</u> ± 0.50", "**65.61** ± 0.50", "–"]
    assert len(table.tidy) == 3 * 3 * 2  # tasks are not shown, but kept


def test_from_scores_to_a_table():
    """The two halves fit: A1 is 0.1 behind on both images of both tasks, with both seeds."""
    cells = [
        {
            "row": row,
            "seed": seed,
            "task": task,
            "image": f"{image}.png",
            "group": "",
            "dice": 0.5 + 0.1 * (row == "A4") + 0.01 * seed,
            "iou": 0.5,
        }
        for row in ("A1", "A4")
        for seed in (0, 1)
        for task in TITLES
        for image in range(2)
    ]
    scores = pd.DataFrame(cells)
    table = study_table(STUDY, summarise(scores, "default"), compare(scores, "A4", "default"), TITLES, "default")
    assert column(table, "Average Dice")[0] == Cell("50.50", "0.71", "second")
    assert column(table, "Average IoU")[0].mark == "best"
    assert column(table, "Average Dice less A4")[0].value == "−10.00 (−10.00 to −10.00)"
    assert column(table, "Average Dice corrected p")[0].value == "0.125"  # 2 of the 16 sign patterns of four images


def test_the_terminal_shows_the_averages_without_the_tasks_columns(table: Table) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.to_terminal(without=TITLES.values()))
    text = console.export_text()
    line = next(line for line in text.splitlines() if "Full | *TP-Seg*" in line)
    assert "65.61 ± 0.50" in line
    assert "86.63" in line
    assert "Skin Lesion" not in text
    assert PARTS in text
    assert table.notes[0][:40] in text
