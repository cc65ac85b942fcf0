"""The trunk: SAM 2's Hiera image encoder from transformers, with a hook before every block for the adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Sam2HieraDetConfig, Sam2HieraDetModel
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleAttention

Adapt = Callable[[int, Tensor], Tensor]
"""(block b, tokens (B, h, w, C)) -> tokens of the same shape; runs before block b."""


@dataclass(frozen=True)
class TrunkSize:
    """What distinguishes one Hiera from another."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_attention: tuple[int, int, int]
    windows: tuple[int, int, int, int]
    background: int

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of the four stages, at strides 4, 8, 16 and 32."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)


TRUNK_SIZES = {
    "tiny": TrunkSize(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "small": TrunkSize(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "base_plus": TrunkSize(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "large": TrunkSize(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
}


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(QKᵀ · scale) V; query (B, heads, n, d), key and value (B, heads, m, d), returns (B, heads, n, d).

    On a CPU, PyTorch's fused kernel has a backward pass that takes 3 to 6 times longer than plain products at the
    window sizes of Hiera (docs/decisions.md), so it is used without gradients only.
    """
    if query.device.type == "cpu" and query.requires_grad:
        return (query * scale @ key.transpose(-2, -1)).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


class LeanAttention(Sam2MultiScaleAttention):
    """The library's attention without the softmax(QKᵀ) over heads that it computes and never uses."""

    def forward(self, hidden_states: Tensor, **kwargs: object) -> Tensor:
        batch, height, width, _ = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(batch, height * width, 3, self.num_attention_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, h * w, C / heads)
        if self.query_stride:
            query = query.transpose(2, 3).reshape(batch, -1, height, width)  # (B, heads * C / heads, h, w)
            query = F.max_pool2d(query, self.query_stride, self.query_stride)
            height, width = query.shape[2:]
            query = query.reshape(batch, self.num_attention_heads, -1, height * width).transpose(2, 3)
        out = attend(query, key, value, self.scale)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))


def is_own(key: str) -> bool:
    """Whether a tensor of the trunk is Hiera's own, not one that LoRA added."""
    return ".lora_" not in key


class Trunk(nn.Module):
    """Hiera in one of four sizes, with random weights until some are loaded into `hiera`."""

    def __init__(self, size: str) -> None:
        super().__init__()
        spec = TRUNK_SIZES[size]
        self.size = size
        self.widths = spec.widths
        config = Sam2HieraDetConfig(
            hidden_size=spec.width,
            num_attention_heads=spec.heads,
            blocks_per_stage=list(spec.blocks),
            embed_dim_per_stage=list(spec.widths),
            num_attention_heads_per_stage=[spec.heads * 2**stage for stage in range(4)],
            window_size_per_stage=list(spec.windows),
            global_attention_blocks=list(spec.global_attention),
            window_positional_embedding_background_size=[spec.background, spec.background],
        )
        self.hiera = Sam2HieraDetModel(config)
        for block in self.hiera.blocks:
            full = cast(Sam2MultiScaleAttention, block.attn)
            block.attn = LeanAttention(config, full.dim, full.dim_out, full.num_attention_heads, full.query_stride)
            block.attn.load_state_dict(full.state_dict())
        self.block_widths = [cast(int, block.dim) for block in self.hiera.blocks]
        """Channels that enter each block: the adapters' widths."""
        self.stage_ends = [sum(spec.blocks[: stage + 1]) - 1 for stage in range(4)]
        """The last block of each stage, after which its features are taken."""
        self.checkpointing = False

    def own_state(self) -> dict[str, Tensor]:
        """Hiera's own tensors under the library's names, without what LoRA put around its layers; shares their memory."""
        return {key.replace(".base_layer.", "."): value for key, value in self.hiera.state_dict().items() if is_own(key)}

    @property
    def frozen(self) -> bool:
        return not any(parameter.requires_grad for key, parameter in self.named_parameters() if is_own(key))

    def freeze(self) -> None:
        """Keep the weights as they are; gradients still pass through to the adapters."""
        self.requires_grad_(False)

    def forward(self, image: Tensor, adapt: Adapt | None = None, stages: int = 4) -> list[Tensor]:
        """Features of the four stages, or of the first `stages` of them: later blocks are then not run.

        image (B, 3, H, W), H and W multiples of 32; returns [(B, C_s, H/s, W/s) for s in 4, 8, 16, 32].
        """
        tokens = self.hiera.patch_embed(image)  # (B, 3, H, W) -> (B, H/4, W/4, C)
        tokens = tokens + self.hiera._get_pos_embed(tokens.shape[1:3]).to(tokens.dtype)
        tokens = tokens.contiguous()  # the first stage would else work on (B, C, H/4, W/4) in memory, with a copy at each layer
        features = []
        for index, block in enumerate(self.hiera.blocks):

            def step(tokens: Tensor, index: int = index, block: nn.Module = block) -> Tensor:
                return block(tokens if adapt is None else adapt(index, tokens))

            again = self.checkpointing and torch.is_grad_enabled()
            tokens = checkpoint(step, tokens, use_reentrant=False) if again else step(tokens)
            if index in self.stage_ends:
                features.append(tokens.permute(0, 3, 1, 2))  # (B, h, w, C) -> (B, C, h, w)
                if len(features) == stages:
                    break
        return features
