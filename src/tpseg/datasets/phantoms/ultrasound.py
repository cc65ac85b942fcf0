"""Ultrasound of a thyroid with a nodule and of a breast with a lesion."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, cells, clouds, ellipse, finish, over, posed, soft, speckle


def thyroid_nodule(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """A transverse view of one lobe. Lesion: a nodule darker than the gland, with a dark halo and bright calcium specks.

    The carotid artery, the muscles and the far field are as dark as the nodule or darker.
    """
    y, x = posed(*axes(height, height), capture, shift=0.06, turn=0.08, zoom=0.06)
    flip = patient.choice([-1.0, 1.0])
    x = x * flip
    lobe = Outline.draw(patient, (0.08, -0.08), (0.50, 0.74), patient.uniform(-0.2, 0.2), rough=0.06, waves=4)
    gland = lobe.distance(y, x)
    radius = patient.uniform(0.22, 0.38)
    centre = (0.08 + patient.uniform(-0.10, 0.10), -0.08 + patient.uniform(-0.26, 0.22))
    shape = Outline.draw(patient, centre, (radius * patient.uniform(0.75, 0.95), radius * 1.1), patient.uniform(-0.4, 0.4), rough=0.07)
    nodule = shape.distance(y, x)

    echo = 0.40 + 0.05 * clouds(y, x * 0.3, capture, 0.08)
    echo = over(echo, 0.46 + 0.10 * clouds(y, x * 0.2, patient, 0.06), soft(-0.72 - y, 0.02))
    echo = over(echo, 0.22 + 0.09 * clouds(y - 0.15 * x, x * 0.15, patient, 0.05), soft(y + 0.70 - 0.10 * x**2, 0.02))
    echo = over(echo, 0.78, soft(0.022 - np.abs(gland), 0.012))
    echo = over(echo, 0.58 + 0.03 * clouds(y, x, patient, 0.15), soft(gland, 0.015))
    echo = _trachea(echo, y, x - 0.98)
    artery = ellipse(y, x, (0.20, -0.86), (0.17, 0.16))
    echo = over(over(echo, 0.62, soft(artery + 0.03)), 0.05, soft(artery))

    echo = over(echo, 0.20, 0.8 * soft(nodule + 0.015, 0.012))
    echo = over(echo, patient.uniform(0.24, 0.32) + 0.03 * clouds(y, x, patient, 0.12), soft(nodule - 0.02, 0.012))
    specks = np.array(centre) + patient.normal(scale=0.35 * radius, size=(patient.integers(1, 9), 2))
    calcium, _ = cells(y, x, specks, np.full((len(specks), 2), 0.016), np.zeros(len(specks)))
    echo = over(echo, 0.85, soft(calcium, 0.006))
    return finish(_insonated(echo, y, capture), nodule > 0)


def breast_lesion(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """Skin, fat, gland and chest wall. Lesion: an irregular dark mass with a bright rim and a shadow behind it.

    The shadow, fat lobules, small cysts and the chest wall are dark too but not part of the lesion.
    """
    y, x = posed(*axes(height, height), capture, shift=0.06, turn=0.08, zoom=0.06)
    radius = patient.uniform(0.26, 0.44)
    centre = (patient.uniform(-0.18, 0.05), patient.uniform(-0.42, 0.42))
    shape = Outline.draw(patient, centre, (radius * patient.uniform(0.65, 0.95), radius), patient.uniform(-0.3, 0.3), rough=0.10, waves=8)
    lesion = shape.distance(y, x)

    echo = _breast(y, x, patient)
    for _ in range(patient.integers(0, 3)):
        cyst = (patient.uniform(-0.3, 0.35), -np.sign(centre[1]) * patient.uniform(0.25, 0.85))
        size = patient.uniform(0.05, 0.08)
        below = soft(y - cyst[0], 0.03) * soft(size - np.abs(x - cyst[1]), 0.015) * np.exp(-np.abs(y - cyst[0]) / 0.4)
        echo = echo * (1 + 0.4 * below * (lesion < -0.05))
        echo = over(echo, 0.03, soft(ellipse(y, x, cyst, (size * 0.8, size))) * (lesion < -0.05))
    behind = soft(y - centre[0] - 0.3 * radius, 0.05) * soft(0.75 * radius - np.abs(x - centre[1]), 0.04)
    echo = echo * (1 - patient.uniform(0.25, 0.55) * behind)
    echo = over(echo, 0.80, 0.7 * soft(0.03 - np.abs(lesion + 0.02), 0.012) * soft(centre[0] - y + 0.1, 0.1))
    inside = patient.uniform(0.10, 0.17) + 0.03 * clouds(y, x, patient, 0.15)
    echo = over(echo, inside, soft(lesion, 0.015))
    return finish(_insonated(echo, y, capture), lesion > 0)


def _breast(y: Array, x: Array, rng: np.random.Generator) -> Array:
    """Bright skin, fat lobules between bright septa, streaky bright gland, striped muscle, chest wall."""
    bow = 0.05 * clouds(y * 0, x, rng, 0.9)
    fat_end, gland_end = rng.uniform(-0.55, -0.45) + bow, rng.uniform(0.42, 0.55) + 0.5 * bow
    lobules = np.abs(clouds(y * 1.8, x, rng, 0.35))
    echo = 0.30 + 0.38 * soft(0.10 - lobules, 0.04)
    gland = 0.58 + 0.09 * clouds(y * 2.2, x * 0.6, rng, 0.14, 2)
    gland = over(gland, 0.38, soft(clouds(y * 2, x, rng, 0.4) - 1.3, 0.2))
    echo = over(echo, gland, soft(y - fat_end, 0.03))
    muscle = 0.30 + 0.13 * clouds(y * 1.0, x * 0.12, rng, 0.06)
    echo = over(echo, muscle, soft(y - gland_end, 0.02))
    echo = over(echo, 0.80, soft(0.018 - np.abs(y - gland_end), 0.01))
    echo = over(echo, 0.10, soft(y - gland_end - 0.36, 0.02))
    return over(echo, 0.78, soft(-0.86 - y, 0.015))


def _trachea(echo: Array, y: Array, x: Array) -> Array:
    """Bright cartilage arc with air and its echoes below, centred at (0.25, 0)."""
    ring = ellipse(y, x, (0.30, 0.0), (0.46, 0.34))
    echo = over(echo, 0.09 + 0.12 * soft(np.sin(ring * 55) - 0.4, 0.2) * np.exp(-np.clip(ring, 0, None) / 0.12), soft(ring))
    return over(echo, 0.85, soft(0.025 - np.abs(ring - 0.02), 0.01) * soft(0.35 - y, 0.1))


def _insonated(echo: Array, y: Array, rng: np.random.Generator) -> Array:
    """What the probe shows of an echo map: speckle coarser with depth, log compression, fading, uneven gain."""
    fine, coarse = speckle(echo.shape, rng, (0.016, 0.030)), speckle(echo.shape, rng, (0.024, 0.050))
    deep = np.clip((y + 1) / 2, 0, 1)
    grains = np.log(0.1 + 0.9 * over(fine, coarse, deep))
    image = echo + 0.42 * np.sqrt(np.clip(echo, 0.01, None)) * grains
    gain = 1.04 - 0.30 * deep**1.5 + 0.04 * np.sin(9 * y + rng.uniform(0, 6))
    return (image + 0.02) * gain
