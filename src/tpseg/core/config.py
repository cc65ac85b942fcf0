"""Every setting, as dataclasses; the text under a field is its help on the command line.

A preset (`presets/NAME.yaml`) or a user's own YAML file holds only what differs from the defaults here.
Sources are laid over each other from left to right: defaults, presets and files, then the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from jsonargparse import ArgumentParser

from tpseg.core.errors import UsageError, nearest
from tpseg.core.untrusted import read_yaml, short

PRESETS = Path(__file__).parent / "presets"
LARGEST, WIDEST = 2_048, 4_096
"""Pixels of an input's side and channels of a layer: beyond it a config.json is damaged or hostile, and a model would fill the memory.

SAM 2 itself sees 1024 pixels; larger pictures are segmented in tiles.
"""


@dataclass
class ModelConfig:
    """The network: trunk, adapters, neck and decoder."""

    architecture: str = "tpseg"
    """tpseg, or another system in the same trainer: monai_unet, unetplusplus, attention_unet, segresnet, swin_unetr, transunet
    or sam2_unet, which takes trunk, weights, freeze and rank; all take image_size."""
    width: int | None = None
    """Channels at full resolution of another system; null: as its authors have it."""
    trunk: Literal["tiny", "small", "base_plus", "large"] = "large"
    """Size of the SAM 2 Hiera trunk: 12, 16, 24 or 48 blocks."""
    weights: str | None = "facebook/sam2-hiera-large"
    """Trunk weights: a file in Meta's layout (sam2_hiera_large.pt), a Hugging Face folder or hub id, or null for none."""
    freeze: bool = True
    """Keep the trunk as it was loaded. Without weights it has to be trained."""
    image_size: int = 512
    """Height and width in pixels that images are brought to before the model sees them."""
    adapter: Literal["tca", "plain", "lora", "none"] = "tca"
    """Task-conditioned adapters before every block; plain: without tasks (row B2 of the paper's Table 3); lora: B1; none: A2."""
    rank: int = 64
    """Width r inside each adapter route, or rank of LoRA."""
    gate: Literal["cumulative_sigmoid", "cumulative_share", "hazard", "cumulative_softmax", "per_block", "none", "shared_only"] = (
        "cumulative_sigmoid"
    )
    """Reading of the split gate, eq. (3) (docs/paper.md); none: task route only (Table 5); shared_only: shared route only (row B3)."""
    hardened: bool = False
    """Replace the gate by its step function: one route per block. For trained models."""
    neck: Literal["rfb", "linear"] = "rfb"
    """Receptive-field blocks, or a 1x1 convolution with norm and ReLU for each stage, which looks at no neighbours."""
    neck_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels after the neck, from stride 4 to stride 32."""
    pgtds: tuple[int, ...] = (3, 2, 1)
    """Decoder steps that are prototype-guided, 3 coarse to 1 fine; the others are plain (Table 4; none of them: rows A1, A3)."""
    decoder_widths: tuple[int, int, int] = (256, 128, 128)
    """Channels inside the three decoder steps, from coarse (PGTD3) to fine (PGTD1)."""
    attention_heads: int = 4
    """Heads of the cross-attention from prototypes to features, eq. (6)."""
    experts: int = 6
    """Number M of dynamic kernels, eq. (10)."""
    prototype_features: Literal["plain", "centred"] = "plain"
    """What prototypes and similarity are of: f itself, or f less its mean over the image (docs/paper.md)."""
    amplifier: float = 1.0
    """Where the amplifiers ρ of eq. (11) start; the paper does not say, the release starts at 1."""
    modulation: float = 0.5
    """Strength α of the similarity modulation, eq. (9)."""
    reinforcement: float = 5.0
    """Strength λ_p of the prototype reinforcement, eq. (11)."""
    reinforce_with: Literal["signed", "similarity"] = "signed"
    """What reinforces in eq. (11): the signed difference D, or S as printed, which is positive everywhere."""
    momentum: float = 0.99
    """Momentum m of the prototypes' moving average, eq. (12); the paper has 0.9; 1: they stay as drawn, as in the release's training."""
    output: Literal["pgtd1", "fused"] = "pgtd1"
    """The prediction: PGTD1's, or the release's learned mix of all heads."""

    def __post_init__(self) -> None:
        refuse_nulls(self, "model")
        self.neck_widths = tuple(self.neck_widths)  # type: ignore[assignment]
        self.decoder_widths = tuple(self.decoder_widths)  # type: ignore[assignment]
        require(32 <= self.image_size <= LARGEST, "model.image_size", self.image_size, f"32 to {LARGEST}")
        for name in ("rank", "experts", "attention_heads"):
            require(1 <= getattr(self, name) <= WIDEST, f"model.{name}", getattr(self, name), f"1 to {WIDEST}")
        require(
            min(self.neck_widths) >= 1 and max(self.neck_widths) <= WIDEST, "model.neck_widths", self.neck_widths, f"four of 1 to {WIDEST}"
        )
        require(0 <= self.momentum <= 1, "model.momentum", self.momentum, "0 to 1")
        require(self.width is None or 1 <= self.width <= WIDEST, "model.width", self.width, f"1 to {WIDEST}, or null")
        self.pgtds = tuple(self.pgtds)
        require(
            set(self.pgtds) <= {1, 2, 3} and len(set(self.pgtds)) == len(self.pgtds),
            "model.pgtds",
            self.pgtds,
            "some of 3, 2, 1, each once",
        )
        for width in self.decoder_widths:
            require(
                0 < width <= WIDEST and width % (2 * self.attention_heads) == 0,
                "model.decoder_widths",
                width,
                f"a multiple of {2 * self.attention_heads}, at most {WIDEST}",
            )
        if self.output == "fused" and not self.pgtds:
            raise UsageError("model.output 'fused' mixes the PGTD heads and needs model.pgtds [3, 2, 1]; found none")


@dataclass
class SamplingConfig:
    """How training images are drawn and varied."""

    augmentation: Literal["none", "flip", "full"] = "full"
    """flip: mirror both ways (the release); full: also turn, zoom, shift, brightness, contrast, colour and blur."""
    balance: bool = True
    """Draw every task equally often (weight 1/N per sample); otherwise each image once an epoch, but for the few, others each time, that
    would make no whole step."""
    epoch_images: int | None = None
    """Images drawn in an epoch; null: as many as the training split has."""
    workers: int = 2
    """Processes that load and augment training images."""
    cache: str | None = None
    """Folder that keeps the images decoded at model.image_size, 0.8 MB each at 512 px, for this and later runs; null: decode each time."""

    def __post_init__(self) -> None:
        refuse_nulls(self, "sampling")
        require(self.workers >= 0, "sampling.workers", self.workers, "0 or more")
        require(self.epoch_images is None or self.epoch_images >= 1, "sampling.epoch_images", self.epoch_images, "1 or more, or null")
        if self.epoch_images is not None and not self.balance:
            raise UsageError("sampling.epoch_images counts balanced draws and needs sampling.balance true; found false")


@dataclass
class TrainingConfig:
    """The training recipe."""

    optimiser: Literal["adam", "adamw"] = "adamw"
    """Optimiser."""
    learning_rate: float = 5e-4
    """Highest learning rate."""
    trunk_learning_rate: float | None = None
    """Learning rate of a trunk that is trained; null: the same as learning_rate."""
    weight_decay: float = 5e-4
    """Weight decay, on weights of two and more dimensions only."""
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    """Course of the learning rate; plateau: a tenth after 6 epochs without a better val Dice."""
    warmup: float = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 8
    """Images in a forward pass, of mixed tasks; over all devices."""
    accumulate: int = 1
    """Forward passes that share an optimiser step: half the batch twice is as good as the whole, with less memory."""
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """auto: bfloat16 where the processor computes in it, else 32 bit."""
    checkpointing: bool = False
    """Recompute the trunk's activations in the backward pass: less memory, about a third more time."""
    early_stopping: int | None = None
    """Stop after this many epochs without a better val Dice; null: never."""
    gate_temperature: tuple[float, float] = (1.0, 0.3)
    """Temperature of the split gate at the first and the last step, linear between."""
    gate_learning_rate: float | None = None
    """Learning rate of the split gate's steps; null: the same as learning_rate."""
    gate_cost: float = 0.0
    """Weight in the loss of the share of the trunk that runs task routes: more splits later, and several tasks on one image cost less."""
    checkpoint_minutes: float | None = 10.0
    """Save the run this often inside an epoch too: more is not lost when it is killed; null: at the end of epochs only, 0: every step."""
    seed: int = 42
    """Seed of the weights, the sampling and the augmentation."""

    def __post_init__(self) -> None:
        refuse_nulls(self, "training")
        self.gate_temperature = tuple(self.gate_temperature)  # type: ignore[assignment]
        for name in ("learning_rate", "epochs", "batch_size", "accumulate"):
            require(getattr(self, name) > 0, f"training.{name}", getattr(self, name), "more than 0")
        for name in ("weight_decay", "clip", "gate_cost"):
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        patience = self.early_stopping
        require(patience is None or patience >= 1, "training.early_stopping", patience, "1 or more, or null")
        minutes = self.checkpoint_minutes
        require(minutes is None or minutes >= 0, "training.checkpoint_minutes", minutes, "0 or more, or null")
        require(0 <= self.seed < 2**32, "training.seed", self.seed, "0 to 2^32 - 1")
        for name in ("trunk_learning_rate", "gate_learning_rate"):
            rate = getattr(self, name)
            require(rate is None or rate > 0, f"training.{name}", rate, "more than 0, or null")
        require(0 <= self.warmup < 1, "training.warmup", self.warmup, "at least 0 and under 1")
        if self.schedule == "plateau" and self.warmup:
            raise UsageError(f"training.schedule 'plateau' has no warm-up; found training.warmup {self.warmup}, expected 0")
        require(min(self.gate_temperature) > 0, "training.gate_temperature", self.gate_temperature, "two numbers above 0")


@dataclass
class Config:
    """All settings of a training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def check_trainable(self) -> None:
        """Raise UsageError for settings that a model may have but a training run may not."""
        if self.model.freeze and self.model.weights is None:
            raise UsageError(
                "model.freeze is true but model.weights is null: a trunk without weights has to be trained; set model.freeze false"
            )
        if self.model.hardened:
            raise UsageError("model.hardened is for trained models: a hard gate has no gradient; set it false to train")
        model = self.model
        if self.training.gate_cost and (model.architecture != "tpseg" or model.adapter != "tca" or model.gate in ("none", "shared_only")):
            raise UsageError(
                f"training.gate_cost: found {self.training.gate_cost}, expected 0: architecture {model.architecture} with adapter "
                f"{model.adapter} and gate {model.gate} has no split that it could move"
            )

    def to_dict(self) -> dict[str, Any]:
        return _plain(asdict(self))


def require(condition: bool, key: str, found: object, expected: str) -> None:
    """Raise UsageError that names the key, what was found and what was expected."""
    if not condition:
        raise UsageError(f"{key}: found {found}, expected {expected}")


def refuse_nulls(settings: Any, group: str) -> None:
    """Raise UsageError for a null where the field's type has none."""
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        require(
            getattr(settings, item.name) is not None or type(None) in get_args(hints[item.name]),
            f"{group}.{item.name}", None, "a value",
        )  # fmt: skip


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_source(name: str | Path) -> dict[str, Any]:
    """Differences held by a preset name or a YAML file; raises UsageError for unknown names and keys."""
    path = PRESETS / f"{name}.yaml"
    if not os.path.isfile(path):  # which, unlike Path.is_file, is false for what no disk takes for a name
        path = Path(name)
    if not os.path.isfile(path):
        known = preset_names()
        raise UsageError(f"no preset or file '{name}'{nearest(str(name), known)} (presets: {', '.join(known)}; or the path of a YAML file)")
    try:
        content = read_yaml(path) or {}
    except ValueError as error:
        raise UsageError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    check_keys(content, Config, str(path))
    return content


def check_keys(content: Any, kind: type, source: str, prefix: str = "") -> None:
    """Raise UsageError for a key that `kind` does not have, naming the nearest one."""
    if not isinstance(content, Mapping):
        raise UsageError(f"{source}: {prefix.rstrip('.') or 'the file'} should hold keys and values, found {short(content)}")
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            raise UsageError(f"{source}: unknown key '{prefix}{key}'{nearest(str(key), hints)} (keys: {', '.join(hints)})")
        if is_dataclass(hints[key]):
            check_keys(value, hints[key], source, f"{prefix}{key}.")


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mappings over each other; later ones win."""
    merged: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            merged[key] = merge(merged.get(key) or {}, value) if isinstance(value, Mapping) else value
    return merged


def build_config(content: Mapping[str, Any], kind: type = Config, source: str = "settings") -> Any:
    """Dataclass from nested plain values, types checked; raises UsageError that names the key."""
    check_keys(content, kind, source)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        values = parser.parse_object(dict(content))
        return _construct(kind, values)
    except UsageError:
        raise
    except Exception as error:  # jsonargparse reads texts as YAML, whose loader raises whatever a tag leads it to
        raise UsageError(f"{source}: {' '.join(str(error).split())[:300]}") from error


def load_config(sources: Sequence[str | Path] = (), overrides: Mapping[str, Any] | None = None) -> Config:
    """Settings from presets and files, from left to right, then `overrides` (nested)."""
    return build_config(merge(*[read_source(source) for source in sources], overrides or {}))


def _construct(kind: type, values: Any) -> Any:
    hints = get_type_hints(kind)
    arguments = {}
    for item in fields(kind):
        value = values[item.name]
        arguments[item.name] = _construct(hints[item.name], value) if is_dataclass(hints[item.name]) else value
    return kind(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
