"""The other systems: what their papers say of them, and their way through training, disk and prediction."""

from __future__ import annotations

from pathlib import Path

import miniature_models
import pytest
import torch
import torch.nn.functional as F
from miniature import SETTINGS, checkpoint, history, stopped, train_miniature
from miniature_models import TASKS, miniature_config, miniature_model, noise, predict
from torch import Tensor, nn
from torch.testing import assert_close

from tpseg.checkpoints.inspection import count_flops
from tpseg.checkpoints.model_folder import load_model
from tpseg.core.config import ModelConfig
from tpseg.core.errors import UsageError
from tpseg.inference import Segmenter
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import MODELS, create, create_without_memory
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.networks.sam2_unet import SAM2UNet
from tpseg.models.networks.task_blind import TaskBlind
from tpseg.models.networks.transunet import GRID, ResNet, StandardisedConv2d, Transformer, TransformerLayer, TransUNet

OTHERS = {
    "monai_unet": 8,
    "unetplusplus": 8,
    "attention_unet": 8,
    "segresnet": 8,
    "swin_unetr": 12,
    "transunet": 8,
    "sam2_unet": 8,
}
"""Every other system with the width of its miniature."""


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def full_size(architecture: str, **changes: object) -> LesionModel:
    """As its authors have it, without memory for its weights."""
    return create_without_memory(ModelConfig(architecture=architecture, **changes), TASKS)  # type: ignore[arg-type]


# Size


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("monai_unet", 25_971_932),  # MONAI 1.6: UNet(2, 3, 1, (64, 128, 256, 512, 1024), (2, 2, 2, 2), num_res_units=2)
        ("unetplusplus", 9_119_332),  # MONAI 1.6: BasicUNetPlusPlus(2, 3, 1, (32, 64, 128, 256, 512, 32))
        ("attention_unet", 31_740_337),  # MONAI 1.6: AttentionUnet(2, 3, 1, (64, 128, 256, 512, 1024), (2, 2, 2, 2))
        ("segresnet", 6_299_073),  # MONAI 1.6: SegResNet(spatial_dims=2, init_filters=32, in_channels=3, out_channels=1)
        ("swin_unetr", 25_139_275),  # MONAI 1.6: SwinUNETR(3, 1, feature_size=48, spatial_dims=2)
    ],
)
def test_monai_s_networks_have_monai_s_number_of_parameters(architecture: str, parameters: int) -> None:
    assert count(full_size(architecture)) == parameters


def test_transunet_has_the_parameters_that_are_published_for_r50_vit_b_16() -> None:
    """105 M (the DA-TransUNet paper's figure, as quoted in github.com/SUN-1024/DA-TransUnet, issue 16; Beckschen/TransUNet,
    issue 156, has it too), of which a ViT-B's twelve layers are 85,054,464. The authors' nine classes take 1,160 more."""
    assert count(full_size("transunet")) == 105_275_921
    assert count(full_size("transunet")) == pytest.approx(105e6, rel=0.005)
    with torch.device("meta"):
        layer, resnet, transformer = TransformerLayer(768), ResNet(64), Transformer(1024, 768)
    assert count(layer) == 4 * 768 * (768 + 1) + 768 * (3072 + 1) + 3072 * (768 + 1) + 4 * 768  # ViT-B's: 7,087,872
    assert count(transformer) == 12 * 7_087_872 + 768 * (1024 + 1) + 768 * 14 * 14 + 2 * 768
    assert [stage[0].expand[0].out_channels for stage in resnet.stages] == [256, 512, 1024]
    assert [len(stage) for stage in resnet.stages] == [3, 4, 9]


def test_sam2_unet_trains_two_percent_of_its_parameters() -> None:
    """Hiera-L's blocks take in 26,352 channels in all: 3,373,056 weights in one route of rank 64 are 2·64 for each."""
    model = full_size("sam2_unet", rank=32)
    assert isinstance(model, SAM2UNet)
    assert count(model.trunk) == 212_149_296
    assert count(model.adapters) == 26_352 * (2 * 32 + 1) + 48 * 32
    assert not any(parameter.requires_grad for parameter in model.trunk.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == count(model) - 212_149_296
    assert trained / count(model) == pytest.approx(0.02, abs=0.002)


def test_width_sets_the_first_level_and_the_others_follow() -> None:
    narrow, wide = (count(full_size("monai_unet", width=width)) for width in (16, 32))
    assert narrow == 1_625_420
    assert wide / narrow == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(("architecture", "multiple"), [("swin_unetr", 12), ("segresnet", 8), ("transunet", 4), ("attention_unet", 2)])
def test_a_width_that_does_not_divide_is_refused_by_name(architecture: str, multiple: int) -> None:
    with pytest.raises(UsageError, match=rf"model\.width: found 9, expected a multiple of {multiple} for {architecture}"):
        create(ModelConfig(architecture=architecture, width=9), TASKS)


@pytest.mark.parametrize("architecture", OTHERS)
def test_operations_are_counted_without_memory_for_the_weights(architecture: str) -> None:
    model = full_size(architecture, trunk="tiny")
    assert 3.8 < count_flops(model, 256) / count_flops(model, 128) < 4.6  # as pixels; Swin rounds up to windows of 7, a ViT looks at all


# What they are


def test_every_other_system_is_in_the_suite_that_every_model_passes() -> None:
    assert OTHERS.keys() == MODELS.keys() - {"tpseg"}
    assert OTHERS.keys() <= miniature_models.MODELS.keys()


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("architecture", OTHERS)
def test_the_task_changes_nothing_and_owns_nothing(architecture: str) -> None:
    model = miniature_model(architecture=architecture, width=OTHERS[architecture])
    image = noise(1, 3, 64, 64)
    first = predict(model, image, [0])
    assert all(torch.equal(first.logits, predict(model, image, [task]).logits) for task in (1, 2))
    assert first.similarity is None
    assert (model.prototypes(), model.splits(), model.gate_weights()) == ({}, {}, None)


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize(("architecture", "outputs"), [("monai_unet", 1), ("unetplusplus", 4), ("sam2_unet", 3), ("transunet", 1)])
def test_all_outputs_are_supervised(architecture: str, outputs: int) -> None:
    model = miniature_model(architecture=architecture, width=OTHERS[architecture])
    supervised = predict(model, noise(1, 3, 64, 64), [0]).supervised
    assert len(supervised) == outputs
    assert len({one.sum().item() for one in supervised}) == outputs


def test_the_deepest_head_of_u_net_plus_plus_predicts() -> None:
    model = miniature_model_without_trunk("unetplusplus", 8)
    image = noise(1, 3, 64, 64)
    deepest = model.network.network.final_conv_0_4  # type: ignore[union-attr]
    before = predict(model, image, [0])
    deepest.bias.data += 3  # type: ignore[operator, union-attr]
    after = predict(model, image, [0])
    assert_close(after.logits, before.logits + 3)
    assert all(torch.equal(one, two) for one, two in zip(after.supervised[1:], before.supervised[1:], strict=True))


def miniature_model_without_trunk(architecture: str, width: int) -> TaskBlind:
    torch.manual_seed(0)
    model = create(ModelConfig(architecture=architecture, width=width), TASKS)
    assert isinstance(model, TaskBlind)
    return model


def test_a_task_blind_model_takes_one_output_or_several_and_pads_to_its_stride() -> None:
    class Means(nn.Module):
        def forward(self, image: Tensor) -> list[Tensor]:
            assert image.shape == (2, 3, 48, 24)
            grey = image.mean(1, keepdim=True)
            return [grey, F.avg_pool2d(grey, 4)]

    image = noise(2, 3, 41, 20)
    output = TaskBlind(ModelConfig(), TASKS, Means(), stride=24)(image, torch.tensor([0, 1]))
    assert_close(output.logits, image.mean(1, keepdim=True))
    assert [one.shape for one in output.supervised] == [(2, 1, 41, 20)] * 2
    assert [tuple(step.logits.shape[2:]) for step in output.steps] == [(12, 6), (48, 24)]  # coarse to fine
    assert TaskBlind(ModelConfig(), TASKS, nn.Conv2d(3, 1, 1))(image, torch.tensor([0, 1])).logits.shape == (2, 1, 41, 20)


# TransUNet


def test_standardised_convolution_by_hand_and_blind_to_the_scale_and_offset_of_its_kernels() -> None:
    conv = StandardisedConv2d(1, 1, (1, 2), bias=False)
    conv.weight.data = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, deviation 1: -1 and 1
    assert_close(conv(torch.tensor([[[[5.0, 9.0]]]])), torch.tensor([[[[4.0]]]]), atol=1e-4, rtol=0)
    wide = StandardisedConv2d(4, 6, 3, bias=False)
    image = noise(1, 4, 8, 8)
    before = wide(image)
    wide.weight.data = 7 * wide.weight.data + 2
    assert_close(wide(image), before, atol=1e-3, rtol=1e-3)
    assert_close(wide(torch.ones(1, 4, 8, 8)), torch.zeros(1, 6, 6, 6), atol=1e-4, rtol=0)


def test_resnet_features_are_at_strides_2_4_8_and_16() -> None:
    shapes = [tuple(one.shape[1:]) for one in ResNet(8)(noise(1, 3, 64, 96))]
    assert shapes == [(8, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]


def test_position_embeddings_are_taken_as_they_are_at_224_pixels_and_resized_elsewhere() -> None:
    """Without positions a ViT permutes its outputs with its inputs; with them it does not."""
    torch.manual_seed(0)
    vit = Transformer(8, 96).eval()
    with torch.no_grad():
        same = F.interpolate(vit.position, (GRID, GRID), mode="bicubic", align_corners=False)
        assert_close(same, vit.position.data)
        for size in ((GRID, GRID), (5, 9), (1, 1)):
            assert vit(noise(1, 8, *size)).shape == (1, 96, *size)
        x = noise(1, 8, 5, 9)
        moved = (vit(x.flip(3)).flip(3) - vit(x)).abs().max()
        vit.position.zero_()
        assert_close(vit(x.flip(3)).flip(3), vit(x), atol=1e-5, rtol=0)
    assert moved > 1e-3


def test_a_transformer_layer_is_torch_s_encoder_layer_with_the_norm_first() -> None:
    torch.manual_seed(0)
    ours = TransformerLayer(96)
    theirs = nn.TransformerEncoderLayer(96, 12, 384, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    norm, rise, _, fall = ours.mlp
    pairs = [(theirs.norm1, ours.attention_norm), (theirs.norm2, norm), (theirs.linear1, rise), (theirs.linear2, fall)]
    pairs.append((theirs.self_attn.out_proj, ours.project))
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    theirs.self_attn.in_proj_weight.data = ours.qkv.weight.data
    theirs.self_attn.in_proj_bias.data = ours.qkv.bias.data
    tokens = noise(2, 7, 96)
    assert_close(ours(tokens), theirs(tokens), atol=1e-5, rtol=1e-5)


def test_transunet_predicts_at_full_size() -> None:
    assert TransUNet(8)(noise(2, 3, 32, 48)).shape == (2, 1, 32, 48)


# SAM2-UNet


@pytest.mark.usefixtures("miniature_trunk")
def test_a_frozen_trunk_of_sam2_unet_gets_no_gradient_and_its_adapters_do() -> None:
    model = miniature_model(architecture="sam2_unet", width=8, freeze=True)
    output = model(noise(2, 3, 64, 64), torch.tensor([0, 1]))
    segmentation_loss(output.supervised, torch.ones(2, 1, 64, 64)).mean().backward()
    assert all(parameter.grad is None for parameter in model.trunk.parameters())
    assert all(block.up.weight.grad.any() and block.down.weight.grad.any() for block in model.adapters.blocks)


@pytest.mark.usefixtures("miniature_trunk")
def test_the_outputs_of_sam2_unet_are_at_strides_16_8_and_4() -> None:
    model = create(miniature_config(architecture="sam2_unet", width=8), TASKS)
    steps = predict(model, noise(1, 3, 64, 96), [0]).steps
    assert [tuple(step.logits.shape[2:]) for step in steps] == [(4, 6), (8, 12), (16, 24)]


# Training, disk and prediction


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("architecture", ["monai_unet", "sam2_unet"])
def test_it_trains_saves_loads_predicts_and_resumes_to_the_same_weights(architecture: str, discs: Path, tmp_path: Path) -> None:
    model = {"architecture": architecture, "width": 8}
    straight = train_miniature(discs, tmp_path / "straight", model=model)
    with stopped(epoch=1, step=1):
        train_miniature(discs, tmp_path / "run", model=model)
    resumed = train_miniature(discs, tmp_path / "run", model=model, resume=True)
    assert history(resumed)["step"].tolist() == [3, 6]
    assert_close(checkpoint(resumed)["state_dict"], checkpoint(straight)["state_dict"], rtol=0, atol=0)
    assert_close(load_model(resumed).state_dict(), load_model(straight).state_dict(), rtol=0, atol=0)
    assert load_model(resumed).config.architecture == architecture

    segment = Segmenter(resumed / "model")
    assert segment.image_size == SETTINGS["model"]["image_size"]
    prediction = segment(discs.parent / "bright_disc" / "00.png", task="bright_disc")
    assert prediction.mask.shape == (48, 64)
    assert prediction.similarity is None
    assert f"# {architecture} model for 2 lesion tasks" in (resumed / "model" / "README.md").read_text()
