"""An exported file says what PyTorch says: in every format, at every size and batch, for tasks mixed in a batch."""

from __future__ import annotations

import hashlib
import json

import onnx
import pytest
import torch
from exportable import make_model, noise
from torch.testing import assert_close

from tpseg.checkpoints.model_folder import save_model
from tpseg.core.errors import UsageError
from tpseg.export.formats import check_target
from tpseg.export.parity import MAX_DIFFERENCE, MIN_DICE, dice
from tpseg.export.traceable import Traceable, hardened_part
from tpseg.inference.exported import ExportedNetwork


@pytest.fixture(params=["onnx_file", "openvino_file", "torch_file"])
def file(request):
    return request.getfixturevalue(request.param)


def assert_same(network, part, image, task) -> None:
    maps = network(image, task, torch.arange(len(image)))
    with torch.inference_mode():
        expected = part(image, task)
    assert (maps.logits - expected.logits).abs().max() < MAX_DIFFERENCE
    assert (maps.similarity - expected.similarity).abs().max() < MAX_DIFFERENCE
    assert dice(maps.logits.numpy() > 0, expected.logits.numpy() > 0) >= MIN_DICE


def test_a_file_equals_pytorch_at_any_size_and_batch_with_the_task_as_input(file, model):
    network, part = ExportedNetwork(file, trust=True), hardened_part(model)
    for height, width in ((64, 64), (90, 70), (128, 480)):
        for tasks in ([1], [0, 2, 1], [2, 2, 0]):
            assert_same(network, part, noise(len(tasks), 3, height, width), torch.tensor(tasks))


def test_what_is_exported_gives_the_similarity_of_the_finest_pgtd():
    part = hardened_part(make_model()).double()
    image, task = noise(2, 3, 64, 64).double(), torch.tensor([0, 2])
    with torch.inference_mode():
        expected = part(image, task)
        assert len(expected.steps) == 3
        logits, similarity = Traceable(part)(image, task)
    assert_close(logits.float(), expected.logits.float(), rtol=0, atol=1e-4)
    assert_close(similarity.float(), expected.similarity.float(), rtol=0, atol=1e-4)


def test_the_tasks_differ_so_that_the_input_matters(onnx_file):
    image = noise(1, 3, 64, 64)
    maps = ExportedNetwork(onnx_file)(image, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    assert maps.logits.shape == (3, 1, 64, 64)
    assert (maps.logits[0] - maps.logits[1]).abs().max() > 0.1
    assert (maps.logits[1] - maps.logits[2]).abs().max() > 0.1


def test_rows_say_which_image_an_output_is_of(onnx_file):
    network, image = ExportedNetwork(onnx_file), noise(2, 3, 64, 64)
    swapped = network(image, torch.tensor([0, 1]), torch.tensor([1, 0]))
    plain = network(image.flip(0), torch.tensor([0, 1]), torch.arange(2))
    assert torch.equal(swapped.logits, plain.logits)


def test_an_onnx_file_says_what_it_is(onnx_file, model):
    file = onnx.load(onnx_file)
    about = json.loads({entry.key: entry.value for entry in file.metadata_props}["tpseg"])
    assert [task["name"] for task in about["tasks"]] == model.tasks.names
    assert about["tasks"][2]["modality"] == "endoscopy"
    assert (about["image_size"], about["threshold"], about["precision"], about["takes_task"]) == (64, 0.5, "float32", True)
    assert about["mean"] == [0.485, 0.456, 0.406]
    sizes = {value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in file.graph.input}
    assert sizes == {"image": ["batch", 3, "height", "width"], "task": ["batch"]}
    assert [value.name for value in file.graph.output] == ["logits", "similarity"]
    assert "/" not in "".join(entry.value for node in file.graph.node for entry in node.metadata_props)  # no paths of this machine


def test_the_provenance_hash_is_that_of_the_model_folders_file(model, description, tmp_path):
    save_model(model, tmp_path / "model")
    assert description.provenance_sha256 == hashlib.sha256((tmp_path / "model" / "provenance.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("names", [["polyp"], ["polyp", "skin_lesion"], ["skin_lesion", "breast_lesion", "polyp"]])
def test_a_part_gives_its_tasks_what_the_whole_model_gives_them(model, names):
    whole, part = hardened_part(model), hardened_part(model, names)
    assert part.tasks.names == [name for name in model.tasks.names if name in names]
    image = noise(1, 3, 96, 64)
    for name in names:
        expected = whole(image, torch.tensor([whole.tasks.id(name)])).logits
        assert torch.equal(part(image, torch.tensor([part.tasks.id(name)])).logits, expected)
        asked = [torch.tensor([part.tasks.id(name)])] if len(names) > 1 else []
        torch.testing.assert_close(Traceable(hardened_part(model, names))(image, *asked)[0], expected, rtol=0, atol=1e-3)


def test_a_file_of_one_task_holds_one_route_a_block_and_no_other_tasks_weights(model):
    part = Traceable(hardened_part(model, ["polyp"])).model
    blocks = [block.adapter for block in part.adapters.blocks]
    assert [sum(name.endswith("down") for name, _ in block.named_parameters()) for block in blocks] == [1] * len(blocks)
    assert [block.shared is None for block in blocks] == model.gate.table()[2]
    finest = part.decoder.steps[-1]
    assert finest.memory.prototypes.shape[0] == len(finest.head.outputs) == 1


def test_exporting_leaves_the_model_as_it_was(model):
    image, before = noise(1, 3, 64, 64), set(model.state_dict())
    expected = model(image, torch.tensor([1])).logits
    Traceable(hardened_part(model, ["polyp"]))
    assert set(model.state_dict()) == before
    assert torch.equal(model(image, torch.tensor([1])).logits, expected)
    assert not model.config.hardened


@pytest.mark.parametrize(
    ("out", "format", "message"),
    [
        ("model.onnx", "onx", "format: found 'onx'; did you mean 'onnx'?"),
        ("model.onnx", "torch", "model.onnx: a file of format torch ends in .pt2; name it model.pt2"),
    ],
)
def test_what_can_be_told_before_the_work_is(tmp_path, out, format, message):
    with pytest.raises(UsageError) as error:
        check_target(tmp_path / out, format)
    assert message in str(error.value)


def test_an_unknown_task_is_named(model):
    with pytest.raises(UsageError, match="unknown task 'polp'; did you mean 'polyp'"):
        hardened_part(model, ["polp"])


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("tpseg.core.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[export\]' in a checkout"):
        check_target(tmp_path / "model.onnx", "onnx")
    with pytest.raises(UsageError, match=r"pip install '\.\[export\]' in a checkout"):
        ExportedNetwork(_empty(tmp_path / "model.onnx"))
    with pytest.raises(UsageError, match=r"pip install '\.\[openvino\]' in a checkout"):
        ExportedNetwork(_empty(tmp_path / "model.xml"))


def _empty(path):
    path.write_bytes(b"")
    return path
