"""Colonoscopy view of a polyp, lit as a relief by the endoscope's own lamp."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, canvas, clouds, finish, over, posed, soft


def colon_polyp(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """Wet red mucosa with folds around a dark lumen. Lesion: a dome-shaped polyp.

    Folds are lit like the polyp, highlights lie on both, and lumen and picture corners are darker than any tissue.
    """
    flat_y, flat_x = axes(height, height)
    y, x = posed(flat_y, flat_x, capture, shift=0.10, turn=0.5, zoom=0.08)
    angle = patient.uniform(0, 2 * np.pi)
    lumen = 0.52 * np.sin(angle), 0.52 * np.cos(angle)
    radius = patient.uniform(0.26, 0.48)
    away = angle + np.pi + patient.uniform(-0.8, 0.8)
    centre = (patient.uniform(0.05, 0.30) * np.sin(away), patient.uniform(0.05, 0.30) * np.cos(away))
    polyp = Outline.draw(patient, centre, (radius, radius * patient.uniform(0.85, 1.2)), patient.uniform(0, 3), rough=0.05).distance(y, x)
    cover = soft(polyp, 0.012)

    dy, dx = y - lumen[0], x - lumen[1]
    far = np.hypot(dy, dx)
    folds = _folds(far, np.arctan2(dy, dx), clouds(y, x, patient, 0.6), patient)
    bumps = 0.003 * clouds(y, x, patient, 0.08)
    bulge = 0.75 * radius * np.sqrt(np.clip(1 - (1 - np.clip(polyp / radius, 0, 1)) ** 2, 0, 1))
    relief = over(folds + bumps, bulge + bumps * 2, cover)

    redness = patient.uniform(-0.06, 0.06)
    image = canvas(y.shape, (0.86, 0.47 - redness, 0.36 - redness)) + 0.03 * clouds(y, x, patient, 0.4)[..., None]
    vessels = soft(0.035 - np.abs(clouds(y, x, patient, 0.32, 2)), 0.03) * soft(clouds(y, x, patient, 0.5), 0.5)
    image = over(image, (0.66, 0.20, 0.17), 0.6 * vessels)
    surface = np.array([0.84, 0.40 - redness, 0.33 - redness]) * (1 + 0.05 * clouds(y, x, patient, 0.05))[..., None]
    image = over(image, surface, cover)

    diffuse, shine = _lit(relief, height, (-lumen[0] * 0.4 - 0.3, -lumen[1] * 0.4))
    tunnel = soft(far - 0.20 - 0.05 * clouds(y, x, patient, 0.3), 0.11)
    lamp = np.exp(-(flat_y**2 + flat_x**2) / 2.6) * over(0.10 + 0.90 * tunnel, 1.0, cover)
    shadow = 1 - 0.35 * soft(polyp + 0.07, 0.03) * (1 - cover)
    image = image * (diffuse * lamp * shadow * capture.uniform(1.05, 1.2))[..., None]
    wet = soft(clouds(flat_y, flat_x, capture, 0.10, 2) - 1.6, 0.12)
    image = over(image, (1.0, 0.97, 0.95), np.clip(1.6 * shine * wet, 0, 1) * lamp * np.maximum(tunnel, cover))
    image = image + capture.normal(scale=0.010, size=image.shape)
    window = ((np.abs(flat_y) / 0.97) ** 5 + (np.abs(flat_x) / 1.02) ** 5) ** 0.2
    return finish(over(image, (0.015, 0.015, 0.02), soft(window - 1.0, 0.006)), (polyp > 0) & (window < 1.0))


def _folds(far: Array, angle: Array, bend: Array, rng: np.random.Generator) -> Array:
    """Heights of crescent folds that ring the lumen at growing distances."""
    height = np.zeros_like(far)
    for ring in (0.36, 0.66, 1.02, 1.45):
        at = ring + 0.09 * bend + 0.05 * np.cos(3 * angle + rng.uniform(0, 6))
        crescent = 0.35 + 0.65 * np.cos(angle - rng.uniform(0, 2 * np.pi)) ** 2
        height += 0.20 * ring**0.5 * crescent * np.exp(-(((far - at) / (0.09 + 0.05 * ring)) ** 2))
    return height * soft(far - 0.16, 0.03)


def _lit(relief: Array, height: int, lamp: tuple[float, float]) -> tuple[Array, Array]:
    """Diffuse and mirror light (H, W) of a relief seen from above, lamp at (y, x, 1)."""
    slope_y, slope_x = np.gradient(relief, 2 / height)
    length = np.sqrt(slope_y**2 + slope_x**2 + 1)
    towards = np.sqrt(lamp[0] ** 2 + lamp[1] ** 2 + 1)
    facing = (1 - slope_y * lamp[0] - slope_x * lamp[1]) / (length * towards)
    half = np.array([lamp[0], lamp[1], 1 + towards])
    half = half / np.linalg.norm(half)
    mirror = np.clip((half[2] - slope_y * half[0] - slope_x * half[1]) / length, 0, 1)
    return np.clip(facing, 0.12, None), mirror**30
