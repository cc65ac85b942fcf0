"""Shapes and textures that all phantoms are drawn with.

Lengths are in half image heights: y runs from -1 (top) to 1 (bottom), x likewise and further where an image is wider.
Shapes are signed distances, positive inside; `soft` turns one into a coverage between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.special import expit

Array = NDArray[np.float64]
Drawing = tuple[Array, NDArray[np.bool_]]
"""What every phantom returns: image (H, W) or (H, W, 3) in [0, 1], mask (H, W)."""
TILE, FINENESS = 64, 8
"""Spots along one side of the noise tile that `clouds` looks up, and samples per spot."""


def axes(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres y, x, each (H, W), in half image heights."""
    y = (np.arange(height) + 0.5) * 2 / height - 1
    x = (np.arange(width) + 0.5) * 2 / height - width / height
    return tuple(np.meshgrid(y, x, indexing="ij"))  # type: ignore[return-value]


def posed(y: Array, x: Array, rng: np.random.Generator, shift: float = 0.08, turn: float = 0.12, zoom: float = 0.08) -> tuple[Array, Array]:
    """The same points seen by a probe or camera moved by up to `shift`, `turn` (radians) and `zoom` (share)."""
    dy, dx, angle, scale = rng.uniform(-1, 1, 4) * (shift, shift, turn, zoom)
    cos, sin = np.cos(angle) * (1 + scale), np.sin(angle) * (1 + scale)
    return cos * y + sin * x + dy, cos * x - sin * y + dx


@dataclass(frozen=True)
class Outline:
    """A closed, wavy outline around a centre."""

    centre: tuple[float, float]
    """y, x."""
    radii: tuple[float, float]
    """Half axes along y and x before turning."""
    turn: float
    """Radians."""
    waves: Array
    """(2, K): cosine and sine share of the radius, for 2, 3, ... K + 1 waves around the outline."""

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        centre: tuple[float, float],
        radii: tuple[float, float],
        turn: float = 0.0,
        rough: float = 0.0,
        waves: int = 6,
    ) -> Outline:
        """A random outline; `rough` is the typical deviation from an ellipse, as a share of the radius."""
        orders = np.arange(2, 2 + waves)
        return cls(centre, radii, turn, rng.normal(size=(2, waves)) * 1.5 * rough / orders)

    def distance(self, y: Array, x: Array) -> Array:
        """Signed distance to the outline, positive inside, right for circles and good enough for the rest."""
        dy, dx = y - self.centre[0], x - self.centre[1]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        v, u = (cos * dy - sin * dx) / self.radii[0], (sin * dy + cos * dx) / self.radii[1]
        away = np.hypot(v, u)
        return (self._reach((u + 1j * v) / np.maximum(away, 1e-9)) - away) * min(self.radii)

    def points(self, angles: Array, depth: ArrayLike) -> tuple[Array, Array]:
        """y, x of points `depth` inside the outline at the given angles."""
        reach = self._reach(np.exp(1j * angles)) - np.asarray(depth) / min(self.radii)
        v, u = reach * np.sin(angles) * self.radii[0], reach * np.cos(angles) * self.radii[1]
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.centre[0] + cos * v + sin * u, self.centre[1] - sin * v + cos * u

    def _reach(self, toward: NDArray[np.complex128]) -> Array:
        """Radius in the given directions as a share of the half axes; unit complex numbers, whose powers are the waves."""
        if self.waves.size == 0:
            return np.ones(toward.shape)
        waves = self.waves[0] - 1j * self.waves[1]
        return 1 + (np.polyval(waves[::-1], toward) * toward**2).real


def ellipse(y: Array, x: Array, centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Array:
    """Signed distance to an ellipse, positive inside."""
    return Outline(centre, radii, turn, np.zeros((2, 0))).distance(y, x)


def soft(distance: Array, width: float = 0.012) -> Array:
    """Coverage of a shape whose edge is blurred over `width`."""
    return expit(distance / width)


def over(base: Array, paint: ArrayLike, cover: Array) -> Array:
    """Lay paint (a grey value, an RGB colour or an image) over a base where `cover` (H, W) is 1."""
    share = cover[..., None] if base.ndim == 3 else cover
    return base + share * (np.asarray(paint) - base)


def canvas(shape: tuple[int, ...], colour: tuple[float, float, float]) -> Array:
    """An image (H, W, 3) of one colour."""
    return np.broadcast_to(np.array(colour), (*shape, 3)).copy()


@cache
def _smooth_tile() -> Array:
    """Periodic smooth noise of mean 0 and deviation 1, TILE spots along each side: interpolated once, looked up ever after."""
    rough = np.random.default_rng(0).normal(size=(TILE, TILE))
    tile = ndimage.zoom(rough, FINENESS, order=3, mode="grid-wrap", grid_mode=True)
    return (tile - tile.mean()) / tile.std()


def clouds(y: Array, x: Array, rng: np.random.Generator, cell: float, octaves: int = 1) -> Array:
    """Smooth noise around 0 with standard deviation 1, its spots `cell` wide; each octave adds finer, weaker spots."""
    total = np.zeros_like(y)
    for octave in range(octaves):
        scale = FINENESS * 2**octave / cell * rng.choice([-1.0, 1.0], 2)
        start = rng.uniform(0, FINENESS * TILE, 2)
        at = (y * scale[0] + start[0], x * scale[1] + start[1])
        total += ndimage.map_coordinates(_smooth_tile(), at, order=1, mode="grid-wrap") / 2**octave
    return total / np.sqrt(sum(4.0**-octave for octave in range(octaves)))


def speckle(shape: tuple[int, ...], rng: np.random.Generator, grain: tuple[float, float]) -> Array:
    """Coherent speckle of mean 1 compounded from two looks, grains `grain` (y, x) wide in half image heights.

    A look is the size of a blurred complex field; one look alone has unsightly black cracks where the field is 0.
    """
    sigma = np.array(grain) * shape[0] / 4
    looks = rng.standard_normal(size=(4, *shape), dtype=np.float32)  # real and imaginary part of each look
    blurred = ndimage.gaussian_filter(looks, (0, *sigma), mode="wrap", truncate=3)
    size = np.sqrt((blurred**2).sum(axis=0)).astype(np.float64)
    return size / size.mean()


def cells(y: Array, x: Array, centres: Array, radii: Array, turns: Array) -> tuple[Array, NDArray[np.intp]]:
    """Small ellipses: signed distance (H, W) and, at each pixel, the number of the nearest one.

    centres (N, 2) as y, x; radii (N, 2); turns (N,) in radians.
    """
    reach = float(radii.max()) + 0.03
    points = np.stack([y.ravel(), x.ravel()], axis=1)  # (H, W) -> (H W, 2)
    _, nearest = KDTree(centres).query(points, distance_upper_bound=reach)
    near = nearest < len(centres)  # the tree answers N where nothing is within reach
    number = np.where(near, nearest, 0)
    dy, dx = (points - centres[number]).T
    cos, sin = np.cos(turns[number]), np.sin(turns[number])
    v, u = (cos * dy - sin * dx) / radii[number, 0], (sin * dy + cos * dx) / radii[number, 1]
    distance = np.where(near, (1 - np.hypot(v, u)) * radii[number].min(axis=1), -reach)
    return distance.reshape(y.shape), number.reshape(y.shape)


def finish(image: Array, mask: NDArray[np.bool_]) -> Drawing:
    """Image values cut to [0, 1]."""
    return np.clip(image, 0, 1), mask
