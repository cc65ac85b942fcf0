"""JSON and YAML that strangers may have written: bounds on size, depth and repetition before a value is built from them.

What can be read here can also be shown, copied and merged at a price in proportion to its file. All functions raise ValueError
with a few words on what is wrong; callers turn it into the sentence that names the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_JSON = 4 << 20
"""Bytes of a JSON file of ours; the largest, a summary of scores, has some ten thousand."""
MAX_YAML = 256 << 10
"""Bytes of a YAML file; a tasks.yaml of a thousand tasks has half of it. PyYAML takes seconds for more."""
MAX_DEPTH = 32
"""Lists and objects within each other; our own have six."""
MAX_VALUES = 100_000
"""Values of a YAML file with its anchors written out, which is what a program sees that walks through it."""
MAX_SCALAR = 10_000
"""Letters of one YAML value; a number of base 60 takes time with the square of them."""


def read_text(path: Path, limit: int) -> str:
    """A UTF-8 text file of at most `limit` bytes; raises OSError where there is none to read, ValueError."""
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit / 1024:,.0f} KiB")
    return content.decode("utf-8")


def read_json(path: Path) -> Any:
    """A JSON file of ours: small, shallow, no key twice; raises OSError, ValueError."""
    return parse_json(read_text(path, MAX_JSON))


def parse_json(text: str) -> Any:
    """JSON with no key twice in an object and at most MAX_DEPTH levels. NaN passes, for scores may be; numbers beyond it do not."""
    if len(text) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON >> 10:,} KiB")
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    _refuse_depth(content)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key '{twice[:60]}' is listed twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_depth(content: Any) -> None:
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        containers = [value for value in level if isinstance(value, (dict, list))]
        level = [inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)]


def read_yaml(path: Path) -> Any:
    """A YAML file's content, see parse_yaml; raises OSError, ValueError."""
    return parse_yaml(read_text(path, MAX_YAML))


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text: no tags that make objects, no key twice, anchors only as far as they stay small."""
    if len(text) > MAX_YAML:
        raise ValueError(f"more than {MAX_YAML >> 10:,} KiB")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (TypeError, KeyError, AttributeError, OverflowError) as error:  # a tag before a value that is none of its kind
        raise ValueError(f"a value that does not fit its tag ({error})") from error


def _measure(root: yaml.Node) -> None:
    """Raise ValueError for a document that is too deep or, written out, too large; an anchor's content counts where it is used.

    One that contains itself is nested without end, which Python ends with a RecursionError.
    """
    sizes: dict[int, tuple[int, int]] = {}

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Values and levels."""
        if id(node) in sizes:
            return sizes[id(node)]
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > MAX_SCALAR:
                raise ValueError(f"a value of more than {MAX_SCALAR:,} letters")
            return 1, 1
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        found = [measure(one) for one in inner]
        size, depth = 1 + sum(count for count, _ in found), 1 + max((levels for _, levels in found), default=0)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if size > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values, its anchors written out")
        sizes[id(node)] = size, depth
        return size, depth

    measure(root)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader takes the last of two equal keys; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(problem=f"key '{key.value[:60]}' is listed twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def short(value: object) -> str:
    """What was found where something else was expected, in at most 60 letters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def markdown(text: str) -> str:
    """Text for a Markdown file, in one line: no HTML, no link and no table cell begins or ends in it."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", printable(" ".join(text.split())))


def printable(text: str) -> str:
    r"""A text with its control characters spelled out, `\x1b`: they could clear a terminal, retitle it or forge a line.

    Among them those that turn the direction of writing, and what no encoding knows, as file names can hold.
    """
    return "".join(character if character.isprintable() or character in " \t" else ascii(character)[1:-1] for character in text)
