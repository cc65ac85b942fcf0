"""A study's figures: files that are the same each time, numbers that are right, and text that can be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.data.manifest import Case, DataSet, read_dataset
from tpseg.data.pairs import read_pair
from tpseg.imaging.overlay import FOUND, TRUE
from tpseg.studies.figures import (
    as_matrix,
    gate_figure,
    gradient_matrices,
    learning_curves,
    margins,
    minus,
    prototype_cosines,
    separation_scores,
    sharing_curve,
)
from tpseg.studies.pictures import median_cases, visual_comparison

NAMES = ("Wet AMD", "Brain Tumor", "Adenocarcinoma", "Thyroid Nodule", "Colon Polyp", "Lung Infection", "Breast Lesion", "Skin Lesion")
TITLES = {name.lower().replace(" ", "_"): name for name in NAMES}
ROWS = {
    "A1": "Baseline", "A2": "w/o TCA", "A3": "w/o PGTD", "A4": "Full (TP-Seg)", "A5": "Separate Training", "B1": "LoRA", "B2": "Adapter",
    "B3": "w/o Task-Specific Route", "B4": "w/o Shared Route", "C1": "λp = 2.5, α = 0.5, Experts M = 6",
    "C2": "λp = 10, α = 0.5, Experts M = 6", "D1": "SAM2-UNet, unified", "D2": "Attention U-Net, unified", "D3": "SwinUNETR, specialised",
}  # fmt: skip
SEEDS = (0, 1, 2)
Tables = dict[str, Any]


@pytest.fixture
def tables() -> Tables:
    """Numbers for eight tasks, fourteen rows and three seeds."""
    rng = np.random.default_rng(0)
    pairs = list(combinations(TITLES, 2))
    conflict = [("all", one, other, rng.uniform(-1, 1)) for one, other in pairs] + [("all", task, task, 0.8) for task in TITLES]
    weights = 1 / (1 + np.exp(-(np.linspace(-6, 6, 12) + rng.normal(size=(len(SEEDS), len(TITLES), 1)))))
    cells = [(seed, task) for seed in SEEDS for task in TITLES]
    by_cell = dict(zip(cells, weights.reshape(-1, 12), strict=True))
    return {
        "rows": ROWS,
        "prototypes": pd.DataFrame(
            [("A4", seed, f"pgtd{n}", *pair, rng.uniform(-0.3, 0.9)) for seed in SEEDS for n in (3, 2, 1) for pair in pairs],
            columns=["row", "seed", "pgtd", "task", "other", "cosine"],
        ),
        "separations": pd.DataFrame(
            [("A4", seed, f"pgtd{n}", task, rng.uniform(0.1, 1.9)) for seed, task in cells for n in (3, 2, 1)],
            columns=["row", "seed", "pgtd", "task", "separation"],
        ),
        "scores": pd.DataFrame(
            [("A4", seed, task, "0.png", rng.uniform(0.5, 0.9), rng.uniform(10, 90), 30, 30, 500) for seed, task in cells],
            columns=["row", "seed", "task", "image", "tpseg_dice", "tpseg_tp", "tpseg_fp", "tpseg_fn", "tpseg_tn"],
        ),
        "gates": pd.DataFrame(
            [("A4", *cell, block, w) for cell, curve in by_cell.items() for block, w in enumerate(curve)],
            columns=["row", "seed", "task", "block", "weight"],
        ),
        "splits": pd.DataFrame(
            [("A4", *cell, int((curve < 0.5).sum()), 12, curve[0], curve[-1]) for cell, curve in by_cell.items()],
            columns=["row", "seed", "task", "split", "blocks", "first", "last"],
        ),
        "sharing": pd.DataFrame(
            [(row, seed, 8, rng.uniform(3, 7)) for row in ROWS for seed in SEEDS], columns=["row", "seed", "tasks", "passes"]
        ),
        "summary": pd.DataFrame(
            [(row, "average", d := rng.uniform(0.4, 0.5), d - 0.02, d + 0.02) for row in ROWS],
            columns=["row", "task", "dice", "dice_low", "dice_high"],
        ),
        "conflict": pd.DataFrame(conflict, columns=["part", "task", "other", "cosine"]),
        "histories": {
            (row, seed): pd.DataFrame({"step": [10, 20, 30], "val/dice": np.sort(rng.uniform(0, 1, 3))}) for row in ROWS for seed in SEEDS
        },
        "comparison": pd.DataFrame(
            [(row, "average", d := rng.normal() / 30, d - 0.02, d + 0.02, 0.01 if abs(d) > 0.02 else 0.5) for row in ROWS if row != "A4"],
            columns=["row", "task", "difference", "low", "high", "p_corrected"],
        ),
    }


def comparison_of_pictures(path: Path, tables: Tables) -> None:
    """A task for each title, noise with a bright square, and rows that shift it further and further."""
    rows = tables["rows"]
    rng = np.random.default_rng(0)
    cases, lines = [], []
    for task in TITLES:
        mask = np.zeros((48, 64), bool)
        mask[16:32, 20:44] = True
        Image.fromarray((rng.integers(0, 100, (48, 64, 3)) + 120 * mask[..., None]).astype(np.uint8)).save(path.parent / f"{task}.png")
        Image.fromarray(mask).save(path.parent / f"{task}_mask.png")
        cases.append(Case(task, path.parent / f"{task}.png", path.parent / f"{task}_mask.png", "test", "", f"{task}.png"))
        lines.append(("A4", 0, task, f"{task}.png", "test", 0.5, 0.1))
    scores = pd.DataFrame(lines, columns=["row", "seed", "task", "image", "split", "dice", "true_area"])
    data = DataSet(path, cast(Any, None), tuple(cases))
    visual_comparison(path, data, scores, rows, TITLES, lambda row, case: np.roll(read_pair(case)[1], list(rows).index(row), 1), "A4")


FIGURES: dict[str, Callable[[Path, Tables], None]] = {
    "fig6": comparison_of_pictures,
    "fig7": lambda path, t: prototype_cosines(path, t["prototypes"], TITLES, "Full (TP-Seg)"),
    "fig8": lambda path, t: separation_scores(path, t["separations"], t["scores"], TITLES, "Full (TP-Seg)"),
    "gate": lambda path, t: gate_figure(path, t["gates"], t["splits"], TITLES, "Full (TP-Seg)"),
    "sharing": lambda path, t: sharing_curve(path, t["sharing"], t["summary"], t["rows"]),
    "gradients": lambda path, t: gradient_matrices(path, {"Full (TP-Seg)": t["conflict"], "w/o TCA": t["conflict"]}, TITLES),
    "curves": lambda path, t: learning_curves(path, t["histories"], ROWS),
    "margins": lambda path, t: margins(path, t["comparison"], ROWS, "A4"),
}


class Seen(list[Figure]):
    """The figures that were saved."""

    def texts(self) -> list[str]:
        return [text.get_text() for text in self[-1].findobj(Text) if text.get_text()]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    figures, save = Seen(), Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_written_as_png_svg_and_caption_with_the_same_bytes_each_time(name: str, tmp_path: Path, tables: Tables) -> None:
    tables["rows"] = {row: ROWS[row] for row in ("A1", "A4")}  # pictures are slow
    FIGURES[name](tmp_path / f"{name}.v1", tables)
    files = {kind: (tmp_path / f"{name}.v1.{kind}").read_bytes() for kind in ("png", "svg", "txt")}
    assert files["png"].startswith(b"\x89PNG")
    assert b"<svg" in files["svg"]
    assert b"dc:date" not in files["svg"]
    assert len(files["txt"]) > 60
    FIGURES[name](tmp_path / f"{name}.v1", tables)
    assert files == {kind: (tmp_path / f"{name}.v1.{kind}").read_bytes() for kind in files}


@pytest.mark.parametrize("name", FIGURES)
def test_with_eight_tasks_and_fourteen_rows_no_text_overlaps_another_or_is_cut_off(
    name: str, tmp_path: Path, tables: Tables, seen: Seen
) -> None:
    FIGURES[name](tmp_path / name, tables)
    figure = seen[-1]
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1, text  # noqa: PT018
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text  # noqa: PT018
    for (one, first), (other, second) in combinations(boxes, 2):
        apart = min(first.x1, second.x1) - max(first.x0, second.x0) < 1 or min(first.y1, second.y1) - max(first.y0, second.y0) < 1
        assert apart, f"{one!r} lies over {other!r}"


def visible_texts(figure: Figure) -> list[Text]:
    """Everything that is written, without ticks outside their axis and labels that are switched off."""
    texts = []
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xticklabels")):
        texts += [axes.title, *axes.texts]
        for axis, low, high in ((axes.xaxis, *sorted(axes.get_xlim())), (axes.yaxis, *sorted(axes.get_ylim()))):
            texts += [
                tick.label1
                for tick in axis.get_major_ticks()
                if axes.axison and tick.label1.get_visible() and low <= tick.get_loc() <= high
            ]
            texts.append(axis.label)
        if axes.get_legend() is not None:
            texts += axes.get_legend().get_texts()
    for part in [figure, *figure.subfigs]:
        texts += [text for legend in part.legends for text in legend.get_texts()] + list(part.texts)
    return [text for text in texts if text.get_text() and text.get_visible()]


def test_a_table_of_pairs_becomes_a_symmetric_matrix_of_means_over_seeds() -> None:
    table = pd.DataFrame([("a", "b", 0.2), ("b", "a", 0.0), ("a", "b", 0.4), ("c", "c", 0.9)], columns=["task", "other", "cosine"])
    matrix = as_matrix(table.drop(1), {"c": "C", "a": "A", "b": "B"})
    assert matrix == pytest.approx(np.array([[0.9, 0, 0], [0, 0, 0.3], [0, 0.3, 0]]))


def test_prototypes_are_shown_by_pgtd_with_the_papers_threshold(tmp_path: Path, tables: Tables, seen: Seen) -> None:
    table = tables["prototypes"].assign(cosine=0.25)
    table.loc[(table["pgtd"] == "pgtd2") & (table["other"] == "skin_lesion") & (table["task"] == "wet_amd"), "cosine"] = [0.5, 0.6, 0.7]
    prototype_cosines(tmp_path / "fig7", table, TITLES, "Full (TP-Seg)")
    matrices = [np.asarray(axes.images[0].get_array()) for axes in seen[-1].axes if axes.images]
    assert [axes.get_title().split("\n") for axes in seen[-1].axes if axes.images] == [
        ["PGTD1", "largest between tasks 0.25"],
        ["PGTD2", "largest between tasks 0.60"],
        ["PGTD3", "largest between tasks 0.25"],
    ]
    assert matrices[1][0, 7] == matrices[1][7, 0] == pytest.approx(0.6)
    assert np.diag(matrices[0]).tolist() == [1] * 8
    assert "0.9: collapse (paper)" in seen.texts()
    caption = (tmp_path / "fig7.txt").read_text()
    assert "Full (TP-Seg), mean over 3 seeds. PGTD1: mean 0.25" in caption


def test_the_diagonal_of_the_gradients_is_the_agreement_of_halves(tmp_path: Path, seen: Seen) -> None:
    names = {"a": "A", "b": "B", "c": "C"}
    lines = [("a", "a", 0.9), ("b", "b", 0.7), ("c", "c", 0.5), ("a", "b", -0.4), ("a", "c", 0.1), ("b", "c", 0.6)]
    table = pd.DataFrame([("all", *line) for line in lines], columns=["part", "task", "other", "cosine"])
    gradient_matrices(tmp_path / "gradients", {"with": table, "without": table.assign(cosine=-table["cosine"])}, names)
    first, second = (axes for axes in seen[-1].axes if axes.images)
    assert np.asarray(first.images[0].get_array()) == pytest.approx(np.array([[0.9, -0.4, 0.1], [-0.4, 0.7, 0.6], [0.1, 0.6, 0.5]]))
    assert first.get_title() == "with\n33 % of pairs conflict"
    assert second.get_title() == "without\n67 % of pairs conflict"
    assert "with: 33 % of the pairs below 0, mean cosine 0.10, halves of one task 0.70" in (tmp_path / "gradients.txt").read_text()


def test_separations_are_correlated_over_tasks_with_a_word_of_warning(tmp_path: Path, seen: Seen) -> None:
    """x = 1..5 in thirds against y = 2, 1, 4, 3, 5 in tenths: r = ρ = 0.8."""
    names, dice = "abcde", (0.2, 0.1, 0.4, 0.3, 0.5)
    separations = pd.DataFrame(
        [("A4", 0, "pgtd1", name, (position + 1) / 3) for position, name in enumerate(names)],
        columns=["row", "seed", "pgtd", "task", "separation"],
    )
    scores = pd.DataFrame({"row": "A4", "seed": 0, "task": list(names), "tpseg_dice": dice, "tpseg_tp": 1, "tpseg_fp": 1})
    scores = scores.assign(tpseg_fn=1, tpseg_tn=1)
    separation_scores(tmp_path / "fig8", separations, scores, {name: name.upper() for name in names}, "Full")
    caption = (tmp_path / "fig8.txt").read_text()
    assert "Dice: Pearson r = 0.80 (95 % −0.28 to 0.99), n = 5 tasks" in caption
    assert "Spearman ρ = 0.80." in caption
    assert "mIoU: n = 5 tasks, all alike" in caption
    bars, points, _ = seen[-1].axes
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    assert [float(np.asarray(line.get_ydata())[0]) for line in points.lines] == pytest.approx([20, 10, 40, 30, 50])


def test_every_seeds_gate_is_drawn_with_its_split_and_never_is_the_number_of_blocks(tmp_path: Path, seen: Seen) -> None:
    gates = pd.DataFrame([("A4", 5, "a", block, w) for block, w in enumerate((0.1, 0.6, 0.9))] + [("A4", 5, "b", b, 0.2) for b in range(3)])
    gates.columns = pd.Index(["row", "seed", "task", "block", "weight"])
    splits = pd.DataFrame([("A4", 5, "a", 1, 3), ("A4", 5, "b", 3, 3)], columns=["row", "seed", "task", "split", "blocks"])
    gate_figure(tmp_path / "gate", gates, splits, {"a": "A", "b": "B"}, "Full")
    a, b, dots = seen[-1].axes
    assert np.asarray(a.lines[0].get_ydata()).tolist() == [0.1, 0.6, 0.9]
    assert (a.lines[0].get_markevery(), b.lines[0].get_markevery()) == ([1], [])
    assert np.asarray(dots.lines[0].get_xdata()).tolist() == [1, 3]
    assert "3 means never" in (tmp_path / "gate.txt").read_text()


def test_the_thick_curve_is_the_mean_over_seeds_where_all_of_them_are(tmp_path: Path, seen: Seen) -> None:
    long = pd.DataFrame({"step": [10, 20, 30], "val/dice": [0.2, 0.4, 0.6]})
    short = pd.DataFrame({"step": [10, 20], "val/dice": [0.4, 0.4]})
    learning_curves(tmp_path / "curves", {("A4", 0): long, ("A4", 1): short, ("other", 0): long}, {"A1": "Baseline", "A4": "Full"})
    (axes,) = seen[-1].axes
    thin, also_thin, mean = axes.lines
    assert np.asarray(thin.get_ydata()).tolist() == pytest.approx([20, 40, 60])
    assert len(np.asarray(also_thin.get_ydata())) == 2
    assert np.asarray(mean.get_xdata()).tolist() == [10, 20]
    assert np.asarray(mean.get_ydata()).tolist() == pytest.approx([30, 40])
    assert mean.get_label() == "Full"


def test_margins_show_the_average_of_each_row_in_the_studys_order_in_points(tmp_path: Path, seen: Seen) -> None:
    lines = [("B1", "average", 0.01, -0.005, 0.025, 0.3), ("A1", "average", -0.05, -0.07, -0.03, 0.001), ("A1", "a", 0.5, 0.4, 0.6, 0.0)]
    lines.append(("C1", "average", np.nan, np.nan, np.nan, np.nan))  # no seed in common with the reference
    table = pd.DataFrame(lines, columns=["row", "task", "difference", "low", "high", "p_corrected"])
    margins(tmp_path / "margins", table, ROWS, "A4")
    (axes,) = seen[-1].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Baseline", "LoRA"]
    assert [text.get_text() for text in axes.texts] == ["−5.0 (−7.0 to −3.0)", "+1.0 (−0.5 to +2.5)"]
    _, first, first_point, second, second_point = axes.lines
    assert np.asarray(first.get_xdata()).tolist() == pytest.approx([-7, -3])
    assert np.asarray(second.get_xdata()).tolist() == pytest.approx([-0.5, 2.5])
    assert first_point.get_markerfacecolor() == first_point.get_color()  # p = 0.001
    assert second_point.get_markerfacecolor() == "white"  # p = 0.3
    assert axes.yaxis_inverted()


def scored(lines: list[tuple[int, str, float, float]], task: str = "bright_disc") -> pd.DataFrame:
    """Row A4's images of one task: seed, number of the image, Dice, share of the image that is lesion."""
    table = pd.DataFrame(lines, columns=["seed", "image", "dice", "true_area"])
    return table.assign(row="A4", task=task, split="test", image=table["image"] + ".png")


def test_the_image_shown_is_the_median_of_the_reference_rows_mean_over_seeds(discs: Path) -> None:
    data = read_dataset(discs)
    one, other = [("08", 0.9), ("09", 0.2), ("10", 0.6)], [("08", 0.5), ("09", 0.2), ("10", 0.9)]  # means 0.7, 0.2, 0.75
    scores = scored([(seed, image, dice, 0.1) for seed, seeds in enumerate((one, other)) for image, dice in seeds])
    others = scores.assign(row="A1", dice=1 - scores["dice"] ** 2)
    assert median_cases(data, pd.concat([others, scores]), "A4")["bright_disc"].name == "08.png"
    empty = scored([(0, "08", 1.0, 0.0), (0, "09", 1.0, 0.0), (0, "10", 0.1, 0.2)])  # nothing to see on two of them
    assert median_cases(data, empty, "A4")["bright_disc"].name == "10.png"


def test_a_cell_shows_what_its_row_found_and_the_dice_of_just_that(tmp_path: Path, discs: Path, seen: Seen) -> None:
    data = read_dataset(discs)
    scores = scored([(0, "08", 0.9, 0.1), (0, "09", 0.2, 0.1), (0, "10", 0.6, 0.1)])
    asked = []

    def segment(row: str, case: Case) -> np.ndarray:
        asked.append((row, case.name))
        truth = read_pair(case)[1]
        return truth if row == "A4" else np.zeros_like(truth)

    titles = {"bright_disc": "Bright disc", "dark_disc": "Dark disc"}
    rows = {"A1": "Baseline", "A4": "Full (TP-Seg)"}
    visual_comparison(tmp_path / "fig6", data, scores, rows, titles, segment, "A4", "Models of seed 0.")
    assert asked == [("A1", "10.png"), ("A4", "10.png")]  # of the dark disc there are no scores
    assert [text for text in seen.texts() if text] == ["Bright disc", "0.0", "100.0", "Truth", "Baseline", "Full (TP-Seg)"]
    truth, nothing, found = (np.asarray(image.get_array()).astype(int) for image in seen[-1].axes[0].images)
    assert (truth == TRUE).all(-1).any()
    assert not ((nothing == TRUE) | (nothing == FOUND)).all(-1).any()
    assert (found == FOUND).all(-1).sum() == (truth == TRUE).all(-1).sum()  # the same contour in another colour
    caption = (tmp_path / "fig6.txt").read_text()
    assert "'Full (TP-Seg)' has its median Dice" in caption
    assert "Models of seed 0. Images: Bright disc: 10.png." in caption


@pytest.mark.parametrize("name", ["fig7", "fig8", "gate", "gradients", "sharing"])
def test_a_figure_of_nothing_is_refused_with_its_name(name: str, tmp_path: Path, tables: Tables) -> None:
    empty = {key: table.iloc[:0] if isinstance(table, pd.DataFrame) else table for key, table in tables.items()}
    with pytest.raises(DataError, match=f"{name}: nothing to draw"):
        FIGURES[name](tmp_path / name, empty)
    assert not list(tmp_path.iterdir())


def test_only_negative_numbers_get_a_minus_sign() -> None:
    assert minus("Full (TP-Seg-2), -0.5 (-1 to +2)") == "Full (TP-Seg-2), −0.5 (−1 to +2)"
    assert re.search("-", minus("2024-05-06"))
