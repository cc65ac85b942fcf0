"""What `tpseg info` says."""

from __future__ import annotations

import io
import json
import re

import pytest
from miniature import TASKS
from rich.console import Console

from tpseg.checkpoints.inspection import describe, info_table
from tpseg.checkpoints.model_folder import load_model
from tpseg.core.errors import DataError, UsageError


def shown(content):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(info_table(content))
    return console.export_text()


def test_hiera_large_has_the_papers_numbers():
    """212,149,296 in the trunk, 3,373,056 in one route, at most 3.38 M for one more task."""
    content = describe("paper", tasks=8)
    numbers = content["parameters"]
    assert numbers["trunk"] == 212_149_296
    assert numbers["adapter_route"] == 3_373_056
    assert numbers["adapter_route"] < numbers["per_task"] <= 3_380_000
    assert numbers["total"] == sum(numbers[part] for part in ("trunk", "adapters", "neck", "decoder"))
    assert numbers["trainable"] == numbers["total"] - numbers["trunk"]  # frozen
    assert content["image_size"] == 512
    assert 403e9 < content["flops"] < 600e9  # the trunk alone: 403 GFLOP at 512 px
    assert content["splits"] is None


@pytest.mark.usefixtures("miniature_trunk")
def test_each_task_adds_what_per_task_says():
    three, four = (describe("small", tasks=number)["parameters"] for number in (3, 4))
    assert four["total"] - three["total"] == three["per_task"] == four["per_task"]
    assert three["trainable"] == three["total"]


@pytest.mark.usefixtures("miniature_trunk")
def test_flops_grow_with_the_area():
    assert describe("small", 2, 256)["flops"] == pytest.approx(4 * describe("small", 2, 128)["flops"], rel=0.1)


@pytest.mark.usefixtures("miniature_trunk")
def test_presets_may_be_laid_over_each_other():
    content = describe("small,baseline", tasks=2)
    assert content["parameters"]["per_task"] == 0
    assert not {"adapters", "adapter_route"} & content["parameters"].keys()


@pytest.mark.usefixtures("miniature_trunk")
def test_a_run_tells_its_tasks_splits_and_provenance(trained):
    content = json.loads(json.dumps(describe(str(trained))))
    assert [task["name"] for task in content["tasks"]] == list(TASKS)
    model = load_model(trained)
    assert content["splits"] == model.splits()
    assert content["parameters"]["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert content["image_size"] == 64
    assert content["provenance"]["seed"] == 42
    text = shown(content)
    assert "dark_disc" in text
    assert f"{content['parameters']['total']:,}" in text
    assert content["provenance"]["data"]["sha256"] in text


@pytest.mark.usefixtures("miniature_trunk")
def test_the_table_of_a_preset_says_nothing_of_training():
    content = describe("small", tasks=2)
    text = shown(content)
    assert "task2" in text
    assert re.search(rf"GMAC at 256 px +│ +{content['flops'] / 2e9:,.1f} ", text)
    assert re.search(rf"GFLOP at 256 px \(2 x GMAC\) +│ +{content['flops'] / 1e9:,.1f} ", text)
    assert "SHA-256" not in text


@pytest.mark.parametrize("source", ["smal", "nowhere/at/all", "small,nothing"])
def test_what_is_neither_model_nor_preset_is_refused(source):
    with pytest.raises(UsageError, match=source):
        describe(source)


def test_a_misspelt_preset_is_told_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'small'"):
        describe("smal")


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("content", [None, "{"])
def test_a_damaged_model_folder_is_named(trained, tmp_path, content):
    for file in (trained / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "provenance.json").unlink()
    if content is not None:
        (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(DataError, match=r"provenance\.json"):
        describe(str(tmp_path))


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize(("tasks", "size"), [(0, None), (-1, None), (2, 0)])
def test_numbers_that_make_no_sense_are_refused(tasks, size):
    with pytest.raises(UsageError):
        describe("small", tasks, size)


def test_the_smallest_size_that_makes_sense_is_one_pixel():
    """It is padded to a whole cell of the trunk, and so costs what one cell does."""
    assert describe("small", 1, 1)["flops"] == describe("small", 1, 32)["flops"]
