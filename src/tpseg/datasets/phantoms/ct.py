"""Computed tomography of a chest with a lung infection."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, cells, clouds, ellipse, finish, over, posed, soft

AIR, FAT, MUSCLE, BLOOD, BONE = 0.0, 0.44, 0.58, 0.62, 0.92
LUNG, HAZE = 0.10, 0.36
"""Grey values of a window that shows lung and soft tissue together."""


def lung_infection(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """An axial slice, width 6/5 of the height. Lesion: hazy ground-glass patches along the walls of both lungs.

    The haze is darker than fat and brighter than lung; every edge between lung and body passes through its grey value.
    """
    y, x = posed(*axes(height, height * 6 // 5), capture, shift=0.04, turn=0.05, zoom=0.05)
    body = Outline.draw(patient, (0.02, 0.0), (0.84, 1.10), rough=0.012).distance(y, x)
    lungs = [_lung(patient, side) for side in (-1.0, 1.0)]
    depths = [lung.distance(y, x) for lung in lungs]
    depth = np.maximum(*depths) + 0.008 * clouds(y, x, patient, 0.12)
    heart = ellipse(y, x, (-0.14, 0.16), (0.30, 0.30), 0.5)
    depth = np.minimum(depth, -heart)

    image = over(np.full_like(y, AIR), FAT + 0.015 * clouds(y, x, patient, 0.2), soft(body, 0.008))
    rind = patient.uniform(0.05, 0.09)
    image = over(image, MUSCLE + 0.02 * clouds(y, x, patient, 0.15, 2), soft(body - rind - 0.02 * clouds(y, x, patient, 0.25), 0.01))
    image = over(image, FAT, soft(-0.42 - y, 0.03) * soft(0.25 - np.abs(x), 0.05) * soft(body - rind, 0.01))
    image = over(image, BLOOD, soft(heart, 0.012))
    image = over(image, BLOOD + 0.03, soft(ellipse(y, x, (0.28, 0.13), (0.09, 0.09)), 0.008))
    image = _bones(image, y, x, patient)

    tissue = LUNG + 0.018 * clouds(y, x, capture, 0.10, 2) + 0.03 * np.clip(y, -0.5, 0.6)
    patches = _patches(y, x, lungs, patient) * (depth > 0.004)
    mottled = HAZE + 0.035 * clouds(y, x, patient, 0.07, 2)
    tissue = over(tissue, mottled, soft(patches, 0.02))
    tissue = over(tissue, BLOOD - 0.04, _vessels(y, x, patient))
    image = over(image, tissue, soft(depth, 0.006))
    image = over(image, AIR + 0.02, soft(ellipse(y, x, (0.02, 0.0), (0.06, 0.065)), 0.008))
    noise = ndimage.gaussian_filter(capture.normal(size=y.shape), 0.6) * 0.030
    return finish(image + noise + 0.01, (patches > 0) & (depth > 0))


def _lung(rng: np.random.Generator, side: float) -> Outline:
    return Outline.draw(rng, (0.0, 0.52 * side), (rng.uniform(0.54, 0.60), 0.38), 0.12 * side, rough=0.025)


def _patches(y: Array, x: Array, lungs: list[Outline], rng: np.random.Generator) -> Array:
    """Signed distance to two to four ragged patches that hug the lung walls, more of them towards the back."""
    nearest = np.full_like(y, -1.0)
    first = rng.integers(0, 2)
    for number in range(rng.integers(2, 5)):
        lung = lungs[(first + number) % 2]
        outward = 0.0 if lung.centre[1] > 0 else np.pi
        angle = np.array(outward + np.sign(np.cos(outward)) * rng.uniform(-0.5, 1.4))
        cy, cx = lung.points(angle, rng.uniform(0.10, 0.16))
        size = rng.uniform(0.17, 0.27)
        patch = Outline.draw(rng, (float(cy), float(cx)), (size, size * rng.uniform(0.75, 1.1)), rng.uniform(0, 3), rough=0.14)
        nearest = np.maximum(nearest, patch.distance(y, x))
    return nearest + 0.025 * clouds(y, x, rng, 0.10)


def _vessels(y: Array, x: Array, rng: np.random.Generator) -> Array:
    """Coverage by vessels: strands that fan out from the hilum of each lung and get thinner, and round cross-sections."""
    cover = np.zeros_like(y)
    for side in (-1, 1):
        dy, dx = y - 0.02, x * side - 0.20
        far, angle = np.hypot(dy, dx), np.arctan2(dy, np.maximum(dx, 1e-3))
        wave = 0.32 * far * clouds(y, x, rng, 0.35)
        away = np.full_like(y, np.inf)
        for start in np.linspace(-1.15, 1.15, 6) + rng.normal(scale=0.10, size=6):
            away = np.minimum(away, np.abs(angle - start + wave) * far)
        cover = np.maximum(cover, soft(0.026 - 0.034 * far - away, 0.005) * soft(0.62 - far, 0.05))
    spots = rng.uniform(-1, 1, (90, 2)) * (0.6, 0.95)
    dots, _ = cells(y, x, spots, rng.uniform(0.007, 0.017, (90, 1)).repeat(2, axis=1), np.zeros(90))
    return np.maximum(cover, 0.85 * soft(dots, 0.006))


def _bones(image: Array, y: Array, x: Array, rng: np.random.Generator) -> Array:
    """Vertebra with its canal, breast bone, shoulder blades and ribs, each with a bright shell around marrow."""
    wall = Outline((0.02, 0.0), (0.70, 0.965), 0.0, np.zeros((2, 0)))
    angles = np.array([-2.75, -2.2, -1.15, -0.4, 0.05, 0.55, 1.05, 2.1, 2.6, 3.1]) + rng.normal(scale=0.05, size=10)
    py, px = wall.points(angles, 0.0)
    along_wall = np.arctan2(np.cos(angles) * 0.70, np.sin(angles) * 0.965)
    centres, radii = np.stack([py, px], axis=1), np.tile([0.036, 0.105], (10, 1))
    ribs, _ = cells(y, x, centres, radii, along_wall)
    image = over(over(image, BONE, soft(ribs, 0.006)), 0.72, soft(ribs - 0.018, 0.006))
    for part in (
        ellipse(y, x, (0.42, 0.0), (0.15, 0.17)),
        ellipse(y, x, (0.66, 0.0), (0.12, 0.05)),
        ellipse(y, x, (-0.60, 0.0), (0.05, 0.14)),
    ):
        image = over(over(image, BONE, soft(part, 0.008)), 0.74 + 0.03 * clouds(y, x, rng, 0.05), soft(part - 0.025, 0.008))
    for side in (-1, 1):
        image = over(image, BONE, soft(ellipse(y, x, (0.60, 0.13 * side), (0.035, 0.13), 0.5 * side), 0.008))
    return over(image, MUSCLE - 0.02, soft(ellipse(y, x, (0.575, 0.0), (0.05, 0.06)), 0.008))
