"""The released code's way of working, written plainly: what the benchmark measures tpseg against.

Everything is 32 bit; every adapter loops over the samples of the batch; every head computes the channels of all tasks and
then takes one; the M expert kernels are M convolutions that are added up; several tasks on one image are as many full
passes; prototypes move sample by sample; the trunk is the library's own, with a softmax over heads that nobody reads.

The numbers are those of our model in preset `release`, whose weights it takes. Where that preset differs from the release,
the reference is with the preset, which is the cheaper: no scale encoder, and f_high is upsampled after its 1×1.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2HieraDetModel

from tpseg.models.base import Decoded, Output
from tpseg.models.tpseg.network import TPSeg

MIN_PIXELS = 10
"""Regions smaller than this do not move a prototype."""


class Adapter(nn.Module):
    """The adapter before one block: GroupNorm and one bottleneck of 1×1 convolutions per task."""

    def __init__(self, width: int, rank: int, tasks: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.branches = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(width, rank, 1, bias=False), nn.GELU(), nn.Conv2d(rank, width, 1, bias=False)) for _ in range(tasks)]
        )

    def forward(self, tokens: Tensor, tasks: Sequence[int]) -> Tensor:
        """tokens (B, h, w, C), one task per sample."""
        x = self.norm(tokens.permute(0, 3, 1, 2))  # (B, h, w, C) -> (B, C, h, w)
        changes = [self.branches[task](x[row : row + 1]) for row, task in enumerate(tasks)]
        return tokens + torch.cat(changes).permute(0, 2, 3, 1)


def conv_norm(width_in: int, width_out: int, kernel: tuple[int, int] = (1, 1), dilation: int = 1) -> nn.Sequential:
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    conv = nn.Conv2d(width_in, width_out, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(1, width_out), nn.ReLU())


class ReceptiveField(nn.Module):
    """Four branches and a shortcut, with GroupNorm and ReLU after every convolution."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(width_in, width)])
        for size in (3, 5, 7):
            cross = (conv_norm(width, width, (1, size)), conv_norm(width, width, (size, 1)))
            self.branches.append(nn.Sequential(conv_norm(width_in, width), *cross, conv_norm(width, width, (3, 3), size)))
        self.join = conv_norm(4 * width, width, (3, 3))
        self.shortcut = conv_norm(width_in, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, h, w) -> (B, C, h, w)
        return self.join(torch.cat([branch(x) for branch in self.branches], 1)) + self.shortcut(x)


class Fuse(nn.Module):
    """Both inputs to one width and size, joined."""

    def __init__(self, low: int, high: int, width: int) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(low, width // 2, 1, bias=False), nn.GroupNorm(1, width // 2), nn.GELU())
        self.high = nn.Sequential(nn.Conv2d(high, width, 1, bias=False), nn.GroupNorm(1, width), nn.GELU())
        self.join = nn.Sequential(nn.Conv2d(width + width // 2, width, 1, bias=False), nn.GroupNorm(1, width), nn.GELU())

    def forward(self, f_low: Tensor, f_high: Tensor) -> Tensor:
        f_high = F.interpolate(self.high(f_high), f_low.shape[2:], mode="bilinear", align_corners=False)
        return self.join(torch.cat([f_high, self.low(f_low)], 1))


class Interaction(nn.Module):
    """Cross-attention of the prototypes to the features, and Z."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, prototypes: Tensor, features: Tensor) -> Tensor:
        """prototypes (B, 2, C), features (B, C, h, w); returns (B, C)."""
        keys = features.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h * w, C)
        a_fg, a_bg = self.attention(prototypes, keys, keys, need_weights=False)[0].unbind(1)
        return self.mlp(torch.cat([a_fg, a_bg, a_fg - a_bg], 1))


class Experts(nn.Module):
    """M depth-wise 3×3 kernels made from Z: one convolution each, added up by their weights."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.generate = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, experts * width * 9))
        self.route = nn.Linear(width, experts)
        self.share = nn.Parameter(torch.tensor(0.3))

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """features (B, C, h, w), z (B, C)."""
        batch, channels, height, width = features.shape
        kernels = self.generate(z).reshape(batch, -1, channels, 3, 3)
        identity = F.pad(torch.ones(1, 1, device=z.device), (1, 1, 1, 1))
        kernels = self.share * kernels + (1 - self.share) * identity
        weights = self.route(z).softmax(-1)  # (B, M)
        joined = features.reshape(1, batch * channels, height, width)
        total = torch.zeros_like(features)
        for expert in range(kernels.shape[1]):
            own = kernels[:, expert].reshape(batch * channels, 1, 3, 3)
            out = F.conv2d(joined, own, padding=1, groups=batch * channels).reshape(features.shape)
            total = total + weights[:, expert, None, None, None] * out
        return total


class Head(nn.Module):
    """Depth-wise 3×3 + GN + GELU, then the logits of all T tasks, of which each sample takes its own."""

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.GroupNorm(1, width), nn.GELU())
        self.output = nn.Conv2d(width, tasks, 1)

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w)."""
        everything = self.output(self.stem(features))  # (B, T, h, w)
        return everything[torch.arange(len(task), device=task.device), task][:, None]


class PGTD(nn.Module):
    """One step of the decoder."""

    prototypes: Tensor

    def __init__(self, low: int, high: int, width: int, model: TPSeg) -> None:
        super().__init__()
        config, tasks = model.config, len(model.tasks)
        self.modulation, self.reinforcement, self.momentum = config.modulation, config.reinforcement, config.momentum
        self.register_buffer("prototypes", torch.empty(tasks, 2, width))
        self.fuse = Fuse(low, high, width)
        self.interact = Interaction(width, config.attention_heads)
        self.experts = Experts(width, config.experts)
        self.head = Head(width, tasks)
        self.amplifier = nn.Parameter(torch.ones(tasks))
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, f_low: Tensor, f_high: Tensor, task: Tensor) -> Decoded:
        prototypes = self.prototypes[task]  # (B, 2, C)
        f = self.fuse(f_low, f_high)
        z = self.interact(prototypes, f)
        unit = F.normalize(f, dim=1)
        fg, bg = (F.normalize(prototypes[:, side], dim=1)[:, :, None, None] for side in (0, 1))
        difference = (unit * fg).sum(1, keepdim=True) - (unit * bg).sum(1, keepdim=True)  # (B, 1, h, w)
        y = self.experts(f * (1 + self.modulation * difference.sigmoid()), z)
        pull = torch.tanh(difference / self.temperature.clamp_min(1e-3))
        logits = self.head(y, task) + self.reinforcement * self.amplifier[task][:, None, None, None] * pull
        return Decoded(logits, unit, y, difference)

    @torch.no_grad()
    def update(self, features: Tensor, mask: Tensor, task: Tensor) -> None:
        """Move the prototypes towards one sample after the other; features (B, C, h, w), mask (B, 1, H, W) in {0, 1}."""
        for row, own in enumerate(task.tolist()):
            for side, region in enumerate((mask[row], 1 - mask[row])):
                if region.sum().item() < MIN_PIXELS:
                    continue
                share = F.interpolate(region[None], features.shape[2:], mode="area")[0]
                mean = F.normalize((features[row] * share).sum((1, 2)), dim=0)
                old = self.prototypes[own, side]
                self.prototypes[own, side] = F.normalize(self.momentum * old + (1 - self.momentum) * mean, dim=0)


class Reference(nn.Module):
    """The whole model. Called as ours is: image (B, 3, H, W), multiples of 32, task (B,), gives an Output.

    >>> reference = Reference.of(model)     # model: a TPSeg of preset `release`
    """

    def __init__(self, model: TPSeg) -> None:
        super().__init__()
        config, tasks = model.config, len(model.tasks)
        self.tasks, self.config = model.tasks, config
        self.trunk = Sam2HieraDetModel(model.trunk.hiera.config)
        self.adapters = nn.ModuleList([Adapter(width, config.rank, tasks) for width in model.trunk.block_widths])
        self.neck = nn.ModuleList([ReceptiveField(*pair) for pair in zip(model.trunk.widths, config.neck_widths, strict=True)])
        lows, highs = config.neck_widths[2::-1], (config.neck_widths[3], *config.decoder_widths[:2])
        self.steps = nn.ModuleList([PGTD(*sizes, model) for sizes in zip(lows, highs, config.decoder_widths, strict=True)])
        self.last_head = Head(config.neck_widths[3], tasks)
        self.mix = nn.Parameter(torch.zeros(tasks, 4))

    @classmethod
    def of(cls, model: TPSeg, *, lean: bool = False) -> Reference:
        """A reference that shares the memory of the model's weights; raises ValueError for a model that is not of preset `release`.

        lean: keep our attention, without the library's dead softmax, which the code that Meta released does not have either.
        """
        config = model.config
        found = (config.gate, config.output, config.adapter, config.neck, config.pgtds, config.prototype_features, config.reinforce_with)
        expected = ("none", "fused", "tca", "rfb", (3, 2, 1), "plain", "signed")
        if found != expected:
            raise ValueError(f"the reference is a model of preset 'release': expected {expected}, found {found}")
        with torch.device("meta"):
            reference = cls(model)
        reference.load_state_dict(plain_state(model.state_dict()), assign=True)
        if lean:
            reference.trunk = model.trunk.hiera
        reference.trunk.requires_grad_(not config.freeze)
        return reference.train(model.training)

    def forward(self, image: Tensor, task: Tensor) -> Output:
        tasks = task.tolist()
        tokens = self.trunk.patch_embed(image)
        tokens = tokens + self.trunk._get_pos_embed(tokens.shape[1:3])
        stages = []
        for index, (block, adapter) in enumerate(zip(self.trunk.blocks, self.adapters, strict=True)):
            tokens = block(adapter(tokens, tasks))
            if index in self.trunk.stage_ends:
                stages.append(tokens.permute(0, 3, 1, 2))  # (B, h, w, C) -> (B, C, h, w)
        *lows, high = [field(stage) for field, stage in zip(self.neck, stages, strict=True)]
        steps: list[Decoded] = []
        for step, low in zip(self.steps, reversed(lows), strict=True):
            steps.append(step(low, steps[-1].refined if steps else high, task))
        heads = [step.logits for step in reversed(steps)]
        size = heads[0].shape[2:]
        maps = [F.interpolate(one, size, mode="bilinear", align_corners=False) for one in (*heads, self.last_head(high, task))]
        fused = (torch.cat(maps, 1) * self.mix[task].softmax(-1)[:, :, None, None]).sum(1, keepdim=True)
        outputs = [F.interpolate(one, image.shape[2:], mode="bilinear", align_corners=False) for one in (fused, *heads)]
        return Output(outputs[0], outputs, None, steps)

    def observe(self, output: Output, mask: Tensor, task: Tensor) -> None:
        """Move the prototypes by this pass, as the released code does; mask (B, 1, H, W) in {0, 1}."""
        for step, decoded in zip(self.steps, output.steps, strict=True):
            step.update(decoded.features.detach(), mask, task)

    def move_prototypes(self) -> None:
        """They have moved already: with one pass a step that is the same."""


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model of preset `release` under the reference's names; what is per task in heads is stacked."""
    renamed: dict[str, Tensor] = {}
    stacks: dict[str, list[Tensor]] = defaultdict(list)
    for key, value in state.items():
        if found := re.fullmatch(r"adapters\.blocks\.(\d+)\.(scale|shift)", key):
            renamed[f"adapters.{found[1]}.norm.{'weight' if found[2] == 'scale' else 'bias'}"] = value
        elif found := re.fullmatch(r"adapters\.blocks\.(\d+)\.tasks\.(\d+)\.(down|up)", key):
            renamed[f"adapters.{found[1]}.branches.{found[2]}.{'0' if found[3] == 'down' else '2'}.weight"] = value[..., None, None]
        elif found := re.fullmatch(r"(.*)\.head\.outputs\.\d+\.(weight|bias|amplifier)", key):
            stacks[f"{found[1]}.amplifier" if found[2] == "amplifier" else f"{found[1]}.head.output.{found[2]}"].append(value)
        elif found := re.fullmatch(r"decoder\.fuser\.mix\.\d+", key):
            stacks["mix"].append(value)
        else:
            renamed[key] = value
    for key, values in stacks.items():
        stacked = torch.stack(values)
        renamed[key] = stacked[..., None, None] if stacked.ndim == 2 and key != "mix" else stacked
    moved = {
        r"^trunk\.hiera\.": "trunk.",
        r"^neck\.stages\.": "neck.",
        r"^decoder\.fuser\.head\.": "last_head.",
        r"^decoder\.steps\.": "steps.",
        r"\.memory\.prototypes$": ".prototypes",
    }
    for pattern, name in moved.items():
        renamed = {re.sub(pattern, name, key): value for key, value in renamed.items()}
    return renamed
