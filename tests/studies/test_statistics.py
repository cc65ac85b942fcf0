"""What a study's scores say, on scores whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from tpseg.core.errors import DataError
from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.studies.statistics import AVERAGE, TaskScores, compare, holm, sign_flip_test, summarise, unit_differences


def cell(row: str, seed: int, dice: Sequence[float], task: str = "a", groups: Sequence[str] | None = None) -> pd.DataFrame:
    """Images of one task with these Dice scores in every protocol; IoU is half of it under `default`."""
    dice = np.asarray(dice, dtype=float)
    names = [f"{number:03}.png" for number in range(len(dice))]
    scores = {"row": row, "seed": seed, "task": task, "image": names, "split": "test", "group": groups or "", "height": 8, "width": 8}
    counts = {"tp": 10, "fp": 0, "fn": 0, "tn": 90, "tpseg_tp": 30, "tpseg_fp": 10, "tpseg_fn": 10, "tpseg_tn": 50}
    return pd.DataFrame({**scores, **counts, "dice": dice, "iou": dice / 2, "tpseg_dice": dice})


def line(table: pd.DataFrame, row: str, task: str = AVERAGE) -> pd.Series:
    found = table[(table["row"] == row) & (table["task"] == task)]
    assert len(found) == 1
    return found.iloc[0]


def width(entry: pd.Series) -> float:
    return entry["dice_high"] - entry["dice_low"]


def test_means_and_spreads_by_hand():
    """Task a: seeds give 0.6 and 0.8; task b, with one image: 0.2 and 0.2. Averages 0.4 and 0.5."""
    cells = [cell("X", 0, [0.5, 0.7]), cell("X", 1, [0.7, 0.9]), cell("X", 0, [0.2], "b"), cell("X", 1, [0.2], "b")]
    table = summarise(pd.concat(cells), "default")
    assert table["task"].tolist() == ["a", "b", AVERAGE]
    assert table["images"].tolist() == [2, 1, 3]
    assert table["seeds"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["dice"], [0.7, 0.2, 0.45])
    np.testing.assert_allclose(table["dice_spread"], [0.2 / np.sqrt(2), 0, 0.1 / np.sqrt(2)], atol=1e-12)
    np.testing.assert_allclose(table["iou"], [0.35, 0.1, 0.225])


def test_the_paper_protocol_pools_pixels_for_its_iou():
    """30 of 50 foreground pixels and 50 of 70 background pixels agree in every image."""
    table = summarise(cell("X", 0, [0.5, 0.7]), "tpseg")
    assert line(table, "X")["iou"] == pytest.approx((30 / 50 + 50 / 70) / 2)


def test_one_seed_has_no_spread_but_an_interval_over_images():
    entry = line(summarise(cell("X", 7, [0.2, 0.4, 0.6, 0.8]), "default"), "X")
    assert np.isnan(entry["dice_spread"])
    assert 0.2 <= entry["dice_low"] < 0.5 < entry["dice_high"] <= 0.8


def test_the_interval_holds_seeds_as_well_as_images():
    """Images alike, seeds 0.4 and 0.6: drawing two of two seeds gives 0.4, 0.5 or 0.6, the ends each in a quarter of the draws."""
    entry = line(summarise(pd.concat([cell("X", 0, [0.4] * 9), cell("X", 1, [0.6] * 9)]), "default"), "X")
    np.testing.assert_allclose([entry["dice_low"], entry["dice_high"]], [0.4, 0.6])


def test_seeds_are_drawn_for_all_tasks_together():
    """One model serves all tasks: if a seed's gain on one task is its loss on another, the average does not move with the seed."""
    cells = [cell("X", seed, [value] * 5, task) for seed in (0, 1) for task, value in (("a", 0.4 + seed / 5), ("b", 0.6 - seed / 5))]
    entry = line(summarise(pd.concat(cells), "default"), "X")
    np.testing.assert_allclose([entry["dice_low"], entry["dice_high"]], [0.5, 0.5])


def test_the_average_weighs_tasks_alike_whatever_their_sizes():
    cells = [cell(row, 0, [value] * count, task) for row, gain in (("X", 0.1), ("R", 0.0)) for task, value, count in
             (("small", 0.2 + gain, 2), ("large", 0.8, 200))]  # fmt: skip
    scores = pd.concat(cells)
    assert line(summarise(scores, "default"), "X")["dice"] == pytest.approx((0.3 + 0.8) / 2)
    assert line(compare(scores, "R", "default"), "X")["difference"] == pytest.approx(0.05)


def test_a_group_of_like_images_counts_as_one():
    """20 images of 4 patients, alike within a patient, tell less than 20 patients."""
    dice = np.repeat([0.2, 0.4, 0.6, 0.8], 5)
    patients = [f"p{number}" for number in np.repeat(range(4), 5)]
    alone = line(summarise(cell("X", 0, dice), "default"), "X")
    grouped = line(summarise(cell("X", 0, dice, groups=patients), "default"), "X")
    assert grouped["dice"] == alone["dice"]
    assert width(grouped) > 1.5 * width(alone)


def test_groups_are_flipped_as_one():
    """Six images of two patients: two units, so that the smallest p there is is 2 of 4 sign patterns, not 2 of 64."""
    dice = np.array([0.5, 0.6, 0.7, 0.4, 0.5, 0.6])
    for groups, p in ((None, 2 / 64), (["p"] * 3 + ["q"] * 3, 2 / 4)):
        scores = pd.concat([cell("X", 0, dice + 0.1, groups=groups), cell("R", 0, dice, groups=groups)])
        assert line(compare(scores, "R", "default"), "X")["p"] == pytest.approx(p)


def test_units_add_up_to_the_mean_lead_over_images_however_these_are_grouped():
    """Leads of 0.1, 0.2, 0.3 and 0.4, the first three of one patient: 0.6 / 4 and 0.4 / 4, which are tasks' scale in the average."""
    ours, theirs = (np.stack([dice, dice, np.ones(4)], 1) for dice in (np.array([0.6, 0.7, 0.8, 0.9]), np.full(4, 0.5)))
    task = TaskScores("t", ["p", "p", "p", ""], {("row", 0): ours, ("reference", 0): theirs})
    assert unit_differences(task, "row", "reference", [0], PROTOCOLS["default"]) == pytest.approx([0.15, 0.1])


def test_sign_flips_by_hand():
    """1, 2, 3: only +++ and --- reach 6 of 8. 1, 2, -3: every pattern reaches 0. The two rows do not disturb each other."""
    p = sign_flip_test(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, -3.0], [np.nan] * 3]))
    np.testing.assert_allclose(p, [2 / 8, 1, np.nan])


def test_the_test_for_the_average_by_hand():
    """Units weigh 1/(tasks * images): task a +0.1 and +0.3 on 2 images, task b -0.1 on 1: 0.025, 0.075, -0.05, in all 0.05.

    With all signs they sum to ±0.15, ±0.1, ±0.05 and twice 0: six of eight reach 0.05.
    """
    cells = [cell("X", 0, [0.6, 0.8]), cell("X", 0, [0.4], "b"), cell("R", 0, [0.5, 0.5]), cell("R", 0, [0.5], "b")]
    entry = line(compare(pd.concat(cells), "R", "default"), "X")
    assert entry["difference"] == pytest.approx(0.05)
    assert entry["p"] == pytest.approx(6 / 8)


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, 0.03 * 2, 0.9 * 1: the third may not fall below the second, and nothing exceeds 1."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.9, 0.02])), [0.06, 0.04, 0.9, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
    np.testing.assert_allclose(holm(np.array([np.nan, 0.02, 0.04])), [np.nan, 0.04, 0.04])


def test_each_task_is_corrected_over_the_rows_on_its_own():
    """Row X leads on task a, row Y on task b, on four images each: p is 2/16 there and 1 elsewhere; times two rows."""
    base = [0.2, 0.4, 0.6, 0.8]
    better = [value + 0.1 for value in base]
    cells = [cell(row, 0, better if (row, task) in (("X", "a"), ("Y", "b")) else base, task) for row in "XYR" for task in "ab"]
    table = compare(pd.concat(cells), "R", "default")
    assert table["row"].tolist() == ["X"] * 3 + ["Y"] * 3
    assert table["task"].tolist() == ["a", "b", AVERAGE] * 2
    np.testing.assert_allclose(table["p"], [2 / 16, 1, 2 / 16, 1, 2 / 16, 2 / 16])
    np.testing.assert_allclose(table["p_corrected"], [4 / 16, 1, 4 / 16, 1, 4 / 16, 4 / 16])


def test_a_known_gain_is_inside_its_interval():
    """50 rows that lead by 0.03 with noise of their own: 95 % intervals miss 2 or 3; 8 or more come up in under 0.5 % of cases."""
    rng = np.random.default_rng(0)
    base, gain = rng.uniform(0.3, 0.7, 40), 0.03
    rows = [cell(f"X{number}", 0, base + gain + rng.normal(0, 0.05, 40)) for number in range(50)]
    table = compare(pd.concat([cell("R", 0, base), *rows]), "R", "default").query("task == 'a'")
    assert len(table) == 50
    assert ((table["low"] <= gain) & (gain <= table["high"])).sum() > 42
    assert (table["high"] - table["low"]).mean() == pytest.approx(2 * 1.96 * 0.05 / np.sqrt(40), rel=0.1)


def test_without_a_difference_p_is_uniform():
    rng = np.random.default_rng(1)
    p = sign_flip_test(rng.normal(0, 0.1, (400, 25)))
    assert abs(np.mean(p) - 0.5) < 0.06
    for level in (0.05, 0.25, 0.5):
        assert abs(np.mean(p <= level) - level) < 3.5 * np.sqrt(level * (1 - level) / 400)


def test_pairing_narrows_the_interval_where_images_are_hard_for_both():
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.1, 0.9, 40)
    scores = pd.concat([cell("X", 0, hard + rng.normal(0.02, 0.01, 40)), cell("R", 0, hard)])
    entry = line(compare(scores, "R", "default"), "X")
    assert entry["high"] - entry["low"] < 0.1 * width(line(summarise(scores, "default"), "X"))
    assert entry["low"] > 0


def test_seeds_are_paired_by_their_number():
    """Seed 1 is hard for both rows: X leads by 0.1 with each of the seeds they share, whatever order they come in."""
    scores = pd.concat([cell("R", 1, [0.1, 0.2]), cell("R", 0, [0.7, 0.8]), cell("X", 0, [0.8, 0.9]), cell("X", 1, [0.2, 0.3])])
    entry = line(compare(scores, "R", "default"), "X")
    np.testing.assert_allclose([entry["difference"], entry["low"], entry["high"]], [0.1] * 3)
    assert entry["seeds_ahead"] == "2/2"


def test_only_common_seeds_are_compared():
    cells = [cell("R", seed, [0.5, 0.6]) for seed in (0, 1, 2)] + [
        cell("X", 1, [0.6, 0.7]),
        cell("X", 2, [0.4, 0.5]),
        cell("Y", 5, [0.9, 0.9]),
    ]
    table = compare(pd.concat(cells), "R", "default")
    shared, apart = line(table, "X"), line(table, "Y")
    assert (shared["seeds"], shared["seeds_ahead"]) == (2, "1/2")
    assert shared["difference"] == pytest.approx(0, abs=1e-12)
    assert (apart["seeds"], apart["seeds_ahead"]) == (0, "0/0")
    assert apart[["difference", "low", "high", "p", "p_corrected"]].isna().all()
    assert shared["p_corrected"] == shared["p"]  # a row that could not be tested is no test


def test_a_seed_that_lacks_a_task_is_left_out_of_the_average_only():
    cells = [cell("X", 0, [0.4, 0.6]), cell("X", 1, [0.8, 0.8]), cell("X", 0, [0.1, 0.1], "b")]
    table = summarise(pd.concat(cells), "default")
    np.testing.assert_allclose(table["dice"], [0.65, 0.1, 0.3])
    assert table["seeds"].tolist() == [2, 1, 1]


def test_images_that_the_protocol_leaves_out_do_not_enter_the_test():
    """nnunet leaves out images that are empty in truth and prediction: of three, one does not count, two give p = 2/4."""
    ours, theirs = cell("X", 0, [0.6, 0.8, 1.0]), cell("R", 0, [0.5, 0.5, 1.0])
    for rows in (ours, theirs):
        rows.loc[2, "tp"] = 0
    entry = line(compare(pd.concat([ours, theirs]), "R", "nnunet"), "X")
    assert entry["difference"] == pytest.approx(0.2)
    assert entry["p"] == pytest.approx(0.5)


def test_other_images_and_a_missing_reference_are_refused():
    scores = pd.concat([cell("R", 0, [0.5, 0.6]), cell("X", 0, [0.5, 0.6, 0.7])])
    with pytest.raises(DataError, match=r"task 'a': row 'X', seed 0 was scored on 3 images.*'002\.png' is not in both"):
        compare(scores, "R", "default")
    with pytest.raises(DataError, match="row 'A4' has no scores"):
        compare(scores, "A4", "default")
    with pytest.raises(DataError, match="row 'A4' has no scores"):
        compare(pd.DataFrame(), "A4", "default")


def test_nothing_scored_yet_is_an_empty_summary():
    assert summarise(pd.DataFrame(), "tpseg").empty
    assert compare(cell("R", 0, [0.5, 0.6]), "R", "tpseg").empty


def test_the_same_scores_give_the_same_numbers():
    rng = np.random.default_rng(3)
    scores = pd.concat([cell(row, seed, rng.uniform(0, 1, 20), task) for row in "XR" for seed in (0, 1) for task in "ab"])
    shuffled = scores.groupby(["row", "seed", "task"], sort=False).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(summarise(scores, "default"), summarise(shuffled, "default"))
    pd.testing.assert_frame_equal(compare(scores, "R", "default"), compare(shuffled, "R", "default"))
