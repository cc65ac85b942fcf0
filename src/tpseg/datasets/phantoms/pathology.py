"""Haematoxylin and eosin stained section of an adenocarcinoma."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, canvas, cells, clouds, finish, over, posed, soft

COLLAGEN, FIBRE = (0.92, 0.72, 0.82), (0.83, 0.52, 0.69)
EPITHELIUM, LUMEN, GAP = (0.76, 0.54, 0.74), (0.95, 0.92, 0.94), (0.96, 0.94, 0.95)
NUCLEUS = np.array([0.36, 0.20, 0.52])


def adenocarcinoma(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """Glands in stroma. Lesion: the glands, with their rows of nuclei and their lumen.

    Stroma has nuclei and lymphocytes as dark, and fat and clefts as white, as anything in a gland.
    """
    y, x = posed(*axes(height, height), capture, shift=0.15, turn=0.3, zoom=0.08)
    glands = _place_glands(patient)
    distances = np.stack([gland.distance(y, x) for gland in glands])  # (G, H, W)
    depth = distances.max(axis=0) + 0.008 * clouds(y, x, patient, 0.07)

    image = _stroma(y, x, depth, patient)
    image = over(image, EPITHELIUM, soft(depth, 0.008))
    image = over(image, np.array(EPITHELIUM) * 1.09, 0.7 * soft(depth - 0.08, 0.015) + 0.1 * clouds(y, x, patient, 0.05))
    wall = 0.125 + 0.02 * clouds(y, x, patient, 0.12)
    mucin = 0.5 * soft(clouds(y, x, patient, 0.12, 2) - 0.9, 0.2)
    image = over(image, LUMEN, soft(depth - wall, 0.008))
    image = over(image, (0.80, 0.74, 0.86), mucin * soft(depth - wall - 0.03, 0.01))

    centres, radii, turns = _nuclei(glands, patient)
    nuclei, number = cells(y, x, centres, radii, turns)
    shade = patient.uniform(0.85, 1.35, len(centres))[number][..., None]
    grainy = shade * NUCLEUS * (1 + 0.10 * clouds(y, x, capture, 0.018))[..., None]
    image = over(image, grainy, 0.92 * soft(nuclei, 0.006))
    stain = patient.uniform(0.8, 1.25) * np.array([patient.uniform(0.9, 1.1), 1.0, patient.uniform(0.9, 1.1)])
    image = np.clip(image, 0.02, 1) ** stain + capture.normal(scale=0.012, size=image.shape)
    return finish(image, depth > 0)


def _place_glands(rng: np.random.Generator) -> list[Outline]:
    """Three to seven glands that keep clear of each other, the first one within the picture."""
    glands: list[Outline] = []
    room: list[tuple[float, float, float]] = []
    wanted = rng.integers(3, 8)
    for attempt in range(60):
        reach = 0.35 if attempt == 0 else 1.2
        radius = rng.uniform(0.24, 0.38)
        cy, cx = rng.uniform(-reach, reach, 2)
        if all(np.hypot(cy - oy, cx - ox) > 1.25 * (radius + other) for oy, ox, other in room):
            room.append((cy, cx, radius))
            glands.append(Outline.draw(rng, (cy, cx), (radius, radius * rng.uniform(0.75, 1.15)), rng.uniform(0, 3), rough=0.07))
        if len(glands) == wanted:
            break
    return glands


def _stroma(y: Array, x: Array, depth: Array, rng: np.random.Generator) -> Array:
    """Wavy pink fibres that part around the glands, with a few white clefts and fat cells."""
    bend = 0.12 * clouds(y, x, rng, 0.5)
    slope = rng.uniform(-1, 1)
    along, across = x + slope * y, y - slope * x + bend + 0.25 * np.exp(-np.abs(depth) / 0.15)
    fibres = clouds(across, along * 0.18, rng, 0.05, 2)
    image = over(canvas(y.shape, COLLAGEN), FIBRE, soft(fibres - 0.2, 0.5))
    clefts = soft(clouds(across, along * 0.3, rng, 0.11) - 2.0, 0.15)
    fat = soft(clouds(y, x, rng, 0.30) - 1.75, 0.05)
    return over(image, GAP, np.maximum(clefts, fat) * soft(-depth - 0.05, 0.01))


def _nuclei(glands: list[Outline], rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Centres (N, 2), radii (N, 2) and turns (N,): a ring in each gland, spindles and lymphocytes in the stroma."""
    rings = []
    for gland in glands:
        count = int(2 * np.pi * np.mean(gland.radii) / 0.060)
        angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(scale=0.05, size=count)
        py, px = gland.points(angles, 0.05 + rng.normal(scale=0.012, size=count))
        outward = np.arctan2(px - gland.centre[1], py - gland.centre[0])
        rings.append(np.stack([py, px, 0.042 * rng.uniform(0.8, 1.2, count), 0.023 * rng.uniform(0.8, 1.2, count), outward]))
    scattered = rng.uniform(-1.3, 1.3, (2, 220))
    swarm = rng.uniform(-1, 1, (2, 1)) + rng.normal(scale=0.14, size=(2, 40))
    spots = np.concatenate([scattered, swarm], axis=1)
    inside = np.max([gland.distance(*spots) for gland in glands], axis=0)
    long = np.where(np.arange(260) < 170, 0.036, 0.022) * rng.uniform(0.8, 1.2, 260)
    wide = np.where(np.arange(260) < 170, 0.012, 0.020) * rng.uniform(0.8, 1.2, 260)
    loose = np.stack([*spots, long, wide, rng.normal(1.0, 0.5, 260)])[:, inside < -0.04]
    py, px, ry, rx, turns = np.concatenate([*rings, loose], axis=1)
    return np.stack([py, px], axis=1), np.stack([ry, rx], axis=1), turns
