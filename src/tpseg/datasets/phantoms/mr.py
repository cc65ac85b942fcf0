"""Magnetic resonance image of a head with a brain tumour."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, Outline, axes, clouds, ellipse, finish, over, posed, soft

FLUID, GREY_MATTER, WHITE_MATTER = 0.16, 0.38, 0.56


def brain_tumor(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """An axial slice after contrast agent. Lesion: a tumour with a bright, ragged rim and a dark or grey core.

    Scalp, skull-base fat and vessels are as bright as the rim, ventricles and furrows as dark as the core.
    """
    y, x = posed(*axes(height, height), capture, shift=0.05, turn=0.15, zoom=0.05)
    side = patient.choice([-1.0, 1.0])
    radius = patient.uniform(0.20, 0.32)
    centre = (patient.uniform(-0.42, 0.35), side * patient.uniform(0.20, 0.34))
    tumour = Outline.draw(patient, centre, (radius, radius * patient.uniform(0.8, 1.15)), patient.uniform(0, 3), rough=0.13).distance(y, x)

    head = Outline.draw(patient, (0, 0), (0.92, patient.uniform(0.74, 0.80)), rough=0.012).distance(y, x)
    tumour = np.minimum(tumour, head - 0.13)  # it does not grow into the skull
    image = 0.02 * np.ones_like(y)
    image = over(image, 0.80 + 0.08 * clouds(y, x, patient, 0.2), soft(head))
    image = over(image, 0.07, soft(head - 0.055))
    image = over(image, 0.30, soft(head - 0.085, 0.008) * soft(0.10 - head, 0.008))
    image = over(image, FLUID, soft(head - 0.115))
    image = over(image, _brain(*_pushed(y, x, centre, radius), head - 0.13, patient), soft(head - 0.13))
    image = over(image, 0.78, soft(ellipse(y, x, (0.84, 0.0), (0.05, 0.04))) + soft(ellipse(y, x, (-0.79, 0.0), (0.03, 0.02))))

    swelling = soft(tumour + 0.11 + 0.05 * clouds(y, x, patient, 0.15), 0.04) * soft(head - 0.16)
    image = over(image, 0.36, 0.75 * swelling)
    depth = tumour + 0.02 * clouds(y, x, patient, 0.08)
    image = over(image, 0.84 + 0.05 * clouds(y, x, patient, 0.1), soft(tumour, 0.01))
    core = patient.choice([0.16, 0.30, 0.62])
    image = over(image, core + 0.05 * clouds(y, x, patient, 0.12), soft(depth - patient.uniform(0.05, 0.09), 0.015))

    coil = patient.uniform(0, 2 * np.pi)
    bias = 1 + 0.13 * (y * np.sin(coil) + x * np.cos(coil))
    noise = capture.normal(scale=0.028, size=(2, *y.shape))
    return finish(np.hypot(image * bias + noise[0], noise[1]), tumour > 0)


def _pushed(y: Array, x: Array, centre: tuple[float, float], radius: float) -> tuple[Array, Array]:
    """Where tissue came from that a growing mass has pushed aside."""
    dy, dx = y - centre[0], x - centre[1]
    pull = 1 - 0.45 * np.exp(-(dy**2 + dx**2) / (2 * (1.3 * radius) ** 2))
    return centre[0] + pull * dy, centre[1] + pull * dx


def _brain(y: Array, x: Array, depth: Array, rng: np.random.Generator) -> Array:
    """Folded cortex around white matter, deep grey nuclei, ventricles; `depth` is measured from the brain's surface."""
    bend = 0.10 * clouds(y, x, rng, 0.30)
    folds = np.abs(clouds((depth + bend) * 0.45, np.arctan2(y, x) + bend, rng, 0.11))
    reach = 0.15 + 0.05 * clouds(y, x, rng, 0.25)
    furrows = soft(0.20 - folds, 0.08) * soft(reach - depth, 0.015)
    ribbon = np.maximum(soft(0.05 - depth, 0.012), soft(0.75 - folds, 0.10) * soft(reach + 0.045 - depth, 0.012))
    image = WHITE_MATTER + 0.012 * clouds(y, x, rng, 0.3)
    image = over(image, GREY_MATTER, ribbon)
    image = over(image, FLUID, furrows)
    image = over(image, FLUID, soft(0.012 - np.abs(x), 0.006) * np.maximum(soft(-0.38 - y, 0.03), soft(y - 0.45, 0.03)))
    width = rng.uniform(0.055, 0.085)
    for side in (-1, 1):
        image = over(image, GREY_MATTER + 0.03, soft(ellipse(y, x, (0.10, 0.13 * side), (0.13, 0.09), -0.3 * side), 0.02))
        image = over(image, GREY_MATTER + 0.02, soft(ellipse(y, x, (-0.10, 0.25 * side), (0.17, 0.05), 0.25 * side), 0.02))
        image = over(image, FLUID, soft(ellipse(y, x, (-0.14, 0.085 * side), (0.20, width), 0.35 * side)))
        image = over(image, FLUID, soft(ellipse(y, x, (0.30, 0.20 * side), (0.17, width * 0.8), -0.45 * side)))
    return over(image, FLUID, soft(ellipse(y, x, (0.12, 0.0), (0.11, 0.018))))
