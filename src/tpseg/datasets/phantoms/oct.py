"""Optical coherence tomography of a macula with wet age-related degeneration."""

from __future__ import annotations

import numpy as np

from tpseg.datasets.phantoms.drawing import Array, Drawing, axes, clouds, ellipse, finish, over, posed, soft, speckle

LAYER_DEPTHS = (-0.03, 0.0, 0.12, 0.16, 0.36, 0.40, 0.48, 0.51, 0.57, 0.61, 0.84, 0.87, 0.93, 0.96, 1.0)
LAYER_ECHOES = (0.06, 0.72, 0.66, 0.50, 0.46, 0.28, 0.28, 0.50, 0.48, 0.22, 0.20, 0.58, 0.60, 0.34, 0.34)
"""Brightness at relative depths of the retina: nerve fibres, ganglion cells, inner nuclei, outer plexus, outer nuclei, photoreceptors."""
FLUID = 0.07
VITREOUS = 0.06


def wet_amd(patient: np.random.Generator, capture: np.random.Generator, height: int) -> Drawing:
    """A B-scan, width 4/3 of the height. Lesion: subretinal fluid, the detached pigment epithelium below it, and cysts.

    The fluid is as dark as the vitreous above the retina and as the shadows of vessels, so grey values do not tell it.
    """
    y, x = posed(*axes(height, height * 4 // 3), capture, shift=0.07, turn=0.05, zoom=0.05)
    fovea = patient.uniform(-0.35, 0.35)
    middle = fovea + patient.choice([-1.0, 1.0]) * patient.uniform(0.15, 0.5)
    membrane = 0.40 + patient.uniform(0.02, 0.10) * x**2 + patient.uniform(-0.06, 0.06) * x
    wave = 1 + 0.12 * clouds(y * 0, x, patient, 0.4)
    raised = _dome(x, middle + patient.uniform(-0.25, 0.25), patient.uniform(0.3, 0.55), patient.uniform(0.12, 0.28)) * wave
    epithelium = membrane - raised
    floor = epithelium - _dome(x, middle, patient.uniform(0.5, 0.8), patient.uniform(0.16, 0.30))
    pit = np.exp(-(np.abs((x - fovea) / 0.20) ** 2.5))
    thickness = 0.56 - 0.28 * pit - 0.4 * (membrane - floor) * (1 - 0.6 * pit) + 0.015 * clouds(y * 0, x, patient, 0.6)
    surface = floor - thickness

    image = np.interp((y - surface) / thickness, LAYER_DEPTHS, LAYER_ECHOES) * (1 + 0.06 * clouds(y * 3, x, capture, 0.25))
    cysts = np.zeros_like(y)
    for _ in range(patient.integers(0, 4)):
        at = middle + patient.uniform(-0.8, 0.8)
        top, thick = (float(np.interp(at, x[height // 2], part[height // 2])) for part in (surface, thickness))
        size = thick * patient.uniform(0.14, 0.22)
        cysts = np.maximum(cysts, soft(ellipse(y, x, (top + 0.45 * thick, at), (size, size * 1.3))))
    image = over(image, FLUID, cysts)
    image = over(image, FLUID + 0.01 * clouds(y, x, capture, 0.2), soft(y - floor, 0.008))
    image = over(image, 0.36 + 0.07 * clouds(y, x, capture, 0.12, 2), soft(y - epithelium, 0.008))
    image = over(image, _choroid(y, x, membrane, capture), soft(y - membrane - 0.03, 0.015))
    image = over(image, 0.86, soft(y - epithelium, 0.008) * soft(epithelium + 0.055 - y, 0.01))

    shadows = 1 - 0.5 * soft(clouds(y * 0, x, patient, 0.10) - 2.0, 0.2) * soft(y - surface - 0.12, 0.03)
    image = over(image * shadows, VITREOUS + 0.01 * clouds(y, x, capture, 0.3), soft(surface - y, 0.008))
    grains = speckle(y.shape, capture, (0.018, 0.026))
    lesion = ((y > floor) & (y < membrane) & (membrane - floor > 0.07)) | (cysts > 0.5)
    return finish(image * (0.45 + 0.55 * grains) + 0.025 * grains, lesion)


def _dome(x: Array, middle: float, width: float, top: float) -> Array:
    """Height of a smooth dome `top` high that ends `width` to either side of its middle."""
    return top * np.clip(1 - ((x - middle) / width) ** 2, 0, None) ** 1.3


def _choroid(y: Array, x: Array, membrane: Array, rng: np.random.Generator) -> Array:
    """Vessel-rich tissue below the retina that fades with depth."""
    depth = y - membrane
    vessels = soft(clouds(y, x * 0.7, rng, 0.10) - 0.5, 0.25)
    return (0.50 - 0.22 * vessels * (depth < 0.35)) * np.exp(-np.clip(depth, 0, None) / 0.4)
