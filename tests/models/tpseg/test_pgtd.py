"""The prototype-guided task decoder: eqs. (4) and (6) to (11), step by step and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from miniature_models import noise, perturb
from torch import Tensor, nn

from tpseg.models.adapters.tca import Routing
from tpseg.models.tpseg.pgtd import (
    PGTD,
    DynamicExperts,
    Fuse,
    PrototypeInteraction,
    TaskHead,
    centre,
    convolve_each,
    mix_kernels,
    modulate,
)

SETTINGS = {"heads": 4, "experts": 6, "modulation": 0.5, "reinforcement": 5.0, "momentum": 0.9}


def pgtd(**changes: float) -> PGTD:
    torch.manual_seed(0)
    return perturb(PGTD(4, 6, 8, 3, **(SETTINGS | changes)))  # type: ignore[arg-type]


def reinforcing(*amplifiers: float) -> PGTD:
    """A new step whose tasks have these ρ."""
    step = PGTD(4, 6, 8, len(amplifiers), **SETTINGS)  # type: ignore[arg-type]
    for output, amplifier in zip(step.head.outputs, amplifiers, strict=True):
        output.amplifier.data.fill_(amplifier)
    return step


def one_pixel(*vector: float) -> Tensor:
    return torch.tensor(vector).reshape(1, -1, 1, 1)


# eq. (4)


def test_fusion_joins_the_two_features_at_the_finer_size() -> None:
    fuse = perturb(Fuse(4, 6, 8))
    assert fuse(noise(2, 4, 6, 10), noise(2, 6, 3, 5)).shape == (2, 8, 6, 10)


def test_what_is_fused_is_gelu_of_norm_of_a_1x1_of_each_the_coarse_first() -> None:
    fuse = perturb(Fuse(4, 6, 8))
    f_low, f_high = noise(2, 4, 5, 5), noise(2, 6, 5, 5, seed=1)
    fuse.join = nn.Identity()
    parts = []
    for branch, feature in ((fuse.high, f_high), (fuse.low, f_low)):
        conv, norm = branch[0], branch[1]
        assert conv.kernel_size == (1, 1)
        parts.append(F.gelu(F.group_norm(F.conv2d(feature, conv.weight), 1, norm.weight, norm.bias)))
    torch.testing.assert_close(fuse(f_low, f_high), torch.cat(parts, 1))


# eqs. (6) and (7)


def test_the_prototypes_attend_to_the_image_by_hand() -> None:
    """One head, no projections: keys (1, 0) and (0, 1), P_fg = (√2·ln 3, 0) gives weights ¾ and ¼; P_bg = 0 gives ½ and ½."""
    interact = PrototypeInteraction(2, 1)
    interact.mlp = nn.Identity()
    attention = interact.attention
    attention.in_proj_weight.data = torch.eye(2).repeat(3, 1)
    attention.out_proj.weight.data = torch.eye(2)
    prototypes = torch.tensor([[[math.sqrt(2) * math.log(3), 0.0], [0.0, 0.0]]])
    features = torch.eye(2).reshape(1, 2, 1, 2)
    expected = torch.tensor([[0.75, 0.25, 0.5, 0.5, 0.25, -0.25]])  # A_fg, A_bg, A_fg − A_bg
    torch.testing.assert_close(interact(prototypes, features), expected)


def test_z_has_one_vector_per_sample_and_sees_the_whole_map_whatever_its_order() -> None:
    interact = perturb(PrototypeInteraction(8, 4))
    prototypes, features = F.normalize(noise(2, 2, 8), dim=-1), noise(2, 8, 3, 4, seed=1)
    z = interact(prototypes, features)
    assert z.shape == (2, 8)
    torch.testing.assert_close(interact(prototypes, features.flip(2).flip(3)), z)
    assert not torch.allclose(interact(prototypes.flip(1), features), z, atol=1e-3)


# eqs. (8) and (9)


def test_modulation_by_hand() -> None:
    """α = ½: D = 0 gives S = ½ and a factor 1.25; D = ln 3 gives S = ¾ and 1.375; D = −ln 3 gives 1.125."""
    similarity = torch.tensor([0.0, math.log(3), -math.log(3)]).reshape(1, 1, 1, 3)
    features = torch.tensor([2.0, -4.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    factors = torch.tensor([1.25, 1.375, 1.125])
    torch.testing.assert_close(modulate(features, similarity, 0.5), torch.stack([2 * factors, -4 * factors])[None, :, None])


# what prototypes and similarity are of


def test_centred_features_have_no_common_part_by_hand() -> None:
    """Channel 0: 1, 3 less 2; channel 1: 10, 10 less 10; each sample by itself."""
    features = torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]], [[[5.0, 5.0]], [[0.0, 4.0]]]])
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[-2.0, 2.0]]]])
    assert torch.equal(centre(features), expected)


def test_a_vector_added_to_every_pixel_does_not_change_the_similarity() -> None:
    step, task = pgtd(centred=True), torch.tensor([1])
    f_low, f_high = noise(1, 4, 6, 6), noise(1, 6, 3, 3)
    before = step(f_low, f_high, task, Routing.of(task, 3)).similarity
    step.fuse.register_forward_hook(lambda _, inputs, f: f + noise(1, 8, 1, 1, seed=3))
    torch.testing.assert_close(step(f_low, f_high, task, Routing.of(task, 3)).similarity, before, atol=1e-5, rtol=1e-5)


# eq. (10)


def test_each_sample_is_convolved_with_its_own_kernels_and_zeros_around() -> None:
    kernels = torch.zeros(2, 3, 3, 3)
    kernels[0, :, 1, 1] = torch.tensor([1.0, 2.0, 3.0])  # scaled copies
    kernels[1] = 1.0  # sums of nine
    features = noise(2, 3, 4, 5)
    out = convolve_each(features, kernels)
    torch.testing.assert_close(out[0], features[0] * torch.tensor([1.0, 2.0, 3.0])[:, None, None])
    ones = convolve_each(torch.ones(2, 3, 3, 3), kernels)[1, 0]
    assert ones.tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_the_kernels_are_not_flipped() -> None:
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1, 2] = 1  # takes the right neighbour, as convolution layers do
    assert convolve_each(torch.tensor([[[[1.0, 2.0, 3.0]]]]), kernel).tolist() == [[[[2, 3, 0]]]]


def test_mixing_kernels_by_hand() -> None:
    kernels = torch.stack([torch.full((2, 3, 3), 1.0), torch.full((2, 3, 3), 5.0)])[None]
    assert torch.equal(mix_kernels(kernels, torch.tensor([[0.25, 0.75]])), torch.full((1, 2, 3, 3), 4.0))


def test_mixing_first_gives_the_sum_of_m_convolutions() -> None:
    features, kernels, weights = noise(3, 8, 7, 9), noise(3, 6, 8, 3, 3, seed=1), noise(3, 6, seed=2).softmax(-1)
    separately = torch.stack(
        [
            sum(weights[b, m] * F.conv2d(features[b], kernels[b, m][:, None], padding=1, groups=8) for m in range(6))  # type: ignore[misc]
            for b in range(3)
        ]
    )
    torch.testing.assert_close(convolve_each(features, mix_kernels(kernels, weights)), separately, atol=1e-5, rtol=1e-5)


def test_kernels_are_three_tenths_generated_and_seven_tenths_identity() -> None:
    experts = DynamicExperts(4, 6)
    assert experts.share.item() == pytest.approx(0.3)
    assert experts.share.requires_grad
    z = noise(2, 4)
    kernels = experts.kernels(z)
    assert kernels.shape == (2, 6, 4, 3, 3)
    identity = torch.zeros(3, 3)
    identity[1, 1] = 1
    torch.testing.assert_close(kernels - 0.7 * identity, 0.3 * experts.generate(z).reshape(2, 6, 4, 3, 3))


def test_without_generated_kernels_the_features_pass_scaled() -> None:
    experts = DynamicExperts(4, 6)
    for parameter in experts.generate[-1].parameters():
        nn.init.zeros_(parameter)
    features = noise(2, 4, 5, 5)
    torch.testing.assert_close(experts(features, noise(2, 4)), 0.7 * features)  # Σ w_m = 1


# eq. (11)


def test_each_task_has_its_own_output() -> None:
    """Stem left out: f = (1, 2); task 0 has weights (3, 4) and bias 5, task 2 (1, −1) and 0."""
    head = TaskHead(2, 3)
    head.stem = nn.Identity()
    head.outputs[0].weight.data, head.outputs[0].bias.data = torch.tensor([3.0, 4.0]), torch.tensor(5.0)
    head.outputs[2].weight.data = torch.tensor([1.0, -1.0])
    out = head(one_pixel(1, 2).expand(3, 2, 1, 1), Routing.of(torch.tensor([2, 0, 2]), 3))
    assert out.shape == (3, 1, 1, 1)
    assert out.flatten().tolist() == [-1, 16, -1]


def test_reinforcement_lifts_the_lesion_and_pushes_the_background_down() -> None:
    """λ_p = 5, ρ = 1, temp = 0.1: D = ±0.1 gives ±5·tanh(1) = ±3.808, D = 0 nothing, D = ±2 gives ±5."""
    step = reinforcing(1)
    assert step.temperature.item() == pytest.approx(0.1)
    assert step.temperature.requires_grad
    similarity = torch.tensor([-2.0, -0.1, 0.0, 0.1, 2.0]).reshape(1, 1, 1, 5)
    out = step.reinforce(similarity, Routing.of(torch.tensor([0]), 3)).flatten()
    torch.testing.assert_close(out, torch.tensor([-5.0, -3.8079708, 0.0, 3.8079708, 5.0]))


def test_each_task_has_its_own_amplifier() -> None:
    step = reinforcing(1, 0.5, 0.2)
    out = step.reinforce(torch.ones(2, 1, 1, 1), Routing.of(torch.tensor([2, 0]), 3))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.0, 5.0]))
    assert all(output.amplifier.requires_grad for output in step.head.outputs)


def test_a_temperature_learned_below_zero_turns_no_sign() -> None:
    step = reinforcing(1)
    step.temperature.data.fill_(-1.0)
    out = step.reinforce(torch.tensor([-0.5, 0.5]).reshape(1, 1, 1, 2), Routing.of(torch.tensor([0]), 3))
    torch.testing.assert_close(out.flatten(), torch.tensor([-5.0, 5.0]))


def test_the_logits_are_the_head_plus_the_reinforcement_of_the_signed_difference() -> None:
    f_low, f_high, task = noise(3, 4, 6, 6), noise(3, 6, 3, 3, seed=1), torch.tensor([2, 0, 1])
    routing = Routing.of(task, 3)
    with_it, without = pgtd(), pgtd(reinforcement=0.0)
    out, plain = with_it(f_low, f_high, task, routing), without(f_low, f_high, task, routing)
    assert (out.similarity < 0).any()
    assert (out.similarity > 0).any()
    torch.testing.assert_close(out.logits - plain.logits, with_it.reinforce(out.similarity, routing), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.logits, without.head(plain.refined, routing))


@pytest.mark.parametrize("centred", [False, True])
def test_a_step_is_its_equations_in_order(centred: bool) -> None:
    step, task = pgtd(centred=centred), torch.tensor([2, 0])
    f_low, f_high, routing = noise(2, 4, 6, 6), noise(2, 6, 3, 3, seed=1), Routing.of(task, 3)
    out = step(f_low, f_high, task, routing)
    prototypes = step.memory.prototypes[task]
    f = step.fuse(f_low, f_high)
    cosines = F.cosine_similarity(out.features[:, None], prototypes[..., None, None], dim=2)  # (B, 2, h, w)
    similarity = cosines[:, :1] - cosines[:, 1:]
    gained = f * (1 + 0.5 * similarity.sigmoid())
    torch.testing.assert_close(out.features, centre(f) if centred else F.normalize(f, dim=1))  # plain: unit vectors
    torch.testing.assert_close(out.similarity, similarity, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out.refined, step.experts(gained, step.interact(prototypes, f)), atol=1e-5, rtol=1e-4)


def test_other_prototypes_give_another_output() -> None:
    step, task = pgtd(), torch.tensor([0])
    arguments = (noise(1, 4, 6, 6), noise(1, 6, 3, 3), task, Routing.of(task, 3))
    before = step(*arguments)
    step.memory.prototypes.copy_(step.memory.prototypes.flip(1))
    after = step(*arguments)
    torch.testing.assert_close(after.similarity, -before.similarity)
    assert not torch.allclose(after.refined, before.refined, atol=1e-3)


def test_reinforcing_with_s_as_printed_pushes_every_pixel_up() -> None:
    """tanh(sigmoid(D) / temp) > 0 for any D: the reason why (11) takes the signed D."""
    step = reinforcing(1.0)
    step.signed = False
    similarity = torch.tensor([-2.0, 0.0, 2.0]).reshape(1, 1, 1, 3)
    pull = step.reinforce(similarity, Routing.of(torch.tensor([0]), 3))
    expected = [5 * math.tanh(1 / (1 + math.exp(-d)) / 0.1) for d in (-2, 0, 2)]
    torch.testing.assert_close(pull.flatten(), torch.tensor(expected))
    assert (pull > 0).all()
