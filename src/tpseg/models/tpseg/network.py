"""TPSeg: trunk, adapters, neck and decoder put together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.adapters.branching import Fork
from tpseg.models.adapters.plain import build_adapters
from tpseg.models.adapters.tca import TCA, Routing, SplitGate
from tpseg.models.base import Decoded, LesionModel, Output
from tpseg.models.tpseg.decoder import Decoder, LogitFuser
from tpseg.models.tpseg.neck import Neck
from tpseg.models.tpseg.pgtd import PGTD
from tpseg.models.trunks.hiera import Trunk


class TPSeg(LesionModel):
    """One segmentation model for many lesion tasks (TP-Seg, CVPR 2026 Findings).

    >>> model = TPSeg(config, tasks)
    >>> output = model(image, task)     # image (B, 3, H, W) normalised, task (B,) int64, mixed freely
    >>> output.logits                   # (B, 1, H, W)

    H and W may be anything; they are padded to multiples of 32 inside.
    """

    trunk: Trunk

    def __init__(self, config: ModelConfig, tasks: TaskSet) -> None:
        super().__init__(config, tasks)
        self.trunk = Trunk(config.trunk)
        if config.freeze:
            self.trunk.freeze()
        self.adapters = build_adapters(config, self.trunk, len(tasks))
        self.neck = Neck(config.neck, self.trunk.widths, config.neck_widths)
        fuser = LogitFuser(config.neck_widths[3], len(tasks)) if config.output == "fused" else None
        self.decoder = Decoder(config.neck_widths, config.decoder_widths, config.pgtds, self._pgtd, fuser)

    def _pgtd(self, low: int, high: int, width: int) -> PGTD:
        config = self.config
        return PGTD(
            low,
            high,
            width,
            len(self.tasks),
            heads=config.attention_heads,
            experts=config.experts,
            modulation=config.modulation,
            reinforcement=config.reinforcement,
            momentum=config.momentum,
            centred=config.prototype_features == "centred",
            amplifier=config.amplifier,
            signed=config.reinforce_with == "signed",
        )

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        routing = Routing.of(task, len(self.tasks))
        return self.decoder(self.encode(image, routing), task, routing)

    def decode_tasks(self, image: Tensor, task: Tensor, rows: Tensor) -> tuple[Tensor, list[Decoded]]:
        if not (isinstance(self.adapters, TCA) and self.adapters.one_route_a_block):
            return super().decode_tasks(image, task, rows)
        routing = Routing.of(task, len(self.tasks))
        fork = Fork(self.adapters, routing, rows, len(image))
        stages = zip(self.neck(self.trunk(image, fork)), self.trunk.stage_ends, strict=True)
        return self.decoder([fork.spread(feature, end) for feature, end in stages], task, routing)

    def encode(self, image: Tensor, routing: Routing) -> list[Tensor]:
        """Neck features (B, C_s, H/s, W/s) at strides s of 4, 8, 16 and 32; image (B, 3, H, W), multiples of 32."""
        return self.neck(self.trunk(image, None if self.adapters is None else self.adapters.bind(routing)))

    @torch.no_grad()
    def observe(self, output: Output, mask: Tensor, task: Tensor) -> None:
        self.decoder.observe(output.steps, self.pad(mask, -1), task)  # -1: neither lesion nor background

    def move_prototypes(self) -> None:
        self.decoder.move_prototypes()

    def prototypes(self) -> dict[str, Tensor]:
        return {name: step.memory.prototypes for name, step in self.decoder.pgtds()}

    @property
    def gate(self) -> SplitGate | None:
        return self.adapters.gate if isinstance(self.adapters, TCA) else None

    def gate_weights(self) -> Tensor | None:
        return None if self.gate is None else self.gate.weights()

    def splits(self) -> dict[str, int]:
        return {} if self.gate is None else dict(zip(self.tasks.names, self.gate.splits().tolist(), strict=True))

    def split_cost(self, task: Tensor) -> Tensor | None:
        if self.gate is None:
            return None
        return self.gate(Routing.of(task, len(self.tasks)).gather(list(self.gate.steps))).mean(-1)  # (B, N) -> (B,)

    def set_gate_temperature(self, temperature: float) -> None:
        if self.gate is not None:
            self.gate.temperature.fill_(temperature)

    def harden(self) -> None:
        """Replace the gate by its step function: each block then runs one route."""
        if isinstance(self.adapters, TCA):
            self.adapters.hardened = True
        self.config = replace(self.config, hardened=True)

    def settle(self) -> None:
        if self.gate is not None:
            self.gate.settle()
