"""From decoded pixels to what the model sees: one preprocessing for training and prediction, and augmentation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation, which SAM 2 was trained with."""
IMAGE_FILTER = Image.Resampling.BILINEAR
"""In Pillow it looks at all the pixels that a smaller one stands for."""


def preprocess(image: np.ndarray, size: int) -> Tensor:
    """Stretch to a square, normalise: (H, W, 3) uint8 to (3, size, size) float32."""
    return normalise(to_tensor(resize_image(image, size)))


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3), bilinear with anti-aliasing."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), IMAGE_FILTER))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bool to (size, size) bool, by area: a pixel is lesion if at least half of it is."""
    if mask.shape == (size, size):
        return mask
    resized = np.zeros((size, size), bool)
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows):  # along the rows that hold lesion, then along the columns that do: the numbers of one resize of the whole, sooner
        strip = np.zeros((len(mask), size), np.float32)
        strip[rows[0] : rows[-1] + 1] = _by_area(mask[rows[0] : rows[-1] + 1], (size, int(rows[-1] - rows[0]) + 1))
        columns = np.flatnonzero(strip.any(axis=0))
        inside = slice(columns[0], columns[-1] + 1)
        resized[:, inside] = _by_area(strip[:, inside], (int(columns[-1] - columns[0]) + 1, size)) >= 0.5
    return resized


def _by_area(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) as float32 brought to a width and height; a side that stays is not looked at."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def resize_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, S, S) to (H, W), bilinear."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False, antialias=False)[0, 0]


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in [0, 1]."""
    return to_unit(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_unit(planes: np.ndarray) -> Tensor:
    """(3, H, W) uint8 to float32 in [0, 1]."""
    return torch.from_numpy(planes).float().div_(255)


def normalise(image: Tensor) -> Tensor:
    """(3, H, W) in [0, 1], by ImageNet's mean and standard deviation."""
    return (image - torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


def augment(image: Tensor, mask: Tensor, kind: str, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Vary a training pair; image (3, H, W) in [0, 1], mask (1, H, W) in {0, 1}; same shapes out.

    `flip` mirrors both ways with probability ½ each; `full` adds geometry and colour; `none` returns its input.
    """
    if kind == "none":
        return image, mask
    for axis in (1, 2):
        if rng.random() < 0.5:
            image, mask = image.flip(axis), mask.flip(axis)
    if kind == "full":
        if rng.random() < 0.5:
            image, mask = warp(image, mask, rng)
        image = vary_colour(image, rng)
    return image, mask


def warp(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn by up to 15°, scale by 0.8 to 1.25, stretch by up to 5 %, shift by up to 5 %; border reflected."""
    angle = np.deg2rad(rng.uniform(-15, 15))
    scale = np.exp(rng.uniform(-0.22, 0.22)) * np.exp(rng.uniform(-0.05, 0.05, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale[:, None]
    theta = np.concatenate([turn, rng.uniform(-0.1, 0.1, (2, 1))], 1)  # shift in half image widths
    grid = F.affine_grid(torch.from_numpy(theta).float()[None], [1, 1, *image.shape[1:]], align_corners=False)
    both = torch.cat([image, mask])[None]  # (1, 4, H, W)
    warped = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    return warped[:3], (warped[3:] >= 0.5).float()


def vary_colour(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, gamma, colour cast, and now and then noise or blur; (3, H, W) in [0, 1]."""
    if rng.random() < 0.5:
        mean = image.mean()
        image = (image - mean) * rng.uniform(0.8, 1.25) + mean + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.2:
        image = image.clamp(0, 1) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.2:
        image = image * torch.from_numpy(rng.uniform(0.9, 1.1, (3, 1, 1))).float()
    if rng.random() < 0.1:
        image = image + torch.from_numpy(rng.normal(0, rng.uniform(0.01, 0.05), image.shape)).float()
    if rng.random() < 0.1:
        image = F.avg_pool2d(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return image.clamp(0, 1)
