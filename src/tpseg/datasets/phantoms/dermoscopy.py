"""Dermoscopy of a pigmented skin lesion."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, canvas, clouds, finish, over, posed, soft

SKIN = ((0.91, 0.74, 0.66), (0.87, 0.68, 0.60), (0.82, 0.63, 0.52), (0.90, 0.71, 0.57))
TAN, BROWN, DARK, RED, VEIL = (0.68, 0.46, 0.33), (0.47, 0.29, 0.20), (0.24, 0.15, 0.12), (0.76, 0.44, 0.40), (0.46, 0.46, 0.54)


def skin_lesion(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """Skin through a dermatoscope. Lesion: an irregular mole of several browns with a pigment network.

    Hairs, ruler marks, air bubbles and the dark rim of the picture are no lesion; some lesions are pale.
    """
    flat_y, flat_x = axes(height, height)
    y, x = posed(flat_y, flat_x, capture, shift=0.12, turn=0.6, zoom=0.10)
    radius = patient.uniform(0.32, 0.60)
    centre = (patient.uniform(-0.15, 0.15), patient.uniform(-0.15, 0.15))
    shape = Outline.draw(patient, centre, (radius, radius * patient.uniform(0.7, 1.1)), patient.uniform(0, 3), rough=0.10, waves=8)
    depth = shape.distance(y, x) + 0.02 * clouds(y, x, patient, 0.22)

    image = canvas(y.shape, SKIN[patient.integers(len(SKIN))])
    image = image + (0.012 * clouds(y, x, patient, 0.5) + 0.010 * clouds(y, x, patient, 0.03, 2))[..., None] * (1, 1.2, 1.2)
    image = over(image, (0.84, 0.52, 0.46), 0.35 * soft(clouds(y, x, patient, 0.6) - 0.6, 0.4))
    pale = patient.uniform(0.62, 1.0)
    image = over(image, _pigment(y, x, depth, patient), pale * soft(depth, 0.022))

    image = over(image, 1.0, 0.5 * _bubbles(flat_y, flat_x, capture))
    image = over(image, (0.17, 0.11, 0.09), 0.85 * _hairs(flat_y, flat_x, capture))
    if patient.random() < 0.35:
        image = over(image, (0.12, 0.12, 0.14), 0.85 * _ruler(flat_y, flat_x))
    rim = soft(np.hypot(flat_y, flat_x) - capture.uniform(1.08, 1.35), 0.10)
    image = image * (1.03 - 0.10 * (flat_y**2 + flat_x**2))[..., None] * capture.uniform(0.92, 1.06)
    image = over(image, (0.05, 0.04, 0.04), rim)
    return finish(image + capture.normal(scale=0.010, size=image.shape), (depth > 0) & (rim < 0.5))


def _pigment(y: Array, x: Array, depth: Array, rng: np.random.Generator) -> Array:
    """Browns mottled at random, a net of dark lines towards the border, sometimes a blue-white veil or a red part."""
    image = over(canvas(y.shape, TAN), BROWN, soft(depth - 0.06 + 0.10 * clouds(y, x, rng, 0.25, 2), 0.05))
    image = over(image, DARK, 0.9 * soft(clouds(y, x, rng, 0.28, 2) - rng.uniform(0.3, 1.3), 0.2) * soft(depth - 0.06, 0.04))
    net = soft(0.30 - np.minimum(np.abs(clouds(y, x, rng, 0.085)), np.abs(clouds(y, x, rng, 0.085))), 0.10)
    image = over(image, DARK, 0.42 * net * soft(clouds(y, x, rng, 0.5) + 0.5, 0.3))
    dots = soft(clouds(y, x, rng, 0.06) - 2.0, 0.15)
    image = over(image, DARK, dots)
    accent = VEIL if rng.random() < 0.5 else RED
    return over(image, accent, 0.55 * soft(clouds(y, x, rng, 0.45) - 1.1, 0.2) * soft(depth - 0.08, 0.03))


def _hairs(y: Array, x: Array, rng: np.random.Generator) -> Array:
    """Coverage by up to 12 bent hairs."""
    cover = np.zeros_like(y)
    trend = rng.uniform(0, np.pi)
    for _ in range(rng.integers(0, 13)):
        angle, offset, bend = trend + rng.normal(scale=0.5), rng.uniform(-1.1, 1.1), rng.normal(scale=0.35)
        start, length = rng.uniform(-1.2, 0.3), rng.uniform(0.6, 1.4)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        away = np.abs(across - offset - bend * (along - start) ** 2)
        width = 0.009 * np.sqrt(np.clip(1 - (along - start) / length, 0, 1))
        cover = np.maximum(cover, soft(width - away, 0.003) * (along > start) * (width > 0))
    return cover


def _bubbles(y: Array, x: Array, rng: np.random.Generator) -> Array:
    """Coverage by the bright rims of up to five air bubbles in the immersion oil."""
    cover = np.zeros_like(y)
    for _ in range(rng.integers(0, 6)):
        cy, cx = rng.uniform(-1, 1, 2)
        size = rng.uniform(0.03, 0.09)
        cover = np.maximum(cover, soft(0.006 - np.abs(np.hypot(y - cy, x - cx) - size), 0.005))
    return cover


def _ruler(y: Array, x: Array) -> Array:
    """Coverage by a scale along the lower edge, every fifth mark longer."""
    nearest = np.round(x / 0.08)
    length = np.where(nearest % 5 == 0, 0.16, 0.09)
    return soft(0.007 - np.abs(x - nearest * 0.08), 0.003) * (y > 0.93 - length) * (y < 0.93)
