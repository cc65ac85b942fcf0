"""A task's id is its position in the list, saved with the model, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet

TASKS = TaskSet([Task("skin_lesion", "dermoscopy", "Skin lesion"), Task("colon_polyp", "endoscopy"), Task("a-1")])


def test_an_id_is_the_position_and_no_sort_order() -> None:
    assert [TASKS.id(name) for name in ("skin_lesion", "colon_polyp", "a-1")] == [0, 1, 2]
    assert [task.name for task in TASKS] == TASKS.names == ["skin_lesion", "colon_polyp", "a-1"]
    assert TASKS[TASKS.id("colon_polyp")].modality == "endoscopy"
    assert len(TASKS) == 3


def test_title_is_the_description_or_else_the_name() -> None:
    assert [task.title for task in TASKS] == ["Skin lesion", "colon_polyp", "a-1"]


def test_saving_and_loading_keeps_order_and_everything_else(tmp_path: Path) -> None:
    coded = Task("nodule", "CT", window="lung", finding="SCT:27925004:Nodule", anatomy="SCT:39607008:Lung")
    tasks = TaskSet([*TASKS, coded])
    tasks.save(tmp_path / "tasks.json")
    assert TaskSet.load(tmp_path / "tasks.json") == tasks


def test_the_order_in_the_file_is_the_order_of_the_ids(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    TASKS.save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"tasks": content["tasks"][::-1]}))
    assert TaskSet.load(path).id("skin_lesion") == 2
    assert TaskSet.load(path) != TASKS


def test_non_ascii_descriptions_survive_whatever_the_encoding_of_the_machine(tmp_path: Path) -> None:
    tasks = TaskSet([Task("a", description="Läsion, 病変")])
    tasks.save(tmp_path / "tasks.json")
    assert (tmp_path / "tasks.json").read_bytes().isascii()
    assert TaskSet.load(tmp_path / "tasks.json") == tasks


def test_unknown_task_lists_those_there_are_and_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown task 'skin_leson'; did you mean 'skin_lesion'\? \(tasks: skin_lesion, colon_polyp, a-1\)"
    ):
        TASKS.id("skin_leson")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "-a", ".a", "a\n", "ä"])
def test_a_name_must_be_fit_for_a_folder(name: str) -> None:
    with pytest.raises(UsageError, match="expected letters, digits, '_' and '-' only"):
        Task(name)


def test_a_task_set_needs_tasks_and_unique_names() -> None:
    with pytest.raises(UsageError, match="at least one task"):
        TaskSet([])
    with pytest.raises(UsageError, match="'a' is listed twice"):
        TaskSet([Task("a"), Task("b"), Task("a", "CT")])


def test_equal_sets_hash_alike() -> None:
    assert hash(TaskSet([Task("a")])) == hash(TaskSet([Task("a")]))
    assert TaskSet([Task("a")]) != TaskSet([Task("a", "CT")])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"tasks": {}}',
        '{"tasks": []}',
        '{"tasks": [{"name": "a b"}]}',
        '{"tasks": [{"nam": "a"}]}',
        '{"tasks": [{"name": 1}]}',
        '{"tasks": [{"name": "a", "modality": 1}]}',
        '{"tasks": [{"name": "a", "window": null}]}',
    ],
)
def test_a_file_that_is_no_task_list_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"tasks\.json: not a task list written by tpseg"):
        TaskSet.load(path)


def test_a_missing_task_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.json: not a task list.*No such file"):
        TaskSet.load(tmp_path / "tasks.json")


def test_tasks_from_a_mapping_keep_its_order() -> None:
    tasks = TaskSet.from_mapping({"b": {"modality": "CT", "description": "B"}, "a": {}})
    assert list(tasks) == [Task("b", "CT", "B"), Task("a", "unknown", "")]


def test_no_task_is_called_auto():
    with pytest.raises(UsageError, match="another name"):
        Task("auto")
