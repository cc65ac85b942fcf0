"""TransUNet (Chen et al. 2021, arXiv 2102.04306; MIA 2024): a ResNet to stride 16, a ViT on its cells, a cascaded upsampler.

Written from the paper's description of R50-ViT-B/16. Differs from it: random weights where the authors start from
ImageNet-21k; no dropout, so that a resumed run equals one that was not stopped; position embeddings of a 14×14 grid,
resized to the image at hand, where the authors' fit one size of image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.networks.parts import double_conv, first_width
from tpseg.models.networks.task_blind import TaskBlind
from tpseg.models.trunks.hiera import attend

WIDTH = 64
"""Channels of the ResNet's first convolution; all other widths are multiples or fractions of it."""
UNITS = (3, 4, 9)
"""Bottlenecks of the three stages, at strides 4, 8 and 16: ResNet-50's last stage is merged into the third."""
LAYERS = 12
HEADS = 12
GRID = 14
"""Side of the grid of position embeddings: 224 px at stride 16."""


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose every output's kernel has mean 0 and variance 1 (weight standardisation, arXiv 1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        return F.conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-5), None, self.stride, self.padding)


def conv_group_norm(width_in: int, width_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Standardised convolution and GroupNorm with 32 groups, fewer in a miniature."""
    conv = StandardisedConv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(32, width_out), width_out, eps=1e-6))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 to four times the width, plus a shortcut, as in ResNet-50."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = conv_group_norm(width_in, width, 1)
        self.convolve = conv_group_norm(width, width, 3, stride)
        self.expand = conv_group_norm(width, 4 * width, 1)
        self.shortcut = nn.Identity() if width_in == 4 * width else conv_group_norm(width_in, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 4 * width, h / stride, w / stride)
        y = F.relu(self.convolve(F.relu(self.reduce(x))))
        return F.relu(self.expand(y) + self.shortcut(x))


class ResNet(nn.Module):
    """Features at strides 2, 4, 8 and 16 with 1, 4, 8 and 16 times the width in channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.root = nn.Sequential(conv_group_norm(3, width, 7, 2), nn.ReLU())
        self.stages = nn.ModuleList()
        width_in = width
        for stage, units in enumerate(UNITS):
            inner = width * 2**stage
            first = Bottleneck(width_in, inner, stride=1 if stage == 0 else 2)  # pooling has brought the first to stride 4
            self.stages.append(nn.Sequential(first, *[Bottleneck(4 * inner, inner, 1) for _ in range(units - 1)]))
            width_in = 4 * inner

    def forward(self, image: Tensor) -> list[Tensor]:  # (B, 3, H, W) -> four maps, fine to coarse
        features = [self.root(image)]
        x = F.max_pool2d(features[0], 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class TransformerLayer(nn.Module):
    """h + Attention(LN(h)), then h + MLP(LN(h)), as in ViT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:  # (B, N, C) -> (B, N, C)
        batch, count, width = tokens.shape
        qkv = self.qkv(self.attention_norm(tokens)).reshape(batch, count, 3, HEADS, width // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, C / heads)
        seen = attend(query, key, value, (width // HEADS) ** -0.5).transpose(1, 2).reshape(batch, count, width)
        tokens = tokens + self.project(seen)
        return tokens + self.mlp(tokens)


class Transformer(nn.Module):
    """A ViT whose patches are the cells of the ResNet's last map."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width_in, width, 1)
        self.position = nn.Parameter(torch.empty(1, width, GRID, GRID))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.Sequential(*[TransformerLayer(width) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, h, w) -> (B, C, h, w)
        size = x.shape[2:]
        x = self.embed(x) + F.interpolate(self.position, size, mode="bicubic", align_corners=False)
        tokens = self.norm(self.layers(x.flatten(2).transpose(1, 2)))  # (B, h * w, C)
        return tokens.transpose(1, 2).unflatten(2, size)


class TransUNet(nn.Module):
    """The network: image (B, 3, H, W), H and W multiples of 16, to logits (B, 1, H, W)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.resnet = ResNet(width)
        self.transformer = Transformer(16 * width, HEADS * width)
        self.join = nn.Sequential(nn.Conv2d(HEADS * width, 8 * width, 3, padding=1, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU())
        joined = (8 * width + 8 * width, 4 * width + 4 * width, 2 * width + width, width)  # from below, and the skip
        self.steps = nn.ModuleList([double_conv(a, b) for a, b in zip(joined, (4 * width, 2 * width, width, width // 4), strict=True)])
        self.head = nn.Conv2d(width // 4, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        *skips, deepest = self.resnet(image)
        x = self.join(self.transformer(deepest))
        for step, skip in zip(self.steps, [*reversed(skips), None], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = step(x if skip is None else torch.cat([x, skip], 1))
        return self.head(x)


def transunet(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """TransUNet for all tasks alike; `model.width` scales it, 64 is R50-ViT-B/16."""
    return TaskBlind(config, tasks, TransUNet(first_width(config, WIDTH, 4)))
