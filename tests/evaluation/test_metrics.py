"""Every protocol against numbers worked out by hand, against MONAI, and against the slow way of writing it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU, compute_average_surface_distance, compute_hausdorff_distance

from tpseg.core.errors import DataError, UsageError
from tpseg.evaluation.metrics import (
    PROTOCOLS,
    bootstrap_sums,
    percentile_interval,
    resolve_protocols,
    score_image,
    surface_distances,
    threshold_means,
)

EMPTY, FULL = np.zeros((2, 2)), np.ones((2, 2))
TINY = 1e-4  # what a smooth of 1e-5 may add to a 2x2 map


def bootstrap_interval(rows, statistic, clusters=None, resamples=1000, seed=0, level=0.95):
    return percentile_interval(statistic(bootstrap_sums(rows, clusters, resamples, seed)), level)


def score(probability, truth, input_size=2):
    return score_image(np.array(probability, dtype=float), np.array(truth, dtype=bool), input_size)


def protocols_of(*pairs):
    """Every protocol over (probability, truth) pairs of 2x2 maps: {name: (dice, iou)}."""
    rows = pd.DataFrame([score(*pair) for pair in pairs])
    return {name: tuple(protocol(rows).values()) for name, protocol in PROTOCOLS.items()}


def random_pairs(count=12, size=24):
    """Blurred blobs with sharp truths; the first pair has both empty, the second only the truth, the third only the prediction."""
    generator = np.random.default_rng(3)
    rows, columns = np.mgrid[:size, :size]
    pairs = []
    for _ in range(count):
        (y, x), (dy, dx) = generator.uniform(6, 18, 2), generator.normal(0, 2, 2)
        truth = np.hypot(rows - y, columns - x) < 5
        distance = np.hypot(rows - y - dy, columns - x - dx)
        pairs.append((1 / (1 + np.exp(distance - 5)) * generator.uniform(0.8, 1, (size, size)), truth))
    pairs[0] = (pairs[0][0] * 0.1, np.zeros_like(pairs[0][1]))
    pairs[1] = (pairs[1][0], np.zeros_like(pairs[1][1]))
    pairs[2] = (pairs[2][0] * 0.1, pairs[2][1])
    return pairs


# One soft map, every number by hand. At 1/2 the upper left pixel is tp, upper right fn, lower left fp, lower right tn.
SOFT = [[1.0, 0.0], [0.6, 0.2]]
SOFT_TRUTH = [[1, 1], [0, 0]]


def test_a_soft_map_by_hand():
    row = score(SOFT, SOFT_TRUTH)
    assert [row[key] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]
    assert row["dice"] == 0.5  # 2·1/(2 + 1 + 1)
    assert row["iou"] == pytest.approx(1 / 3)
    assert (row["sensitivity"], row["precision"]) == (0.5, 0.5)
    assert (row["true_area"], row["predicted_area"]) == (0.5, 0.5)
    assert [row[f"tpseg_{key}"] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]
    assert row["tpseg_dice"] == pytest.approx(2.00001 / 4.00001)
    # Soft: 2·(1.0 + 0.0) over (1.0 + 0.6 + 0.2) + 2 pixels.
    assert row["spider_dice"] == pytest.approx(2.00001 / 3.80001)
    assert row["spider_iou_fg"] == row["spider_iou_bg"] == pytest.approx(1.00001 / 3.00001)
    # Levels 255, 0, 153, 51. Threshold 0 takes all: Dice 4/6, IoU 2/4. 1..51: one hit, two false: 2/5, 1/4.
    # 52..153: one hit, one false: 2/4, 1/3. 154..255: the hit alone: 2/3, 1/2.
    assert row["pranet_dice"] == pytest.approx((4 / 6 + 51 * 2 / 5 + 102 * 2 / 4 + 102 * 2 / 3) / 256)
    assert row["pranet_iou"] == pytest.approx((2 / 4 + 51 / 4 + 102 / 3 + 102 / 2) / 256)


def test_protocols_of_one_soft_image():
    found = protocols_of((SOFT, SOFT_TRUTH))
    assert found["default"] == pytest.approx((1 / 2, 1 / 3))
    assert found["nnunet"] == pytest.approx((1 / 2, 1 / 3))
    assert found["tpseg"] == pytest.approx((1 / 2, 1 / 3), abs=TINY)  # IoU: foreground and background are both 1/3
    assert found["spider"] == pytest.approx((2 / 3.8, 1 / 3), abs=TINY)
    assert found["pranet"] == pytest.approx((140.0666667 / 256, 98.25 / 256))


def test_pranet_cuts_levels_off_and_does_not_round_them():
    """The lesion's pixel, 127.9 of 255, is at level 127: thresholds 1 to 127 take it with one false pixel, those above only that."""
    found = protocols_of(([[0.0, 127.9 / 255, 1.0]], [[0, 1, 0]]))
    assert found["pranet"] == pytest.approx(((2 / 4 + 127 * 2 / 3) / 256, (1 / 3 + 127 / 2) / 256))


def test_both_empty():
    found = protocols_of((EMPTY, EMPTY))
    assert found["default"] == (1, 1)
    assert found["tpseg"] == (1, 1)
    assert found["spider"] == (1, 1)
    assert found["pranet"] == (0, 0)
    assert np.isnan(found["nnunet"]).all()


def test_nnunet_leaves_out_only_images_where_both_are_empty():
    # Both empty: left out. Truth empty, one false pixel: 0. Perfect: 1. Mean of the last two.
    one = [[1, 0], [0, 0]]
    found = protocols_of((EMPTY, EMPTY), (one, EMPTY), (one, one))
    assert found["nnunet"] == (0.5, 0.5)
    assert found["default"] == pytest.approx((2 / 3, 2 / 3))


def test_truth_empty_prediction_full():
    found = protocols_of((FULL, EMPTY))
    assert found["default"] == found["nnunet"] == found["pranet"] == (0, 0)
    assert found["tpseg"] == pytest.approx((0, 0), abs=TINY)
    assert found["spider"] == pytest.approx((0, 0), abs=TINY)


def test_truth_full_prediction_empty():
    found = protocols_of((EMPTY, FULL))
    assert found["default"] == found["nnunet"] == (0, 0)
    assert found["tpseg"] == pytest.approx((0, 0), abs=TINY)
    assert found["spider"] == pytest.approx((0, 0), abs=TINY)
    assert found["pranet"] == (1 / 256, 1 / 256)  # threshold 0 takes every pixel, the other 255 none


def test_both_full():
    for name, values in protocols_of((FULL, FULL)).items():
        assert values == (1, 1), name


def test_a_faint_map_is_stretched_by_spider_and_pranet_only():
    faint, truth = [[0.3, 0.1], [0.1, 0.1]], [[1, 0], [0, 0]]
    found = protocols_of((faint, truth))
    assert found["default"] == found["nnunet"] == (0, 0)
    assert found["tpseg"] == pytest.approx((0, 3 / 4 / 2), abs=TINY)  # foreground 0/1, background 3/4
    assert found["spider"] == pytest.approx((1, 1))
    # Threshold 0 takes all four pixels: Dice 2/5, IoU 1/4; the other 255 are perfect.
    assert found["pranet"] == pytest.approx(((2 / 5 + 255) / 256, (1 / 4 + 255) / 256))


def test_noise_on_an_empty_image_is_a_false_positive_once_stretched():
    found = protocols_of(([[0.0, 0.1], [0.0, 0.0]], EMPTY))
    assert found["default"] == (1, 1)
    assert found["spider"] == pytest.approx((0, (0 + 3 / 4) / 2), abs=TINY)


def test_pooling_differs_from_the_mean_over_images():
    # A: one lesion pixel, found: tp 1, tn 3. B: all lesion, one pixel found: tp 1, fn 3. Pooled: tp 2, fp 0, fn 3, tn 3.
    one = [[1, 0], [0, 0]]
    found = protocols_of((one, one), (one, FULL))
    assert found["default"] == pytest.approx(((1 + 2 / 5) / 2, (1 + 1 / 4) / 2))
    assert found["tpseg"] == pytest.approx(((1 + 2 / 5) / 2, (2 / 5 + 3 / 6) / 2), abs=TINY)
    assert found["spider"] == pytest.approx(((1 + 2 / 5) / 2, ((1 + 1 / 4) / 2 + (1 + 0) / 2) / 2), abs=TINY)


def test_tpseg_is_scored_at_the_input_size():
    # Halved, a probability is the mean of its 2x2 block (0.75, 0, 0.55, 0.2), a truth pixel the block's lower right pixel.
    probability = [[0, 1, 0, 0], [1, 1, 0, 0], [0.4, 0.4, 0, 0], [0.4, 1, 0, 0.8]]
    truth = [[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    row = score(probability, truth, input_size=2)
    assert [row[key] for key in ("tp", "fp", "fn", "tn")] == [1, 4, 6, 5]
    assert [row[f"tpseg_{key}"] for key in ("tp", "fp", "fn", "tn")] == [1, 1, 0, 2]


def test_tpseg_is_scored_on_the_models_own_map_where_there_is_one():
    """A checkerboard of 4 by 4 from a model: at 2 by 2 it was grey, and back at 4 by 4 nothing of it is left."""
    own = (np.indices((4, 4)).sum(0) % 2).astype(np.float32)
    row = score_image(np.full((2, 2), 0.5), np.ones((2, 2), bool), 4, own)
    assert [row[f"tpseg_{key}"] for key in ("tp", "fp", "fn", "tn")] == [8, 0, 8, 0]
    assert row["tp"] == 0  # `default` looks at the map that is written


def test_a_probability_of_one_half_is_background():
    assert score([[0.5, 0.5], [0.5, 0.5]], FULL)["tp"] == 0


def test_undefined_rates_are_nan():
    row = score(EMPTY, EMPTY)
    assert np.isnan([row[key] for key in ("sensitivity", "precision", "hd95", "assd")]).all()


def test_default_and_nnunet_agree_with_monai():
    pairs = random_pairs()
    rows = pd.DataFrame([score_image(probability, truth, 24) for probability, truth in pairs])
    predicted = torch.tensor(np.stack([probability > 0.5 for probability, _ in pairs])[:, None]).float()
    truth = torch.tensor(np.stack([truth for _, truth in pairs])[:, None]).float()
    dice = DiceMetric(ignore_empty=False)(predicted, truth)[:, 0].numpy()
    iou = MeanIoU(ignore_empty=False)(predicted, truth)[:, 0].numpy()
    assert PROTOCOLS["default"](rows) == pytest.approx({"dice": dice.mean(), "iou": iou.mean()})
    kept = ((predicted + truth).sum(dim=(1, 2, 3)) > 0).numpy()
    assert kept.sum() == len(pairs) - 1
    assert PROTOCOLS["nnunet"](rows) == pytest.approx({"dice": dice[kept].mean(), "iou": iou[kept].mean()})


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns of its own call
def test_distances_agree_with_monai():
    pairs = random_pairs()[3:]
    for probability, truth in pairs:
        predicted = probability > 0.5
        tensors = [torch.tensor(mask)[None, None].float() for mask in (predicted, truth)]
        hd95 = compute_hausdorff_distance(*tensors, include_background=True, percentile=95).item()
        assd = compute_average_surface_distance(*tensors, include_background=True, symmetric=True).item()
        assert surface_distances(predicted, truth) == pytest.approx((hd95, assd))


def test_distance_of_two_single_pixels():
    a, b = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    a[1, 1] = b[4, 5] = True
    assert surface_distances(a, b) == (5, 5)  # 3-4-5


def test_distance_of_concentric_squares():
    inner, outer = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    inner[3:6, 3:6] = outer[2:7, 2:7] = True
    # Outer surface: 16 pixels, 12 at distance 1, 4 corners at √2. Inner: 8 pixels at distance 1. The 95th percentile of
    # the first sixteen lies among the corners.
    assert surface_distances(outer, inner) == pytest.approx((2**0.5, (12 + 4 * 2**0.5 + 8) / 24))


def test_thresholds_agree_with_a_loop():
    levels = np.random.default_rng(0).integers(0, 256, (16, 16))
    levels[0, :2] = 0, 255
    truth = np.random.default_rng(1).random((16, 16)) < levels / 255
    dice, iou = [], []
    for threshold in range(256):
        predicted = levels >= threshold
        dice.append(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
        iou.append((predicted & truth).sum() / (predicted | truth).sum())
    for dtype in (np.float32, np.float64):
        assert threshold_means((levels / 255).astype(dtype), truth) == pytest.approx((np.mean(dice), np.mean(iou)))
        assert score_image((levels / 510).astype(dtype), truth, 16)["pranet_dice"] == pytest.approx(np.mean(dice))


def test_stretching_drops_no_level():
    grey = np.arange(51, 103)[None]  # 52 grey values that stretch to the levels 0, 5, 10, ... 255
    threshold_tp = [(np.arange(0, 256, 5) >= threshold).sum() for threshold in range(256)]
    expected = np.mean([2 * tp / (tp + 52) for tp in threshold_tp])  # all of it is lesion
    row = score_image(grey / 255, np.ones((1, 52), bool), 8)
    assert row["pranet_dice"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5, np.inf])
def test_a_map_that_is_no_probability_is_refused(bad):
    with pytest.raises(DataError, match="from 0 to 1"):
        score([[0, bad], [0, 0]], EMPTY)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"\(3, 2\).*\(2, 2\)"):
        score(np.zeros((3, 2)), EMPTY)


def test_views_and_read_only_maps_are_taken():
    probability, truth = np.array(SOFT)[::-1, ::-1], np.array(SOFT_TRUTH, bool)[::-1, ::-1]
    probability.flags.writeable = False
    assert score_image(probability, truth, 2) == pytest.approx(score(SOFT, SOFT_TRUTH), nan_ok=True)


def test_resolve_protocols():
    assert resolve_protocols("all") == ["default", "tpseg", "spider", "pranet", "nnunet"]
    assert resolve_protocols("nnunet") == ["nnunet"]
    with pytest.raises(UsageError, match="did you mean 'pranet'"):
        resolve_protocols("prannet")


def mean(sums):
    return sums[:, 0] / sums[:, 1]


def summands(values):
    return np.column_stack([values, np.ones(len(values))])


def test_interval_of_constant_data_has_no_width():
    low, high = bootstrap_interval(summands([0.7] * 9), mean)
    assert low == pytest.approx(0.7)
    assert high - low == pytest.approx(0, abs=1e-12)


def test_interval_contains_the_mean_and_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    low, high = bootstrap_interval(summands(values), mean, resamples=2000)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.1)
    narrow = bootstrap_interval(summands(values), mean, resamples=2000, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_depends_on_the_seed_only():
    values = summands(np.linspace(0, 1, 20))
    assert bootstrap_interval(values, mean, seed=4) == bootstrap_interval(values, mean, seed=4)
    assert bootstrap_interval(values, mean, seed=4) != bootstrap_interval(values, mean, seed=5)


def test_correlated_pairs_widen_the_interval_by_root_two():
    values = np.repeat(np.random.default_rng(0).normal(0.8, 0.1, 100), 2)
    pairs = [f"patient{row // 2}" for row in range(200)]

    def width(clusters):
        low, high = bootstrap_interval(summands(values), mean, clusters, resamples=2000)
        return high - low

    assert width(pairs) == pytest.approx(2**0.5 * width(None), rel=0.1)
    assert width([""] * 200) == pytest.approx(width(None), rel=0.1)  # without a name every image stands alone


def test_clusters_are_drawn_whole():
    rows = np.eye(4)  # a resample's sums say how often each image was drawn
    sums = bootstrap_sums(rows, ["a", "", "a", ""], resamples=50)
    assert (sums[:, 0] == sums[:, 2]).all()
    assert (sums[:, 0] + sums[:, 1] + sums[:, 3] == 3).all()  # three units, three draws
    assert (sums[:, 1] != sums[:, 3]).any()


def test_one_image_or_one_patient_has_no_interval():
    assert np.isnan(bootstrap_interval(summands([0.5]), mean)).all()
    assert np.isnan(bootstrap_interval(summands([0.5, 0.7]), mean, ["a", "a"])).all()


def test_resamples_that_define_nothing_are_left_out_of_the_interval():
    """Of few images, some draws hold empty ones alone."""
    assert percentile_interval(np.array([np.nan, 0, 1, 2, 3, 4, np.nan]), level=0.5) == (1, 3)
    assert np.isnan(percentile_interval(np.full(3, np.nan))).all()


def test_pooled_iou_is_resampled_as_a_ratio_of_sums():
    protocol = PROTOCOLS["tpseg"]
    rows = pd.DataFrame([score_image(probability, truth, 24) for probability, truth in random_pairs()])
    sums = bootstrap_sums(protocol.summands(rows), resamples=3, seed=8)
    generator = np.random.default_rng(8)
    for resample in sums:
        drawn = rows.iloc[generator.integers(len(rows), size=len(rows))]
        assert protocol.statistics(resample) == pytest.approx(list(protocol(drawn).values()))
