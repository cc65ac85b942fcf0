"""TPSeg: trunk, adapters, neck and decoder put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.config import ModelConfig
from tpseg.models.adapters import TCA, Routing
from tpseg.models.baselines.unet import UNetDecoder
from tpseg.models.neck import Neck
from tpseg.models.pgtd import PGTD, Decoded, PGTDChain
from tpseg.models.trunk import STRIDE, Trunk
from tpseg.tasks import TaskSet


@dataclass
class Output:
    """What the model returns for a batch."""

    logits: Tensor
    """(B, 1, H, W): the prediction, of the input's size; sigmoid gives the probability of lesion."""
    supervised: list[Tensor]
    """Every output that the loss looks at, the prediction first, each (B, 1, H, W)."""
    similarity: Tensor | None
    """D of the finest PGTD, (B, 1, H, W) in [-2, 2]: like the lesion prototype above 0; None without prototypes."""
    steps: list[Decoded]
    """The decoder's steps, coarse to fine, at their own sizes."""


class TPSeg(nn.Module):
    """One segmentation model for many lesion tasks (TP-Seg, CVPR 2026 Findings).

    >>> model = TPSeg(config, tasks)
    >>> output = model(image, task)     # image (B, 3, H, W) normalised, task (B,) int64, mixed freely
    >>> output.logits                   # (B, 1, H, W)

    H and W may be anything; they are padded to multiples of 32 inside.
    """

    def __init__(self, config: ModelConfig, tasks: TaskSet) -> None:
        super().__init__()
        self.config = config
        self.tasks = tasks
        self.provenance: Mapping[str, Any] = {}
        self.trunk = Trunk(config.trunk)
        if config.freeze:
            self.trunk.freeze()
        self.adapters = (
            TCA(self.trunk.block_widths, len(tasks), config.rank, config.gate, config.hardened) if config.adapter == "tca" else None
        )
        self.neck = Neck(config.neck, self.trunk.widths, config.neck_widths)
        decoders: dict[str, Callable[[], PGTDChain | UNetDecoder]] = {"pgtd": self._pgtd, "unet": self._unet}
        self.decoder = decoders[config.decoder]()

    def _pgtd(self) -> PGTDChain:
        config = self.config
        return PGTDChain(
            config.neck_widths,
            config.decoder_widths,
            len(self.tasks),
            fused=config.output == "fused",
            heads=config.attention_heads,
            experts=config.experts,
            modulation=config.modulation,
            reinforcement=config.reinforcement,
            momentum=config.momentum,
            centred=config.prototype_features == "centred",
            amplifier=config.amplifier,
        )

    def _unet(self) -> UNetDecoder:
        return UNetDecoder(self.config.neck_widths, self.config.decoder_widths)

    def forward(self, image: Tensor, task: Tensor) -> Output:
        """image (B, 3, H, W) normalised with ImageNet's mean and std, task (B,) int64 ids of `self.tasks`."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))
        routing = Routing.of(task)
        logits, steps = self.decoder(self.encode(padded, routing), task, routing)

        def full_size(one: Tensor) -> Tensor:  # (B, 1, h, w) -> (B, 1, H, W)
            return F.interpolate(one.float(), padded.shape[2:], mode="bilinear", align_corners=False)[..., :height, :width]

        prediction = full_size(logits)
        sides = [full_size(step.logits) for step in reversed(steps) if step.logits is not logits]
        similarity = steps[-1].similarity
        return Output(prediction, [prediction, *sides], None if similarity is None else full_size(similarity), steps)

    def encode(self, image: Tensor, routing: Routing) -> list[Tensor]:
        """Neck features (B, C_s, H/s, W/s) at strides s of 4, 8, 16 and 32; image (B, 3, H, W), multiples of 32."""
        return self.neck(self.trunk(image, None if self.adapters is None else self.adapters.bind(routing)))

    @torch.no_grad()
    def update_prototypes(self, output: Output, mask: Tensor, task: Tensor) -> None:
        """Move the prototypes towards a training batch, eqs. (12) and (13); mask (B, 1, H, W) in {0, 1}, task (B,)."""
        if isinstance(self.decoder, PGTDChain):
            height, width = mask.shape[2:]
            padded = F.pad(mask, (0, -width % STRIDE, 0, -height % STRIDE), value=-1)  # neither lesion nor background
            self.decoder.update_prototypes(output.steps, padded, task)

    def prototypes(self) -> dict[str, Tensor]:
        """Prototypes by PGTD, 'pgtd3' (coarse) to 'pgtd1': each (T, 2, C), foreground first; empty without PGTDs."""
        return {name: step.memory.prototypes for name, step in self._pgtds()}

    def _pgtds(self) -> Iterator[tuple[str, PGTD]]:
        if isinstance(self.decoder, PGTDChain):
            for number, step in zip((3, 2, 1), self.decoder.steps, strict=True):
                yield f"pgtd{number}", step

    def gate_weights(self) -> Tensor | None:
        """w(τ, b), (T, N): the share of the task route at each block; None without a gate."""
        gate = None if self.adapters is None else self.adapters.gate
        return None if gate is None else gate.weights()

    def splits(self) -> dict[str, int]:
        """b* of each task: the first block, counted from 0, that runs its own route; empty without a gate."""
        gate = None if self.adapters is None else self.adapters.gate
        return {} if gate is None else dict(zip(self.tasks.names, gate.splits().tolist(), strict=True))

    @classmethod
    def from_pretrained(cls, source: Path | str, *, weights: str | None = None) -> TPSeg:
        """A trained model from its folder, a run folder or a hub id; see tpseg.models.checkpoint.load_model."""
        from tpseg.models.checkpoint import load_model

        return load_model(source, weights=weights)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model folder; see tpseg.models.checkpoint.save_model."""
        from tpseg.models.checkpoint import save_model

        save_model(self, Path(folder))

    def set_gate_temperature(self, temperature: float) -> None:
        if self.adapters is not None and self.adapters.gate is not None:
            self.adapters.gate.temperature.fill_(temperature)

    def harden(self) -> None:
        """Replace the gate by its step function: each block then runs one route."""
        if self.adapters is not None:
            self.adapters.hardened = True
        self.config = replace(self.config, hardened=True)
