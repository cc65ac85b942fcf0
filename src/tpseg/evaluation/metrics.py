"""What a prediction is worth: scores of one image, protocols over a table of images, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from monai.metrics import get_mask_edges, get_surface_distance
from torch.nn import functional

from tpseg.core.errors import DataError, UsageError, nearest

THRESHOLD = 0.5
"""A pixel is foreground where its probability is greater."""
SMOOTH = 1e-5
"""Added above and below the line by the `tpseg` and `spider` protocols: an empty mask found empty scores 1."""
LEVELS = 256
"""Thresholds of the `pranet` protocol."""


def score_image(probability: np.ndarray, truth: np.ndarray, input_size: int, own: np.ndarray | None = None) -> dict[str, float]:
    """Everything that any protocol needs to know about one image, as one flat row.

    probability (H, W) in [0, 1], truth (H, W) bool; the keys that start with `tpseg_` are taken at S = input_size, from `own`,
    (S, S) in [0, 1], what a model gave before it was brought to the image's size, or without it from the probability resized.
    Distances are in pixels, areas are shares of the image. NaN stands for undefined: sensitivity of an empty truth,
    precision of an empty prediction, distances where either is empty. Raises DataError for a map of another size, NaN
    or values outside [0, 1].
    """
    check_map(probability, truth)
    small = truth_at_input_size(truth, input_size)
    own = at_input_size(probability, input_size) if own is None else own
    check_map(own, small)
    probability = np.array(probability, dtype=np.float32)
    truth = np.array(truth, dtype=bool)
    predicted = probability > THRESHOLD
    tp, fp, fn, tn = confusion(predicted, truth)
    hd95, assd = surface_distances(predicted, truth)
    small_tp, small_fp, small_fn, small_tn = confusion(own > THRESHOLD, small)
    stretched = stretch_map(probability)
    spider_dice, spider_fg, spider_bg = spider_scores(stretched, truth)
    pranet_dice, pranet_iou = threshold_means(stretched, truth)
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "dice": _ratio(2 * tp, 2 * tp + fp + fn, empty=1.0),
        "iou": _ratio(tp, tp + fp + fn, empty=1.0),
        "sensitivity": _ratio(tp, tp + fn, empty=np.nan),
        "precision": _ratio(tp, tp + fp, empty=np.nan),
        "hd95": hd95,
        "assd": assd,
        "tpseg_tp": small_tp,
        "tpseg_fp": small_fp,
        "tpseg_fn": small_fn,
        "tpseg_tn": small_tn,
        "tpseg_dice": (2 * small_tp + SMOOTH) / (2 * small_tp + small_fp + small_fn + SMOOTH),
        "spider_dice": spider_dice,
        "spider_iou_fg": spider_fg,
        "spider_iou_bg": spider_bg,
        "pranet_dice": pranet_dice,
        "pranet_iou": pranet_iou,
        "true_area": float(truth.mean()),
        "predicted_area": float(predicted.mean()),
    }


def check_map(probability: np.ndarray, truth: np.ndarray) -> None:
    """Raises DataError unless `probability` has the mask's size and values in [0, 1]; NaN is none of them."""
    if probability.shape != truth.shape or truth.ndim != 2 or not truth.size:
        raise DataError(f"the prediction has shape {probability.shape}, its mask {truth.shape}; expected the same (height, width) for both")
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"the prediction holds values from {low:g} to {high:g}; expected probabilities from 0 to 1")


def confusion(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, int, int, int]:
    """Pixels (tp, fp, fn, tn) of two bool masks of one shape."""
    tp = int(np.count_nonzero(predicted & truth))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return tp, fp, fn, truth.size - tp - fp - fn


def surface_distances(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """HD95 and average symmetric surface distance in pixels, as MONAI defines them; NaN when either mask is empty.

    A surface is the mask's outermost pixels, the image's border included. HD95 is the larger of the two directions' 95th
    percentiles, ASSD the mean over both surfaces' pixels.
    """
    if not predicted.any() or not truth.any():
        return np.nan, np.nan
    edges = get_mask_edges(predicted, truth, crop=False)
    there = np.asarray(get_surface_distance(edges[0], edges[1]))
    back = np.asarray(get_surface_distance(edges[1], edges[0]))
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([there, back]).mean(dtype=np.float64))


def at_input_size(probability: np.ndarray, input_size: int) -> np.ndarray:
    """A map (H, W) to (input_size, input_size), bilinear."""
    values = torch.from_numpy(np.array(probability, dtype=np.float32))[None, None]
    return functional.interpolate(values, (input_size, input_size), mode="bilinear", align_corners=False)[0, 0].numpy()


def truth_at_input_size(truth: np.ndarray, input_size: int) -> np.ndarray:
    """A mask (H, W) bool to (input_size, input_size), by nearest pixel."""
    values = torch.from_numpy(np.array(truth, dtype=np.uint8))[None, None]
    return functional.interpolate(values, (input_size, input_size), mode="nearest-exact")[0, 0].numpy() > 0


def stretch_map(probability: np.ndarray) -> np.ndarray:
    """A map (H, W) from its own minimum and maximum to [0, 1]; a constant map is left as it is."""
    low, high = probability.min(), probability.max()
    return probability if high == low else (probability - low) / (high - low)


def spider_scores(stretched: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Soft Dice, foreground IoU and background IoU of a stretched map, as the evaluation toolkit that Spider names."""
    total = stretched.sum(dtype=np.float64) + np.count_nonzero(truth)
    dice = (2 * stretched[truth].sum(dtype=np.float64) + SMOOTH) / (total + SMOOTH)
    tp, fp, fn, tn = confusion(stretched > THRESHOLD, truth)
    return float(dice), (tp + SMOOTH) / (tp + fp + fn + SMOOTH), (tn + SMOOTH) / (tn + fp + fn + SMOOTH)


def threshold_means(stretched: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean Dice and IoU over the thresholds 0..255 of a stretched map cut to 8 bits, foreground where level >= threshold.

    All thresholds come from two histograms summed from the top. 0/0 counts as 0, so an empty truth scores 0.
    """
    levels = np.floor(stretched * (LEVELS - 1) + 1e-4).astype(np.uint8)  # float rounding must not drop a level
    tp = np.bincount(levels[truth], minlength=LEVELS)[::-1].cumsum()  # (256,), thresholds 255..0
    fp = np.bincount(levels[~truth], minlength=LEVELS)[::-1].cumsum()
    union = fp + np.count_nonzero(truth)  # tp + fp + fn
    dice = 2 * tp / np.maximum(tp + union, 1)
    iou = tp / np.maximum(union, 1)
    return float(dice.mean()), float(iou.mean())


def _ratio(part: float, whole: float, empty: float) -> float:
    return part / whole if whole else empty


@dataclass(frozen=True)
class Protocol:
    """A named definition of Dice and IoU over the images of one task.

    Each of them is a function of sums over images, which lets the bootstrap resample sums instead of images.
    Called with the rows of one task it gives {"dice": ..., "iou": ...}; NaN where no image defines them.
    """

    name: str
    definition: str
    """For people; printed beside the numbers."""
    summands: Callable[[pd.DataFrame], np.ndarray]
    """The rows of n images to (n, k) numbers that may be added up over images."""
    statistics: Callable[[np.ndarray], np.ndarray]
    """Sums (..., k) to Dice and IoU (..., 2)."""

    def __call__(self, rows: pd.DataFrame) -> dict[str, float]:
        dice, iou = self.statistics(self.summands(rows).sum(axis=0))
        return {"dice": float(dice), "iou": float(iou)}


def _weighted(dice: pd.Series, iou: pd.Series, weight: pd.Series | float = 1.0) -> np.ndarray:
    """Summands of two weighted means: Dice, IoU, weight, (n, 3)."""
    weights = np.broadcast_to(np.asarray(weight, dtype=np.float64), len(dice))
    return np.stack([dice * weights, iou * weights, weights], axis=1)


def _weighted_means(sums: np.ndarray) -> np.ndarray:
    weight = sums[..., 2:]
    return np.divide(sums[..., :2], weight, out=np.full(sums[..., :2].shape, np.nan), where=weight > 0)


def _nnunet_summands(rows: pd.DataFrame) -> np.ndarray:
    return _weighted(rows["dice"], rows["iou"], rows["tp"] + rows["fp"] + rows["fn"] > 0)


def _tpseg_summands(rows: pd.DataFrame) -> np.ndarray:
    """Dice, 1, and the confusion matrix tp, fp, fn, tn, (n, 6)."""
    counts = rows[["tpseg_tp", "tpseg_fp", "tpseg_fn", "tpseg_tn"]].to_numpy(dtype=np.float64)
    return np.column_stack([rows["tpseg_dice"], np.ones(len(rows)), counts])


def _tpseg_statistics(sums: np.ndarray) -> np.ndarray:
    """Mean Dice, and the mean of foreground and background IoU of the pooled confusion matrix."""
    dice, images, tp, fp, fn, tn = np.moveaxis(sums, -1, 0)
    foreground = (tp + SMOOTH) / (tp + fp + fn + SMOOTH)
    background = (tn + SMOOTH) / (tn + fp + fn + SMOOTH)
    return np.stack([dice / images, (foreground + background) / 2], axis=-1)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "default",
            "mask at 1/2, original size; Dice and foreground IoU, mean over images; both empty 1, one empty 0",
            lambda rows: _weighted(rows["dice"], rows["iou"]),
            _weighted_means,
        ),
        Protocol(
            "tpseg",
            "mask at 1/2, input size; Dice, mean over images; IoU of the pooled confusion matrix, mean of foreground and background",
            _tpseg_summands,
            _tpseg_statistics,
        ),
        Protocol(
            "spider",
            "map stretched per image; soft Dice, mean over images; (mean foreground IoU + mean background IoU)/2",
            lambda rows: _weighted(rows["spider_dice"], (rows["spider_iou_fg"] + rows["spider_iou_bg"]) / 2),
            _weighted_means,
        ),
        Protocol(
            "pranet",
            "map stretched per image; Dice and foreground IoU, mean over 256 thresholds and images; empty truth 0",
            lambda rows: _weighted(rows["pranet_dice"], rows["pranet_iou"]),
            _weighted_means,
        ),
        Protocol(
            "nnunet",
            "mask at 1/2, original size; Dice and foreground IoU, mean over images; both empty left out",
            _nnunet_summands,
            _weighted_means,
        ),
    )
}
"""The definitions in use, by name."""


def resolve_protocols(choice: str) -> list[str]:
    """Names of the protocols that a choice means, `all` or one name; raises UsageError with the nearest name."""
    if choice == "all":
        return list(PROTOCOLS)
    if choice not in PROTOCOLS:
        raise UsageError(f"unknown protocol {choice!r}{nearest(choice, [*PROTOCOLS, 'all'])} (protocols: {', '.join(PROTOCOLS)}, all)")
    return [choice]


def bootstrap_sums(
    rows: np.ndarray, clusters: Sequence[str] | None = None, resamples: int = 1000, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Sums over images drawn with replacement, one row per resample: (n, k) -> (resamples, k).

    Images that share a name in `clusters` are drawn together, for images of one patient are not independent; an image
    whose name is '' stands alone. A single image or cluster tells nothing about its spread: all NaN.
    """
    if clusters is not None:
        _, members = np.unique([f"group {name}" if name else f"image {row}" for row, name in enumerate(clusters)], return_inverse=True)
        units = np.zeros((members.max() + 1, rows.shape[1]))
        np.add.at(units, members, rows)
        rows = units
    count = len(rows)
    if count < 2:
        return np.full((resamples, rows.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    return np.stack([np.bincount(generator.integers(count, size=count), minlength=count) @ rows for _ in range(resamples)])


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of resampled values (resamples,), NaN left out; (NaN, NaN) if there are no others."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
