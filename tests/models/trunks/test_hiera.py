"""The trunk is SAM 2's Hiera: the library's numbers and features, with a hook before every block."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from miniature_models import noise, perturb, save_meta_file

from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk

PUBLISHED = ("tiny", "small", "base_plus", "large")


@pytest.fixture(scope="module")
def tiny() -> Trunk:
    torch.manual_seed(0)
    return perturb(Trunk("tiny"), size=0.05).eval()


def library_features(trunk: Trunk, image: torch.Tensor) -> list[torch.Tensor]:
    """Features of transformers' own forward, its own attention included, with the same numbers."""
    library = type(trunk.hiera)(trunk.hiera.config).eval()
    library.load_state_dict(trunk.hiera.state_dict())
    assert not {type(block.attn) for block in library.blocks} & {type(block.attn) for block in trunk.hiera.blocks}
    with torch.no_grad():
        stages = library(pixel_values=image).intermediate_hidden_states
    return [stage.permute(0, 3, 1, 2) for stage in stages]


def assert_same_features(trunk: Trunk, image: torch.Tensor) -> None:
    with torch.no_grad():
        ours = trunk(image)
    for mine, theirs in zip(ours, library_features(trunk, image), strict=True):
        assert theirs.std() > 0.1  # not degenerate
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_sizes_are_those_of_the_design(size: str) -> None:
    blocks, width = {"tiny": (12, 96), "small": (16, 96), "base_plus": (24, 112), "large": (48, 144)}[size]
    with torch.device("meta"):
        trunk = Trunk(size)
    assert len(trunk.hiera.blocks) == len(trunk.block_widths) == blocks
    assert trunk.widths == (width, 2 * width, 4 * width, 8 * width)
    assert trunk.block_widths[0] == width
    assert trunk.block_widths[-1] == 8 * width


def test_hiera_large_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        trunk = Trunk("large")
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 212_149_296


def test_hiera_large_has_the_widths_that_the_paper_counts() -> None:
    """Σ over the 48 blocks of the width that enters: 3×144 + 6×288 + 36×576 + 3×1152 = 26,352."""
    with torch.device("meta"):
        widths = Trunk("large").block_widths
    assert [widths.count(width) for width in (144, 288, 576, 1152)] == [3, 6, 36, 3]
    assert sum(widths) == 26_352


@pytest.mark.parametrize("size", PUBLISHED)
def test_global_attention_is_where_the_table_says(size: str) -> None:
    expected = {"tiny": [5, 7, 9], "small": [7, 10, 13], "base_plus": [12, 16, 20], "large": [23, 33, 43]}[size]
    with torch.device("meta"):
        blocks = Trunk(size).hiera.blocks
    assert [number for number, block in enumerate(blocks) if block.window_size == 0] == expected


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (64, 128), (352, 480), (1024, 1024)])
def test_our_lean_forward_gives_the_librarys_features(tiny: Trunk, size: tuple[int, int]) -> None:
    assert_same_features(tiny, noise(1, 3, *size))


@pytest.mark.slow
def test_hiera_large_from_metas_file_gives_the_librarys_features(tmp_path: Path) -> None:
    """The whole way of a user's sam2_hiera_large.pt, at the sizes of SAM2-UNet and TP-Seg."""
    save_meta_file(perturb(Trunk("large"), size=0.02), tmp_path / "sam2_hiera_large.pt")
    trunk = Trunk("large").eval()
    load_trunk_weights(trunk, str(tmp_path / "sam2_hiera_large.pt"))
    for size in (352, 512):
        assert_same_features(trunk, noise(1, 3, size, size))


def test_features_are_at_strides_4_8_16_32(tiny: Trunk) -> None:
    with torch.no_grad():
        features = tiny(noise(2, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [(2, 96, 16, 24), (2, 192, 8, 12), (2, 384, 4, 6), (2, 768, 2, 3)]


def test_the_hook_runs_before_every_block_on_what_enters_it() -> None:
    trunk = perturb(Trunk("miniature")).eval()
    seen: list[tuple[int, int]] = []
    entered: list[torch.Tensor] = []
    for block in trunk.hiera.blocks:
        block.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))

    def adapt(index: int, tokens: torch.Tensor) -> torch.Tensor:
        seen.append((index, tokens.shape[-1]))
        return tokens + index

    given: list[torch.Tensor] = []
    with torch.no_grad():
        trunk(noise(1, 3, 32, 32), lambda index, tokens: given.append(tokens) or adapt(index, tokens))
    assert seen == list(enumerate(trunk.block_widths))
    assert all(torch.equal(one, two + index) for index, (one, two) in enumerate(zip(entered, given, strict=True)))


def test_a_hook_that_changes_nothing_changes_nothing() -> None:
    trunk = perturb(Trunk("miniature")).eval()
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(one, two) for one, two in zip(trunk(image), trunk(image, lambda _, tokens: tokens), strict=True))


def test_a_frozen_trunk_lets_gradients_through_to_the_hook() -> None:
    trunk = perturb(Trunk("miniature"))
    assert not trunk.frozen
    trunk.freeze()
    assert trunk.frozen
    shift = torch.zeros(6, requires_grad=True)
    trunk(noise(1, 3, 32, 32), lambda index, tokens: tokens * (1 + shift[index]))[-1].square().sum().backward()
    assert shift.grad is not None
    assert (shift.grad != 0).all()
    assert all(parameter.grad is None for parameter in trunk.parameters())


def test_checkpointing_recomputes_every_block_and_changes_no_number() -> None:
    trunk = perturb(Trunk("miniature"))
    image = noise(2, 3, 64, 64)
    calls: list[int] = []

    def run(checkpointing: bool) -> list[torch.Tensor]:
        calls.clear()
        trunk.checkpointing = checkpointing
        trunk.zero_grad()
        loss = sum(feature.square().mean() for feature in trunk(image, lambda index, tokens: calls.append(index) or tokens))
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in trunk.parameters())]

    plain = run(False)
    assert len(calls) == 6
    recomputed = run(True)
    assert len(calls) == 12
    assert all(torch.equal(one, two) for one, two in zip(plain, recomputed, strict=True))


def test_the_table_lists_nothing_but_the_four_published_sizes() -> None:
    assert [size for size in TRUNK_SIZES if size != "miniature"] == list(PUBLISHED)


@torch.no_grad()
def test_of_the_stages_that_nobody_asks_for_no_block_runs(tiny: Trunk) -> None:
    ran: list[int] = []
    image = noise(1, 3, 64, 64)
    found = tiny(image, lambda index, tokens: ran.append(index) or tokens, stages=2)  # type: ignore[func-returns-value]
    assert ran == list(range(tiny.stage_ends[1] + 1))
    for one, other in zip(found, tiny(image)[:2], strict=True):
        assert torch.equal(one, other)
