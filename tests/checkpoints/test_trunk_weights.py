"""Trunk weights come from Meta's files or Hugging Face; anything else is refused with a clear sentence, and never run."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import struct
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from miniature_models import noise, perturb, save_meta_file, to_meta_name
from safetensors.torch import save_file

from tpseg.checkpoints.trunk_weights import load_trunk_weights, trunk_sha256
from tpseg.core.errors import DataError
from tpseg.models.trunks.hiera import Trunk


@pytest.fixture(scope="module")
def source() -> Trunk:
    torch.manual_seed(1)
    return perturb(Trunk("miniature")).eval()


@pytest.fixture
def trunk() -> Trunk:
    torch.manual_seed(2)
    return Trunk("miniature").eval()


@pytest.fixture
def meta_file(source: Trunk, tmp_path: Path) -> Path:
    return save_meta_file(source, tmp_path / "sam2_hiera_miniature.pt")


def assert_equal_trunks(one: Trunk, two: Trunk) -> None:
    image = noise(1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(first, second) for first, second in zip(one(image), two(image), strict=True))
    assert trunk_sha256(one) == trunk_sha256(two)


def hollow_state(size: str) -> dict[str, torch.Tensor]:
    """The state of a trunk of real size, all zeros that take no room on disk."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in Trunk(size).hiera.state_dict().items()}
    return {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}


# what loads


def test_the_inverse_renaming_gives_metas_names() -> None:
    """Names as they stand in sam2_hiera_large.pt."""
    with torch.device("meta"):
        names = {to_meta_name(key) for key in Trunk("large").hiera.state_dict()}
    assert {name for name in names if not name.startswith("blocks.")} == {
        "pos_embed",
        "pos_embed_window",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.layers.0", "mlp.layers.1")
    assert {name for name in names if name.startswith("blocks.47.")} == {
        f"blocks.47.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")
    }
    assert {name for name in names if name.split(".")[2:3] == ["proj"]} == {
        f"blocks.{block}.proj.{kind}" for block in (2, 8, 44) for kind in ("weight", "bias")
    }


def test_a_file_in_metas_layout_gives_the_same_features(source: Trunk, trunk: Trunk, meta_file: Path) -> None:
    assert trunk_sha256(trunk) != trunk_sha256(source)
    load_trunk_weights(trunk, str(meta_file))
    assert_equal_trunks(trunk, source)


def test_a_tiny_file_of_real_size_in_metas_layout_loads(tmp_path: Path) -> None:
    original, copy = perturb(Trunk("tiny")), Trunk("tiny")
    load_trunk_weights(copy, str(save_meta_file(original, tmp_path / "sam2_hiera_tiny.pt")))
    assert trunk_sha256(copy) == trunk_sha256(original)


@pytest.mark.parametrize("prefix", ["vision_encoder.backbone.", "backbone.", "trunk.", ""])
def test_a_safetensors_file_of_hugging_face_or_of_a_part_loads(prefix: str, source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    state = {prefix + key: value for key, value in source.hiera.state_dict().items()}
    save_file(state | {"mask_decoder.foo": torch.ones(1)}, tmp_path / "trunk.safetensors")
    load_trunk_weights(trunk, str(tmp_path / "trunk.safetensors"))
    assert_equal_trunks(trunk, source)


def test_a_hugging_face_folder_loads(source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    save_file({f"vision_encoder.backbone.{key}": value for key, value in source.hiera.state_dict().items()}, tmp_path / "model.safetensors")
    load_trunk_weights(trunk, str(tmp_path))
    assert_equal_trunks(trunk, source)


@pytest.mark.parametrize(("claimed", "refused"), [(8 << 20, False), ((8 << 20) + 1, True), (1 << 62, True)])
def test_a_list_of_tensors_of_over_8_mib_is_not_read(claimed: int, refused: bool, trunk: Trunk, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(claimed.to_bytes(8, "little") + b"{}")
    with pytest.raises(DataError, match="cannot be read as weights; truncated") as caught:
        load_trunk_weights(trunk, str(path))
    assert (f"its header claims {claimed:,} bytes; at most 8,388,608 are read" in str(caught.value)) == refused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hash_written_once_stays_right(dtype: torch.dtype) -> None:
    """By hand: name, shape and float32 of each tensor in the order of the names, whatever the numbers are held in."""
    state = {"b": torch.tensor([[1.0, -2.0]], dtype=dtype), "a": torch.tensor(0.5, dtype=dtype)}
    told = b"a()" + struct.pack("<f", 0.5) + b"b(1, 2)" + struct.pack("<2f", 1.0, -2.0)
    assert trunk_sha256(SimpleNamespace(own_state=lambda: state)) == hashlib.sha256(told).hexdigest()  # type: ignore[arg-type]


def test_the_hash_is_of_the_numbers_whatever_file_they_came_from(source: Trunk, trunk: Trunk, meta_file: Path) -> None:
    load_trunk_weights(trunk, str(meta_file))
    before = trunk_sha256(trunk)
    assert before == trunk_sha256(source)
    with torch.no_grad():
        trunk.hiera.pos_embed[0, 0, 0, 0] += 1e-3
    assert trunk_sha256(trunk) != before


# what is refused


def refusal(trunk: Trunk, path: Path | str) -> str:
    """The message of the DataError: one line that names the file; the trunk stays as it was."""
    before = trunk_sha256(trunk)
    with pytest.raises(DataError) as caught:
        load_trunk_weights(trunk, str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert trunk_sha256(trunk) == before
    return message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_pt_file_is_refused(share: float, trunk: Trunk, meta_file: Path) -> None:
    content = meta_file.read_bytes()
    meta_file.write_bytes(content[: int(share * len(content))])
    message = refusal(trunk, meta_file)
    assert "truncated" in message or "no PyTorch file" in message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(share: float, source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    save_file(dict(source.hiera.state_dict()), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refusal(trunk, path)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors", ".txt"])
@pytest.mark.parametrize(
    "text",
    [
        "weights, as promised\n",
        "<!DOCTYPE html><html><body>Sign in to download</body></html>",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 897952466\n",
    ],
)
def test_a_text_file_is_refused(text: str, ending: str, trunk: Trunk, tmp_path: Path) -> None:
    path = tmp_path / f"sam2_hiera_large{ending}"
    path.write_text(text)
    message = refusal(trunk, path)
    assert "no PyTorch file" in message or "of another kind" in message


def test_no_random_bytes_end_in_a_stack_trace(trunk: Trunk, tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(300):
        path = tmp_path / f"random{number}.pt"
        opcodes = b"(.0123FGIJKLMNPQRSTUVXab]cdeghijlopqrst}u\x80\x02\x85\x86\x87\x88\x8c\x94"
        path.write_bytes(bytes(draw.choice(opcodes) if number % 2 else draw.randrange(256) for _ in range(draw.randrange(40))))
        with pytest.raises(DataError):
            load_trunk_weights(trunk, str(path))


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_foreign_state_dict_is_refused_with_a_look_at_its_keys(wrapped: bool, trunk: Trunk, tmp_path: Path) -> None:
    resnet = {"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64), "fc.bias": torch.ones(1000)}
    torch.save({"model": resnet} if wrapped else resnet, tmp_path / "resnet50.pth")
    message = refusal(trunk, tmp_path / "resnet50.pth")
    assert "conv1.weight" in message
    assert "image_encoder.trunk." in message


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"epoch": 3}, torch.ones(3), 7, None, {"model": {"a": 1}}])
def test_a_file_without_named_tensors_is_refused(content: object, trunk: Trunk, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    assert "no tensors by name" in refusal(trunk, tmp_path / "odd.pt")


@pytest.mark.parametrize(("found", "wanted"), [("tiny", "large"), ("small", "tiny"), ("base_plus", "tiny"), ("large", "base_plus")])
def test_the_file_of_another_size_is_refused_and_both_sizes_named(found: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "sam2.pt"
    torch.save({"model": {f"image_encoder.trunk.{to_meta_name(key)}": value for key, value in hollow_state(found).items()}}, path)
    with torch.device("meta"):
        trunk = Trunk(wanted)
    with pytest.raises(DataError) as caught:
        load_trunk_weights(trunk, str(path))
    assert f"'{found}'" in str(caught.value)
    assert f"'{wanted}'" in str(caught.value)


def test_a_trunk_of_no_known_size_is_refused(trunk: Trunk, source: Trunk, tmp_path: Path) -> None:
    state = {key: value for key, value in source.hiera.state_dict().items() if not key.startswith("blocks.5.")}
    torch.save(state, tmp_path / "short.pt")
    assert "no SAM 2 Hiera trunk of a known size" in refusal(trunk, tmp_path / "short.pt")


def test_a_position_embedding_of_odd_rank_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    torch.save({"pos_embed_window": torch.ones(8), "blocks.0.norm1.weight": torch.ones(8)}, tmp_path / "odd.pt")
    assert "of a known size" in refusal(trunk, tmp_path / "odd.pt")


def test_a_missing_and_a_misshapen_tensor_are_named(source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    state = dict(source.hiera.state_dict())
    del state["blocks.3.attn.qkv.bias"]
    torch.save(state, tmp_path / "missing.pt")
    assert "blocks.3.attn.qkv.bias" in refusal(trunk, tmp_path / "missing.pt")
    state = dict(source.hiera.state_dict()) | {"pos_embed": torch.zeros(1, 16, 14, 14)}
    torch.save(state, tmp_path / "shape.pt")
    assert "pos_embed" in refusal(trunk, tmp_path / "shape.pt")


class Intruder:
    """Unpickled without care, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.trace, "w"))


@pytest.mark.parametrize("raw", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(raw: bool, source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "sam2_hiera_large.pt"
    content = {"model": {**source.hiera.state_dict(), "intruder": Intruder(trace)}}
    if raw:
        path.write_bytes(pickle.dumps({"model": Intruder(trace)}, protocol=2))
    else:
        torch.save(content, path)
    assert "more than tensors" in refusal(trunk, path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Intruder(trace))).close()
    assert trace.exists()  # the trap was armed


@pytest.mark.parametrize("name", ["sam2_hiera_large.pt", "weights/sam2_hiera_large.pt", "a/b/c", "no such/file"])
def test_a_missing_path_is_refused_without_a_question_to_the_hub(
    name: str, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "model.weights" in refusal(trunk, name)


def test_a_folder_without_model_safetensors_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "no model.safetensors" in refusal(trunk, tmp_path)


def test_a_hub_id_without_a_network_says_what_to_do(trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refusal(trunk, "facebook/sam2-hiera-large")
    assert "Hugging Face hub" in message
    assert "give a file such as sam2_hiera_large.pt (--model.weights FILE), or train without weights (--config small)" in message


def test_a_file_can_be_read_from_anywhere_torch_wrote_it(source: Trunk, trunk: Trunk, tmp_path: Path) -> None:
    """The old format of torch.save, before its zip files, as many checkpoints still have it."""
    buffer = io.BytesIO()
    torch.save({"model": dict(source.hiera.state_dict())}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())
    load_trunk_weights(trunk, str(tmp_path / "old.pt"))
    assert_equal_trunks(trunk, source)
