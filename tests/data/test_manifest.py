"""A `tasks.yaml` and its split files become cases, in their order; what is amiss is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpseg.core.errors import DataError, UsageError
from tpseg.data.manifest import DataSet, read_dataset, read_entries, read_split

HEAD = "image,mask,split,group\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def tasks_yaml(folder: Path, text: str) -> Path:
    write(folder / "split.csv", HEAD + "a.png,m.png,train,\n")
    return write(folder / "tasks.yaml", text)


def test_cases_come_in_the_order_of_the_file_with_paths_relative_to_each_file(tmp_path: Path) -> None:
    write(tmp_path / "z" / "split.csv", HEAD + "images/2.png,masks/2.png,test,p1\nimages/1.png,masks/1.png,train,\n")
    write(tmp_path / "a" / "split.csv", "image,mask,split\n/data/3.png,3m.png,val\n")
    path = write(
        tmp_path / "tasks.yaml",
        "tasks:\n  zebra: {modality: CT, data: z/split.csv, description: Stripes}\n  ant: {data: a/split.csv, root: /data}\n",
    )
    data = read_dataset(path)
    assert data.tasks.names == ["zebra", "ant"]  # no sort order anywhere
    assert [(task.modality, task.title) for task in data.tasks] == [("CT", "Stripes"), ("unknown", "ant")]
    assert [(case.task, case.name, case.split, case.group) for case in data.cases] == [
        ("zebra", "images/2.png", "test", "p1"),
        ("zebra", "images/1.png", "train", ""),
        ("ant", "/data/3.png", "val", ""),
    ]
    assert data.cases[0].image == tmp_path / "z" / "images" / "2.png"
    assert data.cases[0].mask == tmp_path / "z" / "masks" / "2.png"
    assert data.cases[2].image == Path("/data/3.png")


def test_a_folder_stands_for_its_tasks_yaml(tiny_dataset: Path) -> None:
    assert read_dataset(tiny_dataset.parent) == read_dataset(str(tiny_dataset))


def test_split_picks_cases_by_split_and_task(tiny_dataset: Path) -> None:
    data = read_dataset(tiny_dataset)
    assert len(data.split("train")) == 12
    assert [case.name for case in data.only(["breast_lesion"]).split("val")] == ["images/case06.png", "images/case07.png"]


def test_a_misspelt_or_empty_split_is_an_error(tiny_dataset: Path) -> None:
    data = read_dataset(tiny_dataset)
    with pytest.raises(UsageError, match="unknown split 'tets'; did you mean 'test'"):
        data.split("tets")
    with pytest.raises(DataError, match=r"tasks\.yaml: no case has split 'test'.*tpseg data split"):
        DataSet(data.source, data.tasks, ()).split("test")


def test_the_hash_changes_with_any_pixel_and_any_split_and_with_nothing_else(tiny_dataset: Path) -> None:
    before = read_dataset(tiny_dataset).sha256()
    assert read_dataset(tiny_dataset).sha256() == before
    mask = tiny_dataset.parent / "skin_lesion" / "masks" / "case03.png"
    content = mask.read_bytes()
    mask.write_bytes(content + b"\0")
    assert read_dataset(tiny_dataset).sha256() != before
    mask.write_bytes(content)
    split = tiny_dataset.parent / "skin_lesion" / "split.csv"
    split.write_text(split.read_text().replace(",val,", ",test,", 1))
    assert read_dataset(tiny_dataset).sha256() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks:\n\ta: {}\n", "not valid YAML"),
        ("task:\n  a: {data: split.csv}\n", "expected 'tasks:'"),
        ("tasks:\n  - a\n", "expected 'tasks:'"),
        ("", "expected 'tasks:'"),
        ("tasks:\n  a: split.csv\n", "task 'a': expected keys 'data'"),
        ("tasks:\n  a: {modality: CT}\n", "task 'a': expected keys 'data'"),
        ("tasks:\n  a: {data: split.csv, modalty: CT}\n", "unknown key 'modalty'; did you mean 'modality'"),
        ("tasks:\n  a: {data: split.csv, modality: }\n", "'modality' is None; expected text"),
        ("tasks:\n  1: {data: split.csv}\n", "task 1: a name must be text"),
        ("tasks:\n  a: {data: split.csv}\n  a: {data: other.csv}\n", "key 'a' is listed twice"),
        ("tasks:\n  a b: {data: split.csv}\n", "task name 'a b'"),
    ],
)
def test_bad_tasks_yaml_is_an_error_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tasks_yaml(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.yaml: cannot be read \(No such file"):
        read_dataset(tmp_path)
    path = write(tmp_path / "tasks.yaml", "tasks:\n  a: {data: gone.csv}\n")
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read .*split file of task 'a'"):
        read_dataset(path)


def test_entries_are_read_without_their_split_files(tmp_path: Path) -> None:
    path = write(tmp_path / "tasks.yaml", "tasks:\n  a: {data: gone.csv}\n")
    assert read_entries(path) == {"a": {"data": "gone.csv"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV table"),
        ("image;mask;split\na;b;train\n", "lacks column image, mask, split"),
        ("image,mask\na,b\n", "lacks column split"),
        (HEAD + "a,b,train,\nc,d,trian,\n", "line 3: split 'trian'; expected train, val or test"),
        (HEAD + "a,b,train,\n\nc,d,trian,\n", "line 4: split 'trian'"),
        (HEAD + "a,,train,\n", "line 2: an empty image or mask path"),
        (HEAD + "a,b,train,g,x,y\nc,d,train,g\n", "line 2: split"),
        (HEAD + "a,b,train,g\nc,d,train,g,x\n", "not a CSV table"),
    ],
)
def test_bad_split_file_is_an_error_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "split.csv", text)
    with pytest.raises(DataError) as caught:
        read_split(path, "a")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "split.csv", HEAD + "é.png,m.png,train,\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"not a CSV table.*utf-8"):
        read_split(path, "a")


def test_excel_byte_order_mark_numbers_blank_lines_and_na_are_taken_as_written(tmp_path: Path) -> None:
    path = write(tmp_path / "split.csv", "\ufeff" + HEAD + "001,NA,train,007\n\n002,m2,val\n\n")
    cases = read_split(path, "a")
    assert [(case.name, case.mask.name, case.split, case.group) for case in cases] == [
        ("001", "NA", "train", "007"),
        ("002", "m2", "val", ""),
    ]


def test_a_table_without_rows_has_no_cases(tmp_path: Path) -> None:
    assert read_split(write(tmp_path / "split.csv", HEAD), "a") == []
