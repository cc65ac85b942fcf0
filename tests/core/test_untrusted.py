"""JSON and YAML of strangers: each bound is one of its own, whatever a reader would say of the content."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpseg.core.untrusted import MAX_DEPTH, MAX_JSON, MAX_SCALAR, MAX_VALUES, MAX_YAML, parse_json, parse_yaml, read_json, read_yaml

CIRCLE = "&a {x: *a}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'"{"x" * MAX_JSON}"', "more than 4,096 KiB"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 32 levels"),
        ("[" * 200_000, "nested deeper than 32 levels"),
        ('{"a": 1, "b": 2, "a": 1}', "key 'a' is listed twice"),
        ("[1e999]", "the number 1e999 is too large"),
    ],
)
def test_json_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#" * (MAX_YAML + 1), "more than 256 KiB"),
        ("[" * MAX_DEPTH + "x" + "]" * MAX_DEPTH, "nested deeper than 32 levels"),
        ("[" * 600, "nested deeper than 32 levels"),
        (CIRCLE, "nested deeper than 32 levels"),
        ("a: 1\nb: 2\na: 1", "key 'a' is listed twice"),
        ("x" * (MAX_SCALAR + 1), "a value of more than 10,000 letters"),
        (f"- &a [{'x, ' * 400}]\n" + f"- [{'*a, ' * (MAX_VALUES // 400)}]", "more than 100,000 values"),
        ("!!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("!!int x", "invalid literal"),
    ],
)
def test_yaml_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)


def test_what_lies_within_all_bounds_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_json("[" * depth + "1" + "]" * depth) == parse_yaml("[" * depth + "1" + "]" * depth)
    assert parse_yaml("base: &a {x: 1}\nmore: {<<: *a, y: 2}") == {"base": {"x": 1}, "more": {"x": 1, "y": 2}}
    assert len(parse_yaml("[" + "x, " * 2000 + "]")) == 2000
    assert len(parse_yaml("x" * MAX_SCALAR)) == MAX_SCALAR
    assert parse_yaml("") is None


@pytest.mark.parametrize(("name", "limit", "read"), [("a.json", MAX_JSON, read_json), ("a.yaml", MAX_YAML, read_yaml)])
def test_a_file_that_is_too_long_is_not_cut_and_read(name: str, limit: int, read: object, tmp_path: Path) -> None:
    """A letter of two bytes counts as two: the part of such a file that is read has fewer letters than the limit."""
    spaces = "\u00a0" * (limit // 2) if name.endswith("json") else "# " + "ä" * (limit // 2)
    (tmp_path / name).write_text(f"1\n{spaces}\n1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"more than .* KiB"):
        read(tmp_path / name)  # type: ignore[operator]
