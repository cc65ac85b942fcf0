"""Settings: presets hold only differences, and a mistake is named with its key."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tpseg.core.config import PRESETS, Config, ModelConfig, SamplingConfig, TrainingConfig, build_config, load_config, merge, preset_names
from tpseg.core.errors import UsageError

CUSTOM = {"model": {"trunk": "tiny", "weights": None, "freeze": False, "neck_widths": [8, 8, 16, 16]}, "training": {"epochs": 3}}


def leaves(content: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def refusal(overrides: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        load_config([], overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# presets


def test_the_presets_are_those_of_the_design_and_two_overlays() -> None:
    assert preset_names() == ["baseline", "default", "demo", "paper", "release", "small"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_holds_only_what_differs_from_the_defaults(name: str) -> None:
    defaults = dict(leaves(Config().to_dict()))
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    repeated = [".".join(key) for key, value in leaves(content) if defaults[key] == value]
    assert not repeated


@pytest.mark.parametrize("name", ["default", "paper", "release", "small"])
def test_a_preset_loads_and_can_be_trained(name: str) -> None:
    load_config([name]).check_trainable()


def test_default_is_the_defaults() -> None:
    """AdamW 5e-4, warm-up and cosine, bf16 where there is, clip 1.0, frozen Hiera-L at 512 px."""
    config = load_config(["default"])
    assert config == Config() == load_config()
    model, training = config.model, config.training
    assert (model.trunk, model.freeze, model.image_size) == ("large", True, 512)
    assert (training.optimiser, training.learning_rate, training.schedule, training.clip) == ("adamw", 5e-4, "cosine", 1.0)
    assert training.warmup > 0
    assert training.precision == "auto"


def test_the_method_s_constants_are_the_papers_but_for_the_momentum_that_was_measured() -> None:
    model, training = ModelConfig(), TrainingConfig()
    assert (model.rank, model.experts, model.modulation, model.reinforcement, model.momentum) == (64, 6, 0.5, 5.0, 0.99)
    assert (model.attention_heads, model.neck_widths, model.decoder_widths) == (4, (64, 128, 256, 512), (256, 128, 128))
    assert training.gate_temperature == (1.0, 0.3)


def test_paper() -> None:
    """Large, frozen, 512 px; Adam 3e-5, 30 epochs; gate, m = 0.9, rfb, output pgtd1."""
    config = load_config(["paper"])
    model, training = config.model, config.training
    assert (model.trunk, model.freeze, model.image_size, model.gate) == ("large", True, 512, "cumulative_sigmoid")
    assert (model.momentum, model.neck, model.output) == (0.9, "rfb", "pgtd1")
    assert (training.optimiser, training.learning_rate, training.epochs) == ("adam", 3e-5, 30)


def test_release() -> None:
    """Large, frozen, 512 px; AdamW 5e-4, wd 5e-4, plateau; gate none, output fused; prototypes that stay, no balance, bf16."""
    config = load_config(["release"])
    model, training = config.model, config.training
    assert (model.trunk, model.freeze, model.image_size, model.gate, model.output) == ("large", True, 512, "none", "fused")
    assert (training.optimiser, training.learning_rate, training.weight_decay) == ("adamw", 5e-4, 5e-4)
    assert (training.schedule, training.warmup) == ("plateau", 0.0)
    assert (model.momentum, config.sampling.balance, config.sampling.augmentation, training.precision) == (1.0, False, "flip", "bf16")
    assert (training.epochs, training.batch_size, training.clip, training.seed) == (30, 8, 1.0, 42)


def test_small_needs_neither_gpu_nor_weights_and_demo_and_baseline_lie_over_it() -> None:
    config = load_config(["small"])
    assert (config.model.trunk, config.model.weights, config.model.freeze, config.model.image_size) == ("tiny", None, False, 256)
    assert config.training.optimiser == "adamw"
    demo = load_config(["small", "demo"])
    assert (demo.model.trunk, demo.model.image_size) == ("tiny", 96)
    demo.check_trainable()
    baseline = load_config(["small", "baseline"])
    assert (baseline.model.trunk, baseline.model.adapter, baseline.model.pgtds) == ("tiny", "none", ())
    baseline.check_trainable()


# sources


def test_later_sources_win_and_overrides_win_over_all(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("training: {epochs: 7, batch_size: 3}\nmodel: {rank: 5}\n")
    config = load_config(["small", mine], {"training": {"batch_size": 2}})
    assert (config.training.epochs, config.training.batch_size, config.model.rank) == (7, 2, 5)
    assert config.model.trunk == "tiny"
    assert load_config([mine, "small"]).training.epochs == 40


def test_merging_lays_nested_mappings_over_each_other_and_changes_neither() -> None:
    one, two = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "e": 5}
    assert merge(one, two) == {"a": {"b": 1, "c": 4}, "d": 3, "e": 5}
    assert one == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_config_survives_yaml_and_back() -> None:
    config = load_config([], CUSTOM)
    assert config.model.neck_widths == (8, 8, 16, 16)
    again = build_config(yaml.safe_load(yaml.safe_dump(config.to_dict())))
    assert again == config
    assert isinstance(again.model, ModelConfig)
    assert again.model.neck_widths == (8, 8, 16, 16)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_config([tmp_path / "empty.yaml"]) == Config()


# mistakes


def test_a_misspelt_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'papr'; did you mean 'paper'\? \(presets: baseline, default, demo, paper, release, small"):
        load_config(["papr"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"model": {"gaet": "none"}}, "unknown key 'model.gaet'; did you mean 'gate'?"),
        ({"training": {"learning-rate": 1e-3}}, "unknown key 'training.learning-rate'; did you mean 'learning_rate'?"),
        ({"sampling": {"augmentations": "full"}}, "unknown key 'sampling.augmentations'; did you mean 'augmentation'?"),
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'?"),
        ({"epochs": 3}, "unknown key 'epochs'"),
        ({"model": {7: 1}}, "unknown key 'model.7'"),
    ],
)
def test_a_misspelt_key_names_the_nearest(overrides: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(overrides)


def test_a_misspelt_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {rnak: 3}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: unknown key 'model\.rnak'; did you mean 'rank'\?"):
        load_config([path])


@pytest.mark.parametrize("text", ["model: [", "- a\n- b\n", "3", "model: 3\n", "model:\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_and_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml: ") as caught:
        load_config([path])
    assert "\n" not in str(caught.value)


def test_a_text_that_fits_no_tag_of_its_own_is_refused() -> None:
    """Texts are tried as YAML once more."""
    with pytest.raises(UsageError, match="settings: "):
        load_config([], {"training": {"precision": "!!timestamp 2001-99-99\n32"}})


def test_a_binary_file_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match=r"mine\.yaml: not valid YAML"):
        load_config([tmp_path / "mine.yaml"])


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "epochs", "many"),
        ("training", "epochs", 1.5),
        ("training", "epochs", None),
        ("training", "learning_rate", "fast"),
        ("training", "checkpointing", "perhaps"),
        ("training", "gate_temperature", [1.0]),
        ("model", "trunk", "huge"),
        ("model", "gate", "danger"),
        ("model", "neck_widths", [8, 8, 16]),
        ("model", "decoder_widths", 16),
        ("model", "freeze", 2),
        ("sampling", "augmentation", "much"),
        ("sampling", "workers", "two"),
    ],
)
def test_a_wrong_type_names_the_key(section: str, key: str, value: object) -> None:
    message = refusal({section: {key: value}})
    assert key in message
    assert section in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "image_size", 31),
        ("model", "image_size", 2049),
        ("model", "image_size", 16384),
        ("model", "rank", 0),
        ("model", "experts", 0),
        ("model", "momentum", 1.1),
        ("model", "pgtds", [3, 4]),
        ("model", "pgtds", [1, 1]),
        ("model", "width", 0),
        ("model", "momentum", -0.1),
        ("model", "attention_heads", 0),
        ("model", "decoder_widths", [16, 12, 8]),
        ("model", "decoder_widths", [16, 8, 0]),
        ("model", "neck_widths", [8, 8, 16, 0]),
        ("training", "epochs", 0),
        ("training", "batch_size", 0),
        ("training", "accumulate", -1),
        ("training", "learning_rate", 0.0),
        ("training", "warmup", 1.0),
        ("training", "clip", -1.0),
        ("training", "weight_decay", -1.0),
        ("training", "gate_temperature", [1.0, 0.0]),
        ("training", "early_stopping", 0),
        ("sampling", "workers", -1),
        ("sampling", "epoch_images", 0),
    ],
)
def test_a_value_out_of_range_names_the_key(section: str, key: str, value: object) -> None:
    assert f"{section}.{key}" in refusal({section: {key: value}})


# contradictions


def test_fused_output_needs_the_pgtd_decoder() -> None:
    message = refusal({"model": {"output": "fused", "pgtds": []}})
    assert "model.output" in message
    assert "model.pgtds" in message


def test_plateau_has_no_warm_up() -> None:
    message = refusal({"training": {"schedule": "plateau"}})
    assert "training.schedule" in message
    assert "training.warmup" in message
    assert load_config([], {"training": {"schedule": "plateau", "warmup": 0.0}}).training.schedule == "plateau"


def test_epoch_images_needs_balanced_draws() -> None:
    message = refusal({"sampling": {"epoch_images": 10, "balance": False}})
    assert "sampling.epoch_images" in message
    assert "sampling.balance" in message


def test_a_trunk_without_weights_cannot_be_frozen_in_training() -> None:
    with pytest.raises(UsageError, match=r"model\.freeze .*model\.weights"):
        load_config([], {"model": {"weights": None}}).check_trainable()


def test_a_hardened_model_is_not_trained() -> None:
    with pytest.raises(UsageError, match=r"model\.hardened"):
        load_config([], {"model": {"hardened": True}}).check_trainable()


def test_every_field_has_its_help() -> None:
    """The text under a field is what the command line shows."""
    module = ast.parse((PRESETS.parent / "config.py").read_text(encoding="utf-8"))
    bodies = {node.name: node.body for node in module.body if isinstance(node, ast.ClassDef)}
    for kind in (ModelConfig, SamplingConfig, TrainingConfig):
        body = bodies[kind.__name__]
        helped = [
            field.target.id
            for field, text in pairwise(body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
        ]
        assert helped == list(asdict(kind()))
