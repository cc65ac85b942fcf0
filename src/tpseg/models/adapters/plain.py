"""Adapters that know of no task: the classical bottleneck (row B2, and SAM2-UNet's) and LoRA (row B1)."""

from __future__ import annotations

import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.models.adapters.tca import TCA, Routing
from tpseg.models.trunks.hiera import Adapt, Trunk, is_own


class Bottleneck(nn.Module):
    """h' = h + GELU(Up(GELU(Down(h)))) before a block, C -> r -> C; with GELU after both, as in SAM2-UNet (arXiv 2408.08870)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, h, w, C) -> (B, h, w, C)
        return tokens + F.gelu(self.up(F.gelu(self.down(tokens))))


class PlainAdapters(nn.Module):
    """One bottleneck before every block, the same for all tasks."""

    def __init__(self, trunk: Trunk, rank: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Bottleneck(width, rank) for width in trunk.block_widths])

    def forward(self, index: int, tokens: Tensor) -> Tensor:
        """The hook that the trunk calls before each block."""
        return self.blocks[index](tokens)

    def bind(self, routing: Routing) -> Adapt:
        return self


def add_lora(trunk: Trunk, rank: int) -> None:
    """Put LoRA (PEFT's) around the attention's qkv and proj of every block, in place; the trunk stays trained or frozen.

    α is twice the rank, without dropout: the paper gives no settings. The new parameters are part of the trunk.
    """
    trained = not trunk.frozen
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["attn.qkv", "attn.proj"]), trunk.hiera)
    for key, parameter in trunk.named_parameters():
        if is_own(key):
            parameter.requires_grad_(trained)


def build_adapters(config: ModelConfig, trunk: Trunk, tasks: int) -> TCA | PlainAdapters | None:
    """The adapters that `model.adapter` names; None for `none`, and for `lora`, which becomes part of the trunk."""
    if config.adapter == "lora":
        add_lora(trunk, config.rank)
    if config.adapter == "plain":
        return PlainAdapters(trunk, config.rank)
    return TCA(trunk.block_widths, tasks, config.rank, config.gate, config.hardened) if config.adapter == "tca" else None
