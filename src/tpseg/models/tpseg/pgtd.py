"""The prototype-guided task decoder (PGTD): one step of the decoder, eqs. (4) to (13)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.models.adapters.tca import Routing
from tpseg.models.base import Decoded
from tpseg.models.tpseg.prototypes import PrototypeMemory, cosine_map
from tpseg.models.typed import Modules

KERNEL = 3
MIN_TEMPERATURE = 1e-3


def mix_kernels(kernels: Tensor, weights: Tensor) -> Tensor:
    """Mix every sample's expert kernels into one, eq. (10).

    kernels (B, M, C, 3, 3), weights (B, M) with rows that sum to 1; returns (B, C, 3, 3).
    Convolution is linear in its kernel: mixing first gives the sum of M convolutions at the price of one.
    """
    return torch.einsum("bm,bmcij->bcij", weights, kernels)


def convolve_each(features: Tensor, kernels: Tensor) -> Tensor:
    """Depth-wise convolution of every sample with its own kernels, eq. (10).

    features (B, C, h, w), kernels (B, C, 3, 3); returns (B, C, h, w), zero-padded.
    """
    batch, channels, height, width = features.shape
    out = F.conv2d(
        features.reshape(1, batch * channels, height, width),
        kernels.reshape(batch * channels, 1, KERNEL, KERNEL),
        padding=KERNEL // 2,
        groups=batch * channels,
    )
    return out.reshape(batch, channels, height, width)


def modulate(features: Tensor, similarity: Tensor, strength: float) -> Tensor:
    """f' = f · (1 + α S) with S = sigmoid(D), eqs. (8) and (9); features (B, C, h, w), similarity (B, 1, h, w)."""
    return features * (1 + strength * torch.sigmoid(similarity))


def centre(features: Tensor) -> Tensor:
    """Features less their mean over the image, per sample and channel; (B, C, h, w) in and out.

    Differs from the paper, which takes cosines of f itself: `prototype_features: centred`. What all pixels of an image
    have in common makes up most of f and leaves the two prototypes close; without it they are opposite (docs/paper.md).
    """
    return features - features.mean((2, 3), keepdim=True)


class Fuse(nn.Module):
    """f = Fuse1×1([GELU(GN(1×1 f_high)), GELU(GN(1×1 f_low))]), eq. (4).

    Differs from the paper: f_high is brought to f_low's size after its 1×1, not before, at a quarter of the work; GN and
    GELU follow the last 1×1 as in the release.
    """

    def __init__(self, low: int, high: int, width: int) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(low, width // 2, 1, bias=False), nn.GroupNorm(1, width // 2), nn.GELU())
        self.high = nn.Sequential(nn.Conv2d(high, width, 1, bias=False), nn.GroupNorm(1, width), nn.GELU())
        self.join = nn.Sequential(nn.Conv2d(width + width // 2, width, 1, bias=False), nn.GroupNorm(1, width), nn.GELU())

    def forward(self, f_low: Tensor, f_high: Tensor) -> Tensor:
        """f_low (B, C_low, h, w), f_high (B, C_high, h', w'); returns (B, C, h, w)."""
        f_high = F.interpolate(self.high(f_high), f_low.shape[2:], mode="bilinear", align_corners=False)
        return self.join(torch.cat([f_high, self.low(f_low)], 1))


class PrototypeInteraction(nn.Module):
    """The prototypes look at the image: Z = MLP([A_fg, A_bg, A_fg − A_bg]), eqs. (6) and (7)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, prototypes: Tensor, features: Tensor) -> Tensor:
        """prototypes (B, 2, C), features (B, C, h, w); returns Z (B, C)."""
        keys = features.flatten(2).transpose(1, 2).contiguous()  # (B, C, h, w) -> (B, h * w, C); else 100 times slower in bfloat16
        answer, _ = self.attention(prototypes.to(features.dtype), keys, keys, need_weights=False)  # (B, 2, C)
        a_fg, a_bg = answer.unbind(1)
        return self.mlp(torch.cat([a_fg, a_bg, a_fg - a_bg], 1))


class DynamicExperts(nn.Module):
    """M depth-wise kernels and their weights, made from Z and applied as one convolution, eq. (10)."""

    identity: Tensor

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.generate = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, experts * width * KERNEL**2))
        self.route = nn.Linear(width, experts)
        self.share = nn.Parameter(torch.tensor(0.3))  # a: generated against identity
        identity = torch.zeros(KERNEL, KERNEL)
        identity[KERNEL // 2, KERNEL // 2] = 1
        self.register_buffer("identity", identity, persistent=False)

    def kernels(self, z: Tensor) -> Tensor:
        """W_m = a·generated + (1 − a)·identity; z (B, C) -> (B, M, C, 3, 3)."""
        generated = self.generate(z).reshape(z.shape[0], -1, z.shape[1], KERNEL, KERNEL)  # len(z) would be a constant once exported
        return self.share * generated + (1 - self.share) * self.identity

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """y = Σ_m w_m (W_m ∗ f'); features (B, C, h, w), z (B, C); returns (B, C, h, w)."""
        mixed = mix_kernels(self.kernels(z), self.route(z).softmax(-1))
        return convolve_each(features, mixed.to(features.dtype))


class TaskOutput(nn.Module):
    """What a task owns in a head: its 1×1 output and, in a PGTD, the amplifier ρ_τ of eq. (11)."""

    def __init__(self, width: int, amplifier: float | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(()))
        self.amplifier = None if amplifier is None else nn.Parameter(torch.tensor(amplifier))


class TaskHead(nn.Module):
    """Depth-wise 3×3 + GN + GELU for all, then each task's own 1×1."""

    def __init__(self, width: int, tasks: int, amplifier: float | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.GroupNorm(1, width), nn.GELU())
        self.outputs: Modules[TaskOutput] = Modules([TaskOutput(width, amplifier) for _ in range(tasks)])

    def forward(self, features: Tensor, routing: Routing) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w)."""
        x = self.stem(features)
        weight = routing.gather([output.weight for output in self.outputs]).to(x.dtype)  # (B, C)
        bias = routing.gather([output.bias for output in self.outputs])  # (B,)
        return torch.einsum("bchw,bc->bhw", x, weight)[:, None] + bias[:, None, None, None]

    def amplifiers(self, routing: Routing) -> Tensor:
        """ρ_τ of each sample, (B, 1, 1, 1)."""
        amplifiers = [output.amplifier for output in self.outputs if output.amplifier is not None]
        return routing.gather(amplifiers)[:, None, None, None]


class PGTD(nn.Module):
    """One decoder step, eqs. (4) to (13).

    Differs from the paper: (11) takes the signed D, for S > 0 everywhere could never push the background down; on
    request prototypes and similarity are of the features centred over the image, see `centre`.
    """

    def __init__(
        self,
        low: int,
        high: int,
        width: int,
        tasks: int,
        *,
        heads: int,
        experts: int,
        modulation: float,
        reinforcement: float,
        momentum: float,
        centred: bool = False,
        amplifier: float = 1.0,
        signed: bool = True,
    ) -> None:
        super().__init__()
        self.centred = centred
        self.signed = signed
        self.modulation = modulation
        self.reinforcement = reinforcement
        self.memory = PrototypeMemory(tasks, width, momentum)
        self.fuse = Fuse(low, high, width)
        self.interact = PrototypeInteraction(width, heads)
        self.experts = DynamicExperts(width, experts)
        self.head = TaskHead(width, tasks, amplifier)
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, f_low: Tensor, f_high: Tensor, task: Tensor, routing: Routing) -> Decoded:
        """f_low (B, C_low, h, w), f_high (B, C_high, h', w'), task (B,)."""
        prototypes = self.memory(task)  # (B, 2, C)
        f = self.fuse(f_low, f_high)
        z = self.interact(prototypes, f)
        compared = centre(f) if self.centred else F.normalize(f, dim=1)
        similarity = cosine_map(compared, prototypes)
        y = self.experts(modulate(f, similarity, self.modulation), z)
        return Decoded(self.head(y, routing) + self.reinforce(similarity, routing), compared, y, similarity)

    def reinforce(self, similarity: Tensor, routing: Routing) -> Tensor:
        """λ_p · ρ_τ · tanh(D / temp), the second term of eq. (11), per sample; (B, 1, h, w). As printed, with S for D, on request."""
        pull = similarity if self.signed else torch.sigmoid(similarity)
        sharpened = torch.tanh(pull / self.temperature.clamp_min(MIN_TEMPERATURE))
        return self.reinforcement * self.head.amplifiers(routing) * sharpened
